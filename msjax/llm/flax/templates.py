"""Renders chat templates in a process of their own, whose time and memory are bounded."""

from __future__ import annotations

import atexit
import json
import threading
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from msjax._child import Child, EndedError
from msjax.data.messages import Message
from msjax.llm.flax import template_process

__all__ = ["TemplateError", "close", "render"]


SECONDS = 5.0
"""Processor time for one rendering."""

_STARVED = 30.0  # how many times `SECONDS` a reply may take on the clock before it is lost


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
    found = _answer(json.dumps(asked))
    if "error" in found:
        raise TemplateError(found["error"])
    return str(found["text"])


def _plain(token: Any) -> Any:
    return [str(one) for one in token] if isinstance(token, list | tuple) else str(token)


def _answer(request: str) -> dict[str, Any]:
    with _LOCK:
        for _ in range(2):  # it may have ended for a reason outside of it
            try:
                return dict(json.loads(_CHILD.ask(request, _STARVED * SECONDS)))
            except EndedError as ended:
                if ended.out_of_time:
                    break
    raise TemplateError(
        f"it needs more than {SECONDS:g} seconds of processor time, or ends the process in which "
        "it runs"
    )


_CHILD = Child(Path(template_process.__file__))
_LOCK = threading.Lock()


@atexit.register
def close() -> None:
    """Ends the process; it is started again when it is needed."""
    _CHILD.close()
