r"""Whether two mathematical answers are equal: exact numbers first, then math-verify.

Numbers are compared as rationals, so nothing is lost to a tolerance; units, percentages, times and
lists are compared part by part, words as words. Only formulas are asked of math-verify, and only
those of which it reads every character: it drops what it does not know, and would take "5" for
``\neq 5``. docs/answers.md has the table of what counts as equal.

math-verify runs in processes of its own, one for each comparison at a time, as a tower of powers
keeps it busy for ever. A comparison has a deadline in processor time, which a busy machine does not
use up; a process that dies is replaced, and asked again.
"""

import atexit
import json
import os
import queue
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from msjax._child import Child, EndedError
from msjax.errors import InputError, require_extra
from msjax.tasks.math_form import (
    Quantity,
    canonical_math,
    in_full,
    measure,
    quantity,
    split_unit,
)
from msjax.tasks.values import rounds_to, spelled, value

__all__ = ["COUNTS", "DEADLINE", "Comparison", "close", "compare", "equivalent", "same"]

DEADLINE = 5.0
"""Seconds of processor time for one comparison."""

_START = 120.0  # seconds for imports on a busy machine
_STARVED = 30.0  # how many times `DEADLINE` a reply may take on the clock before it is lost
TRIES = 3
_LONGEST = 500  # characters; no benchmark has longer answers

