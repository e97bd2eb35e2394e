"""Rules that everything else is compared with, and other answers for the same stop."""

from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real

from msjax.errors import InputError, require
from msjax.rules.protocol import Decision, Observation, StoppingRule
from msjax.rules.votes import cast, counting_rule, no_belief, no_votes, require_budget, standing

__all__ = [
    "Otherwise",
    "Returned",
    "answer_by",
    "best_score",
    "fixed_rounds",
    "self_consistency",
    "until_accepted",
    "until_repeated",
    "until_score",
]


def fixed_rounds(k: int) -> StoppingRule:
    """Revise exactly `k` times and return the last answer ("MR-Thinking" with k + 1 answers).

    Args:
        k: refinement rounds after the first answer; 0 keeps the first answer.

    Raises:
        InputError: k is negative.

    Reference: OptScale (arXiv 2506.22376), sequential baseline; docs/stopping.md.
    """
    if k < 0:
        raise InputError(f"k = {k} refinement rounds: must be 0 or more")

    def init() -> Int[Array, ""]:
        return jnp.int32(0)

    def update(rounds: Int[Array, ""], seen: Observation) -> tuple[Int[Array, ""], Decision]:
        return rounds + 1, Decision(rounds >= k, seen.answer_id, no_belief())

    return StoppingRule(init, update)


def self_consistency(budget: int) -> StoppingRule:
    """Ask `budget` times and return the answer given most often (maj@k).

    Raises:
        InputError: a budget < 1.

    Reference: Self-Consistency (arXiv 2203.11171).
    """
    return counting_rule(budget, lambda votes, now: (jnp.bool_(False), no_belief()))


class _Best(NamedTuple):
    """The answer with the highest value so far, that value, and the answers so far."""

    value: Float[Array, ""]
    answer_id: Int[Array, ""]
    n_used: Int[Array, ""]


def best_score(budget: int) -> StoppingRule:
    """Ask `budget` times and return the answer with the highest score (best of N).

    Of equal scores the earliest counts; what has no score or is no answer never wins.

    Raises:
        InputError: a budget < 1.

    Reference: OptScale (arXiv 2506.22376), best-of-N baseline; docs/theory.md D1.
    """
    require_budget(budget)

    def update(before: _Best, seen: Observation) -> tuple[_Best, Decision]:
        best = _keep_best(before, seen.score, seen.answer_id)
        decision = Decision(best.n_used >= budget, best.answer_id, no_belief())
        return best, decision

    return StoppingRule(_none_yet, update)


class _Streak(NamedTuple):
    """The last answer that was one, how often it has come in a row, and the answers so far."""

    answer_id: Int[Array, ""]
    length: Int[Array, ""]
    n_used: Int[Array, ""]


def until_repeated(budget: int, times: Int[Array, ""] | int = 2) -> StoppingRule:
    """Stop when the same answer has come `times` times in a row, and return it.

    The obvious rule for rounds. No answer breaks the row; if the budget is spent, the last answer
    that was one is returned.

    Args:
        budget: the most answers.
        times: length of the row, >= 1; 1 takes the first answer.

    Raises:
        InputError: a budget or times < 1.

    Reference: docs/stopping.md.
    """
    require_budget(budget)
    require("times", times, lambda x: x >= 1, "give the length of the row, >= 1")

    def init() -> _Streak:
        return _Streak(jnp.int32(-1), jnp.int32(0), jnp.int32(0))

    def update(before: _Streak, seen: Observation) -> tuple[_Streak, Decision]:
        answered = seen.answer_id >= 0
        goes_on = answered & (seen.answer_id == before.answer_id)
        length = jnp.where(goes_on, before.length + 1, answered.astype(jnp.int32))
        last = jnp.where(answered, seen.answer_id, before.answer_id)
        now = _Streak(last, length, before.n_used + 1)
        stop = (length >= times) | (now.n_used >= budget)
        return now, Decision(stop, last, no_belief())

    return StoppingRule(init, update)


Otherwise = Literal["last", "first", "majority"]
"""What is returned of a loop in which the judge accepted nothing."""


