"""Benchmarks that claims are checked on: their questions, exact distributions and simulated counts.

Simulated runs draw a question by its weight for every path. Alike paths are counted together and
thinned as in `msjax.simulation.ensemble`, here with NumPy, for all questions of a benchmark at
once.
"""

from collections import defaultdict
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Key

from msjax.simulation.enumeration import exact_curve
from msjax.verify.claim import Laboratory
from msjax.verify.sampling import generator

__all__ = [
    "BENCHMARKS",
    "BETA",
    "EASY_REMAIN",
    "HARD_REMAIN",
    "RISES_THEN_FALLS",
    "ROUNDS",
    "Benchmark",
    "BetaDistributions",
    "ExactFlows",
    "Question",
    "QuestionCounts",
    "exact_accuracies",
    "exact_flows",
    "question_counts",
    "simulated_accuracies",
    "thin",
]

Question = tuple[float, float, float, float]
"""p0, p_ic, p_ci and the weight."""

Benchmark = tuple[Question, ...]
"""All questions; the weights add up to 1."""

Values = Float[np.ndarray, "..."]


class BetaDistributions(NamedTuple):
    """Parameters of the Beta distributions from which probabilities of questions are drawn."""

    p0: tuple[float, float]
    p_ic: tuple[float, float]
    p_ci: tuple[float, float]


ROUNDS = 16
"""Rounds at which accuracies are compared."""

_LONG = 100
"""Rounds after which |r|^k is no longer seen: |r| is at most .75 below, or 1."""

BETA = BetaDistributions((2.0, 1.0), (0.5, 3.0), (0.3, 6.0))
MIXED: Benchmark = (
    (0.2, 0.3, 0.1, 0.4),  # beneficial
    (0.9, 0.4, 0.2, 0.3),  # harmful
    (0.6, 0.3, 0.2, 0.2),  # neutral
    (0.1, 0.7, 0.8, 0.1),  # r = -.5
)
HARD_REMAIN: Benchmark = (  # the questions still wrong are ever harder to repair
    (0.4, 0.6, 0.05, 0.4),
    (0.3, 0.02, 0.3, 0.2),
    (0.8, 0.3, 0.02, 0.3),
    (0.5, 0.1, 0.2, 0.1),
)
EASY_REMAIN: Benchmark = tuple((1 - p0, p_ci, p_ic, w) for p0, p_ic, p_ci, w in HARD_REMAIN)
EDGES: Benchmark = (
    (0.35, 0.0, 0.0, 0.25),  # frozen
    (0.3, 1.0, 1.0, 0.25),  # alternating
    (0.0, 0.25, 0.75, 0.25),  # r = 0, certain to start wrong
    (1.0, 0.3, 0.2, 0.25),  # certain to start right
)
RISES_THEN_FALLS: Benchmark = (
    (0.5, 0.45, 0.35, 0.5),
    (0.9, 0.185, 0.065, 0.25),
    (0.9, 0.185, 0.065, 0.25),
    (0.5, 0.2, 0.1, 0.0),  # asked never
)
CANCELS: Benchmark = (  # the gains of the first round add up to 0
    (0.5, 0.4, 0.2, 0.35),
    (0.9, 0.4, 0.2, 0.25),
    (0.6, 0.3, 0.2, 0.2),
    (0.35, 0.0, 0.0, 0.2),
)
NONE_WRONG: Benchmark = (  # from the first round on
    (1.0, 0.3, 0.0, 0.5),
    (0.4, 1.0, 0.0, 0.3),
    (0.0, 1.0, 0.0, 0.1),
    (1.0, 0.5, 0.0, 0.1),
)
BENCHMARKS = (MIXED, HARD_REMAIN, EASY_REMAIN, EDGES, RISES_THEN_FALLS, CANCELS, NONE_WRONG)


class QuestionCounts(NamedTuple):
    """Counts over the paths of each question, int64, rounds along the last axis.

    Attributes:
        paths: how many there are.
        correct: how many are correct after round k = 0, ..., rounds.
        repaired: how many turn right in round k = 1, ..., rounds (entry k - 1).
        broken: how many turn wrong in that round.
    """

    paths: Int[np.ndarray, "questions"]
    correct: Int[np.ndarray, "questions answers"]
    repaired: Int[np.ndarray, "questions rounds"]
    broken: Int[np.ndarray, "questions rounds"]


class ExactFlows(NamedTuple):
    """Probabilities of the state after k = 0, ..., ROUNDS rounds, and of a flip in the next."""

    right: list[Fraction]
    wrong: list[Fraction]
    repaired: list[Fraction]
    broken: list[Fraction]


