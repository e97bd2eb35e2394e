"""Mathematical equality, decided in another process that may fail without harm."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from msjax.tasks import math_equal
from msjax.tasks.math_equal import COUNTS, compare, same


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        ("1/3", "0.333333", True),
        ("1/3", "0.3", False),
        ("5", "x=5", True),
        ("x+1", "1+x", True),
        (r"\pi", "3.14", False),
        ("[0, 1)", "[0, 1]", False),
        ("4/3", r"1\frac13", True),
        ("Evelyn", "Evelyn", True),
        ("5", "}{", False),
        ("5", "a\nb", False),
        ("5", "x" * 501, False),
        (r"\pi", "3.141593", True),
        (r"3:00\text{ AM}", r"3:00\text{ PM}", False),
        ("3 PM", "3:00 p.m.", True),
        ("15:00", "3:00 PM", True),
        (r"1, 2, \ldots, n", r"1, 3, 5, \ldots, 2n-1", False),
        (r"1,2,\dots,n", r"1, 2, \ldots, n", True),
        (r"\emptyset", r"\varnothing", True),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}", False),
        (r"\frac{1}{2004!}", "1/2004!", True),
        ("5", r"5\text{ million}", False),
        ("5000000", "5 million", True),
        ("5", r"\neq 5", False),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", False),
        ("2^{-99}", r"\frac{1}{2^{99}}", True),
        ("4", r"4\sqrt(2)", False),
        ("2", "2\u221a2", False),
        (r"2\sqrt{2}", "2\u221a2", True),
        ("0.0000001", "0.0000002", False),
        ("0.5", r"50\%", True),
        ("50", r"50\%", True),
        ("50%", "0.5", True),
        ("50%", "50", True),
        ("50%", "5", False),
        ("(2,3)", "(2,3)", True),
        ("(2,3)", "2<x<3", False),
        ("5/6", "11 5/6", False),
        ("4/3", "2 2/3", False),
        ("8/3", "2 2/3", True),
        ("8/3", r"2\frac{2}{3}", True),
        ("31800", "31,800 dollars", True),
        ("5 cm", "5 m", False),
        ("5 cm", "5", True),
        ("5 cm", "5 centimeters", True),
        ("5", "5 cm", True),
        ("101_2", "101_3", False),
        ("101_2", "101", False),
        ("101", "101_2", False),
        ("101_2", "101_{2}", True),
        ("5", "5x", False),
        ("5x", "5", False),
        ("5", "5m", False),
        ("2c", "2", False),
        ("5", "5!", False),
        ("120", "5!", True),
        ("1, 2", "2, 1", True),
        ("(1,2)", "(2,1)", False),
        ("1,2", "(1,2)", True),
        (r"\{1,2\}", "2,1", True),
        ("1, 2", "1", False),
        ("2", "1, 2", False),
        ("1,2", r"x=1\text{ or }x=2", True),
        ("1,2", "1 and 2", True),
        (r"\pm 2", "2", False),
        (r"\pm 2", "2,-2", True),
        (r"2\pm\sqrt{3}", r"2-\sqrt{3}, 2+\sqrt{3}", True),
        ("2", r"\pm 2", False),
        ("yes", "Yes", True),
        ("Evelyn", "Evleyn", False),
        ("ab", "ba", True),
        (r"\frac{x+1}{2}", "0.5x+0.5", True),
        ("x^2-1", "(x-1)(x+1)", True),
        ("x^2-1", "x^2+1", False),
        ("y=2x+3", "2x+3", True),
        ("y=2x+3", "y=3+2x", True),
        (r"(0,1)\cup(2,3)", r"(2,3)\cup(0,1)", True),
        (r"(-\infty, 2]", r"x\leq 2", True),
        (r"x \leq 2", r"(-\infty,2]", True),
        ("x<5", "5>x", True),
        ("x<5", "x>5", False),
        ("x<5", r"x\leq 5", False),
        (r"45^\circ", "45", True),
        ("45", r"45^\circ", True),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", True),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}", False),
        ("2:3", "4:6", True),
        ("2:3", "2/3", True),
        (r"0.\overline{3}", "1/3", True),
        ("1/3", "0.333...", True),
        ("22/7", r"\frac{22}{7} \approx 3.14", True),
        ("i", "-i", False),
        ("3+4i", "4i+3", True),
        ("e^{-10}", "e^{-11}", False),
        ("10^{-20}", "0", False),
        ("0", "10^{-20}", False),
        (r"\sqrt{10^{-20}}", "0", False),
        (r"10^{-9}\sqrt{2}", r"10^{-9}\sqrt{3}", False),
        ("e^{-30}", "0", False),
        (r"\frac{\sqrt{2}}{2004!}", r"\frac{\sqrt{2}}{2006!}", False),
        ("x=5", "y=5", False),
        ("5 hours", "5 days", False),
        ("7", "-7", False),
        ("2^{10}", "1024", True),
        ("n!", "n", False),
        ("x!", "x", False),
        ("12", "12 inches", True),
        ("1.5", "1 1/2", True),
        ("1.5", "3/2", True),
        ("5 apples", "5 red apples", True),
        ("5", "5 or 6", False),
        ("3", "3 mod 7", False),
        (r"3\pmod 7", r"4\pmod 7", False),
        (r"\sin x", r"\sin y", False),
        (r"\log_2 3", r"\log_3 2", False),
        ("6", "1+2+3", True),
        ("6", "1+2+3=6", True),
        ("A", "a", False),
        (r"\text{(A)}", "A", True),
        (r"10\%", "0.1", True),
        ("1/2", "0.500", True),
        (r"x \in [1,2]", "[1,2]", True),
        ("14", "2\xd77", True),
        (r"\frac{\pi}{4}", "\u03c0/4", True),
        (r"5\sqrt{3}", "5\u221a3 cm", True),
        (r"\sqrt{3}", r"\sqrt[3]{3}", False),
        ("9", "3^2", True),
        ("f(x)=x+1", "x+1", True),
        ("5", r"\sim 5", False),
        ("5", "~5", True),
        ("5", "<5", False),
        ("5", r"\geq 5", False),
        ("$5$", "5", True),
        ("2,3", "2.3", False),
        ("2.5", "2,5", False),
        ("$5", "5", True),
        ("$5", "5 dollars", True),
        ("$5", "5 cents", False),
        ("$5", "500 cents", True),
        ("5 cents", "$0.05", True),
        ("5 cents", "5\xa2", True),
        ("$5", "\u20ac5", False),
        ("$5 per hour", r"\$5/hour", True),
        ("1200", "1.2k", True),
        ("5", "5K", False),
        ("5", "5M", False),
        ("4k", "4000", False),
        ("7/3", r"2 \text{ and } \frac{1}{3}", True),
        ("2, 1/3", "2 and 1/3", True),
        ("5 ft 10 in", "5 feet and 10 inches", True),
        ("5", "5 feet 10 inches", False),
        ("1.5 hours", "1 hour 30 minutes", True),
        ("90 minutes", "1.5 hours", False),
        (r"5 \frac{m}{s}", "5 meters per second", True),
        (r"\frac{m}{s}", "1", False),
        ("twelve", "12", True),
        ("5", "5th", True),
    ],
)
def test_equal_means_mathematically_equal(gold, answer, equal) -> None:
    assert compare(gold, answer).equal is equal
    assert compare(gold, gold).equal


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("50", "50%", False),
        ("0.5", "50%", False),
        ("(2,3)", "2<x<3", False),
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        ("5", "5 cm", False),
        ("5 cm", "5 centimeters", True),
        ("1/3", "0.333333", False),
        ("x=5", "5", False),
        ("$5", "5", True),
        ("5 cents", "$0.05", False),
        ("\u20ac5", "$5", False),
    ],
)
def test_the_same_for_whoever_counts_is_stricter(one, other, equal) -> None:
    assert same(one, other) is same(other, one) is equal


def test_it_works_outside_the_main_thread() -> None:
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda k=k: found.append(compare(f"x+{k}", f"{k}+x").equal))
        for k in range(2, 6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def test_what_never_ends_is_not_equal_and_stops_nothing(monkeypatch) -> None:
    monkeypatch.setattr(math_equal, "DEADLINE", 0.5)
    assert compare("y+1", "1+y").equal  # the process has started
    before = COUNTS.slow
    begun = time.monotonic()
    for _ in range(2):  # the second time it is known
        assert not compare("y+1", "y^{9^{9^{9^{9}}}}").equal
    assert time.monotonic() - begun < 30
    assert COUNTS.slow == before + 1
    monkeypatch.undo()
    assert compare("y+2", "2+y").equal


def grader() -> int:
    """The process id of the grader, which is the only child of this process that runs it."""
    (found,) = [
        int(status.parent.name)
        for status in Path("/proc").glob("[0-9]*/status")
        if f"PPid:\t{os.getpid()}\n" in status.read_text()
        and "math_process.py" in (status.parent / "cmdline").read_text()
    ]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to find a child in")
def test_a_grader_that_was_killed_is_started_and_asked_again() -> None:
    math_equal.close()
    assert compare("z+1", "1+z").equal
    before = COUNTS.retried
    os.kill(grader(), signal.SIGKILL)
    with pytest.warns(RuntimeWarning, match="started again"):
        assert compare("z+2", "2+z").equal  # right, though its first process died
    assert COUNTS.retried == before + 1
    assert compare("z+3", "3+z").equal


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to find a child in")
def test_a_failure_of_the_grader_is_said_and_never_remembered(monkeypatch) -> None:
    monkeypatch.setattr(math_equal, "TRIES", 1)
    math_equal.close()
    assert compare("w+1", "1+w").equal
    before = COUNTS.lost
    os.kill(grader(), signal.SIGKILL)
    with pytest.warns(RuntimeWarning, match="counts as not equal"):
        assert not compare("w+2", "2+w").equal
    assert COUNTS.lost == before + 1
    assert compare("w+2", "2+w").equal


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no timer of processor time")
def test_a_grader_does_not_outlive_the_process_that_asked() -> None:
    script = Path(math_equal.__file__).with_name("math_process.py")
    orphan = subprocess.Popen(
        [sys.executable, "-P", script], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    orphan.stdin.write(json.dumps(["y", "y^{9^{9^{9^{9}}}}", 0.01]) + "\n")
    orphan.stdin.close()  # as the system does when the other end dies
    assert orphan.wait(60) == -signal.SIGPROF


DOCUMENTED = [
    (gold, answer, verdict == "yes")
    for golds, answers, verdict in re.findall(
        r"^\| (`[^|]*`) \| (`[^|]*`) \| (yes|no) \|",
        (Path(__file__).parents[2] / "docs" / "answers.md").read_text(),
        re.MULTILINE,
    )
    for gold in re.findall("`([^`]+)`", golds)
    for answer in re.findall("`([^`]+)`", answers)
]


def test_the_documented_table_of_equal_answers_is_what_happens() -> None:
    assert len(DOCUMENTED) > 60
    assert [row for row in DOCUMENTED if compare(*row[:2]).equal is not row[2]] == []
