"""Which answer of a question is right, judged by the order in which its answers came.

Were answer j the right one, it would be known of every answer whether it is right, and the chain
gives the probability of them all; Bayes' rule compares the j (docs/theory.md C3).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Integer, Real

from msjax.errors import InputError, require, require_probability
from msjax.theory.chain import TwoStateChain

__all__ = [
    "AnswerDistribution",
    "Answers",
    "add_answer",
    "answer_posterior",
    "no_answers",
    "posterior",
]

_FIRST = -2
"""Stands for the answer before the first one."""
_IMPOSSIBLE = 1e-30
"""What the chain holds impossible keeps this probability, lest every answer be ruled out."""


class AnswerDistribution(NamedTuple):
    """How the answers of one question come about.

    Attributes:
        chain: one chain, shape ().
        keep_wrong: rho, probability that a revision from wrong to wrong keeps the answer.
        wrong_answers: m > 1, how many wrong answers there are, an effective number; they are
            equally likely, and so is each of the m + 1 answers to be the right one.
    """

    chain: TwoStateChain
    keep_wrong: Real[ArrayLike, ""]
    wrong_answers: Real[ArrayLike, ""]

    def check(self) -> None:
        """Raise `InputError` for a chain that is not scalar or a number out of its range."""
        if self.chain.shape != ():
            raise InputError(f"chain has shape {self.chain.shape}; give one chain, or use jax.vmap")
        require_probability("keep_wrong", self.keep_wrong)
        require(
            "wrong_answers",
            self.wrong_answers,
            lambda m: (m > 1) & np.isfinite(m),
            "give a finite number > 1",
        )


class Answers(NamedTuple):
    """What the answers so far say of each.

    Attributes:
        log_likelihood: log-probability of the answers so far if answer number j is right, at [j];
            no answer has the last number, so it stands for every answer that did not appear.
        last: number of the last answer.
        seen: how many numbers appeared.
        unread: whether some answer was none.
    """

    log_likelihood: Float[Array, " number"]
    last: Int[Array, ""]
    seen: Int[Array, ""]
    unread: Bool[Array, ""]


def no_answers(budget: int) -> Answers:
    """Before the first of at most `budget` answers."""
    return Answers(jnp.zeros(budget + 1), jnp.int32(_FIRST), jnp.int32(0), jnp.bool_(False))


@jax.jit
def add_answer(
    distribution: AnswerDistribution, before: Answers, number: Int[Array, ""]
) -> Answers:
    """After one more answer, of this number in order of first appearance; -1 for no answer.

    Reference: docs/theory.md C3.
    """
    chain, m = distribution.chain, distribution.wrong_answers
    if_right = jnp.arange(len(before.log_likelihood))
    right, was_right = number == if_right, before.last == if_right
    kept = jnp.where(
        number == before.last, distribution.keep_wrong, (1 - distribution.keep_wrong) / (m - 1)
    )
    first = jnp.where(right, chain.p0, (1 - chain.p0) / m)
    from_right = jnp.where(right, 1 - chain.p_ci, chain.p_ci / m)
    from_wrong = jnp.where(right, chain.p_ic, (1 - chain.p_ic) * kept)
    revised = jnp.where(was_right, from_right, from_wrong)
    probability = jnp.where(before.last == _FIRST, first, revised)
    return Answers(
        before.log_likelihood + jnp.log(jnp.maximum(probability, _IMPOSSIBLE)),
        jnp.asarray(number, jnp.int32),
        jnp.maximum(before.seen, number + 1),
        before.unread | (number < 0),
    )


@jax.jit
def posterior(distribution: AnswerDistribution, answers: Answers) -> Float[Array, " budget"]:
    """P(answer number j is right | answers so far) at [j]; 0 at numbers that no answer has.

    Reference: docs/theory.md C3.
    """
    each, none = answers.log_likelihood[:-1], answers.log_likelihood[-1]
    m = jnp.asarray(distribution.wrong_answers, each.dtype)
    others = jnp.maximum(m + 1 - answers.seen - answers.unread, 0)
    log_weight = jnp.where(jnp.arange(len(each)) < answers.seen, each, -jnp.inf)
    log_others = none + jnp.log(others)
    return jnp.exp(log_weight - jnp.logaddexp(logsumexp(log_weight), log_others))


def answer_posterior(
    distribution: AnswerDistribution, answers: Integer[ArrayLike, " answer"]
) -> Float[Array, " answer"]:
    """P(answer number j is right | all answers, in their order), at [j].

    Proportional to the probability of the answers if j is right: p0 or (1 - p0) / m for the first;
    then 1 - p_ci for a right one kept, p_ci / m for its loss, p_ic for a repair, (1 - p_ic) rho for
    a wrong one kept and (1 - p_ic) (1 - rho) / (m - 1) for another wrong one.

    Args:
        distribution: how answers come about.
        answers: their numbers in order of first appearance, 0, 1, ...; -1 for no answer, which is
            a wrong one.

    Returns: probabilities; 0 at numbers that no answer has. Their sum falls short of 1 by the
    probability that none of the answers is right. `vmap` for several questions.

    Raises:
        InputError: a chain that is not scalar, keep_wrong outside [0, 1], wrong_answers <= 1 or not
            finite, no answers, or numbers that are not in order of first appearance.

    Reference: docs/theory.md C3.
    """
    distribution.check()
    if np.ndim(answers) != 1 or not np.size(answers):
        raise InputError(f"answers has shape {np.shape(answers)}; give one or more, a vector")
    if not isinstance(answers, jax.core.Tracer):
        _require_order(np.asarray(answers))
    return _answer_posterior(distribution, jnp.asarray(answers, jnp.int32))


@jax.jit
def _answer_posterior(
    distribution: AnswerDistribution, numbers: Int[Array, " answer"]
) -> Float[Array, " answer"]:
    def step(before: Answers, number: Array) -> tuple[Answers, None]:
        return add_answer(distribution, before, number), None

    after, _ = jax.lax.scan(step, no_answers(len(numbers)), numbers)
    return posterior(distribution, after)


def _require_order(answers: Int[np.ndarray, " answer"]) -> None:
    allowed = np.maximum.accumulate(np.concatenate([[-1], answers]))[:-1] + 1
    for position, (number, most) in enumerate(zip(answers, allowed, strict=True)):
        if not -1 <= number <= most:
            raise InputError(
                f"answers[{position}] is {number}; number answers in order of first appearance "
                f"(at most {most} here), and -1 for none"
            )
