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
    arrays = [jnp.asarray(value) for value in values]
    dtype = jnp.result_type(float, *arrays)
    return [_in_shape(array, shape, dtype) for array in arrays]


def _in_shape(array: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    if array.shape == shape and array.dtype == dtype:
        return array
    if isinstance(array, jax.core.Tracer):
        return jnp.broadcast_to(array.astype(dtype), shape)
    return jnp.asarray(np.broadcast_to(np.asarray(array), shape), dtype)
