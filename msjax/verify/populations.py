"""Claims on benchmarks whose questions differ, and on gradients: B1 to B4."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from msjax.decision import sensitivity
from msjax.simulation.enumeration import all_paths
from msjax.theory import chain as one_chain
from msjax.theory import population as theory
from msjax.theory.chain import TwoStateChain
from msjax.theory.population import Population, PopulationBounds, beta_population
from msjax.verify.benchmarks import (
    BENCHMARKS,
    BETA,
    EASY_REMAIN,
    HARD_REMAIN,
    RISES_THEN_FALLS,
    ROUNDS,
    Benchmark,
    BetaDistributions,
    exact_accuracies,
    exact_flows,
    question_counts,
    simulated_accuracies,
)
from msjax.verify.chain import SETTINGS as CHAINS
from msjax.verify.chain import ChainSetting
from msjax.verify.claim import Claim, Laboratory, compiled
from msjax.verify.evidence import Evidence, join, of_counts, of_means
from msjax.verify.sampling import thin_paths

__all__ = ["CLAIMS", "path_counts"]

Rounds = Int[np.ndarray, "..."]
Values = Float[np.ndarray, "..."]

_K = np.arange(ROUNDS + 1)
_SCORED = 8  # rounds of the paths whose likelihood is differentiated
_TIE = 1e-12


def path_counts(
    key: Key[Array, ""], laboratory: Laboratory, p0: float, p_ic: float, p_ci: float
) -> Int[np.ndarray, "paths"]:
    """How often each path occurs."""
    return thin_paths(key, laboratory.n_ensemble, p0, p_ic, p_ci, _SCORED + 1)


def _population(setting: Benchmark | BetaDistributions) -> Population:
    if isinstance(setting, BetaDistributions):
        return beta_population(*setting)
    p0, p_ic, p_ci, weights = np.array(setting).T
    return Population(TwoStateChain(p0, p_ic, p_ci), weights)


def _of(
    function: Callable[..., Any], setting: Benchmark | BetaDistributions, *rounds: Rounds
) -> Any:
    """What a library function says of a benchmark; compiled once per function and shape."""
    return compiled(function)(_population(setting), *rounds)


def _exact_mean(pick: Callable[[Values, float], Values]) -> Callable[[Benchmark], Values]:
    """E[pick(p_k, p0)] over k = 0, ..., ROUNDS and the limit."""

    def mean(setting: Benchmark) -> Values:
        picked = (weight * pick(exact_accuracies(p0, *rates), p0) for p0, *rates, weight in setting)
        return sum(picked, np.zeros(ROUNDS + 2))

    return mean


_exact_neutral = _exact_mean(lambda accuracies, _: accuracies)
_exact_upper = _exact_mean(np.maximum)
_exact_lower = _exact_mean(np.minimum)
_exact_both = _exact_mean(lambda accuracies, p0: accuracies + p0)


def _of_accuracies(total: Values, n: int, predicted: Values) -> Evidence:
    """Evidence from paths that are right after k = 0, ..., ROUNDS, and in the limit."""
    parts = [of_counts(total[:-1].astype(np.int64), n, predicted[:-1])]
    # A path has a mean of two rounds in [0, 1], whose variance is at most that of a coin.
    limit = total[-1] / n
    parts.append(of_means(limit, predicted[-1], limit * (1 - limit) / n, 1 / n))
    return join(*parts)


def _mean_accuracies(setting: Benchmark | BetaDistributions) -> ArrayLike:
    if isinstance(setting, BetaDistributions):
        return _of(theory.mean_accuracy_after, setting, _K)
    curve = compiled(theory.mean_accuracy_curve, 1)(_population(setting), ROUNDS)
    return np.hstack([curve, _of(theory.limit_accuracy, setting)])


def _exact_mean_accuracies(setting: Benchmark | BetaDistributions) -> Values:
    if isinstance(setting, BetaDistributions):
        return np.array(exact_flows(setting).right, float)
    return _exact_neutral(setting)


def _simulated_mean_accuracies(
    lab: Laboratory, setting: Benchmark | BetaDistributions, predicted: Values
) -> Evidence:
    found = lab.run(question_counts, setting)
    if isinstance(setting, BetaDistributions):
        return of_counts(found.correct[0], found.paths, predicted)
    return _of_accuracies(simulated_accuracies(found).sum(axis=0), lab.n_ensemble, predicted)


def _pooled_rates(setting: Benchmark | BetaDistributions) -> ArrayLike:
    return np.hstack(_of(theory.pooled_rates, setting, _K[:-1]))


def _exact_pooled_rates(setting: Benchmark | BetaDistributions) -> Values:
    flows = exact_flows(setting)
    leaving, state = flows.repaired[:-1] + flows.broken[:-1], flows.wrong[:-1] + flows.right[:-1]
    rates = (flow / mass if mass else math.nan for flow, mass in zip(leaving, state, strict=True))
    return np.array([float(rate) for rate in rates])


def _simulated_pooled_rates(
    lab: Laboratory, setting: Benchmark | BetaDistributions, predicted: Values
) -> Evidence:
    found = lab.run(question_counts, setting)
    correct, repaired, broken = (counts.sum(axis=0)[:ROUNDS] for counts in found[1:])
    left = np.concatenate([repaired, broken])
    state = np.concatenate([found.paths.sum() - correct, correct])
    seen = state > 0
    return of_counts(left[seen], state[seen], predicted[seen])


def _pooled_limit(setting: Benchmark) -> ArrayLike:
    return one_chain.stationary_accuracy(_of(theory.pooled_chain, setting))


def _simulated_limit(lab: Laboratory, setting: Benchmark, predicted: Values) -> Evidence:
    n, found = lab.n_ensemble, lab.run(question_counts, setting)
    total = simulated_accuracies(found)[:, -1].sum()
    return of_means(total / n, predicted, total / n * (1 - total / n) / n, 1 / n)


def _bounds(pick: Callable[[PopulationBounds], Array]) -> Callable[[Benchmark], ArrayLike]:
    """What `pick` takes of the bounds after k = 0, ..., ROUNDS, and in the limit."""

    def values(setting: Benchmark) -> ArrayLike:
        after, limit = _of(theory.bounds_after, setting, _K), _of(theory.bounds, setting)
        return np.hstack([pick(after), pick(limit)])

    return values


def _pilot_and_run(lab: Laboratory, setting: Benchmark) -> tuple[Values, Values]:
    """Correct paths of each question in two independent runs."""
    pilot, run = lab.run(question_counts, setting, "pilot"), lab.run(question_counts, setting)
    return simulated_accuracies(pilot), simulated_accuracies(run)


def _simulated_choice(better: bool) -> Callable[[Laboratory, Benchmark, Values], Evidence]:
    """Each question gets k rounds or none, whichever a pilot found better (or worse)."""

    def evidence(lab: Laboratory, setting: Benchmark, predicted: Values) -> Evidence:
        pilot, run = _pilot_and_run(lab, setting)
        refine = (pilot > pilot[:, :1]) == better
        total = np.where(refine, run, run[:, :1]).sum(axis=0)
        return _of_accuracies(total, lab.n_ensemble, predicted)

    return evidence


def _simulated_both(lab: Laboratory, setting: Benchmark, predicted: Values) -> Evidence:
    """E[p0] from a pilot and E[p_k] from another run."""
    n = lab.n_ensemble
    pilot, run = (counts.sum(axis=0) / n for counts in _pilot_and_run(lab, setting))
    variance = (pilot[0] * (1 - pilot[0]) + run * (1 - run)) / n
    return of_means(pilot[0] + run, predicted, variance, 1 / n)


def _gated(setting: Benchmark) -> ArrayLike:
    return _of(theory.gated_accuracy_after, setting, _K)


def _simulated_gate(lab: Laboratory, setting: Benchmark, predicted: Values) -> Evidence:
    """Each question gets k rounds if many rounds helped in a pilot, whatever k is."""
    pilot, run = _pilot_and_run(lab, setting)
    gate: Bool[np.ndarray, "questions"] = pilot[:, -1] > pilot[:, 0]
    total = np.where(gate[:, None], run, run[:, :1]).sum(axis=0)
    return of_counts(total[:-1].astype(np.int64), lab.n_ensemble, predicted)


def _first_round(setting: Benchmark) -> ArrayLike:
    return np.hstack(
        [_of(theory.population_first_gain, setting), _of(theory.population_regime, setting)]
    )


def _exact_first_round(setting: Benchmark) -> Values:
    before, after = _exact_neutral(setting)[:2]
    gain = after - before
    return np.array([gain, np.sign(gain) if abs(gain) > _TIE else 0.0])


def _simulated_first_round(lab: Laboratory, setting: Benchmark, predicted: Values) -> Evidence:
    found, n = lab.run(question_counts, setting), lab.n_ensemble
    repaired, broken = (flips[:, 0].sum() / n for flips in (found.repaired, found.broken))
    gain = repaired - broken
    variance = (repaired + broken - gain**2) / n
    return join(
        of_means(gain, predicted[0], variance, 2 / n),
        of_means(gain, 0.0, variance, 2 / n, side=round(predicted[1])),
    )


def _gradients(setting: ChainSetting) -> ArrayLike:
    return sensitivity.gradients(TwoStateChain(*setting), _SCORED).accuracy


def _exact_gradients(setting: ChainSetting) -> Values:
    """The recursion of p_k, differentiated: one exact step per round."""
    p, p_ic, p_ci = map(Fraction, setting)
    slopes = [(Fraction(1), Fraction(0), Fraction(0))]
    for _ in range(_SCORED):
        keep = 1 - p_ic - p_ci
        by_start, by_repair, by_breaking = slopes[-1]
        slopes.append((keep * by_start, keep * by_repair + 1 - p, keep * by_breaking - p))
        p = p * (1 - p_ci) + (1 - p) * p_ic
    return np.array(slopes, float)


def _simulated_gradients(lab: Laboratory, setting: ChainSetting, predicted: Values) -> Evidence:
    """Likelihood ratios: d p_k / d theta = E[X_k d log P(X_0, ..., X_k) / d theta]."""
    counts, n = lab.run(path_counts, *setting), lab.n_ensemble
    right = all_paths(_SCORED + 1)
    before, after = right[:, :-1], right[:, 1:]
    parts = []
    for which, theta in enumerate(setting):
        if not 0 < theta < 1:  # the score does not exist
            continue
        if which == 0:
            score = np.where(right[:, :1], 1 / theta, -1 / (1 - theta)) * np.ones(_SCORED + 1)
        else:
            entered, flipped = (before if which == 2 else ~before), before != after
            terms = entered * np.where(flipped, 1 / theta, -1 / (1 - theta))
            score = np.cumsum(np.insert(terms, 0, 0.0, axis=1), axis=1)
        products = right * score
        mean = counts @ products / n
        variance = (counts @ products**2 / n - mean**2) / n
        largest = 2 * np.abs(products).max(axis=0) / n
        parts.append(of_means(mean, predicted.reshape(-1, 3)[:, which], variance, largest))
    return join(*parts)


_BOUNDS = "arXiv 2602.01120 (bounds, interpretation)"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "B1.mixture",
        "E[p_k] = E[pi + r^k (p0 - pi)], and E[pi] in the limit",
        "docs/theory.md B1",
        (*BENCHMARKS, BETA),
        _mean_accuracies,
        _exact_mean_accuracies,
        _simulated_mean_accuracies,
        compiled=False,
    ),
    Claim(
        "B1.pooled_rates",
        "E[p_ic | I at k] = E[(1-p_k) p_ic] / E[1-p_k], E[p_ci | C at k] = E[p_k p_ci] / E[p_k]",
        "docs/theory.md B1",
        (*BENCHMARKS, BETA),
        _pooled_rates,
        _exact_pooled_rates,
        _simulated_pooled_rates,
        compiled=False,
    ),
    Claim(
        "B1.pooled_limit",
        "the chain fitted to the first round gives the limit",
        "docs/theory.md B1",
        (HARD_REMAIN, EASY_REMAIN, RISES_THEN_FALLS),
        _pooled_limit,
        lambda setting: _exact_neutral(setting)[-1],
        _simulated_limit,
        holds=False,
        compiled=False,
    ),
    Claim(
        "B2.upper",
        "refining the questions that gain ends at E[max(p0, p_k)]",
        _BOUNDS,
        BENCHMARKS,
        _bounds(lambda bounds: bounds.upper),
        _exact_upper,
        _simulated_choice(better=True),
        compiled=False,
    ),
    Claim(
        "B2.neutral",
        "refining every question ends at E[p_k]",
        _BOUNDS,
        BENCHMARKS,
        _bounds(lambda bounds: bounds.neutral),
        _exact_neutral,
        _simulated_mean_accuracies,
        compiled=False,
    ),
    Claim(
        "B2.lower",
        "refining the questions that lose ends at E[min(p0, p_k)]",
        _BOUNDS,
        BENCHMARKS,
        _bounds(lambda bounds: bounds.lower),
        _exact_lower,
        _simulated_choice(better=False),
        compiled=False,
    ),
    Claim(
        "B2.identity",
        "upper + lower = E[p0] + neutral",
        "docs/theory.md B2",
        BENCHMARKS,
        _bounds(lambda bounds: bounds.upper + bounds.lower),
        _exact_both,
        _simulated_both,
        compiled=False,
    ),
    Claim(
        "B2.gating",
        "refining iff p0 < pi attains E[max(p0, p_k)] at every k",
        "arXiv 2602.01120 (gate, interpretation)",
        BENCHMARKS,
        _gated,
        lambda setting: _exact_upper(setting)[:-1],
        _simulated_gate,
        compiled=False,
    ),
    Claim(
        "B3.regime",
        "the first round gains E[(1-p0) p_ic] - E[p0 p_ci]",
        "docs/theory.md B3",
        BENCHMARKS,
        _first_round,
        _exact_first_round,
        _simulated_first_round,
        compiled=False,
    ),
    Claim(
        "B4.gradients",
        "derivatives of p_k in p0, p_ic, p_ci",
        "docs/theory.md B4",
        CHAINS,
        _gradients,
        _exact_gradients,
        _simulated_gradients,
    ),
)
