"""Rules that are told every question's predicted prior, for `msjax.evaluate.crossfit`.

MarkovScale-t and OptScale-t: the rules are those of `msjax.rules`, the prior is what a
`Predictor` says of the question, and its weight against what the question shows is the predicted
one. docs/training.md compares them with rules that need no training.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import betaincinv
from scipy.stats import qmc

from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.rules.belief import SignalDistribution, belief_rule
from msjax.rules.markovscale import question_rounds
from msjax.rules.optscale import optscale
from msjax.rules.protocol import StoppingRule
from msjax.rules.registry import find_rule_for
from msjax.rules.spec import RuleSpec, offered_by
from msjax.theory.best_of_n import TruncatedNormal
from msjax.theory.chain import TwoStateChain
from msjax.theory.score_fits import ScoreStatistics, fit_truncated_normal
from msjax.train.priors.features import FeatureTable
from msjax.train.priors.losses import (
    LARGEST_WEIGHT,
    BetaPrior,
    distribution_grid,
    expected_distribution,
)
from msjax.train.priors.predictor import Predictor
from msjax.train.priors.targets import question_names

__all__ = ["new_questions", "predicted_rules"]

Make = Callable[[Any, Any], StoppingRule]

_DRAWS = 8
"""Binary digits of the number of chains that stand for a question's prior."""


def new_questions(predictor: Predictor, pool: Runs) -> Runs:
    """The pool without the questions that the predictor learnt from.

    Raises:
        InputError: there are no others.
    """
    known = np.array([name in predictor.learnt_from for name in question_names(pool)])
    if known.all():
        raise InputError(
            f"pool {pool.name}: the predictor learnt from all of its questions; record others"
        )
    kept = np.flatnonzero(~known)
    return pool.take(kept)


def predicted_rules(predictor: Predictor, table: FeatureTable, pool: Runs) -> tuple[RuleSpec, ...]:
    """The rules of these runs that a predicted prior makes; all have the option prior=predicted.

    For rounds, from priors of the chain:

    - markovscale: gate and N* by E[p_k] under the question's prior;
    - belief: the same, the prior being updated by whether revisions changed the answer;
    - belief,scores=yes: the same, updated by scores as well;
    - markovscale,scores=yes: gate and N* by the posterior mode of p0 given the score of the first
      answer (docs/theory.md C5); the weight of the prior is the predicted concentration, or one
      score where that is not known.

    For samples, from priors of the distribution of scores:

    - optscale: the papers' posterior mode, (mu, sigma) predicted, with their fixed weight;
    - optscale with prior=weighted: maximum likelihood of the scores seen and those that the prior
      counts for.

    Raises:
        InputError: a predictor of the other kind, or features that are missing or others than it
            learnt from.
    """
    wanted = "scores" if pool.parallel else "chain"
    if predictor.target.name != wanted:
        raise InputError(
            f"pool {pool.name}: the predictor predicts {predictor.target.name}, rules for "
            f"{'samples' if pool.parallel else 'rounds'} need {wanted}; train one of these"
        )
    prior = predictor.target.prior(predictor.outputs(table, question_names(pool)))
    if pool.parallel:
        found = _sample_rules(prior, pool)
    else:
        found = _round_rules(prior, pool, predictor.p0_spread_known)
    return tuple(rule for rule in found if rule.needs <= offered_by(pool))


def _predicted(
    name: str, pool: Runs, says: str, make: Make, side_info: np.ndarray, prior: str = "predicted"
) -> RuleSpec:
    """A rule by name that is told a prior of every question."""
    known = find_rule_for(name, pool.samples, "samples" if pool.parallel else "rounds", pool.name)
    return replace(
        known, name=f"{name},prior={prior}", says=says, make=make, side_info=lambda _: side_info
    )


