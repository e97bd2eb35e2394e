"""The stopping protocol: one pair of pure functions, and one scan that runs them.

A rule is `init() -> state` and `update(state, observation) -> (state, decision)`. Both are pure and
run under jit, vmap and scan, so the object that is verified in a simulator is the one that replays
records and the one that stands in front of a live model. Rules never see labels.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = [
    "Decision",
    "Observation",
    "Ran",
    "Running",
    "State",
    "StoppingRule",
    "begin",
    "restopped",
    "run_rule",
    "run_rule_on_each",
    "step",
]

State = Any
"""A pytree that belongs to one question and one rule."""


class Observation(NamedTuple):
    """What one more answer showed, without its label.

    Attributes:
        answer_id: canonical answer, numbered in order of first appearance; -1 for no answer.
        score: verifier or confidence score; NaN when not scored.
        tokens: uncached tokens this answer cost (uncached prompt + completion + verifier).
        verdict: 1 if a judge accepted the answer, 0 if it did not, -1 if it was not asked; None
            where there is no judge at all.
    """

    answer_id: Int[Array, "*answer"]
    score: Float[Array, "*answer"] = float("nan")  # type: ignore[assignment]
    tokens: Float[Array, "*answer"] = 1.0  # type: ignore[assignment]
    verdict: Int[Array, "*answer"] | None = None


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


class Running(NamedTuple):
    """A rule on its way through one question.

    Attributes:
        state: of the rule.
        stopped: whether it said stop.
        n_used: answers it used so far.
        answer_id: the answer it returns; -1 for none.
        belief: P(that answer is right) as it sees it; NaN when it holds no belief.
    """

    state: State
    stopped: Bool[Array, ""]
    n_used: Int[Array, ""]
    answer_id: Int[Array, ""]
    belief: Float[Array, ""]


class Ran(NamedTuple):
    """What a rule did with the answers of one question.

    Attributes:
        n_used: answers it used.
        answer_id: the answer it returned; -1 for none.
        belief: P(that answer is right) as it saw it; NaN when it holds no belief.
        hit_budget: whether it would have gone on when there were no more answers.
    """

    n_used: Int[Array, "*question"]
    answer_id: Int[Array, "*question"]
    belief: Float[Array, "*question"]
    hit_budget: Bool[Array, "*question"]


def begin(rule: StoppingRule) -> Running:
    """The rule before its first answer."""
    return Running(rule.init(), jnp.bool_(False), jnp.int32(0), jnp.int32(-1), jnp.float32(jnp.nan))


def step(
    rule: StoppingRule,
    running: Running,
    observation: Observation,
    available: Bool[Array, ""] | bool = True,
) -> Running:
    """One more answer; nothing changes once the rule stopped, or if the answer is not `available`.

    (The state of the rule moves on even then, which costs less than to keep it.)
    """
    state, decision = rule.update(running.state, _whole(observation))
    goes_on = ~running.stopped & available
    return Running(
        state,
        running.stopped | (goes_on & decision.stop),
        running.n_used + goes_on,
        jnp.where(goes_on, decision.answer_id, running.answer_id).astype(jnp.int32),
        jnp.where(goes_on, decision.belief, running.belief).astype(jnp.float32),
    )


def run_rule(
    rule: StoppingRule,
    observations: Observation,
    recorded: Int[Array, ""] | int | None = None,
) -> Ran:
    """Run a rule over the answers of one question, from the first until it stops.

    Args:
        rule: any rule.
        observations: answers in order, each field of shape [answer] or one number for all.
        recorded: how many of them there are; all if None.

    Reference: docs/stopping.md.
    """
    answers = len(observations.answer_id)
    available = jnp.arange(answers) < (answers if recorded is None else recorded)
    each = _whole(observations)

    def one(running: Running, seen: tuple[Observation, Array]) -> tuple[Running, None]:
        return step(rule, running, *seen), None

    end, _ = jax.lax.scan(one, begin(rule), (each, available))
    return Ran(end.n_used, end.answer_id, end.belief, ~end.stopped)


@partial(jax.jit, static_argnums=0)
def run_rule_on_each(
    rule: StoppingRule,
    observations: Observation,
    recorded: Int[Array, " question"],
) -> Ran:
    """`run_rule` on many questions, `recorded[q]` answers of each; the same rule compiles once.

    Fields of the observations are [question, answer], or one number for all.
    """
    each = _whole(observations)
    return jax.vmap(lambda seen, n: run_rule(rule, seen, n))(each, recorded)


def _whole(observation: Observation) -> Observation:
    """The same with every field an array of the shape of `answer_id`."""
    answer_id, score, tokens, verdict = observation
    fields = (answer_id, score, tokens, -1 if verdict is None else verdict)
    return Observation(*(jnp.broadcast_to(jnp.asarray(x), jnp.shape(answer_id)) for x in fields))


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
