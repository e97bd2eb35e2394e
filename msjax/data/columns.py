"""Recorded runs from files straight into arrays, so that millions of lines fit in memory.

What the arrays do not hold (questions, answers and completions as texts) stays in the files, and is
read again for the few runs of which it is shown.
"""

from __future__ import annotations

import sys
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Int
from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    TypeAdapter,
    ValidationError,
)
from typing_extensions import TypedDict

from msjax.data.column_cache import LEAST, keep, kept
from msjax.data.column_process import Block, columns_of_blocks, processors
from msjax.data.details import Details, Table, hashed_all, hashed_texts
from msjax.data.runs import MISSING, Runs, answer_ids
from msjax.data.store import run_lines
from msjax.data.trajectory import (
    ROUNDING,
    Protocol,
    StopReason,
    StoredScore,
    Trajectory,
    parse_trajectory,
    range_of_scores,
)
from msjax.data.usage import MOST_TOKENS

__all__ = ["StoredRecords", "read_columns"]

LINES = 2_000  # with many more, collecting garbage takes longer than reading
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None
_Setting = str | int | float | None


class _Account(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    prompt: _Tokens
    cached: _Tokens
    completion: _Tokens
    verifier: _Tokens
    total: _Tokens


class _NeverAbsent(TypedDict):
    question_id: str
    correct: list[bool]


class _Line(_NeverAbsent, total=False):
    """A line as `Trajectory` has it, without an object for it and for each of its accounts."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    version: Literal[1]
    model: str
    benchmark: str
    repeat: NonNegativeInt
    protocol: Protocol
    question: str
    gold: str
    answers: list[str | None]
    scores: list[StoredScore | None]
    verdicts: list[bool | None]
    votes: list[list[bool | None]]
    tokens: list[_Account]
    completions: list[str]
    finish: list[str | None]
    stop_reason: StopReason
    censored: bool
    key: str
    settings: dict[str, _Setting]
    returned: NonNegativeInt | None
    cluster: str | None
    metadata: dict[str, JsonValue]


_LINE = TypeAdapter(_Line)


class StoredRecords(Sequence[Trajectory]):
    """The trajectories of a file, each read when it is asked for.

    Args:
        path: of the file.
        starts: where each line begins, in bytes; the last entry is the end.
    """

    def __init__(self, path: Path, starts: Int[np.ndarray, " line_and_end"]) -> None:
        self._path, self._starts = path, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        i = range(len(self))[i]
        start, end = (int(x) for x in self._starts[i : i + 2])
        with self._path.open("rb") as file:
            file.seek(start)
            return parse_trajectory(f"{self._path}, line {i + 1}", file.read(end - start))


def read_columns(path: Path, block: int = LINES) -> Runs:
    """The runs of a JSON Lines file of trajectories, without what is text in memory.

    Args:
        path: of the file.
        block: lines that are held as texts at a time.

    Raises:
        InputError: as `msjax.data.store.read_runs`.
    """
    if (found := kept(path)) is not None:
        runs, starts = found
        return runs.stored(StoredRecords(path, starts))
    lines, sizes = run_lines(path), [0]

    def blocks() -> Iterator[Block]:
        while held := list(islice(lines, block)):
            first = len(sizes)
            sizes.extend(map(len, held))
            yield Block(path, first, held)

    several = processors() if path.exists() and path.stat().st_size >= LEAST else 1
    if several > 1:
        parts = columns_of_blocks(blocks(), several)
    else:
        parts = list(map(columns_of, blocks()))
    starts = np.cumsum(sizes)
    runs = Runs.joined(parts).stored(StoredRecords(path, starts))
    keep(path, runs, starts)
    return runs


class _OddError(Exception):
    """A line needs a closer look; the argument is its number in the block."""


def columns_of(block: Block) -> Runs:
    """The runs of some lines.

    Raises:
        InputError: a line is no trajectory, named by its number.
    """
    path, first, lines = block
    rows = [
        _row(f"{path}, line {number}", line.removeprefix(BOM_UTF8))
        for number, line in enumerate(lines, first)
    ]
    try:
        return _runs(rows)
    except _OddError as error:
        (odd,) = error.args
        parse_trajectory(f"{path}, line {first + odd}", lines[odd])
        raise AssertionError(f"line {first + odd} is refused as a column alone") from None


def _row(where: str, line: bytes) -> Any:
    try:
        row = _LINE.validate_json(line)
    except ValidationError:
        return parse_trajectory(where, line).model_dump(exclude_unset=True)
    odd = row.get("metadata") and (b"NaN" in line or b"Infinity" in line)
    if odd or _fields(line) != _fields_of(row):
        parse_trajectory(where, line)  # which refuses a field that occurs twice, and no number
    return row


def _fields(line: bytes) -> int:
    r"""How many fields an object has, those of its parts included; -1 where that takes more.

    In a text a quotation mark is escaped, so that one before a colon ends a field's name.
    """
    if b"\\" not in line:
        spaced = b'" ' in line or b'"\t' in line or b'"\r' in line
        return -1 if spaced else line.count(b'":')
    spaced = line.count(b'" ') != line.count(b'\\" ') or b'"\t' in line or b'"\r' in line
    return -1 if spaced else line.count(b'":') - line.count(b'\\":')


def _fields_of(row: Any) -> int:
    found = len(row) + sum(map(len, row.get("tokens", ()))) + len(row.get("settings", ()))
    return found + (_fields_within(row["metadata"]) if row.get("metadata") else 0)


def _fields_within(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_fields_within, value.values()))
    return sum(map(_fields_within, value)) if isinstance(value, list) else 0


def _runs(rows: list[Any]) -> Runs:
    """The arrays of some lines; `_OddError` for one that is no trajectory after all."""
    labels = [row["correct"] for row in rows]
    lengths = np.fromiter(map(len, labels), int, len(rows))
    if not lengths.all():
        raise _OddError(int(np.argmin(lengths)))
    real = np.arange(lengths.max()) < lengths[:, None]
    owner = np.repeat(np.arange(len(rows)), lengths)

    def every(name: str, absent: Any) -> list[Any]:
        """The entries of all answers, one after the other."""
        found: list[Any] = []
        for i, (row, size) in enumerate(zip(rows, labels, strict=True)):
            values = row.get(name)
            if not values:
                found += [absent] * len(size)
            elif len(values) == len(size):
                found += values
            else:
                raise _OddError(i)
        return found

    def placed(values: Any, fill: Any, kind: Any) -> np.ndarray:
        found = np.full(real.shape, fill, kind)
        found[real] = values
        return found

    def name_of(row: Any, field: str, default: str) -> str:
        return sys.intern(row.get(field, default))

    right = np.fromiter((x for label in labels for x in label), bool, len(owner))
    answers = [
        x
        for row, label in zip(rows, labels, strict=True)
        for x in (answer_ids(row["answers"]) if row.get("answers") else [-1] * len(label))
    ]
    if len(answers) != len(owner):
        every("answers", None)
    ids = np.array(answers, np.int32)
    blank = np.array([not text for text in every("completions", "")])
    settings, reasons = Table[tuple](), Table[str]()
    setting = np.array([settings.number(tuple(x.get("settings", {}).items())) for x in rows])
    scores = np.array(every("scores", None), float)
    ranges = np.array([range_of_scores(dict(one)) for one in settings.known])[setting[owner]]
    with np.errstate(invalid="ignore"):
        outside = (scores < ranges[:, 0]) | (scores > ranges[:, 1] + ROUNDING)
    _refuse(outside, owner)
    accounts = every("tokens", {})
    tokens = _tokens(accounts, owner, ~blank | (ids >= 0) | right)
    returned = np.array([-1 if (x := row.get("returned")) is None else x for row in rows])
    _refuse(returned >= lengths, np.arange(len(rows)))
    said = [MISSING if x is None else x for x in every("verdicts", None)]
    every("votes", ())
    finish = every("finish", None)
    identity = [
        (
            name_of(row, "benchmark", "benchmark"),
            name_of(row, "model", "model"),
            name_of(row, "protocol", "sequential"),
            row["question_id"],
            row.get("repeat", 0),
        )
        for row in rows
    ]
    clusters = [row.get("cluster") for row in rows]
    return Runs(
        question_ids=tuple(row["question_id"] for row in rows),
        correct=placed(right, MISSING, np.int8),
        answers=placed(ids, MISSING, np.int32),
        scores=placed(scores, np.nan, np.float32),
        verdicts=placed(said, MISSING, np.int8),
        tokens={name: placed(values, 0, np.float32) for name, values in tokens.items()},
        benchmarks=tuple(one[0] for one in identity),
        models=tuple(one[1] for one in identity),
        protocols=tuple(one[2] for one in identity),
        censored=np.array([row.get("censored", False) for row in rows]),
        rule_stopped=np.array([row.get("stop_reason") == "rule" for row in rows]),
        cluster=None
        if all(x is None for x in clusters)
        else tuple(
            f"question {row['question_id']}" if x is None else x
            for x, row in zip(clusters, rows, strict=True)
        ),
        details=Details(
            setting=setting.astype(np.int32),
            settings=tuple(map(dict, settings.known)),
            reason=placed([reasons.number(x) if x else -1 for x in finish], -1, np.int16),
            reasons=tuple(reasons.known),
            blank=placed(blank, True, bool),
            text=hashed_texts([(x.get("question", ""), x.get("gold", "")) for x in rows]),
            identity=hashed_all(["\x00".join(map(str, one)) for one in identity]),
            keyed=np.array([bool(row.get("key")) for row in rows]),
            returned=returned.astype(np.int32),
        ),
    )


def _refuse(bad: np.ndarray, owner: np.ndarray) -> None:
    if bad.any():
        raise _OddError(int(owner[np.argmax(bad)]))


def _tokens(
    accounts: list[dict[str, Any]], owner: np.ndarray, answered: np.ndarray
) -> dict[str, np.ndarray]:
    """Tokens by category, of every answer; what cannot be is not believed, see `believed`."""

    def counts(name: str, default: int | None = None) -> np.ndarray:
        return np.array([account.get(name, default) for account in accounts], float)

    prompt, cached, completion = counts("prompt"), counts("cached"), counts("completion")
    verifier, total = counts("verifier", 0), counts("total")
    _refuse(cached > prompt, owner)
    nothing_read = (prompt == 0) & (answered | (completion > 0))
    prompt[nothing_read] = cached[nothing_read] = np.nan
    completion[(completion == 0) & answered] = np.nan
    total[(total == 0) & answered] = np.nan
    found = {
        "prompt": prompt - np.nan_to_num(cached),
        "cached": cached,
        "completion": completion,
        "verifier": verifier,
    }
    together = ~np.isnan(total)  # which has nothing to add to the other categories
    found = {name: np.where(together, 0, values) for name, values in found.items()}
    return {**found, "total": np.nan_to_num(total)} if together.any() else found
