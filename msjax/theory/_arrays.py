"""Parameters of distributions as arrays of one shape and type, and many of them in blocks."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

__all__ = ["in_blocks", "together"]

_BLOCK = 8192
"""Settings at a time: what is computed of them stays in a processor's cache."""


def together(*values: ArrayLike) -> list[Array]:
    """Arrays of one shape and of one floating type, to which all values broadcast.

    Where values are known there is nothing to compile.

    Raises:
        ValueError: shapes that do not broadcast.
    """
    shape = np.broadcast_shapes(*map(jnp.shape, values))
    dtype = jnp.result_type(float, *values)
    return [_in_shape(value, shape, dtype) for value in values]


def _in_shape(value: ArrayLike, shape: tuple[int, ...], dtype: Any) -> Array:
    if isinstance(value, jax.Array) and value.shape == shape and value.dtype == dtype:
        return value
    if isinstance(value, jax.core.Tracer):
        return jnp.broadcast_to(value.astype(dtype), shape)
    return jnp.asarray(np.broadcast_to(np.asarray(value), shape), dtype)


def in_blocks(function: Callable[..., Any], *arrays: Array) -> Any:
    """An elementwise function of arrays, block by block where there are many elements.

    One step after the other over all elements would wait for memory; several steps on a block do
    not.

    Args:
        function: of arrays of any one shape, to arrays of that shape, or a pytree of them.
        arrays: of the shape of the first, or with more axes behind it.
    """
    shape = arrays[0].shape
    number = math.prod(shape)
    if number <= _BLOCK:
        return function(*arrays)
    blocks = -(-number // _BLOCK)

    def cut(array: Array) -> Array:
        behind = array.shape[len(shape) :]
        flat = array.reshape(number, *behind)
        lacking = [(0, blocks * _BLOCK - number)] + [(0, 0)] * len(behind)
        return jnp.pad(flat, lacking, mode="edge").reshape(blocks, _BLOCK, *behind)

    def joined(found: Array) -> Array:
        behind = found.shape[2:]
        return found.reshape(blocks * _BLOCK, *behind)[:number].reshape(*shape, *behind)

    found = jax.lax.map(lambda block: function(*block), [cut(array) for array in arrays])
    return jax.tree.map(joined, found)
