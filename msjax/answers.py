"""From what a model wrote to an answer: extraction and canonical form.

The answer that is graded and the answer whose changes a rule sees come from the same extraction.
"""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"(?<![\w.])([-\u2212]?)\s?(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d+))?")


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


def answer_ids(answers: Sequence[str | None]) -> list[int]:
    """Answers numbered in order of first appearance; -1 for no answer."""
    known: dict[str, int] = {}
    return [-1 if answer is None else known.setdefault(answer, len(known)) for answer in answers]
