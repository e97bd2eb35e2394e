"""Where recordings lie: whole in the working folder, without texts of questions where they ship."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from inference.study.plan import Batch, Plan, Strategy
from msjax._io import write_bytes, write_text
from msjax.data.store import read_compressed, read_runs
from msjax.data.trajectory import Trajectory
from msjax.errors import InputError
from msjax.tasks.benchmark import Question, Task

__all__ = ["SHIPPED", "label", "recorded", "restore", "ship", "working_file"]

SHIPPED = Path(__file__).parents[2] / "msjax" / "recorded" / "study"


def working_file(work: Path, batch: Batch, *, early: bool = False) -> Path:
    """Where a cell is recorded, or the rounds of it that come before the prediction."""
    return work / f"{batch.cell}{'.early' if early else ''}.jsonl"


def label(strategy: Strategy, rounds: int) -> dict[str, str | int | float | None]:
    """Settings that say how long the runs of a strategy are."""
    if strategy.samples:
        return {"rule": f"samples: {strategy.samples}", "rounds": None}
    return {"rule": f"fixed: {rounds}", "rounds": rounds}


def recorded(path: Path) -> list[Trajectory]:
    """The runs of a file; none if it is not there."""
    return read_runs(path) if path.exists() else []


def ship(plan: Plan, work: Path, shipped: Path) -> None:
    """Writes what the working folder holds into the package, compressed and without the texts.

    In place of a question's text stands its SHA-256, in place of the right answer nothing. Rounds
    before the prediction are dropped once their runs went on to the end. What ships of cells that
    the working folder does not hold stays as it is.
    """
    for batch in {batch.cell: batch for batch in plan.batches}.values():
        full = recorded(working_file(work, batch))
        done = {run.question_id for run in full}
        early = [
            run
            for run in recorded(working_file(work, batch, early=True))
            if run.question_id not in done
        ]
        for name, runs in ((batch.cell, full), (f"{batch.cell}.early", early)):
            target = shipped / f"{name}.jsonl.gz"
            if not runs:
                if full:  # so the runs that were under way have gone on to the end
                    target.unlink(missing_ok=True)
                continue
            lines = "".join(_without_texts(run).model_dump_json() + "\n" for run in _sorted(runs))
            data = gzip.compress(lines.encode(), compresslevel=9, mtime=0)
            if not target.exists() or target.read_bytes() != data:
                write_bytes(target, data)


def restore(batch: Batch, task: Task, work: Path, shipped: Path) -> None:
    """Makes the working files of a cell from what ships, where they are not there.

    Raises:
        InputError: a question is not the one whose answers ship.
    """
    files = {early: working_file(work, batch, early=early) for early in (True, False)}
    held = {
        early: read_compressed(path)
        for early in files
        if (path := shipped / f"{batch.cell}{'.early' if early else ''}.jsonl.gz").exists()
    }
    full, early_runs = held.get(False, []), held.get(True, [])
    if rounds := batch.strategy.early:
        early_runs += [_cut(run, batch.strategy, rounds) for run in full]
    questions: dict[str, Question] = {}
    if full or early_runs:
        questions = {q.id: q for q in task.questions(0, batch.stop)}
    for early, runs in ((True, early_runs), (False, full)):
        if runs and not files[early].exists():
            lines = [_with_texts(run, questions).model_dump_json() + "\n" for run in _sorted(runs)]
            write_text(files[early], "".join(lines))


def _cut(run: Trajectory, strategy: Strategy, rounds: int) -> Trajectory:
    """A run as its first rounds were recorded."""
    settings = run.settings | label(strategy, rounds)
    return run.ended(rounds + 1, settings=settings, returned=rounds)


def _sorted(runs: Iterable[Trajectory]) -> Sequence[Trajectory]:
    return sorted(runs, key=lambda run: (len(run.question_id), run.question_id))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _without_texts(run: Trajectory) -> Trajectory:
    metadata = run.metadata | {"question_sha256": _hash(run.question)}
    return run.model_copy(update={"question": "", "gold": "", "metadata": metadata})


def _with_texts(run: Trajectory, questions: dict[str, Question]) -> Trajectory:
    question = questions.get(run.question_id)
    if question is None or _hash(question.text) != run.metadata["question_sha256"]:
        raise InputError(
            f"question {run.question_id} of {run.benchmark} is not the one whose answers were "
            "recorded; give the same file of questions with --data"
        )
    metadata = {name: x for name, x in run.metadata.items() if name != "question_sha256"}
    return run.model_copy(
        update={"question": question.text, "gold": question.gold, "metadata": metadata}
    )
