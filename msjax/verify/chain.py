"""Claims on the accuracy of one chain: sections A1 to A6 and A10."""

import math
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key

from msjax.simulation.ensemble import EnsembleCounts, simulate_ensemble
from msjax.simulation.enumeration import exact_curve
from msjax.simulation.paths import simulate_joint_counts
from msjax.theory import chain as theory
from msjax.theory.chain import UNBOUNDED, TwoStateChain
from msjax.verify.claim import Claim, Laboratory
from msjax.verify.evidence import Evidence, join, of_counts, of_means

__all__ = ["CLAIMS", "SETTINGS", "ChainSetting", "ensemble", "joint_counts"]

ROUNDS = 16
"""Refinement rounds simulated for every chain."""

ChainSetting = tuple[Any, Any, Any]
"""(p0, p_ic, p_ci): numbers, or tracers while a closed form is compiled."""

NEUTRAL: ChainSetting = (0.6, 0.3, 0.2)
FROZEN: ChainSetting = (0.35, 0.0, 0.0)
ALTERNATING: ChainSetting = (0.3, 1.0, 1.0)
SETTINGS: tuple[ChainSetting, ...] = (
    (0.2, 0.3, 0.1),  # beneficial
    (0.3, 0.25, 0.25),  # beneficial, half-life 1
    (0.2, 0.2, 1 - math.sqrt(0.5) - 0.2),  # beneficial, half-life 2
    (0.55, 0.02, 0.01),  # slow, r = .97
    (0.9, 0.4, 0.2),  # harmful although p_ic > p_ci
    NEUTRAL,
    (0.1, 0.7, 0.8),  # r = -.5, the first round overshoots the limit
    (0.9, 0.8, 0.8),  # r = -.6, harmful
    (0.2, 0.6, 0.4),  # r = 0, rounds are independent
    (0.0, 0.3, 0.2),  # certain to start wrong
    (1.0, 0.3, 0.2),  # certain to start right
    (0.7, 0.2, 0.0),  # right answers are kept for good
    (0.7, 0.0, 0.2),  # wrong answers are kept for good
    FROZEN,
    ALTERNATING,
)

Rounds = Int[np.ndarray, "..."]
Values = Float[np.ndarray, "..."]

_K = np.arange(ROUNDS + 1)
_EARLIER, _LATER = np.triu_indices(ROUNDS + 1, k=1)
_LONG = 2000
_FAR = 40
_TIE = 1e-12
_EPS = (0.1, 0.03, 0.01)
_COSTS = (0.0, 0.005, 0.02, 0.07, 0.3)
_COST_VECTORS = (0.01 * 1.3 ** _K[:-1], np.where(_K[:-1] == 0, 0.25, 0.0))


def ensemble(
    key: Key[Array, ""], laboratory: Laboratory, p0: float, p_ic: float, p_ci: float
) -> EnsembleCounts:
    """Counts of many chains by binomial thinning."""
    return simulate_ensemble(key, TwoStateChain(p0, p_ic, p_ci), laboratory.n_ensemble, ROUNDS)


def joint_counts(
    key: Key[Array, ""], laboratory: Laboratory, p0: float, p_ic: float, p_ci: float
) -> Int[np.ndarray, "answers answers"]:
    """Number of paths correct both after j and after k rounds."""
    chain = TwoStateChain(p0, p_ic, p_ci)
    return np.asarray(simulate_joint_counts(key, chain, laboratory.n_chains, ROUNDS), np.int64)


def _paired_gain(
    laboratory: Laboratory, setting: ChainSetting, before: Rounds, after: Rounds
) -> tuple[Values, Values]:
    """Mean of X_after - X_before over paths and its variance, both ends from the same path."""
    joint, n = laboratory.run(joint_counts, *setting), laboratory.n_chains
    counts = np.diag(joint)
    mean = (counts[after] - counts[before]) / n
    changed = counts[after] + counts[before] - 2 * joint[before, after]
    return mean, (changed / n - mean**2) / n


@cache
def _long_curve(setting: ChainSetting) -> Values:
    """The accuracies of very many rounds, one after the other."""
    p0, p_ic, p_ci = setting
    curve = np.empty(_LONG + 1)
    curve[0] = p0
    for k in range(_LONG):
        curve[k + 1] = curve[k] * (1 - p_ci) + (1 - curve[k]) * p_ic
    return curve


def _limit(setting: ChainSetting) -> float:
    """Where the long curve ends; an alternating one ends between its two values."""
    return float(_long_curve(setting)[-2:].mean())


def _short_curve(setting: ChainSetting) -> Values:
    return np.array([float(p) for p in exact_curve(*setting, ROUNDS)])


def _distances(setting: ChainSetting) -> Values:
    return np.abs(_long_curve(setting) - _limit(setting))


