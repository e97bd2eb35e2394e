"""What a benchmark is: a fixed stream of questions, how they are asked, how answers are read."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice

from msjax.data.messages import Completion, Message, asked
from msjax.errors import InputError
from msjax.tasks.extract import explicit_part
from msjax.tasks.prompts import NO_ANSWER, Template

__all__ = ["Benchmark", "Question"]


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Attributes:
        benchmark: name of the benchmark.
        id: position in the benchmark's stream, as text, or the id it was published with.
        text: what is asked, e.g. "3 + 4".
        gold: the right answer.
        verify: grades an extracted answer (None is wrong).
    """

    benchmark: str
    id: str
    text: str
    gold: str
    verify: Callable[[str | None], bool]


def _same_text(one: str, other: str) -> bool:
    return one == other


@dataclass(frozen=True)
class Benchmark:
    """A stream of questions, the prompts that ask them, and how completions are read.

    Attributes:
        name: used in records and plots.
        stream: starts the stream of questions, the same on every call.
        extract: from a finished completion to an answer in canonical form.
        first_prompt: see `Template`.
        revise_prompt: see `Template`.
        system: see `Template`.
        afresh: see `Template`.
        examples: question and answer pairs that precede every conversation as earlier turns.
        example_answer: template of the answers in `examples`; {question} and {answer} are replaced.
        same: whether an answer means the same as an earlier one, which comes first.
        reads_cut: whether a completion that was cut is read like a finished one.
    """

    name: str
    stream: Callable[[], Iterator[Question]]
    extract: Callable[[str], str | None]
    first_prompt: str
    revise_prompt: str
    system: str = ""
    afresh: bool = False
    examples: tuple[tuple[str, str], ...] = ()
    example_answer: str = "{answer}"
    same: Callable[[str, str], bool] = _same_text
    reads_cut: bool = False

    def asked_with(self, template: Template) -> "Benchmark":
        """The same questions with other prompts, without the examples, whose form is their own."""
        return replace(self, **asdict(template), examples=())

    def conversation(self, question: Question) -> list[Message]:
        """What is said before the first answer: the system message, the examples, the question."""
        return [*self._opening(), *asked(self.first_prompt.format(question=question.text))]

    def revision(self, question: Question, answer: str | None) -> list[Message]:
        """What is said to have the previous answer revised, with the opening if `afresh`."""
        shown = NO_ANSWER if answer is None else answer
        again = asked(self.revise_prompt.format(question=question.text, answer=shown))
        return [*self._opening(), *again] if self.afresh else again

    def _opening(self) -> list[Message]:
        turns: list[Message] = []
        if self.system:
            turns.append({"role": "system", "content": self.system.format()})
        for example, answer in self.examples:
            turns += asked(self.first_prompt.format(question=example))
            content = self.example_answer.format(question=example, answer=answer)
            turns.append({"role": "assistant", "content": content})
        return turns

    def read(self, completion: Completion, earlier: Sequence[str | None] = ()) -> str | None:
        """The answer of a completion, None if it has none.

        A completion that was cut has none but an explicit one (`answers.explicit_part`).
        An answer that means the same as an earlier one takes the spelling of the first such, so
        that equal answers are equal strings in records and get one answer id; that takes at most
        one comparison per different earlier answer.

        Args:
            completion: what the model wrote.
            earlier: answers that the same question got before.
        """
        whole = completion.finished or self.reads_cut
        answer = self.extract(completion.text if whole else explicit_part(completion.text))
        if answer is None or answer in earlier:
            return answer
        known = (one for one in dict.fromkeys(earlier) if one is not None)
        return next((one for one in known if self.same(one, answer)), answer)

    def questions(self, start: int, count: int) -> list[Question]:
        """Questions start, start + 1, ..., of the stream, all different from each other.

        Raises:
            InputError: the benchmark has fewer different questions than that.
        """
        found = list(islice(self.stream(), start + count))
        if len(found) < start + count:
            raise InputError(
                f"{self.name} has {len(found)} different questions, but questions "
                f"{start} to {start + count - 1} were asked for; lower --questions or --start"
            )
        return found[start:]
