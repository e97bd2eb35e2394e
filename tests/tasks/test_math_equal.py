"""Mathematical equality, decided in another process that may fail without harm."""

import threading
import time

import pytest

from msjax.tasks import math_equal as equivalence
from msjax.tasks.math_equal import equivalent


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
    ],
)
def test_equal_means_mathematically_equal(gold, answer, equal) -> None:
    assert equivalent(gold, answer) is equal


def test_it_works_outside_the_main_thread() -> None:
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda k=k: found.append(equivalent(f"x+{k}", f"{k}+x")))
        for k in range(2, 6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def test_what_never_ends_is_not_equal_and_stops_nothing(monkeypatch) -> None:
    monkeypatch.setattr(equivalence, "DEADLINE", 2.0)
    assert equivalent("y+1", "1+y")  # the process has started
    begun = time.monotonic()
    assert not equivalent("y+1", "9^{9^{9^{9}}}")
    assert time.monotonic() - begun < 30
    monkeypatch.undo()
    assert equivalent("y+2", "2+y")


def test_a_process_that_died_is_started_again() -> None:
    assert equivalent("z+1", "1+z")
    process = equivalence._judge._process
    assert process is not None
    process.kill()
    process.wait()
    assert not equivalent("z+2", "2+z")  # lost with the process
    assert equivalent("z+3", "3+z")
