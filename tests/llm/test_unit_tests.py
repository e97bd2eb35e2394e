"""Unit tests as a judge: what passes, what fails, and what code may not do."""

import os
import sys
import time
from pathlib import Path

import pytest

import msjax
from msjax.data.messages import Completion
from msjax.data.usage import Usage
from msjax.errors import InputError
from msjax.llm.unit_tests import UnitTests, code_of
from msjax.rules.fixed import until_accepted
from msjax.tasks.benchmark import Question

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs limits of Unix")
TESTS = ["assert double(2) == 4", "assert double(-1) == -2"]
GOOD = "def double(x):\n    return 2 * x\n"


def judge(code, tests=TESTS, seconds=5, **limits):
    said = Completion(f"So:\n```python\n{code}\n```\n", 0.0, 0.0, True, Usage())
    question = Question("double", "q", "Double it.", "", lambda _: None, {"tests": tests})
    judge = UnitTests(seconds=seconds, **limits)
    return judge(question, said).accepted, " ".join(judge.notes)


def test_code_is_accepted_if_its_tests_pass() -> None:
    assert judge(GOOD) == (True, "")
    assert judge("import math, random, json\n" + GOOD, "assert math.pi > 3\n" + TESTS[0])[0]
    for bad in (
        "def double(x):\n    return x + 2",
        "def double(x:",
        "1 / 0",
        "",
        "raise SystemExit",
    ):
        assert judge(bad) == (False, "")
    assert code_of("First:\n```py\n1\n```\nthen\n```\n2\n3\n```\n") == "2\n3\n"
    assert code_of("print(1)") == "print(1)"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os\nos._exit(0)", "ended the process"),
        pytest.param("while True: pass", "ran out of time", marks=pytest.mark.slow),
        pytest.param("import time\ntime.sleep(60)", "ran out of time", marks=pytest.mark.slow),
        ("x = [0] * 10**9", "ran out of memory"),
        ("import os\nif os.fork(): pass", "not allowed"),
        ("import subprocess\nsubprocess.run(['true'])", "not allowed"),
        ("import os\nos.system('true')", "not allowed"),
        ("import socket\nsocket.socket()", "not allowed"),
        ("import urllib.request\nurllib.request.urlopen('http://localhost:1')", "not allowed"),
        ("open('left.txt', 'w').write('x')", "not allowed"),
        ("import os\nos.open('left.txt', os.O_CREAT | os.O_WRONLY)", "not allowed"),
        ("open({here!r}).read()", "not allowed"),
        ("import os\nos.listdir('/')", "not allowed"),
        ("import os\nos.mkfifo('/tmp/left')", "not allowed"),
        ("import sqlite3\nsqlite3.connect('left.db')", "not allowed"),
        ("import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))", "not allowed"),
        ("import os\nos.kill({process}, 9)", "not allowed"),
        ("import ctypes\nctypes.CDLL(None).getpid()", "not allowed"),
        ("import _posixsubprocess\n_posixsubprocess.fork_exec()", "not allowed"),
    ],
)
def test_code_that_does_more_than_compute_is_rejected(code, why) -> None:
    code = code.format(here=__file__, process=os.getpid())
    begun = time.monotonic()
    accepted, notes = judge(f"{code}\n{GOOD}", seconds=1, megabytes=512)
    assert accepted is False and why in notes, notes
    assert time.monotonic() - begun < 30
    assert not Path("left.txt").exists()


def test_the_environment_of_the_process_is_empty(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert judge("import os\n" + GOOD, "assert 'OPENAI_API_KEY' not in os.environ")[0]


@pytest.mark.parametrize(
    ("tests", "says"),
    [
        (None, "has no unit tests in its field 'tests' \\(found None\\)"),
        (["assert 1", 3], "has no unit tests"),
        ("", "has no unit tests"),
        ("assert (", "is no Python"),
    ],
)
def test_questions_without_tests_are_named(tests, says) -> None:
    with pytest.raises(InputError, match=f"question 'q'.*{says}"):
        judge(GOOD, tests)


def test_a_loop_ends_when_its_tests_pass() -> None:
    def reply(said, key):
        return f"```python\n{'double = None' if len(said) == 1 else GOOD}```"

    asked = {"question": "Double.", "answer": "x", "tests": "assert double(2) == 4"}
    task = msjax.Task(msjax.samples([asked]), scorer="exact")
    engine = msjax.testing.ScriptedEngine(reply)
    runs = msjax.run(task, engine, rule=until_accepted(4), judge=UnitTests())
    assert runs.verdicts.tolist() == [[0, 1]] and runs.rule_stopped.all()
