"""Unit tests as a judge of code: an answer is accepted if they pass."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from msjax.data.messages import Completion
from msjax.errors import InputError, require
from msjax.llm.judge import Verdict
from msjax.tasks.benchmark import Question

__all__ = ["UnitTests", "code_of"]

_SCRIPT = Path(__file__).with_name("unit_test_process.py")
_FENCED = re.compile(r"^```[ \t]*[\w+-]*[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_STARTS = 5.0  # seconds that a process may take to begin and to end


class UnitTests:
    """A judge that runs the code of an answer with the unit tests of its question.

    Each answer is run in a process of its own, whose time and memory are bounded, whose environment
    is empty, and which may neither write files, nor read others than Python's, nor start processes,
    nor use the network. That keeps mistakes from doing harm. Python cannot hold code that means
    harm: run what you do not trust in a container or virtual machine as well.

    Args:
        tests: field of the question with its tests: a text of Python, or a list of texts. They see
            what the code defines, and pass unless something is raised.
        seconds: of processor time, and of the clock, for code and tests.
        megabytes: of memory.

    Raises:
        InputError: seconds < 1, megabytes < 64, a system without such limits (Windows); on judging,
            a question without tests, or tests that are no Python.
    """

    def __init__(self, tests: str = "tests", *, seconds: int = 10, megabytes: int = 1024) -> None:
        require("seconds", seconds, lambda x: x >= 1, "give a time limit of at least 1 second")
        require("megabytes", megabytes, lambda x: x >= 64, "give at least 64 megabytes")
        if sys.platform == "win32":
            raise InputError("unit tests need limits that Windows lacks; use Linux or macOS")
        self._field, self._seconds, self._memory = tests, int(seconds), int(megabytes) * 2**20
        self._ended = Counter[str]()

    @property
    def notes(self) -> list[str]:
        """How answers ended that did not merely fail their tests."""
        return [
            f"unit tests: {number:,} answers were rejected since their code {_WORDS[how]}"
            for how, number in sorted(self._ended.items())
            if how in _WORDS
        ]

    def __call__(self, question: Question, completion: Completion) -> Verdict:
        """Whether the tests pass."""
        how = self._run(code_of(completion.text), self._tests(question))
        self._ended[how] += 1
        return Verdict(how == "passed")

    def _tests(self, question: Question) -> str:
        found = question.metadata.get(self._field)
        parts: list[Any] = list(found) if isinstance(found, list | tuple) else [found]
        if not parts or not all(isinstance(part, str) and part.strip() for part in parts):
            raise InputError(
                f"question {question.id!r} has no unit tests in its field {self._field!r} (found "
                f"{found!r}); give every question a text of Python, or a list of them"
            )
        tests = "\n".join(parts)
        try:
            compile(tests, "tests", "exec")
        except (SyntaxError, ValueError) as error:
            raise InputError(
                f"question {question.id!r}: its field {self._field!r} is no Python: {error}"
            ) from None
        return tests

    def _run(self, code: str, tests: str) -> str:
        """How it ended: "passed", or why not."""
        token = secrets.token_hex(16)
        request: dict[str, Any] = {
            "code": code,
            "tests": tests,
            "seconds": self._seconds,
            "memory": self._memory,
            "token": token,
        }
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.Popen(
                [sys.executable, "-I", "-W", "ignore", str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
            try:
                out, _ = process.communicate(
                    json.dumps(request).encode(), timeout=self._seconds + _STARTS
                )
            except subprocess.TimeoutExpired:
                return "out of time"
            finally:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                process.communicate()
        said = out.decode(errors="replace")
        if said.startswith(f"{token} "):
            return said.removeprefix(f"{token} ")
        return "out of time" if process.returncode == -signal.SIGXCPU else "ended"


_WORDS = {
    "out of time": "ran out of time",
    "out of memory": "ran out of memory",
    "not allowed": "tried what is not allowed (files, processes, network)",
    "ended": "ended the process before the tests had run",
}


def code_of(text: str) -> str:
    """The code of an answer: its last fenced block, or all of it where there is none."""
    blocks = _FENCED.findall(text)
    return blocks[-1] if blocks else text
