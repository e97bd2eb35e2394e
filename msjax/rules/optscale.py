"""OptScale's rules: sample until the best score would exceed s_min with the wanted confidence.

The distribution of a question's scores is fitted to those seen, and N* =
samples_to_reach(distribution, s_min, confidence) samples are asked for. The papers fit again after
every sample (`optscale`), their public code once, after the first few (`optscale_peek_once`).
Without a prior the fit is maximum likelihood ("OptScale0"); with a predicted (mu, sigma) it is the
posterior mode ("OptScale-t").
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from msjax.errors import InputError, require, require_uncertain
from msjax.rules.protocol import Decision, Observation, StoppingRule
from msjax.theory.best_of_n import TruncatedNormal, samples_to_reach
from msjax.theory.score_fits import (
    BetaScores,
    ScoreStatistics,
    add_score,
    beta_samples_to_reach,
    fit_beta,
    fit_truncated_normal,
    fit_truncated_normal_to_prior,
    no_scores,
)

__all__ = ["PEEKS", "OptScaleState", "ScoreModel", "optscale", "optscale_peek_once"]

PEEKS = {8: 3, 16: 5, 32: 10, 64: 20}
"""Samples after which the public code fits, by budget."""

ScoreModel = Literal["truncated_normal", "beta"]
ScoreDistribution = TruncatedNormal | BetaScores


class OptScaleState(NamedTuple):
    """What a rule remembers of a question, whatever the number of samples.

    Attributes:
        samples: answers seen, with or without a score.
        scored: of these, answers with a score.
        statistics: of the scores the fit uses: all, or the first few.
        fitted: the distribution fitted to them.
        best_score: highest score of an answer that can be returned; -inf for none.
        best_answer: that answer; -1 for none.
    """

    samples: Int[Array, ""]
    scored: Int[Array, ""]
    statistics: ScoreStatistics
    fitted: ScoreDistribution
    best_score: Float[Array, ""]
    best_answer: Int[Array, ""]


def optscale(
    budget: int,
    *,
    s_min: Real[ArrayLike, ""],
    confidence: Real[ArrayLike, ""],
    prior: TruncatedNormal | None = None,
    score_model: ScoreModel = "truncated_normal",
) -> StoppingRule:
    """OptScale as the papers describe it: fitted again after every sample.

    Stops after the first sample at which the number of scores has reached N* of the fit to all of
    them, or after `budget` samples. Returns the answer with the highest score, the earliest of
    equals; an answer without a score or without an id never wins.

    The likelihood says nothing of one score, so without a prior it takes two. Of equal scores the
    fit is a distribution as narrow as `msjax.theory.score_fits.RESOLUTION` at their value: two
    scores above s_min stop, equal scores below ask for the whole budget. Samples without a score
    (NaN) count towards the budget alone.

    Args:
        budget: most samples.
        s_min: score to exceed, in [0, 1].
        confidence: probability wanted that the best score exceeds it, in (0, 1) (their alpha).
        prior: predicted mu and sigma of this question, scalars: the rule is OptScale-t.
        score_model: distribution fitted to the scores; "beta" knows no prior.

    Raises:
        InputError: budget < 1, s_min or confidence out of range, an unknown score model, or a
            prior together with "beta".

    Reference: OptScale (arXiv 2506.22376); docs/theory.md D2, D4, D5; docs/stopping.md.
    """
    return _rule(budget, _distribution(budget, s_min, confidence, prior, score_model), None)


def optscale_peek_once(
    budget: int,
    *,
    s_min: Real[ArrayLike, ""],
    confidence: Real[ArrayLike, ""],
    prior: TruncatedNormal | None = None,
    score_model: ScoreModel = "truncated_normal",
    peek: int | None = None,
) -> StoppingRule:
    """OptScale as its public code does it: fitted once, after `peek` samples.

    Samples max(N*, peek) answers, at most `budget`; the N* of the fit to the first `peek` is not
    revised. With fewer than two scores among them and no prior, it samples the whole budget.
    Everything else is as in `optscale`. The code takes N* from a grid of 1,000 scores; here it is
    exact.

    Args:
        budget: most samples.
        s_min: score to exceed, in [0, 1].
        confidence: probability wanted that the best score exceeds it, in (0, 1).
        prior: predicted mu and sigma of this question, scalars.
        score_model: distribution fitted to the scores; "beta" knows no prior.
        peek: samples before the fit; by default that of the public code for this budget (`PEEKS`).

    Raises:
        InputError: as `optscale`; peek outside 1..budget, or none given for a budget that the
            public code does not use.

    Reference: OptScale (arXiv 2506.22376), public code; docs/theory.md D2, D4; docs/stopping.md.
    """
    if peek is None:
        if budget not in PEEKS:
            raise InputError(f"peek is None; give one for budget = {budget} (known: {[*PEEKS]})")
        peek = PEEKS[budget]
    if not 1 <= peek <= budget:
        raise InputError(f"peek = {peek}: must lie in 1..budget = {budget}")
    return _rule(budget, _distribution(budget, s_min, confidence, prior, score_model), peek)


class _Distribution(NamedTuple):
    """How a distribution is fitted, and N* of a fit to so many scores, at most the budget."""

    fit: Callable[[ScoreStatistics], ScoreDistribution]
    needed: Callable[[ScoreDistribution, Int[Array, ""]], Int[Array, ""]]


def _distribution(
    budget: int,
    s_min: Real[ArrayLike, ""],
    confidence: Real[ArrayLike, ""],
    prior: TruncatedNormal | None,
    score_model: ScoreModel,
) -> _Distribution:
    if budget < 1:
        raise InputError(f"budget = {budget}: must be at least 1 sample")
    if score_model not in ("truncated_normal", "beta"):
        raise InputError(f"score_model = {score_model!r}: give 'truncated_normal' or 'beta'")
    if score_model == "beta" and prior is not None:
        raise InputError("prior given with score_model = 'beta'; a prior is for 'truncated_normal'")
    require("s_min", s_min, lambda s: (s >= 0) & (s <= 1), "a score must lie in [0, 1]")
    require_uncertain("confidence", confidence)
    # The likelihood says nothing of one score.
    enough = 2 if prior is None else 0

    def fit(statistics: ScoreStatistics) -> ScoreDistribution:
        if prior is not None:
            return fit_truncated_normal_to_prior(statistics, prior)
        if score_model == "beta":
            return fit_beta(statistics).distribution
        return fit_truncated_normal(statistics).distribution

    def needed(distribution: ScoreDistribution, number: Int[Array, ""]) -> Int[Array, ""]:
        if isinstance(distribution, BetaScores):
            n = beta_samples_to_reach(distribution, s_min, confidence)
        else:
            n = samples_to_reach(distribution, s_min, confidence)
        return jnp.where(number < enough, budget, jnp.minimum(n, budget))

    return _Distribution(fit, needed)


def _rule(budget: int, distribution: _Distribution, peek: int | None) -> StoppingRule:
    """Stop after N* scores of the fit to all samples, or of that to the first `peek` of them."""

    def init() -> OptScaleState:
        none = jnp.int32(0)
        fitted = distribution.fit(no_scores())
        return OptScaleState(none, none, no_scores(), fitted, jnp.float32(-jnp.inf), jnp.int32(-1))

    def update(state: OptScaleState, seen: Observation) -> tuple[OptScaleState, Decision]:
        samples = state.samples + 1
        has_score = ~jnp.isnan(seen.score)
        statistics = add_score(state.statistics, seen.score)
        if peek is None:
            fitted = distribution.fit(statistics)
        else:
            statistics = jax.tree.map(
                lambda new, old: jnp.where(samples <= peek, new, old), statistics, state.statistics
            )
            # Questions advance together, so that this is one fit and not one for every sample.
            fitted = jax.lax.cond(
                samples == peek, distribution.fit, lambda _: state.fitted, statistics
            )
        better = has_score & (seen.answer_id >= 0) & (seen.score > state.best_score)
        state = OptScaleState(
            samples,
            state.scored + has_score,
            statistics,
            fitted,
            jnp.where(better, seen.score, state.best_score),
            jnp.where(better, seen.answer_id, state.best_answer),
        )
        enough: Bool[Array, ""] = state.scored >= distribution.needed(fitted, statistics.number)
        stop = (samples >= budget) | (enough & (samples >= (peek or 0)))
        return state, Decision(stop, state.best_answer, jnp.float32(jnp.nan))

    return StoppingRule(init, update)
