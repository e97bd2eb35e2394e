"""Monte Carlo of refinement chains, path by path.

Nothing here uses a closed form: a path starts correct with probability p0 and then flips with the
probability of its present state, so that agreement with `msjax.theory.chain` is evidence.

Chains run in blocks, one after the other on each device, so that memory does not grow with their
number; results are the same, bit for bit, for any number of devices. Over several hosts, start
every process with `jax.distributed.initialize` and call the same function in each: all get the
whole result (docs/performance.md).
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as Over
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from msjax.devices import memory
from msjax.errors import InputError
from msjax.simulation.functionals import PathFunctional
from msjax.simulation.packed import (
    CHAINS_PER_WORD,
    Coins,
    Seed,
    coins_of,
    next_states,
    seed_of,
    unpack,
)
from msjax.theory.chain import TwoStateChain

__all__ = ["simulate_counts", "simulate_histogram", "simulate_joint_counts", "simulate"]

_WORDS_PER_BLOCK = 4096
_ALIGNMENT = 256  # words; vector units run odd lengths at a fraction of their speed

_AXIS = "blocks"

_WIDE = {"xla_cpu_prefer_vector_width": 512}
"""XLA uses half of the widest vector units of a CPU unless asked; integers lose nothing by it."""

Devices = tuple[jax.Device, ...]


def simulate_counts(
    key: Key[Array, ""],
    chain: TwoStateChain,
    n: int,
    rounds: int,
    devices: Sequence[jax.Device] | None = None,
) -> Int[Array, "{rounds}+1"]:
    """Number of chains that are correct after each round.

    Memory does not grow with `n`. A call with the same `n`, `rounds`, devices and
    dtype compiles nothing, whatever the probabilities. Where only counts are wanted,
    `msjax.simulation.ensemble` has the same distribution at a cost that does not depend on `n`.

    Args:
        key: typed random key, consumed.
        chain: one chain for all (scalar probabilities; `vmap` over keys and chains for more), or
            one per path (shape (n,)).
        n: independent chains to run, 1 <= n < 2^31.
        rounds: refinement rounds, >= 0.
        devices: where to run; all devices if not given. The result does not depend on it.

    Returns: int32 counts; entry k divided by `n` estimates p_k.

    Raises:
        InputError: n or rounds out of range, or a chain of another shape.

    Reference: docs/theory.md A1.
    """
    _check(chain, n, rounds)
    return _reduced(key, chain, n, rounds, _devices(devices), _COUNTS)


def simulate_joint_counts(
    key: Key[Array, ""],
    chain: TwoStateChain,
    n: int,
    rounds: int,
    devices: Sequence[jax.Device] | None = None,
) -> Int[Array, "{rounds}+1 {rounds}+1"]:
    """Number of chains that are correct both after j and after k rounds.

    The diagonal holds the counts of each round. Differences between rounds of the same chain,
    with their standard errors, and all two-round distributions follow from this matrix.

    Args, raises: as for `simulate_counts`.

    Returns: int32 matrix, symmetric; the same key gives the paths that `simulate_counts` counts.

    Reference: docs/theory.md A1.
    """
    _check(chain, n, rounds)
    return _reduced(key, chain, n, rounds, _devices(devices), _JOINT_COUNTS)


def simulate_histogram(
    key: Key[Array, ""],
    chain: TwoStateChain,
    n: int,
    rounds: int,
    functional: PathFunctional,
    devices: Sequence[jax.Device] | None = None,
) -> Int[Array, "bins"]:
    """Histogram over chains of a whole-number functional of the path X_0, ..., X_rounds.

    For example `simulate_histogram(key, chain, 10**6, 16, longest_streak(16))`. Make the
    functional once and pass the same object: another object compiles again.

    Args, raises: as for `simulate_counts`; `functional` from `msjax.simulation.functionals` or your
    own.

    Returns: int32, how many chains fall in each of `functional.bins` bins; a value outside
    0..bins-1 is counted nowhere.

    Reference: docs/theory.md A7 and A8 (distributions of such functionals).
    """
    _check(chain, n, rounds)
    return _reduced(key, chain, n, rounds, _devices(devices), _histogram_of(functional))


def simulate(
    key: Key[Array, ""],
    chain: TwoStateChain,
    n: int,
    rounds: int,
    devices: Sequence[jax.Device] | None = None,
) -> Bool[Array, "{n} {rounds}+1"]:
    """Whole paths: entry [i, k] says whether chain i is correct after k rounds.

    Args: as for `simulate_counts`, `n` chains.

    Returns: booleans; the same key gives the paths that `simulate_counts` counts.

    Raises:
        InputError: as for `simulate_counts`, or paths that would not fit in memory.

    Reference: docs/theory.md A1.
    """
    _check(chain, n, rounds)
    where = _devices(devices)
    # The paths themselves and, while they are put in order, a copy.
    need, room = 2 * n * (rounds + 1), memory(where[0])
    if room is not None and need > room:
        raise InputError(
            f"n = {n:,} paths of rounds = {rounds} need {need / 2**30:.1f} GiB "
            f"and there are {room / 2**30:.1f}; lower n or rounds, or use "
            "simulate_counts or simulate_histogram, whose memory does not grow with n"
        )
    return _paths(key, chain, n, rounds, where)


class _Reduction(NamedTuple):
    """Sums over chains: `observe` sees the packed states of each round, `total` what it left.

    Chains that only fill the last words are wrong in what `observe` sees.
    """

    init: Callable[[int, int], Any]
    observe: Callable[[Any, UInt32[Array, ""], UInt32[Array, "words"]], Any]
    total: Callable[[Any, UInt32[Array, "words"]], Array]


def _keep_all(
    kept: UInt32[Array, "answers words"], k: UInt32[Array, ""], states: UInt32[Array, "words"]
) -> UInt32[Array, "answers words"]:
    return jax.lax.dynamic_update_index_in_dim(kept, states, k.astype(jnp.int32), 0)


def _nothing_kept(answers: int, words: int) -> UInt32[Array, "answers words"]:
    return jnp.zeros((answers, words), jnp.uint32)


def _ones(words: UInt32[Array, "*answers words"]) -> Int[Array, "*answers"]:
    return jnp.sum(jax.lax.population_count(words).astype(jnp.int32), axis=-1)


def _joint(
    kept: UInt32[Array, "answers words"], _: UInt32[Array, "words"]
) -> Int[Array, "answers answers"]:
    return jax.lax.map(lambda states: _ones(kept & states[None]), kept)


_COUNTS = _Reduction(
    lambda answers, _: jnp.zeros(answers, jnp.int32),
    lambda counts, k, states: counts.at[k].set(_ones(states)),
    lambda counts, _: counts,
)
_JOINT_COUNTS = _Reduction(_nothing_kept, _keep_all, _joint)


@cache
def _histogram_of(functional: PathFunctional) -> _Reduction:
    """One state of the functional per chain of the block, and in the end one bin."""

    def init(_: int, words: int) -> Any:
        chains = words * CHAINS_PER_WORD
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (chains, *x.shape)), functional.init())

    def observe(states: Any, _: UInt32[Array, ""], correct: UInt32[Array, "words"]) -> Any:
        return jax.vmap(functional.update)(states, unpack(correct))

    def total(states: Any, real: UInt32[Array, "words"]) -> Int[Array, "bins"]:
        values = jax.vmap(functional.read)(states)
        seen = jnp.where(unpack(real) & (values >= 0), values, functional.bins)
        return jnp.zeros(functional.bins, jnp.int32).at[seen].add(1, mode="drop")

    return _Reduction(init, observe, total)


def _cut(n: int) -> tuple[int, int]:
    """Number of blocks, and words in each: by the number of chains alone, never by the devices."""
    words = math.ceil(n / CHAINS_PER_WORD)
    blocks = math.ceil(words / _WORDS_PER_BLOCK)
    return blocks, _ALIGNMENT * math.ceil(words / blocks / _ALIGNMENT)


def _over_blocks(
    per_block: Callable[[Seed, Coins, UInt32[Array, ""], int], Array],
    combine: Callable[[Array], Array],
    key: Key[Array, ""],
    chain: TwoStateChain,
    n: int,
    devices: Devices,
    specs: Over,
) -> Array:
    """`per_block(seed, coins, first_word, words)` for every block, combined on each device."""
    blocks, words = _cut(n)
    padded_blocks = len(devices) * math.ceil(blocks / len(devices))
    starts = words * jnp.arange(padded_blocks, dtype=jnp.uint32)

    def rows(p: Float[Array, "chains"]) -> Float[Array, "blocks block_chains"]:
        padded = jnp.zeros(padded_blocks * words * CHAINS_PER_WORD, p.dtype)
        return padded.at[:n].set(p).reshape(padded_blocks, -1)

    alike = chain.shape == ()
    by_block = Over() if alike else Over(_AXIS)
    chain = chain if alike else jax.tree.map(rows, chain)

    def on_device(seed: Seed, chain: TwoStateChain, starts: UInt32[Array, "blocks"]) -> Array:
        if alike:
            coins = coins_of(chain)
            found = jax.lax.map(lambda at: per_block(seed, coins, at, words), starts)
        else:
            found = jax.lax.map(
                lambda own: per_block(seed, coins_of(own[0]), own[1], words), (chain, starts)
            )
        return combine(found)

    return jax.shard_map(
        on_device,
        mesh=Mesh(np.array(devices), (_AXIS,)),
        in_specs=(Over(), by_block, Over(_AXIS)),
        out_specs=specs,
        check_vma=False,
    )(seed_of(key), chain, starts)


def _run(
    seed: Seed,
    coins: Coins,
    first_word: UInt32[Array, ""],
    words: int,
    rounds: int,
    observe: Callable[[Any, UInt32[Array, ""], UInt32[Array, "words"]], Any],
    seen: Any,
) -> Any:
    """What `observe` makes of the states of one block after each round."""

    def step(carry: tuple[UInt32[Array, "words"], Any], k: UInt32[Array, ""]) -> tuple[Any, None]:
        states, seen = carry
        states = next_states(seed, coins, first_word, k, states)
        return (states, observe(seen, k, states)), None

    start = (jnp.zeros(words, jnp.uint32), seen)
    (_, seen), _ = jax.lax.scan(step, start, jnp.arange(rounds + 1, dtype=jnp.uint32))
    return seen


@partial(jax.jit, static_argnames=("n", "rounds", "devices", "reduction"), compiler_options=_WIDE)
def _reduced(
    key: Key[Array, ""],
    chain: TwoStateChain,
    n: int,
    rounds: int,
    devices: Devices,
    reduction: _Reduction,
) -> Int[Array, "..."]:
    def per_block(seed: Seed, coins: Coins, first_word: UInt32[Array, ""], words: int) -> Array:
        real = _real(first_word, words, n)

        def observe(seen: Any, k: UInt32[Array, ""], states: UInt32[Array, "words"]) -> Any:
            return reduction.observe(seen, k, states & real)

        seen = reduction.init(rounds + 1, words)
        return reduction.total(_run(seed, coins, first_word, words, rounds, observe, seen), real)

    def combine(totals: Int[Array, "blocks ..."]) -> Int[Array, "..."]:
        return jax.lax.psum(jnp.sum(totals, axis=0, dtype=jnp.int32), _AXIS)

    return _over_blocks(per_block, combine, key, chain, n, devices, Over())


@partial(jax.jit, static_argnames=("n", "rounds", "devices"), compiler_options=_WIDE)
def _paths(
    key: Key[Array, ""], chain: TwoStateChain, n: int, rounds: int, devices: Devices
) -> Bool[Array, "{n} {rounds}+1"]:
    def per_block(seed: Seed, coins: Coins, first_word: UInt32[Array, ""], words: int) -> Array:
        kept = _nothing_kept(rounds + 1, words)
        return _run(seed, coins, first_word, words, rounds, _keep_all, kept)

    blocks = _over_blocks(per_block, lambda kept: kept, key, chain, n, devices, Over(_AXIS))
    by_block = jax.vmap(jax.vmap(unpack))(blocks)
    return jnp.swapaxes(by_block, 1, 2).reshape(-1, rounds + 1)[:n]


def _real(first_word: UInt32[Array, ""], words: int, n: int) -> UInt32[Array, "words"]:
    """Ones for the chains asked for, zeros for those that only fill the last words."""
    word = first_word + jax.lax.iota(jnp.uint32, words)
    full, rest = divmod(n, CHAINS_PER_WORD)
    partly = jnp.where(word == full, jnp.uint32(2**rest - 1), jnp.uint32(0))
    return jnp.where(word < full, jnp.uint32(2**CHAINS_PER_WORD - 1), partly)


def _devices(devices: Sequence[jax.Device] | None) -> Devices:
    return tuple(jax.devices() if devices is None else devices)


def _check(chain: TwoStateChain, n: int, rounds: int) -> None:
    if not 1 <= n < 2**31:
        raise InputError(f"n is {n}; give a number from 1 to {2**31 - 1}")
    if rounds < 0:
        raise InputError(f"rounds is {rounds}; give a number of rounds >= 0")
    if chain.shape not in ((), (n,)):
        raise InputError(
            f"chain has shape {chain.shape}; give one chain for all, or one per path "
            f"(shape ({n},)), and vmap over keys and chains for several runs"
        )
