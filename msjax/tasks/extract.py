r"""From what a model wrote to an answer: extraction and canonical form.

The answer that is graded, the answer that a revision shows and the answer whose changes a rule sees
come from the same extraction. An explicit final answer, ``\boxed{...}`` or "the answer is ...",
goes before anything that is guessed from the text; None means that there is no answer.
"""

import re
from fractions import Fraction

__all__ = [
    "canonical_math",
    "explicit_part",
    "extract_boxed",
    "extract_choice",
    "extract_explicit",
    "extract_math",
    "extract_number",
    "extract_stated",
    "extract_text",
]

_NUMBER = re.compile(r"(?<![\w.])([-\u2212]?)\s?(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d+))?")
_RATIO_IN_TEXT = r"(?<![\w./])[-\u2212]?\d+/\d+(?![\w/])"
_QUANTITY = re.compile(f"{_RATIO_IN_TEXT}|{_NUMBER.pattern}")
_STATED = re.compile(
    r"(?:\b(?:final\s+)?answer\b[*_\s]*(?:\bis\b|=|:)|####)[*_:\s]*"
    r"(?P<said>[^\n]*?)(?:(?P<ended>[.!]?[ \t]*\n|(?<!\\)[.!]\s)|[.!]?[ \t]*\Z)",
    re.IGNORECASE,
)
_INLINE_MATH = re.compile(r"(?<!\\)\$\$?(.+?)(?<!\\)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_WORD = re.compile(r"(?<![\\A-Za-z{])(?!and\b)[A-Za-z]{3,}(?![A-Za-z({])")
# So many digits are exact in every form below; longer numerals stay as they were written.
_DECIMAL = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3}){1,15}|\d{1,50})?(?:\.\d{0,50})?")
_RATIO = re.compile(r"([-+]?)(?:\\frac\{(-?\d{1,50})\}\{(\d{1,50})\}|(-?\d{1,50})/(\d{1,50}))")
_EXACT_DECIMALS = 12


def extract_boxed(completion: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` with balanced braces that holds anything."""
    end = len(completion)
    while (start := completion.rfind(r"\boxed{", 0, end)) >= 0:
        depth, first = 1, start + len(r"\boxed{")
        for at in range(first, len(completion)):
            escaped = completion[at - 1] == "\\"
            depth += 0 if escaped else {"{": 1, "}": -1}.get(completion[at], 0)
            if depth == 0:
                if content := completion[first:at].strip():
                    return content
                break
        end = start
    return None


def extract_stated(completion: str, *, finished: bool = True) -> str | None:
    """What the last "final answer is ...", "answer: ..." or "#### ..." says, to the sentence end.

    Args:
        completion: what the model wrote.
        finished: False if it was cut, so that a statement that runs to the end may lack a part and
            does not count.
    """
    said = None
    for found in _STATED.finditer(completion):
        if (finished or found["ended"]) and _undress(found["said"]):
            said = found["said"]
    return said


def extract_explicit(completion: str) -> str | None:
    """What a completion presents as its final answer: the last box, else the last statement."""
    return extract_boxed(completion) or extract_stated(completion)


def explicit_part(cut: str) -> str:
    """A completion that was cut, reduced to its explicit final answer; empty if it has none.

    What counts is surely whole: a closed box, or a statement whose sentence ended. The last number
    of half an argument is no answer, and the last number before the cut may lack digits.
    """
    if (boxed := extract_boxed(cut)) is not None:
        return rf"\boxed{{{boxed}}}"
    stated = extract_stated(cut, finished=False)
    return "" if stated is None else f"Answer: {stated}"


def extract_number(completion: str) -> str | None:
    """The last number of a completion in canonical form, None if there is none.

    Canonical means: plain digits, no thousands separators, no leading zeros, no trailing zeros
    after the decimal point, no negative zero; so "1,200.50" and "1200.5" are one answer. A minus
    sign counts only where it cannot be a subtraction: "9 - 4" ends in 4, "the answer is -4" in -4.
    """
    found = list(_NUMBER.finditer(completion))
    if not found:
        return None
    last = found[-1]
    sign, whole, fraction = last.groups(default="")
    whole = whole.replace(",", "").lstrip("0") or "0"
    fraction = fraction.rstrip("0")
    magnitude = f"{whole}.{fraction}" if fraction else whole
    subtracts = completion[: last.start()].rstrip()[-1:].isdigit()
    return f"-{magnitude}" if sign and not subtracts and magnitude != "0" else magnitude


def extract_math(completion: str) -> str | None:
    """A mathematical answer in canonical form: the last box, else the last statement, else number.

    A statement in words ("the answer is 5 apples, not 6") counts with the formula between dollar
    signs, else with the last number before its first comma. A number may be a ratio, "1/2".
    """
    answer = extract_boxed(completion)
    if answer is None and (said := extract_stated(completion)) is not None:
        formula = _INLINE_MATH.search(said)
        if formula:
            answer = next(filter(None, formula.groups()))
        else:
            answer = (_last_quantity(said.split(", ")[0]) if _WORD.search(said) else None) or said
    if answer is None:
        answer = _last_quantity(completion)
    return None if answer is None else canonical_math(answer) or None


def extract_choice(completion: str, letters: str = "ABCDE") -> str | None:
    """The letter that was chosen, in upper case.

    From the explicit final answer if there is one ("B", "(b)", "B) Paris"), else from the last line
    that holds nothing but a letter, or the last letter in parentheses.

    Args:
        completion: what the model wrote.
        letters: of the options, in upper case.
    """
    one = f"[{letters}]"
    explicit = extract_explicit(completion)
    if explicit is not None:
        plain = _undress(re.sub(r"\\(?:text|textbf|mathrm|mathbf)\{(.*?)\}", r"\1", explicit))
        alone = re.fullmatch(rf"\(?({one})[).:]?", plain, re.IGNORECASE)
        leading = re.match(rf"(?:[Oo]ption )?\(?({one})\b(?!['\u2019])", plain)
        chosen = alone or leading
        return chosen[1].upper() if chosen else None
    lone = re.findall(rf"^[\s*(]*({one})[\s*).:]*$", completion, re.MULTILINE)
    found = lone or re.findall(rf"\(({one})\)", completion)
    return found[-1] if found else None


def extract_text(completion: str) -> str | None:
    """An answer in words or symbols: the explicit final answer, else the last line not empty."""
    explicit = extract_explicit(completion)
    last = completion.strip().rpartition("\n")[2] if explicit is None else explicit
    wrapped = re.fullmatch(r"\\text\w*\{([^{}]*)\}", last)
    return _undress(wrapped[1] if wrapped else last) or None


def canonical_math(answer: str) -> str:
    r"""One spelling for answers that are cheaply seen to be equal.

    Markup that means nothing (dollar signs, ``\left``, thin spaces, blanks around operators, the
    ``\text`` around a word) goes; integers, decimals and ratios of integers become an integer, a
    decimal of at most 12 places where that is exact, or a ratio in lowest terms: "1,200" is
    "1200", "2/4" and ``\frac{1}{2}`` are "0.5", "2/6" is "1/3". The form is a fixed point.
    """
    text = _undress(answer.replace("\u2212", "-").replace("{,}", ","))
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])|(?<!\\)\\(?:!\s*|[,;:\s])|~", "", text)
    text = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = text.replace(r"\$", "")
    text = re.sub(r"\s*([-+*/=^<>(){}\[\]])\s*", r"\1", text)
    wrapped = re.fullmatch(r"\\(?:text|textbf|mathrm|mathbf|mbox)\{([^{}]*)\}", text)
    text = _undress(wrapped[1] if wrapped else text)
    value = _rational(text)
    return re.sub(r"\s*,\s*", ", ", " ".join(text.split())) if value is None else _spelled(value)


def _last_quantity(text: str) -> str | None:
    *_, last = (None, *(found[0] for found in _QUANTITY.finditer(text)))
    return last if last and "/" in last else extract_number(text)


def _undress(text: str) -> str:
    """Without the markup and the punctuation around it."""
    while True:
        bare = text.strip().strip('*`"\u201c\u201d').rstrip(".,;:").strip()
        bare = re.sub(r"^'(.*)'$", r"\1", bare)  # a quote at the end alone is a derivative
        formula = _INLINE_MATH.fullmatch(bare)
        if formula:
            bare = next(filter(None, formula.groups()))
        elif bare.count("$") == 1:  # a currency sign
            bare = bare.removeprefix("$")
        if bare == text:
            return bare
        text = bare


def _rational(text: str) -> Fraction | None:
    if (ratio := _RATIO.fullmatch(text)) is not None:
        sign, *parts = ratio.groups()
        above, below = (int(part) for part in parts if part is not None)
        return Fraction(-above if sign == "-" else above, below) if below else None
    if _DECIMAL.fullmatch(text) and any(map(str.isdigit, text)):
        return Fraction(text.replace(",", "").removesuffix("."))
    return None


def _spelled(value: Fraction) -> str:
    scale = 10**_EXACT_DECIMALS
    if value.denominator == 1 or scale % value.denominator:
        return str(value)
    whole, fraction = divmod(abs(value.numerator) * (scale // value.denominator), scale)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}." + f"{fraction:0{_EXACT_DECIMALS}d}".rstrip("0")
