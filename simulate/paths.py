"""Monte Carlo of the two-state refinement chain, one random draw per chain and round.

Nothing here uses a closed form: a path starts correct with probability p0 and then flips with the
probability of its present state, so that agreement with `msjax.chain` is evidence.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32

from msjax.chain import TwoStateChain
from msjax.errors import InputError

__all__ = ["simulate_counts", "simulate_joint_counts", "simulate_paths"]


def simulate_counts(
    key: Key[Array, ""], chain: TwoStateChain, n_chains: int, rounds: int
) -> Int[Array, "{rounds}+1"]:
    """Number of chains that are correct after each round.

    Memory grows with `n_chains` only. Probabilities are resolved to 2^-32, which stays below
    the Monte Carlo error for any `n_chains` allowed. A call with the same `n_chains`, `rounds`
    and dtype compiles nothing, whatever the probabilities.

    Args:
        key: typed random key, consumed.
        chain: one chain (scalar probabilities); `vmap` over keys and chains for more.
        n_chains: independent chains to run, 1 <= n_chains < 2^31.
        rounds: refinement rounds, >= 0.

    Returns: int32 counts; entry k divided by `n_chains` estimates p_k.

    Raises:
        InputError: n_chains or rounds out of range, or a chain that is not scalar.

    Reference: docs/theory.md A1.
    """
    _check(chain, n_chains, rounds)
    return _counts(key, chain, n_chains, rounds)


def simulate_paths(
    key: Key[Array, ""], chain: TwoStateChain, n_chains: int, rounds: int
) -> Bool[Array, "{n_chains} {rounds}+1"]:
    """Whole paths: entry [i, k] says whether chain i is correct after k rounds.

    Args:
        key: typed random key, consumed.
        chain: one chain (scalar probabilities).
        n_chains: independent chains to run, 1 <= n_chains < 2^31.
        rounds: refinement rounds, >= 0.

    Returns: booleans; the same key gives the paths that `simulate_counts` counts.

    Raises:
        InputError: n_chains or rounds out of range, or a chain that is not scalar.

    Reference: docs/theory.md A1.
    """
    _check(chain, n_chains, rounds)
    return _paths(key, chain, n_chains, rounds)


def simulate_joint_counts(
    key: Key[Array, ""], chain: TwoStateChain, n_chains: int, rounds: int
) -> Int[Array, "{rounds}+1 {rounds}+1"]:
    """Number of chains that are correct both after j and after k rounds.

    The diagonal holds the counts of each round. Differences between rounds of the same chain,
    with their standard errors, and all two-round laws follow from this matrix.

    Args:
        key: typed random key, consumed.
        chain: one chain (scalar probabilities).
        n_chains: independent chains to run, 1 <= n_chains <= 2^24 (beyond it the float32
            products that do the counting would round).
        rounds: refinement rounds, >= 0.

    Returns: int32 matrix, symmetric.

    Raises:
        InputError: n_chains or rounds out of range, or a chain that is not scalar.

    Reference: docs/theory.md A1.
    """
    _check(chain, n_chains, rounds, most=2**24)
    return _joint_counts(key, chain, n_chains, rounds)


def _check(chain: TwoStateChain, n_chains: int, rounds: int, most: int = 2**31 - 1) -> None:
    if not 1 <= n_chains <= most:
        raise InputError(f"n_chains is {n_chains}; give a number from 1 to {most}")
    if rounds < 0:
        raise InputError(f"rounds is {rounds}; give a number of rounds >= 0")
    if chain.shape != ():
        raise InputError(
            f"chain has shape {chain.shape}; give one chain, and vmap over keys and chains for more"
        )


def _bernoulli(
    bits: UInt32[Array, "n_chains"], probability: Float[Array, "..."]
) -> Bool[Array, "n_chains"]:
    """True with the given probability: uniform 32-bit integers below probability 2^32."""
    certain = probability >= 1
    # 2^32 itself does not fit in 32 bits, hence probability 1 is a case of its own.
    threshold = jnp.floor(jnp.where(certain, 0.0, probability) * 2.0**32).astype(jnp.uint32)
    below = bits < jnp.broadcast_to(threshold, bits.shape)
    return below | jnp.broadcast_to(certain, bits.shape)


def _run(
    key: Key[Array, ""],
    chain: TwoStateChain,
    n_chains: int,
    rounds: int,
    observe: Callable[[Bool[Array, "n_chains"]], Array],
) -> Shaped[Array, "{rounds}+1 ..."]:
    """What `observe` sees of the chains after each round; the states themselves are not kept."""
    keys = jax.random.split(key, rounds + 1)
    start = _bernoulli(jax.random.bits(keys[0], (n_chains,), jnp.uint32), chain.p0)

    def step(
        correct: Bool[Array, "n_chains"], round_key: Key[Array, ""]
    ) -> tuple[Bool[Array, "n_chains"], Array]:
        bits = jax.random.bits(round_key, correct.shape, jnp.uint32)
        flips = jnp.where(correct, _bernoulli(bits, chain.p_ci), _bernoulli(bits, chain.p_ic))
        correct = correct ^ flips
        return correct, observe(correct)

    _, later = jax.lax.scan(step, start, keys[1:])
    return jnp.concatenate([observe(start)[None], later])


@partial(jax.jit, static_argnames=("n_chains", "rounds"))
def _counts(
    key: Key[Array, ""], chain: TwoStateChain, n_chains: int, rounds: int
) -> Int[Array, "{rounds}+1"]:
    return _run(key, chain, n_chains, rounds, partial(jnp.sum, dtype=jnp.int32))


@partial(jax.jit, static_argnames=("n_chains", "rounds"))
def _paths(
    key: Key[Array, ""], chain: TwoStateChain, n_chains: int, rounds: int
) -> Bool[Array, "{n_chains} {rounds}+1"]:
    return _run(key, chain, n_chains, rounds, lambda correct: correct).T


@partial(jax.jit, static_argnames=("n_chains", "rounds"))
def _joint_counts(
    key: Key[Array, ""], chain: TwoStateChain, n_chains: int, rounds: int
) -> Int[Array, "{rounds}+1 {rounds}+1"]:
    correct = _paths(key, chain, n_chains, rounds).astype(jnp.float32)
    return (correct.T @ correct).astype(jnp.int32)