_TIME = re.compile(r"(\d{1,2}):(\d{2})(?: ([AP])M)?")
_SCALE = re.compile(r"\d+(?:(?::| to )\d+)+")
_MIXED = re.compile(r"(-?\d+) and (\d+/\d+|\\frac\{\d+\}\{\d+\})")
_SHARE = re.compile(r"(\d+) out of (\d+)")
_MONEY = 4  # the family of units, see `measure`
_BASES = {"two": "2", "three": "3", "four": "4", "eight": "8", "ten": "10", "sixteen": "16"}
_BASE = re.compile(
    r"\(?0*(\w+?)\)?\s?(?:_\s*\{?\s*(?:base\s*)?|\(?(?:in )?base )"
    rf"({'|'.join(_BASES)}|\d+)\s*[)}}]?",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(r"((?:\\[a-z]+|[A-Za-z]+)(?:_\w+|_\{\w+\}|'|\([a-z]\))?)=(?!=)([^=<>]+)")
_INEQUALITY = re.compile(r"[<>]|\\(?:leq|geq|lt|gt)(?![A-Za-z])")
_OPTION = re.compile(r"\(?([A-J])[).:]\s*\S.*")
_JOINED = re.compile(
    r"\s*(?:;|,?\s*(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:text\{ ?)?(?:and|or)\})\s*"
)
_COMMANDS = frozenset(
    "frac sqrt pi theta alpha beta gamma delta lambda mu phi psi omega rho sigma tau epsilon eta "
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp infty cdot times "
    "div leq geq lt gt cup cap in emptyset begin end binom lfloor rfloor lceil "
    "rceil mid { } \\".split()
)
_FUNCTIONS = frozenset("sin cos tan cot sec csc log ln exp max min gcd lcm".split())
_SHORT_WORDS = frozenset(
    "no yes is an as at be by do he if it me my of on or so to up us we all and any are but day "
    "due few for had has her him his how its may new nor not now odd off old one our out per red "
    "she six ten the too two use was way who why you am pm".split()
)
_PIECE = re.compile(
    r"\\(?:begin|end)\{[pbvBV]?(?:matrix|array)\}|\\([A-Za-z]+|.)|([A-Za-z]+)|.", re.DOTALL
)
_PLAIN = frozenset("0123456789.,+-*/=<>^_(){}[]|!&' ")


class Comparison(NamedTuple):
    """Whether an answer is right, and how that was found.

    Attributes:
        equal: the verdict.
        why: in a few words.
    """

    equal: bool
    why: str


@dataclass
class Counts:
    """What happened to the grader's process so far.

    Attributes:
        retried: comparisons asked again because the process died or was starved.
        slow: pairs given up at the deadline, which count as not equal.
        lost: comparisons that ended the process each time, which count as not equal.
    """

    retried: int = 0
    slow: int = 0
    lost: int = 0


COUNTS = Counts()
"""Of this process; a run says them at its end."""


def equivalent(gold: str, answer: str) -> bool:
    """Whether `answer` is mathematically equal to `gold`, see `compare`."""
    return compare(gold, answer).equal


def compare(gold: str, answer: str) -> Comparison:
    """Whether `answer` is equal to `gold`, and how that was found.

    The roles matter: an answer may have a unit where `gold` has none, and `gold` "0.5" or "50"
    accepts "50%".

    Args:
        gold: the right answer.
        answer: what was answered.

    Raises:
        MissingExtraError: math-verify is not installed.
        InputError: it does not start.
    """
    if gold == answer:
        return Comparison(True, "the same text")
    gold, answer = canonical_math(gold), canonical_math(answer)
    if gold == answer:
        return Comparison(True, "the same once written alike")
    if max(len(gold), len(answer)) > _LONGEST:
        return Comparison(False, f"another text, longer than {_LONGEST} characters")
    return _compared(gold, answer)


def same(one: str, other: str) -> bool:
    """Whether two answers are one for whoever counts them, whatever the right answer is.

    Stricter than `equivalent`, and alike in both directions: units and per cent signs must agree,
    and nothing is rounded. So answers that are the same have the same grade. Dollars may be left
    unsaid, since who says "$5" once says "5" another time.
    """
    if one == other:
        return True
    first, second = quantity(canonical_math(one)), quantity(canonical_math(other))
    if first is not None and second is not None:
        units = [one.unit.removeprefix("dollar") for one in (first, second)]
        return (first.number, first.percent, units[0]) == (second.number, second.percent, units[1])
    if first is not None or second is not None:
        return False
    return _strict(one, other) and compare(one, other).equal and compare(other, one).equal


def _strict(one: str, other: str) -> bool:
    """Whether both texts are of a kind whose equality is exact: an expression, never a relation."""
    return not any(mark in text for text in (one, other) for mark in ("=", "<", ">", "%", ",", ":"))


def _compared(gold: str, answer: str) -> Comparison:
    right, given = quantity(gold), quantity(answer)
    if (found := _measures(gold, answer)) is not None:
        return found
    if right is not None and given is not None:
        return _quantities(right, given)
    for form in (_shortened, _times, _based, _assigned, _exact, _either_side, _lists, _united):
        if (found := form(gold, answer)) is not None:
            return found
    if len(gold) == 1 and (option := _OPTION.fullmatch(answer)):
        return Comparison(option[1] == gold, "the letter of an option")
    if _is_words(gold) or _is_words(answer) or len(gold) == len(answer) == 1:
        return Comparison(_folded(gold) == _folded(answer), "compared as words")
    return _asked(gold, answer)


def _quantities(right: Quantity, given: Quantity) -> Comparison:
    if right.words and given.words and not _units_agree(right.unit, given.unit):
        return Comparison(False, f"another unit: {given.words} for {right.words}")
    if _near(right.number, given.number):
        return Comparison(True, "equal numbers")
    if right.percent != given.percent:
        left, other = right.number, given.number
        scaled = (left, other / 100) if given.percent else (left / 100, other)
        if _near(*scaled):
            return Comparison(True, "equal numbers, one of them in per cent")
    return Comparison(False, f"{spelled(given.number)[:40]} is not {spelled(right.number)[:40]}")


def _measures(gold: str, answer: str) -> Comparison | None:
    """Quantities in several units, and money, whatever the units are."""
    right, given = measure(gold), measure(answer)
    if right is not None and given is not None and right.family == given.family:
        if right.parts == given.parts == 1 and right.family != _MONEY:
            return None
        equal = right.size == given.size
        return Comparison(equal, "the same in all" if equal else "another quantity")
    several = right or given
    other = _worth(answer if right is not None else gold)
    if several is None or several.parts == 1 or other is None:
        return None
    return Comparison(_near(several.size / several.first, other), "compared in the first unit")


def _shortened(gold: str, answer: str) -> Comparison | None:
    """What may be short for a number, "1.2k", or a sum of a number and a ratio, beside a number."""
    short, other = (gold, answer) if _worth(answer) is not None else (answer, gold)
    number = _worth(other)
    meant = in_full(short)
    if short == gold and re.fullmatch(r"-?\d+[kKB]", gold):
        return None  # rather a formula
    if meant is None and (mixed := _MIXED.fullmatch(short)) is not None:
        meant = _worth(f"{mixed[1]} {mixed[2]}")
    if meant is None and (share := _SHARE.fullmatch(short)) is not None and int(share[2]):
        meant = Fraction(int(share[1]), int(share[2]))
    if number is None or meant is None:
        return None
    return Comparison(_near(meant, number), f"{short} is {spelled(meant)[:40]}")


def _units_agree(right: str, given: str) -> bool:
    if right == given:
        return True
    words, others = (
        set(re.findall(r"[^\s/^-]+", unit)) - {"of", "a", "an"} for unit in (right, given)
    )
    descriptive = all(len(word) > 2 for word in words | others) and "/" not in right + given
    return descriptive and bool(words) and bool(others) and (words <= others or others <= words)


def _near(right: Fraction, given: Fraction) -> bool:
    """Equal, or one a decimal that is the other rounded to six significant digits or more."""
    return right == given or rounds_to(right, given) or rounds_to(given, right)


def _times(gold: str, answer: str) -> Comparison | None:
    right, given = _TIME.fullmatch(gold), _TIME.fullmatch(answer)
    if right and given:
        if right[3] and not given[3] and 1 <= int(given[1]) <= 12:
            return Comparison(False, "a time without AM or PM")
        ends = [
            {(int(time[1]) % 12 + 12 * (time[3] == "P") if time[3] else int(time[1]), time[2])}
            for time in (right, given)
        ]
        if not right[3] and given[3] and int(right[1]) <= 12:  # either half of the day
            ends[0] |= {((int(right[1]) + 12) % 24, right[2]), (int(right[1]) % 12, right[2])}
        return Comparison(ends[1] <= ends[0], "compared as times of day")
    scales = _SCALE.fullmatch(gold) or _SCALE.fullmatch(answer)
    if scales and not (right and right[3]) and not (given and given[3]):
        one, other = _scale(gold), _scale(answer)
        if one is not None and other is not None:
            return Comparison(one == other, "compared as ratios")
    return None


def _scale(text: str) -> tuple[Fraction, ...] | None:
    """The parts of a ratio as shares of the last one; a number is a ratio to 1."""
    if _SCALE.fullmatch(text):
        parts = [Fraction(part) for part in re.split(":| to ", text)]
        return tuple(part / parts[-1] for part in parts) if parts[-1] else None
    number = value(text)
    return None if number is None else (number, Fraction(1))


def _based(gold: str, answer: str) -> Comparison | None:
    pair = [_BASE.fullmatch(text) for text in (gold, answer)]
    numbers = [found is not None and found[1][0].isdigit() for found in pair]
    if not any(numbers):
        return None
    one, other = (None if found is None else _in_base(*found.groups()) for found in pair)
    return Comparison(all(numbers) and one == other, "digits and bases compared")


def _in_base(digits: str, base: str) -> tuple[str, str]:
    return digits.lower(), _BASES.get(base.lower(), base)


def _assigned(gold: str, answer: str) -> Comparison | None:
    """A value is the same with and without the name of what has it: "x=5" is "5"."""
    right, given = _ASSIGNED.fullmatch(gold), _ASSIGNED.fullmatch(answer)
    if right and given and right[1] == given[1]:
        return _compared(right[2], given[2])
    if right and not given and "=" not in answer:
        return _compared(right[2], answer)
    if given and not right and "=" not in gold:
        return _compared(gold, given[2])
    if not given and not right and "=" not in gold and "=" in answer:
        worked, _, result = answer.rpartition("=")
        if value(worked.split("=")[0]) is not None:  # arithmetic and what comes out
            return _compared(gold, result)
    return None


def _exact(gold: str, answer: str) -> Comparison | None:
    right, given = (_worth(text) for text in (gold, answer))
    if right is None or given is None:
        return None
    return Comparison(_near(right, given), "compared as exact numbers")


def _worth(text: str) -> Fraction | None:
    found = quantity(text)
    return value(text) if found is None else found.number


def _either_side(gold: str, answer: str) -> Comparison | None:
    r"""``\frac{22}{7} \approx 3.14`` answers what either side answers."""
    if r"\approx" in gold or answer.count(r"\approx") != 1:
        return None
    sides = [_compared(gold, canonical_math(side)) for side in answer.split(r"\approx")]
    return next((found for found in sides if found.equal), sides[0])


class _List(NamedTuple):
    opening: str
    closing: str
    items: list[str]


def _list(text: str) -> _List:
    """The parts of a list, and what encloses them; a text without commas is a list of one."""
    text = _JOINED.sub(", ", text)
    opening, closing = "", ""
    for left in (r"\{", "(", "["):
        for right in (r"\}", ")", "]"):
            inside = text[len(left) : len(text) - len(right)]
            if text.startswith(left) and text.endswith(right) and _is_whole(inside):
                opening, closing, text = left, right, inside
                break
        if opening:
            break
    items = [item.strip() for item in _split(text)]
    if not opening:
        items = [one for item in items for one in _both_signs(item)]
    return _List(opening, closing, items)


def _both_signs(item: str) -> list[str]:
    if item.count(r"\pm") != 1 or r"\mp" in item:
        return [item]
    return [item.replace(r"\pm", sign, 1).strip().removeprefix("+").strip() for sign in "+-"]


def _split(text: str) -> Iterator[str]:
    depth, start, at = 0, 0, 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] not in ("{", "}"):
            at += 2
            continue
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(text[at], 0)
        if text[at] == "," and depth == 0:
            yield text[start:at]
            start = at + 1
        at += 1
    yield text[start:]


