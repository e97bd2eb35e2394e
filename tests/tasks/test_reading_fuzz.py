"""The reader against an oracle: values written in many ways must come back, or be no answer."""

import random
from fractions import Fraction

import pytest

from msjax.tasks import scorers

MATH = {boxes: scorers.math(boxes) for boxes in ("last", "first", "all")}
VULGAR = {Fraction(1, 2): "\u00bd", Fraction(1, 4): "\u00bc", Fraction(3, 4): "\u00be"}
UNITS = (
    *("", "", " dollars", " apples", " km", " hours", "\u00a0km", "\u202fkm/h", " square meters"),
    *(r"\text{ cm}", r"\,\mathrm{km}", r"\ \text{m}^2", r"~\text{miles per hour}", r"\text{ (km)}"),
)
MINUS = ("-", "\u2212", "\u2013", "\u2011", "\ufe63")
CURRENCY = ("$", r"\$", "\u20ac", "\u00a3", "\u20b9")
DIGITS = (0xFF10, 0x0660, 0x0966, 0x1D7CE, 0x1D7EC)  # the zeros of other scripts and of formulas


def draw_value(chance):
    """An integer, a decimal or a ratio, of any sign."""
    kind = chance.random()
    size = chance.choice((9, 99, 999, 99_999, 9_999_999))
    if kind < 0.5:
        found = Fraction(chance.randint(0, size))
    elif kind < 0.75:
        places = chance.randint(1, 3)
        found = Fraction(chance.randint(1, size), 10**places)
    else:
        found = Fraction(chance.randint(1, size), chance.randint(2, 60))
    return -found if chance.random() < 0.25 else found


def grouped(digits, separator):
    """Digits in groups of three."""
    return f"{int(digits):,}".replace(",", separator)


def written(value, chance):
    """A value in one of the ways in which models write it."""
    sign = chance.choice(MINUS) if value < 0 else ""
    size = abs(value)
    places = next((k for k in range(7) if (size * 10**k).denominator == 1), None)
    ways = []
    if size.denominator > 1:
        above, below = size.numerator, size.denominator
        ways += [
            f"{above}/{below}",
            rf"\frac{{{above}}}{{{below}}}",
            rf"\dfrac{{{above}}}{{{below}}}",
            rf"\tfrac{{{above}}}{{{below}}}",
            rf"{{{above} \over {below}}}",
            f"{above}\u2044{below}",
        ]
        whole, rest = divmod(above, below)
        if whole:
            ways += [
                f"{whole} {rest}/{below}",
                rf"{whole}\frac{{{rest}}}{{{below}}}",
                rf"{whole}\,\tfrac{{{rest}}}{{{below}}}",
                f"{whole}\u202f{rest}/{below}",
            ]
        if size % 1 in VULGAR:
            ways += [f"{whole or ''}{VULGAR[size % 1]}"]
    if places is not None:
        whole, part = divmod(int(size * 10**places), 10**places)
        tail = f".{part:0{places}d}" if places else ""
        plain = f"{whole}{tail}"
        ways += [plain, plain + ("0" if places else ".00"), rf"\num{{{plain}}}"]
        ways += [mark + plain for mark in CURRENCY]
        if whole >= 1000:
            for separator in (",", "{,}", "\u202f", "\u00a0", "\u2009", r"\,", ",\\!", r"\ ", "~"):
                ways += [grouped(whole, separator) + tail]
        if whole >= 10**6 and not places:
            ways += [grouped(whole, ".")]
        zero = chance.choice(DIGITS)
        ways += ["".join(chr(zero + int(one)) if one.isdigit() else one for one in plain)]
        ways += ["\u200b".join(plain)]
    return sign + chance.choice(ways)


