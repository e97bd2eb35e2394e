"""Standard output and standard error while a command runs, whatever became of them.

Texts that were read somewhere cannot command the terminal, every text can be written in every
encoding, a standard error that is gone stops nothing, and one of output ends the command at once.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from msjax.texts import visible

__all__ = ["OutputLostError", "guarded_streams", "shown_messages"]

_PROGRESS = re.compile("(?:\x1b\\[A)+")  # how tqdm goes up to another bar


class OutputLostError(OSError):
    """Nobody reads standard output any more, or it has no room."""


class _Stream:
    """A stream that is written to like the one it holds.

    Attributes:
        escapes: whether what a terminal would obey is shown instead.
    """

    def __init__(self, stream: Any, *, is_error: bool) -> None:
        self._stream, self._is_error = stream, is_error
        self.escapes = False

    def write(self, text: str) -> int:
        shown = text
        if self.escapes and not (self._is_error and _PROGRESS.fullmatch(text)):
            # Progress bars return to the beginning of their line.
            parts = text.split("\r") if self._is_error else [text]
            shown = "\r".join(map(visible, parts))
        self._try(lambda: self._stream.write(shown))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Any) -> None:
        try:
            act()
        except (OSError, ValueError) as error:  # ValueError: it was closed here
            if self._is_error:
                return
            _give_up(self._stream)
            raise OutputLostError(*error.args) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Terminal(logging.Handler):
    """What the library says, on standard error, above progress bars if there are any."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        before = "warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(before + record.getMessage(), file=sys.stderr)


@contextmanager
def shown_messages() -> Iterator[None]:
    """Shows what the library logs while a command runs; other programs decide for themselves."""
    log, terminal = logging.getLogger("msjax"), _Terminal()
    level = log.level
    log.addHandler(terminal)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(terminal)
        log.setLevel(level)


def _give_up(stream: Any) -> None:
    """What is still held goes nowhere, so that the interpreter has nothing to say of it at exit."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def guarded_streams() -> Iterator[tuple[_Stream, _Stream]]:
    """Puts guards before standard output and standard error, and takes them away at the end."""
    _open_missing()
    before = sys.stdout, sys.stderr
    guards: list[_Stream] = []
    for stream in before:
        if stream is None:
            stream = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        guards.append(_Stream(stream, is_error=len(guards) == 1))
    sys.stdout, sys.stderr = out, err = guards
    try:
        yield out, err
        out.flush()
    finally:
        with suppress(OutputLostError):
            out.flush()
        sys.stdout, sys.stderr = before


def _open_missing() -> None:
    """Opens what was closed of 0, 1 and 2, or the next file would get that number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
