"""What recordings hold beside the arrays, in columns: settings, how answers ended, equal texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from msjax.errors import InputError

if TYPE_CHECKING:
    from msjax.data.trajectory import Trajectory

__all__ = [
    "Details",
    "Table",
    "hashed_all",
    "hashed_texts",
    "identities",
    "ragged",
    "require_once",
    "wider",
]

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Details:
    """One entry per row, or per row and answer; texts themselves stay in the records.

    Attributes:
        settings: those that occur.
        setting: which of them each run has.
        reasons: why answers ended, those that occur.
        reason: which of them each answer has; -1 where not recorded.
        blank: whether the completion is empty or was not recorded.
        text: hashes of question and right answer; 0 where the question was not recorded.
        identity: hashes of what no two runs have in common.
        keyed: whether the key of its seeds was recorded, as `msjax run` does.
        returned: which answer was returned; -1 for the last one.
    """

    settings: tuple[Mapping[str, Any], ...]
    setting: Int[np.ndarray, " row"]
    reasons: tuple[str, ...]
    reason: Int[np.ndarray, "row answer"]
    blank: Bool[np.ndarray, "row answer"]
    text: Int[np.ndarray, " row"]
    identity: Int[np.ndarray, " row"]
    keyed: Bool[np.ndarray, " row"]
    returned: Int[np.ndarray, " row"]

    @classmethod
    def of(cls, records: Iterable[Trajectory]) -> Details:
        """Those of trajectories."""
        runs = list(records)
        settings, reasons = Table[tuple](), Table[str]()
        return cls(
            setting=np.array([settings.number(tuple(x.settings.items())) for x in runs], np.int32),
            settings=tuple(map(dict, settings.known)),
            reason=ragged(
                [[reasons.number(one) if one else -1 for one in x.finish] for x in runs], -1
            ).astype(np.int16),
            reasons=tuple(reasons.known),
            blank=ragged([[not one for one in x.completions] for x in runs], True).astype(bool),
            text=hashed_texts([(x.question, x.gold) for x in runs]),
            identity=identities(runs),
            keyed=np.array([bool(x.key) for x in runs], bool),
            returned=np.array([-1 if x.returned is None else x.returned for x in runs], np.int32),
        )

    @classmethod
    def joined(cls, parts: Sequence[Details]) -> Details:
        """All rows of these, in their order."""
        settings, reasons = Table[tuple](), Table[str]()
        width = max(part.reason.shape[1] for part in parts)
        setting, reason = [], []
        for part in parts:
            own = [settings.number(tuple(one.items())) for one in part.settings]
            setting.append(np.array(own, np.int32)[part.setting])
            named = np.array([*map(reasons.number, part.reasons), -1], np.int16)
            reason.append(wider(named[part.reason], width, -1))
        return cls(
            tuple(map(dict, settings.known)),
            np.concatenate(setting),
            tuple(reasons.known),
            np.concatenate(reason),
            np.concatenate([wider(part.blank, width, True) for part in parts]),
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("text", "identity", "keyed", "returned")
            ),
        )

    def take(self, rows: Int[np.ndarray, " chosen"] | slice, columns: int) -> Details:
        """Some rows, and so many answers of each."""
        each = ("setting", "text", "identity", "keyed", "returned")
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in each},
            reason=self.reason[rows, :columns],
            blank=self.blank[rows, :columns],
        )

    @property
    def settings_there(self) -> list[tuple[Mapping[str, Any], int]]:
        """The settings of these rows, in order of first appearance, and how many have each."""
        numbers, first, counts = np.unique(self.setting, return_index=True, return_counts=True)
        return [(self.settings[numbers[i]], int(counts[i])) for i in np.argsort(first)]


def require_once(identity: Int[np.ndarray, " row"], records: Sequence[Trajectory]) -> None:
    """Raises InputError where a run of a question occurs twice.

    Args:
        identity: hashes of what no two runs have in common.
        records: the runs.
    """
    _, first, counts = np.unique(identity, return_index=True, return_counts=True)
    if counts.max(initial=0) < 2:
        return
    most = int(first[counts == counts.max()].min())
    rows = np.flatnonzero(identity == identity[most])
    run, times = records[int(rows[0])], "twice" if len(rows) == 2 else f"{len(rows)} times"
    raise InputError(
        f"question_id {run.question_id!r} of {run.benchmark!r}: occurs {times} with repeat "
        f"{run.repeat}; number the runs of a question repeat = 0, 1, ..., or leave one out"
    )


class Table(Generic[_Value]):
    """Values numbered in order of first appearance."""

    def __init__(self) -> None:
        self.known: dict[_Value, int] = {}

    def number(self, value: _Value) -> int:
        """The number of a value."""
        return self.known.setdefault(value, len(self.known))


def identities(runs: Iterable[Trajectory]) -> Int[np.ndarray, " run"]:
    """Hashes of what no two runs have in common."""
    return hashed_all(["\x00".join(map(str, run.identity)) for run in runs])


def hashed_all(texts: Iterable[str]) -> Int[np.ndarray, " text"]:
    """64 bits of each that are the same in every process."""
    digests = [
        blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts
    ]
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)


def hashed_texts(pairs: Iterable[tuple[str, str]]) -> Int[np.ndarray, " pair"]:
    """Which question it is, by its text and right answer; 0 for one without a text."""
    texts = [(question.strip(), gold.strip()) for question, gold in pairs]
    found = hashed_all([f"{question}\x00{gold}" for question, gold in texts])
    return np.where([bool(question) for question, _ in texts], found, 0)


def ragged(rows: Sequence[Sequence[Any]], fill: float | int) -> Float[np.ndarray, "row column"]:
    """Rows of different length as one array."""
    found = np.full((len(rows), max(map(len, rows))), fill, dtype=float)
    for line, row in zip(found, rows, strict=True):
        line[: len(row)] = row
    return found


def wider(values: np.ndarray, width: int, fill: Any) -> np.ndarray:
    """An array with columns added."""
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=fill)
