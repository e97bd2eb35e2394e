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
from typing import Generic, TypeVar

from msjax._io import locked, write_bytes
from msjax.errors import InputError

__all__ = ["LineFile", "open_lines", "split_lines"]

_Line = TypeVar("_Line")


class LineFile(Generic[_Line]):
    """A file of JSON lines under this process's lock; made by `open_lines`.

    Attributes:
        lines: what it holds.
    """

    def __init__(self, path: Path, render: Callable[[_Line], str], lines: list[_Line]) -> None:
        self.lines = lines
        self._path, self._render = path, render
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
        self.lines.append(line)

    def rewrite(self, lines: Sequence[_Line]) -> None:
        """Replace all lines, whole or not at all."""
        write_bytes(self._path, "".join(self._render(line) + "\n" for line in lines).encode())
        self.lines[:] = lines
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
) -> Iterator[LineFile[_Line]]:
    """Open a file of JSON lines for appending; it need not exist, and is made with its first line.

    Args:
        path: of the file.
        parse: a line from its name, for errors, and its bytes.
        render: a line as JSON.
        head: how the first line begins that is written there.
        what: such a file holds, for errors.
        check: raises InputError where the lines there do not belong to this run.

    Raises:
        InputError: another process writes it, or it holds something else; it is left as it is.
    """
    with locked(path):
        lines, torn = split_lines(path, head, what) if path.exists() else ([], b"")
        parsed = [parse(f"{path}, line {n}", line) for n, line in enumerate(lines, 1)]
        check(parsed)
        if torn:
            os.truncate(path, sum(map(len, lines)))
        file = LineFile(path, render, parsed)
        if lines and not lines[-1].endswith(b"\n"):
            file._gap = b"\n"
        yield file


def split_lines(path: Path, head: bytes, what: str) -> tuple[list[bytes], bytes]:
    """The lines of a file with their ends, and the beginning of one that a kill cut short.

    A last line without an end is complete if it is JSON. Otherwise it is torn if a line precedes
    it, or if it begins as the first line does, or is the beginning of that.

    Args:
        path: of the file.
        head: how a first line begins.
        what: such a file holds, for errors.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    lines = content.splitlines(keepends=True)
    if not lines:
        return [], b""
    first = lines[0].removeprefix(BOM_UTF8).strip()
    last = lines[-1].removeprefix(BOM_UTF8)
    other = bool(first) and (not first.startswith(b"{") or (first == b"{" and len(lines) > 1))
    torn = not last.endswith(b"\n") and not _is_json(last)
    if torn and len(lines) == 1:
        other = not (head.startswith(last) or last.startswith(head))
    elif torn:
        other = other or not last.startswith(b"{")
    if other:
        raise InputError(
            f"{path}: is no file of {what} (JSON Lines, one per line), perhaps a result of another "
            "command; it is left as it is; name another file"
        )
    return (lines[:-1], lines[-1]) if torn else (lines, b"")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
