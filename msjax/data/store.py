"""Recorded runs: one JSON line per question, validated on reading, crash-safe on writing.

A line is written and fsynced as soon as its question is finished, so a run that is killed loses at
most the questions still in flight, and a torn last line is repaired when the run is resumed.
"""

import fcntl
import os
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msjax.data.trajectory import Trajectory, parse_trajectory
from msjax.errors import InputError


def _lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; record a run with `msjax generate`") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    lines = content.splitlines(keepends=True)
    first = lines[0].removeprefix(BOM_UTF8).strip() if lines else b""
    if first and (not first.startswith(b"{") or (first == b"{" and len(lines) > 1)):
        raise InputError(
            f"{path}: is no file of recorded runs (JSON Lines, one run per line), perhaps a result "
            "of another command; give one that `msjax generate` wrote"
        )
    return lines


def _parsed(path: Path, lines: Sequence[bytes]) -> list[Trajectory]:
    return [parse_trajectory(f"{path}, line {n}", line) for n, line in enumerate(lines, 1)]


def read_runs(path: Path) -> list[Trajectory]:
    """All trajectories of a JSON Lines file, in file order.

    Raises InputError when the file is absent, empty, torn or of another kind, when a line does not
    follow the schema (unknown and missing fields included), or when a question occurs twice.
    """
    lines = _lines(path)
    if lines and not lines[-1].endswith(b"\n"):
        raise InputError(
            f"{path}, line {len(lines)}: torn (the writer was interrupted); resume the run that "
            "writes this file, which repairs it, or remove the line"
        )
    runs = _parsed(path, lines)
    if not runs:
        raise InputError(f"{path}: empty, so there is nothing to read; record a run first")
    seen = Counter((run.benchmark, run.question_id) for run in runs)
    (benchmark, question_id), times = seen.most_common(1)[0]
    if times > 1:
        raise InputError(
            f"{path}: question_id {question_id!r} of {benchmark!r} occurs {times} times; "
            "one line per question is allowed"
        )
    return runs


class RunWriter:
    """Appends trajectories to a JSON Lines file; made by `resume`."""

    def __init__(self, path: Path, descriptor: int, finished: Sequence[Trajectory]) -> None:
        self._path, self._descriptor = path, descriptor
        self.finished = list(finished)

    def write(self, run: Trajectory) -> None:
        """Append one trajectory and fsync it; raises OSError, naming the file, if it cannot."""
        data = run.model_dump_json().encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise OSError(
                f"{self._path}: cannot be written ({error.strerror}); {len(self.finished)} "
                "questions are on disk, and the same command goes on from there once there is room"
            ) from error
        self.finished.append(run)


@contextmanager
def resume(path: Path, *, model: str, settings: dict[str, Any]) -> Iterator[RunWriter]:
    """Open a run for appending, keeping what is there and dropping a torn last line.

    Raises InputError when another process writes it, or when it holds lines of another model or
    other settings (named with both values), since a mixture of runs estimates nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(path, descriptor)
        lines = _lines(path)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        finished = _parsed(path, lines)
        for run in finished:
            check_settings(path, {"model": run.model, **run.settings}, {"model": model, **settings})
        end = sum(map(len, lines))
        os.ftruncate(descriptor, end)
        os.lseek(descriptor, end, os.SEEK_SET)
        yield RunWriter(path, descriptor, finished)
    finally:
        os.close(descriptor)


def _lock(path: Path, descriptor: int) -> None:
    """Until the file is closed; the system lets go of it when a process dies."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{path}: another process is writing this run; wait for it or name another file"
        ) from None


def check_settings(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raises InputError, with both values, where a file was recorded with other settings."""
    for name in expected | found:
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{path}: recorded with {name}={found.get(name)!r}, but this run has "
                f"{name}={expected.get(name)!r}; use the same settings or write somewhere else"
            )