def _is_whole(inside: str) -> bool:
    depth = 0
    for one in inside:
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(one, 0)
        if depth < 0:
            return False
    return depth == 0


def _lists(gold: str, answer: str) -> Comparison | None:
    right, given = _list(gold), _list(answer)
    if r"\ldots" in gold or r"\ldots" in answer:
        alike = (right.opening, right.items) == (given.opening, given.items)
        return Comparison(alike, "a text with an ellipsis is equal to itself alone")
    if len(right.items) == len(given.items) == 1 and (right.opening, given.opening) == ("", ""):
        if _both_signs(gold) == [gold] and _both_signs(answer) == [answer]:
            return None
    if len(right.items) == 1 and len(given.items) == 1:
        brackets = {right.opening + right.closing, given.opening + given.closing}
        if brackets <= {"", "()"} and right.items != [gold] or given.items != [answer]:
            return _compared(right.items[0], given.items[0]) if brackets <= {"", "()"} else None
        return None
    if any(item == "" for item in right.items + given.items):
        return Comparison(False, "a list with an empty part")
    ends, other = right.opening + right.closing, given.opening + given.closing
    plain = {"", r"\{\}"}
    if not (
        ends == other
        or {ends, other} <= plain
        or {ends, other} == {"", "()"}
        or ({ends, other} == {"", "[]"} and len(right.items) > 2)
    ):
        if r"\cup" in gold + answer or r"\in" in gold + answer or _INEQUALITY.search(gold + answer):
            return None
        return Comparison(False, "another kind of list or interval")
    if len(right.items) != len(given.items):
        if _INEQUALITY.search(gold):
            return None  # an interval may be written as one
        return Comparison(False, f"{len(given.items)} parts for {len(right.items)}")
    if {ends, other} <= plain:
        rest = list(given.items)
        for item in right.items:
            match = next((one for one in rest if _compared_item(item, one)), None)
            if match is None:
                return Comparison(False, f"no part is {item[:40]}")
            rest.remove(match)
        return Comparison(True, "equal parts in any order")
    for item, one in zip(right.items, given.items, strict=True):
        if not _compared_item(item, one):
            return Comparison(False, f"{one[:40]} is not {item[:40]}")
    return Comparison(True, "equal parts")


