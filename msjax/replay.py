"""Stopping rules over recorded answers: what they would have returned, and at what cost.

A rule meets every question of a pool in every order of its `Streams`; where it wants more than was
recorded it is stopped at the last answer, and that is counted. The rules are those that stand in
front of a live model, run by `vmap` and `scan`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from msjax.pools import Pool, Streams
from msjax.stopping.protocol import Decision, Observation, State, StoppingRule

__all__ = ["Grid", "Outcome", "Replayed", "outcome", "replay"]

Make = Callable[[Any, Any], StoppingRule]
"""A rule from a parameter and from what it is told of one question; both may be traced."""

_TOGETHER = 16384
"""Questions followed at once: enough for both cores, few enough for the cache."""


class Grid(NamedTuple):
    """Parameters that are all combinations of some values; the last varies fastest.

    The rule is made from a tuple of one value each. What it computes from some of them alone is
    computed once for each of these, not once for each combination.
    """

    values: tuple[Array | np.ndarray, ...]

    def flat(self) -> tuple[Array, ...]:
        """The same as arrays [parameter], one for each entry of the tuple."""
        each = jnp.meshgrid(*map(jnp.asarray, self.values), indexing="ij")
        return tuple(x.reshape(-1) for x in each)


class Replayed(NamedTuple):
    """What a rule did, for every value of its parameter.

    Attributes:
        asked: answers it saw before it stopped.
        right: whether the answer it returned is right.
        exhausted: whether it wanted more than was recorded.
        belief: what it held P(the answer it returned is right) to be; NaN where it holds no belief.
    """

    asked: Int[np.ndarray, "parameter order question"]
    right: Bool[np.ndarray, "parameter order question"]
    exhausted: Bool[np.ndarray, "parameter order question"]
    belief: Float[np.ndarray, "parameter order question"]


class Outcome(NamedTuple):
    """Per question, averaged over orders: accuracy, tokens by category, answers asked, belief."""

    accuracy: Float[np.ndarray, "parameter question"]
    tokens: dict[str, Float[np.ndarray, "parameter question"]]
    asked: Float[np.ndarray, "parameter question"]
    exhausted: Float[np.ndarray, "parameter question"]
    belief: Float[np.ndarray, "parameter question"]

    @property
    def computed(self) -> Float[np.ndarray, "parameter question"]:
        """Uncached prompt and completion."""
        return sum(
            (x for name, x in self.tokens.items() if name != "cached"),
            start=np.zeros(self.accuracy.shape),
        )


def replay(
    make: Make,
    streams: Streams,
    parameters: Any,
    told: Any = None,
) -> Replayed:
    """Run `make(parameter, told of the question)` on every stream, for every parameter.

    The rule's state may depend on what it saw, not on the parameter, so that all parameters share
    it; a rule of which this is not true is replayed for one parameter at a time.

    Args:
        make: builds the rule; the same function again compiles nothing.
        streams: orders of a pool.
        parameters: values of what is varied, a threshold say: a pytree of arrays [parameter, ...],
            or a `Grid`.
        told: what the rule is told of each question beforehand, a pytree of arrays [question, ...].
    """
    orders, questions, _ = streams.answers.shape
    parameters = jax.tree.map(jnp.asarray, parameters)
    together = [parameters]
    if not _state_is_shared(make, parameters, told):
        if isinstance(parameters, Grid):
            parameters = parameters.flat()
        leaves, tree = jax.tree.flatten(parameters)
        one_by_one = zip(*(x[:, None] for x in leaves), strict=True)
        together = [jax.tree.unflatten(tree, one) for one in one_by_one]
    parts = [_replay(make, streams, some, told) for some in together]
    asked, right, exhausted, belief = (
        np.moveaxis(np.concatenate(x, axis=1).reshape(orders, questions, -1), 2, 0)
        for x in zip(*parts, strict=True)
    )
    return Replayed(asked, right, exhausted, belief)


def _first(parameters: Any) -> Any:
    values = parameters.values if isinstance(parameters, Grid) else parameters
    return jax.tree.map(lambda x: x[0], values)


def _number(parameters: Any) -> int:
    if isinstance(parameters, Grid):
        return math.prod(map(len, parameters.values))
    return len(jax.tree.leaves(parameters)[0])


def _for_each(
    decide: Callable[[Any], tuple[State, Decision]], parameters: Any
) -> tuple[State, Decision]:
    """The state, which all parameters share, and the decision [parameter] of each of them."""
    if not isinstance(parameters, Grid):
        return jax.vmap(decide, out_axes=(None, 0))(parameters)
    count = len(parameters.values)

    def nested(*values: Array) -> tuple[State, Decision]:
        return decide(values)

    mapped = nested
    for axis in reversed(range(count)):
        in_axes = tuple(0 if i == axis else None for i in range(count))
        mapped = jax.vmap(mapped, in_axes=in_axes, out_axes=(None, 0))
    state, decision = mapped(*map(jnp.asarray, parameters.values))
    return state, jax.tree.map(lambda x: x.reshape(-1, *x.shape[count:]), decision)


def _state_is_shared(make: Make, parameters: Any, told: Any) -> bool:
    """Whether the rule's state is the same whatever the parameter."""
    first, mine = _first(parameters), jax.tree.map(lambda x: jnp.asarray(x)[0], told)
    seen = Observation(jnp.int32(0), jnp.float32(0), jnp.float32(0))
    state = jax.eval_shape(make(first, mine).init)

    def update(state: State) -> tuple[State, Decision]:
        return _for_each(lambda one: make(one, mine).update(state, seen), parameters)

    try:
        jax.eval_shape(update, state)
    except ValueError:
        return False
    return True


