"""Characters in one spelling: the door through which every completion and every right answer goes.

Models write digits, signs and spaces in many characters that look alike. After `clean` they are
ASCII wherever ASCII has them: superscripts are powers, vulgar fractions ratios, and what has no
width is gone.
"""

import re
import unicodedata
from typing import Any

__all__ = ["clean", "writable", "writable_value"]

_NO_WIDTH = dict.fromkeys(
    [0xAD, 0x180E, 0x20E3, 0xFEFF]  # 20E3: the key around a digit
    + [*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)]
    + [*range(0xFE00, 0xFE10)]
)
_MINUS = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2012\u02d7\ufe63\uff0d\u2796", "-"))
_SPACES = "\u00a0\u2000-\u200a\u202f\u205f"
_GROUPED = re.compile(rf"(?<![\d.,])\d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?![\d/])")
# A long dash is a sign where a number follows at once and none comes before; else punctuation.
_DASH = re.compile(
    r"(?:(?<=[\s({\[$=:,|*_])|^)[\u2013\u2014\u2015](?=[$\u20ac\u00a3\u00a5\u20b9]?[\d.\\])"
)
_EN_DASH = re.compile(r"\s?\u2013\s?")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")
_RAISED_SIGN = re.compile(r"(?<![\w)}\]])([⁺⁻])(?=\s?[\d.\\])")
_RAISED_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎", "0123456789+-=()")
_LOWERED_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎]+")
_VULGAR = re.compile(
    "(?:(\\d)\\s?)?([\u00bc-\u00be\u2150-\u215e\u2189])(?=([A-Za-z(\\\\\u221a\u03c0])?)"
)
_OVERLINED = re.compile("((?:\\d\u0305)+)")
_UNESCAPED = {"\x08oxed": r"\boxed", "\x0crac": r"\frac", "\x0cbox": r"\fbox", "\text{": r"\text{"}


def clean(text: str) -> str:
    r"""Text in one spelling of equal characters.

    Compatibility forms become what they stand for (NFKC), digits of every script ASCII, dashes that
    are signs "-", spaces of every width " " (none between the groups of a number), superscripts
    ``^{...}``, subscripts ``_{...}``, vulgar fractions ratios ("1½" is "1 1/2"). Characters without
    width go, and commands that a JSON reader took for escapes ("\b" + "oxed") come back.
    """
    if text.isascii() and not any(mark in text for mark in _UNESCAPED):
        return text
    text = text.translate(_NO_WIDTH)
    for escape, command in _UNESCAPED.items():
        text = text.replace(escape, command)
    text = _GROUPED.sub(lambda found: re.sub(rf"[{_SPACES}]", "", found[0]), text)
    text = _OVERLINED.sub(lambda found: rf"\overline{{{found[1].replace(chr(0x305), '')}}}", text)
    text = _RAISED_SIGN.sub(lambda found: found[1].translate(_RAISED), text)
    text = _RAISED_RUN.sub(lambda found: f"^{{{found[0].translate(_RAISED)}}}", text)
    text = _LOWERED_RUN.sub(lambda found: f"_{{{found[0].translate(_LOWERED)}}}", text)
    text = _VULGAR.sub(_ratio, text)
    text = _DASH.sub("-", text.translate(_MINUS))
    text = unicodedata.normalize("NFKC", text)
    text = _EN_DASH.sub(_between, text)
    text = text.replace("\u2044", "/").replace("\u2215", "/")
    return "".join(
        str(unicodedata.digit(one)) if one.isdigit() and not one.isascii() else one for one in text
    )


def writable(text: str) -> str:
    """Text that a file can hold: halves of surrogate pairs become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def writable_value(value: Any) -> Any:
    """The same of every text in a value of JSON."""
    if isinstance(value, str):
        return value if value.isascii() else writable(value)
    if isinstance(value, list):
        return list(map(writable_value, value))
    if isinstance(value, dict):
        return {writable_value(name): writable_value(x) for name, x in value.items()}
    return value


def _ratio(found: "re.Match[str]") -> str:
    above, _, below = unicodedata.normalize("NFKC", found[2]).partition("\u2044")
    if found[3]:
        return rf"{found[1] or ''}\frac{{{above}}}{{{below}}}"
    return f"{found[1]} {above}/{below}" if found[1] else f"{above}/{below}"


def _between(found: "re.Match[str]") -> str:
    """A dash between words stays apart from what follows, so that it is no sign."""
    return "-" if len(found[0]) == 1 else " - "
