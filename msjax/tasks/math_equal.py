"""Whether two mathematical answers are equal: math-verify, in a process of its own.

A tower of powers keeps math-verify busy for ever, and its own time limit needs signals, which only
a main thread can have and which do not interrupt arithmetic on large integers. A process can be
killed at a deadline, from any thread, so no answer of a model can stop or crash a run.
"""

import atexit
import json
import re
import subprocess
import sys
import threading
from functools import lru_cache

from msjax.errors import InputError, require_extra

__all__ = ["DEADLINE", "equivalent"]

DEADLINE = 10.0
"""Seconds for one comparison."""

_START = 120.0  # seconds for imports on a busy machine
_LONGEST = 500  # characters; no benchmark has longer answers
_MEMORY = 4 * 2**30  # bytes

_INTEGER = re.compile(r"-?\d+")


@lru_cache(maxsize=2**14)
def equivalent(gold: str, answer: str) -> bool:
    """Whether `answer` is mathematically equal to `gold`; the roles matter to math-verify.

    Equal strings are equal, different integers are not; all else is asked of math-verify, which
    takes decimals for equal when 6 places agree. What it cannot read, what is longer than 500
    characters and what takes longer than `DEADLINE` is not equal. The first comparison takes a
    second or two, since the process starts.

    Args:
        gold: the right answer, or one that was given before, in canonical form.
        answer: in canonical form.

    Raises:
        MissingExtraError: math-verify is not installed.
        InputError: it does not start.
    """
    if gold == answer:
        return True
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(answer):
        return False
    if max(len(gold), len(answer)) > _LONGEST:
        return False
    return _judge.equal(gold, answer)


class _Judge:
    """The process, started when it is first needed and again after it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def equal(self, gold: str, answer: str) -> bool:
        with self._lock:
            try:
                process = self._process or self._start()
                reply = _exchange(process, json.dumps([gold, answer]), DEADLINE)
            except BaseException:
                self.close()  # a reply that nobody read would answer the next question
                raise
            if not reply:
                self.close()
            return reply == "true"

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        require_extra("tasks", "math_verify")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # an interrupt from the keyboard is for the run alone
        )
        if _exchange(self._process, "[]", _START) != "false":
            raise InputError("math-verify does not start; try `python -c 'import math_verify'`")
        return self._process


def _exchange(process: "subprocess.Popen[str]", request: str, deadline: float) -> str:
    """The reply to a request, empty if there was none before the deadline."""
    assert process.stdin is not None and process.stdout is not None
    timer = threading.Timer(deadline, process.kill)
    timer.start()
    try:
        process.stdin.write(request + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()
    except BrokenPipeError:
        return ""
    finally:
        timer.cancel()


_judge = _Judge()
atexit.register(_judge.close)


def _serve() -> None:
    """Answers one comparison per line until the input ends."""
    import io
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    replies, sys.stdout = sys.stdout, io.StringIO()  # whatever a library prints is no reply
    for line in sys.stdin:
        equal = False
        try:
            # "$" marks a formula; the process is killed from outside, so no time limits here.
            pair = [parse(f"${text}$", parsing_timeout=None) for text in json.loads(line)]
            equal = bool(pair) and verify(*pair, timeout_seconds=None)
        except Exception:  # what a library cannot compare is not equal
            pass
        print(json.dumps(bool(equal)), file=replies, flush=True)


if __name__ == "__main__":
    _serve()
