"""Ask a task of an engine, under a stopping rule, and get the runs."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.llm.engine import Engine
from msjax.llm.judge import Judge
from msjax.llm.record import RunPlan, record_run
from msjax.llm.scores import Scorer, token_logprob
from msjax.rules.fixed import fixed_rounds, self_consistency
from msjax.rules.protocol import StoppingRule
from msjax.tasks.registry import Task

__all__ = ["run"]


def run(
    task: Task,
    engine: Engine,
    *,
    rule: StoppingRule | None = None,
    rounds: int = 3,
    samples: int | None = None,
    questions: int | None = None,
    start: int = 0,
    seed: int = 0,
    score: Scorer = token_logprob,
    judge: Judge | None = None,
    out: Path | str | None = None,
    settings: dict[str, str | int | float | None] | None = None,
) -> Runs:
    """Ask questions, let the engine revise its answers until the rule stops, and grade them.

    Args:
        task: the questions, prompts and grader.
        engine: what answers.
        rule: decides after every answer whether to go on, without seeing a label; None always asks
            for all rounds, or all samples.
        rounds: most rounds of revision after the first answer.
        samples: ask for this many independent samples of each question instead of revisions.
        questions: how many to ask; all from `start` on if None, at most 10,000.
        start: the first question.
        seed: of all sampling; a question's key depends on it and on the question, on nothing else.
        score: of each answer, for the rule and for the record.
        judge: says whether each answer is accepted: "self" for the engine's own model, or a
            function of question and completion (`msjax.llm.judge`).
        out: JSON Lines file to write as questions finish, and to resume; None keeps nothing.
        settings: what is recorded with every line, and must be the same to resume.

    Raises:
        InputError: fewer questions than that, rounds or samples out of range, or a file recorded
            with other settings.
    """
    budget = rounds if samples is None else samples - 1
    stop = rule
    if stop is None:
        stop = fixed_rounds(budget) if samples is None else self_consistency(samples)
    plan = RunPlan(
        model=engine.name,
        start=start,
        count=_number(task, start) if questions is None else questions,
        rounds=budget,
        seed=seed,
        settings={"rounds": budget, "seed": seed} | (settings or {}),
        parallel=samples is not None,
    )
    with tempfile.TemporaryDirectory() if out is None else nullcontext() as folder:
        path = Path(folder) / "runs.jsonl" if folder is not None else Path(str(out))
        found = record_run(
            path,
            plan,
            {task.name: stop},
            lambda: engine,
            benchmarks={task.name: task},
            score=score,
            judge=judge,
        )
    return Runs.from_records(found)


_MOST = 10_000


def _number(task: Task, start: int) -> int:
    """Questions from `start` on."""
    number = sum(1 for _ in islice(task.stream(), start, start + _MOST + 1))
    if number > _MOST:
        raise InputError(f"{task.name} has over {_MOST:,} questions; say how many with questions=")
    return number