def completion(value, chance):
    """A completion that says a value, among other numbers, as models do."""
    form = written(value, chance)
    latex = "\\" in form.replace(r"\$", "").replace(r"\text{}", "") or "{" in form or "~" in form
    unit = chance.choice(UNITS)
    math = f"${form}$" if latex or (chance.random() < 0.3 and "$" not in form) else form
    other = chance.randint(2, 99)
    says = [
        rf"\boxed{{{form}{unit}}}",
        rf"so \boxed {{{form}}} with {other} digits",
        rf"\fbox{{{form}}}",
        rf"\boxed{{\boxed{{{form}}}}}",
        rf"\boxed{{\textcolor{{red}}{{{form}}}}}",
        rf"\boxed{{\mathbf{{{form}}}}}",
        rf"\boxed{{x = {form}{unit}}}",
        rf"\boxed{{}} or rather \boxed{{{form}}}",
        f"\\[\\boxed{{\n{form}\n}}\\]",
        rf"$x = \boxed{{{form}{unit}}}$.",
        f"The answer is {math}.",
        f"The final answer is **{math}** for {other} people.",
        f"**Answer:** {math}",
        f"#### {form}",
        f"Final answer:\n\n{math}",
        f"### Final Answer\n\nThey need **{math}** of it in {other} days.",
        f"The answer is {math}, not {other}.",
        f"Your answer {other} is incorrect; it is {math}.",
        f"<answer>{form}</answer>",
        f"So in the end there are {math}",
    ]
    if "$" not in form:
        says += [
            f"The final answer is:\n\n\\[\n{form}\n\\]\n",
            f"Thus it is \\({form}\\) in all.",
            f"So ${other} + y = {form}$.",
        ]
    before = chance.choice(
        (
            "",
            f"{other} + 1 is needed. Then we divide by 7.\n\n",
            f"My previous answer was {other}. ",
            f"1. There are {other} of them.\n2. We add 5.\n\n",
        )
    )
    after = chance.choice(
        ("", "", "\n", "<|im_end|>", f"\n\nQuestion: What is {other} + 1?\nAnswer: {other + 1}")
    )
    return before + chance.choice(says) + after


def with_more_boxes(value, chance):
    """A completion with several boxes, and which of them counts."""
    form, other = written(value, chance), chance.randint(2, 99)
    again = written(value, chance)
    while any(mark in again for mark in CURRENCY):  # it may be another one
        again = written(value, chance)
    return chance.choice(
        (
            (rf"Is it \boxed{{{other}}}? No: \boxed{{{form}}}.", "last"),
            (rf"It is \boxed{{{form}}}. Twice that is \boxed{{{2 * value}}}.", "first"),
            (rf"It is \boxed{{{form}}}, that is, \boxed{{{again}}}.", "all"),
        )
    )


def thought(chance):
    """What stands before the answer, and whether the prompt had opened it as a thought."""
    other = chance.randint(2, 99)
    said = rf"Perhaps \boxed{{{other}}}? The answer is {other}."
    return chance.choice(
        (
            *((("", False),) * 6),
            (f"<think>\n{said}\n</think>\n\n", False),
            (f"{said}\n</think>\n\n", False),
            (f"{said}\n</think>\n\n", True),
            (f"<thinking>{said}</thinking>", False),
            (f"[THINK]{said}[/THINK]", False),
            (f"\u25c1think\u25b7{said}\u25c1/think\u25b7", False),
            (f"<|begin_of_thought|>{said}<|end_of_thought|>", False),
            (
                f"<|channel|>analysis<|message|>{said}<|end|><|start|>assistant"
                "<|channel|>final<|message|>",
                False,
            ),
            (f"analysisWe see. {said}assistantfinal", False),
        )
    )


def misread(seed, count):
    """What is read as another value, and how many have no answer, of so many completions."""
    chance = random.Random(seed)
    wrong, none = [], 0
    for _ in range(count):
        value = draw_value(chance)
        text, boxes = completion(value, chance), "last"
        if chance.random() < 0.1:
            text, boxes = with_more_boxes(value, chance)
        before, thinking = thought(chance)
        scorer = MATH[boxes]
        gold = scorer.target(f"{value.numerator}/{value.denominator}")
        found = scorer.read(before + text, thinking=thinking).answer
        if found is None:
            none += 1
        elif not scorer.grade(gold, found).equal:
            wrong.append((str(value), before + text, found))
    return wrong, none


def test_a_value_comes_back_however_it_is_written() -> None:
    wrong, none = misread(seed=1, count=1000)
    assert wrong == []
    assert none <= 3


@pytest.mark.study
def test_a_hundred_thousand_values_come_back() -> None:
    wrong, none = misread(seed=2, count=100_000)
    assert wrong == []
    assert none < 100
