"""Settings of a rule: an array of them, or all combinations of some values."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

__all__ = ["Grid", "each_setting"]


class Grid(NamedTuple):
    """Parameters that are all combinations of some values; the last varies fastest.

    The rule is made from a tuple of one value each. What it computes from some of them alone is
    computed once for each of these, not once for each combination.
    """

    values: tuple[Array | np.ndarray, ...]

    def flat(self) -> tuple[Array, ...]:
        """The same as arrays [parameter], one for each entry of the tuple."""
        each = np.meshgrid(*map(np.asarray, self.values), indexing="ij")
        return tuple(jnp.asarray(x.reshape(-1)) for x in each)


def each_setting(parameters: Any) -> Any:
    """Parameters as arrays [parameter, ...], of a `Grid` all combinations."""
    return parameters.flat() if isinstance(parameters, Grid) else parameters
