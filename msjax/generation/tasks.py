"""Benchmarks a run can ask: procedural arithmetic with a verifier (reasoning-gym).

A benchmark is an endless, fixed stream of different questions; question i is the same on every
machine, so a pilot takes the first ones and a fresh set starts where the pilot ended.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from msjax.errors import InputError
from msjax.generation.engine import Message, asked

_STREAM_SEED = 20260201
_CHUNK = 512


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Attributes:
        benchmark: name of the benchmark.
        id: position in the benchmark's stream, as text.
        text: what to compute, e.g. "3 + 4".
        gold: the right answer.
        verify: grades an extracted answer (None is wrong); the dataset's own verifier decides.
    """

    benchmark: str
    id: str
    text: str
    gold: str
    verify: Callable[[str | None], bool]


@dataclass(frozen=True)
class Benchmark:
    """A stream of questions and the prompts that ask them.

    Attributes:
        name: used in records and plots.
        dataset: name in reasoning-gym.
        options: the dataset's settings.
        first_prompt: template of the first user message; {question} is replaced.
        answer: template of the answers in `examples`; {question} and {answer} are replaced.
        examples: question and answer pairs that precede every conversation as earlier turns.
        revise_prompt: template of every later user message.
    """

    name: str
    dataset: str
    options: dict[str, Any]
    first_prompt: str
    answer: str
    examples: tuple[tuple[str, str], ...]
    revise_prompt: str

    def conversation(self, question: "Question") -> list[Message]:
        """What is said before the first answer: the examples, then the question."""
        turns: list[Message] = []
        for example, answer in self.examples:
            turns += asked(self.first_prompt.format(question=example))
            content = self.answer.format(question=example, answer=answer)
            turns.append({"role": "assistant", "content": content})
        return turns + asked(self.first_prompt.format(question=question.text))

    def revision(self, question: "Question") -> str:
        """The user message that asks to revise."""
        return self.revise_prompt.format(question=question.text)

    def questions(self, start: int, count: int) -> list[Question]:
        """Questions start, start + 1, ..., of the stream, all different from each other.

        Raises:
            InputError: the benchmark has fewer different questions than that.
        """
        found = list(islice(self._stream(), start, start + count))
        if len(found) < count:
            raise InputError(
                f"{self.name} has {start + len(found)} different questions, but questions "
                f"{start} to {start + count - 1} were asked for; lower --questions or --start"
            )
        return found

    def _stream(self) -> Iterator[Question]:
        import reasoning_gym

        seen: set[str] = set()
        barren = 0
        seed = _STREAM_SEED
        while barren < 3:
            dataset = reasoning_gym.create_dataset(
                self.dataset, seed=seed, size=_CHUNK, **self.options
            )
            before = len(seen)
            for entry in dataset:
                text = entry["metadata"]["expression"]
                if text not in seen:
                    seen.add(text)
                    number = f"{len(seen) - 1:05d}"
                    verify = _verifier(dataset, entry)
                    yield Question(self.name, number, text, entry["answer"], verify)
            barren = 0 if len(seen) > before else barren + 1
            seed += _CHUNK  # entry i of a dataset is drawn from seed + i


def _verifier(dataset: Any, entry: dict[str, Any]) -> Callable[[str | None], bool]:
    def verify(answer: str | None) -> bool:
        return answer is not None and dataset.score_answer(answer, entry) == 1.0

    return verify


def _arithmetic(
    name: str, dataset: str, digits: int, examples: tuple[tuple[str, str], ...]
) -> Benchmark:
    options = {"min_terms": 2, "max_terms": 2, "min_digits": digits, "max_digits": digits}
    return Benchmark(
        name=name,
        dataset=dataset,
        options=options,
        first_prompt="What is {question}?",
        answer="{question} = {answer}",
        examples=examples,
        revise_prompt="Are you sure? What is {question}?",
    )


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
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
    )
}
"""The arithmetic benchmarks by name: products of digits, sums of digits, sums of two-digit numbers.

SmolLM2-135M-Instruct answers about .8, .5 and .2 of them right at once.
"""
