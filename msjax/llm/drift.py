"""Does the pilot still speak for what is asked now? Rates as they come in, and a test on them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import beta

from msjax.data.trajectory import Trajectory
from msjax.decision.monitor import RateTest
from msjax.errors import InputError, require_uncertain
from msjax.intervals import Interval

__all__ = ["RESTART", "AnswerMonitor", "Drift", "RateMonitor"]

RATES = ("p0", "p_ic", "p_ci")
RESTART = 200
"""Live questions after which another test begins, which notices what changes later."""
STRATA = ("low score", "middle score", "high score")


class Drift(NamedTuple):
    """A rate that is not what the pilot says.

    Attributes:
        rate: its name.
        questions: live questions until it was noticed.
        pilot, live: share of it in either, over first answers and first revisions.
        p_value: bound on the probability of ever seeing so much where nothing has changed.
    """

    rate: str
    questions: int
    pilot: float
    live: float
    p_value: float


class RateMonitor:
    """Follows p0, p_ic and p_ci of live runs, and tests them against the pilot's at any time.

    Of each question the first answer (right?) and its revision (a wrong one repaired? a right one
    broken?) count, in the pilot as in live runs. So both have the same trials however many rounds
    they were asked for, those of one rate belong to different questions, and they are independent
    with one rate however much questions differ. Each rate is tested by
    `msjax.decision.monitor.RateTest` at a third of `false_alarm`, which thus bounds the probability
    of any alarm where nothing has changed, however long one looks.

    A rate of revision is compared only if the pilot revised every first answer of its kind, since
    what cut the others short may have chosen among them.

    Args:
        pilot: runs of the pilot.
        false_alarm: probability of any alarm where nothing has changed, in (0, 1).
        revisions: whether p_ic and p_ci are tested. They must not be where a rule decides on the
            first revision by what a question showed, for the revisions that are seen are then not a
            fair sample.

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
            raise InputError("pilot holds no runs; record one with `msjax run`")
        require_uncertain("false_alarm", false_alarm)
        self.alarms: list[Drift] = []
        self._level = false_alarm / len(RATES)
        self._pilot = sum((_first_trials(run) for run in pilot), np.zeros((3, 2), dtype=int))
        self._live = np.zeros((3, 2), dtype=int)
        first, *moves = self._pilot.sum(axis=1)
        right = self._pilot[0, 0]
        complete = (True, moves[0] == first - right, moves[1] == right)
        self._tested = [
            rate
            for rate, is_complete in zip(RATES, complete, strict=True)
            if is_complete and (revisions or rate == RATES[0])
        ]
        self._tests = RateTest(*self._pilot.T)
        self._questions = 0
        scores = [run.scores[0] for run in pilot]
        known = [score for score in scores if score is not None]
        self._cuts = np.quantile(known, [1 / 3, 2 / 3]) if len(known) == len(scores) else None
        self._moves: dict[str, np.ndarray] = {}

    def add(self, run: Trajectory) -> list[Drift]:
        """One more live run; returns the rates that it shows to have drifted."""
        self._questions += 1
        self._live += _first_trials(run)
        self._moves.setdefault(self._stratum(run), np.zeros((3, 2), dtype=int))
        self._moves[self._stratum(run)] += _trials(run.correct)
        found = []
        p_values = self._tests.update(*self._live.T)
        noticed = {old.rate for old in self.alarms}
        for rate, pilot, live, p in zip(RATES, self._pilot, self._live, p_values, strict=True):
            if p <= self._level and rate in self._tested and rate not in noticed:
                was, now = float(pilot[0] / pilot.sum()), float(live[0] / live.sum())
                found.append(Drift(rate, self._questions, was, now, float(p)))
        if self._questions % RESTART == 0:
            self._tests.restart()
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


class AnswerMonitor:
    """Follows what answers show without labels, and tests it against the pilot's at any time.

    Two rates, each at half of `false_alarm`, by `msjax.decision.monitor.RateTest`: "answered", the
    share of first answers from which something was read, and "changed", the share of second answers
    that differ from the first. As of `RateMonitor`, each question counts once for either.

    Args:
        pilot: runs with answers.
        false_alarm: probability of any alarm where nothing has changed, in (0, 1).

    Attributes:
        alarms: rates found to have drifted, in the order in which they were noticed.

    Raises:
        InputError: a pilot without runs or without answers, or false_alarm outside (0, 1).

    Reference: docs/theory.md C6.
    """

    RATES = ("answered", "changed")

    def __init__(self, pilot: Sequence[Trajectory], *, false_alarm: float = 0.01) -> None:
        if not any(answer is not None for run in pilot for answer in run.answers):
            raise InputError("pilot holds no answers; record one with `msjax run`")
        require_uncertain("false_alarm", false_alarm)
        self.alarms: list[Drift] = []
        self._level = false_alarm / len(self.RATES)
        self._pilot = sum((_shown(run.answers) for run in pilot), np.zeros((2, 2), dtype=int))
        self._live = np.zeros((2, 2), dtype=int)
        self._changes = all(len(run.answers) > 1 for run in pilot)
        self._tests = RateTest(*self._pilot.T)
        self._questions = 0

    def add(self, answers: Sequence[str | None], *, changes: bool) -> list[Drift]:
        """One more live question; returns the rates that it shows to have drifted.

        Args:
            answers: in order.
            changes: whether the second one was asked for whatever the first one showed; where it
                was not, it is no fair sample.
        """
        self._questions += 1
        shown = _shown(answers)
        if not (changes and self._changes):
            shown[1] = 0
        self._live += shown
        noticed = {old.rate for old in self.alarms}
        p_values = self._tests.update(*self._live.T)
        found = []
        for rate, pilot, live, p in zip(self.RATES, self._pilot, self._live, p_values, strict=True):
            if p <= self._level and rate not in noticed:
                was, now = float(pilot[0] / pilot.sum()), float(live[0] / live.sum())
                found.append(Drift(rate, self._questions, was, now, float(p)))
        if self._questions % RESTART == 0:
            self._tests.restart()
        self.alarms += found
        return found


def _shown(answers: Sequence[str | None]) -> np.ndarray:
    """Whether the first answer was read, and whether the second differs from it [rate, 2]."""
    counts = np.zeros((2, 2), dtype=int)
    counts[0, int(answers[0] is None)] = 1
    if len(answers) > 1:
        counts[1, int(answers[1] == answers[0])] = 1
    return counts


def _first_trials(run: Trajectory) -> np.ndarray:
    """Successes and failures [rate, 2] of the first answer and of its revision."""
    return _trials(run.correct[:2])


def _trials(correct: Sequence[bool]) -> np.ndarray:
    """Successes and failures [rate, 2] of the first answer and of every move."""
    counts = np.zeros((3, 2), dtype=int)
    counts[0, 0 if correct[0] else 1] = 1
    for before, now in zip(correct[:-1], correct[1:], strict=True):
        counts[1 + before, 0 if now != before else 1] += 1
    return counts
