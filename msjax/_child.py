"""A script in a process of its own, which answers line by line and whose time is bounded."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

__all__ = ["Child", "EndedError"]

_PROCESSOR_TIME = 27  # SIGPROF, by which a timer of processor time ends a process
_GRACE = 0.5  # seconds for a process to end by itself once its input has
_WATCHED = """
import os, runpy, sys, threading, time
parent, script = int(sys.argv[1]), sys.argv[2]
def watch():
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
if os.name == "posix":
    threading.Thread(target=watch, daemon=True).start()
runpy.run_path(script, run_name="__main__")
"""
"""Runs a script that ends with the process that started it, in the midst of any request."""


class EndedError(Exception):
    """The process ended without a reply.

    Attributes:
        status: with which it ended, negative for a signal.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status

    @property
    def out_of_time(self) -> bool:
        """Whether the timer of processor time that the script set ended it."""
        return self.status == -_PROCESSOR_TIME


class Child:
    """The process, started with the first request and anew when it is gone; for one thread.

    The script bounds the processor time and the memory of a request itself; the deadline here, on
    the clock, is for what neither bounds. It ends when its input does, and when this process does.

    Args:
        script: is run by its path, so that it imports nothing of this package.
    """

    def __init__(self, script: Path) -> None:
        self._script = script
        self._process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and not found gone."""
        return self._process is not None

    def ask(self, request: str, deadline: float) -> str:
        """The line that answers a line.

        Args:
            request: without an end of line.
            deadline: seconds on the clock after which the process is ended.

        Raises:
            EndedError: it ended, by itself or at the deadline.
        """
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(deadline, process.kill)
        timer.start()
        reply = ""
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(request + "\n")
                process.stdin.flush()
                reply = process.stdout.readline()
        except BaseException:
            self.close()  # a reply that nobody read would answer the next request
            raise
        finally:
            timer.cancel()
        if not reply.endswith("\n"):
            raise EndedError(self.close())
        return reply[:-1]

    def close(self) -> int:
        """Ends the process, if there is one, and says with which status it ended."""
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdin is not None and process.stdout is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            return process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            process.stdout.close()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", _WATCHED]
            + [str(os.getpid()), str(self._script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,  # an interrupt from the keyboard is for who asks
        )
