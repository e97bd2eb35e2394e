r"""One spelling of a mathematical answer, and what it consists of.

Numbers are written in one way, markup that means nothing is gone, a unit is plain words after its
number: "1,200", ``1{,}200`` and "$1200" are "1200", ``\frac{2}{4}`` is "0.5", ``5\text{ km}`` is
"5 km", "5 million" is "5000000". The form is a fixed point.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from msjax.tasks.characters import clean
from msjax.tasks.number_words import in_digits
from msjax.tasks.values import UNSIGNED, spelled, value, with_plain_groups

__all__ = [
    "FORMULA",
    "MULTIPLIERS",
    "SUFFIXES",
    "WORD",
    "Quantity",
    "canonical_math",
    "COMPOUND",
    "date",
    "in_full",
    "measure",
    "quantity",
    "split_unit",
    "undress",
]

FORMULA = re.compile(
    r"(?<!\\)\$\$(?P<a>.+?)(?<!\\)\$\$|(?<!\\)\$(?!\s*\$)(?P<b>[^$]+?)(?<!\\)\$"
    r"|\\\((?P<c>.+?)\\\)|\\\[(?P<d>.+?)\\\]",
    re.DOTALL,
)
"""A formula between dollar signs, parentheses or brackets."""

WORD = re.compile(r"(?<![\\A-Za-z{])(?!(?:and|mod|max|min|gcd|lcm)\b)[A-Za-z]{3,}(?![A-Za-z({])")
"""A word, which shows that a text is no formula."""

MULTIPLIERS = {
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "lakh": 10**5,
    "crore": 10**7,
}
"""Words that are part of a number."""

SUFFIXES = {
    **{"k": 10**3, "K": 10**3, "M": 10**6, "mn": 10**6, "B": 10**9, "bn": 10**9, "tn": 10**12},
    **{"\u4e07": 10**4, "\u842c": 10**4, "\u4ebf": 10**8, "\u5104": 10**8},
}
"""Marks that are part of a number where they touch it: "1.2k" is 1200."""

_WRAPPED = re.compile(
    r"\\(?:text(?:normal|bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|bb(?=\{[A-Za-z]{2})|normal)|mbox|hbox"
    r"|operatorname|emph|bold|underline|boldsymbol)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
# What says how something looks: colours, and declarations of type faces and sizes.
_LOOKS = re.compile(
    r"\\color\s*\{[^{}]*\}|\\textcolor\s*\{[^{}]*\}(?=\s*\{)|\\(?:bf|rm|it|sf|tt|bfseries|itshape|tiny|small|normalsize|large"
    r"|Large|LARGE|huge|Huge)(?![A-Za-z])"
)
_ROWS = re.compile(
    r"\\begin\s*\{(aligned|align|gathered|gather|split|equation)(\*?)\}(.*?)\\end\s*\{\1\2\}",
    re.DOTALL,
)
_OVER = re.compile(
    r"\{\s*([^{}]+?)\\over(?![A-Za-z])([^{}]+?)\s*\}|([^{}]+?)\\over(?![A-Za-z])([^{}]+)"
)
_CHOOSE = re.compile(r"\{?\s*(\w+)\s*\\choose(?![A-Za-z])\s*(\w+)\s*\}?")
_UNIT_RATIO = re.compile(
    r"\\[dt]?frac\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]+)\}\s*\}\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]+)\}\s*\}"
)
# "5 \\frac{m}{s}", of units that nobody takes for variables beside a number.
_PLAIN_RATIO = re.compile(
    r"(?<=[\d}\s])\s*\\[dt]?frac\s*\{\s*(k?m|[cm]m|mi|ft|k?g|mg|k?J|L|mol)\s*\}"
    r"\s*\{\s*((?:hr|min|kg|[cm]m|mL|mol|[hgmsL])(?:\s*\^\s*\{?\s*[23]\s*\}?)?)\s*\}\s*$"
)
_SIUNITX = re.compile(r"\\(?:num|SI|qty)\s*\{([^{}]*)\}(?:\{((?:\\[a-z]+)*)\})?")
_DOTTED_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3}){2,}(?![\d.])")
# "$1.2M": behind a price these letters are part of the number.
_PRICE = re.compile(r"(?:\\?\$|€|£|¥|₹)\s*(-?[\d.,]*\d)\s?(k|K|M|mn|B|bn)(?![A-Za-z])")
_PRICED = {"k": "thousand", "m": "million", "b": "billion"}
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_SYMBOLS = {
    "√": r"\sqrt",
    "π": r"\pi",
    "∞": r"\infty",
    "≤": r"\leq",
    "≥": r"\geq",
    "⩽": r"\leq",
    "⩾": r"\geq",
    "≠": r"\neq",
    "≈": r"\approx",
    "×": r"\times",
    "÷": r"\div",
    "·": r"\cdot",
    "⋅": r"\cdot",
    "∙": r"\cdot",
    "±": r"\pm",
    "∓": r"\mp",
    "∅": r"\emptyset",
    "∪": r"\cup",
    "∩": r"\cap",
    "∈": r"\in",
    "θ": r"\theta",
    "α": r"\alpha",
    "β": r"\beta",
    "γ": r"\gamma",
    "λ": r"\lambda",
    "μ": r"\mu",
    "φ": r"\phi",
    "°": r"^\circ",
    "∘": r"\circ",
    "…": r"\ldots",
    "⋯": r"\ldots",
    "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]",
    "¢": " cents",
}
_SYMBOL = re.compile(f"[{''.join(_SYMBOLS)}]")
_SAME = [
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset"),
    (re.compile(r"\\(?:le|leqslant)(?![A-Za-z])"), r"\\leq"),
    (re.compile(r"\\(?:ge|geqslant)(?![A-Za-z])"), r"\\geq"),
    (re.compile(r"\\(?:ne|not\s*=)(?![A-Za-z])"), r"\\neq"),
    (re.compile(r"\\(?:dots[bcimo]?|cdots)(?![A-Za-z])|\.\.\."), r"\\ldots"),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\var(theta|phi|epsilon)(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"\^\s*\{\s*\\circ\s*\}|\\degree(?:s)?(?![A-Za-z])"), r"^\\circ"),
    (
        re.compile(
            r"\\(?:displaystyle|textstyle|limits|bigl?|bigr?|Bigl?|Bigr?|,|;|:|!\s*)(?![A-Za-z])"
        ),
        "",
    ),
]
_ROOT = re.compile(r"(?<![A-Za-z])\\?sqrt\s*(\[\d\])?\s*(?:\(([^()]*)\)|(\d+|[a-z])(?![\w{]))")
_CURRENCY = re.compile(r"((?:US|A|C)?\\?\$|€|£|¥|₹|\b(?:USD|EUR|GBP|Rs\.?)(?=\s*-?[\d.]))\s*")
_CURRENCIES = {
    **{"€": "euros", "EUR": "euros", "£": "pounds", "GBP": "pounds"},
    **{"¥": "yen", "₹": "rupees", "Rs": "rupees", "Rs.": "rupees"},
}
_PERCENT = re.compile(r"\s*(?:\\?%|(?:\bpercent(?:age)?|\bper cent|\bpct)\b\.?(?:\s+points?)?)")
_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_MONTHS = "January February March April May June July August September October November December"
_MONTH = "|".join(
    rf"{name[:3]}(?:{name[3:]}|\.)?" if name[3:] else name for name in _MONTHS.split()
)
_DATE = re.compile(
    rf"(?P<month>{_MONTH})\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s+(?P<year>\d{{4}}))?"
    rf"|(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<month2>{_MONTH})(?:,?\s+(?P<year2>\d{{4}}))?",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"(\d+)\s*\^?\s*\{?\s*(?:st|nd|rd|th)\s*\}?")
_AND_RATIO = re.compile(r"(?<![\d.,])(\d+)\s+and\s+(\d+/\d+)(?=\s+[a-z]{3})", re.IGNORECASE)
_NAMED = re.compile(r"((?:\\[a-z]+|[A-Za-z])(?:_\w|_\{\w+\}|')?)\s*=\s*(.+)")
_HALVES = re.compile(rf"({UNSIGNED})\s+and\s+(?:a|one)[\s-]+half\b", re.IGNORECASE)
_LONGEST = 2000  # characters; a longer text is written as it is
_LITERAL = re.compile(
    rf"[-+]?\s*(?:\d+\s*\\frac(?:\{{\d+\}}\{{\d+\}}|\s*\d\s*\d)|\d+ +\d+/\d+"
    rf"|\\frac(?:\{{-?\d+\}}\{{\d+\}}|\s*\d\s*\d)"
    rf"|{UNSIGNED}/\d+|{UNSIGNED}(?:[eE][-+]?\d{{1,3}}(?!\d))?)"
    rf"(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:-?\d|\{{-?\d+\}}))?"
)
# A unit is what is surely one: known short names, or words of three letters and more.
_SHORT = (
    "cm|mm|km|m|kg|mg|g|l|ml|cl|ft|in|lb|lbs|oz|yd|mi|hr|hrs|h|s|ms|min|mins|sec|secs|mph|kph|"
    "cc|gal|pt|qt|hz|khz|mhz|kw|kwh|w|j|kj|n|pa|k|c|f|rad|deg|sq|cu|yr|yrs|wk|wks|mo|gb|mb|kb|tb"
)
_LETTERS = "mgshlLCFKNJWV"  # of these, the ones that stand for a unit where a space precedes
_UNIT_WORD = rf"(?:{_SHORT}|[a-z]{{3,}}|per|of|a|an|in|at|to)"
_UNIT = re.compile(
    rf"(?:\^\\circ\s*[CF]?|{_UNIT_WORD})\.?(?:\^(?:\{{?[23]\}}?)|[23](?!\d))?"
    rf"(?:(?:\s+|\s*[-/]\s*|\s*\\cdot\s*)(?:{_UNIT_WORD})\.?(?:\^(?:\{{?-?[123]\}}?)|[23](?!\d))?)*",
    re.IGNORECASE,
)
_POWER = r"(?:\^\{?-?[123]\}?)?"
_TRAILING = re.compile(
    rf"(?<=[\d)}}\s])((?:{_SHORT}|[a-z]{{4,}})(?![a-z(])\.?{_POWER}"
    rf"(?:(?:\s+|\s*/\s*){_UNIT_WORD}\.?{_POWER})*|\^\\circ\s*[CF]?)$",
    re.IGNORECASE,
)
# Words that change the value, so that a text with one of them is more than a number and its unit.
_CHANGES = re.compile(
    r"\b(?:hundreds?|thousands?|millions?|billions?|trillions?|hal(?:f|ves)|thirds?|quarters?"
    r"|fourths?|fifths?|sixths?|eighths?|tenths?|hundredths?|thousandths?|squared|cubed|factorial"
    r"|base|mod|modulo|am|pm|or|and|not|more|less|fewer|plus|minus|times|over|root|remainder|sin"
    r"|cos|tan|log|exp|sqrt|undefined|infinity|negative|positive|at least|at most|about|between"
    r"|two|three|four|five|six|seven|eight|nine|ten|for|all|where|when|if)\b",
    re.IGNORECASE,
)
_ONE_UNIT = {
    "centimeter": "cm",
    "centimetre": "cm",
    "millimeter": "mm",
    "millimetre": "mm",
    "kilometer": "km",
    "kilometre": "km",
    "meter": "m",
    "metre": "m",
    "kilogram": "kg",
    "milligram": "mg",
    "gram": "g",
    "liter": "l",
    "litre": "l",
    "milliliter": "ml",
    "millilitre": "ml",
    "feet": "ft",
    "foot": "ft",
    "inche": "in",
    "inch": "in",
    "pound": "lb",
    "ounce": "oz",
    "yard": "yd",
    "mile": "mi",
    "hour": "h",
    "hr": "h",
    "minute": "min",
    "second": "s",
    "sec": "s",
    "degree": "°",
    "deg": "°",
    "year": "yr",
    "week": "wk",
    "month": "mo",
    "radian": "rad",
    "usd": "dollar",
    "buck": "dollar",
    "gallon": "gal",
    "mph": "mi/h",
    "kph": "km/h",
    "kmh": "km/h",
}


_SUFFIX = re.compile(rf"({'|'.join(SUFFIXES)})(?![A-Za-z])")


class Quantity(NamedTuple):
    """A number and what follows it.

    Attributes:
        number: its exact value.
        words: the unit as it was written; empty where there is none.
        percent: whether a per cent sign follows.
    """

    number: Fraction
    words: str = ""
    percent: bool = False

    @property
    def unit(self) -> str:
        """The unit with each word in one spelling: "meters per second" is "m/s"."""
        return _unit(self.words)


def canonical_math(answer: str) -> str:
    """One spelling for answers that are seen to be equal; see the top of this file."""
    if len(answer) > _LONGEST:
        return " ".join(answer.split())
    if re.fullmatch(r"-?[1-9]\d{0,14}", answer):
        return answer
    for _ in range(4):  # what one step uncovers, another may still shorten
        text = _one_pass(answer)
        if text == answer:
            break
        answer = text
    return answer


def _one_pass(answer: str) -> str:
    text = with_plain_groups(undress(_unboxed(clean(answer))))
    text = re.sub(r"(?<![A-Za-z])\{([-+,])\}", r"\1", text)
    if "\\" in text:
        text = _with_fewer_commands(text)
    text = _PRICE.sub(lambda found: f"{found[1]} {_PRICED[found[2][0].lower()]}", text)
    text = _DOTTED_GROUPS.sub(lambda found: found[0].replace(".", ""), text)
    text = re.sub(r"(?<=\d),\s*\\!\s*(?=\d{3})", ",", text)
    text = re.sub(r"(?<=\d)(?:\\[,;:! ]|~)+(?=\d{3}(?!\d))", " ", text)
    text = _SYMBOL.sub(lambda found: _SYMBOLS[found[0]] + " ", text)
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])\.?|(?<!\\)\\\s|~|\\q?quad(?![A-Za-z])", " ", text)
    for pattern, same in _SAME:
        text = pattern.sub(same, text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = _ROOT.sub(lambda found: rf"\sqrt{found[1] or ''}{{{found[2] or found[3]}}}", text)
    text = re.sub(r"(?<=\d)\s*x\s*(?=10\s*\^)", r" \\times ", text)
    text = _WRAPPED.sub(lambda found: f" {found[1]} ", text)
    priced = {_CURRENCIES.get(found[1], "dollars") for found in _CURRENCY.finditer(text)}
    text = re.sub(r"\s+\^", "^", _CURRENCY.sub("", text)).removeprefix(r"\approx ")
    text = _AND_RATIO.sub(r"\1 \2", text)
    text = _HALVES.sub(lambda found: f"{found[1].replace(',', '')} 1/2", text)
    text = undress(" ".join(text.split()))
    while _is_group(text):
        text = text[1:-1].strip()
    text = _OPTION.sub("", text)
    if (when := date(text) or _time(text)) is not None:
        return when
    if ordinal := _ORDINAL.fullmatch(text):
        return ordinal[1]
    if text[:1].isalpha() and quantity(said := in_digits(text)) is not None:
        text = said
    if (named := _NAMED.fullmatch(text)) is not None and quantity(named[2]) is not None:
        return f"{named[1]}={_one_pass(named[2])}"
    found = quantity(text)
    if found is not None:
        if (
            len(priced) == 1
            and not found.percent
            and re.match(r"(?:per|an?|each)\b|$", found.words)
        ):
            found = found._replace(words=f"{priced.pop()} {found.words}".strip())
        words = f" {found.words}".replace(" °", "°") if found.words else ""
        return f"{spelled(found.number)}{'%' if found.percent else ''}{words}"
    text = re.sub(r"(?<=\d)\s*:\s*(?=\d)", ":", text)
    text = re.sub(r"\s*([-+*/=^<>(){}\[\]_])\s*", r"\1", text)
    text = re.sub(
        r"\s*(\\(?:times|cdot|leq|geq|neq|pm|approx|cup|cap|in)(?![A-Za-z]))\s*", r"\1 ", text
    )
    text = re.sub(r"(\\[A-Za-z]+) (?=[^A-Za-z])", r"\1", text)
    text = re.sub(r"([_^])\{(\w)\}", r"\1\2", text)
    return re.sub(r"\s*,\s*", ", ", " ".join(text.split())).strip()


def _with_fewer_commands(text: str) -> str:
    """LaTeX without what says how things look, and with other commands for the same replaced."""
    text = _LOOKS.sub("", _ROWS.sub(lambda found: _last_row(found[3]), text))
    text = _SIUNITX.sub(lambda found: f"{found[1]} {(found[2] or '').replace(chr(92), ' ')}", text)
    text = _UNIT_RATIO.sub(r"\\text{\1/\2}", text)
    if re.match(r"-?\d", text):
        text = _PLAIN_RATIO.sub(r" \1/\2", text)
    if r"\over" in text:
        text = _OVER.sub(lambda found: _ratio(*filter(None, found.groups())), text)
    return _CHOOSE.sub(r"\\binom{\1}{\2}", text)


def _is_group(text: str) -> bool:
    """Whether one pair of braces encloses all of a text."""
    if not (text.startswith("{") and text.endswith("}")) or text.endswith("\\}"):
        return False
    depth = 0
    for at, one in enumerate(text):
        depth += {"{": 1, "}": -1}.get(one, 0)
        if depth == 0:
            return at == len(text) - 1
    return False


def _last_row(rows: str) -> str:
    """What comes out of equations below each other."""
    last = re.split(r"\\\\(?:\[[^\]]*\])?", rows.strip().removesuffix("\\\\"))[-1]
    return last.replace("&", " ").strip().removeprefix("=").rpartition("=")[2].strip()


def _ratio(above: str, below: str) -> str:
    return rf"\frac{{{above.strip()}}}{{{below.strip()}}}"


def undress(text: str) -> str:
    """Without the markup and the punctuation around it."""
    while True:
        bare = text.strip().strip('*`"\u201c\u201d').strip()
        bare = bare.rstrip(".,;:").strip() if not bare.endswith("...") else bare
        bare = re.sub(r"^'(.*)'$", r"\1", bare)  # a quote at the end alone is a derivative
        bare = re.sub(r"^_([^_]+)_$", r"\1", bare)
        bare = re.sub(r"^<(-?\d[\d.,/]*%?)>$", r"\1", bare)
        formula = FORMULA.fullmatch(bare)
        if formula:
            bare = next(filter(None, formula.groups()))
        if bare == text:
            return bare
        text = bare


_OPTION = re.compile(r"^\([A-J]\)[\s:.]*(?=[-+$(]*[\d\\])")  # (B) 12: an option with its letter


def _unboxed(text: str) -> str:
    while found := _BOX.search(text):
        inside = text[found.end() :]
        depth = 1
        for at, one in enumerate(inside):
            depth += {"{": 1, "}": -1}.get(one, 0)
            if depth == 0:
                text = text[: found.start()] + inside[:at] + inside[at + 1 :]
                break
        else:
            return text[: found.start()] + inside
    return text


def quantity(text: str) -> Quantity | None:
    """The number that a text is, with its unit or per cent sign; None if it is anything else."""
    if len(text) > 200:
        return None
    text = text.replace("°", r"^\circ")
    literal = _LITERAL.match(text)
    if literal is None:
        return None
    number = value(literal[0])
    rest = text[literal.end() :]
    if number is None or max(len(str(abs(number.numerator))), len(str(number.denominator))) > 400:
        return None
    multiplied = re.match(rf"\s*({'|'.join(MULTIPLIERS)})s?\b", rest, re.IGNORECASE)
    if multiplied and not rest[: multiplied.start(1)].strip():
        number *= MULTIPLIERS[multiplied[1].lower()]
        rest = rest[multiplied.end() :]
    elif (marked := _SUFFIX.match(rest)) and (marked[1] > "z" or rest[marked.end() :].strip()):
        number *= SUFFIXES[marked[1]]  # "5k" alone may be a formula
        rest = rest[marked.end() :]
    percent = _PERCENT.match(rest)
    if percent and percent[0].strip():
        rest = rest[percent.end() :]
    else:
        percent = None
    rest = re.sub(r"^\s*/\s*(?=(?:[a-z]{3,}|hr|kg|lb|mi|km)\b)", " per ", rest)
    rest, spaced = rest.strip(), rest[:1] in (" ", "-", "")
    if not rest:
        return Quantity(number, "", bool(percent))
    if aside := re.fullmatch(r"\(([A-Za-z][A-Za-z /]+)\)", rest):
        rest, spaced = aside[1], True
    rest = rest.removeprefix("-") if re.match(r"-[A-Za-z]", rest) else rest
    known = re.match(rf"(?:(?:{_SHORT})(?![A-Za-z])|\^\\circ)", rest, re.IGNORECASE)
    single = re.fullmatch(r"[A-Za-z]", rest)
    plausible = known is not None or spaced
    if single and (not spaced or rest not in _LETTERS):
        plausible = False
    if not (plausible and _UNIT.fullmatch(rest)) or _CHANGES.search(rest):
        return None
    return Quantity(
        number, re.sub(r"\^\{(-?\d)\}", r"^\1", rest).replace(r"^\circ", "°"), bool(percent)
    )


def in_full(text: str) -> Fraction | None:
    """The number that "1.2k" or "5M" may stand for, where it is no formula; None for all else."""
    found = re.fullmatch(rf"(-?{UNSIGNED}){_SUFFIX.pattern}", text)
    number = None if found is None else value(found[1])
    return None if found is None or number is None else number * SUFFIXES[found[2]]


_FAMILIES = (
    {"s": 1, "min": 60, "h": 3600, "day": 86_400, "wk": 604_800},
    {"mo": 1, "yr": 12},
    {"in": 1, "ft": 12, "yd": 36, "mi": 63_360},
    {"oz": 1, "lb": 16},
    {"cent": 1, "dollar": 100},
    {"mm": 1, "cm": 10, "m": 1000, "km": 10**6},
    {"mg": 1, "g": 1000, "kg": 10**6},
    {"ml": 1, "l": 1000},
)
_PART = rf"({UNSIGNED})\s*([A-Za-z]+)\b\.?"
_ONE_PART = rf"{UNSIGNED}\s*[A-Za-z]+\b\.?"
_MOST_PARTS = max(map(len, _FAMILIES))
COMPOUND = re.compile(rf"{_ONE_PART}(?:(?:,?\s+and\s+|,?\s+|,){_ONE_PART}){{1,{_MOST_PARTS - 1}}}")
"""What may be one quantity in several units, see `measure`: no two of its parts have one unit."""


class Measure(NamedTuple):
    """A quantity as a multiple of the smallest unit of its family.

    Attributes:
        size: how many of the smallest unit.
        family: number of the family of units.
        first: how many of the smallest are one of the unit that was said first.
        parts: in how many units it was said.
    """

    size: Fraction
    family: int
    first: int
    parts: int


def measure(text: str) -> Measure | None:
    """A quantity in one or more units of one family, from the larger to the smaller.

    "1 hour 30 minutes" is 5400 seconds, "5 dollars and 25 cents" 525 cents. None for all else.
    """
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    if not (COMPOUND.fullmatch(text) or re.fullmatch(_PART, text)):
        return None
    parts = [(value(number) or 0, _unit(unit)) for number, unit in re.findall(_PART, text)]
    for which, family in enumerate(_FAMILIES):
        sizes = [family.get(unit, 0) for _, unit in parts]
        if all(sizes) and sizes == sorted(set(sizes), reverse=True):
            total = sum(
                (number or 0) * size for (number, _), size in zip(parts, sizes, strict=True)
            )
            return Measure(sign * Fraction(total), which, sizes[0], len(parts))
    return None


def split_unit(text: str) -> tuple[str, str]:
    """A formula and the unit after it, in one spelling; "" where there is none."""
    found = _TRAILING.search(text)
    if found is None or _CHANGES.search(found[1]):
        return text, ""
    rest = text[: found.start()].strip()
    letters = re.sub(r"\\[A-Za-z]+", "", rest)
    if not re.search(r"\d|\\pi", rest) or WORD.search(rest):
        return text, ""
    if len(found[1]) == 1 and (
        found[1] not in _LETTERS
        or text[found.start() - 1].isdigit()
        or re.search("[A-Za-z]", letters)
    ):
        return text, ""  # one more variable
    return rest, _unit(found[1].replace(r"^\circ", "°"))


def _unit(text: str) -> str:
    """A unit in plain words, each in the singular and, where it is known, as its short name."""
    text = re.sub(r"\b(?:square|sq\.?) (\w+)", r"\1^2", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(?:cubic|cu\.?) (\w+)", r"\1^3", text, flags=re.IGNORECASE)
    text = re.sub(r"\s+([A-Za-z]+)\^\{?-1\}?", r"/\1", text)
    text = re.sub(r"(?<=[a-z])([23])\b", r"^\1", re.sub(r"\s+per\s+|\s*/\s*", "/", text))
    parts = re.split(
        r"([\s/^-]+(?=[a-z0-9])|(?=\^))", text.strip().rstrip("."), flags=re.IGNORECASE
    )
    return "".join(_one_unit(part) for part in parts if part is not None)


def _one_unit(word: str) -> str:
    if not re.fullmatch(r"[A-Za-z.]+", word):
        return " " if word.isspace() else word.strip()
    word = word.rstrip(".")
    low = word.lower() if len(word) > 1 else word
    if low in ("mins", "secs", "hrs", "lbs", "yrs", "wks"):
        low = low[:-1]
    singular = low[:-1] if len(low) > 3 and low.endswith("s") and not low.endswith("ss") else low
    return _ONE_UNIT.get(low) or _ONE_UNIT.get(singular, singular)


def date(text: str) -> str | None:
    """A day of the year in one spelling: "March 5", "July 4, 1776"; None for all else."""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    short = (found["month"] or found["month2"])[:3].lower()
    month = next(name for name in _MONTHS.split() if name[:3].lower() == short)
    day, year = found["day"] or found["day2"], found["year"] or found["year2"]
    return f"{month} {int(day)}" + (f", {year}" if year else "")


def _time(text: str) -> str | None:
    """A time of day in one spelling: "3:00 PM", "15:30"."""
    found = _TIME.fullmatch(text)
    if found is None or not (found[2] or found[3]):
        return None
    hour, minute = int(found[1]), found[2]
    if found[3]:
        if not 1 <= hour <= 12:
            return None
        return f"{hour}:{minute or '00'} {found[3].upper()}M"
    return f"{hour}:{minute}"
