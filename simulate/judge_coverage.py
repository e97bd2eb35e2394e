"""How often the intervals of a judge's rates hold what is true of its questions.

Pilots of known rates are simulated and fitted as `msjax fit` fits them. Questions are alike, or
each has rates of its own; runs have all their answers, or end when the judge accepts one. Counted
is how often the 90 % intervals of false accept, false reject and discrimination hold the mean over
all questions, and how often the judge is said to tell right from wrong.

    python -m simulate.judge_coverage --json simulate/results/judge_coverage.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import Float
from tqdm import tqdm

from msjax._io import write_text
from msjax.cli.tables import markdown
from msjax.data.runs import MISSING, Runs
from msjax.intervals import Interval
from msjax.posterior.judge import fit_judge

ANSWERS = 4
QUESTIONS = (30, 100, 300)
CONCENTRATION = 3.0
"""Of the Beta distributions from which questions that differ draw their rates."""
JUDGES = {"good": (0.8, 0.2), "poor": (0.6, 0.5), "worthless": (0.4, 0.4)}
P0, P_IC, P_CI = 0.5, 0.25, 0.15


@dataclass(frozen=True)
class Study:
    """Fit simulated pilots of every judge, kind of questions and number of questions.

    python -m simulate.judge_coverage --json simulate/results/judge_coverage.json
    """

    json: Path | None = None
    """Write the results here."""
    pilots: int = 300
    """Pilots of every cell."""
    seed: int = 0
    """Seed of all random draws."""

    def run(self) -> None:
        """Print a table, and write it."""
        cells = [
            (name, differ, until, n)
            for name in JUDGES
            for differ in (False, True)
            for until in (False, True)
            for n in QUESTIONS
        ]
        found = []
        for number, (name, differ, until, n) in enumerate(tqdm(cells, unit="cell", disable=None)):
            random = np.random.default_rng([self.seed, number])
            found.append(covered(name, differ, until, n, self.pilots, random))
        print(_table(found))
        if self.json is not None:
            result = {"pilots": self.pilots, "seed": self.seed, "cells": found}
            write_text(self.json, json.dumps(result) + "\n")


def simulated(
    s: float, f: float, differ: bool, until: bool, questions: int, random: np.random.Generator
) -> Runs:
    """A pilot of `ANSWERS` answers a question, or fewer where the judge accepts one."""

    def rates(mean: float) -> Float[np.ndarray, "question 1"]:
        if not differ:
            return np.full((questions, 1), mean)
        shapes = CONCENTRATION * mean, CONCENTRATION * (1 - mean)
        return random.beta(*shapes, (questions, 1))

    p0, p_ic, p_ci, accept_right, accept_wrong = map(rates, (P0, P_IC, P_CI, s, f))
    right = random.random((questions, ANSWERS)) < p0
    for k in range(1, ANSWERS):
        flips = random.random(questions) < np.where(right[:, k - 1], p_ci[:, 0], p_ic[:, 0])
        right[:, k] = right[:, k - 1] ^ flips
    verdicts = random.random(right.shape) < np.where(right, accept_right, accept_wrong)
    correct = right.astype(int)
    if until:
        over = np.cumsum(verdicts, axis=1) - verdicts > 0
        correct = np.where(over, MISSING, correct)
        return Runs.from_arrays(correct, verdicts=np.where(over, MISSING, verdicts))
    return Runs.from_arrays(correct, verdicts=verdicts)


def covered(
    name: str, differ: bool, until: bool, questions: int, pilots: int, random: np.random.Generator
) -> dict[str, Any]:
    """How often each interval held the truth, and its mean width."""
    s, f = JUDGES[name]
    truth = {"false_accept": f, "false_reject": 1 - s, "discrimination": s - f}
    held, width, tells = dict.fromkeys(truth, 0), dict.fromkeys(truth, 0.0), 0
    for _ in range(pilots):
        fitted = fit_judge(simulated(s, f, differ, until, questions, random))
        assert fitted is not None
        for what, value in truth.items():
            interval: Interval = getattr(fitted, what)
            held[what] += interval.low <= value <= interval.high
            width[what] += (interval.high - interval.low) / pilots
        tells += fitted.tells
    return {
        "judge": name,
        "questions_differ": differ,
        "until_accepted": until,
        "questions": questions,
        "held": {what: number / pilots for what, number in held.items()},
        "width": {what: round(value, 3) for what, value in width.items()},
        "tells": tells / pilots,
    }


def _table(found: list[dict[str, Any]]) -> str:
    rows = [
        [
            one["judge"],
            "differ" if one["questions_differ"] else "alike",
            "until accepted" if one["until_accepted"] else "all answers",
            str(one["questions"]),
            *(f"{value:.2f}" for value in one["held"].values()),
            f"{one['width']['discrimination']:.2f}",
            f"{one['tells']:.2f}",
        ]
        for one in found
    ]
    header = ["judge", "questions", "runs", "number", "f", "1 - s", "s - f", "width", "tells"]
    return markdown(header, rows)


if __name__ == "__main__":
    tyro.cli(Study).run()