def outcome(pool: Pool, streams: Streams, found: Replayed) -> Outcome:
    """Averages over orders, tokens by category of the ledger."""
    sample = np.asarray(streams.sample)
    last = (found.asked - 1)[..., None]
    tokens = {}
    for name, values in pool.tokens.items():
        spent = np.cumsum(np.take_along_axis(values[None], sample, axis=2), axis=2, dtype=float)
        used = [np.take_along_axis(spent, one, axis=2)[..., 0].mean(axis=0) for one in last]
        tokens[name] = np.stack(used)
    return Outcome(
        found.right.mean(axis=1),
        tokens,
        found.asked.mean(axis=1),
        found.exhausted.mean(axis=1),
        found.belief.mean(axis=1, dtype=float),
    )


@partial(jax.jit, static_argnums=0)
def _replay(make: Make, streams: Streams, parameters: Any, told: Any) -> tuple[Array, ...]:
    """Answers asked, whether right, whether exhausted, belief: each [lane, parameter]."""
    orders, questions, places = streams.answers.shape
    lanes = orders * questions
    flat = [x.reshape(lanes, places) for x in (streams.answers, streams.scores, streams.tokens)]
    right = streams.right.reshape(lanes, places)
    question = jnp.tile(jnp.arange(questions), orders)
    settings, first = _number(parameters), _first(parameters)

    def lane(one: tuple[Array, ...]) -> tuple[Array, ...]:
        answers, scores, tokens, right, question = one
        mine = jax.tree.map(lambda x: jnp.asarray(x)[question], told)
        n = streams.recorded[question]

        def update(state: State, seen: Observation) -> tuple[State, Decision]:
            if settings == 1:
                state, decision = make(first, mine).update(state, seen)
                return state, jax.tree.map(lambda x: jnp.asarray(x)[None], decision)
            return _for_each(lambda one: make(one, mine).update(state, seen), parameters)

        def step(carry: tuple, seen: tuple[Array, ...]) -> tuple[tuple, None]:
            state, done, asked, answer, wanted, belief = carry
            place, *observed = seen
            state, decision = update(state, Observation(*observed))
            last = place + 1 >= n
            asked = jnp.where(done, asked, place + 1)
            answer = jnp.where(done, answer, decision.answer_id)
            belief = jnp.where(done, belief, decision.belief.astype(jnp.float32))
            wanted = wanted | (~done & last & ~decision.stop)
            return (state, done | decision.stop | last, asked, answer, wanted, belief), None

        none = jnp.zeros(settings, bool)
        zero = jnp.zeros(settings, jnp.int32)
        start = (
            make(first, mine).init(),
            none,
            zero,
            zero - 1,
            none,
            jnp.zeros(settings, jnp.float32),
        )
        seen = (jnp.arange(places, dtype=jnp.int32), answers, scores, tokens)
        (_, _, asked, answer, wanted, belief), _ = jax.lax.scan(step, start, seen)
        return asked, (answer >= 0) & right[jnp.maximum(answer, 0)], wanted, belief

    return jax.lax.map(lane, (*flat, right, question), batch_size=min(_TOGETHER, lanes))
