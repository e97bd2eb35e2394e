"""Waiting for many things at a time, from ordinary code and inside an event loop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["all_of", "beside", "wait"]

_T = TypeVar("_T")


def wait(work: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine returns."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    # In a notebook this thread already runs a loop, and a loop cannot be entered twice.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def beside(call: Callable[[], _T]) -> _T:
    """What a call returns that blocks, in a thread of its own.

    Whoever is cancelled while it waits leaves the thread behind, as will the process when it ends.
    """
    outcome: Future[_T] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(outcome)


def all_of(calls: Sequence[Callable[[], _T]]) -> list[_T]:
    """What these calls return that block, all at a time; the first exception ends the waiting."""

    async def everything() -> list[_T]:
        return list(await asyncio.gather(*map(beside, calls)))

    return wait(everything()) if calls else []
