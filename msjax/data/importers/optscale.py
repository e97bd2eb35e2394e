r"""Pools as OptScale's public code writes them: completions with scores, and their prompts.

Completions: a list with one item per question, `item["score"]` holding `completions`,
`completion_tokens` and `scores`, each a list that holds one list of samples. Prompts: a list of the
same length, with the right answer under "answer". Answers are what the last \boxed{} holds, in a
plain normal form: equal numbers are equal, other expressions if they are written alike. Answers
that are equal by algebra alone count as different, unlike in OptScale's own grading.

Reference: OptScale (arXiv 2506.22376), public code.
"""

import json
import re
from pathlib import Path
from typing import Any

from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.tasks.extract import extract_number

__all__ = ["boxed_answer", "read_optscale"]

_FORMATTING = re.compile(r"\\left|\\right|\\!|\\,|\\;|\\ |\\\$|\$|\s")


def boxed_answer(completion: str) -> str | None:
    r"""What the last \boxed{} with balanced braces holds, normalised; None if there is none."""
    start = completion.rfind("\\boxed{")
    while start >= 0:
        depth = 0
        for i in range(start + len("\\boxed"), len(completion)):
            depth += {"{": 1, "}": -1}.get(completion[i], 0)
            if depth == 0:
                return normal_form(completion[start + len("\\boxed{") : i])
        start = completion.rfind("\\boxed{", 0, start)
    return None


def normal_form(answer: str) -> str:
    """An answer without spaces and formatting; a number in canonical form."""
    plain = _FORMATTING.sub("", answer).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    plain = plain.rstrip(".")
    whole = re.fullmatch(r"-?[\d,]*\.?\d+", plain)
    return extract_number(plain) or plain if whole else plain


def read_optscale(completions: Path, prompts: Path) -> Runs:
    """One pool from a pair of files; tokens are those of the completions alone.

    Raises InputError when a file is absent or not as described, or the two differ in length.
    """
    items, questions = _read(completions), _read(prompts)
    if len(items) != len(questions):
        raise InputError(
            f"{completions} has {len(items)} questions, {prompts} {len(questions)}; give a pair"
        )
    answers, correct, scores, tokens = [], [], [], []
    for i, (item, question) in enumerate(zip(items, questions, strict=True)):
        try:
            sample = {name: item["score"][name][0] for name in _LISTS}
            gold = normal_form(str(question["answer"]))
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"{completions}, question {i}: {error!r}; each item needs score.completions, "
                "score.completion_tokens and score.scores, each a list with one list of samples, "
                "and each prompt an answer"
            ) from None
        if len({len(values) for values in sample.values()}) != 1:
            raise InputError(f"{completions}, question {i}: its lists differ in length")
        found = [boxed_answer(text) for text in sample["completions"]]
        answers.append(found)
        correct.append([answer == gold for answer in found])
        scores.append(sample["scores"])
        tokens.append(sample["completion_tokens"])
    return Runs.from_arrays(
        correct,
        answers=answers,
        scores=scores,
        tokens={"completion": tokens},
        benchmark=completions.stem,
        protocol="parallel",
    )


_LISTS = ("completions", "completion_tokens", "scores")


def _read(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(found, list) or not found:
        raise InputError(f"{path}: must hold a list with one item per question")
    return found