def _first_best(worth: Values) -> int:
    return int(np.argmax(worth >= worth.max() - _TIE))


def _chain(setting: ChainSetting) -> TwoStateChain:
    return TwoStateChain(*setting)


def _accuracies(setting: ChainSetting) -> ArrayLike:
    return theory.accuracy_after(_chain(setting), _K)


def _simulated_accuracies(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    return of_counts(lab.run(ensemble, *setting).correct, lab.n_ensemble, predicted)


def _both_right(setting: ChainSetting) -> ArrayLike:
    again = theory.accuracy_after(_chain((1.0, *setting[1:])), _LATER - _EARLIER)
    return theory.accuracy_after(_chain(setting), _EARLIER) * again


def _exact_both_right(setting: ChainSetting) -> Values:
    again = _short_curve((1.0, *setting[1:]))
    return _short_curve(setting)[_EARLIER] * again[_LATER - _EARLIER]


def _simulated_both_right(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    return of_counts(lab.run(joint_counts, *setting)[_EARLIER, _LATER], lab.n_chains, predicted)


def _exact_sign(setting: ChainSetting) -> Values:
    gain = _short_curve(setting)[1:] - setting[0]
    return np.where(np.abs(gain) <= _TIE, 0.0, np.sign(gain))


def _regime(setting: ChainSetting) -> ArrayLike:
    return jnp.broadcast_to(theory.regime(_chain(setting)), ROUNDS)


def _simulated_regime(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    later = _K[1:]
    gain, variance = _paired_gain(lab, setting, np.zeros_like(later), later)
    return of_means(gain, np.zeros(ROUNDS), variance, 2 / lab.n_chains, side=round(predicted[0]))


def _sign_of_rates(setting: ChainSetting) -> ArrayLike:
    return jnp.broadcast_to(jnp.sign(setting[1] - setting[2]), ROUNDS)


def _range(setting: ChainSetting) -> ArrayLike:
    return jnp.stack(theory.accuracy_range(_chain(setting)))


def _exact_range(setting: ChainSetting) -> Values:
    return np.array([_long_curve(setting).max(), _long_curve(setting).min()])


def _simulated_range(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    counts, n = lab.run(ensemble, *setting).correct, lab.n_ensemble
    highest, lowest = predicted
    parts = [of_counts(counts, n, highest, side=-1), of_counts(counts, n, lowest, side=1)]
    # The limit is an extreme that paths can show once what is left of the way is far below noise.
    left = _distances(setting)[ROUNDS]
    if setting in (FROZEN, ALTERNATING) or left < 0.01 / math.sqrt(n):
        parts.append(of_counts(counts.max(), n, highest, side=1))
        parts.append(of_counts(counts.min(), n, lowest, side=-1))
    return join(*parts)


def _distance(lab: Laboratory, setting: ChainSetting) -> tuple[Values, Values]:
    """Estimates of |p_k - limit| and their variances; |x - limit| moves no more than x does."""
    accuracy = lab.run(ensemble, *setting).correct / lab.n_ensemble
    return np.abs(accuracy - _limit(setting)), accuracy * (1 - accuracy) / lab.n_ensemble


def _simulated_distance(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    distance, variance = _distance(lab, setting)
    return of_means(distance, predicted, variance, 1 / lab.n_ensemble)


def _memory(setting: ChainSetting) -> ArrayLike:
    return theory.eigenvalue(_chain(setting)) ** _K


def _exact_memory(setting: ChainSetting) -> Values:
    from_right, from_wrong = (_short_curve((start, *setting[1:])) for start in (1.0, 0.0))
    return from_right - from_wrong


def _simulated_memory(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    n = lab.n_ensemble
    from_right, from_wrong = (
        lab.run(ensemble, start, *setting[1:]).correct / n for start in (1.0, 0.0)
    )
    variance = (from_right * (1 - from_right) + from_wrong * (1 - from_wrong)) / n
    return of_means(from_right - from_wrong, predicted, variance, 1 / n)


def _rounds_to_within(setting: ChainSetting) -> ArrayLike:
    return theory.rounds_to_within(_chain(setting), np.array(_EPS))


def _exact_rounds_to_within(setting: ChainSetting) -> Values:
    found = []
    for eps in _EPS:
        outside = np.flatnonzero(_distances(setting) > eps + _TIE)
        last = outside[-1] if outside.size else -1
        found.append(UNBOUNDED if last == _LONG else last + 1)
    return np.array(found, float)


def _simulated_rounds_to_within(
    lab: Laboratory, setting: ChainSetting, predicted: Values
) -> Evidence:
    distance, variance = _distance(lab, setting)
    parts = []
    for eps, rounds in zip(_EPS, predicted, strict=True):
        k = min(round(rounds), ROUNDS + 1)
        parts += [
            of_means(distance[part], np.full(ROUNDS + 1, eps)[part], variance[part], 1e-9, side)
            for part, side in ((slice(0, k), 1), (slice(k, None), -1))
        ]
    return join(*parts)


def _half_life(setting: ChainSetting) -> ArrayLike:
    return theory.half_life(_chain(setting))


def _exact_half_life(setting: ChainSetting) -> float:
    start, after = _distances(setting)[:2]
    with np.errstate(divide="ignore"):
        return float(-1 / np.log2(after / start)) if after < start - _TIE else math.inf


def _simulated_half_life(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    distance, variance = _distance(lab, setting)
    expected = _distances(setting)[0] * 0.5 ** (_K / predicted[0])
    return of_means(distance, expected, variance, 1 / lab.n_ensemble)


def _gains(setting: ChainSetting) -> ArrayLike:
    return theory.marginal_gain(_chain(setting), _K[:-1])


def _simulated_gains(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    found, n = lab.run(ensemble, *setting), lab.n_ensemble
    gain = (found.repaired - found.broken) / n
    variance = ((found.repaired + found.broken) / n - gain**2) / n
    return of_means(gain, predicted, variance, 2 / n)


def _simulated_worth(lab: Laboratory, setting: ChainSetting, best: int, spent: Values) -> Evidence:
    """No k is worth more than `best`, for correct answers of value 1 and given cost of k rounds."""
    gain, variance = _paired_gain(lab, setting, _K, np.full_like(_K, best))
    margin = gain - (spent[best] - spent)
    return of_means(margin, np.zeros(ROUNDS + 1), variance, 2 / lab.n_chains, side=1)


def _optimal_rounds(setting: ChainSetting) -> ArrayLike:
    return theory.optimal_rounds(_chain(setting), 1.0, np.array(_COSTS))


def _exact_optimal_rounds(setting: ChainSetting) -> Values:
    return np.array([_exact_best(setting, cost) for cost in _COSTS], float)


def _exact_best(setting: ChainSetting, cost: float) -> int:
    """First best k of a long curve; without costs one that moves with the horizon is none."""
    if cost > 0:
        return _first_best(_long_curve(setting) - cost * np.arange(_LONG + 1))
    curve = exact_curve(*setting, 2 * _FAR)
    shorter, longer = (max(range(k), key=curve.__getitem__) for k in (_FAR, 2 * _FAR))
    if curve[longer] - curve[0] <= _TIE:
        return 0
    return longer if longer == shorter else UNBOUNDED


def _simulated_optimal_rounds(
    lab: Laboratory, setting: ChainSetting, predicted: Values
) -> Evidence:
    return join(
        *(
            _simulated_worth(lab, setting, min(round(best), ROUNDS), cost * _K)
            for best, cost in zip(predicted, _COSTS, strict=True)
        )
    )


def _spent(costs: Values) -> Values:
    return np.concatenate([[0.0], np.cumsum(costs)])


def _with_costs(setting: ChainSetting) -> ArrayLike:
    chain = _chain(setting)
    return jnp.stack([theory.optimal_rounds_with_costs(chain, 1.0, c) for c in _COST_VECTORS])


def _exact_with_costs(setting: ChainSetting) -> Values:
    curve = _short_curve(setting)
    return np.array([_first_best(curve - _spent(costs)) for costs in _COST_VECTORS], float)


def _simulated_with_costs(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    return join(
        *(
            _simulated_worth(lab, setting, min(round(best), ROUNDS), _spent(costs))
            for best, costs in zip(predicted, _COST_VECTORS, strict=True)
        )
    )


def _simulated_frozen(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    joint, n = lab.run(joint_counts, *setting), lab.n_chains
    moved = (joint[0, 0] + np.diag(joint) - 2 * joint[0]) / n
    still = of_means(moved, np.zeros_like(moved), np.zeros_like(moved), 1 / n)
    return join(_simulated_accuracies(lab, setting, predicted), still)


def _simulated_alternating(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    joint, n = lab.run(joint_counts, *setting), lab.n_chains
    # Right at both of two rounds of different parity: impossible. Of the same parity: as at one.
    odd = (_LATER - _EARLIER) % 2 == 1
    expected = np.where(odd, 0, np.diag(joint)[_EARLIER]) / n
    found = joint[_EARLIER, _LATER] / n
    turns = of_means(found, expected, np.zeros_like(found), 1 / n)
    return join(_simulated_accuracies(lab, setting, predicted), turns)


def _independent(setting: ChainSetting) -> ArrayLike:
    chain = _chain(setting)
    accuracy = jnp.where(_K == 0, chain.p0, theory.stationary_accuracy(chain))
    return accuracy[_EARLIER] * accuracy[_LATER]


def _without(*left_out: ChainSetting) -> tuple[ChainSetting, ...]:
    return tuple(setting for setting in SETTINGS if setting not in left_out)


_TRANSIENT = "arXiv 2602.01120 (transient), arXiv 2508.16456"
_REGIME = "arXiv 2602.01120 Theorem 3.1 (interpretation)"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "A1.transient",
        "p_k = pi + r^k (p0 - pi)",
        _TRANSIENT,
        SETTINGS,
        _accuracies,
        _short_curve,
        _simulated_accuracies,
    ),
    Claim(
        "A1.two_rounds",
        "P(right at j and at k) = p_j (pi + r^(k-j) (1 - pi))",
        "docs/theory.md A1",
        SETTINGS,
        _both_right,
        _exact_both_right,
        _simulated_both_right,
    ),
    Claim(
        "A2.regime",
        "p_k - p0 has the sign of p_ic (1-p0) - p_ci p0",
        _REGIME,
        _without(ALTERNATING),
        _regime,
        _exact_sign,
        _simulated_regime,
    ),
    Claim(
        "A2.rates_decide",
        "p_ic > p_ci means that refinement helps",
        _REGIME,
        tuple(s for s in SETTINGS if s[1] > s[2] and 0 < s[0] < 1),
        _sign_of_rates,
        _exact_sign,
        _simulated_regime,
        holds=False,
    ),
    Claim(
        "A3.range",
        "max and min of p_k are those of p0, p_1, pi",
        "docs/theory.md A3",
        SETTINGS,
        _range,
        _exact_range,
        _simulated_range,
    ),
    Claim(
        "A4.rate",
        "|p_k - pi| = |r|^k |p0 - pi|",
        "docs/theory.md A4",
        _without(FROZEN),
        lambda setting: theory.total_variation(_chain(setting), _K),
        lambda setting: _distances(setting)[: ROUNDS + 1],
        _simulated_distance,
    ),
    Claim(
        "A4.memory",
        "P(C at k | C) - P(C at k | I) = r^k",
        "docs/theory.md A4",
        SETTINGS,
        _memory,
        _exact_memory,
        _simulated_memory,
    ),
    Claim(
        "A4.rounds_to_within",
        "|p_k - pi| <= eps from k = ceil(log(eps / |p0-pi|) / log|r|) on, not before",
        "docs/theory.md A4",
        SETTINGS,
        _rounds_to_within,
        _exact_rounds_to_within,
        _simulated_rounds_to_within,
    ),
    Claim(
        "A4.half_life",
        "|p_k - pi| halves every log 2 / -log|r| rounds",
        "docs/theory.md A4",
        tuple(s for s in _without(FROZEN, NEUTRAL) if s[1] + s[2] != 1),
        _half_life,
        _exact_half_life,
        _simulated_half_life,
    ),
    Claim(
        "A5.marginal_gain",
        "p_(k+1) - p_k = r^k (p_ic (1-p0) - p_ci p0)",
        _TRANSIENT,
        SETTINGS,
        _gains,
        lambda setting: np.diff(_short_curve(setting)),
        _simulated_gains,
    ),
    Claim(
        "A6.optimal_rounds",
        "V p_k - c k is largest at N*",
        _REGIME,
        SETTINGS,
        _optimal_rounds,
        _exact_optimal_rounds,
        _simulated_optimal_rounds,
    ),
    Claim(
        "A6.round_costs",
        "V p_k - (c_1 + ... + c_k) is largest at the general argmax",
        "docs/theory.md A6",
        SETTINGS,
        _with_costs,
        _exact_with_costs,
        _simulated_with_costs,
    ),
    Claim(
        "A10.frozen",
        "p_ic = p_ci = 0 never moves",
        "docs/theory.md A10",
        (FROZEN,),
        _accuracies,
        lambda setting: np.full(ROUNDS + 1, setting[0]),
        _simulated_frozen,
    ),
    Claim(
        "A10.alternating",
        "p_ic = p_ci = 1 alternates",
        "docs/theory.md A10",
        (ALTERNATING,),
        _accuracies,
        lambda setting: np.where(_K % 2 == 0, setting[0], 1 - setting[0]),
        _simulated_alternating,
    ),
    Claim(
        "A10.independent",
        "p_ic + p_ci = 1 makes rounds independent",
        "docs/theory.md A10",
        ((0.2, 0.6, 0.4),),
        _independent,
        _exact_both_right,
        _simulated_both_right,
    ),
    Claim(
        "A10.certain_start",
        "p0 in {0, 1} starts without chance",
        "docs/theory.md A10",
        ((0.0, 0.3, 0.2), (1.0, 0.3, 0.2)),
        lambda setting: theory.accuracy_after(_chain(setting), 0),
        lambda setting: setting[0],
        lambda lab, setting, predicted: of_counts(
            lab.run(ensemble, *setting).correct[:1], lab.n_ensemble, predicted
        ),
    ),
)
