"""Columns of large files, kept in the cache folder, so that their lines are read once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from msjax._io import cache_folder, replacing
from msjax.data.details import Details, Table, hashed_all
from msjax.data.runs import Runs
from msjax.errors import InputError

__all__ = ["LEAST", "kept", "keep"]

LEAST = 2**26
"""Bytes from which a file's columns are kept: smaller ones are read in a second or two."""
_VERSION = 1
_ARRAYS = ("correct", "answers", "scores", "verdicts", "censored", "rule_stopped")
_NAMES = ("benchmarks", "models", "protocols")
_Starts = Int[np.ndarray, " line_and_end"]


def kept(path: Path) -> tuple[Runs, _Starts] | None:
    """The columns of a file and where its lines begin; None if it changed, or none are kept."""
    try:
        with _place(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        return _restored(found, _stamp(path))
    except Exception:  # whatever is wrong with what was kept, the file itself is there
        return None


def _restored(found: dict[str, np.ndarray], stamp: list[int]) -> tuple[Runs, _Starts] | None:
    about = json.loads(str(found["about"]))
    if about["stamp"] != stamp:
        return None
    details = {
        one.name: found[f"details.{one.name}"]
        for one in fields(Details)
        if f"details.{one.name}" in found
    }
    values: dict[str, Any] = {name: found[name] for name in _ARRAYS}
    for name in _NAMES:
        values[name] = tuple(map(about[name].__getitem__, found[name].tolist()))
    runs = Runs(
        question_ids=_texts(found["question_ids"]),
        cluster=_texts(found["cluster"]) if "cluster" in found else None,
        tokens={name: found[f"tokens.{name}"] for name in about["tokens"]},
        details=Details(
            settings=tuple(about["settings"]), reasons=tuple(about["reasons"]), **details
        ),
        **values,
    )
    return runs, found["starts"]


def keep(path: Path, runs: Runs, starts: _Starts) -> None:
    """Keep the columns of a file, if it is large; what cannot be kept is not."""
    if starts[-1] < LEAST or runs.details is None:
        return
    about: dict[str, Any] = {"stamp": _stamp(path), "tokens": list(runs.tokens)}
    about |= {"settings": runs.details.settings, "reasons": runs.details.reasons}
    arrays = {name: getattr(runs, name) for name in _ARRAYS} | {"starts": starts}
    arrays |= {f"tokens.{name}": values for name, values in runs.tokens.items()}
    for one in fields(Details):
        if one.name not in ("settings", "reasons"):
            arrays[f"details.{one.name}"] = getattr(runs.details, one.name)
    for name in _NAMES:
        table = Table[str]()
        arrays[name] = np.array([table.number(x) for x in getattr(runs, name)], np.int32)
        about[name] = list(table.known)
    with suppress(InputError, ValueError, OSError):
        arrays["question_ids"] = _bytes(runs.question_ids)
        if runs.cluster is not None:
            arrays["cluster"] = _bytes(runs.cluster)
        with replacing(_place(path)) as part, part.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)


def _place(path: Path) -> Path:
    return (
        cache_folder()
        / "columns"
        / f"{int(hashed_all([str(path.resolve())])[0]) & (2**64 - 1):016x}.npz"
    )


def _stamp(path: Path) -> list[int]:
    """What changes when a file does."""
    found = path.stat()
    return [_VERSION, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _bytes(texts: Sequence[str]) -> np.ndarray:
    """Texts as one array; ValueError where one holds what parts them."""
    joined = "\x00".join(texts)
    if joined.count("\x00") != len(texts) - 1:
        raise ValueError("a text holds the character that parts texts")
    return np.frombuffer(joined.encode(), np.uint8)


def _texts(values: np.ndarray) -> tuple[str, ...]:
    return tuple(values.tobytes().decode().split("\x00"))
