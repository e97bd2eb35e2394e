"""What counts as the answer, and which answers are the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msjax.answers import answer_ids, extract_number


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("7", "7"),
        ("The answer is 5.", "5"),
        ("9 - 4", "4"),
        ("9 - 4 = 5", "5"),
        ("7-3", "3"),
        ("the answer is -4", "-4"),
        ("= -4.", "-4"),
        ("**-12**", "-12"),
        ("$-3$", "-3"),
        ("2 \u2212 5 = \u22123", "-3"),
        ("1,200.50", "1200.5"),
        ("3,4", "4"),
        ("007", "7"),
        ("-0", "0"),
        ("0.0", "0"),
        ("x2", None),
        ("no idea", None),
        ("", None),
    ],
)
def test_last_number_in_canonical_form(completion, answer) -> None:
    assert extract_number(completion) == answer


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(-(10**12), 10**12), st.integers(0, 999))
def test_every_spelling_of_a_number_is_one_answer(whole, thousandths) -> None:
    plain = f"{whole}.{thousandths:03d}"
    found = extract_number(plain)
    assert found is not None
    assert float(found) == float(plain)
    assert extract_number(found) == found
    assert extract_number(f"It is {whole:,}.{thousandths:03d}000") == found


def test_answer_ids_number_by_first_appearance() -> None:
    assert answer_ids(["5", None, "7", "5", "7", "0"]) == [0, -1, 1, 0, 1, 2]
