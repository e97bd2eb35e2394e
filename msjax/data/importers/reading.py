"""Recorded runs from whatever holds them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from msjax.data.importers.lm_eval import is_lm_eval, records_of_lm_eval
from msjax.data.importers.rows import records_of_rows
from msjax.data.importers.served import is_served, records_of_served
from msjax.data.runs import Runs
from msjax.data.store import read_runs
from msjax.data.trajectory import Trajectory
from msjax.tasks.samples import rows_of
from msjax.tasks.scorers import Scorer

__all__ = ["Import", "import_records", "read"]

Source = Path | str | Iterable[Mapping[str, Any]]


@dataclass
class Import:
    """What was read.

    Attributes:
        records: the trajectories.
        notes: what was guessed or left out, in words.
    """

    records: list[Trajectory] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(
    *sources: Source,
    columns: Mapping[str, str] | None = None,
    scorer: str | Scorer = "math",
    benchmark: str | None = None,
    model: str = "model",
) -> Runs:
    """Runs from files of trajectories, tables of answers, lm-eval samples, dictionaries.

    Args:
        sources: JSON Lines of trajectories (as `msjax run` writes) or of rows, CSV, JSON, Parquet,
            what `msjax serve` wrote, lm-eval samples, lists of dictionaries, or data frames; rows
            hold one answer each (see docs/data.md).
        columns: for fields of rows the names of their columns, such as {"correct": "is_right"}.
        scorer: grades answers of rows that have a gold answer and no label.
        benchmark: for rows that do not name one; the name of the file if None.
        model: for rows that do not name one.

    Raises:
        InputError: a file that is absent, empty, torn or of another kind, columns that are missing
            (all are named at once), a question that occurs twice, or values of the wrong kind, with
            file, line and remedy.
    """
    found = [
        import_records(source, columns=columns, scorer=scorer, benchmark=benchmark, model=model)
        for source in sources
    ]
    return Runs.from_records(record for one in found for record in one.records)


def import_records(
    source: Source,
    *,
    columns: Mapping[str, str] | None = None,
    scorer: str | Scorer = "math",
    benchmark: str | None = None,
    model: str = "model",
) -> Import:
    """The trajectories of one source, and what was guessed; see `read`."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        if _holds_trajectories(path):
            return Import(read_runs(path))
        name = benchmark or path.stem
    else:
        name = benchmark or "benchmark"
    rows = iter(rows_of(source))
    first = next(rows, None)
    whole = rows if first is None else chain([first], rows)
    if first is not None and is_lm_eval(first[1]):
        if benchmark is None and name.startswith("samples_"):
            name = name.removeprefix("samples_").rpartition("_")[0] or name
        records, notes = records_of_lm_eval(whole, benchmark=name, model=model, scorer=scorer)
        return Import(records, notes)
    if first is not None and is_served(first[1]):
        return Import(*records_of_served(whole, benchmark=name))
    records = records_of_rows(whole, columns=columns, scorer=scorer, benchmark=name, model=model)
    return Import(records, _notes(records, first))


def _holds_trajectories(path: Path) -> bool:
    """Whether a file is one of ours, or should be: what cannot be told is read as such."""
    if path.suffix.lower() in (".csv", ".parquet", ".json"):
        return False
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline().removeprefix(b"\xef\xbb\xbf"))
    except (OSError, ValueError):
        return True
    if not isinstance(first, dict):
        return True
    if is_lm_eval(first) or is_served(first):
        return False
    ours = {"version", "protocol", "stop_reason", "censored", "answers", "completions"}
    return bool(ours & set(first)) or isinstance(first.get("correct"), list)


def _notes(records: Sequence[Trajectory], first: Any) -> list[str]:
    kinds = {record.protocol for record in records}
    notes = [
        "answers of a question are read as "
        + ("independent samples" if kinds == {"parallel"} else "rounds of revision")
    ]
    if first is not None and all(
        usage.uncached is None for record in records for usage in record.tokens
    ):
        notes.append("tokens are not reported, so costs and savings are not identified")
    return notes
