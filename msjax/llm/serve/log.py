"""The file of what was served: a line is handed to the system before its request is answered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msjax._io import locked
from msjax.data.served import Label, Served
from msjax.errors import InputError

__all__ = ["ServedLog", "open_log"]

_BLOCK = 1 << 16


class ServedLog:
    """Lines appended to a file that is held open; what it holds is not kept in memory.

    Lines survive the end of this process at once, and that of the machine after a second.

    Attributes:
        problem: why the last line could not be written, "" if it could.
        lost: lines that could not be written.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor, self._path = descriptor, path
        self._dirty = False
        self.problem = ""
        self.lost = 0

    def append(self, line: Served | Label) -> None:
        """Append a line; where that fails `problem` and `lost` say so, and serving goes on."""
        data = line.model_dump_json(exclude_none=isinstance(line, Label)).encode() + b"\n"
        before = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            self._dirty, self.problem = True, ""
        except OSError as error:
            os.ftruncate(self._descriptor, before)
            self.lost += 1
            self.problem = f"{self._path}: cannot be written ({error.strerror})"

    async def keep_flushing(self) -> None:
        """Flush to disk every second, until cancelled."""
        while True:
            await asyncio.sleep(1)
            if self._dirty:
                self._dirty = False
                await asyncio.to_thread(os.fsync, self._descriptor)


@asynccontextmanager
async def open_log(path: Path) -> AsyncIterator[ServedLog]:
    """Open a log for appending; a last line that a kill cut short is dropped.

    Raises:
        InputError: another process writes it, it cannot be written, or it holds something else.
    """
    with locked(path):
        try:
            # It holds what users asked, so nobody else may read it.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None
        try:
            _mend(descriptor, path)
            log = ServedLog(descriptor, path)
            flushing = asyncio.create_task(log.keep_flushing())
            try:
                yield log
            finally:
                flushing.cancel()
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


_HEAD = b'{"served":1,'


def _mend(descriptor: int, path: Path) -> None:
    """Drop what follows the last end of a line, in a file of this kind."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if not size:
        return
    first = _read(descriptor, _BLOCK, 0).partition(b"\n")[0]
    alone = len(first) == size  # perhaps a first line that a kill cut short
    if not first.startswith(_HEAD) and not (alone and _HEAD.startswith(first)):
        raise InputError(f"{path}: is no file of served requests; name another file")
    if _read(descriptor, 1, size - 1) == b"\n":
        return
    end = size
    while end:
        start = max(0, end - _BLOCK)
        at = _read(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            os.ftruncate(descriptor, start + at + 1)
            return
        end = start
    os.ftruncate(descriptor, 0)


def _read(descriptor: int, count: int, at: int) -> bytes:
    os.lseek(descriptor, at, os.SEEK_SET)
    return os.read(descriptor, count)