def _united(gold: str, answer: str) -> Comparison | None:
    """A formula is the same with and without a unit after it."""
    (right, unit), (given, other) = split_unit(gold), split_unit(answer)
    if not unit and not other:
        return None
    if unit and other and not _units_agree(unit, other):
        return Comparison(False, "another unit")
    return Comparison(True, "equal but for the unit") if right == given else _compared(right, given)


def _compared_item(gold: str, answer: str) -> bool:
    gold, answer = canonical_math(gold), canonical_math(answer)
    return gold == answer or _compared(gold, answer).equal


def _is_words(text: str) -> bool:
    """Whether math-verify would not read every character: words, unknown commands, loose ends."""
    depth = 0
    for found in _PIECE.finditer(text):
        if found[1]:
            if found[1] not in _COMMANDS:
                return True
        elif found[2]:
            letters = found[2]
            if letters not in _FUNCTIONS and (len(letters) > 3 or letters.lower() in _SHORT_WORDS):
                return True
        elif len(found[0]) == 1:
            if found[0] not in _PLAIN:
                return True
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(found[0], 0)
    return depth != 0 or re.search(r"\d_", text) is not None


def _folded(text: str) -> str:
    text = re.sub(r"[\s{}$]+|\\(?=[\s,;])", " ", text).strip()
    text = re.sub(r"^(?:the|a|an) ", "", text, flags=re.IGNORECASE)
    return text.casefold() if len(text) > 1 else text


