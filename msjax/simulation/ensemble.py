"""Exact simulation of how many of n chains are correct, at a cost that does not depend on n.

Chains that are in the same state are alike, so the number of them that flip is binomial: instead
of n chains a round needs two binomial draws. Draws are made in float64 and counted in int64; in
float32 a count of 10^9 would already be off by its rounding.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key

from msjax.devices import require_float64
from msjax.errors import InputError
from msjax.theory.chain import TwoStateChain

__all__ = ["MOST_CHAINS", "EnsembleCounts", "simulate_ensemble"]

MOST_CHAINS = 10**12
"""Largest number of chains: beyond it the rounding of float64 begins to show in the rejection
sampler of the binomial draws (its log acceptance is off by about n 1e-16)."""


class EnsembleCounts(NamedTuple):
    """Counts over the chains of one run, int64.

    Attributes:
        correct: how many are correct after round k = 0, ..., rounds.
        repaired: how many turn right in round k = 1, ..., rounds (entry k - 1).
        broken: how many turn wrong in that round.
    """

    correct: Int[np.ndarray, "answers"]
    repaired: Int[np.ndarray, "rounds"]
    broken: Int[np.ndarray, "rounds"]


def simulate_ensemble(
    key: Key[Array, ""], chain: TwoStateChain, n: int, rounds: int
) -> EnsembleCounts:
    """Counts of `n` independent chains over rounds 0..rounds, by binomial thinning.

    N_0 ~ Binomial(n, p0); then repaired ~ Binomial(n - N_k, p_ic), broken ~ Binomial(N_k, p_ci)
    and N_{k+1} = N_k + repaired - broken: the distribution of the sums over n paths, exactly.

    Args:
        key: typed random key, consumed.
        chain: one chain (scalar probabilities).
        n: independent chains, 1 <= n <= 10^12.
        rounds: refinement rounds, >= 0.

    Returns: `EnsembleCounts`, NumPy arrays.

    Raises:
        InputError: n or rounds out of range, a chain that is not scalar, or a device without
            float64.

    Reference: docs/theory.md A1.
    """
    if not 1 <= n <= MOST_CHAINS:
        raise InputError(f"n is {n}; give a number from 1 to 10^12")
    if rounds < 0:
        raise InputError(f"rounds is {rounds}; give a number of rounds >= 0")
    if chain.shape != ():
        raise InputError(f"chain has shape {chain.shape}; give one chain (scalar probabilities)")
    probabilities = np.array([chain.p0, chain.p_ic, chain.p_ci], np.float64)
    require_float64("an ensemble of chains")
    with jax.enable_x64(True):
        counts = np.asarray(thin(key, probabilities, np.float64(n), rounds))
    correct, repaired, broken = counts.astype(np.int64)
    return EnsembleCounts(correct, repaired[1:], broken[1:])


@partial(jax.jit, static_argnames="rounds")
def thin(
    key: Key[Array, ""],
    probabilities: Float[Array, "3"] | Float[np.ndarray, "3"],
    n: Float[ArrayLike, ""],
    rounds: int,
) -> Float[Array, "3 {rounds}+1"]:
    """Rows: correct after round k, and those that turn right and wrong in it; 0 is from wrong."""
    # The first answer is a round from all wrong, so that the sampler is compiled once.
    first, later = probabilities[0], probabilities[1:]

    def step(
        correct: Float[Array, ""], at: tuple[Key[Array, ""], Int[Array, ""]]
    ) -> tuple[Array, Array]:
        key, k = at
        chances = jnp.where(k == 0, jnp.stack([first, jnp.zeros_like(first)]), later)
        at_risk = jnp.stack([n - correct, correct])
        flips = jax.random.binomial(key, at_risk, chances, dtype=jnp.float64)
        correct = correct + flips[0] - flips[1]
        return correct, jnp.concatenate([correct[None], flips])

    rows = (jax.random.split(key, rounds + 1), jnp.arange(rounds + 1))
    _, counts = jax.lax.scan(step, jnp.zeros((), jnp.float64), rows)
    return counts.T
