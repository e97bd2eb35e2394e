r"""From what a model wrote to its answer: the one reader of the whole library.

The answer that is graded, the answer that a revision shows, the answer whose changes a rule sees
and the answers that vote come from the same reading. Thoughts are no answers: only what is said
after them is read. There an explicit answer, ``\boxed{...}`` or "the answer is ...", goes before
what is guessed from the text, and a verdict on an earlier answer is no answer of its own. None
means that there is no answer, and `Reading.how` says why.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from msjax.errors import InputError
from msjax.tasks.characters import clean
from msjax.tasks.math_form import (
    COMPOUND,
    FORMULA,
    MULTIPLIERS,
    SUFFIXES,
    WORD,
    canonical_math,
    date,
    measure,
    quantity,
    undress,
)
from msjax.tasks.number_words import in_digits
from msjax.tasks.options import chosen
from msjax.tasks.thoughts import spoken
from msjax.tasks.values import UNSIGNED, value, with_plain_groups
from msjax.tasks.verdicts import judged

__all__ = [
    "Boxes",
    "Reader",
    "Reading",
    "UNCLOSED",
    "choice_reader",
    "last_box",
    "math_reader",
    "number_reader",
    "read_answer",
    "text_reader",
    "whole_reader",
]

Boxes = Literal["last", "first", "all"]
"""Which of several boxes counts; all: they must agree."""

UNCLOSED = "a thought that never closed has no answer"
_WORKED = re.compile(r"=\s*\\?\$?-?\d|\*\*[^*\n]*\d[^*\n]*\*\*")  # a result of the text's own
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,;: ]|~|\{,\}|,\\!\s?)(?=\d{3}(?!\d))")
_NUM = re.compile(r"\\num\s*\{([^{}]*)\}")
_GAP = re.compile(r"[ \t]{4,}|\n{4,}")
# What is struck out, and marks of emphasis that are no more than that.
_STRUCK = re.compile(r"~~(?=\S)[^~\n]+~~|<(s|del|strike)>[^<\n]*</\1>", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:u|i|em|mark|code|kbd|p|div|span|center|font|br)(?:\s+[\w-]+\s*=[^<>\n]*)?\s*/?>",
    re.IGNORECASE,
)
_UNDERLINED = re.compile(r"(?<![\w\\{}^_])_([^\s_]|[^\s_][^_\n]*[^\s_])_(?![\w{}_])")
# 2**5, where the two stars open or close no bold part.
_POWER = re.compile(r"(?<=\d)\*\*(?=-?\d|\(-?\d)")
_LONGEST = 20_000  # characters at the end of a text in which all but boxes is looked for
_CUT = "cut before an explicit answer"


class Reading(NamedTuple):
    """What was read.

    Attributes:
        answer: in canonical form; None if there is none.
        how: how it was found, or why there is none.
    """

    answer: str | None
    how: str


@dataclass(frozen=True)
class Reader:
    """What an answer of one kind looks like.

    Attributes:
        boxed: the answer that the content of a box is.
        stated: the answer in what follows "the answer is", None where there is none.
        guessed: the answer in a text without an explicit one, and how it was found.
        verbatim: whether it looks at all that is said as it is, for boxes, statements and verdicts
            mean nothing to it.
    """

    boxed: Callable[[str], str | None]
    stated: Callable[[str], str | None]
    guessed: Callable[[str], Reading]
    verbatim: bool = False


def read_answer(
    text: str,
    reader: Reader,
    *,
    finished: bool = True,
    thinking: bool = False,
    earlier: Sequence[str | None] = (),
    boxes: Boxes = "last",
) -> Reading:
    """The answer of a completion.

    Args:
        text: the completion.
        reader: what kind of answer is looked for.
        finished: False if it was cut, so that only an explicit answer counts that is surely whole.
        thinking: whether the prompt ended inside a thought, so that the text begins with one.
        earlier: answers that the model was shown before; "that is correct" keeps the last of them.
        boxes: which of several boxes counts.

    Raises:
        InputError: `boxes` is none of last, first and all.
    """
    if boxes not in ("last", "first", "all"):
        raise InputError(f"boxes is {boxes!r}; choose last, first or all")
    anything = bool(text.strip())
    said = spoken(clean(text), thinking)
    if said is None:
        return Reading(None, UNCLOSED)
    finished = finished or said.closed
    if reader.verbatim:
        return reader.guessed(said.text) if finished else Reading(None, _CUT)
    text = _THOUSANDS.sub(",", with_plain_groups(_NUM.sub(r"\1", said.text)))
    text = _UNDERLINED.sub(r"\1", _TAG.sub(" ", _STRUCK.sub("", text)))
    text = _GAP.sub(lambda found: found[0][:3], _POWER.sub(_power, text))
    whole = _before_run_on(text[-_LONGEST:], reader)
    if not whole.strip():
        return Reading(None, "nothing follows the thought" if anything else "empty")
    rest, affirmed = judged(whole)
    explicit = (
        _after_a_turn(rest, reader, finished)
        or _boxed(rest, reader, boxes)
        or _boxed(text[:-_LONGEST], reader, boxes)
        or _stated(rest, reader, finished)
    )
    if explicit is None and said.tagged and finished:
        if (answer := reader.stated(rest.strip())) is not None:
            return Reading(answer, "the content of the answer's tag")
    if explicit is not None:
        return explicit
    if affirmed is not None:
        if affirmed and (kept := reader.stated(affirmed)) is not None:
            return Reading(kept, "the answer that the completion calls correct")
        last = next((one for one in reversed(earlier) if one is not None), None)
        if last is not None and not _WORKED.search(rest):
            return Reading(last, "the earlier answer, which the completion calls correct")
    if not finished:
        return Reading(None, _CUT)
    return reader.guessed(rest)


def _power(found: "re.Match[str]") -> str:
    """The sign of a power, unless a bold part is open before it in its line."""
    line = found.string[found.string.rfind("\n", 0, found.start()) + 1 : found.start()]
    opened = _POWER.sub("", line).count("**") % 2
    return found[0] if opened else "^"


# Questions that a model goes on to ask itself ------------------------------------------------

_NEXT_QUESTION = re.compile(
    r"^[ \t#*_>-]{0,12}(?:(?:next|new|follow-?up|another|sample)\s+)?(?:question|problem|exercise|q"
    r"|user|human|instruction|input|task|example)\s*#?\d*[*_]*\s*[:.)][*_]*(?=\s*\S)"
    r"|(?P<turn><\|(?:im_start|start_header_id|user)\|>|\[INST\])",
    re.IGNORECASE | re.MULTILINE,
)


def _before_run_on(text: str, reader: Reader) -> str:
    """A text up to where a model that has answered asks itself the next question."""
    for found in _NEXT_QUESTION.finditer(text):
        before = text[: found.start()]
        if not before.strip() or before.rstrip().endswith(":"):
            continue
        rest = judged(before).text
        if _boxed(rest, reader, "last") or _stated(rest, reader, True):
            return before
        begun = found["turn"] is not None or re.search(r"\n\s*$", before)
        if begun and reader.guessed(rest).answer is not None:
            return before
    return text


# Boxes ------------------------------------------------------------------------------------

_BOX_PIECE = re.compile(
    r"(?P<box>\\?(?<![A-Za-z])(?:boxed|fbox|framebox)\s*\{)|\\.|[{}]", re.DOTALL
)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*(-?\$?\d[\d,]*(?:\.\d+)?)")
_PLACEHOLDER = re.compile(
    r"[.\s?_]*|\\?(?:ldots|dots|cdots)|\\text\{\s*\}|(?:\\text\{)?[\[(<]?\s*"
    r"(?:your |the |final |my )*"
    r"(?:final[ _])?(?:answer|number|result|value|integer)(?: here)?\s*[\])>]?\}?"
    r"|\\square|(?:\\_)+",
    re.IGNORECASE,
)
_GLUE = re.compile(
    r"(?:\s*(?:[,;&]|\b(?:and|or)\b|\\text\{\s*,?\s*(?:and|or)\s*\}))+\s*"
    r"(?:[A-Za-z](?:\s?_\s?\{?\w+\}?)?\s*=)?\s*",
)


class _Box(NamedTuple):
    start: int
    end: int
    content: str


def _boxes(text: str) -> list[_Box]:
    """All boxes with balanced braces, without those inside another, in one pass."""
    found: list[_Box] = []
    open_: list[tuple[bool, int, int]] = []
    for piece in _BOX_PIECE.finditer(text):
        if piece["box"] or piece[0] == "{":
            open_.append((piece["box"] is not None, piece.start(), piece.end()))
        elif piece[0] == "}" and open_:
            is_box, start, inside = open_.pop()
            if is_box:
                while found and found[-1].start > start:
                    found.pop()
                found.append(_Box(start, piece.end(), text[inside : piece.start()].strip()))
    return found or [_Box(one.start(), one.end(), one[1]) for one in _BARE_BOX.finditer(text)]


def last_box(text: str) -> str | None:
    """The content of the last box that holds anything; None if there is none."""
    contents = [box.content for box in _boxes(clean(text)) if box.content]
    return contents[-1] if contents else None


def _boxed(text: str, reader: Reader, which: Boxes) -> Reading | None:
    if "box" not in text:
        return None
    boxes = [box for box in _boxes(text) if not _PLACEHOLDER.fullmatch(box.content)]
    groups: list[list[_Box]] = []
    for box in boxes:
        between = text[groups[-1][-1].end : box.start] if groups else ""
        bare = re.sub(r"\\[()\[\]]|\\q?quad|[\s$]+", " ", between)
        if groups and len(between) < 40 and _GLUE.fullmatch(bare):
            groups[-1].append(box)
        else:
            groups.append([box])
    answers = []
    for group in groups:
        contents = dict.fromkeys(box.content for box in group)
        answer = reader.boxed(", ".join(contents))
        if answer is not None:
            answers.append((answer, len(contents)))
    if not answers:
        return None
    if which == "all" and not all(_alike(answers[0][0], answer) for answer, _ in answers):
        return Reading(None, f"{len(answers)} boxes that do not agree")
    answer, parts = answers[0 if which == "first" else -1]
    if parts > 1:
        return Reading(answer, f"{parts} boxes side by side")
    return Reading(
        answer, "the box" if len(answers) == 1 else f"the {which} of {len(answers)} boxes"
    )


def _alike(one: str, other: str) -> bool:
    """Whether two answers are one, but for a unit that one of them leaves out."""
    first, second = quantity(one), quantity(other)
    if one == other or first is None or second is None:
        return one == other
    equal = (first.number, first.percent) == (second.number, second.percent)
    return equal and not (first.words and second.words and first.unit != second.unit)


_TURN = re.compile(
    r"\b(?:wait|oops|actually|correction|(?:made|is)\s+an?\s+(?:mistake|error)|my mistake)\b",
    re.IGNORECASE,
)


def _after_a_turn(text: str, reader: Reader, finished: bool) -> Reading | None:
    """A statement after "Wait, I made a mistake." or the like, which takes the last box back."""
    boxes = _boxes(text) if "box" in text else []
    if not boxes or (turn := _TURN.search(text, boxes[-1].end)) is None:
        return None
    return _stated(text[turn.start() :], reader, finished)


# Statements -------------------------------------------------------------------------------

_OLD = r"(?:previous|earlier|initial|original|prior|old|first|your|last|former)"
_STATEMENT = re.compile(
    rf"(?P<old>\b{_OLD}\s+)?"
    r"\b(?:answers?|ans|(?:correct|right|best|my|final)\s+(?:option|choice))\b"
    r"[*_\"'`\s]*"
    r"(?:\([^()\n]{0,40}\)\s*)?"
    r"(?:,?\s*(?:to|for|of|in|here|therefore|thus|then|hence|now|again|so)\b[^.:=\n]{0,80}?)?[,*_\s]*"
    r"(?:\b(?:is|are|equals?|becomes|remains|(?:should|would|must|will)\s+(?:be|equal)"
    r"|comes\s+(?:out\s+)?to(?:\s+be)?)\b|'s\b|=|:|\u2192|->|\\(?:rightarrow|to)\b)"
    r"|^[ \t]*####(?!#)(?P<hash>)"
    r"|^[ \t#*_>]*(?:step\s+\d+\s*[:.)-]\s*)?(?:the\s+)?(?:(?:final|correct|short)\s+)?"
    r"(?:answer|result)"
    r"[*_ \t.]*$(?P<heading>)"
    r"|\b(?:keep(?:ing)?|stand(?:ing)?\s+by|stick(?:ing)?\s+(?:with|to)|maintain|retain|choose|pick"
    r"|select|going\s+with|go\s+with)\s+(?:(?:my|the|it|at|option|answer|of|previous|original|earlier|choice)[\s:]+)*(?P<kept>)"
    r"|\u7b54\u6848\s*(?:\u662f|\u4e3a|\u7b49\u4e8e|:)",
    re.IGNORECASE | re.MULTILINE,
)
# "Wait, no, it's 15" takes a statement before it back.
_CORRECTED = re.compile(
    r"\b(?:wait|no|oops|sorry|actually|correction|rather|make\s+that)\b"
    r"(?:[\s,.:!;\u2014-]+(?:wait|no|oops|sorry|actually|rather|i\s+mean|make\s+that|correction)\b)*"
    r"[\s,.:!;\u2014-]*(?:\b(?:it|that|this)(?:'s|\s+(?:is|should\s+be|must\s+be))\s+(?:actually\s+)?)?"
    r"(?=[*(]*(?:-?\\?\$?-?\d[\d,./]*%?(?:\s[a-z]{1,12})?[*)]*\s*(?:[.!;]|$)|[A-J][).*]*(?:[\s.!,;]|$)|\\))",
    re.IGNORECASE | re.MULTILINE,
)
# What a closing sentence begins with; weaker than a statement, as it may hold any number.
_CONCLUSION = re.compile(
    r"(?:^|(?<=[.!?]\s))[ \t#*_>]*"
    r"(?:in\s+(?:conclusion|summary|total|short)|to\s+(?:conclude|sum\s+up|summari[sz]e)"
    r"|conclusions?|summary)[*_]*(?:\s*[,:][*_]*|[ \t]*$(?P<heading>))",
    re.IGNORECASE | re.MULTILINE,
)
_BACKWARDS = re.compile(
    r"(?P<said>[^.!?\n]{1,60}?(?:\.\d[^.!?\n]{0,20}?)?)\s+"
    r"(?:(?:is|are)\s+(?:(?:indeed|therefore|thus|still)\s+)?|(?<!same )as\s+)(?:the|my|our)\s+"
    r"(?:(?:final|correct|right)\s+)*answer\b(?!\s*(?:to|of|is|:)?\s*\S+\s+is)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bNo)(?<!\bRs)(?<!\bvs)(?<!\bMrs)(?<!i\.e)(?<!e\.g)(?<!approx)"
    r"(?<!\b[A-Z])(?<!\\)(?<!\ba\.m)(?<!\bp\.m)"
    r"(?:[.?]|(?<![\d)])!|!(?!\)|\s*[a-z=/*+^(-]))(?=[\s*_\"')\]]|$)|\u3002",
)
_DISPLAY = re.compile(
    r"\s*(?:\\\[(.+?)\\\]|\$\$(.+?)\$\$|\\begin\{(?:align|equation)\*?\}(.+?)\\end)", re.DOTALL
)
_ITEM = re.compile(r"(?:[-*\u2022]|\d{1,2}[.)])[ \t]+(?=\S)")  # of a list
_EMPHASIS = " \t*_:\"'`>#=\u2192\u201c\u201d"


_STATEMENTS = 40  # so many of the last ones are looked at
_SENTENCE = 600  # characters of one


class _Said(NamedTuple):
    text: str
    ended: bool


def _stated(text: str, reader: Reader, finished: bool) -> Reading | None:
    answers: list[tuple[int, str, str]] = []
    for found in [*_STATEMENT.finditer(text)][-_STATEMENTS:]:
        if found["old"]:
            continue
        for said in _said(text, found.end(), heading=found["heading"] is not None):
            if not (finished or said.ended):
                break
            content = said.text
            if found["hash"] is not None and re.match(
                r"(?:step|part|case|final|answer|sol)", content, re.I
            ):
                break
            if found["kept"] is not None and not re.match(r"[\W_]*(?:\d|[A-J]\b|\\|\()", content):
                break
            answer = reader.stated(content)
            if answer is not None:
                answers.append((found.start(), answer, " ".join(found[0].split())))
                break
    for found in [*_BACKWARDS.finditer(text)][-_STATEMENTS:]:
        *_, before = (found["said"], *re.split(r",\s(?!\d)|;|:\s", found["said"]))
        answer = reader.stated(before)
        if answer is not None and (finished or found.end() < len(text.rstrip())):
            answers.append((found.start(), answer, "is the answer"))
    if not answers:
        return None
    for found in [*_CORRECTED.finditer(text, min(answers)[0])][-_STATEMENTS:]:
        again = next(_said(text, found.end(), heading=False), None)
        answer = reader.stated(again.text) if again and (finished or again.ended) else None
        if answer is not None:
            answers.append((found.start(), answer, " ".join(found[0].split())))
    sure = [one for one in answers if quantity(one[1]) is not None or not WORD.search(one[1])]
    _, answer, words = max(sure or answers)
    return Reading(answer, f"the statement “{words.strip('*_ #:') or words}”")


def _concluded(text: str) -> Reading | None:
    """What the last sentence that begins as a conclusion says."""
    *_, found = (None, *_CONCLUSION.finditer(text))
    if found is None or re.match(r"[\s=-]*\n\s*(?:[-*\u2022]|\d{1,2}[.)])\s", text[found.end() :]):
        return None  # a list of this and that
    for said in _said(text, found.end(), heading=found["heading"] is not None):
        if re.search(r"\d", said.text) and (answer := _stated_math(said.text)) is not None:
            return Reading(answer, f"the conclusion “{found[0].strip(' *_#:,>')}”")
    return None


def _said(text: str, at: int, heading: bool) -> Iterator[_Said]:
    """What a statement says: the rest of its sentence, or, after a colon, what stands below.

    Args:
        text: all of it.
        at: where the statement's verb or colon ends.
        heading: whether it is a heading, so that what it says stands below.
    """
    for _ in range(4):
        display = _DISPLAY.match(text, at)
        if display:
            inside = next(filter(None, display.groups()))
            yield _Said(f"${' '.join(inside.split())}$", True)
            return
        end = text.find("\n", at)
        line = text[at:] if end < 0 else text[at:end]
        bare = line.strip(_EMPHASIS + ".")
        bare = "" if re.fullmatch("-{3,}", bare) else bare  # what underlines a heading
        if end >= 0 and (not bare or (line.rstrip(" \t*_").endswith(":") and WORD.search(bare))):
            at, heading = end + 1, True
            while text[at : at + 1] in ("\n", " ", "\t") and at < len(text):
                at += 1
            continue
        break
    else:
        return
    if heading:  # the paragraph below: its bold number, wherever it is, before its first one
        block = re.split(r"\n\s*\n", text[at:], maxsplit=1)
        paragraph, more = block[0], len(block) > 1
        if bold := _BOLD.search(paragraph):
            ended = more or bold.end() < len(paragraph)
            yield _Said(bold[0], ended)
        if item := _ITEM.match(text, at):
            at = item.end()
    start = at
    limit = len(text) if end < 0 else end
    while start < limit:
        stop = _SENTENCE_END.search(text, start, limit)
        while stop and _in_formula(text[start : stop.start()]):
            stop = _SENTENCE_END.search(text, stop.end(), limit)
        sentence = text[start : stop.start() if stop else limit]
        if stop and stop[0] == "!":
            sentence = sentence.rstrip("!")
        after = stop.end() if stop else limit
        # A stop at the very end of a text that was cut may be a decimal point.
        ended = after < len(text) if stop else end >= 0
        if sentence.strip():
            yield _Said(sentence[:_SENTENCE].lstrip(" \t:>#=\u2192"), ended)
            if not heading:
                return
        start = after


def _in_formula(text: str) -> bool:
    return text.count(r"\(") > text.count(r"\)") or text.count(r"\[") > text.count(r"\]")


# Mathematics ------------------------------------------------------------------------------

_BOLD = re.compile(
    r"\*\*(?=\S)([^*\n]+?)\*\*|(?<![*\w\\^])\*(?=[^\s*])([^*\n]*[^\s*])\*(?![*\w])|__(?=\S)([^_\n]+?)__|<b>([^<\n]+)</b>|<strong>([^<\n]+)</strong>"
)
_SMALL_WORD = re.compile(
    r"(?<![\\A-Za-z{])(?:so|is|in|of|to|as|at|by|if|it|on|he|we|be|do|an|my)(?![A-Za-z({^_])",
    re.IGNORECASE,
)
_RATIO = r"(?:\\[dtc]?frac\s*(?:\{-?\d+\}\s*\{\d+\}|\d\s*\d)|\{\s*-?\d+\s*\\over\s*\d+\s*\})"
_ROOT = r"(?:\u221a|\\?sqrt)\s*(?:\{[^{}]*\}|\([^()]*\)|\d+)"
_NUMERAL = re.compile(
    rf"(?<![A-Za-z0-9_.^\\])(?:"
    rf"(?P<time>\d{{1,2}}:\d{{2}}(?::\d{{2}})?(?![\d:])(?:\s?[ap]\.?m\b\.?)?|\d{{1,2}}\s?[ap]\.?m\b\.?)"
    rf"|\d+(?::| : )\d+(?![\d:])"
    rf"|\d+\s+and\s+\d+/\d+(?=\s+[a-z]{{3}})|\d+\s+\d+/\d+(?![\d/])|\d+(?:\s|~|\\[,;:])*{_RATIO}|{_RATIO}"
    rf"|(?:{UNSIGNED}\s*)?{_ROOT}|{UNSIGNED}\s*(?:\u03c0|\\pi\b|pi\b)(?:\s*/\s*\d+)?"
    rf"|{UNSIGNED}\s*(?:x|\*|\u00d7|\\times|\\cdot)\s*10\s?\^\s?(?:\{{-?\d+\}}|-?\d+)"
    rf"|\d+\s?\^\s?(?:\{{-?\d+\}}|-?\d+)"
    rf"|\d{{1,3}}(?:\.\d{{3}}){{2,}}(?!\.?\d)"
    rf"|(?<!\d/){UNSIGNED}/\d+(?![\d/])"
    rf"|\d+!(?=\s+(?-i:[a-z])|\s*[=/*+^-])"
    rf"|{UNSIGNED}(?:[eE][-+]?\d{{1,3}}(?!\w|\.\d))?(?!(?:st|nd|rd|th)\b)"
    rf")"
    rf"(?P<suffix>(?-i:{'|'.join(SUFFIXES)})(?![A-Za-z]))?"
    rf"(?P<percent>\s?\\?%|\s(?:percent|per cent)\b)?"
    rf"(?P<multiple>\s(?:{'|'.join(MULTIPLIERS)})\b)?",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"\b(?:steps?|cases?|parts?|questions?|problems?|examples?|equations?|options?|figures?|attempts?"
    r"|methods?|approach|verification|check)\s*#?$",
    re.IGNORECASE,
)
_NEGATIVE = re.compile(r"\b(?:negative|minus)\s+(?=[$\d.\\])", re.IGNORECASE)
_NOTE = re.compile(  # what follows an answer and is none
    r"[\s*_(#>-]*(?:notes?\b[*_]*\s*[:,]|p\.?\s?s\.?[:,\s]|please\s+note|let me know\b|i hope\b"
    r"|hope (?:this|that)\b|if you (?:have|need|want|would)\b|feel free\b|disclaimer\b"
    r"|would you like\b|do you (?:want|need)\b)",
    re.IGNORECASE,
)
_EQUATION = re.compile(r"[$\d(][\d\s+\-*/!\u00d7\u00f7x().,$%^{}\\a-z]{0,120}?=\s*")


_RANGE = re.compile(r"\s*(?:(?:some|any)where\s+)?between\s+\S+\s+and\s+\S*\d", re.IGNORECASE)
_ROUNDED = re.compile(r"[\s$)]*(?:\\approx|\u2248|~)[\s$(]*")
_PAIRED = re.compile(r"\d+ (?:to|out of) \d+")


class _Token(NamedTuple):
    start: int
    end: int
    text: str


def math_reader(text_too: bool = True) -> Reader:
    """Reads a mathematical answer: a number, a formula, or (`text_too`) a word or two.

    A statement in words counts with its bold part, else with its first number or formula, and with
    what comes out where that is the beginning of an equation. Without an explicit answer the bold
    number of the last paragraph counts, else the last number or formula.
    """
    return Reader(_boxed_math, lambda said: _stated_math(said, text_too), _guessed_math)


def _boxed_math(content: str) -> str | None:
    content = re.sub(
        r"^(?:\\text\{)?\s*(?:the )?(?:final )?answer(?: is|:)\s*(\}?)",
        r"\1",
        content,
        flags=re.IGNORECASE,
    ).removeprefix("}")
    answer = canonical_math(content)
    if len(WORD.findall(answer)) >= 2 and quantity(answer) is None:
        numbers = _tokens(answer)
        if len(numbers) == 1 and not re.search(r"[=<>+*^\\]", answer):
            return canonical_math(numbers[0].text)
    return answer or None


def _stated_math(said: str, text_too: bool = True) -> str | None:
    said = re.sub(
        r"^\s*(?:approximately|about|roughly|exactly|simply|just|around|equal to)\s+",
        "",
        said,
        flags=re.I,
    )
    said = re.sub(r"^\s*(?:\.{3}|\\ldots|\u2026)\s*", "", said)
    said = re.sub(r"^\s*(?:minus|negative)\s+(?=\\?\$?[\d.])", "-", said, flags=re.I)
    # Enthusiasm, unless one sign stands right before the stop: that is a factorial.
    said = re.sub(r"(?<=[\d%])!(?!$)!*[^\w$\\)]*$", "", said)
    if re.match(r"\s*not\b", said, re.IGNORECASE):
        return None
    if _RANGE.match(said):
        return canonical_math(undress(said))  # a range is no number
    if not re.search(r"\d", said):
        said = in_digits(said)
    for bold in _BOLD.finditer(said):
        inside = next(filter(None, bold.groups()))
        inside = re.sub(r"(?<=[\d%])!+[^\w$\\)]*$", "", inside)
        if numbers := _tokens(inside):
            return canonical_math(inside if not _is_prose(inside) else numbers[0].text)
    bare = undress(said.replace("**", ""))
    if bare.endswith("}") and bare.count("}") > bare.count("{"):  # of JSON
        bare = undress(bare[:-1])
    form = canonical_math(bare)
    if quantity(form) is not None or measure(form) or date(form) or _PAIRED.fullmatch(form):
        return form
    before = re.fullmatch(r"(.*?[^\s(])\s+\([^()]*\)", bare)
    if before and not _is_prose(before[1]):
        bare = before[1]
    if not _is_prose(bare):
        return canonical_math(bare) or None
    if numbers := _tokens(said):
        return canonical_math(_result(said, numbers).text)
    words = WORD.findall(bare)
    if (
        text_too
        and len(bare.split()) <= 3
        and not re.match(
            r"(?:that|as|the|below|above|given|shown|correct|right|wrong|incorrect|in|it|this|now|let|we|to|your)\b",
            bare,
            re.IGNORECASE,
        )
    ):
        return canonical_math(bare) if words else None
    return None


def _is_prose(text: str) -> bool:
    """Whether a text holds words that are part of no formula."""
    plain = re.sub(r"\\(?:text\w*|math\w+|mbox|operatorname)\s*\{[^{}]*\}", " ", text)
    plain = FORMULA.sub(lambda found: " x " if _is_formula(found) else found[0], plain)
    return WORD.search(plain) is not None or _SMALL_WORD.search(plain) is not None


def _is_formula(found: "re.Match[str]") -> bool:
    """Whether what stands between two signs is a formula, not the text between two prices."""
    inside = next(filter(None, found.groups()))
    plain = re.sub(r"\\(?:text\w*|math\w+|mbox|operatorname|begin|end)\s*\{[^{}]*\}", " ", inside)
    if WORD.search(plain) or (found[0][0] == "$" and _SMALL_WORD.search(plain)):
        return False
    return found[0][0] != "$" or not re.search(r"(?:[,\-+*/=(]|\band|\bor)\s*$", inside)


def _tokens(text: str) -> list[_Token]:
    """The numbers and formulas of a text, in order."""
    formulas: list[_Token] = []
    at = 0
    while found := FORMULA.search(text, at):
        if _is_formula(found):
            inside = next(filter(None, found.groups()))
            if re.search(r"\d|\\(?:pi|sqrt|infty|emptyset)", inside):
                formulas.append(_Token(found.start(), found.end(), _outcome(inside)))
            at = found.end()
        else:
            at = found.start() + 1
    numbers = [
        one
        for one in _numerals(text)
        if not any(formula.start <= one.start < formula.end for formula in formulas)
    ]
    return sorted([*formulas, *numbers])


def _outcome(formula: str) -> str:
    """What comes out of a formula: the right side of its last equation."""
    formula = re.sub(r"&|\\\\\s*$", "", formula).strip().rstrip(".,;").strip()
    if formula.count("=") == 1 and "," in formula.partition("=")[2]:
        return formula.partition("=")[2]
    return formula.rpartition("=")[2].strip() or formula


def _numerals(text: str) -> Iterator[_Token]:
    compound = 0  # where the last quantity in several units ends
    for found in _NUMERAL.finditer(text):
        if found.start() < compound:
            continue
        before = text[max(0, found.start() - 60) : found.start()]
        line = before[before.rfind("\n") + 1 :]
        after = text[found.end() : found.end() + 4]
        if not line.strip(" \t*_#>-") and re.match(r"[.)]\s+\S", after) and found[0].isdigit():
            if len(found[0]) <= 2:
                continue  # the number of an item in a list
        if _LABEL.search(line[-20:]):
            continue
        at, sign = _sign(before, len(before))
        start = found.start() - len(before) + at
        several = COMPOUND.match(text, found.start())
        if several is not None and measure(several[0]) is not None:
            compound = several.end()
            yield _Token(start, compound, sign + several[0])
        else:
            yield _Token(start, found.end(), sign + found[0])


def _sign(before: str, at: int) -> tuple[int, str]:
    """Where a number begins with its currency and minus signs, and "-" if it is negative."""
    left = re.search(r"(?:(-)\s?)?\\?[$\u20ac\u00a3\u00a5\u20b9]\s?(-?)$", before)
    if left:
        minus = left[1] or left[2]
        at = left.start()
        if not minus:
            return at, ""
        return at, "" if left[1] and _subtracts(before[:at], "") else "-"
    if word := re.search(
        r"\b(?:negative|(?:is|=|:|answer)\s+minus)\s+\\?\$?$", before, re.IGNORECASE
    ):
        return word.start(), "-"
    minus = re.search(r"-(\s?)$", before)
    if minus and not _subtracts(before[: minus.start()], minus[1]):
        return minus.start(), "-"
    return at, ""


def _subtracts(before: str, gap: str) -> bool:
    """Whether a minus sign after this text is a subtraction, a hyphen or the mark of an item."""
    bare = before.rstrip()
    last = bare[-1:]
    if last.isdigit() or last in (")", "}", "%"):
        return True
    if last.isalpha() and (bare == before or gap):
        return not re.search(r"\b(?:is|are|be|equals|answer)$", bare)
    return bool(gap) and (not last or before[len(bare) :].count("\n") > 0)


def _result(text: str, tokens: list[_Token]) -> _Token:
    """The first number, or what comes out of the equation that it begins."""
    chosen = tokens[0]
    for equation in _EQUATION.finditer(text):
        if equation.start() <= chosen.start < equation.end():
            later = next((one for one in tokens if one.start >= equation.end() - 1), None)
            chosen = later or chosen
    return chosen


def _guessed_math(text: str) -> Reading:
    *parts, last_part = re.split(r"\n\s*\n", text.strip())
    if parts and _NOTE.match(last_part) and _tokens(before := "\n\n".join(parts)):
        return _guessed_math(before)
    paragraph = re.split(r"\n\s*\n", text.strip())[-1]
    for bold in reversed(list(_BOLD.finditer(paragraph))):
        inside = next(filter(None, bold.groups()))
        numbers = _tokens(inside)
        if (
            len(numbers) == 1
            and len(WORD.findall(inside)) <= 2
            and not inside.rstrip().endswith(":")
        ):
            return Reading(canonical_math(numbers[0].text), "the bold number of the last paragraph")
    if concluded := _concluded(text):
        return concluded
    *_, before_last, last = (None, None, *_tokens(text))
    if last is None:
        alone = canonical_math(text)
        in_words = quantity(alone) is not None
        return Reading(alone, "a number in words") if in_words else Reading(None, "no answer found")
    if before_last is not None and _ROUNDED.fullmatch(text[before_last.end : last.start]):
        last = before_last
    return Reading(canonical_math(last.text), "the last number")


# Numbers, choices, text -------------------------------------------------------------------


def number_reader(last_alone: bool = False) -> Reader:
    """Reads a number in plain digits: without unit, per cent sign and formula.

    Args:
        last_alone: whether nothing but the last number counts, whatever is said of it.
    """

    def last(text: str) -> Reading:
        *_, found = (None, *_plain_numbers(text))
        return Reading(found, "no number found" if found is None else "the last number")

    def stated(said: str) -> str | None:
        answer = _stated_math(said, text_too=False)
        return None if answer is None else boxed(answer)

    def boxed(content: str) -> str | None:
        found = quantity(canonical_math(content))
        number = value(canonical_math(content)) if found is None else found.number
        if number is None:
            return last(content).answer
        return canonical_math(str(number)) if abs(number) < 10**40 else None

    return Reader(boxed, stated, last, verbatim=last_alone)


def _plain_numbers(text: str) -> Iterator[str]:
    for token in _tokens(text):
        form = canonical_math(token.text)
        found = quantity(form)
        number = value(form) if found is None else found.number
        if number is not None and abs(number) < 10**40:
            yield canonical_math(str(number))
        else:
            yield from (canonical_math(one.text) for one in _numerals(token.text))


def choice_reader(letters: str = "ABCDEFGHIJ", options: Mapping[str, str] | None = None) -> Reader:
    """Reads the letter of an option, in upper case: "B", "(b)", "B) Paris", "Option B", "Paris".

    Args:
        letters: of the options, in upper case.
        options: their texts by letter, where these are known: who says one means its letter.
    """
    options = options or {}
    if options:
        letters = "".join(options)
    one = f"[{letters}]"
    lower = re.compile(rf"[^\w(]*+(?:option\s+|choice\s+)?(?:\(({one})\)|({one})\))", re.IGNORECASE)
    plain = re.compile(
        rf"[\W_]*+(?:(?:option|choice|letter|answer)\s+[\W_]*+)?({one})[\W_]*", re.IGNORECASE
    )
    leading = re.compile(
        rf"[\W_]*+(?:(?:[Oo]ption|[Cc]hoice|[Ll]etter)\s+[\W_]*+)?({one})(?![A-Za-z0-9'\u2019])"
        r"(?=\s*[.:,;)\]}*\"-]|\s+\([^()]*\)"
        r"|\s+(?:because|since|as|is|which|for|and not)\b|\s*$|\s+[A-Z\d\\$])"
    )
    inside = re.compile(
        rf"\(({one})\)|\*\*({one})[).:]?\*\*|\b(?:[Oo]ption|[Cc]hoice)\s+({one})\b"
        rf"|\b(?:[Oo]ption|[Cc]hoice)\s+\(((?i:{one}))\)"
    )
    closing = re.compile(
        rf"(?:\b[Nn]o,|[;:])\s+[*(]*({one})[*).!]*\s*$|\b[Oo]nly\s+[*(]*({one})[*)]*"
        r"(?=\s+(?:satisf|work|match|fit|hold|remain|make"
        r"|(?:is|can be|seems)\s+(?:right|correct|true|valid)))"
        rf"|\b(?:[Ss]o|[Tt]hus|[Hh]ence|[Tt]herefore|[Ii]t's|is|be)[,:]?\s+(?:the\s+)?[*(]*({one})[*).!]*\s*$"
    )
    sure = re.compile(
        r"^(?:definitely|clearly|certainly|most likely|likely|probably|indeed|actually)\s+", re.I
    )
    several = re.compile(rf"\s*(?:,|&|and|or|/)\s*[\W_]*{one}(?![A-Za-z0-9])[\W_]*$")

    def stated(said: str) -> str | None:
        bare = undress(re.sub(r"\\(?:text\w*|math\w+)\s*\{(.*?)\}", r"\1", said))
        bare = sure.sub("", bare)
        if alone := plain.fullmatch(bare):
            return alone[1].upper()
        if bold := _BOLD.match(bare):
            if alone := leading.match(next(filter(None, bold.groups()))):
                return alone[1]
        if found := lower.match(bare):
            return str(next(filter(None, found.groups()))).upper()
        if found := leading.match(bare):
            return None if several.match(bare, found.end()) else found[1]
        if by_text := chosen(bare, options):
            return by_text
        marked = {next(filter(None, found.groups())).upper() for found in inside.finditer(bare)}
        return marked.pop() if len(marked) == 1 else chosen_in(bare)

    def chosen_in(said: str) -> str | None:
        """The option named before any reason, or in bold."""
        parts = [next(filter(None, bold.groups())) for bold in _BOLD.finditer(said)]
        parts.append(re.split(r",?\s+(?:because|since|as|which|for|and not|not)\b|[;(]", said)[0])
        found = {letter for part in parts if (letter := chosen(part, options))}
        return found.pop() if len(found) == 1 else None

    def guessed(text: str) -> Reading:
        if alone := plain.fullmatch(text.strip()):
            return Reading(alone[1].upper(), "a letter alone")
        lone = re.findall(rf"^[\s*(\[]*({one})[\s*)\].:]*$", text, re.MULTILINE)
        if lone:
            return Reading(lone[-1], "the last line with a letter alone")
        option = re.match(rf"\s*[*(]*({one})[*]*(?:[).:]|\s-\s|\s(?=\([^()]+\)\W*$))\s*\S", text)
        if option and len(text.strip().splitlines()) == 1:
            return Reading(option[1], "the letter it begins with")
        marked = [next(filter(None, found.groups())).upper() for found in inside.finditer(text)]
        if marked:
            return Reading(marked[-1], "the last option named")
        last = text.strip().rpartition("\n")[2]
        if ended := closing.search(last):
            return Reading(next(filter(None, ended.groups())), "the letter it ends with")
        if (letter := chosen(undress(last), options) or chosen_in(last)) is not None:
            return Reading(letter, "the text of an option")
        return Reading(None, "no letter found")

    return Reader(stated, stated, guessed)


def text_reader() -> Reader:
    """Reads an answer in words or symbols: the explicit one, else the last line."""

    def plain(said: str) -> str | None:
        wrapped = re.fullmatch(r"\\text\w*\{([^{}]*)\}", said.strip())
        return undress(wrapped[1] if wrapped else said) or None

    def last_line(text: str) -> Reading:
        answer = plain(text.strip().rpartition("\n")[2])
        return Reading(answer, "no answer found" if answer is None else "the last line")

    return Reader(plain, plain, last_line)


def whole_reader() -> Reader:
    """Reads all that is said: for functions of one's own that look at the whole text."""

    def nothing(_: str) -> None:
        return None

    def everything(text: str) -> Reading:
        answer = text.strip()
        return Reading(answer or None, "all that is said" if answer else "empty")

    return Reader(nothing, nothing, everything, verbatim=True)
