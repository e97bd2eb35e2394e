"""KV cache whose rows have different lengths."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from msjax.llm.flax.config import DecoderConfig

__all__ = [
    "KVCache",
    "append_keys",
    "append_values",
    "copy_rows",
    "empty_cache",
    "grow",
    "new_slots",
    "put_rows",
    "take_rows",
    "visible",
]


class KVCache(NamedTuple):
    """Keys and values of every layer, and how many tokens of each row they hold.

    Row b uses the slots ``0 .. lengths[b] - 1``, one per token in order of position; what lies
    beyond is never attended to. One buffer per layer lets a compiled loop update each in place.

    Keys are stored transposed, so that both products of attention are plain row-major matrix
    products: on a CPU that halves their time.

    Attributes:
        keys: per layer, (batch, kv_heads, head_dim, capacity), already rotated.
        values: per layer, (batch, kv_heads, capacity, head_dim).
        lengths: (batch,) tokens held.
    """

    keys: tuple[Float[Array, "batch kv_heads head_dim capacity"], ...]
    values: tuple[Float[Array, "batch kv_heads capacity head_dim"], ...]
    lengths: Int[Array, " batch"]

    @property
    def rows(self) -> int:
        """Number of rows of the batch."""
        return self.lengths.shape[0]

    @property
    def capacity(self) -> int:
        """Number of token slots per row."""
        return self.values[0].shape[2]


def empty_cache(config: DecoderConfig, rows: int, capacity: int, dtype: DTypeLike) -> KVCache:
    """A cache of ``rows`` rows and ``capacity`` slots that holds no token yet."""
    kv_heads, head_dim = config.num_key_value_heads, config.head_dim
    layers = range(config.num_hidden_layers)
    return KVCache(
        keys=tuple(jnp.zeros((rows, kv_heads, head_dim, capacity), dtype) for _ in layers),
        values=tuple(jnp.zeros((rows, kv_heads, capacity, head_dim), dtype) for _ in layers),
        lengths=jnp.zeros((rows,), jnp.int32),
    )


def grow(cache: KVCache, capacity: int) -> KVCache:
    """The same tokens in a cache of ``capacity`` slots (not fewer than it has)."""
    none, extra = (0, 0), (0, capacity - cache.capacity)
    return cache._replace(
        keys=tuple(jnp.pad(layer, (none, none, none, extra)) for layer in cache.keys),
        values=tuple(jnp.pad(layer, (none, none, extra, none)) for layer in cache.values),
    )


def take_rows(cache: KVCache, rows: Int[Array, " kept"]) -> KVCache:
    """The cache of the rows with these indices, in this order; beyond the last is the last."""
    return jax.tree.map(lambda leaf: leaf[rows], cache)


def put_rows(cache: KVCache, some: KVCache, rows: Int[Array, " some"]) -> KVCache:
    """The cache with its rows of these indices replaced; indices beyond the last are dropped."""
    return jax.tree.map(lambda leaf, new: leaf.at[rows].set(new, mode="drop"), cache, some)


def copy_rows(cache: KVCache, sources: Int[Array, " some"], rows: Int[Array, " some"]) -> KVCache:
    """The cache with each row of ``rows`` replaced by the row of ``sources`` before the call.

    Rows differ from each other; one beyond the last is padding.
    """
    return put_rows(cache, take_rows(cache, sources), rows)


def new_slots(
    lengths: Int[Array, " batch"], fresh: Int[Array, " batch"], time: int, capacity: int
) -> Int[Array, "batch time"]:
    """Slots of ``time`` new tokens per row, of which the first ``fresh`` count.

    Padding gets the slot ``capacity``, which does not exist, so that `append` drops it.
    """
    steps = jnp.arange(time, dtype=jnp.int32)[None, :]
    return jnp.where(steps < fresh[:, None], lengths[:, None] + steps, capacity)


def append_keys(
    buffer: Float[Array, "batch kv_heads head_dim capacity"],
    new: Float[Array, "batch time kv_heads head_dim"],
    slots: Int[Array, "batch time"],
) -> Float[Array, "batch kv_heads head_dim capacity"]:
    """Writes the key of each new token into its slot; slots outside the buffer are dropped."""
    rows = jnp.arange(buffer.shape[0], dtype=slots.dtype)[:, None]
    return buffer.at[rows, :, :, slots].set(new, mode="drop")


def append_values(
    buffer: Float[Array, "batch kv_heads capacity head_dim"],
    new: Float[Array, "batch time kv_heads head_dim"],
    slots: Int[Array, "batch time"],
) -> Float[Array, "batch kv_heads capacity head_dim"]:
    """Writes the value of each new token into its slot; slots outside the buffer are dropped."""
    rows = jnp.arange(buffer.shape[0], dtype=slots.dtype)[:, None]
    return buffer.at[rows, :, slots].set(new, mode="drop")


def visible(
    lengths: Int[Array, " batch"], time: int, capacity: int
) -> Bool[Array, "batch time capacity"]:
    """Which slots each of ``time`` new tokens attends to: its own and all before it.

    Slot 0 is visible to every token, padding included, so that no softmax is empty.
    """
    positions = lengths[:, None, None] + jnp.arange(time, dtype=jnp.int32)[None, :, None]
    return jnp.arange(capacity, dtype=jnp.int32)[None, None, :] <= positions
