"""Transitions per second of the simulators, beside the generator alone, and draws of NUTS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.measurement import Clock, Measurement, seconds
from msjax.posterior.models import find_model
from msjax.posterior.sample import compiled_nuts, condensed, padded, tabulate
from msjax.simulation.ensemble import simulate_ensemble
from msjax.simulation.packed import CHAINS_PER_WORD, Seed, seed_of, threefry
from msjax.simulation.paths import simulate_counts
from msjax.theory.chain import TwoStateChain

measurement = partial(Measurement, "simulators")
CHAIN = (0.3, 0.3, 0.1)
DIGITS = 12
"""Random bits that each chain is given in a round."""


def measure(clock: Clock, small: bool) -> Iterator[Measurement]:
    """Paths, the generator, ensembles, and samplers; each twice where once compiles."""
    tasks: list[Callable[[bool], Iterator[Measurement]]] = [_paths, _ensemble, _chains, _benchmarks]
    for task in tasks:
        if clock.left <= 0:
            yield measurement(task.__name__[1:], says="not measured: no time was left")
        else:
            yield from task(small)


def _paths(small: bool) -> Iterator[Measurement]:
    n, rounds = (2**18, 16) if small else (2**28, 64)
    key, repeats = jax.random.key(0), 3
    alike = TwoStateChain(*map(jnp.float32, CHAIN))
    drawn = _generator(n, rounds)
    for name, chain, number in (
        ("paths of equal chains", alike, n),
        ("paths, a chain of its own each", _spread(n // 16), n // 16),
    ):
        run = partial(simulate_counts, key, chain, number, rounds)
        run().block_until_ready()
        took = seconds(lambda run=run: run().block_until_ready(), repeats)  # type: ignore[misc]
        rate = number * rounds / took
        yield measurement(
            name,
            {
                "chains": number,
                "rounds": rounds,
                "transitions_per_second": rate,
                "share_of_generator": rate / drawn,
            },
        )


def _spread(n: int) -> TwoStateChain:
    return TwoStateChain(*(jnp.full(n, p, jnp.float32) for p in CHAIN))


def _generator(n: int, rounds: int) -> float:
    """Transitions per second that it has digits for: those of one device times their number."""
    words = n // CHAINS_PER_WORD // len(jax.devices())

    @jax.jit
    def draw(seed: Seed, counters: jax.Array) -> jax.Array:
        def one(total: jax.Array, address: jax.Array) -> tuple[jax.Array, None]:
            rest = (jnp.broadcast_to(address, counters.shape), counters * 0, counters * 0)
            for word in threefry(seed, (counters, *rest)):
                total = total ^ word
            return total, None

        addresses = jnp.arange(rounds * DIGITS // 4, dtype=jnp.uint32)
        return jax.lax.scan(one, jnp.zeros_like(counters), addresses)[0]

    seed = seed_of(jax.random.key(0))
    counters = jnp.arange(words, dtype=jnp.uint32)
    draw(seed, counters).block_until_ready()
    took = seconds(lambda: draw(seed, counters).block_until_ready(), 3)
    return words * CHAINS_PER_WORD * rounds / took * len(jax.devices())


def _ensemble(small: bool) -> Iterator[Measurement]:
    n, rounds = 10**9, 64
    chain = TwoStateChain(*CHAIN)
    keys = iter(jax.random.split(jax.random.key(0), 8))
    simulate_ensemble(next(keys), chain, n, rounds)
    took = seconds(lambda: simulate_ensemble(next(keys), chain, n, rounds), 5)
    yield measurement(
        "ensemble of equal chains",
        {
            "chains": n,
            "rounds": rounds,
            "seconds": took,
            "transitions_per_second": n * rounds / took,
        },
    )


def _tables(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of so many benchmarks of simulated runs, padded to one size."""
    model, random = find_model("heterogeneous"), np.random.default_rng(0)
    found = []
    for _ in range(number):
        rates = random.beta(2, 4, (200, 2))
        states = np.empty((200, 9), np.int8)
        states[:, 0] = random.random(200) < 0.5
        for k in range(8):
            flips = random.random(200) < np.where(states[:, k] == 1, rates[:, 1], rates[:, 0])
            states[:, k + 1] = states[:, k] ^ flips
        found.append(condensed(model, tabulate(model, states)))
    room = max(len(rows) for rows, _ in found)
    statistics, times = zip(*(padded(*one, room) for one in found), strict=True)
    return np.stack(statistics), np.stack(times)


def _chains(small: bool) -> Iterator[Measurement]:
    for chains in (2,) if small else (8, 64, 512):
        yield _sampled(1, chains, 20 if small else 500)


def _benchmarks(small: bool) -> Iterator[Measurement]:
    for benchmarks in (2,) if small else (16, 64):
        yield _sampled(benchmarks, 2 if small else 8, 20 if small else 500)


def _sampled(benchmarks: int, chains: int, draws: int) -> Measurement:
    """NUTS on one device: chains of each benchmark side by side, and benchmarks too."""
    from arviz_stats.base import array_stats

    model = find_model("heterogeneous")
    largest = model.sampled_as
    free = {name: np.float32(name in model.parameters) for name in largest.parameters}
    run = jax.jit(
        jax.vmap(
            lambda statistics, times, key: compiled_nuts(
                largest,
                free,
                statistics,
                times,
                key,
                jnp.float32(0.9),
                draws=draws,
                chains=chains,
                devices=1,
            )
        )
    )
    tables = _tables(benchmarks)

    def sample(seed: int) -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.key(seed), benchmarks)
        return jax.block_until_ready(run(*tables, keys))[0]

    found = sample(0)
    took = seconds(lambda: sample(1), 1)
    effective = min(
        float(array_stats.ess(np.asarray(found[name][i], float), method="bulk"))
        for name in model.parameters
        for i in range(benchmarks)
    )
    return measurement(
        f"NUTS, {benchmarks} benchmarks x {chains} chains",
        {
            "draws": draws,
            "draws_per_second": benchmarks * chains * draws / took,
            "effective_draws_per_second": benchmarks * effective / took,
        },
    )
