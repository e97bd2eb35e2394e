"""Whole numbers from real solutions, resolved to the rounding of what they were computed from."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from msjax.theory.chain import UNBOUNDED

__all__ = ["smallest_integer"]


def smallest_integer(
    exact: Float[Array, "*shape"], slack: Float[Array, "*shape"]
) -> Int[Array, "*shape"]:
    """The smallest integer >= `exact`, where `exact` is known to within `slack`.

    A solution within `slack` of an integer is that integer, so that exact ties in decimal inputs
    are not pushed to the next integer by their binary representation.

    Args:
        exact: real solution, >= 0 or infinite.
        slack: bound on its rounding error, >= 0.

    Returns: int32, `UNBOUNDED` where the solution is infinite or no int32.
    """
    nearest = jnp.round(exact)
    whole = jnp.where(jnp.abs(exact - nearest) <= slack, nearest, jnp.ceil(exact))
    finite = exact < UNBOUNDED
    return jnp.where(finite, jnp.where(finite, whole, 0).astype(jnp.int32), UNBOUNDED)
