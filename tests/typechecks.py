"""Beartype, applied when a function is first called: a process calls few of those it loads."""

import functools
from collections.abc import Callable
from typing import Any


def on_first_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose annotations are compiled to checks by its first call."""
    checked: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        if checked is None:
            import beartype

            checked = beartype.beartype(function)
        return checked(*args, **kwargs)

    return call
