"""Predicted priors on test questions: evidence gained, correlation, coverage, reliability."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real
from scipy.stats import betabinom

from msjax.errors import InputError
from msjax.intervals import Interval
from msjax.theory.best_of_n import TruncatedNormal, score_log_cdf
from msjax.train.priors.features import FeatureTable
from msjax.train.priors.losses import (
    LARGEST_WEIGHT,
    BetaPrior,
    ScorePrior,
    distribution_grid,
    distribution_log_prior,
    expected_distribution,
)
from msjax.train.priors.predictor import FEWEST, Predictor
from msjax.train.priors.targets import ChainData, Evidence, ScoreData

__all__ = ["PriorReport", "QuantityReport", "ReliabilityBin", "report"]

RESAMPLES = 2000
LEVEL = 0.9
_BINS = 3
_FINE = 193


@dataclass(frozen=True)
class ReliabilityBin:
    """Questions with about the same prediction, and what they showed on average."""

    questions: int
    predicted: float
    observed: Interval


@dataclass(frozen=True)
class QuantityReport:
    """One predicted quantity on the test questions that show it.

    Attributes:
        name: p0, p_ic, p_ci; or mean and deviation of the scores.
        questions: test questions that show it.
        correlation: of predicted means with observed shares, which are themselves noisy; None
            where predictions are all equal, or of fewer than `FEWEST` questions.
        coverage: share of observations inside their central 90 % predictive interval; None where no
            question shows more than one.
        reliability: thirds of the questions by prediction.
    """

    name: str
    questions: int
    correlation: Interval | None
    coverage: Interval | None
    reliability: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class PriorReport:
    """A predictor on questions it has not seen; intervals are 90 %, from resampled questions.

    Attributes:
        questions: how many.
        gain: log evidence less that of one prior for all questions (nats per question), in all and
            part by part; paired.
        quantities: what was predicted.
    """

    questions: int
    gain: dict[str, Interval]
    quantities: tuple[QuantityReport, ...]


def report(
    predictor: Predictor,
    data: Any,
    names: tuple[str, ...],
    table: FeatureTable,
    *,
    seed: int = 0,
) -> PriorReport:
    """Judge a predictor on questions, all of which must be new to it.

    Args:
        predictor: trained on other questions.
        data: what these questions showed, of `target.read`.
        names: of the questions.
        table: their features.
        seed: of resampling and of the order of ties.

    Raises:
        InputError: a question that the predictor learnt from, or without features.
    """
    known = [name for name in names if name in predictor.learnt_from]
    if known:
        raise InputError(f"question {known[0]!r} is one the predictor learnt from; give others")
    random = np.random.default_rng(seed)
    n = len(names)
    weight = random.multinomial(n, np.full(n, 1 / n), RESAMPLES)
    target = predictor.target
    outputs = predictor.outputs(table, names)
    evidence = target.evidence(data)
    data = jax.tree.map(jnp.asarray, data)
    found, without = (_evidence(evidence, x, data) for x in (outputs, predictor.baseline(n)))
    gains = np.asarray(found - without, float)
    gain = {"all": _mean(gains.sum(axis=1), weight)}
    if len(target.parts) > 1:
        gain |= {part: _mean(gains[:, i], weight) for i, part in enumerate(target.parts)}
    prior = target.prior(outputs)
    if isinstance(data, ChainData):
        quantities = [
            _rate(
                name,
                prior[i],
                np.asarray(data.yes)[:, i],
                np.asarray(data.no)[:, i],
                weight,
                random,
            )
            for i, name in enumerate(target.parts)
        ]
    else:
        quantities = _scores(prior, data, weight)
    return PriorReport(n, gain, tuple(quantities))


@partial(jax.jit, static_argnums=0)
def _evidence(evidence: Evidence, outputs: Any, data: Any) -> Float[Array, "question part"]:
    return jax.vmap(evidence)(outputs, data)


def _rate(
    name: str,
    prior: BetaPrior,
    yes: Int[np.ndarray, " question"],
    no: Int[np.ndarray, " question"],
    weight: Int[np.ndarray, "resample question"],
    random: np.random.Generator,
) -> QuantityReport:
    trials = yes + no
    mean, strength = (np.asarray(x, float) for x in (prior.mean, prior.strength))
    distribution = betabinom(trials, mean * strength, (1 - mean) * strength)
    # Ranks of counts, ties broken at random, are uniform if the distribution is right.
    rank = distribution.cdf(yes - 1) + random.random(len(yes)) * distribution.pmf(yes)
    inside = np.abs(rank - 0.5) <= LEVEL / 2
    observed = np.where(trials > 0, yes / np.maximum(trials, 1), np.nan)
    covered = np.where(trials > 0, inside, np.nan) if (trials > 1).any() else None
    return _quantity(name, mean, observed, covered, weight)


def _scores(
    prior: ScorePrior, data: ScoreData, weight: Int[np.ndarray, "resample question"]
) -> list[QuantityReport]:
    scores = np.asarray(data.scores)
    low, high, expected_mean, expected_deviation = _predicted_scores(prior)
    seen = ~np.isnan(scores)
    within = (scores >= low[:, None]) & (scores <= high[:, None])
    covered = np.where(
        seen.any(axis=1), within.sum(axis=1) / np.maximum(seen.sum(axis=1), 1), np.nan
    )
    n, mean, squares = (np.asarray(x, float) for x in data.statistics[:3])
    deviation = np.where(n > 1, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan)
    return [
        _quantity("mean", expected_mean, np.where(n > 0, mean, np.nan), covered, weight),
        _quantity("deviation", expected_deviation, deviation, None, weight),
    ]


def _predicted_scores(prior: ScorePrior) -> Float[np.ndarray, "4 question"]:
    """Ends of the central 90 % interval of a score, expected mean and deviation of the scores."""
    grid = distribution_grid(int(LARGEST_WEIGHT))
    distributions = TruncatedNormal(grid.centre + grid.slope / grid.curvature, grid.curvature**-0.5)
    # Denser at the ends, where scores pile up.
    at = np.sin(np.linspace(0, np.pi / 2, _FINE)) ** 2
    below = jnp.exp(
        jax.lax.map(lambda s: score_log_cdf(distributions, s), jnp.asarray(at, jnp.float32))
    )

    def one(prior: ScorePrior) -> tuple[Any, ...]:
        cdf = below @ jax.nn.softmax(distribution_log_prior(prior, grid))
        ends = jnp.interp(jnp.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2]), cdf, at)
        return (ends[0], ends[1], *expected_distribution(prior, grid))

    return np.stack([np.asarray(x, float) for x in jax.lax.map(jax.jit(one), prior)])


def _quantity(
    name: str,
    predicted: Float[np.ndarray, " question"],
    observed: Float[np.ndarray, " question"],
    covered: Float[np.ndarray, " question"] | None,
    weight: Int[np.ndarray, "resample question"],
) -> QuantityReport:
    there = ~np.isnan(observed)
    x, y, w = predicted[there], observed[there], weight[:, there]
    bins = []
    for chosen in np.array_split(np.argsort(x, kind="stable"), _BINS):
        if len(chosen):
            bins.append(
                ReliabilityBin(len(chosen), float(x[chosen].mean()), _mean(y[chosen], w[:, chosen]))
            )
    correlated = len(x) >= FEWEST and np.ptp(x) > 0 and np.ptp(y) > 0
    return QuantityReport(
        name,
        len(x),
        _interval(lambda u: _correlation(x, y, u), w) if correlated else None,
        None if covered is None or not len(x) else _mean(covered[there], w),
        tuple(bins),
    )


def _mean(
    x: Float[np.ndarray, " question"], weight: Int[np.ndarray, "resample question"]
) -> Interval:
    return _interval(lambda w: w @ x / np.maximum(w.sum(axis=1), 1), weight)


def _interval(
    statistic: Callable[[np.ndarray], np.ndarray], weight: Int[np.ndarray, "resample question"]
) -> Interval:
    """A statistic of weighted questions, and its bootstrap percentile interval."""
    estimate = float(statistic(np.ones((1, weight.shape[1])))[0])
    ends = np.nanquantile(statistic(weight), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(estimate, float(ends[0]), float(ends[1]))


def _correlation(
    x: Float[np.ndarray, " question"],
    y: Float[np.ndarray, " question"],
    weight: Real[np.ndarray, "resample question"],
) -> Float[np.ndarray, " resample"]:
    total = np.maximum(weight.sum(axis=1), 1)
    mx, my = weight @ x / total, weight @ y / total
    xx, yy = weight @ x**2 / total - mx**2, weight @ y**2 / total - my**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weight @ (x * y) / total - mx * my) / np.sqrt(xx * yy)
