"""Claims on one whole trajectory: sections A7 and A8."""

import math
from collections.abc import Callable
from functools import cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key, Shaped

from msjax.simulation.enumeration import all_paths, path_distribution
from msjax.theory import path_distributions
from msjax.theory.chain import TwoStateChain
from msjax.verify.chain import ALTERNATING, FROZEN, ROUNDS, ChainSetting
from msjax.verify.claim import Claim, Laboratory
from msjax.verify.evidence import Evidence, join, of_counts, of_means
from msjax.verify.sampling import thin_paths

__all__ = ["CLAIMS", "path_counts"]

SETTINGS: tuple[ChainSetting, ...] = (
    (0.2, 0.3, 0.1),  # beneficial
    (0.9, 0.4, 0.2),  # harmful
    (0.1, 0.7, 0.8),  # r = -.5
    (0.2, 0.6, 0.4),  # r = 0, rounds are independent
    (0.0, 0.3, 0.2),  # certain to start wrong
    (1.0, 0.0, 0.2),  # certain to start right, wrong for good once broken
    (0.7, 0.2, 0.0),  # right answers are kept for good
    (0.7, 0.0, 0.2),  # wrong answers are kept for good
    FROZEN,
    ALTERNATING,
)

Values = Float[np.ndarray, "..."]
Table = Shaped[np.ndarray, "lengths 2 counts 2"]
"""Paths by length of the first stay (entry length - 1), first answer, number of right answers and
last answer (0 wrong, 1 right)."""

_K = np.arange(ROUNDS + 1)
_ANSWERS = ROUNDS + 1
_SHAPE = (_ANSWERS, 2, _ANSWERS + 1, 2)
_LAST_TWO = (ROUNDS - 1, ROUNDS)  # an even and an odd number of answers
_HORIZON = 200
_LONG = 2000
_TIE = 1e-12
_SLACK = 1e-3
_TOLD = 1e-4


def path_counts(
    key: Key[Array, ""], laboratory: Laboratory, p0: float, p_ic: float, p_ci: float
) -> Int[np.ndarray, "lengths 2 counts 2"]:
    """Table of simulated paths."""
    counts = thin_paths(key, laboratory.n_ensemble, p0, p_ic, p_ci, _ANSWERS)
    return _table(counts).astype(np.int64)


@cache
def _path_distributions(setting: ChainSetting) -> Float[np.ndarray, "lengths 2 counts 2"]:
    """Table of the probabilities of all paths."""
    return _table(path_distribution(*setting, _ANSWERS))


def _table(weights: Shaped[np.ndarray, "paths"]) -> Float[np.ndarray, "lengths 2 counts 2"]:
    return np.bincount(_cells(), weights, math.prod(_SHAPE)).reshape(_SHAPE)


@cache
def _cells() -> Int[np.ndarray, "paths"]:
    """Where each of `all_paths` belongs in a `Table`."""
    paths = all_paths(_ANSWERS)
    moved = paths != paths[:, :1]
    length = np.where(moved.any(axis=1), moved.argmax(axis=1), _ANSWERS)
    cell = (length - 1, paths[:, 0], paths.sum(axis=1), paths[:, -1])
    return np.ravel_multi_index(tuple(np.asarray(x, int) for x in cell), _SHAPE)


def _first_right(table: Table) -> Shaped[np.ndarray, "answers"]:
    """By round of the first right answer, 0, ..., ROUNDS."""
    wrong, right = table.sum(axis=(2, 3)).T
    return np.append(right.sum(), wrong[:-1])


def _right_by(table: Table) -> Shaped[np.ndarray, "answers"]:
    return np.cumsum(_first_right(table))


def _count_distributions(
    table: Table,
) -> tuple[Shaped[np.ndarray, "answers"], Shaped[np.ndarray, "counts"]]:
    """By number of right answers: of all answers but the last, and of all."""
    wrong, right = table.sum(axis=(0, 1)).T
    return wrong[:-1] + right[1:], wrong + right


def _count_distribution(table: Table) -> Shaped[np.ndarray, "counts"]:
    return _count_distributions(table)[1]


def _majorities(table: Table) -> Shaped[np.ndarray, "4"]:
    """Majority of right answers, and tie, of all answers but the last and of all."""
    even, odd = _count_distributions(table)
    half = ROUNDS // 2
    return np.array([even[half + 1 :].sum(), even[half], odd[half + 1 :].sum(), 0])


def _mean(
    weights: Shaped[np.ndarray, "*cells"], values: Shaped[np.ndarray, "*cells"]
) -> tuple[float, float]:
    """Weighted mean of values, and their variance."""
    total = weights.sum()
    mean = np.sum(weights * values) / total
    return float(mean), float(np.sum(weights * (values - mean) ** 2) / total)


def _chain(setting: ChainSetting) -> TwoStateChain:
    return TwoStateChain(*setting)


