"""The answer most probably right, given the order in which all answers came, and when to stop."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from msjax.rules.belief import NOISE, round_costs
from msjax.rules.protocol import Decision, Observation, StoppingRule
from msjax.rules.votes import require_budget
from msjax.theory.answer_posterior import (
    AnswerDistribution,
    Answers,
    add_answer,
    no_answers,
    posterior,
)
from msjax.theory.chain import TwoStateChain, accuracy_curve

__all__ = ["belief_answers", "by_probability", "most_probable"]


def most_probable(distribution: AnswerDistribution, budget: int) -> StoppingRule:
    """Ask `budget` times and return the answer most probably right.

    Of equally probable answers the one seen first is returned; what is no answer never is. Scores
    are not looked at.

    Raises:
        InputError: a distribution that `AnswerDistribution.check` refuses, or a budget < 1.

    Reference: docs/theory.md C3.
    """
    require_budget(budget)
    return _returning_the_most_probable(
        distribution, budget, lambda n_used, best, last: jnp.bool_(False)
    )


def by_probability(
    rule: StoppingRule, distribution: AnswerDistribution, budget: int
) -> StoppingRule:
    """Stop when `rule` stops, but return the answer most probably right, given the order of all.

    The belief reported is that in this answer.

    Raises:
        InputError: as `most_probable`.

    Reference: docs/theory.md C3.
    """
    probable = most_probable(distribution, budget)

    def update(before: tuple[Any, Any], seen: Observation) -> tuple[tuple[Any, Any], Decision]:
        inner, says = rule.update(before[0], seen)
        answers, best = probable.update(before[1], seen)
        return (inner, answers), best._replace(stop=says.stop)

    return StoppingRule(lambda: (rule.init(), probable.init()), update)


def belief_answers(
    distribution: AnswerDistribution,
    tokens_per_round: Float[Array | np.ndarray, " rounds"],
    *,
    value: float = 1.0,
    price: Real[ArrayLike, ""],
) -> StoppingRule:
    """Revise while some later answer is expected to be worth more than the most probable one now.

    With b the belief in the last answer and B that in the most probable one, which is returned,
    revise once more iff for some j

        V [pi + (b - pi) r^j - B] > price * (tokens of the next j rounds).

    It leaves out what the next answers tell of the present ones, so it may stop too early.

    Args:
        distribution: how answers come about.
        tokens_per_round: expected uncached tokens of rounds 1..K; the rule stops at K.
        value: worth of one correct answer.
        price: cost of one token in the same unit, >= 0.

    Raises:
        InputError: a distribution that `AnswerDistribution.check` refuses, value not positive, or
            price or tokens negative or not finite.

    Reference: docs/theory.md C1, C3.
    """
    cost = round_costs(tokens_per_round, value, price)
    horizon = len(cost)
    spent = jnp.concatenate([jnp.zeros(1), jnp.cumsum(cost)])
    ahead = jnp.arange(1, horizon + 1)

    def pays(n_used: Int[Array, ""], best: Float[Array, ""], last: Float[Array, ""]) -> Array:
        done = n_used - 1
        later = accuracy_curve(
            TwoStateChain(last, distribution.chain.p_ic, distribution.chain.p_ci), horizon
        )[1:]
        to_come = jnp.minimum(done + ahead, horizon)
        gain = value * (later - best) - (spent[to_come] - spent[done])
        return ((gain > NOISE * value) & (done + ahead <= horizon)).any()

    return _returning_the_most_probable(
        distribution, horizon + 1, lambda n_used, best, last: ~pays(n_used, best, last)
    )


class _Given(NamedTuple):
    """How many answers there are, and what they say of each."""

    number: Int[Array, ""]
    answers: Answers


def _returning_the_most_probable(
    distribution: AnswerDistribution,
    budget: int,
    stops: Callable[[Array, Array, Array], Bool[Array, ""]],
) -> StoppingRule:
    """`stops` is told how many answers there are, the belief in the best and in the last one."""
    distribution.check()

    def init() -> _Given:
        return _Given(jnp.int32(0), no_answers(budget))

    def update(before: _Given, seen: Observation) -> tuple[_Given, Decision]:
        now = _Given(before.number + 1, add_answer(distribution, before.answers, seen.answer_id))
        belief = posterior(distribution, now.answers)
        best = jnp.argmax(belief)
        last = jnp.where(seen.answer_id >= 0, belief[seen.answer_id], 0)
        stop = stops(now.number, belief[best], last) | (now.number >= budget)
        answer = jnp.where((belief > 0).any(), best, -1)
        return now, Decision(stop, answer, belief[best])

    return StoppingRule(init, update)
