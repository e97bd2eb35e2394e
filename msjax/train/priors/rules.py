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
from msjax.rules.belief import SignalLaw, belief_rule
from msjax.rules.markovscale import question_rounds
from msjax.rules.optscale import optscale
from msjax.rules.protocol import StoppingRule
from msjax.rules.round_rules import round_rules
from msjax.rules.sample_rules import sample_rules
from msjax.rules.spec import Entry, offered_by
from msjax.theory.best_of_n import TruncatedNormal
from msjax.theory.chain import TwoStateChain
from msjax.theory.score_fits import ScoreStatistics, fit_truncated_normal
from msjax.train.priors.features import FeatureTable
from msjax.train.priors.losses import LARGEST_WEIGHT, BetaPrior, expected_law, law_grid
from msjax.train.priors.predictor import Predictor
from msjax.train.priors.targets import question_names

__all__ = ["new_questions", "predicted_entries"]

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


def predicted_entries(predictor: Predictor, table: FeatureTable, pool: Runs) -> tuple[Entry, ...]:
    """The rules of this pool that a predicted prior makes.

    For rounds, from priors of the chain:

    - markovscale_t: gate and N* by E[p_k] under the question's prior;
    - belief_changes_t: the same, the prior being updated by whether revisions changed the answer;
    - belief_changes_scores_t: the same, updated by scores as well;
    - question_rounds_t: gate and N* by the posterior mode of p0 given the score of the first answer
      (docs/theory.md C5); the weight of the prior is the predicted concentration, or one score
      where that is not known.

    For samples, from priors of the law of scores:

    - optscale_t: the papers' posterior mode, (mu, sigma) predicted, with their fixed weight;
    - optscale_weighted: maximum likelihood of the scores seen and those that the prior counts for.

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
        found = _sample_entries(prior, pool)
    else:
        found = _round_entries(prior, pool, predictor.p0_spread_known)
    return tuple(entry for entry in found if entry.needs <= offered_by(pool))


def _round_entries(prior: Any, pool: Runs, p0_spread_known: bool) -> tuple[Entry, ...]:
    known = {entry.name: entry for entry in round_rules(pool.samples)}
    p0 = np.asarray(prior.p0.mean)
    sobol = qmc.Sobol(2, scramble=False).random_base2(_DRAWS) + 2.0 ** -(_DRAWS + 1)
    rates = [
        _quantiles(law, place) for law, place in zip((prior.p_ic, prior.p_ci), sobol.T, strict=True)
    ]
    # Belief is linear in p0, so that its mean is all that counts.
    chains = np.stack([np.broadcast_to(p0[:, None], rates[0].shape), *rates], axis=1)
    strength = np.asarray(prior.p0.strength) if p0_spread_known else np.ones_like(p0)
    means = np.stack([p0, prior.p_ic.mean, prior.p_ci.mean, strength], axis=1)

    return (
        replace(
            known["belief_changes"],
            name="markovscale_t",
            says="MarkovScale-t, gate and N* of each question by its predicted prior",
            make=_without_signals,
            told=lambda _: chains,
            needs=frozenset(),
        ),
        replace(
            known["belief_changes"],
            name="belief_changes_t",
            says="belief from each question's predicted prior and from whether revisions change it",
            make=_with_changes,
            told=lambda _: chains,
        ),
        replace(
            known["belief_changes_scores"],
            name="belief_changes_scores_t",
            says="the same, and from scores, Beta laws of right and wrong ones",
            make=_with_changes_and_scores,
            told=lambda _: chains,
        ),
        replace(
            known["question_rounds"],
            name="question_rounds_t",
            says="gate and N* of each question by its predicted prior and its first score",
            make=_with_first_score,
            told=lambda _: means,
        ),
    )


def _sample_entries(prior: Any, pool: Runs) -> tuple[Entry, ...]:
    known = {entry.name: entry for entry in sample_rules(pool.samples)}
    number = jnp.round(prior.weight).astype(jnp.int32)
    none = jnp.zeros_like(prior.mean)
    seen = ScoreStatistics(number, prior.mean, number * prior.variance, none, none)
    grid = law_grid(int(LARGEST_WEIGHT))
    mean, deviation = jax.lax.map(lambda one: expected_law(one, grid), prior)
    two = jnp.full_like(number, 2)
    law = fit_truncated_normal(ScoreStatistics(two, mean, 2 * deviation**2, none, none)).law
    laws = np.stack([law.mu, law.sigma], axis=1)
    scores = np.stack([np.asarray(x, np.float32) for x in seen[:3]], axis=1)
    to_prior, weighted = _sample_rules(pool.samples)
    return (
        replace(
            known["optscale"],
            name="optscale_t",
            says="OptScale-t, fitted to a predicted mu and sigma with the papers' fixed weight",
            make=to_prior,
            told=lambda _: laws,
        ),
        replace(
            known["optscale"],
            name="optscale_weighted",
            says="OptScale-t, the prediction counting for as many scores as it is predicted to",
            make=weighted,
            told=lambda _: scores,
        ),
    )


# What follows is the same for all predictors, so that a rule is compiled once.


def _believe(p: Any, chain: Float[Array, "3 draw"], signals: SignalLaw) -> StoppingRule:
    _, _, _, _, cost, value, *_ = p
    return belief_rule(TwoStateChain(*chain), cost / value, signals, price=1.0)


def _without_signals(p: Any, chain: Float[Array, "3 draw"]) -> StoppingRule:
    return _believe(p, chain, SignalLaw())


def _with_changes(p: Any, chain: Float[Array, "3 draw"]) -> StoppingRule:
    return _believe(p, chain, SignalLaw(p[3].mean()))


def _with_changes_and_scores(p: Any, chain: Float[Array, "3 draw"]) -> StoppingRule:
    return _believe(p, chain, SignalLaw(p[3].mean(), p[6]))


def _with_first_score(p: Any, told: Float[Array, "4"]) -> StoppingRule:
    _, cost = p
    p0, p_ic, p_ci, weight = told
    chain = TwoStateChain(p0, p_ic, p_ci)
    return question_rounds(chain, cost, prior_mean=p0, prior_strength=weight, price=1.0)


@cache
def _sample_rules(budget: int) -> tuple[Make, Make]:
    def to_prior(p: Any, told: Float[Array, "2"]) -> StoppingRule:
        prior = TruncatedNormal(told[0], told[1])
        return optscale(budget, s_min=p[0], confidence=p[1], prior=prior)

    def weighted(p: Any, told: Float[Array, "3"]) -> StoppingRule:
        rule = optscale(budget, s_min=p[0], confidence=p[1])
        number, mean, squares = told
        zero = jnp.zeros_like(mean)
        before = ScoreStatistics(number.astype(jnp.int32), mean, squares, zero, zero)
        return StoppingRule(lambda: rule.init()._replace(statistics=before), rule.update)

    return to_prior, weighted


def _quantiles(
    prior: BetaPrior, place: Float[np.ndarray, " draw"]
) -> Float[np.ndarray, "question draw"]:
    mean, strength = (np.asarray(x, float)[:, None] for x in (prior.mean, prior.strength))
    found = betaincinv(mean * strength, (1 - mean) * strength, place[None, :])
    return np.clip(found, 0, 1).astype(np.float32)
