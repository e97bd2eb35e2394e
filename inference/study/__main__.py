"""Records the study as its plan says, from where it stopped.

    python -m inference.study --data FOLDER

Every stage goes on from the one before. Of a strategy that revises, the first rounds are recorded,
then what each model of the family predicts of the others is written down, then these are recorded
and the predictions scored. A kill loses the questions under way; the same command goes on.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from inference.study.judging import judge_runs
from inference.study.plan import PLAN, Batch, Plan, Strategy, read_plan
from inference.study.predictions import PREDICTIONS, predict_batch, score_batch
from inference.study.recordings import SHIPPED, label, recorded, restore, ship, working_file
from msjax.cli.output import keep_compiled
from msjax.data.trajectory import Trajectory
from msjax.errors import InputError
from msjax.llm.record import RunPlan, record_run
from msjax.rules.fixed import fixed_rounds, self_consistency

if TYPE_CHECKING:
    from msjax.llm.flax.engine import FlaxEngine


@dataclass(frozen=True)
class Study:
    """Record what the plan asks and is not recorded yet, predict, score, and ship.

    python -m inference.study --data FOLDER
    """

    data: Path | None = None
    """folder of others' recordings and questions, for benchmarks that are published"""
    work: Path = Path("build/study")
    """where recordings are written over time"""
    shipped: Path = SHIPPED
    """where recordings are put for others, compressed and without texts of questions"""
    predictions: Path = PREDICTIONS
    """where predictions and their scores are put"""
    plan: Path = PLAN
    """what to ask, in which order"""
    only: str = ""
    """only batches whose name (model.benchmark.strategy) contains this"""
    rows: int = 32
    """conversations that are decoded together; changes speed, not results"""

    def run(self) -> None:
        """All batches in order; what is recorded is shipped whatever ends this."""
        plan = read_plan(self.plan)
        batches = [batch for batch in plan.batches if self.only in batch.cell]
        if not batches:
            raise InputError(f"--only is {self.only!r}, which no batch's name contains")
        keep_compiled()
        engines, pace = Engines(plan.temperature, self.rows), _Pace(self.work)
        for batch in batches:
            task = plan.task(batch.benchmark, batch.strategy, self.data)
            restore(batch, task, self.work, self.shipped)
        try:
            for number, batch in enumerate(batches):
                print(
                    f"{batch} ({number + 1} of {len(batches)}): {pace.left(batches[number:])} left"
                )
                if (share := self._at_an_end(plan, batch)) is not None:
                    print(f"{batch}: not asked, since {share:.0%} of the first answers are right")
                    continue
                with pace.timed(batch):
                    self._record(plan, batch, engines)
        finally:
            ship(plan, self.work, self.shipped)

    def _at_an_end(self, plan: Plan, batch: Batch) -> float | None:
        """Share of right first answers where earlier batches show that revising has no room."""
        strategy = batch.strategy
        home = plan.strategies[strategy.first or strategy.judges or strategy.name]
        other = replace(batch, strategy=home)
        seen = recorded(working_file(self.work, other, early=bool(home.early)))[: batch.start]
        share = sum(run.correct[0] for run in seen) / len(seen) if seen else None
        settled = share is not None and not plan.floor <= share <= plan.ceiling
        return share if batch.start and settled else None

    def _record(self, plan: Plan, batch: Batch, engines: Engines) -> None:
        strategy = batch.strategy
        if strategy.judges:
            self._judge(plan, batch, engines)
            return
        begun = _first_answers(plan, batch, self.work)
        if strategy.early:
            early = self._stage(plan, batch, engines, strategy.early, begun, early=True)
            predict_batch(batch, early, self.predictions)
            begun = {(run.benchmark, run.question_id): run for run in early}
        rounds = strategy.samples - 1 if strategy.samples else strategy.rounds
        full = self._stage(plan, batch, engines, rounds, begun)
        if strategy.early:
            score_batch(batch, full, self.predictions)

    def _judge(self, plan: Plan, batch: Batch, engines: Engines) -> None:
        strategy = batch.strategy
        judged = replace(batch, strategy=plan.strategies[strategy.judges])
        task = plan.task(batch.benchmark, strategy, self.data)
        judge_runs(
            working_file(self.work, batch),
            recorded(working_file(self.work, judged)),
            task,
            task.questions(0, batch.stop),
            lambda: engines.load(batch.model, strategy.max_new_tokens),
            seed=plan.seed,
            settings=_settings(plan, strategy),
        )

    def _stage(
        self,
        plan: Plan,
        batch: Batch,
        engines: Engines,
        rounds: int,
        begun: dict[tuple[str, str], Trajectory],
        *,
        early: bool = False,
    ) -> list[Trajectory]:
        strategy = batch.strategy
        task = plan.task(batch.benchmark, strategy, self.data)
        rule = self_consistency(strategy.samples) if strategy.samples else fixed_rounds(rounds)
        return record_run(
            working_file(self.work, batch, early=early),
            RunPlan(
                model=batch.model,
                start=batch.start,
                count=batch.stop - batch.start,
                rounds=rounds,
                seed=plan.seed,
                parallel=strategy.samples > 0,
                settings=label(strategy, rounds) | _settings(plan, strategy),
            ),
            {task.name: rule},
            lambda: engines.load(batch.model, strategy.max_new_tokens),
            benchmarks={task.name: task},
            begun=begun,
        )


