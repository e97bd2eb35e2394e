"""Benchmarks from local files: GSM8K, MATH-500, AIME and AMC in their published fields.

Accepted are JSON Lines and Parquet. Case does not matter in names of fields:

    question | problem                     what is asked
    answer                                 the right answer, or a worked one that ends in "#### 42"
    solution                               read for its last box where there is no answer
    unique_id | id | problem_idx | index   the question's id; without one, its position
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from msjax.errors import InputError, require_extra
from msjax.tasks.benchmark import Benchmark, Question
from msjax.tasks.extract import canonical_math, extract_boxed, extract_math
from msjax.tasks.math_equal import equivalent
from msjax.tasks.prompts import find_template

__all__ = ["SUFFIXES", "load_benchmark"]

SUFFIXES = (".jsonl", ".parquet")
"""Kinds of files that can be loaded."""

_TEXT = ("question", "problem")
_ID = ("unique_id", "id", "problem_idx", "index")
_UNUSED = ("level", "problem_type", "source", "source_id", "subject", "type", "url", "year")
_KNOWN = (*_TEXT, "answer", "solution", *_ID, *_UNUSED)


def load_benchmark(path: Path | str, template: str | Path = "step-by-step") -> Benchmark:
    """A mathematical benchmark from a file, named like it; answers are graded by math-verify.

    Args:
        path: a .jsonl or .parquet file, one question per line or row.
        template: name or file of the prompts, see `find_template`.

    Raises:
        InputError: a file of another kind, absent, empty or torn, a field that is unknown, missing
            or of the wrong type, or an id that occurs twice; named with line, field and remedy.
    """
    path = Path(path)
    rows = _parquet_rows(path) if _suffix(path) == ".parquet" else _json_rows(path)
    found: dict[str, Question] = {}
    for index, (where, row) in enumerate(rows):
        question = _question(path.stem, index, where, row)
        if question.id in found:
            raise InputError(
                f"{where}: id {question.id!r} occurs a second time; every question needs its own"
            )
        found[question.id] = question
    if not found:
        raise InputError(f"{path}: empty, so there is nothing to ask; download it again")
    return Benchmark(
        name=path.stem,
        stream=tuple(found.values()).__iter__,
        extract=extract_math,
        same=equivalent,
        **asdict(find_template(template)),
    )


def _suffix(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: is no {' or '.join(SUFFIXES)} file; convert it to one of them")
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a {' or '.join(SUFFIXES)} file")
    return path.suffix.lower()


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
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


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    require_extra("parquet", "pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        problem = str(error).partition("\n")[0]
        raise InputError(f"{path}: no readable Parquet ({problem}); download it again") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


def _question(benchmark: str, index: int, where: str, row: dict[str, Any]) -> Question:
    fields: dict[str, Any] = {}
    for name, value in row.items():
        if name.lower() not in _KNOWN:
            raise InputError(
                f"{where}: field {name!r} is unknown; rename or remove it (known are "
                f"{', '.join(_KNOWN)})"
            )
        if name.lower() in fields:
            raise InputError(f"{where}: field {name!r} occurs twice; remove one")
        if value is not None:
            fields[name.lower()] = value
    asked = [name for name in _TEXT if name in fields]
    if len(asked) != 1:
        raise InputError(
            f"{where}: has {' and '.join(asked) or 'neither question nor problem'}; give exactly "
            f"one of the fields {' and '.join(_TEXT)}"
        )
    text = fields[asked[0]]
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: {asked[0]} is {text!r}; write the question as text")
    gold = _gold(where, fields)
    verify = partial(_is_right, gold)
    return Question(benchmark, _id(index, where, fields), text.strip(), gold, verify)


def _gold(where: str, fields: dict[str, Any]) -> str:
    if "answer" in fields:
        given = fields["answer"]
        nan = given != given
        if nan or isinstance(given, bool) or not isinstance(given, (str, int, float)):
            raise InputError(f"{where}: answer is {given!r}; write it as text or as a number")
        gold = str(given).rpartition("####")[2]
    else:
        gold = extract_boxed(str(fields.get("solution", ""))) or ""
    if not (canonical := canonical_math(gold)):
        raise InputError(
            f"{where}: answer is missing, and solution has no \\boxed{{...}}; add the right answer"
        )
    return canonical


def _id(index: int, where: str, fields: dict[str, Any]) -> str:
    for name in _ID:
        if name in fields:
            given = fields[name]
            if isinstance(given, bool) or not isinstance(given, (str, int)) or given == "":
                raise InputError(f"{where}: {name} is {given!r}; write text or an integer")
            return str(given)
    return f"{index:05d}"


def _is_right(gold: str, answer: str | None) -> bool:
    return answer is not None and equivalent(gold, answer)