def _round_rules(prior: Any, pool: Runs, p0_spread_known: bool) -> tuple[RuleSpec, ...]:
    p0 = np.asarray(prior.p0.mean)
    sobol = qmc.Sobol(2, scramble=False).random_base2(_DRAWS) + 2.0 ** -(_DRAWS + 1)
    rates = [
        _quantiles(distribution, position)
        for distribution, position in zip((prior.p_ic, prior.p_ci), sobol.T, strict=True)
    ]
    # Belief is linear in p0, so that its mean is all that counts.
    chains = np.stack([np.broadcast_to(p0[:, None], rates[0].shape), *rates], axis=1)
    strength = np.asarray(prior.p0.strength) if p0_spread_known else np.ones_like(p0)
    means = np.stack([p0, prior.p_ic.mean, prior.p_ci.mean, strength], axis=1)
    blind = _predicted(
        "belief",
        pool,
        "MarkovScale-t, gate and N* of each question by its predicted prior",
        _without_signals,
        chains,
    )
    return (
        replace(blind, name="markovscale,prior=predicted", needs=frozenset()),
        _predicted(
            "belief",
            pool,
            "belief from each question's predicted prior and from whether revisions change it",
            _with_changes,
            chains,
        ),
        _predicted(
            "belief,scores=yes",
            pool,
            "the same, and from scores, Beta distributions of right and wrong ones",
            _with_changes_and_scores,
            chains,
        ),
        _predicted(
            "markovscale,scores=yes",
            pool,
            "gate and N* of each question by its predicted prior and its first score",
            _with_first_score,
            means,
        ),
    )


def _sample_rules(prior: Any, pool: Runs) -> tuple[RuleSpec, ...]:
    number = jnp.round(prior.weight).astype(jnp.int32)
    none = jnp.zeros_like(prior.mean)
    seen = ScoreStatistics(number, prior.mean, number * prior.variance, none, none)
    grid = distribution_grid(int(LARGEST_WEIGHT))
    mean, deviation = jax.lax.map(lambda one: expected_distribution(one, grid), prior)
    two = jnp.full_like(number, 2)
    distribution = fit_truncated_normal(
        ScoreStatistics(two, mean, 2 * deviation**2, none, none)
    ).distribution
    distributions = np.stack([np.asarray(distribution.mu), np.asarray(distribution.sigma)], axis=1)
    scores = np.stack([np.asarray(x, np.float32) for x in seen[:3]], axis=1)
    to_prior, weighted = _optscale(pool.samples)
    return (
        _predicted(
            "optscale",
            pool,
            "OptScale-t, fitted to a predicted mu and sigma with the papers' fixed weight",
            to_prior,
            distributions,
        ),
        _predicted(
            "optscale",
            pool,
            "OptScale-t, the prediction counting for as many scores as it is predicted to",
            weighted,
            scores,
            "weighted",
        ),
    )


# What follows is the same for all predictors, so that a rule is compiled once.


def _believe(p: Any, chain: Float[Array, "3 draw"], signals: SignalDistribution) -> StoppingRule:
    return belief_rule(TwoStateChain(*chain), p["costs"], signals, price=1.0)


def _without_signals(p: Any, chain: Float[Array, "3 draw"]) -> StoppingRule:
    return _believe(p, chain, SignalDistribution())


def _with_changes(p: Any, chain: Float[Array, "3 draw"]) -> StoppingRule:
    return _believe(p, chain, SignalDistribution(p["keep_wrong"].mean()))


def _with_changes_and_scores(p: Any, chain: Float[Array, "3 draw"]) -> StoppingRule:
    return _believe(p, chain, SignalDistribution(p["keep_wrong"].mean(), p["scores"]))


def _with_first_score(p: Any, side_info: Float[Array, "4"]) -> StoppingRule:
    _, cost = p
    p0, p_ic, p_ci, weight = side_info
    chain = TwoStateChain(p0, p_ic, p_ci)
    return question_rounds(chain, cost, prior_mean=p0, prior_strength=weight, price=1.0)


@cache
def _optscale(budget: int) -> tuple[Make, Make]:
    def to_prior(p: Any, side_info: Float[Array, "2"]) -> StoppingRule:
        prior = TruncatedNormal(side_info[0], side_info[1])
        return optscale(budget, s_min=p[0], confidence=p[1], prior=prior)

    def weighted(p: Any, side_info: Float[Array, "3"]) -> StoppingRule:
        rule = optscale(budget, s_min=p[0], confidence=p[1])
        number, mean, squares = side_info
        zero = jnp.zeros_like(mean)
        before = ScoreStatistics(number.astype(jnp.int32), mean, squares, zero, zero)
        return StoppingRule(lambda: rule.init()._replace(statistics=before), rule.update)

    return to_prior, weighted


def _quantiles(
    prior: BetaPrior, position: Float[np.ndarray, " draw"]
) -> Float[np.ndarray, "question draw"]:
    mean, strength = (np.asarray(x, float)[:, None] for x in (prior.mean, prior.strength))
    found = betaincinv(mean * strength, (1 - mean) * strength, position[None, :])
    return np.clip(found, 0, 1).astype(np.float32)
