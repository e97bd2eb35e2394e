"""What a task is: questions, how they are asked, how answers are read and graded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from msjax.data.messages import Completion, Message, asked
from msjax.errors import InputError
from msjax.tasks.extract import Reading
from msjax.tasks.math_equal import Comparison
from msjax.tasks.prompts import NO_ANSWER, TEMPLATES, Template, find_template
from msjax.tasks.samples import Samples
from msjax.tasks.scorers import Scorer, find_scorer

__all__ = ["USUAL", "Question", "Task"]

USUAL = 40
"""Questions that are asked where no number is given."""


@dataclass(frozen=True)
class Question:
    """One question of a task.

    Attributes:
        benchmark: name of the task.
        id: position in the task's stream, as text, or the id it was published with.
        text: what is asked, e.g. "3 + 4".
        gold: the right answer.
        grade: whether an extracted answer is right (None is wrong), and why.
        metadata: what else its file says of it.
    """

    benchmark: str
    id: str
    text: str
    gold: str
    grade: Callable[[str | None], Comparison]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def verify(self, answer: str | None) -> bool:
        """Whether an extracted answer is right; None is wrong."""
        return self.grade(answer).equal


@dataclass(frozen=True, init=False)
class Task:
    """Questions, the prompts that ask them, and the scorer that reads and grades answers.

    Attributes:
        name: used in records and plots.
        stream: starts the stream of questions, the same on every call.
        scorer: reads completions and grades answers.
        template: the prompts.
        examples: question and answer pairs that precede every conversation as earlier turns.
        example_answer: template of the answers in `examples`; {question} and {answer} are replaced.
    """

    name: str
    stream: Callable[[], Iterator[Question]]
    scorer: Scorer
    template: Template
    examples: tuple[tuple[str, str], ...]
    example_answer: str

    def __init__(
        self,
        samples: Samples | Callable[[], Iterator[Question]],
        *,
        scorer: str | Scorer | Callable[[str, str], Any] = "math",
        template: str | Template = TEMPLATES["reconsider"],
        name: str | None = None,
        examples: Sequence[tuple[str, str]] = (),
        example_answer: str = "{answer}",
    ):
        """A task from samples.

        Args:
            samples: what `msjax.tasks.samples` returns, or what starts a stream of questions.
            scorer: see `msjax.tasks.scorers.find_scorer`.
            template: see `msjax.tasks.prompts.find_template`.
            name: by default that of the samples.
            examples: see above.
            example_answer: see above.

        Raises:
            InputError: an unknown scorer or template, a target that no answer can match (named
                with its place), or a stream without a name.
        """
        found = find_scorer(scorer)
        if isinstance(samples, Samples):
            name = name or samples.name
            stream: Callable[[], Iterator[Question]] = tuple(
                _questions(name, samples, found)
            ).__iter__
        elif name is None:
            raise InputError("name is missing; a stream of questions needs one")
        else:
            stream = samples
        values = {
            "name": name,
            "stream": stream,
            "scorer": found,
            "template": template if isinstance(template, Template) else find_template(template),
            "examples": tuple(examples),
            "example_answer": example_answer,
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    @property
    def new_conversation(self) -> bool:
        """Whether every revision is a conversation anew rather than one more turn."""
        return self.template.new_conversation

    def asked_with(self, template: Template) -> "Task":
        """The same questions with other prompts, without the examples, whose form is their own."""
        return Task(self.stream, scorer=self.scorer, template=template, name=self.name)

    def conversation(self, question: Question | str) -> list[Message]:
        """What is said before the first answer: the system message, the examples, the question."""
        prompt = self.template.first_prompt.format(question=_text(question))
        return [*self._opening(), *asked(prompt)]

    def revision(self, question: Question | str, answer: str | None) -> list[Message]:
        """What is said to have an answer revised; in a new conversation the opening as well."""
        shown = NO_ANSWER if answer is None else answer
        prompt = self.template.revise_prompt.format(question=_text(question), answer=shown)
        again = asked(prompt)
        return [*self._opening(), *again] if self.new_conversation else again

    def _opening(self) -> list[Message]:
        turns: list[Message] = []
        if self.template.system:
            turns.append({"role": "system", "content": self.template.system.format()})
        for example, answer in self.examples:
            turns += asked(self.template.first_prompt.format(question=example))
            content = self.example_answer.format(question=example, answer=answer)
            turns.append({"role": "assistant", "content": content})
        return turns

    def reading(
        self,
        completion: Completion,
        earlier: Sequence[str | None] = (),
        question: Question | None = None,
    ) -> Reading:
        """The answer of a completion and how it was found; see `read`."""
        scorer = self.scorer
        if question is not None:
            scorer = scorer.of_question(question.text, question.metadata)
        return scorer.read(
            completion.text,
            finished=completion.finished,
            thinking=completion.thinking,
            earlier=earlier,
        )

    def read(
        self,
        completion: Completion,
        earlier: Sequence[str | None] = (),
        question: Question | None = None,
    ) -> str | None:
        """The answer of a completion, None if it has none; this is what is graded.

        A completion that was cut has none but an explicit one that is surely whole.

        Args:
            completion: what the model wrote.
            earlier: answers it was shown before, which it may call correct without repeating them.
            question: that it answers, where an answer may be the text of one of its options.
        """
        return self.reading(completion, earlier, question).answer

    def spelled_as(
        self,
        answer: str | None,
        earlier: Sequence[str | None],
        question: Question | None = None,
    ) -> str | None:
        """An answer in the spelling of the first earlier one that is the same, for answer ids.

        Args:
            answer: what was read.
            earlier: answers that the same question got before, each as this function returned it.
            question: whose answers they are, where grades are known; answers of different grades
                are then never the same.
        """
        verify = None if question is None else question.verify
        return self.scorer.spelled_as(answer, earlier, verify)

    def questions(self, start: int, count: int | None = None) -> list[Question]:
        """Questions start, start + 1, ..., of the stream, all different from each other.

        Args:
            start: how many to pass over.
            count: how many; None takes `USUAL`, or all that are left.

        Raises:
            InputError: the task has fewer different questions than that, or none is left.
        """
        least = 1 if count is None else count
        found = list(islice(self.stream(), start + (USUAL if count is None else count)))
        if len(found) < start + least:
            raise InputError(
                f"{self.name} has {len(found)} different questions, but questions "
                f"{start} to {start + least - 1} were asked for; lower --questions or --start"
            )
        return found[start:]


def _text(question: Question | str) -> str:
    return question if isinstance(question, str) else question.text


def _questions(name: str, samples: Samples, scorer: Scorer) -> Iterator[Question]:
    for sample in samples:
        known = scorer.of_question(sample.question, sample.metadata)
        try:
            gold = known.target(sample.target)
        except InputError as error:
            raise InputError(f"{sample.where}: {error}") from None
        yield Question(name, sample.id, sample.question, gold, _Grade(known, gold), sample.metadata)


@dataclass(frozen=True)
class _Grade:
    scorer: Scorer
    gold: str

    def __call__(self, answer: str | None) -> Comparison:
        return self.scorer.grade(self.gold, answer)
