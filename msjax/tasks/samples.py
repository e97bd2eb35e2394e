"""Samples: questions with their right answers, from files and from memory.

Accepted are CSV, JSON Lines, JSON (a list of objects), Parquet, lists of dictionaries and data
frames. Unless they are named, fields are recognised, whatever their case:

    question | problem                     what is asked
    answer | target | gold                 the right answer, or a worked one that ends in "#### 42"
    solution                               read for its last box where there is no answer
    unique_id | id | problem_idx | index   the question's id; without one, its position

All other fields are kept as metadata.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msjax._io import reading
from msjax.data.json_lines import without_repeats
from msjax.errors import InputError, require_extra
from msjax.tasks.characters import writable, writable_value
from msjax.tasks.extract import last_box

__all__ = ["SUFFIXES", "Sample", "Samples", "json_rows", "rows_of", "samples"]

SUFFIXES = (".jsonl", ".parquet", ".csv", ".json")
"""Kinds of files that can be loaded."""

_QUESTION = ("question", "problem")
_TARGET = ("answer", "target", "gold")
_ID = ("unique_id", "id", "problem_idx", "index")


@dataclass(frozen=True)
class Sample:
    """One question and its right answer.

    Attributes:
        id: different for every sample.
        question: what is asked.
        target: the right answer, as it was given.
        where: file and line, for messages.
        metadata: all other fields.
    """

    id: str
    question: str
    target: Any
    where: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """Questions with their right answers, in order.

    Attributes:
        name: of the file, or as it was given.
        items: the samples.
    """

    name: str
    items: tuple[Sample, ...]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def samples(
    source: str | Path | Iterable[Mapping[str, Any]],
    *,
    question: str | None = None,
    target: str | None = None,
    id: str | None = None,
    name: str | None = None,
) -> Samples:
    """Questions with their right answers, from a file, a list of dictionaries or a data frame.

    Args:
        source: a .csv, .jsonl, .json or .parquet file, dictionaries, or a data frame.
        question: name of the field that holds what is asked; None: a known one, see above.
        target: name of the field that holds the right answer; None: a known one.
        id: name of the field that holds an id; None: a known one, else the position.
        name: of all of them; None: that of the file, or "samples".

    Raises:
        InputError: a file of another kind, absent, empty or torn, a field that is missing, in doubt
            or of the wrong type, or an id that occurs twice; named with line, field and remedy.
    """
    rows = rows_of(source)
    origin = str(source) if isinstance(source, (str, Path)) else "samples"
    name = name or Path(origin).stem
    mapping = {"question": question, "target": target, "id": id}
    found: dict[str, Sample] = {}
    for position, (where, row) in enumerate(rows):
        sample = _sample(position, where, row, mapping)
        if sample.id in found:
            raise InputError(
                f"{where}: id {sample.id!r} occurs a second time; every question needs its own"
            )
        found[sample.id] = sample
    if not found:
        raise InputError(f"{origin}: empty, so there is nothing to ask; download it again")
    return Samples(name, tuple(found.values()))


def rows_of(
    source: str | Path | Iterable[Mapping[str, Any]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file, of dictionaries or of a data frame, each with its place for messages.

    Raises:
        InputError: a file of another kind, absent, torn, or with a field that occurs twice.
    """
    if isinstance(source, (str, Path)):
        rows = _READ[_suffix(Path(source))](Path(source))
    else:
        to_dict = getattr(source, "to_dict", None)  # of a data frame
        rows = _rows_in_memory(source if to_dict is None else to_dict("records"))
    return ((where, writable_value(row)) for where, row in rows)


def _rows_in_memory(source: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in enumerate(source, 1):
        if not isinstance(row, Mapping):
            raise InputError(f"row {number}: is {row!r}; give dictionaries with named fields")
        yield f"row {number}", dict(row)


def _suffix(path: Path) -> str:
    kinds = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: is no {kinds} file; convert it to one of them")
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a {kinds} file")
    return path.suffix.lower()


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, each with its place for messages.

    Raises:
        InputError: a file that cannot be read, or a line that is no object, is torn, or has a
            field twice.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=without_repeats)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except (ValueError, RecursionError) as error:
            torn = number == len(lines) and not line.endswith(b"\n")
            problem = "torn" if torn else "not JSON in UTF-8"
            raise InputError(
                f"{where}: {problem} ({error}); download the file again or remove the line"
            ) from None
        if not isinstance(row, dict):
            raise InputError(
                f"{where}: is {line[:40]!r}; write one object with named fields per line"
            )
        yield where, row


