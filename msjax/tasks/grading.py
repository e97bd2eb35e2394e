"""Grading completions that are there already: what was read, whether it is right, and why.

from msjax.tasks import grade
grade([{"gold": "12", "completion": "<think>13?</think> It is 12."}])
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msjax.errors import InputError
from msjax.tasks.extract import Boxes
from msjax.tasks.samples import json_rows
from msjax.tasks.scorers import Scorer, find_scorer
from msjax.tasks.thoughts import opens_thought

__all__ = ["Grade", "grade", "grade_file"]


@dataclass(frozen=True)
class Grade:
    """What became of one completion.

    Attributes:
        id: as it was given, else the number of its line.
        answer: what was read, in canonical form; None if there is no answer.
        correct: whether it is right.
        why: how the answer was found and compared, or why there is none.
    """

    id: str | int
    answer: str | None
    correct: bool
    why: str


def grade(
    lines: Iterable[Mapping[str, Any]],
    scorer: str | Scorer | Callable[[str, str], Any] = "math",
    boxes: Boxes | None = None,
) -> list[Grade]:
    """Grades completions just as a run does; each grade depends on its own line alone.

    Args:
        lines: each with "gold" and "completion", and maybe "finished" (false if it was cut),
            "earlier" (answers the model was shown before), "prompt" (the text that the model was
            given; one that ends in an opening tag has opened a thought), "thinking" (true says the
            same), "options" or "choices" and "question" (for choices that are said by their text)
            and "id"; other fields are passed over.
        scorer: see `msjax.tasks.scorers.find_scorer`.
        boxes: which of several boxes counts: last, first, or all, which must agree; None leaves
            that to the scorer.

    Returns:
        One grade per line, in order.

    Raises:
        InputError: a field that is missing or of the wrong type, or a gold that no answer can
            match; named with its line.
    """
    return _graded(((f"line {n}", line) for n, line in enumerate(lines, 1)), scorer, boxes)


def grade_file(
    path: Path,
    scorer: str | Scorer | Callable[[str, str], Any] = "math",
    boxes: Boxes | None = None,
) -> list[Grade]:
    """Grades the lines of a JSON Lines file; see `grade`.

    Raises:
        InputError: a file that cannot be read or is empty, or as for `grade`.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a JSON Lines file")
    found = _graded(json_rows(path), scorer, boxes)
    if not found:
        raise InputError(f"{path}: empty, so there is nothing to grade")
    return found


def _graded(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    scorer: str | Scorer | Callable[[str, str], Any],
    boxes: Boxes | None,
) -> list[Grade]:
    known = find_scorer(scorer, boxes)
    return [_grade(where, row, n, known) for n, (where, row) in enumerate(rows, 1)]


def _grade(where: str, row: Mapping[str, Any], number: int, scorer: Scorer) -> Grade:
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: is {row!r}; write an object with gold and completion")
    for name in ("gold", "completion"):
        if row.get(name) is None:
            raise InputError(f"{where}: {name} is missing; add it")
    completion, finished = row["completion"], row.get("finished", True)
    earlier, identity = row.get("earlier", []), row.get("id", number)
    if not isinstance(completion, str):
        raise InputError(f"{where}: completion is {completion!r}; write it as text")
    if not isinstance(finished, bool):
        raise InputError(f"{where}: finished is {finished!r}; write true or false")
    thinking = row.get("thinking")
    if thinking is None:
        thinking = isinstance(row.get("prompt"), str) and opens_thought(row["prompt"])
    if not isinstance(thinking, bool):
        raise InputError(f"{where}: thinking is {thinking!r}; write true or false")
    if not isinstance(earlier, (list, tuple)) or not all(
        one is None or isinstance(one, str) for one in earlier
    ):
        raise InputError(f"{where}: earlier is {earlier!r}; write a list of answers as text")
    if isinstance(identity, bool) or not isinstance(identity, (str, int)):
        raise InputError(f"{where}: id is {identity!r}; write text or an integer")
    scorer = scorer.of_question(str(row.get("question") or row.get("prompt") or ""), row)
    try:
        gold = scorer.target(row["gold"])
    except InputError as error:
        raise InputError(f"{where}: gold: {error}") from None
    reading = scorer.read(completion, finished=finished, thinking=thinking, earlier=earlier)
    if reading.answer is None:
        return Grade(identity, None, False, reading.how)
    verdict = scorer.grade(gold, reading.answer)
    return Grade(identity, reading.answer, verdict.equal, f"{reading.how}: {verdict.why}")
