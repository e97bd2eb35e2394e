"""Recorded runs from whatever holds them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from msjax._io import require_file
from msjax.data.columns import read_columns
from msjax.data.importers.inspect_ai import is_inspect, records_of_inspect
from msjax.data.importers.lm_eval import is_lm_eval, records_of_lm_eval
from msjax.data.importers.rows import records_of_rows
from msjax.data.importers.served import is_served, records_of_served
from msjax.data.runs import Runs
from msjax.data.store import read_runs
from msjax.data.trajectory import Trajectory
from msjax.errors import InputError
from msjax.tasks.samples import SUFFIXES, rows_of
from msjax.tasks.scorers import Scorer

__all__ = ["Import", "files_of", "import_records", "read"]

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
    filter: str | None = None,
    metric: str | None = None,
) -> Runs:
    """Runs from files of trajectories, tables of answers, lm-eval samples, dictionaries.

    Args:
        sources: JSON Lines of trajectories (as `msjax run` writes) or of rows, CSV, JSON, Parquet,
            what `msjax serve` wrote, lm-eval samples, logs of inspect_ai, lists of dictionaries, or
            data frames; rows hold one answer each, or lists of them (see docs/data.md). Folders and
            patterns such as "runs/*.jsonl" stand for the files in them.
        columns: for fields of rows the names of their columns, such as {"correct": "is_right"}.
        scorer: grades answers of rows that have a gold answer and no label.
        benchmark: for rows that do not name one; the name of the file if None.
        model: for rows that do not name one.
        filter: of lm-eval's filters, which one to read; the first if None.
        metric: of lm-eval's metrics, or of inspect_ai's scorers, which one is the label; the first
            if None.

    Raises:
        InputError: a file that is absent, empty, torn or of another kind, columns that are missing
            (all are named at once), a question that occurs twice, or values of the wrong kind, with
            file, line and remedy.
    """
    known: dict[str, Any] = {"columns": columns, "scorer": scorer, "filter": filter}
    known |= {"benchmark": benchmark, "model": model, "metric": metric}
    found: list[Runs] = []
    for source in chain.from_iterable(map(files_of, sources)):
        if isinstance(source, Path) and not is_inspect(source) and _holds_trajectories(source):
            found.append(read_columns(source))
        else:
            found.append(Runs.from_records(import_records(source, **known).records))
    if not found:
        raise InputError("sources: none given; name files of recorded runs")
    return Runs.joined(found)


def files_of(source: Source) -> Iterable[Any]:
    """A folder or a pattern stands for the files in it, in the order of their names.

    Raises:
        InputError: there are none.
    """
    if not isinstance(source, (str, Path)):
        return [source]
    path = Path(source)
    require_file(path)
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES]
    elif not path.exists() and set(path.name) & set("*?["):
        files = list(path.parent.glob(path.name))
    else:
        return [path]
    if not files:
        raise InputError(f"{path}: there is no file of recorded runs; name one, or a folder")
    return sorted(files)


def import_records(
    source: Source,
    *,
    columns: Mapping[str, str] | None = None,
    scorer: str | Scorer = "math",
    benchmark: str | None = None,
    model: str = "model",
    filter: str | None = None,
    metric: str | None = None,
) -> Import:
    """The trajectories of one source, and what was guessed; see `read`."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file of recorded runs in it")
        if is_inspect(path):
            return Import(
                *records_of_inspect(
                    path,
                    benchmark=benchmark,
                    model=None if model == "model" else model,
                    metric=metric,
                    scorer=scorer,
                )
            )
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
        records, notes = records_of_lm_eval(
            whole, benchmark=name, model=model, filter=filter, metric=metric, scorer=scorer
        )
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
    except (OSError, ValueError, RecursionError):
        return True
    if not isinstance(first, dict):
        return True
    if is_lm_eval(first) or is_served(first):
        return False
    if isinstance(first.get("correct"), list):
        return "version" in first or set(first) <= set(Trajectory.model_fields)
    ours = {"version", "protocol", "stop_reason", "censored", "answers", "completions"}
    return bool(ours & set(first))


def _notes(records: Sequence[Trajectory], first: Any) -> list[str]:
    kinds = {record.protocol for record in records}
    notes = [
        "answers of a question are read as "
        + ("independent samples" if kinds == {"parallel"} else "rounds of revision")
    ]
    counts = {len(record.correct) for record in records}
    if kinds == {"parallel"} and len(counts) > 1:
        fewer = sum(len(record.correct) < max(counts) for record in records)
        notes.append(f"{fewer} of {len(records)} questions have fewer than {max(counts)} samples")
    if first is not None and all(
        usage.uncached is None for record in records for usage in record.tokens
    ):
        notes.append("tokens are not reported, so costs and savings are not identified")
    return notes
