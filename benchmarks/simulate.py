"""Transitions per second of the simulators against NumPy, numba, QuantEcon.py and plain JAX.

Every peer counts the correct chains after each of 64 rounds, with the parameters of one chain. Runs
take turns, so that what else the machine does falls on all alike; compilation is excluded.

    pip install -e '.[bench]'
    python -m benchmarks.simulate --json simulate.json
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numba
import numpy as np
import quantecon
import tyro

from msjax.cli.output import write_json
from msjax.cli.tables import table
from msjax.simulation.ensemble import simulate_ensemble
from msjax.simulation.paths import simulate_counts
from msjax.theory.chain import TwoStateChain, accuracy_curve

P0, P_IC, P_CI = 0.3, 0.3, 0.1
Counts = Callable[[int, int, int], np.ndarray]


def chain() -> TwoStateChain:
    """The chain that everybody simulates."""
    return TwoStateChain(P0, P_IC, P_CI)


@dataclass(frozen=True)
class Simulate:
    """Compare the simulators with their peers.

    python -m benchmarks.simulate --json simulate.json
    """

    chains: int = 2**20
    """chains simulated by each peer (QuantEcon.py, which is slower, gets a sixteenth)"""
    rounds: int = 64
    """refinement rounds"""
    repeats: int = 15
    """timed turns"""
    json: Path | None = None
    """write the results here as well"""


@dataclass(frozen=True)
class Row:
    """Results of one peer: transitions per second (median) and msjax / peer per turn."""

    name: str
    rate: float
    ratio: float
    ratio_low: float
    ratio_high: float


def with_msjax(seed: int, n: int, rounds: int) -> np.ndarray:
    """Packed paths on all devices."""
    return np.asarray(simulate_counts(jax.random.key(seed), chain(), n, rounds))


def with_msjax_each(seed: int, n: int, rounds: int) -> np.ndarray:
    """Packed paths where every path has a chain of its own, which happen to be alike."""
    own = TwoStateChain(*(np.full(n, p, np.float32) for p in (P0, P_IC, P_CI)))
    return np.asarray(simulate_counts(jax.random.key(seed), own, n, rounds))


@partial(jax.jit, static_argnames=("n", "rounds"))
def _plain_scan(key: jax.Array, n: int, rounds: int) -> jax.Array:
    first, later = jax.random.split(key)
    start = jax.random.uniform(first, (n,)) < P0

    def step(state: jax.Array, round_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        flips = jax.random.uniform(round_key, (n,)) < jnp.where(state, P_CI, P_IC)
        state = state ^ flips
        return state, jnp.sum(state)

    _, counts = jax.lax.scan(step, start, jax.random.split(later, rounds))
    return jnp.concatenate([jnp.sum(start)[None], counts])


def with_plain_jax(seed: int, n: int, rounds: int) -> np.ndarray:
    """A scan over rounds with one float per chain, as one would first write it."""
    return np.asarray(_plain_scan(jax.random.key(seed), n, rounds))


def with_numpy(seed: int, n: int, rounds: int) -> np.ndarray:
    """One vector of single-precision uniforms per round."""
    rng = np.random.default_rng(seed)
    state = rng.random(n, dtype=np.float32) < P0
    counts = [state.sum()]
    for _ in range(rounds):
        state ^= rng.random(n, dtype=np.float32) < np.where(
            state, np.float32(P_CI), np.float32(P_IC)
        )
        counts.append(state.sum())
    return np.array(counts)


@numba.njit(parallel=True, boundscheck=False)
def _numba_chains(seed: int, n: int, rounds: int, start: int, repair: int, break_: int):  # type: ignore[no-untyped-def]
    """Chains in parallel, each with a xorshift64 of its own and 32-bit thresholds."""
    threads = 4 * numba.get_num_threads()
    counts = np.zeros((threads, rounds + 1), np.int64)
    for thread in numba.prange(threads):
        own = np.zeros(rounds + 1, np.int64)
        for chain in range(thread * n // threads, (thread + 1) * n // threads):
            x = np.uint64(chain + 1) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(seed)
            correct = False
            for k in range(rounds + 1):
                x ^= x << np.uint64(13)
                x ^= x >> np.uint64(7)
                x ^= x << np.uint64(17)
                u = x >> np.uint64(32)
                limit = break_ if correct else (start if k == 0 else repair)
                correct ^= bool(u < np.uint64(limit))
                own[k] += correct
        counts[thread] = own
    return counts.sum(0)


@numba.njit(parallel=True, boundscheck=False)
def _numba_lanes(seed: int, n: int, rounds: int, start: int, repair: int, break_: int):  # type: ignore[no-untyped-def]
    """Blocks in parallel, the inner loop over chains so that it vectorises, xorshift32."""
    lanes = 4096
    blocks = n // lanes
    counts = np.zeros((blocks, rounds + 1), np.int64)
    mask = np.uint64(0xFFFFFFFF)
    for block in numba.prange(blocks):
        x = np.empty(lanes, np.uint32)
        correct = np.zeros(lanes, np.uint32)
        for i in range(lanes):
            z = np.uint64(block * lanes + i + 1) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(seed)
            x[i] = np.uint32((z >> np.uint64(32)) | np.uint64(1))
        for k in range(rounds + 1):
            up = np.uint32(start if k == 0 else repair)
            down = np.uint32(break_)
            total = np.uint32(0)
            for i in range(lanes):
                y = x[i]
                y = np.uint32((y ^ (y << np.uint32(13))) & mask)
                y = np.uint32(y ^ (y >> np.uint32(17)))
                y = np.uint32((y ^ (y << np.uint32(5))) & mask)
                x[i] = y
                limit = down if correct[i] else up
                correct[i] ^= np.uint32(y < limit)
                total += correct[i]
            counts[block, k] = total
    return counts.sum(0)


def _thresholds() -> tuple[int, int, int]:
    return int(P0 * 2**32), int(P_IC * 2**32), int(P_CI * 2**32)


def with_numba_chains(seed: int, n: int, rounds: int) -> np.ndarray:
    """Parallel over chains."""
    return _numba_chains(seed, n, rounds, *_thresholds())


def with_numba_lanes(seed: int, n: int, rounds: int) -> np.ndarray:
    """Parallel over blocks of chains, vectorised within."""
    return _numba_lanes(seed, n, rounds, *_thresholds())


def with_quantecon(seed: int, n: int, rounds: int) -> np.ndarray:
    """`MarkovChain.simulate` with one repetition per chain."""
    markov = quantecon.MarkovChain(np.array([[1 - P_IC, P_IC], [P_CI, 1 - P_CI]]))
    starts = (np.random.default_rng(seed).random(n) < P0).astype(int)
    return markov.simulate(rounds + 1, init=starts, random_state=seed).sum(0)


PEERS: dict[str, tuple[Counts, int]] = {
    "msjax paths": (with_msjax, 1),
    "msjax paths, a chain each": (with_msjax_each, 1),
    "plain JAX scan": (with_plain_jax, 1),
    "NumPy": (with_numpy, 1),
    "numba, chains in parallel": (with_numba_chains, 1),
    "numba, blocks vectorised": (with_numba_lanes, 1),
    "QuantEcon.py": (with_quantecon, 16),
}


def check(name: str, counts: np.ndarray, n: int) -> None:
    """A peer that is fast and wrong is not compared with."""
    expected = np.asarray(accuracy_curve(chain(), counts.size - 1))
    worst = float(np.abs(counts / n - expected).max() * np.sqrt(n) / 0.5)
    assert worst < 6, f"{name} is {worst:.1f} standard errors off"


def compare(options: Simulate) -> list[Row]:
    """All peers in turn."""
    times: dict[str, list[float]] = {name: [] for name in PEERS}
    for turn in range(options.repeats + 1):
        for name, (counts, share) in PEERS.items():
            n = options.chains // share
            started = time.perf_counter()
            found = counts(turn + 1, n, options.rounds)
            seconds = time.perf_counter() - started
            if turn == 0:
                check(name, found, n)  # and compile
            else:
                times[name].append(seconds * share)
    ours = times["msjax paths"]
    rows = []
    for name, theirs in times.items():
        ratios = sorted(t / o for t, o in zip(theirs, ours, strict=True))
        rate = options.chains * options.rounds / statistics.median(theirs)
        rows.append(Row(name, rate, statistics.median(ratios), ratios[0], ratios[-1]))
    return rows


def ensemble_seconds(rounds: int, repeats: int = 50) -> list[float]:
    """Times of 10^9 chains by binomial thinning, the first with compilation left out."""
    model, times = chain(), []
    for key in jax.random.split(jax.random.key(0), repeats + 1):
        started = time.perf_counter()
        simulate_ensemble(key, model, 10**9, rounds)
        times.append(time.perf_counter() - started)
    return sorted(times[1:])


def main(options: Simulate) -> None:
    """Run, print the tables, and write them if asked to."""
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    rows = compare(options)
    print(f"{options.chains:,} chains x {options.rounds} rounds, {len(jax.devices())} devices")
    header = ("simulator", "G transitions/s", "msjax / it (median)", "range")
    print(
        table(
            header,
            [
                (
                    row.name,
                    f"{row.rate / 1e9:.3f}",
                    f"{row.ratio:.2f}",
                    f"{row.ratio_low:.2f} - {row.ratio_high:.2f}",
                )
                for row in rows
            ],
        )
    )
    times = ensemble_seconds(options.rounds)
    middle = statistics.median(times)
    print(f"ensemble, 10^9 chains: {1e3 * middle:.2f} ms (median of {len(times)}), ", end="")
    print(f"{1e3 * times[0]:.2f} to {1e3 * times[-1]:.2f}; load {os.getloadavg()[0]:.1f}")
    if options.json is not None:
        result = {"paths": [asdict(row) for row in rows], "ensemble_seconds": times}
        write_json(options.json, result | {"load": os.getloadavg()})


if __name__ == "__main__":
    main(tyro.cli(Simulate))
