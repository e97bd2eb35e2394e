"""Whole-number functionals of one path, for `simulate_histogram`.

A functional is read like a stopping rule: `init()` before the first answer, `update(state,
correct)` at every answer X_0, X_1, ..., and `read(state)` at the end. Each is written for one path
and vmapped. The makers return the same object for the same arguments, so that nothing compiles
twice.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from msjax.rules.protocol import Observation, StoppingRule, begin, step

__all__ = [
    "PathFunctional",
    "correct_count",
    "first_correct",
    "initial_stay",
    "longest_streak",
    "stopping_outcome",
]

State = Any


class PathFunctional(NamedTuple):
    """A number in 0..bins-1 that a path determines.

    Attributes:
        init: the state before the first answer.
        update: the state after one more answer.
        read: the value for the state after the last answer.
        bins: how many values there are.
    """

    init: Callable[[], State]
    update: Callable[[State, Bool[Array, ""]], State]
    read: Callable[[State], Int[Array, ""]]
    bins: int


@cache
def correct_count(rounds: int) -> PathFunctional:
    """Number of correct answers among X_0, ..., X_rounds; more than half is a majority.

    Reference: docs/theory.md A8.
    """
    return PathFunctional(
        init=lambda: jnp.int32(0),
        update=lambda count, correct: count + correct,
        read=lambda count: count,
        bins=rounds + 2,
    )


@cache
def first_correct(rounds: int) -> PathFunctional:
    """Round of the first correct answer; rounds + 1 if there is none.

    Reference: docs/theory.md A7.
    """

    def update(
        state: tuple[Int[Array, ""], Bool[Array, ""]], correct: Bool[Array, ""]
    ) -> tuple[Int[Array, ""], Bool[Array, ""]]:
        waited, found = state
        found = found | correct
        return waited + ~found, found

    return PathFunctional(
        init=lambda: (jnp.int32(0), jnp.bool_(False)),
        update=update,
        read=lambda state: state[0],
        bins=rounds + 2,
    )


@cache
def initial_stay(rounds: int) -> PathFunctional:
    """How long the path stays in its first state: 2 (answers - 1) + (1 if correct).

    A stay of rounds + 1 answers was not seen to end.

    Reference: docs/theory.md A7.
    """

    def update(
        state: tuple[Int[Array, ""], Bool[Array, ""], Bool[Array, ""]], correct: Bool[Array, ""]
    ) -> tuple[Int[Array, ""], Bool[Array, ""], Bool[Array, ""]]:
        length, first, left = state
        first = jnp.where(length == 0, correct, first)
        left = left | (correct != first)
        return length + ~left, first, left

    return PathFunctional(
        init=lambda: (jnp.int32(0), jnp.bool_(False), jnp.bool_(False)),
        update=update,
        read=lambda state: 2 * (state[0] - 1) + state[1],
        bins=2 * (rounds + 1),
    )


@cache
def longest_streak(rounds: int) -> PathFunctional:
    """Length of the longest run of consecutive correct answers, 0 if there is none.

    Reference: docs/theory.md A8.
    """

    def update(
        state: tuple[Int[Array, ""], Int[Array, ""]], correct: Bool[Array, ""]
    ) -> tuple[Int[Array, ""], Int[Array, ""]]:
        longest, current = state
        current = jnp.where(correct, current + 1, 0)
        return jnp.maximum(longest, current), current

    return PathFunctional(
        init=lambda: (jnp.int32(0), jnp.int32(0)),
        update=update,
        read=lambda state: state[0],
        bins=rounds + 2,
    )


@cache
def stopping_outcome(rule: StoppingRule, rounds: int) -> PathFunctional:
    """Where a stopping rule stops and what it returns: 2 (rounds done) + (1 if correct).

    The rule sees answer ids in order of first appearance, where all wrong answers are one answer,
    no scores, and one token per answer. A rule that has not stopped after `rounds` rounds is
    stopped there.

    Reference: docs/stopping.md.
    """

    def init() -> State:
        return begin(rule), jnp.bool_(False), jnp.bool_(True)

    def update(state: State, correct: Bool[Array, ""]) -> State:
        running, first, before = state
        first = jnp.where(before, correct, first)
        answer = (correct != first).astype(jnp.int32)
        return step(rule, running, Observation(answer)), first, jnp.bool_(False)

    def read(state: State) -> Int[Array, ""]:
        running, first, _ = state
        right = (running.answer_id == 0) == first
        return 2 * (running.n_used - 1) + right

    return PathFunctional(init=init, update=update, read=read, bins=2 * (rounds + 1))
