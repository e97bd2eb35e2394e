"""Renders chat templates in a process of their own, whose time and memory are bounded."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from msjax.data.messages import Message
from msjax.llm.flax import template_process

__all__ = ["TemplateError", "close", "render"]


SECONDS = 5.0
"""Processor time for one rendering."""


class TemplateError(Exception):
    """A template failed, or needs too much; the message says which, in one line."""


def render(
    template: str, messages: Sequence[Message], special_tokens: Mapping[str, Any], day: date
) -> str:
    """What a template makes of messages, with the beginning of the assistant's turn.

    Args:
        template: in Jinja, as chat models have it.
        messages: what is said.
        special_tokens: by name, such as bos_token.
        day: which day it is there.

    Raises:
        TemplateError: the template fails, needs more than `SECONDS` or the memory that
            `template_process` allows, or prints more.
    """
    values = {
        **{name: _plain(token) for name, token in special_tokens.items()},
        "messages": messages,
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
    }
    asked = {
        "template": template,
        "values": values,
        "day": day.isoformat(),
        "seconds": SECONDS,
    }
    found = _PROCESS.answer(json.dumps(asked) + "\n")
    if "error" in found:
        raise TemplateError(found["error"])
    return str(found["text"])


def _plain(token: Any) -> Any:
    return [str(one) for one in token] if isinstance(token, list | tuple) else str(token)


class _Process:
    """The process, started with the first request and anew when it is gone."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def answer(self, request: str) -> dict[str, Any]:
        with self._lock:
            try:
                for _ in range(2):  # it may have ended for a reason outside of it
                    if found := self._exchange(request):
                        return dict(json.loads(found))
                    if self.close() == -_PROCESSOR_TIME:
                        break
            except BaseException:
                self.close()  # a reply that nobody read would answer the next request
                raise
        raise TemplateError(
            f"it needs more than {SECONDS:g} seconds of processor time, or ends "
            "the process in which it runs"
        )

    def _exchange(self, request: str) -> str:
        """The reply; "" if the process ended."""
        if self._running is None:
            self._running = subprocess.Popen(
                [sys.executable, "-P", str(Path(template_process.__file__))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the process that asks
            )
        process = self._running
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(request)
            process.stdin.flush()
            return process.stdout.readline()
        return ""

    def close(self) -> int | None:
        """Ends the process, if there is one, and says with which status it ended."""
        process, self._running = self._running, None
        if process is None:
            return None
        with suppress(OSError):
            process.communicate()  # its input ends, and so does it
        return process.returncode


_PROCESSOR_TIME = 27  # SIGPROF, by which the timer of processor time ends a process
_PROCESS = _Process()


@atexit.register
def close() -> None:
    """Ends the process; it is started again when it is needed."""
    _PROCESS.close()
