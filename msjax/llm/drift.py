"""Does the pilot still speak for what is asked now? Rates as they come in, and a test on them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import betaln
from scipy.stats import beta

from msjax.data.store import Trajectory
from msjax.errors import InputError
from msjax.evaluate.paired import Interval

__all__ = ["Drift", "RateMonitor", "log_evidence_against"]

RATES = ("p0", "p_ic", "p_ci")
STRATA = ("low score", "middle score", "high score")


class Drift(NamedTuple):
    """A rate that is not what the pilot says.

    Attributes:
        rate: its name.
        questions: live questions until it was noticed.
        pilot, live: share of it in either, over first chances of each question.
        evidence: the factor by which live runs speak against the pilot.
    """

    rate: str
    questions: int
    pilot: float
    live: float
    evidence: float


class RateMonitor:
    """Follows p0, p_ic and p_ci of live runs, and tests them against the pilot's at any time.

    Of each question three trials count: whether the first answer is right, whether the first
    revision of a wrong answer repairs it, whether the first revision of a right one breaks it. So
    trials of one rate belong to different questions and are independent however much questions
    differ. With s successes and f failures, and the pilot's law Beta(a, b) of the rate (uniform
    prior), the evidence against the pilot is

        E = B(1 + s, 1 + f) / [B(a + s, b + f) / B(a, b)],

    a uniform law of the rate against the pilot's. If the pilot's law holds, E is a martingale of
    mean 1, so it ever reaches 3 / false_alarm, for any of the three rates, with probability at most
    `false_alarm`, however long one looks (Ville).

    Args:
        pilot: runs of the pilot.
        false_alarm: probability of any alarm where nothing has changed, in (0, 1).
        revisions: whether p_ic and p_ci are tested. They must not be where a rule decides by what a
            question showed, for the revisions that are seen are then not a fair sample.

    Attributes:
        alarms: rates found to have drifted, in the order in which they were noticed.

    Raises:
        InputError: no pilot runs, or false_alarm outside (0, 1).

    Reference: docs/theory.md C6.
    """

    def __init__(
        self, pilot: Sequence[Trajectory], *, false_alarm: float = 0.01, revisions: bool = True
    ) -> None:
        if not pilot:
            raise InputError("pilot holds no runs; record one with `msjax generate`")
        if not 0 < false_alarm < 1:
            raise InputError(f"false_alarm is {false_alarm}; give a probability in (0, 1)")
        self.alarms: list[Drift] = []
        self._limit = math.log(len(RATES) / false_alarm)
        self._tested = RATES if revisions else RATES[:1]
        self._pilot, self._live = np.zeros((2, 3, 2), dtype=int)
        self._questions = 0
        for run in pilot:
            self._pilot += _chances(run, first=True)
        scores = [run.scores[0] for run in pilot]
        known = [score for score in scores if score is not None]
        self._cuts = np.quantile(known, [1 / 3, 2 / 3]) if len(known) == len(scores) else None
        self._moves: dict[str, np.ndarray] = {}

    def add(self, run: Trajectory) -> list[Drift]:
        """One more live run; returns the rates that it shows to have drifted."""
        self._questions += 1
        self._live += _chances(run, first=True)
        self._moves.setdefault(self._stratum(run), np.zeros((3, 2), dtype=int))
        self._moves[self._stratum(run)] += _chances(run, first=False)
        found = []
        for rate, (a, b), (s, f) in zip(RATES, 1 + self._pilot, self._live, strict=True):
            log_evidence = log_evidence_against(a, b, s, f)
            noticed = rate not in self._tested or any(old.rate == rate for old in self.alarms)
            if not noticed and log_evidence >= self._limit:
                pilot, live = a / (a + b), s / (s + f)
                evidence = math.exp(min(log_evidence, 700.0))
                found.append(Drift(rate, self._questions, float(pilot), float(live), evidence))
        self.alarms += found
        return found

    def estimates(self) -> dict[str, dict[str, Interval]]:
        """Posterior mean and 90 % interval of each rate by stratum, from all live answers so far.

        Strata are thirds of the pilot's first answers by score, or "all" where these have none.
        Uniform priors; intervals take the moves of one question for independent.
        """
        found: dict[str, dict[str, Interval]] = {}
        for stratum, counts in sorted(self._moves.items()):
            found[stratum] = {}
            for rate, (yes, no) in zip(RATES, 1 + counts, strict=True):
                low, high = beta.ppf([0.05, 0.95], yes, no)
                found[stratum][rate] = Interval(float(yes / (yes + no)), float(low), float(high))
        return found

    def _stratum(self, run: Trajectory) -> str:
        score = run.scores[0]
        if self._cuts is None or score is None:
            return "all"
        return STRATA[int(np.searchsorted(self._cuts, score))]


def log_evidence_against(a: int, b: int, successes: int, failures: int) -> float:
    """Logarithm of E of trials against the law Beta(a, b) of their rate; see `RateMonitor`."""
    either = betaln(a + successes, b + failures) - betaln(a, b)
    return float(betaln(1 + successes, 1 + failures) - either)


def _chances(run: Trajectory, *, first: bool) -> np.ndarray:
    """Successes and failures [rate, 2]: of every move, or of the first chance of each rate."""
    counts = np.zeros((3, 2), dtype=int)
    counts[0, 0 if run.correct[0] else 1] = 1
    for before, now in zip(run.correct[:-1], run.correct[1:], strict=True):
        if not (first and counts[1 + before].any()):
            counts[1 + before, 0 if now != before else 1] += 1
    return counts
