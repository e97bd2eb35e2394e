"""Posterior of whatever follows from a model: carry every draw through a function.

Whatever needs a parameter that the data do not identify is NaN, draw by draw, so that no summary
can mistake the prior for a finding.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from msjax.errors import InputError
from msjax.intervals import LEVEL, NOT_IDENTIFIED, Interval
from msjax.posterior.fits import Fit
from msjax.posterior.models.model import ChainMixture, Chains, Curves
from msjax.theory.chain import TwoStateChain
from msjax.theory.population import Population

MIN_ROUNDS = 10


class Bounds(NamedTuple):
    """Draws of what choosing the questions to refine can make of a benchmark (probabilities).

    `upper`, `neutral`, `lower` are E[max(p0, p)], E[p], E[min(p0, p)] over kinds of question, p
    being the accuracy after so many rounds or in the limit. One first answer per question does not
    show how p0 differs among questions of one kind, so these take it as the same. `upper_most` and
    `lower_most` are the values if instead every question were sure to start right or sure to start
    wrong: whatever the distribution of p0 within a kind, the bounds lie between the two.
    """

    upper: Float[np.ndarray, "draw *k"]
    neutral: Float[np.ndarray, "draw *k"]
    lower: Float[np.ndarray, "draw *k"]
    upper_most: Float[np.ndarray, "draw *k"]
    lower_most: Float[np.ndarray, "draw *k"]


class Quantities(NamedTuple):
    """Draws of what is said of a benchmark, NaN where not identified; k = 0..K.

    Each has one meaning whatever the model. `p0` is the accuracy of first answers; `p_ic` and
    `p_ci` are what the first revision repairs of the wrong ones and breaks of the right ones.
    `bounds` are those after k rounds (its `neutral` is the accuracy E[p_k]), `limit` those for k to
    infinity, NaN for a model that says nothing of the limit. `first_round_helps` and `limit_helps`
    are 1 where E[p_1] > E[p_0] and where the limit is above E[p_0].
    """

    p0: Float[np.ndarray, " draw"]
    p_ic: Float[np.ndarray, " draw"]
    p_ci: Float[np.ndarray, " draw"]
    bounds: Bounds
    limit: Bounds
    first_round_helps: Float[np.ndarray, " draw"]
    limit_helps: Float[np.ndarray, " draw"]


def bounds(
    curves: Curves, accuracy: Float[np.ndarray, "draw kind *k"], starts_apart: bool = False
) -> Bounds:
    """Bounds when the kinds of question have this accuracy.

    Jensen's inequality gives E[max(p0, p)] its least value when p0 is constant within a kind, and
    its greatest, p0 + (1 - p0) p, when p0 is 0 or 1. With `starts_apart` it is constant.

    Reference: docs/theory.md B2, F4.
    """
    start = curves.accuracy[..., 0]

    def mean(values: np.ndarray) -> np.ndarray:
        # Rounds are the first axis in memory.
        return np.einsum("dn,kdn->dk", curves.weight, np.moveaxis(values, -1, 0))

    later = accuracy if accuracy.ndim == 3 else accuracy[..., None]
    first, neutral = (curves.weight * start).sum(axis=1)[:, None], mean(later)
    upper = mean(np.maximum(start[..., None], later))
    both = mean(start[..., None] * later)
    lower = first + neutral - upper
    most, least = (upper, lower) if starts_apart else (first + neutral - both, both)
    found = Bounds(upper, neutral, lower, most, least)
    return found if accuracy.ndim == 3 else Bounds(*(x[:, 0] for x in found))


def quantities(fit: Fit) -> Quantities:
    """Draws of rates, accuracies and bounds under one model, k up to max(10, rounds observed).

    Reference: docs/theory.md B2, B3, F4.
    """
    curves = fit.model.curves(fit.draws, max(MIN_ROUNDS, fit.count.rounds))
    apart = fit.model.tells_starts_apart
    after = bounds(curves, curves.accuracy, apart)
    no_limit = np.full(curves.weight.shape, np.nan)
    limit = bounds(curves, no_limit if curves.limit is None else curves.limit, apart)
    start = after.neutral[:, 0]
    first = fit.model.first_revision(fit.draws)

    def if_known(draws: np.ndarray) -> np.ndarray:
        return np.where(fit.known, draws, np.nan).astype(float)

    def if_seen(draws: np.ndarray, *needed: str) -> np.ndarray:
        return np.where(all(fit.identified.get(name, True) for name in needed), draws, np.nan)

    known = jax.tree.map(
        if_known,
        Quantities(
            p0=start,
            p_ic=first.p_ic,
            p_ci=first.p_ci,
            bounds=after,
            limit=limit,
            first_round_helps=after.neutral[:, 1] > start,
            limit_helps=np.where(np.isnan(limit.neutral), np.nan, limit.neutral > start),
        ),
    )
    # No question needs a rate for its first answer, and one of the rates may do without the other.
    known.bounds.neutral[:, 0] = start
    return known._replace(
        p0=if_seen(start, "p0"),
        p_ic=if_seen(first.p_ic, "p_ic", "settled_wrong"),
        p_ci=if_seen(first.p_ci, "p_ci", "settled_right"),
    )


def push_forward(
    fit: Fit, function: Callable[[Population], Float[Array, "*event"]]
) -> Float[np.ndarray, "draw *event"]:
    """Posterior draws of `function(population)`, for any function of a benchmark's population.

    `function` sees one draw as an `msjax.theory.population.Population`, under jit and vmap:
    `msjax.theory.population.bounds`, `limit_accuracy`, `lambda p: mean_accuracy_curve(p, 5)`.

    Raises InputError for a model whose questions follow no two-state chain, such as drifting.
    """
    chains, weight = _mixture(fit).kinds(fit.draws)

    def of_one(chains: Chains, weight: Array) -> Array:
        return function(Population(TwoStateChain(*chains), weight))

    draws = np.asarray(jax.jit(jax.vmap(of_one))(chains, weight), dtype=float)
    return np.where(fit.known, draws, np.nan)


def question_posterior(fit: Fit, random: np.random.Generator) -> Chains:
    """The chain of every question given its own run, [draw, question].

    P(refining helps question q | data) is the share of draws with p_ic (1 - p0) > p_ci p0.

    Raises InputError for a model whose questions follow no two-state chain.
    """
    model = _mixture(fit)
    return model.question_chains(random, fit.draws, model.statistics(fit.runs))


def round_tokens(tokens_per_round: Float[np.ndarray, " answer"]) -> Float[np.ndarray, " round"]:
    """Mean tokens of refinement rounds 1..K, K = max(10, rounds observed).

    Rounds that were not observed take the last observed one's; a benchmark without any refinement
    round takes its first answer's.
    """
    later = tokens_per_round[1:]
    rounds = max(MIN_ROUNDS, len(later))
    return np.concatenate([later, np.full(rounds - len(later), tokens_per_round[-1])])


def estimate(draws: Float[np.ndarray, " draw"], level: float = LEVEL) -> Interval:
    """Median and central credible interval of draws; not identified where one is NaN.

    Quantiles are draws themselves, so that those of whole numbers are whole numbers.
    """
    if np.isnan(draws).any():
        return NOT_IDENTIFIED
    tail = (1 - level) / 2
    low, median, high = np.quantile(draws, [tail, 0.5, 1 - tail], method="inverted_cdf")
    return Interval(float(median), float(low), float(high))


def _mixture(fit: Fit) -> ChainMixture:
    if not isinstance(fit.model, ChainMixture):
        raise InputError(
            f"model {fit.model.name} is no mixture of two-state chains, so its questions have no "
            "chains; use its `curves`, or fit another model"
        )
    return fit.model
