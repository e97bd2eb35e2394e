"""Numbers in English words: "twenty-five" is 25, "two and a half" 2 1/2, "two thirds" 2/3."""

import re
from fractions import Fraction

__all__ = ["in_digits"]

_ONES = dict(
    zip(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen".split(),
        range(20),
        strict=True,
    )
)
_TENS = {
    word: 10 * n
    for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {
    **{"half": 2, "halves": 2, "quarter": 4, "fourth": 4, "third": 3, "fifth": 5, "sixth": 6},
    **{"seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10, "twelfth": 12, "hundredth": 100},
}
_NUMBER = rf"(?:{'|'.join([*_TENS, *reversed(_ONES), 'hundred', *_LARGE])})"
_PART = rf"(?:{'|'.join(_PARTS)})s?"
_RUN = re.compile(
    rf"(?<![A-Za-z-])(?P<sign>(?:negative|minus)\s+)?(?:"
    rf"(?P<half>(?:(?:a|one)[\s-]+)?half(?:\s+of)?(?:\s+an?(?=\s))?)"
    rf"|(?P<of>an?|{_NUMBER})[\s-]+(?P<part>{_PART})"
    rf"|(?P<whole>(?:an?\s+(?=hundred|thousand|million|billion|trillion))?{_NUMBER}"
    rf"(?:(?:[\s-]+|,\s+)(?:and\s+(?!{_NUMBER}[\s-]+{_PART}\b))?{_NUMBER})*)"
    rf"(?:\s+and\s+(?P<more>an?|{_NUMBER})[\s-]+(?P<rest>{_PART}))?"
    rf")(?![A-Za-z])",
    re.IGNORECASE,
)


def in_digits(text: str) -> str:
    """A text with the number in words that it begins with in digits; unchanged if there is none."""
    bare = text.lstrip(" *_\"'`\u201c")
    found = _RUN.match(bare)
    if found is None:
        return text
    number = _value(found)
    if number is None:
        return text
    sign = "-" if found["sign"] else ""
    size, part = divmod(number.numerator, number.denominator)
    ratio = f"{part}/{number.denominator}" if part else ""
    whole = str(size) if size or not part else ""
    return f"{sign}{' '.join(filter(None, (whole, ratio)))}{bare[found.end() :]}"


def _value(found: "re.Match[str]") -> Fraction | None:
    if found["half"]:
        return Fraction(1, 2)
    if found["part"]:
        return _ratio(found["of"], found["part"])
    whole = _whole(re.findall("[a-z]+", found["whole"].lower()))
    rest = _ratio(found["more"], found["rest"]) if found["rest"] else Fraction(0)
    return None if whole is None or rest is None else whole + rest


def _ratio(above: str, below: str) -> Fraction | None:
    word = below.lower()
    size = _PARTS.get(word) or _PARTS.get(word.removesuffix("s"))
    count = 1 if above.lower() in ("a", "an") else _whole([above.lower()])
    return None if size is None or count is None else Fraction(count, size)


def _whole(words: list[str]) -> int | None:
    """The number that words say in order, None where they are no one number ("five six")."""
    total = group = 0
    left = 1000  # what may still be added to the group is below this
    bound = 10**15
    for word in words:
        if word in ("and", "a", "an"):
            continue
        if word == "hundred":
            if left != 1000 and not 0 < group < 20:
                return None
            group, left = (group or 1) * 100, 100
        elif word in _LARGE:
            if _LARGE[word] >= bound:
                return None
            total += (group or 1) * _LARGE[word]
            bound, group, left = _LARGE[word], 0, 1000
        else:
            size = _ONES.get(word, _TENS.get(word, 0))
            if size >= left or (size == 0 and len(words) > 1):
                return None
            group += size
            left = 10 if word in _TENS else 1
    return total + group
