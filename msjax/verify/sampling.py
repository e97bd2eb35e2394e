"""NumPy samplers that several parts of the bench share; there is nothing to compile."""

import jax
import numpy as np
from jaxtyping import Array, Int, Key

__all__ = ["generator", "thin_paths"]


def generator(key: Key[Array, ""]) -> np.random.Generator:
    """NumPy's random numbers from a typed JAX key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def thin_paths(
    key: Key[Array, ""], n: int, p0: float, p_ic: float, p_ci: float, answers: int
) -> Int[np.ndarray, "paths"]:
    """How often each of `all_paths(answers)` occurs among n; alike ones are thinned at once."""
    rng, counts, to_right = generator(key), np.array([n]), np.array([p0])
    for answer in range(answers):
        right = rng.binomial(counts, to_right)
        counts = np.concatenate([counts - right, right])
        to_right = np.repeat([p_ic, 1 - p_ci], 2**answer)
    return counts
