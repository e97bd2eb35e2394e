r"""Numbers exactly: what a numeral, a ratio, a power or any arithmetic of them is worth.

``value`` reads what has a rational value ("1,200.50", "2 2/3", ``\frac{1}{2^{99}}``, "3!"),
``spelled`` writes it in one way, and ``rounds_to`` says whether a decimal is a rounded ratio.
"""

import math
import re
from fractions import Fraction

__all__ = ["UNSIGNED", "rounds_to", "spelled", "value", "with_plain_groups"]

_INDIAN = r"\d{1,2}(?:,\d{2})+,\d{3}(?![\d,])"  # 12,34,567
UNSIGNED = (
    rf"(?:(?:{_INDIAN}|\d{{1,3}}(?:,\d{{3}})+|\d{{1,3}}(?: \d{{3}})+(?![\d/])|\d+)"
    r"(?:\.\d+)?|\.\d+)"
)
"""A numeral without its sign, as text has it: digits, maybe in groups, maybe a point."""

_EXACT_DECIMALS = 30
_LONGEST = 400  # characters of an expression; more are never a number that someone meant
_BITS = 60_000
_DIGITS = 50  # a numeral with more stays as it was written
_ENOUGH = 6  # significant digits that make a decimal a rounded value rather than another one

_TOKEN = re.compile(
    r"(?P<whole>\d*)\.(?P<start>\d*)(?:\\(?:overline|bar|dot)\s*\{(?P<repeated>\d{1,20})\}"
    r"|\((?P<again>\d{1,20})\))"
    rf"|(?P<number>{_INDIAN}(?:\.\d+)?|\d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)?"
    r"|\d{1,3}(?: \d{3})+(?![\d/])(?:\.\d+)?|\d+\.?\d*|\.\d+)"
    r"(?:[eE](?P<power>[-+]?\d{1,4})(?![\d.]))?"
    r"|(?P<frac>\\[dtc]?frac)\s*(?:(?P<above>\d)\s*(?P<below>\d))?"
    r"|(?P<sign>\*\*|\\times|\\cdot|\\div|\\left|\\right|[-+*/^!(){}×÷])"
    r"|(?P<space>(?:\\[,;:! ]|[\s~])+)"
)


# "0.333..." repeats what is there three times.
_DOTTED = re.compile(r"(\d*\.\d*?)(\d{1,3}?)\2\2+(?:\.\.\.|\\ldots)$")


_COMMA = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+|\d{1,3}(?: \d{3})+),(\d{1,2})(?![\d,])")
_UNDERSCORED = re.compile(r"(?<![\w.])\d{1,3}(?:_\d{3})+(?![\w{])")
_APOSTROPHES = re.compile(r"(?<![\w.])\d{1,3}(?:['\u2019]\d{3})+(?![\w'\u2019])")


def with_plain_groups(text: str) -> str:
    """A text whose numbers are free of marks between groups that can be nothing else.

    "1.234,56" and "1 234,56" are 1234.56, "1_234_567" and "1'234'567" are 1234567.
    """
    text = _COMMA.sub(lambda found: f"{re.sub('[. ]', '', found[1])}.{found[2]}", text)
    text = _UNDERSCORED.sub(lambda found: found[0].replace("_", ""), text)
    return _APOSTROPHES.sub(lambda found: re.sub("['\u2019]", "", found[0]), text)


def value(text: str) -> Fraction | None:
    """The exact value of a number or of arithmetic on numbers; None where it is neither.

    A whole number beside a proper ratio is a mixed number, "2 2/3" is 8/3. Nothing is rounded, and
    nothing that would take more than some ten thousand digits is computed.
    """
    text = text.strip()
    if not text or len(text) > _LONGEST:
        return None
    text = _DOTTED.sub(r"\1\\overline{\2}", text.replace("{,}", ","))
    try:
        return _Arithmetic(text).result()
    except (ValueError, ZeroDivisionError, RecursionError):
        return None