def _counted(
    view: Callable[[Table], Shaped[np.ndarray, "m"]],
) -> Callable[[Laboratory, ChainSetting, Values], Evidence]:
    """Evidence from the simulated paths in each class of `view`."""

    def simulated(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
        return of_counts(view(lab.run(path_counts, *setting)), lab.n_ensemble, predicted)

    return simulated


def _simulated_right_by(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    missing = 1 - _right_by(_path_distributions(setting))
    # In float32 a probability that is almost 1 is off by more than so many paths forgive.
    told = (missing > _TOLD) | (missing < _TIE)
    counts = _right_by(lab.run(path_counts, *setting))
    return of_counts(counts[told], lab.n_ensemble, predicted[told])


def _mean_wait(leave: float) -> float:
    """Mean number of rounds, each the last with probability `leave`; the sum of P(wait >= m)."""
    reached = (1 - leave) ** np.arange(_LONG)
    return float(reached.sum()) if reached[-1] < _TIE else math.inf


def _mean_wait_seen(leave: float) -> float:
    """Mean of such a wait, cut off after as many answers as a simulated path has."""
    return float(np.sum((1 - leave) ** _K))


def _exact_mean_first_correct(setting: ChainSetting) -> float:
    p0, p_ic, _ = setting
    return (1 - p0) * _mean_wait(p_ic) if p0 < 1 else 0.0


def _simulated_mean_first_correct(
    lab: Laboratory, setting: ChainSetting, predicted: Values
) -> Evidence:
    by_round, n = _first_right(lab.run(path_counts, *setting)), lab.n_ensemble
    # A path that has seen no right answer has waited for all of its answers.
    seen, variance = _mean(np.append(by_round, n - by_round.sum()), np.arange(_ANSWERS + 1))
    wrong = 1 - setting[0]
    expected = wrong * _mean_wait_seen(wrong / predicted[0] if predicted[0] else 1.0)
    return of_means(seen, expected, variance / n, _ANSWERS / n)


def _sojourns(setting: ChainSetting) -> ArrayLike:
    _, p_ic, p_ci = setting
    ended = np.arange(1, _ANSWERS)
    distributions = [path_distributions.sojourn_pmf(leave, ended) for leave in (p_ci, p_ic)]
    means = path_distributions.mean_sojourns(_chain(setting))
    return jnp.concatenate([*distributions, jnp.stack([means.correct, means.incorrect])])


def _exact_sojourns(setting: ChainSetting) -> Values:
    _, p_ic, p_ci = setting
    wrong, right = _path_distributions(setting).sum(axis=(2, 3)).T
    distributions = [stays[:-1] / stays.sum() for stays in (right, wrong)]
    return np.concatenate([*distributions, [_mean_wait(p_ci), _mean_wait(p_ic)]])


def _simulated_sojourns(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    wrong, right = lab.run(path_counts, *setting).sum(axis=(2, 3)).T
    parts = []
    for stays, distribution, mean in zip(
        (right, wrong), np.split(predicted[:-2], 2), predicted[-2:], strict=True
    ):
        n = stays.sum()
        seen, variance = _mean(stays, np.arange(1, _ANSWERS + 1))
        expected = _mean_wait_seen(1 / mean)
        parts.append(of_counts(stays[:-1], n, distribution))
        parts.append(of_means(seen, expected, variance / n, _ANSWERS / n))
    return join(*parts)


def _exact_count_moments(setting: ChainSetting) -> Values:
    """Mean and variance of the count of all answers but the last, and of all: rows."""
    table = _path_distributions(setting)
    return np.array(
        [
            _mean(distribution, np.arange(distribution.size))
            for distribution in _count_distributions(table)
        ]
    )


def _simulated_mean(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    n, parts = lab.n_ensemble, []
    for distribution, mean in zip(
        _count_distributions(lab.run(path_counts, *setting)), predicted, strict=True
    ):
        found, variance = _mean(distribution, np.arange(distribution.size))
        parts.append(of_means(found, mean, variance / n, _ANSWERS / n))
    return join(*parts)


def _simulated_variance(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    n, parts = lab.n_ensemble, []
    for distribution, claimed in zip(
        _count_distributions(lab.run(path_counts, *setting)), predicted, strict=True
    ):
        counts = np.arange(distribution.size)
        squares = (counts - _mean(distribution, counts)[0]) ** 2
        found, variance = _mean(distribution, squares)
        parts.append(of_means(found, claimed, variance / n, _ANSWERS**2 / n))
    return join(*parts)


def _exact_time_average(setting: ChainSetting) -> float:
    """Growth per answer of Var S between two horizons; what the start adds cancels."""
    earlier, later = (_count_variance(setting, answers) for answers in (_HORIZON, 2 * _HORIZON))
    return (later - earlier) / _HORIZON


def _count_variance(setting: ChainSetting, answers: int) -> float:
    """Var S from P(X = x), E[S; X = x] and E[S^2; X = x] at the last answer X, x = I, C."""
    p0, p_ic, p_ci = setting
    step = np.array([[1 - p_ic, p_ic], [p_ci, 1 - p_ci]])
    distribution = np.array([1 - p0, p0])
    first = second = distribution * [0, 1]
    for _ in range(answers - 1):
        distribution, first, second = distribution @ step, first @ step, second @ step
        second = second + [0, 2 * first[1] + distribution[1]]
        first = first + [0, distribution[1]]
    return float(second.sum() - first.sum() ** 2)


def _simulated_time_average(
    lab: Laboratory, setting: ChainSetting, predicted: Values
) -> Evidence | None:
    """The limit is the covariance of one answer with all before it, twice, and with itself.

    Looking back from the last of n = ROUNDS + 1 answers, of variance v_k = p_k (1 - p_k), that is
    v_n-1 + 2 sum_k v_k r^(n-1-k). It misses the limit by less than 2 n |r|^(n-1): v_k is within
    |r|^k of its limit, and what lies farther back than the first answer adds
    |r|^n / (2 - 2 |r|) at most.
    """
    slack = 2 * _ANSWERS * abs(1 - setting[1] - setting[2]) ** ROUNDS
    if slack > _SLACK:
        return None
    table, n = lab.run(path_counts, *setting).sum(axis=(0, 1)), lab.n_ensemble
    counts, last = np.mgrid[: _ANSWERS + 1, :2]
    around = 2 * counts - last
    products = (last - _mean(table, last)[0]) * (around - _mean(table, around)[0])
    found, variance = _mean(table, products)
    bounds = ((predicted - slack, 1), (predicted + slack, -1))
    return join(*(of_means(found, b, variance / n, 2 * _ANSWERS / n, side) for b, side in bounds))


def _majority(setting: ChainSetting) -> ArrayLike:
    chain = _chain(setting)
    votes = [path_distributions.majority_accuracy(chain, rounds) for rounds in _LAST_TWO]
    return jnp.concatenate([jnp.stack(vote) for vote in votes])


_VISITS = tuple(s for s in SETTINGS if 0 < s[0] < 1)
_MARKOV_BINOMIAL = "docs/theory.md A8 (Markov-binomial distribution)"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "A7.verified_curve",
        "P(right at least once by round k) = 1 - (1-p0) (1-p_ic)^k",
        "docs/theory.md A7",
        SETTINGS,
        lambda setting: path_distributions.verified_accuracy(_chain(setting), _K),
        lambda setting: _right_by(_path_distributions(setting)),
        _simulated_right_by,
    ),
    Claim(
        "A7.first_correct",
        "the first right answer comes at round k with probability (1-p0) p_ic (1-p_ic)^(k-1)",
        "docs/theory.md A7",
        SETTINGS,
        lambda setting: path_distributions.first_correct_pmf(_chain(setting), _K),
        lambda setting: _first_right(_path_distributions(setting)),
        _counted(_first_right),
    ),
    Claim(
        "A7.mean_first_correct",
        "the first right answer comes at round (1-p0) / p_ic on average",
        "docs/theory.md A7",
        SETTINGS,
        lambda setting: path_distributions.mean_first_correct(_chain(setting)),
        _exact_mean_first_correct,
        _simulated_mean_first_correct,
    ),
    Claim(
        "A7.sojourns",
        "a stay lasts m answers with probability a (1-a)^(m-1), 1/a on average",
        "docs/theory.md A7",
        _VISITS,
        _sojourns,
        _exact_sojourns,
        _simulated_sojourns,
    ),
    Claim(
        "A8.law",
        "distribution of the number S of right answers",
        _MARKOV_BINOMIAL,
        SETTINGS,
        lambda setting: path_distributions.correct_count_pmf(_chain(setting), ROUNDS),
        lambda setting: _count_distribution(_path_distributions(setting)),
        _counted(_count_distribution),
    ),
    Claim(
        "A8.mean",
        "E[S] = n pi + (p0 - pi) (1 - r^n) / (1 - r)",
        _MARKOV_BINOMIAL,
        SETTINGS,
        lambda setting: path_distributions.correct_count_mean(_chain(setting), np.array(_LAST_TWO)),
        lambda setting: _exact_count_moments(setting)[:, 0],
        _simulated_mean,
    ),
    Claim(
        "A8.variance",
        "Var S = sum of p_i (1-p_i) r^|j-i|, i the earlier round",
        _MARKOV_BINOMIAL,
        SETTINGS,
        lambda setting: path_distributions.correct_count_variance(
            _chain(setting), np.array(_LAST_TWO)
        ),
        lambda setting: _exact_count_moments(setting)[:, 1],
        _simulated_variance,
    ),
    Claim(
        "A8.time_average",
        "n Var(S/n) -> pi (1-pi) (1+r) / (1-r)",
        "docs/theory.md A8",
        tuple(setting for setting in SETTINGS if setting != FROZEN),
        lambda setting: path_distributions.time_average_variance(_chain(setting)),
        _exact_time_average,
        _simulated_time_average,
    ),
    Claim(
        "A8.majority",
        "a vote over the trajectory is right if S > n/2, tied if S = n/2",
        "docs/theory.md A8",
        SETTINGS,
        _majority,
        lambda setting: _majorities(_path_distributions(setting)),
        _counted(_majorities),
    ),
)
