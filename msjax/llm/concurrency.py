"""Waiting for many things at a time, from ordinary code and inside an event loop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent import futures
from typing import Any, TypeVar

__all__ = ["all_of", "in_thread", "to_thread", "wait"]

_K = TypeVar("_K")
_T = TypeVar("_T")


def wait(work: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine returns; it is cancelled if the waiting is interrupted."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    begun: futures.Future[asyncio.Task[Any] | None] = futures.Future()

    async def cancellable() -> _T:
        begun.set_result(asyncio.current_task())
        return await work

    # In a notebook this thread already runs a loop, and a loop cannot be entered twice.
    with futures.ThreadPoolExecutor(1) as thread:
        outcome = thread.submit(asyncio.run, cancellable())
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done() and (task := begun.result()):
                task.get_loop().call_soon_threadsafe(task.cancel)
            raise


async def to_thread(call: Callable[[], _T]) -> _T:
    """What a call returns that blocks, in a thread of its own.

    Whoever is cancelled while it waits leaves the thread behind, as will the process when it ends.
    """
    return await asyncio.wrap_future(in_thread(call))


def all_of(calls: Mapping[_K, Callable[[], _T]]) -> Iterator[tuple[_K, _T]]:
    """What these calls return that block, all at a time, in their order and each with its key.

    Once one raises the others are not waited for: what they had returned by then comes first, then
    the exception.
    """
    if len(calls) == 1:
        ((key, call),) = calls.items()
        yield key, call()
        return
    begun = [(key, in_thread(call)) for key, call in calls.items()]
    done, _ = futures.wait([one for _, one in begun], return_when=futures.FIRST_EXCEPTION)
    ended = [(key, one) for key, one in begun if one in done]
    for key, one in sorted(ended, key=lambda pair: pair[1].exception() is not None):
        yield key, one.result()


def in_thread(call: Callable[[], _T]) -> futures.Future[_T]:
    """What a call will return that runs in a thread of its own, which no exit waits for."""
    outcome: futures.Future[_T] = futures.Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            # A generator makes a RuntimeError of StopIteration, which no coroutine may raise.
            outcome.set_result(next(call() for _ in "1"))
        except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome
