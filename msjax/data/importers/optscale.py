r"""Pools as OptScale's public code writes them: completions with scores, and their prompts.

Completions: a list with one item per question, `item["score"]` holding `completions`,
`completion_tokens` and `scores`, each a list that holds one list of samples. Prompts: a list of the
same length, with the right answer under "answer". Answers are read and graded like those of a run
(docs/answers.md), but for completions without a box or a statement, which have none: many were cut.

Reference: OptScale (arXiv 2506.22376), public code.
"""

import reprlib
from functools import partial
from pathlib import Path
from typing import Any

from msjax._io import reading
from msjax.data.json_lines import parse_json
from msjax.data.runs import Runs
from msjax.data.usage import MOST_TOKENS
from msjax.errors import InputError
from msjax.tasks import scorers

__all__ = ["read_optscale"]


def read_optscale(completions: Path, prompts: Path) -> Runs:
    """One pool from a pair of files; tokens are those of the completions alone.

    Raises InputError when a file is absent or not as described, or the two differ in length.
    """
    items, questions = _read(completions), _read(prompts)
    if len(items) != len(questions):
        raise InputError(
            f"{completions} has {len(items)} questions, {prompts} {len(questions)}; give a pair"
        )
    math = scorers.math()
    answers, correct, scores, tokens = [], [], [], []
    for i, (item, question) in enumerate(zip(items, questions, strict=True)):
        try:
            sample = {name: item["score"][name][0] for name in _LISTS}
            given = question["answer"]
            _check_kinds(sample)
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"{completions}, question {i}: {error!r}; each item needs score.completions, "
                "score.completion_tokens and score.scores, each a list with one list of samples, "
                "and each prompt an answer"
            ) from None
        if len({len(values) for values in sample.values()}) != 1:
            raise InputError(f"{completions}, question {i}: its lists differ in length")
        gold = _gold(math, given, f"{prompts}, question {i}")
        read = [math.read(text, finished=False).answer for text in sample["completions"]]
        correct.append([math.grade(gold, answer).equal for answer in read])
        spelled: list[str | None] = []
        for answer in read:
            spelled.append(math.spelled_as(answer, spelled, partial(_is_right, math, gold)))
        answers.append(spelled)
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


def _check_kinds(sample: dict[str, Any]) -> None:
    """Raises TypeError at a value that is none of its list."""
    for name, kinds in _KINDS.items():
        if not isinstance(sample[name], list) or not sample[name]:
            raise TypeError(f"{name} is no list of samples")
        for value in sample[name]:
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise TypeError(f"{name} holds {reprlib.repr(value)}")
    for tokens in sample["completion_tokens"]:
        if not 0 <= tokens <= MOST_TOKENS:
            raise TypeError(f"completion_tokens holds {reprlib.repr(tokens)}")
    if not all(abs(score) < _GREATEST for score in sample["scores"]):
        raise TypeError("scores holds a number without end")


def _gold(math: scorers.Scorer, given: Any, where: str) -> str:
    try:
        return math.target(given)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _is_right(math: scorers.Scorer, gold: str, answer: str | None) -> bool:
    return math.grade(gold, answer).equal


_GREATEST = 1e300
_KINDS: dict[str, Any] = {"completions": str, "completion_tokens": int, "scores": int | float}
_LISTS = tuple(_KINDS)


def _read(path: Path) -> list[Any]:
    with reading(path, "give a file as OptScale's public code writes it"):
        found = parse_json(path.read_bytes().decode())
    if not isinstance(found, list) or not found:
        raise InputError(f"{path}: must hold a list with one item per question")
    return found
