"""Parameters of distributions as arrays of one shape and type."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

__all__ = ["together"]


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
