"""Exact simulation of how n loops with a judge end, at a cost that does not depend on n.

Loops that still go on and are in the same state are alike, so how many the judge accepts, and how
many of the others the revision flips, is binomial, as in `msjax.simulation.ensemble`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key

from msjax.devices import require_float64
from msjax.errors import InputError, require_probability
from msjax.simulation.ensemble import MOST_CHAINS
from msjax.theory.chain import TwoStateChain
from msjax.theory.judge import Judge

__all__ = ["LoopCounts", "simulate_loops"]


class LoopCounts(NamedTuple):
    """Loops by how they ended, int64; entry k is of round k.

    Attributes:
        accepted_right, accepted_wrong: whose answer of that round the judge accepted.
        rejected_right, rejected_wrong: whose answers it rejected up to that round. Of the last
            round these are the loops in which nothing was accepted.
    """

    accepted_right: Int[np.ndarray, "rounds"]
    accepted_wrong: Int[np.ndarray, "rounds"]
    rejected_right: Int[np.ndarray, "rounds"]
    rejected_wrong: Int[np.ndarray, "rounds"]


def simulate_loops(
    key: Key[Array, ""], chain: TwoStateChain, judge: Judge, n: int, revisions: int
) -> LoopCounts:
    """Counts of `n` independent loops that revise until accepted, at most `revisions` times.

    With p_ic = p0 and p_ci = 1 - p0 they resample. Where several verdicts are asked on every
    answer, correlated or not, give the rates of `msjax.theory.judge.judge_by_votes`: verdicts on
    different answers are independent given the answers, so that is the distribution exactly.

    Args:
        key: typed random key, consumed.
        chain: one chain (scalar probabilities).
        judge: its rates, scalars.
        n: independent loops, 1 <= n <= 10^12.
        revisions: the cap, >= 0.

    Returns: `LoopCounts`, NumPy arrays of revisions + 1 rounds.

    Raises:
        InputError: n or revisions out of range, a rate outside [0, 1], a chain or rates that are
            not scalar, or a device without float64.

    Reference: docs/theory.md H1.
    """
    if not 1 <= n <= MOST_CHAINS:
        raise InputError(f"n is {n}; give a number from 1 to 10^12")
    if revisions < 0:
        raise InputError(f"revisions is {revisions}; give a number of rounds >= 0")
    for name, rate in judge._asdict().items():
        require_probability(name, rate)
    rates = [chain.p0, chain.p_ic, chain.p_ci, *judge]
    if any(np.ndim(rate) for rate in rates):
        raise InputError("chain or judge is not scalar; give one of each")
    require_float64("an ensemble of loops")
    with jax.enable_x64(True):
        counts = _thin(key, np.array(rates, np.float64), np.float64(n), revisions)
    return LoopCounts(*np.asarray(counts).astype(np.int64).T)


@partial(jax.jit, static_argnames="revisions")
def _thin(
    key: Key[Array, ""],
    rates: Float[np.ndarray, "5"] | Array,
    n: Float[ArrayLike, ""],
    revisions: int,
) -> Float[Array, "rounds 4"]:
    p0, p_ic, p_ci, s, f = rates
    first, later = jax.random.split(key)
    start = jax.random.binomial(first, n, p0, dtype=jnp.float64)

    def step(going: Float[Array, "2"], key: Key[Array, ""]) -> tuple[Array, Array]:
        judged, revised = jax.random.split(key)
        accepted = jax.random.binomial(judged, going, jnp.stack([s, f]), dtype=jnp.float64)
        left = going - accepted
        flips = jax.random.binomial(revised, left, jnp.stack([p_ci, p_ic]), dtype=jnp.float64)
        return left - flips + flips[::-1], jnp.concatenate([accepted, left])

    keys = jax.random.split(later, revisions + 1)
    _, counts = jax.lax.scan(step, jnp.stack([start, n - start]), keys)
    return counts
