"""Scorers: how an answer is read from a completion, and when it is right.

`math` (the default of files), `number`, `choice` and `exact`, or a function of your own:

    scorer = msjax.tasks.scorers.own(lambda answer, target: answer.lower() == target.lower())

Wherever a scorer is named, on the command line too, "module:function" names one of your own: the
function takes an answer and the target and says whether it is right, or takes nothing and returns a
`Scorer`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msjax._io import load_named
from msjax.errors import InputError
from msjax.tasks import math_equal
from msjax.tasks.characters import clean
from msjax.tasks.extract import (
    Boxes,
    Reader,
    Reading,
    choice_reader,
    math_reader,
    number_reader,
    read_answer,
    text_reader,
    whole_reader,
)
from msjax.tasks.math_equal import Comparison
from msjax.tasks.math_form import canonical_math, quantity
from msjax.tasks.options import chosen, options_of
from msjax.tasks.values import rounds_to, value

__all__ = [
    "SCORERS",
    "Scorer",
    "choice",
    "exact",
    "find_scorer",
    "math",
    "number",
    "own",
]


def _same_text(one: str, other: str) -> bool:
    return one == other


@dataclass(frozen=True)
class Scorer:
    """How answers are read and compared.

    Attributes:
        name: for records and messages.
        reader: finds the answer in a completion.
        compare: whether an answer (second) is right, given the target (first).
        form: the canonical form of a target; "" where it has none.
        same: whether two answers are one for whoever counts them, whatever the target is.
        boxes: which of several boxes counts: last, first, or all, which must agree.
        reads_cut: whether a completion that was cut is read like a finished one.
        checks_targets: whether a target must be an answer that is right.
        knowing: the scorer for a question with these options, by letter, where it matters.
    """

    name: str
    reader: Reader
    compare: Callable[[str, str], Comparison]
    form: Callable[[str], str]
    same: Callable[[str, str], bool] = _same_text
    boxes: Boxes = "last"
    reads_cut: bool = False
    checks_targets: bool = True
    knowing: Callable[[Mapping[str, str]], Scorer] | None = None

    def of_question(self, text: str, record: Mapping[str, Any]) -> Scorer:
        """The scorer for a question, whose options it reads by their text as well.

        Args:
            text: what is asked.
            record: the other fields of the question's record; see `options.options_of`.
        """
        options = {} if self.knowing is None else options_of(text, record)
        return self.knowing(options) if self.knowing is not None and options else self

    def read(
        self,
        text: str,
        *,
        finished: bool = True,
        thinking: bool = False,
        earlier: Sequence[str | None] = (),
    ) -> Reading:
        """The answer of a completion and how it was found; see `extract.read_answer`."""
        return read_answer(
            text,
            self.reader,
            finished=finished or self.reads_cut,
            thinking=thinking,
            earlier=earlier,
            boxes=self.boxes,
        )

    def grade(self, target: str, answer: str | None) -> Comparison:
        """Whether an answer is right; None is wrong. It depends on nothing but the two."""
        return Comparison(False, "no answer") if answer is None else self.compare(target, answer)

    def spelled_as(
        self,
        answer: str | None,
        earlier: Sequence[str | None],
        verify: Callable[[str | None], bool] | None = None,
    ) -> str | None:
        """An answer in the spelling of the first earlier one that is the same, for answer ids.

        Every answer is compared with the first of its kind, so nothing is the same by a chain.
        Takes at most one comparison per different earlier answer.

        Args:
            answer: what was read.
            earlier: answers that the same question got before, each as this function returned it.
            verify: whether an answer is right, where that is known; answers of different grades
                are then never the same.
        """
        if answer is None or answer in earlier:
            return answer
        for one in dict.fromkeys(earlier):
            if one is None or not self.same(one, answer):
                continue
            if verify is None or verify(one) == verify(answer):
                return one
        return answer

    def target(self, given: Any) -> str:
        """A target as it stands in a file, in canonical form.

        A worked answer counts with what follows its "####".

        Raises:
            InputError: no text or number, nothing in it, or no answer could ever match it.
        """
        if given != given or isinstance(given, bool) or not isinstance(given, (str, int, float)):
            raise InputError(f"answer is {given!r}; write it as text or as a number")
        text = clean(str(given)).rpartition("####")[2].strip()
        form = self.form(text)
        if not form:
            raise InputError(
                f"answer is {given!r}, which is no answer that the scorer {self.name} can read; "
                "write the right answer, or choose another scorer"
            )
        plain = re.fullmatch(r"-?[1-9]\d{0,14}", form)  # which every scorer that has a form reads
        if (
            self.checks_targets
            and plain is None
            and not any(
                self.grade(form, self.read(said).answer).equal
                for said in (rf"\boxed{{{text}}}", text)
            )
        ):
            raise InputError(
                f"answer is {given!r}, which no completion can ever match with the scorer "
                f"{self.name}; write the answer alone, or choose another scorer"
            )
        return form


def math(boxes: Boxes = "last") -> Scorer:
    """Mathematical answers; docs/answers.md says what counts as equal.

    Args:
        boxes: which of several boxes counts; with "all" they must agree.
    """
    return Scorer(
        "math",
        math_reader(),
        math_equal.compare,
        canonical_math,
        same=math_equal.same,
        boxes=boxes,
    )


def number(boxes: Boxes = "last", last_alone: bool = False) -> Scorer:
    """Numbers, exactly: units, currency and per cent signs are passed over.

    Args:
        boxes: which of several boxes counts; with "all" they must agree.
        last_alone: whether nothing but the last number of a completion counts.
    """

    def compare(target: str, answer: str) -> Comparison:
        right, given = value(target), value(answer)
        if right is None or given is None:
            return Comparison(target == answer, "compared as text")
        equal = right == given or rounds_to(right, given) or rounds_to(given, right)
        return Comparison(equal, "compared as exact numbers")

    reader = number_reader(last_alone)
    return Scorer("number", reader, compare, lambda text: _number(text) or "", boxes=boxes)


def _number(text: str) -> str | None:
    form = canonical_math(text)
    found = quantity(form)
    exact_value = value(form) if found is None else found.number
    return None if exact_value is None else canonical_math(str(exact_value))


def choice(letters: str = "ABCDEFGHIJ", options: Mapping[str, str] | None = None) -> Scorer:
    """The letter of an option, said by its letter or, where options are known, by its text.

    Args:
        letters: of the options, in upper case.
        options: their texts by letter; None: those of each question, see `options.options_of`.

    Raises:
        InputError: `letters` is not one or more different letters in upper case.
    """
    if not re.fullmatch(r"[A-Z]+", letters) or len(set(letters)) != len(letters):
        raise InputError(f"letters is {letters!r}; give different letters, such as 'ABCD'")

    def compare(target: str, answer: str) -> Comparison:
        return Comparison(target == answer, "compared as letters")

    def form(target: str) -> str:
        bare = re.sub(r"[\W_]", "", target).upper()
        if len(bare) == 1 and bare in (options or letters):
            return bare
        by_text = chosen(target, options or {})
        # A number may be the text of an option as well as its place.
        place = target.isdecimal() and int(target) <= len(options or {})
        return "" if by_text is None or place else by_text

    return Scorer(
        "choice",
        choice_reader(letters, options),
        compare,
        form,
        knowing=None if options else lambda known: choice(letters, known),
    )


def exact(ignore_case: bool = False) -> Scorer:
    """Text that is equal once white space and look-alike characters are.

    Args:
        ignore_case: whether "paris" is "Paris".
    """

    def plain(text: str) -> str:
        joined = " ".join(clean(text).split())
        return joined.casefold() if ignore_case else joined

    def compare(target: str, answer: str) -> Comparison:
        return Comparison(plain(target) == plain(answer), "compared as text")

    return Scorer(
        "exact",
        text_reader(),
        compare,
        lambda text: " ".join(text.split()),
        same=lambda one, other: plain(one) == plain(other),
    )


def own(
    function: Callable[[str, str], Any], *, read: str = "text", name: str | None = None
) -> Scorer:
    """A scorer from a function of an answer and the target that says whether it is right.

    Args:
        function: takes the answer and the target, as text.
        read: what the answer is: "text" (the explicit answer, else the last line), "math",
            "number", "choice", or "completion", all that is said after the thought.
        name: for records; by default the function's.

    Raises:
        InputError: `read` is unknown.
    """
    readers = {
        "text": text_reader,
        "math": math_reader,
        "number": number_reader,
        "choice": choice_reader,
        "completion": whole_reader,
    }
    if read not in readers:
        raise InputError(f"read is {read!r}; choose from {', '.join(readers)}")
    title = name or str(getattr(function, "__name__", "own"))

    def compare(target: str, answer: str) -> Comparison:
        return Comparison(bool(function(answer, target)), f"judged by {title}")

    return Scorer(
        title,
        readers[read](),
        compare,
        lambda text: text.strip(),
        boxes="last",
        checks_targets=False,
    )


SCORERS: dict[str, Callable[[], Scorer]] = {
    "math": math,
    "number": number,
    "choice": choice,
    "exact": exact,
}
"""Scorers by name."""


def find_scorer(
    scorer: str | Scorer | Callable[[str, str], Any], boxes: Boxes | None = None
) -> Scorer:
    """A scorer by name, as "module:function", as a function of answer and target, or as it is.

    Args:
        scorer: a name of `SCORERS`, or another of these.
        boxes: which of several boxes counts; None leaves that to the scorer.

    Raises:
        InputError: an unknown name, or an object that is no scorer.
    """
    found: Any = scorer
    if isinstance(scorer, str):
        if scorer in SCORERS:
            found = SCORERS[scorer]()
        elif ":" in scorer:
            found = load_named(scorer, "scorer")
        else:
            raise InputError(
                f"scorer {scorer!r} is unknown; choose from {', '.join(SCORERS)}, or name a "
                "function of your own as module:function"
            )
    if not isinstance(found, Scorer) and callable(found):
        wanted = [
            one
            for one in inspect.signature(found).parameters.values()
            if one.default is one.empty and one.kind is not one.VAR_KEYWORD
        ]
        found = found() if not wanted else own(found)
    if not isinstance(found, Scorer):
        raise InputError(
            f"scorer {scorer!r} is a {type(found).__name__}; give a function of an answer and the "
            "target, or one without arguments that returns a Scorer"
        )
    return found if boxes is None else replace(found, boxes=boxes)
