"""Talks with an engine, and a small plan of a recorded run."""

import itertools
from typing import Any

from msjax.llm.record import RunPlan


def talk(engine, talks):
    """The completions that each talk, a list of turns, was answered with."""
    heard = [[] for _ in talks]

    def one(turns, completions):
        for turn in turns:
            completions.append((yield turn))

    engine.converse(itertools.starmap(one, zip(talks, heard, strict=True)))
    return heard


def plan(**changes: Any) -> RunPlan:
    fields = {
        "model": "scripted",
        "start": 0,
        "count": 5,
        "rounds": 2,
        "seed": 4,
        "settings": {"rule": "fixed: 2", "seed": 4},
    }
    return RunPlan(**fields | changes)