def until_accepted(budget: int, otherwise: Otherwise = "last") -> StoppingRule:
    """Stop at the first answer that the judge accepts, and return it.

    A verdict on no answer (answer_id -1) counts like any other; an answer without a verdict is not
    accepted.

    Args:
        budget: the most answers.
        otherwise: what is returned if none is accepted within the budget: the last answer, the
            first, or the one given most often, of equal counts the one seen first.

    Raises:
        InputError: a budget < 1, or another `otherwise`.

    Reference: docs/stopping.md.
    """
    require_budget(budget)
    if otherwise not in get_args(Otherwise):
        raise InputError(
            f"otherwise is {otherwise!r}; choose from {', '.join(get_args(Otherwise))}"
        )

    def init() -> tuple[Int[Array, ""], Any]:
        return jnp.int32(0), no_votes(budget) if otherwise == "majority" else jnp.int32(-1)

    def fallback(before: Any, seen: Observation, first: Array) -> tuple[Any, Int[Array, ""]]:
        if otherwise == "majority":
            votes = cast(before, seen.answer_id)
            return votes, standing(votes).leader
        kept = jnp.where(first | (otherwise == "last"), seen.answer_id, before)
        return kept, kept

    def update(
        before: tuple[Int[Array, ""], Any], seen: Observation
    ) -> tuple[tuple[Int[Array, ""], Any], Decision]:
        now = before[0] + 1
        verdict = -1 if seen.verdict is None else seen.verdict
        memory, other = fallback(before[1], seen, before[0] == 0)
        answer = jnp.where(verdict == 1, seen.answer_id, other)
        stop = (verdict == 1) | (now >= budget)
        return (now, memory), Decision(stop, answer, no_belief())

    return StoppingRule(init, update)


def until_score(budget: int, threshold: Real[ArrayLike, ""]) -> StoppingRule:
    """Stop at the first answer whose score reaches the threshold, and return it.

    If none does within the budget the last answer is returned. An answer without a score does not
    reach it.

    Args:
        budget: the most answers.
        threshold: in the unit of the score; not NaN.

    Raises:
        InputError: a budget < 1, or a threshold that is NaN.

    Reference: docs/stopping.md.
    """
    require_budget(budget)
    require("threshold", threshold, lambda x: ~np.isnan(x), "give a score to be reached")

    def update(before: Int[Array, ""], seen: Observation) -> tuple[Int[Array, ""], Decision]:
        now = before + 1
        stop = (seen.score >= threshold) | (now >= budget)
        return now, Decision(stop, seen.answer_id, no_belief())

    return StoppingRule(lambda: jnp.int32(0), update)


Returned = Literal["last", "majority", "best_score"]
"""What may be returned in place of what a rule returns itself."""


def answer_by(rule: StoppingRule, by: Returned, budget: int) -> StoppingRule:
    """Stop when `rule` stops, but return another answer.

    Args:
        rule: says when to stop.
        by: "last", the last answer that was one; "majority", the one given most often, of equal
            counts the one seen first; "best_score", the one with the highest score or, if the rule
            holds a belief, the one it returned with the highest belief, of equal ones the earliest.
        budget: the most answers the rule asks for.

    Raises:
        InputError: another `by`, or a budget < 1.
    """
    require_budget(budget)

    def last(before: Any, seen: Observation, says: Decision) -> tuple[Any, Int[Array, ""]]:
        answer = jnp.where(seen.answer_id >= 0, seen.answer_id, before)
        return answer, answer

    def majority(before: Any, seen: Observation, says: Decision) -> tuple[Any, Int[Array, ""]]:
        votes = cast(before, seen.answer_id)
        return votes, standing(votes).leader

    def best(before: Any, seen: Observation, says: Decision) -> tuple[Any, Int[Array, ""]]:
        believes = ~jnp.isnan(says.belief)
        now = _keep_best(
            before,
            jnp.where(believes, says.belief, seen.score),
            jnp.where(believes, says.answer_id, seen.answer_id),
        )
        return now, now.answer_id

    choices = {
        "last": (lambda: jnp.int32(-1), last),
        "majority": (lambda: no_votes(budget), majority),
        "best_score": (_none_yet, best),
    }
    if by not in choices:
        raise InputError(f"by is {by!r}; choose from {', '.join(choices)}")
    start, choose = choices[by]

    def update(before: tuple[Any, Any], seen: Observation) -> tuple[tuple[Any, Any], Decision]:
        inner, says = rule.update(before[0], seen)
        memory, answer = choose(before[1], seen, says)
        return (inner, memory), says._replace(answer_id=answer)

    return StoppingRule(lambda: (rule.init(), start()), update)


def _none_yet() -> _Best:
    return _Best(jnp.float32(-jnp.inf), jnp.int32(-1), jnp.int32(0))


def _keep_best(before: _Best, value: Float[Array, ""], answer_id: Int[Array, ""]) -> _Best:
    wins = (answer_id >= 0) & (value > before.value)
    return _Best(
        jnp.where(wins, value, before.value),
        jnp.where(wins, answer_id, before.answer_id),
        before.n_used + 1,
    )
