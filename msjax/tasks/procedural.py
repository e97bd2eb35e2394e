"""Benchmarks that are drawn, not stored: tasks of reasoning-gym with their own verifiers.

Each is an endless, fixed stream of different questions; question i is the same on every machine, so
a pilot takes the first ones and a fresh set starts where the pilot ended.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from typing import Any

from msjax.errors import require_extra
from msjax.tasks import scorers
from msjax.tasks.benchmark import Question, Task
from msjax.tasks.math_equal import Comparison
from msjax.tasks.prompts import Template

__all__ = ["PROCEDURAL"]

_STREAM_SEED = 20260201
_CHUNK = 512
_LETTERS = "ABCDEF"


@dataclass(frozen=True)
class _Stream:
    """Different questions of one reasoning-gym dataset.

    Attributes:
        benchmark: name of the benchmark.
        dataset: name in reasoning-gym.
        text: what is asked, from an entry of the dataset.
        options: answers by letter, from an entry of the dataset; empty where the answer is free.
        settings: of the dataset.
    """

    benchmark: str
    dataset: str
    text: Callable[[dict[str, Any]], str]
    options: Callable[[dict[str, Any]], dict[str, str]] = lambda entry: {}
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> Iterator[Question]:
        require_extra("tasks", "reasoning_gym")
        with warnings.catch_warnings():
            # Of its dependency cellpylib, wherever that is compiled for the first time.
            warnings.simplefilter("ignore", SyntaxWarning)
            import reasoning_gym

        seen: set[str] = set()
        barren = 0
        seed = _STREAM_SEED
        while barren < 3:
            dataset = reasoning_gym.create_dataset(
                self.dataset, seed=seed, size=_CHUNK, **self.settings
            )
            before = len(seen)
            for index in range(_CHUNK):
                with redirect_stdout(io.StringIO()):  # some generators print progress
                    entry = dataset[index]
                text = self.text(entry)
                if text not in seen:
                    seen.add(text)
                    yield self._question(f"{len(seen) - 1:05d}", text, dataset, entry)
            barren = 0 if len(seen) > before else barren + 1
            seed += _CHUNK  # entry i of a dataset is drawn from seed + i

    def _question(self, number: str, text: str, dataset: Any, entry: dict[str, Any]) -> Question:
        options = self.options(entry)

        def grade(answer: str | None) -> Comparison:
            meant = options.get(answer or "") if options else answer
            right = meant is not None and dataset.score_answer(meant, entry) == 1.0
            return Comparison(right, "judged by the task's own verifier")

        gold = next((letter for letter in options if grade(letter).equal), entry["answer"])
        return Question(self.benchmark, number, text, gold, grade)


def _arithmetic(
    name: str, dataset: str, digits: int, examples: tuple[tuple[str, str], ...]
) -> Task:
    settings = {"min_terms": 2, "max_terms": 2, "min_digits": digits, "max_digits": digits}
    return Task(
        _Stream(name, dataset, lambda entry: entry["metadata"]["expression"], settings=settings),
        name=name,
        # The recordings that ship with the package count the last number of cut completions.
        scorer=replace(scorers.number(last_alone=True), reads_cut=True),
        template=Template("What is {question}?", "Are you sure? What is {question}?"),
        examples=examples,
        example_answer="{question} = {answer}",
    )


def _colours(entry: dict[str, Any]) -> dict[str, str]:
    return dict(zip(_LETTERS, sorted(entry["metadata"]["initial_state"].values()), strict=True))


def _cube_text(entry: dict[str, Any]) -> str:
    asked, _, _ = entry["question"].rpartition("\n")  # what form the answer takes is said below
    options = "\n".join(f"{letter}) {colour}" for letter, colour in _colours(entry).items())
    return f"{asked}\nAnswer with the letter of one option.\n{options}"


def _program_text(entry: dict[str, Any]) -> str:
    return str(entry["question"].rpartition("\n\n")[0])


PROCEDURAL = (
    _arithmetic(
        "arithmetic-easy", "products", 1, (("5 * 3", "15"), ("9 * 4", "36"), ("6 * 8", "48"))
    ),
    _arithmetic(
        "arithmetic-medium", "chain_sum", 1, (("5 + 3", "8"), ("9 - 4", "5"), ("6 - 8", "-2"))
    ),
    _arithmetic(
        "arithmetic-hard",
        "chain_sum",
        2,
        (("35 + 13", "48"), ("97 - 41", "56"), ("26 - 70", "-44")),
    ),
    Task(
        _Stream("cube-choice", "color_cube_rotation", _cube_text, _colours),
        name="cube-choice",
        scorer=scorers.choice(_LETTERS),
        template="reconsider",
    ),
    Task(
        _Stream("program-output", "bf", _program_text),
        name="program-output",
        scorer="exact",
        template="step-by-step",
    ),
)
