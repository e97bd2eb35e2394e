"""Made runs."""

from collections.abc import Sequence
from typing import Any

from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage

__all__ = ["make_run"]


def make_run(
    correct: Sequence[Any],
    question_id: str = "q0",
    benchmark: str = "arithmetic",
    **changes: Any,
) -> Trajectory:
    """A sequential run with these labels, whose round k cost 100 + 10 k tokens.

    Args:
        correct: whether each answer is right, of anything that is true or false.
        question_id: which question.
        benchmark: of which benchmark.
        changes: other fields of the trajectory.
    """
    completions = [50 + 10 * k for k in range(len(correct))]
    fields: dict[str, Any] = {
        "model": "scripted",
        "benchmark": benchmark,
        "question_id": question_id,
        "answers": ("2",) * len(correct),
        "correct": tuple(map(bool, correct)),
        "tokens": tuple(Usage(prompt=50, cached=0, completion=n) for n in completions),
    }
    return Trajectory(**fields | changes)
