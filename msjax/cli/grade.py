"""`msjax grade`: what is read from completions, whether it is right, and why."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from msjax.cli.output import OutputFile

if TYPE_CHECKING:
    from msjax.tasks.grading import Grade as Graded


@dataclass(frozen=True)
class Grade:
    """Grade completions just as a run does, and say of each how it was read and compared.

    Every line of the file has gold and completion, and maybe finished (false if it was cut),
    earlier (a list of answers that the model was shown before), prompt (the text that the model was
    given) or thinking (true if that text opened a thought), options or question (for choices that
    are said by their text), and id.

    Example: msjax grade completions.jsonl --json grades.json
    """

    file: tyro.conf.Positional[Path]
    """JSON Lines file."""
    scorer: str = "math"
    """math, number, choice or exact, or a function of your own as module:function."""
    boxes: Literal["last", "first", "all"] = "last"
    """Which of several boxes counts; all: they must agree."""
    json: OutputFile | None = None
    """Write a list of id, answer, correct and why here, in the order of the lines."""

    def run(self) -> int:
        """Grade, print, return 0."""
        from msjax.cli.output import write_json
        from msjax.tasks.grading import grade_file
        from msjax.tasks.math_equal import COUNTS

        found = grade_file(self.file, self.scorer, self.boxes)
        print(_table(found))
        print(_summary(found))
        if COUNTS.slow or COUNTS.retried or COUNTS.lost:
            print(
                f"the grader gave up on {COUNTS.slow} comparisons at its deadline, was started "
                f"again for {COUNTS.retried}, and failed on {COUNTS.lost}; those given up and "
                "failed count as wrong"
            )
        if self.json is not None:
            write_json(self.json, found)
        return 0


def _table(grades: "list[Graded]") -> str:
    rows = [("id", "answer", "", "why")]
    for one in grades:
        answer = "-" if one.answer is None else " ".join(one.answer.split())
        rows.append((str(one.id), _cut(answer, 24), "right" if one.correct else "wrong", one.why))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[3]])
        for row in rows
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _summary(grades: "list[Graded]") -> str:
    right = sum(one.correct for one in grades)
    none = Counter(one.why for one in grades if one.answer is None)
    lines = [f"{right} of {len(grades)} right, {sum(none.values())} without an answer"]
    lines += [f"  {count} x {why}" for why, count in none.most_common()]
    return "\n".join(lines)
