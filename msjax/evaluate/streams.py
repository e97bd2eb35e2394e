"""The orders in which a rule may see recorded answers.

Samples of a question have no order of their own: rules are replayed over random ones. Rounds have
one.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.errors import InputError

__all__ = ["Streams", "streams"]


class Streams(NamedTuple):
    """What a rule sees: every question in every order.

    Attributes:
        sample: which recorded answer comes at each position.
        answers: answers numbered in the order in which this stream shows them; -1 for none.
        scores: as in the runs.
        tokens: uncached tokens.
        verdicts: as in the runs.
        right: whether answer number i of the stream is right.
        recorded: answers of each question.
    """

    sample: Int[Array, "order question position"]
    answers: Int[Array, "order question position"]
    scores: Float[Array, "order question position"]
    tokens: Float[Array, "order question position"]
    verdicts: Int[Array, "order question position"]
    right: Bool[Array, "order question position"]
    recorded: Int[Array, " question"]

    def of(self, some: slice) -> "Streams":
        """Some of the questions."""
        *of_order, recorded = self
        return Streams._make([*(x[:, some] for x in of_order), recorded[some]])


def streams(runs: Runs, key: PRNGKeyArray, orders: int) -> Streams:
    """Random orders of parallel samples; the one order there is of rounds.

    Where only the labels of answers are known, every answer is taken for one of its own.

    Raises InputError for orders < 1, and runs that were cut short (`Runs.require_complete`).
    """
    if orders < 1:
        raise InputError(f"orders is {orders}; give the number of orders to average over, >= 1")
    runs.require_complete()
    if not runs.parallel:
        orders = 1
    own = np.broadcast_to(np.arange(runs.samples), runs.answers.shape)
    return _streams(
        jnp.asarray(runs.answers if runs.answered else own, jnp.int32),
        jnp.asarray(runs.scores, jnp.float32),
        jnp.asarray(runs.position_tokens, jnp.float32),
        jnp.asarray(runs.uncached - runs.position_tokens, jnp.float32),
        jnp.asarray(runs.verdicts, jnp.int32),
        jnp.asarray(runs.right),
        jnp.asarray(runs.recorded, jnp.int32),
        key,
        orders=orders,
        shuffle=runs.parallel,
    )


@partial(jax.jit, static_argnames=("orders", "shuffle"))
def _streams(
    answers: Array,
    scores: Array,
    of_position: Array,
    of_sample: Array,
    verdicts: Array,
    correct: Array,
    recorded: Array,
    key: PRNGKeyArray,
    *,
    orders: int,
    shuffle: bool,
) -> Streams:
    positions = jnp.arange(answers.shape[1])

    def one(
        key: PRNGKeyArray,
        answers: Array,
        scores: Array,
        of_position: Array,
        of_sample: Array,
        verdicts: Array,
        correct: Array,
        n: Array,
    ) -> tuple[Array, ...]:
        if shuffle:
            # What was not recorded stays behind what was.
            sample = jnp.argsort(
                jnp.where(positions < n, jax.random.uniform(key, positions.shape), 2.0)
            )
        else:
            sample = positions
        sample = sample.astype(jnp.int32)
        now = jnp.where(positions < n, answers[sample], -1)
        earliest = jnp.argmax(now[:, None] == now[None, :], axis=1)
        new = (earliest == positions) & (now >= 0)
        number = jnp.cumsum(new) - 1
        renumbered = jnp.where(now >= 0, number[earliest], -1).astype(jnp.int32)
        shown = jnp.where(new, number, len(positions))
        right = jnp.zeros(len(positions), bool).at[shown].set(correct[sample], mode="drop")
        tokens = of_position + of_sample[sample]
        return sample, renumbered, scores[sample], tokens, verdicts[sample], right

    def in_order(key: PRNGKeyArray) -> tuple[Array, ...]:
        keys = jax.random.split(key, len(answers))
        return jax.vmap(one)(
            keys, answers, scores, of_position, of_sample, verdicts, correct, recorded
        )

    sample, numbered, seen, tokens, judged, right = jax.lax.map(
        in_order, jax.random.split(key, orders)
    )
    return Streams(sample, numbered, seen, tokens, judged, right, recorded)