class _SlowError(Exception):
    """The deadline passed: whatever is compared is too hard, on any machine."""


def _asked(gold: str, answer: str) -> Comparison:
    try:
        equal = _remembered(gold, answer)
    except EndedError as died:
        COUNTS.lost += 1
        warnings.warn(
            f"the grader ended {TRIES} times on {answer[:60]!r} ({died}); it counts as not equal "
            f"to {gold[:60]!r}",
            RuntimeWarning,
            stacklevel=2,
        )
        return Comparison(False, f"not compared, as the grader ended {TRIES} times ({died})")
    if equal is None:
        return Comparison(False, f"given up after {DEADLINE:g} s of computing")
    return Comparison(equal, "compared as formulas")


@lru_cache(maxsize=2**14)
def _remembered(gold: str, answer: str) -> bool | None:
    """What math-verify says, None where it is too slow; a failure is an exception, which is never
    remembered.
    """
    for attempt in range(TRIES):
        judge = _judges.get()
        try:
            return judge.equal(gold, answer)
        except _SlowError:
            COUNTS.slow += 1
            return None
        except EndedError as died:
            if attempt == TRIES - 1:
                raise
            COUNTS.retried += 1
            warnings.warn(
                f"the grader's process ended ({died}); it was started again and asked again",
                RuntimeWarning,
                stacklevel=2,
            )
        finally:
            _judges.put(judge)
    raise AssertionError("unreachable")


class _Judge:
    """math-verify in a process of its own."""

    def __init__(self) -> None:
        self._child = Child(Path(__file__).with_name("math_process.py"))

    def equal(self, gold: str, answer: str) -> bool:
        if not self._child.running:
            self._start()
        try:
            reply = self._child.ask(json.dumps([gold, answer, DEADLINE]), DEADLINE * _STARVED)
        except EndedError as ended:
            if ended.out_of_time:
                raise _SlowError from None
            raise
        return bool(json.loads(reply))

    def close(self) -> None:
        self._child.close()

    def _start(self) -> None:
        require_extra("tasks", "math_verify")
        try:
            self._child.ask("[]", _START)
        except EndedError:
            raise InputError(
                "math-verify does not start; try `python -c 'import math_verify'`"
            ) from None


# The one used last comes first, so that no more are started than are needed at a time.
_judges: queue.LifoQueue[_Judge] = queue.LifoQueue()
_every_judge = [_Judge() for _ in range(min(4, os.cpu_count() or 1))]
for _one in _every_judge:
    _judges.put(_one)


@atexit.register
def close() -> None:
    """Ends the processes; they are started again when they are needed."""
    for judge in _every_judge:
        judge.close()
