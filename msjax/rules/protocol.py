"""The stopping protocol: one pair of pure functions, three arenas.

A rule is `init() -> state` and `update(state, observation) -> (state, decision)`. Both are pure and
run under jit, vmap and scan, so the object that is verified in a simulator is the one that replays
records and the one that stands in front of a live model. Rules never see labels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

State = Any
"""A pytree that belongs to one question and one rule."""


class Observation(NamedTuple):
    """What one more answer showed, without its label.

    Attributes:
        answer_id: canonical answer, numbered in order of first appearance; -1 for no answer.
        score: verifier or confidence score; NaN when not scored.
        tokens: computed tokens this answer cost (uncached prompt + completion).
    """

    answer_id: Int[Array, ""]
    score: Float[Array, ""]
    tokens: Float[Array, ""]


class Decision(NamedTuple):
    """What a rule says after an observation.

    Attributes:
        stop: whether to stop asking.
        answer_id: the answer to return if stopped now; -1 for none.
        belief: P(that answer is correct) as the rule sees it; NaN when the rule holds no belief.
    """

    stop: Bool[Array, ""]
    answer_id: Int[Array, ""]
    belief: Float[Array, ""]


class StoppingRule(NamedTuple):
    """A stopping rule for one question; callers vmap it over questions.

    Attributes:
        init: the state before the first answer.
        update: state and observation to new state and decision.
    """

    init: Callable[[], State]
    update: Callable[[State, Observation], tuple[State, Decision]]


def restopped(
    rule: StoppingRule, stops: Callable[[Int[Array, ""], Bool[Array, ""]], Bool[Array, ""]]
) -> StoppingRule:
    """The rule with another word on when to stop: `stops(answers so far, whether it would)`."""

    def init() -> tuple[Int[Array, ""], State]:
        return jnp.int32(0), rule.init()

    def update(
        state: tuple[Int[Array, ""], State], seen: Observation
    ) -> tuple[tuple[Int[Array, ""], State], Decision]:
        answers = state[0] + 1
        inner, decision = rule.update(state[1], seen)
        return (answers, inner), decision._replace(stop=stops(answers, decision.stop))

    return StoppingRule(init, update)