def _settings(plan: Plan, strategy: Strategy) -> dict[str, str | int | float | None]:
    """What all lines of a strategy have in common."""
    return {
        "strategy": strategy.name,
        "seed": plan.seed,
        "temperature": plan.temperature,
        "max_new_tokens": strategy.max_new_tokens,
    }


def _first_answers(plan: Plan, batch: Batch, work: Path) -> dict[tuple[str, str], Trajectory]:
    """First answers that another strategy has recorded, for those that begin with them."""
    if not batch.strategy.first:
        return {}
    strategy = plan.strategies[batch.strategy.first]
    other = replace(batch, strategy=strategy)
    runs = recorded(working_file(work, other, early=bool(strategy.early)))
    return {(run.benchmark, run.question_id): run.ended(1) for run in runs}


class Engines:
    """The engine of one model at a time: memory holds no more."""

    def __init__(self, temperature: float, rows: int) -> None:
        self._temperature, self._rows = temperature, rows
        self._loaded: tuple[str, int, FlaxEngine] | None = None

    def load(self, model: str, max_new_tokens: int) -> FlaxEngine:
        from msjax.llm.flax.engine import FlaxEngine

        if self._loaded is None or self._loaded[:2] != (model, max_new_tokens):
            self._loaded = None
            engine = FlaxEngine.load(
                model,
                batch_size=self._rows,
                max_new_tokens=max_new_tokens,
                temperature=self._temperature,
            )
            self._loaded = model, max_new_tokens, engine
        return self._loaded[2]


class _Pace:
    """Seconds per answer of each model in this call, for the time that is left."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._timed: dict[str, tuple[int, float]] = {}

    def left(self, batches: list[Batch]) -> str:
        """What the batches take, as far as their models have been timed."""
        todo = [(batch, self._unanswered(batch)) for batch in batches]
        known = [(self._timed[batch.model], n) for batch, n in todo if batch.model in self._timed]
        hours = sum(seconds / answers * n for (answers, seconds), n in known) / 3600
        untimed = sum(n for batch, n in todo if batch.model not in self._timed)
        rest = f"{untimed:,} answers whose pace is not known" if untimed else ""
        return " and ".join(filter(None, [f"about {hours:.1f} h" if known else "", rest]))

    @contextmanager
    def timed(self, batch: Batch) -> Iterator[None]:
        """Counts what is answered inside, and how long it takes."""
        before, start = self._unanswered(batch), time.monotonic()
        yield
        answers = before - self._unanswered(batch)
        if answers:
            known = self._timed.get(batch.model, (0, 0.0))
            self._timed[batch.model] = known[0] + answers, known[1] + time.monotonic() - start

    def _unanswered(self, batch: Batch) -> int:
        done = len(recorded(working_file(self._work, batch)))
        return max(0, batch.stop - max(batch.start, done)) * batch.strategy.answers


def main() -> None:
    """Records; exit status 2 for what cannot be asked, 130 where it was stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        tyro.cli(Study).run()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr, flush=True)
        os._exit(130)  # what is recorded is shipped; the answers under way would take minutes


if __name__ == "__main__":
    main()