def thin(
    rng: np.random.Generator,
    paths: Int[np.ndarray, "questions"],
    p0: Float[np.ndarray, "questions"],
    p_ic: Float[np.ndarray, "questions"],
    p_ci: Float[np.ndarray, "questions"],
    rounds: int,
) -> QuestionCounts:
    """Counts of so many independent paths of each question: how many flip is binomial."""
    correct, repaired, broken = [rng.binomial(paths, p0)], [], []
    for _ in range(rounds):
        repaired.append(rng.binomial(paths - correct[-1], p_ic))
        broken.append(rng.binomial(correct[-1], p_ci))
        correct.append(correct[-1] + repaired[-1] - broken[-1])
    return QuestionCounts(paths, *(np.stack(x, axis=-1) for x in (correct, repaired, broken)))


def question_counts(
    key: Key[Array, ""],
    laboratory: Laboratory,
    setting: Benchmark | BetaDistributions,
    run: str = "run",
) -> QuestionCounts:
    """Counts of paths, each of a question drawn by its weight or from the distributions.

    Questions from distributions are all different and counted as one. `run` names independent runs.
    """
    rng = generator(key)
    if isinstance(setting, BetaDistributions):
        return _drawn_counts(rng, laboratory.n_chains, setting)
    p0, p_ic, p_ci, weights = np.array(setting).T
    paths = rng.multinomial(laboratory.n_ensemble, weights)
    return thin(rng, paths, p0, p_ic, p_ci, _LONG)


def _drawn_counts(
    rng: np.random.Generator, n: int, distributions: BetaDistributions
) -> QuestionCounts:
    p0, p_ic, p_ci = (rng.beta(a, b, n) for a, b in distributions)
    right = rng.random(n) < p0
    correct, repaired, broken = [right.sum()], [], []
    for _ in range(ROUNDS):
        flips = rng.random(n) < np.where(right, p_ci, p_ic)
        right = right ^ flips
        correct.append(right.sum())
        repaired.append((flips & right).sum())
        broken.append((flips & ~right).sum())
    return QuestionCounts(*(np.array([x]) for x in (n, correct, repaired, broken)))


def simulated_accuracies(found: QuestionCounts) -> Values:
    """Correct paths per question after k = 0, ..., ROUNDS, and in the limit.

    The limit is taken as the mean of the last two rounds.
    """
    limit = found.correct[:, -2:].mean(axis=1, keepdims=True)
    return np.concatenate([found.correct[:, : ROUNDS + 1], limit], axis=1)


@cache
def exact_accuracies(p0: float, p_ic: float, p_ci: float) -> Values:
    """Accuracies of a chain after k = 0, ..., ROUNDS, and in the limit.

    The limit is where many more rounds lead, for an alternating chain between its two values.
    """
    curve = [float(p) for p in exact_curve(p0, p_ic, p_ci, ROUNDS)]
    before = after = curve[-1]
    for _ in range(2 * _LONG):
        before, after = after, after * (1 - p_ci) + (1 - after) * p_ic
    return np.array([*curve, (before + after) / 2])


@cache
def exact_flows(setting: Benchmark | BetaDistributions) -> ExactFlows:
    """Rational probabilities, weighted over the questions of a benchmark."""
    if isinstance(setting, BetaDistributions):
        return _flows_of_urns(setting)
    total = ExactFlows(*([Fraction(0)] * (ROUNDS + 1) for _ in ExactFlows._fields))
    for p0, p_ic, p_ci, weight in setting:
        for k, p in enumerate(exact_curve(p0, p_ic, p_ci, ROUNDS)):
            flows = (p, 1 - p, (1 - p) * Fraction(p_ic), p * Fraction(p_ci))
            for sums, flow in zip(total, flows, strict=True):
                sums[k] += Fraction(weight) * flow
    return total


def _flows_of_urns(distributions: BetaDistributions) -> ExactFlows:
    """Flows of questions from Beta distributions, without an integral.

    A coin drawn from Beta(a, b) that has fallen m and n times on its sides falls on the first one
    next with probability (a + m) / (a + m + b + n): Polya's urn.
    """
    (heads, tails), repairing, breaking = (
        tuple(map(Fraction, distribution)) for distribution in distributions
    )
    p0 = heads / (heads + tails)
    states = {(True, repairing, breaking): p0, (False, repairing, breaking): 1 - p0}
    total = ExactFlows([], [], [], [])
    for _ in range(ROUNDS + 1):
        later: dict[Any, Fraction] = defaultdict(Fraction)
        inside: dict[bool, Fraction] = defaultdict(Fraction)
        leaving: dict[bool, Fraction] = defaultdict(Fraction)
        for (right, repairing, breaking), distribution in states.items():
            flip, stay = breaking if right else repairing
            flips = distribution * flip / (flip + stay)
            inside[right] += distribution
            leaving[right] += flips
            for turns, share in ((True, flips), (False, distribution - flips)):
                urn = (flip + turns, stay + (not turns))
                urns = (repairing, urn) if right else (urn, breaking)
                later[right != turns, *urns] += share
        flows = (inside[True], inside[False], leaving[False], leaving[True])
        for sums, flow in zip(total, flows, strict=True):
            sums.append(flow)
        states = later
    return total
