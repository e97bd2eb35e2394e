"""What the study asks, in which order: `plan.toml`, read and checked."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msjax.errors import InputError
from msjax.tasks.benchmark import Task
from msjax.tasks.prompts import Template, find_template
from msjax.tasks.registry import find_task

__all__ = ["PLAN", "Batch", "Plan", "Strategy", "read_plan"]

PLAN = Path(__file__).with_name("plan.toml")
_PROMPTS = Path(__file__).with_name("prompts")


@dataclass(frozen=True)
class Strategy:
    """How a question is asked.

    Attributes:
        name: as the plan calls it.
        prompts: name of a file in `prompts/`, without its suffix.
        max_new_tokens: most tokens of an answer.
        rounds: of revision.
        samples: independent ones in place of rounds; 0: rounds.
        early: rounds that are recorded before the rest of them is predicted; 0: nothing is.
        first: strategy whose first answers these are too; empty: its own.
        judges: strategy of whose answers the model says whether they are right; empty: none.
    """

    name: str
    prompts: str
    max_new_tokens: int
    rounds: int = 0
    samples: int = 0
    early: int = 0
    first: str = ""
    judges: str = ""

    @property
    def template(self) -> Template:
        """The prompts."""
        return find_template(_PROMPTS / f"{self.prompts}.toml")

    @property
    def answers(self) -> int:
        """That every question gets."""
        return self.samples or self.rounds + 1


@dataclass(frozen=True)
class Batch:
    """Questions start .. stop - 1 of a benchmark, put to a model by one strategy."""

    model: str
    benchmark: str
    strategy: Strategy
    start: int
    stop: int

    @property
    def cell(self) -> str:
        """Model, benchmark and strategy, as files are called."""
        return f"{self.model}.{self.benchmark}.{self.strategy.name}"

    def __str__(self) -> str:
        return f"{self.cell} {self.start}-{self.stop - 1}"


@dataclass(frozen=True)
class Plan:
    """All of it.

    Attributes:
        seed, temperature: of all sampling.
        floor, ceiling: a cell whose first answers are right less or more often than this stops
            after its first batch.
        benchmarks: what they are called, and their file beneath the folder of data, or their own
            name where they are made on the spot.
        strategies: by name.
        batches: in the order in which they are recorded.
    """

    seed: int
    temperature: float
    floor: float
    ceiling: float
    benchmarks: dict[str, str]
    strategies: dict[str, Strategy]
    batches: tuple[Batch, ...]

    def task(self, benchmark: str, strategy: Strategy, data: Path | None) -> Task:
        """A benchmark's questions in the words of a strategy.

        Raises:
            InputError: its file is not in `data`.
        """
        source = self.benchmarks[benchmark]
        if not source.endswith(".jsonl"):
            return find_task(source).asked_with(strategy.template)
        if data is None or not (data / source).is_file():
            raise InputError(
                f"{benchmark}: its questions, {source}, are not in {data or 'any folder named'}; "
                "give the folder that holds them with --data"
            )
        return find_task(data / source).asked_with(strategy.template)


def read_plan(path: Path = PLAN) -> Plan:
    """The plan of a file.

    Raises:
        InputError: a field that is missing, unknown or of another type; a name that is not
            declared; or a strategy that begins with the answers of one with other first prompts.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
        strategies = {
            name: Strategy(name, **fields) for name, fields in entries["strategies"].items()
        }
        plan = Plan(
            seed=entries["seed"],
            temperature=entries["temperature"],
            floor=entries["floor"],
            ceiling=entries["ceiling"],
            benchmarks=dict(entries["benchmarks"]),
            strategies=strategies,
            batches=(),
        )
        records: list[dict[str, Any]] = entries["record"]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no plan of the study ({error}); mend it") from None
    for strategy in strategies.values():
        _check_strategy(path, strategy, strategies)
    asked: dict[tuple[str, str, str], int] = {}
    batches = []
    for number, record in enumerate(records, 1):
        where = f"{path}: record {number}"
        if set(record) != {"model", "benchmark", "strategy", "questions"}:
            raise InputError(f"{where}: give model, benchmark, strategy and questions, no more")
        for field, known in (("benchmark", plan.benchmarks), ("strategy", strategies)):
            if record[field] not in known:
                raise InputError(
                    f"{where}: {field} {record[field]!r} is not declared; known are "
                    f"{', '.join(known)}"
                )
        key = record["model"], record["benchmark"], record["strategy"]
        start, stop = asked.get(key, 0), record["questions"]
        if type(stop) is not int or stop <= start:
            raise InputError(
                f"{where}: questions is {stop!r}, the number up to which they are asked; it must "
                f"exceed {start}"
            )
        asked[key] = stop
        batches.append(Batch(*key[:2], strategies[key[2]], start, stop))
        needed = strategies[key[2]].first or strategies[key[2]].judges
        if needed and asked.get((*key[:2], needed), 0) < stop:
            raise InputError(
                f"{where}: strategy {key[2]!r} needs the answers of {needed!r}, which asks fewer "
                f"than {stop} questions before it; put that first"
            )
    return replace(plan, batches=tuple(batches))


def _check_strategy(path: Path, strategy: Strategy, known: dict[str, Strategy]) -> None:
    where = f"{path}: strategy {strategy.name!r}"
    if strategy.samples and strategy.rounds:
        raise InputError(f"{where}: has rounds and samples; give one of them")
    if strategy.early and not strategy.early < strategy.rounds:
        raise InputError(
            f"{where}: early is {strategy.early} of {strategy.rounds} rounds, which leaves none to "
            "predict"
        )
    template = strategy.template
    if strategy.judges and (strategy.judges not in known or strategy.first or strategy.rounds):
        raise InputError(
            f"{where}: judges {strategy.judges!r}, which must be declared, and no more"
        )
    if not strategy.first:
        return
    if strategy.first not in known:
        raise InputError(f"{where}: first {strategy.first!r} is not declared")
    other = known[strategy.first]
    same = (template.system, template.first_prompt, strategy.max_new_tokens) == (
        other.template.system,
        other.template.first_prompt,
        other.max_new_tokens,
    )
    if not same:
        raise InputError(
            f"{where}: begins with the answers of {strategy.first!r}, which asks in other words or "
            "for longer answers; make system, first_prompt and max_new_tokens the same"
        )
