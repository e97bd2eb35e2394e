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

from msjax.data.runs import OF_THE_POSITION, Runs
from msjax.evaluate.streams import Streams
from msjax.rules.grid import Grid
from msjax.rules.protocol import Observation, StoppingRule

__all__ = ["Outcome", "Replayed", "outcome", "replay"]

Make = Callable[[Any, Any], StoppingRule]
"""A rule from a parameter and from what it is told of one question; both may be traced."""

_FEWEST_TOGETHER, _MOST_TOGETHER = 256, 16384
"""Streams followed at once: enough for all cores, few enough for the cache."""
_STATES = 2**27
"""Bytes that what rules remember may take if it depends on every parameter."""


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
        """All tokens but the cached."""
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

    What the rule remembers is computed once for all parameters on which it does not depend, such as
    the votes of a rule whose threshold varies.

    Args:
        make: builds the rule; the same function again compiles nothing.
        streams: orders of a pool.
        parameters: values of what is varied, a threshold say: a pytree of arrays [parameter, ...],
            or a `Grid`.
        told: what the rule is told of each question beforehand, a pytree of arrays [question, ...].
    """
    orders, questions, _ = streams.answers.shape
    parameters = jax.tree.map(jnp.asarray, parameters)
    first = jax.tree.map(
        lambda x: x[0], parameters.values if isinstance(parameters, Grid) else parameters
    )
    mine = jax.tree.map(lambda x: jnp.asarray(x)[0], told)
    state = jax.eval_shape(lambda: make(first, mine).init())
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    room = _STATES // (size * _number(parameters))
    together = min(_MOST_TOGETHER, orders * questions, max(room, _FEWEST_TOGETHER))
    found = _replay(make, streams, parameters, told, together=together)
    shape = (-1, orders, questions)
    return Replayed(*(np.asarray(x).reshape(shape) for x in found))


def _number(parameters: Any) -> int:
    if isinstance(parameters, Grid):
        return math.prod(map(len, parameters.values))
    return len(jax.tree.leaves(parameters)[0])


def _for_each(decide: Callable[[Any], tuple[Array, ...]], parameters: Any) -> tuple[Array, ...]:
    """`decide` for every parameter: results [parameter, ...]."""
    if not isinstance(parameters, Grid):
        return jax.vmap(decide)(parameters)
    count = len(parameters.values)

    def nested(*values: Array) -> tuple[Array, ...]:
        return decide(values)

    mapped: Callable[..., tuple[Array, ...]] = nested
    for axis in reversed(range(count)):
        mapped = jax.vmap(mapped, in_axes=tuple(0 if i == axis else None for i in range(count)))
    found = mapped(*map(jnp.asarray, parameters.values))
    return tuple(x.reshape(-1, *x.shape[count:]) for x in found)


def outcome(pool: Runs, streams: Streams, found: Replayed) -> Outcome:
    """Averages over orders, tokens by category of the ledger."""
    sample = np.asarray(streams.sample)
    last = (found.asked - 1)[..., None]
    tokens = {}
    for name, values in pool.tokens.items():
        each = (
            values[None] if name in OF_THE_POSITION else np.take_along_axis(values[None], sample, 2)
        )
        spent = np.broadcast_to(np.cumsum(each, axis=2, dtype=float), sample.shape)
        used = [np.take_along_axis(spent, one, axis=2)[..., 0].mean(axis=0) for one in last]
        tokens[name] = np.stack(used)
    return Outcome(
        found.right.mean(axis=1),
        tokens,
        found.asked.mean(axis=1),
        found.exhausted.mean(axis=1),
        found.belief.mean(axis=1, dtype=float),
    )


@partial(jax.jit, static_argnums=0, static_argnames="together")
def _replay(
    make: Make, streams: Streams, parameters: Any, told: Any, *, together: int
) -> tuple[Array, ...]:
    """Answers asked, whether right, whether exhausted, belief: each [parameter, lane]."""
    orders, questions, places = streams.answers.shape
    lanes = orders * questions
    flat = [x.reshape(lanes, places) for x in (streams.answers, streams.scores, streams.tokens)]
    right = streams.right.reshape(lanes, places)
    question = jnp.tile(jnp.arange(questions), orders)

    def lane(parameter: Any, one: tuple[Array, ...]) -> tuple[Array, ...]:
        answers, scores, tokens, right, question = one
        rule = make(parameter, jax.tree.map(lambda x: jnp.asarray(x)[question], told))
        n = streams.recorded[question]

        def step(carry: tuple, seen: tuple[Array, ...]) -> tuple[tuple, None]:
            state, done, asked, answer, wanted, belief = carry
            place, *observed = seen
            state, decision = rule.update(state, Observation(*observed))
            last = place + 1 >= n
            asked = jnp.where(done, asked, place + 1)
            answer = jnp.where(done, answer, decision.answer_id)
            belief = jnp.where(done, belief, decision.belief.astype(jnp.float32))
            wanted = wanted | (~done & last & ~decision.stop)
            return (state, done | decision.stop | last, asked, answer, wanted, belief), None

        no, zero = jnp.bool_(False), jnp.int32(0)
        start = (rule.init(), no, zero, zero - 1, no, jnp.float32(0))
        seen = (jnp.arange(places, dtype=jnp.int32), answers, scores, tokens)
        (_, _, asked, answer, wanted, belief), _ = jax.lax.scan(step, start, seen)
        return asked, (answer >= 0) & right[jnp.maximum(answer, 0)], wanted, belief

    def some(lanes: tuple[Array, ...]) -> tuple[Array, ...]:
        # Parameters outside and lanes inside: what does not depend on a parameter is not repeated,
        # and lanes are what lies next to each other in memory.
        return _for_each(lambda p: jax.vmap(lambda one: lane(p, one))(lanes), parameters)

    groups = -(-lanes // together)
    index = jnp.minimum(jnp.arange(groups * together), lanes - 1).reshape(groups, together)
    found = jax.lax.map(lambda i: some(tuple(x[i] for x in (*flat, right, question))), index)
    return tuple(jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)[:, :lanes] for x in found)