class _Arithmetic:
    """A recursive descent over sums, products, powers and atoms; ValueError if it does not fit."""

    def __init__(self, text: str):
        self._tokens: list[re.Match[str]] = []
        at = 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None:
                raise ValueError(text[at])
            self._tokens.append(token)
            at = token.end()
        self._at = 0
        self._depth = 0

    def result(self) -> Fraction:
        found = self._sum()
        if self._peek() is not None:
            raise ValueError("more follows")
        return found

    def _peek(self, spaces: bool = False) -> "re.Match[str] | None":
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            if (token["space"] and not spaces) or token[0] in (r"\left", r"\right"):
                self._at += 1
                continue
            return token
        return None

    def _take(self, *signs: str) -> str:
        token = self._peek()
        if token is not None and token["sign"] in signs:
            self._at += 1
            return token[0]
        return ""

    def _sum(self) -> Fraction:
        self._depth += 1
        if self._depth > 30:
            raise ValueError("too deep")
        total = self._product()
        while sign := self._take("+", "-"):
            term = self._product()
            total = total + term if sign == "+" else total - term
        self._depth -= 1
        return total

    def _product(self) -> Fraction:
        if sign := self._take("-", "+"):
            found = self._product()
            return -found if sign == "-" else found
        found = self._power()
        while True:
            if sign := self._take("*", "/", r"\times", r"\cdot", r"\div", "×", "÷"):
                negative = self._take("-")
                factor = self._power()
                factor = -factor if negative else factor
                found = found / factor if sign in ("/", r"\div", "÷") else found * factor
            elif (token := self._peek()) is not None and token[0] == "(":
                found *= self._power()
            else:
                return found

    def _power(self) -> Fraction:
        base = self._atom()
        if self._take("!"):
            if self._take("!"):
                raise ValueError("a double factorial")
            if base.denominator != 1 or not 0 <= base <= 5000:
                raise ValueError("no factorial")
            base = Fraction(math.factorial(int(base)))
        if self._take("^", "**"):
            negative = self._take("-")
            exponent = self._power()
            exponent = -exponent if negative else exponent
            size = max(base.numerator.bit_length(), base.denominator.bit_length())
            if exponent.denominator != 1 or size * abs(exponent) > _BITS:
                raise ValueError("no power that is computed")
            base = base ** int(exponent)
        return Fraction(base)

    def _atom(self) -> Fraction:
        token = self._peek()
        if token is None:
            raise ValueError("nothing follows")
        self._at += 1
        if token["number"]:
            plain = re.sub(r"[, ]", "", token["number"])
            found = Fraction(plain.removesuffix(".")) if plain != "." else None
            if found is None or len(plain) > _DIGITS * 20:
                raise ValueError("no numeral")
            if token["power"]:
                return found * Fraction(10) ** int(token["power"])
            return found + self._proper_ratio() if found.denominator == 1 else found
        if repeated := token["repeated"] or token["again"]:
            start = token["start"]
            part = Fraction(int(repeated), 10 ** len(start) * (10 ** len(repeated) - 1))
            return Fraction(f"{token['whole'] or 0}.{start or 0}") + part
        if token["frac"]:
            if token["above"]:
                return Fraction(int(token["above"]), int(token["below"]))
            above, below = self._group(), self._group()
            return above / below
        closing = {"(": ")", "{": "}"}.get(token[0])
        if closing is None:
            raise ValueError(token[0])
        self._at -= 1
        return self._group(closing)

    def _group(self, closing: str = "}") -> Fraction:
        if not self._take("{" if closing == "}" else "("):
            token = self._peek()
            if closing == "}" and token is not None and token["number"]:
                raise ValueError("an argument without braces")
            raise ValueError("no group")
        found = self._sum()
        if not self._take(closing):
            raise ValueError("not closed")
        return found

    def _proper_ratio(self) -> Fraction:
        """The ratio that makes the whole number before it a mixed one; 0 if none follows."""
        before = self._at
        token = self._peek(spaces=True)
        spaced = token is not None and bool(token["space"])
        token = self._peek()
        if token is not None and token["frac"]:
            self._at += 1
            if token["above"]:
                above, below = Fraction(int(token["above"])), Fraction(int(token["below"]))
            else:
                above, below = self._group(), self._group()
            if not 0 < above < below:
                raise ValueError("neither a mixed number nor surely a product")
            return above / below
        if spaced and token is not None and (token["number"] or "").isdigit():
            self._at += 1
            above = Fraction(int(token["number"]))
            slash = self._take("/")
            after = self._peek()
            if slash and after is not None and (after["number"] or "").isdigit():
                self._at += 1
                below = Fraction(int(after["number"]))
                if 0 < above < below:
                    return above / below
            raise ValueError("two numbers beside each other")
        self._at = before
        return Fraction(0)


def spelled(number: Fraction) -> str:
    """A number written in one way: an integer, a decimal of at most 30 places, or a ratio."""
    places = _places(number)
    if not places:
        return str(number)
    whole, part = divmod(abs(number.numerator) * (10**places // number.denominator), 10**places)
    return f"{'-' if number < 0 else ''}{whole}.{part:0{places}d}"


def rounds_to(exact: Fraction, decimal: Fraction) -> bool:
    """Whether a decimal is `exact` rounded to its places, with at least six significant digits.

    Only where `exact` has no end as a decimal: 0.333333 is a third, but 2.718280 is not 2.71828.
    """
    places = _places(decimal)
    if not places or _places(exact) is not None:
        return False
    enough = abs(decimal) * 10**places >= 10 ** (_ENOUGH - 1)
    return enough and abs(decimal - exact) <= Fraction(1, 2 * 10**places)


def _places(number: Fraction) -> int | None:
    """Places of a number as a decimal; None if it has no end, or more than 30."""
    places = 0
    while places <= _EXACT_DECIMALS:
        if 10**places % number.denominator == 0:
            return places
        places += 1
    return None
