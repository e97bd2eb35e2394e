"""How fast rules decide: one decision of the posterior-aware rule, and the whole table of a replay.

The posterior-aware rule averages over 1,000 draws for every question of a batch of 1,000. The table
is that of `msjax replay --no-choose` on a parallel pool of the size of GSM8K with 64 samples in 100
orders. Fits of score distributions have a benchmark of their own, `benchmarks/score_fits.py`.

    python -m benchmarks.rules --json rules.json
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from msjax.cli.output import prepare_sampling, write_json
from msjax.cli.tables import markdown


@dataclass(frozen=True)
class Rules:
    """Time decisions and a whole replay.

    python -m benchmarks.rules --json rules.json
    """

    batch: int = 1000
    """questions decided at once"""
    draws: int = 1000
    """posterior draws averaged over"""
    questions: int = 1319
    """questions of the pool"""
    samples: int = 64
    """samples of each"""
    orders: int = 100
    """random orders"""
    repeats: int = 5
    """timed turns of a decision; the table is made twice, the first time compiling"""
    json: Path | None = None
    """write the results here as well"""


def time_decision(batch: int, draws: int, repeats: int) -> list[float]:
    """Microseconds per question of one update of `belief_rule` that sees changes and scores."""
    import jax
    import jax.numpy as jnp

    from msjax.rules.belief import ScoreDistributions, SignalDistribution, belief_rule
    from msjax.rules.protocol import Observation
    from msjax.theory.chain import TwoStateChain
    from msjax.theory.score_fits import BetaScores

    random = np.random.default_rng(0)
    chain = TwoStateChain(*random.beta(5, 5, (3, draws)).astype(np.float32))
    shapes = [BetaScores(jnp.float32(a), jnp.float32(b)) for a, b in ((4, 2), (2, 3))]
    signals = SignalDistribution(
        jnp.asarray(random.beta(7, 3, draws), jnp.float32), ScoreDistributions(*shapes)
    )
    rule = belief_rule(chain, np.full(10, 100.0), signals, price=1e-4)
    update = jax.jit(jax.vmap(rule.update))
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape)), rule.init())
    seen = Observation(
        jnp.zeros(batch, jnp.int32),
        jnp.asarray(random.random(batch), jnp.float32),
        jnp.full(batch, 100.0),
    )
    state, _ = jax.block_until_ready(update(state, seen))
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(update(state, seen))
        found.append((time.perf_counter() - start) / batch * 1e6)
    return found


def time_table(questions: int, samples: int, orders: int) -> dict[str, list[float]]:
    """Seconds of every rule of the table, first and second time."""
    import jax

    from msjax.data.runs import Runs
    from msjax.evaluate.crossfit import evaluate
    from msjax.rules import find_rules

    random = np.random.default_rng(0)
    right = random.random((questions, samples)) < random.beta(3, 1, (questions, 1))
    texts = np.where(right, 0, random.integers(1, 6, right.shape))
    pool = Runs.from_arrays(
        right,
        answers=texts,
        scores=random.beta(np.where(right, 8, 4), 2),
        tokens={"completion": random.integers(100, 1000, right.shape)},
        benchmark="simulated",
        protocol="parallel",
    )
    seconds: dict[str, list[float]] = {}
    for _ in range(2):
        marks: list[tuple[str, float]] = []

        def mark(name: str, marks: list[tuple[str, float]] = marks) -> None:
            marks.append((name, time.perf_counter()))

        begin = time.perf_counter()
        evaluate(
            pool,
            find_rules(pool, every=True),
            jax.random.key(0),
            orders=orders,
            choose=False,
            progress=mark,
        )
        end = time.perf_counter()
        seconds.setdefault("whole table", []).append(end - begin)
        for (name, start), (_, stop) in zip(marks, [*marks[1:], ("", end)], strict=True):
            seconds.setdefault(name, []).append(stop - start)
    return seconds


def main() -> None:
    """Measure, print the tables, write the JSON."""
    options = tyro.cli(Rules)
    prepare_sampling()
    decision = time_decision(options.batch, options.draws, options.repeats)
    print(
        f"one decision over {options.draws} draws, batch {options.batch}: "
        f"{statistics.median(decision):.1f} us per question "
        f"({min(decision):.1f}-{max(decision):.1f}, {options.repeats} turns)"
    )
    table = time_table(options.questions, options.samples, options.orders)
    print(f"{options.questions} questions x {options.samples} samples x {options.orders} orders")
    rows = [[name, f"{first:.1f}", f"{second:.1f}"] for name, (first, second) in table.items()]
    print(markdown(["rule", "first time, s", "second time, s"], rows))
    if options.json:
        write_json(options.json, {"decision_us": decision, "table_seconds": table})


if __name__ == "__main__":
    main()
