"""Which strategies recorded runs can compare, and what to record for those that they cannot."""

from typing import NamedTuple

from msjax.data.runs import Runs
from msjax.decision.pilot import Pilot

__all__ = ["Strategy", "advise", "strategies_of"]


class Strategy(NamedTuple):
    """A way to spend tokens on a question, and what it needs.

    Attributes:
        name: what it is called.
        lacks: options of `msjax run` that record what is missing; "" where the runs have it.
    """

    name: str
    lacks: str


def strategies_of(pilot: Pilot) -> tuple[Strategy, ...]:
    """The first answer, a longer one, revising, votes, best scores, and loops with a judge.

    Args:
        pilot: rounds, samples and longer answers of one benchmark.
    """
    rounds, samples = pilot.seen, pilot.samples
    revised = rounds is not None and rounds.rounds > 0
    sampled = samples is not None and samples.samples > 1
    judge = "--judge self"

    def judged(runs: Runs | None) -> bool:
        return runs is not None and bool((runs.verdicts >= 0).any())

    def scored(runs: Runs | None) -> bool:
        return runs is not None and runs.scored

    several = "--samples N" * (not sampled)
    return (
        Strategy("first answer", ""),
        Strategy("think longer", "" if pilot.longer is not None else "--longer TOKENS"),
        Strategy("revise", "" if revised else "--rounds K"),
        Strategy(
            "revise until accepted",
            " ".join(x for x in ("--rounds K" * (not revised), judge * (not judged(rounds))) if x),
        ),
        Strategy(
            "resample until accepted",
            " ".join(x for x in (several, judge * (not judged(samples))) if x),
        ),
        Strategy("vote", several if samples is None or samples.answered else "answers"),
        Strategy(
            "best of N",
            " ".join(x for x in (several, "--score confidence" * (not scored(samples))) if x),
        ),
    )


def advise(pilot: Pilot) -> str:
    """What can be compared and what must be recorded first, in words."""
    found = strategies_of(pilot)
    there = ", ".join(one.name for one in found if not one.lacks)
    lacking = [f"{one.name} ({one.lacks})" for one in found if one.lacks]
    if not lacking:
        return f"All strategies can be compared: {there}; `msjax card` with all files does."
    return (
        f"Strategies that can be compared: {there}. Not recorded: {', '.join(lacking)}; "
        "`msjax run OUT --pilot-for strategies` records all in one go, first answers shared."
    )
