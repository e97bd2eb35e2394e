"""Lines of a large file to columns on all processors, in processes that are started for it.

They are started by the path of this file, not forked, since threads of JAX may be at work, and not
by `multiprocessing`, which would run a user's script a second time.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from msjax.data.runs import Runs

__all__ = ["Block", "columns_of_blocks", "processors", "start_process"]

_MOST = 8  # processes; more wait for the one that reads


class Block(NamedTuple):
    """Some lines of a file.

    Attributes:
        path: of the file.
        first: number of the first line.
        lines: as they are there.
    """

    path: Path
    first: int
    lines: list[bytes]


def processors() -> int:
    """How many processes are worth starting."""
    known = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(known, _MOST)


def columns_of_blocks(blocks: Iterable[Block], processes: int) -> list[Runs]:
    """The columns of all blocks, in their order.

    Raises what reading the first bad block raises, or what comes out of `blocks`.
    """
    numbered, found, taking = enumerate(blocks), dict[int, Any](), threading.Lock()

    def take() -> tuple[int, Block] | None:
        with taking:
            if any(isinstance(one, BaseException) for one in found.values()):
                return None
            try:
                return next(numbered, None)
            except Exception as error:  # of the file; blocks before it may hold an earlier one
                found[sys.maxsize] = error
                return None

    def work() -> None:
        process = start_process()
        try:
            while (item := take()) is not None:
                number, block = item
                try:
                    found[number] = _columns_in(process, block)
                except BaseException as error:  # noqa: BLE001 - it is raised below
                    found[number] = error
        finally:
            process.kill()
            process.communicate()

    with ThreadPoolExecutor(processes) as pool:
        done = [pool.submit(work) for _ in range(processes)]
        try:
            for one in done:
                one.result()
        except BaseException as error:
            found[-1] = error  # an interrupt: no more blocks are taken
            raise
    results = [found[number] for number in sorted(found)]
    for one in results:
        if isinstance(one, BaseException):
            raise one
    return results


def _columns_in(process: subprocess.Popen[bytes], block: Block) -> Runs:
    """The columns of a block from the process, or read here where that is gone."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(OSError, EOFError, pickle.UnpicklingError):
        pickle.dump(tuple(block), process.stdin, pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
        found = pickle.load(process.stdout)
        if isinstance(found, Exception):
            raise found
        return found
    from msjax.data.columns import columns_of

    return columns_of(block)


def start_process() -> subprocess.Popen[bytes]:
    """A process that reads blocks until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # an interrupt from the keyboard is for who asks
    )


def serve() -> None:
    """Reads blocks until the input ends."""
    from msjax.data.columns import columns_of

    gc.disable()  # there are no cycles, and looking for them takes a sixth of the time
    replies, sys.stdout = sys.stdout.buffer, sys.stderr
    with suppress(EOFError, BrokenPipeError):
        while True:
            block = Block(*pickle.load(sys.stdin.buffer))
            found: Runs | Exception
            try:
                found = columns_of(block)
            except Exception as error:  # raised where it was asked for
                found = error
            pickle.dump(found, replies, pickle.HIGHEST_PROTOCOL)
            replies.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    serve()
