"""Stopping rules over recorded answers: what they would have returned, and at what cost.

A rule runs over every question in every order of `Streams`; where it wants more than was recorded
it is stopped at the last answer, and that is counted. The rules are those that stand in front of a
live model, run by `msjax.rules.protocol.run_rule`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from msjax.data.runs import OF_THE_POSITION
from msjax.evaluate.streams import Streams
from msjax.rules.grid import Grid
from msjax.rules.protocol import Observation, StoppingRule, run_rule

__all__ = ["Outcome", "Replayed", "outcome", "questions_at_once", "replay", "replay_in_parts"]

Make = Callable[[Any, Any], StoppingRule]
"""A rule from a parameter and the side information on one question; both may be traced."""

_FEWEST_TOGETHER, _MOST_TOGETHER = 256, 16384
"""Streams followed at once: enough for all cores, few enough for the cache."""
_STATES = 2**27
"""Bytes that what rules remember may take if it depends on every parameter."""
_STREAMS = 2**18
"""Streams of one call, so that what it holds meanwhile does not grow with the questions."""


class Replayed(NamedTuple):
    """What a rule did, for every value of its parameter.

    Attributes:
        n_used: answers it saw before it stopped.
        right: whether the answer it returned is right.
        hit_budget: whether it wanted more than was recorded.
        belief: what it held P(the answer it returned is right) to be; NaN where it holds no belief.
    """

    n_used: Int[np.ndarray, "parameter order question"]
    right: Bool[np.ndarray, "parameter order question"]
    hit_budget: Bool[np.ndarray, "parameter order question"]
    belief: Float[np.ndarray, "parameter order question"]


class Outcome(NamedTuple):
    """Per question, averaged over orders: accuracy, tokens by category, answers used, belief."""

    accuracy: Float[np.ndarray, "parameter question"]
    tokens: dict[str, Float[np.ndarray, "parameter question"]]
    n_used: Float[np.ndarray, "parameter question"]
    hit_budget: Float[np.ndarray, "parameter question"]
    belief: Float[np.ndarray, "parameter question"]

    @property
    def uncached(self) -> Float[np.ndarray, "parameter question"]:
        """All tokens but the cached: what is paid for."""
        return sum(
            (x for name, x in self.tokens.items() if name != "cached"),
            start=np.zeros(self.accuracy.shape),
        )


def replay(
    make: Make,
    streams: Streams,
    parameters: Any,
    side_info: Any = None,
) -> Replayed:
    """Run `make(parameter, side information)` on every stream, for every parameter.

    What the rule remembers is computed once for all parameters on which it does not depend, such as
    the votes of a rule whose threshold varies.

    Args:
        make: builds the rule; the same function again compiles nothing.
        streams: orders of recorded answers.
        parameters: values of what is varied, a threshold say: a pytree of arrays [parameter, ...],
            or a `Grid`.
        side_info: what the rule is told of each question beforehand, a pytree of arrays
            [question, ...].
    """
    parts = [part for _, _, part in replay_in_parts(make, streams, parameters, side_info)]
    return Replayed(*(np.concatenate(x, axis=2) for x in zip(*parts, strict=True)))


def replay_in_parts(
    make: Make,
    streams: Streams,
    parameters: Any,
    side_info: Any = None,
) -> Iterator[tuple[slice, Streams, Replayed]]:
    """`replay` a part of the questions at a time: which these are, their streams, what was done.

    What a part takes does not grow with the number of questions.
    """
    orders, questions, _ = streams.answers.shape
    parameters = jax.tree.map(jnp.asarray, parameters)
    values = parameters.values if isinstance(parameters, Grid) else parameters

    def remembered(values: Any, side_info: Any) -> Any:
        first, info = jax.tree.map(lambda x: x[0], (values, side_info))
        return make(first, info).init()

    state = jax.eval_shape(remembered, values, jax.tree.map(jnp.asarray, side_info))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    room = _STATES // (size * _number(parameters))
    at_once = questions_at_once(streams)
    together = min(_MOST_TOGETHER, orders * at_once, max(room, _FEWEST_TOGETHER))
    if at_once < questions:
        streams = Streams._make(map(np.asarray, streams))  # whose slices compile nothing
    for start in range(0, questions, at_once):
        # The last ones overlap with those before, as another number would compile anew.
        first = min(start, questions - at_once)
        some = slice(first, first + at_once)
        part = streams.of(some)
        info = jax.tree.map(lambda x, some=some: x[some], side_info)
        found = Replayed._make(
            np.asarray(x).reshape(-1, orders, at_once)[..., start - first :]
            for x in _replay(make, part, parameters, info, together=together)
        )
        yield slice(start, some.stop), part.of(slice(start - first, None)), found


def questions_at_once(streams: Streams) -> int:
    """How many questions are a part."""
    orders, questions, _ = streams.answers.shape
    return min(questions, max(_STREAMS // orders, 1))


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
    result = mapped(*map(jnp.asarray, parameters.values))
    return tuple(x.reshape(-1, *x.shape[count:]) for x in result)


def outcome(
    spent: Mapping[str, Float[np.ndarray, "question answer"]], streams: Streams, replayed: Replayed
) -> Outcome:
    """Averages over orders, tokens by category; `spent` is the `tokens` of the runs."""
    sample = np.asarray(streams.sample)
    last = (replayed.n_used - 1)[..., None]
    tokens = {}
    for name, values in spent.items():
        each = (
            values[None] if name in OF_THE_POSITION else np.take_along_axis(values[None], sample, 2)
        )
        total = np.broadcast_to(np.cumsum(each, axis=2, dtype=float), sample.shape)
        used = [np.take_along_axis(total, one, axis=2)[..., 0].mean(axis=0) for one in last]
        tokens[name] = np.stack(used)
    return Outcome(
        replayed.right.mean(axis=1),
        tokens,
        replayed.n_used.mean(axis=1),
        replayed.hit_budget.mean(axis=1),
        replayed.belief.mean(axis=1, dtype=float),
    )


@partial(jax.jit, static_argnums=0, static_argnames="together")
def _replay(
    make: Make, streams: Streams, parameters: Any, side_info: Any, *, together: int
) -> tuple[Array, ...]:
    """Answers used, whether right, whether the budget was hit, belief: each [parameter, lane]."""
    orders, questions, positions = streams.answers.shape
    lanes = orders * questions
    seen = (streams.answers, streams.scores, streams.tokens, streams.verdicts)
    flat = [x.reshape(lanes, positions) for x in (*seen, streams.right)]
    question = jnp.tile(jnp.arange(questions), orders)

    def lane(parameter: Any, one: tuple[Array, ...]) -> tuple[Array, ...]:
        *seen, right, question = one
        info = jax.tree.map(lambda x: jnp.asarray(x)[question], side_info)
        ran = run_rule(make(parameter, info), Observation(*seen), streams.recorded[question])
        correct = (ran.answer_id >= 0) & right[jnp.maximum(ran.answer_id, 0)]
        return ran.n_used, correct, ran.hit_budget, ran.belief

    def some(lanes: tuple[Array, ...]) -> tuple[Array, ...]:
        # Parameters outside and lanes inside: what does not depend on a parameter is not repeated,
        # and lanes are what lies next to each other in memory.
        return _for_each(lambda p: jax.vmap(lambda one: lane(p, one))(lanes), parameters)

    groups = -(-lanes // together)
    index = jnp.minimum(jnp.arange(groups * together), lanes - 1).reshape(groups, together)
    result = jax.lax.map(lambda i: some(tuple(x[i] for x in (*flat, question))), index)
    return tuple(jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)[:, :lanes] for x in result)
