"""Files of JSON lines that are written over time: a line is on disk before the work goes on.

A kill loses the line that was being written, nothing else, and what it left of that line is dropped
when the file is opened again. Nothing else is ever dropped, so a file of someone else's stays as it
is.
"""

from __future__ import annotations

import json
import os
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from msjax._io import locked, require_file, write_bytes
from msjax.errors import InputError

__all__ = ["LineFile", "complete_lines", "open_lines", "parse_json", "without_repeats"]

_Line = TypeVar("_Line")
_BLOCK = 1 << 16


class LineFile(Generic[_Line]):
    """A file of JSON lines under this process's lock; made by `open_lines`.

    Attributes:
        lines: what is kept of the lines that it holds.
    """

    def __init__(
        self,
        path: Path,
        render: Callable[[_Line], str],
        lines: list[_Line],
        keep: Callable[[_Line], _Line],
    ) -> None:
        self.lines = lines
        self._path, self._render, self._keep = path, render, keep
        self._gap = b""

    def append(self, line: _Line) -> None:
        """Append a line; it is on disk when this returns.

        Raises:
            OSError: it cannot be written, or the file is gone; the message names it.
        """
        data = self._gap + self._render(line).encode() + b"\n"
        try:
            flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self._path, flags | (0 if self.lines else os.O_CREAT), 0o644)
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OSError(
                f"{self._path}: cannot be written ({error.strerror}); {len(self.lines)} lines are "
                "on disk, and the same command goes on from there once there is room"
            ) from error
        self._gap = b""
        self.lines.append(self._keep(line))

    def rewrite(self, lines: Sequence[_Line]) -> None:
        """Replace all lines, whole or not at all."""
        write_bytes(self._path, "".join(self._render(line) + "\n" for line in lines).encode())
        self.lines[:] = map(self._keep, lines)
        self._gap = b""


@contextmanager
def open_lines(
    path: Path,
    parse: Callable[[str, bytes], _Line],
    render: Callable[[_Line], str],
    *,
    head: bytes,
    what: str,
    check: Callable[[Sequence[_Line]], None] = lambda lines: None,
    keep: Callable[[_Line], _Line] = lambda line: line,
) -> Iterator[LineFile[_Line]]:
    """Open a file of JSON lines for appending; it need not exist, and is made with its first line.

    Args:
        path: of the file.
        parse: a line from its name, for errors, and its bytes.
        render: a line as JSON.
        head: how the first line begins that is written there.
        what: such a file holds, for errors.
        check: raises InputError where the lines there do not belong to this run.
        keep: what is kept in memory of a line; the file is never held there as a whole.

    Raises:
        InputError: another process writes it, or it holds something else; it is left as it is.
    """
    with locked(path):
        parsed: list[_Line] = []
        end, line = 0, b""
        if path.exists():
            for number, line in enumerate(complete_lines(path, head, what), 1):
                parsed.append(keep(parse(f"{path}, line {number}", line)))
                end += len(line)
        check(parsed)
        if path.exists() and end < path.stat().st_size:
            os.truncate(path, end)
        file = LineFile(path, render, parsed, keep)
        if line and not line.endswith(b"\n"):
            file._gap = b"\n"
        yield file


def complete_lines(path: Path, head: bytes, what: str) -> Iterator[bytes]:
    """The lines of a file with their ends, but for the beginning of one that a kill cut short.

    A last line without an end is complete if it is JSON. Otherwise it is torn if a line precedes
    it, or if it begins as the first line does, or is the beginning of that.

    Args:
        path: of the file.
        head: how a first line begins.
        what: such a file holds, for errors.

    Raises:
        InputError: the file cannot be read, or holds something else; before any line is returned.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            first, last = file.readline(), _last_line(file)
            whole = not last or last.endswith(b"\n") or _is_json(last.removeprefix(BOM_UTF8))
            _require_kind(path, first, last, not whole, head, what)
            end = file.seek(0, os.SEEK_END) - (0 if whole else len(last))
            file.seek(0)
            while file.tell() < end:
                yield file.readline()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _last_line(file: BinaryIO) -> bytes:
    """The last line of a file, with its end if it has one."""
    start, tail = file.seek(0, os.SEEK_END), b""
    while start and b"\n" not in tail[:-1]:
        size = min(start, max(_BLOCK, len(tail)))
        start = file.seek(start - size)
        tail = file.read(size) + tail
    return tail[tail.rfind(b"\n", 0, -1) + 1 :]


def _require_kind(
    path: Path, first: bytes, last: bytes, torn: bool, head: bytes, what: str
) -> None:
    """Raises InputError for a file that holds something else."""
    alone = first == last and torn
    last = last.removeprefix(BOM_UTF8)
    bare = first.removeprefix(BOM_UTF8).strip()
    other = bool(bare) and (not bare.startswith(b"{") or (bare == b"{" and not alone))
    if alone:
        other = not (head.startswith(last) or last.startswith(head))
    elif torn:
        other = other or not last.startswith(b"{")
    if other:
        raise InputError(
            f"{path}: is no file of {what} (JSON Lines, one per line), perhaps a result of another "
            "command; it is left as it is; name another file"
        )


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def parse_json(data: bytes | str) -> Any:
    """What JSON says, as its standard has it: no field twice, no NaN, no infinity.

    Raises:
        ValueError: it is none; the message says what is wrong.
    """
    try:
        return json.loads(data, object_pairs_hook=without_repeats, parse_constant=_refused)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object from its fields, as a hook of `json.loads`; InputError if one occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"field {twice!r} occurs twice; remove one")
    return found


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON; write null for what is not known")
