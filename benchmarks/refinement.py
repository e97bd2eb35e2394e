"""What reusing the KV cache, stopping early and deciding cost or save, in wall time.

Three questions on one benchmark of the default model, each answered by pairs of runs in turn:

- reuse: all rounds with the cache kept between rounds, against every turn computed whole.
- saving: a rule that stops early, against all rounds: does the time fall as the tokens do? Of
  those computed most are read in prompts, many at once; those drawn take most of the time.
- overhead: share of a run's time that the rule takes to decide.

    python -m benchmarks.refinement --json refinement.json
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import tyro

from msjax.cli.output import write_json
from msjax.llm.flax import engine as flax_engine
from msjax.llm.flax import weights
from msjax.llm.flax.engine import FlaxEngine
from msjax.llm.flax.scheduler import Batch
from msjax.llm.record import RunPlan, record_run
from msjax.rules.fixed import fixed_rounds, until_repeated
from msjax.rules.protocol import Decision, Observation, State, StoppingRule


@dataclass(frozen=True)
class Refinement:
    """Measure reuse, saving and overhead.

    python -m benchmarks.refinement --json refinement.json
    """

    model: Path | None = None
    """model folder or GGUF file; the default model if not given"""
    benchmark: str = "arithmetic-medium"
    """whose questions are asked"""
    questions: int = 64
    """per run"""
    rounds: int = 4
    """refinement rounds"""
    batch_size: int = 16
    """conversations decoded together"""
    max_new_tokens: int = 16
    """most tokens per answer"""
    pairs: int = 3
    """timed pairs of runs"""
    json: Path | None = None
    """write the results here as well"""


@dataclass(frozen=True)
class Ratios:
    """Of each pair, and their median."""

    median: float
    each: list[float]


@dataclass(frozen=True)
class Results:
    """What `measure` found.

    Attributes:
        reuse: seconds without reuse / with.
        time: seconds of the rule that stops early / of all rounds.
        computed: tokens computed, read or drawn, of the same.
        drawn: tokens of the answers alone.
        overhead: seconds in which the rule decides / seconds of its run.
    """

    reuse: Ratios
    time: Ratios
    computed: float
    drawn: float
    overhead: Ratios


class Forgetful(Batch):
    """Every turn is computed from its first token."""

    def reusable(self, row: int, ids: list[int]) -> tuple[int, int]:
        return row, 0


class Timed:
    """A rule that sums up how long it takes to decide."""

    def __init__(self, rule: StoppingRule) -> None:
        self.seconds = 0.0
        self._rule = rule._replace(update=jax.jit(rule.update))
        self.rule = StoppingRule(self._init, self._update)

    def _init(self) -> State:
        start = time.perf_counter()
        state = self._rule.init()
        self.seconds += time.perf_counter() - start
        return state

    def _update(self, state: State, seen: Observation) -> tuple[State, Decision]:
        start = time.perf_counter()
        found = jax.block_until_ready(self._rule.update(state, seen))
        self.seconds += time.perf_counter() - start
        return found


def measure(options: Refinement) -> Results:
    """Times all pairs."""
    model = options.model or weights.ensure()
    engine = FlaxEngine.load(
        model,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        temperature=0.7,
    )
    rounds = options.rounds

    def run(rule: StoppingRule, batch: type[Batch] = Batch) -> tuple[float, int, int]:
        """Seconds, tokens computed and tokens drawn."""
        plan = RunPlan(
            model=engine.name, start=0, count=options.questions, rounds=rounds, seed=0, settings={}
        )
        flax_engine.Batch = batch  # type: ignore[misc]
        with tempfile.TemporaryDirectory() as scratch:
            start = time.perf_counter()
            runs = record_run(
                Path(scratch) / "runs.jsonl", plan, {options.benchmark: rule}, lambda: engine
            )
            elapsed = time.perf_counter() - start
        usages = [usage for one in runs for usage in one.tokens]
        return elapsed, sum(u.uncached or 0 for u in usages), sum(u.completion or 0 for u in usages)

    everything, early = fixed_rounds(rounds), until_repeated(rounds + 1, 2)
    for warm_up in (
        lambda: run(everything),
        lambda: run(everything, Forgetful),
        lambda: run(early),
    ):
        warm_up()
    reuse, saving, overhead = [], [], []
    computed = drawn = 0.0
    for _ in range(options.pairs):
        all_rounds, all_computed, all_drawn = run(everything)
        reuse.append(run(everything, Forgetful)[0] / all_rounds)
        stopped, stopped_computed, stopped_drawn = run(early)
        saving.append(stopped / all_rounds)
        computed, drawn = stopped_computed / all_computed, stopped_drawn / all_drawn
        timed = Timed(early)
        elapsed, _, _ = run(timed.rule)
        overhead.append(timed.seconds / elapsed)
    return Results(_ratios(reuse), _ratios(saving), computed, drawn, _ratios(overhead))


def _ratios(found: Iterable[float]) -> Ratios:
    each = list(found)
    return Ratios(statistics.median(each), each)


def main() -> None:
    """Prints the results and writes JSON if asked to."""
    options = tyro.cli(Refinement)
    found = measure(options)
    load = os.getloadavg()[0]
    print(f"load {load:.1f}")
    for name, ratios in (
        ("without / with reuse", found.reuse),
        ("time, stopped early / all rounds", found.time),
        ("overhead of the rule", found.overhead),
    ):
        print(f"{name}: {ratios.median:.4f} ({min(ratios.each):.4f}-{max(ratios.each):.4f})")
    print(f"tokens computed, stopped early / all rounds: {found.computed:.4f}")
    print(f"tokens drawn, stopped early / all rounds: {found.drawn:.4f}")
    if options.json is not None:
        write_json(options.json, {"load": load, "options": asdict(options), **asdict(found)})


if __name__ == "__main__":
    main()