def _json_list(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        rows = json.loads(path.read_bytes(), object_pairs_hook=without_repeats)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON in UTF-8 ({error}); download it again") from None
    if isinstance(rows, dict):
        raise InputError(
            f"{path}: holds one JSON object, such as a command writes with --json; give a list of "
            "objects, one per question or answer, or the recorded runs themselves"
        )
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: is no list of objects; write one object per question")
    for number, row in enumerate(rows, 1):
        yield f"{path}, item {number}", row


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            header = next(reader, [])
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise InputError(f"{path}, line 1: column {twice!r} occurs twice; rename one")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if not row:
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{where}: has {len(row)} cells for {len(header)} columns; quote what "
                        "holds a comma"
                    )
                yield where, {name: cell or None for name, cell in zip(header, row, strict=True)}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not CSV in UTF-8 ({error}); save it again") from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    require_extra("parquet", "pyarrow")
    import pyarrow.parquet as pq

    with reading(path, "give a Parquet file, or download it again"):
        rows = pq.read_table(path).to_pylist()
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


_READ = {
    ".jsonl": json_rows,
    ".json": _json_list,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


def _sample(
    position: int, where: str, row: dict[str, Any], mapping: Mapping[str, str | None]
) -> Sample:
    fields = _lower(where, row)
    asked, text = _field(where, row, fields, mapping["question"], _QUESTION, "question")
    if asked is None:
        raise InputError(
            f"{where}: has neither question nor problem; give exactly one of the fields "
            f"{' and '.join(_QUESTION)}, or say which field holds the question"
        )
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: {asked} is {text!r}; write the question as text")
    answer, given = _field(where, row, fields, mapping["target"], _TARGET, "target")
    if answer is None and mapping["target"] is None and isinstance(fields.get("solution"), str):
        answer, given = "solution", last_box(fields["solution"])
    missing = isinstance(given, str) and not given.rpartition("####")[2].strip()
    if given is None or missing:
        raise InputError(
            f"{where}: answer is missing, and solution has no \\boxed{{...}}; add the right answer"
        )
    named, label = _field(where, row, fields, mapping["id"], _ID, "id", several=True)
    if named is None:
        identity = f"{position:05d}"
    elif isinstance(label, bool) or not isinstance(label, (str, int)) or label == "":
        raise InputError(f"{where}: {named} is {label!r}; write text or an integer")
    else:
        identity = writable(str(label))
    used = {one for one in (asked, answer, named) if one is not None}
    metadata = {key: value for key, value in row.items() if key not in used}
    given = writable(given) if isinstance(given, str) else given
    return Sample(identity, writable(text).strip(), given, where, metadata)


def _lower(where: str, row: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in row.items():
        low = str(name).lower()
        if low in fields and low in (*_QUESTION, *_TARGET, *_ID, "solution"):
            raise InputError(f"{where}: field {low!r} occurs twice; remove one")
        if value is not None:
            fields[low] = value
    return fields


def _field(
    where: str,
    row: dict[str, Any],
    fields: dict[str, Any],
    wanted: str | None,
    known: tuple[str, ...],
    what: str,
    several: bool = False,
) -> tuple[str | None, Any]:
    """The name that a field has in its row, and its value; None, None if it is not there."""
    if wanted is not None:
        if wanted not in row:
            raise InputError(
                f"{where}: has no field {wanted!r}, which was to hold the {what}; there are "
                f"{', '.join(map(repr, row))}"
            )
        return wanted, row[wanted]
    names = [name for name in known if name in fields]
    if len(names) > 1 and not several:
        raise InputError(
            f"{where}: has {' and '.join(names)}; give exactly one of them, or say which holds the "
            f"{what}"
        )
    if not names:
        return None, None
    original = next(name for name in row if str(name).lower() == names[0])
    return original, fields[names[0]]
