"""What counts as the answer, and which answers are the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msjax.data.runs import answer_ids
from msjax.tasks.extract import (
    canonical_math,
    explicit_part,
    extract_boxed,
    extract_choice,
    extract_explicit,
    extract_math,
    extract_number,
    extract_text,
)


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


@pytest.mark.parametrize(
    ("completion", "content"),
    [
        (r"so \boxed{7}.", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"first \boxed{3}, no: \boxed{4}", "4"),
        (r"\boxed{3} and then \boxed{4", "3"),
        (r"\boxed{3} and then \boxed{}", "3"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{x \mid x > 0 \}}", r"x \mid x > 0 \}"),
        (r"\boxed{", None),
        ("7", None),
    ],
)
def test_the_last_balanced_box_counts(completion, content) -> None:
    assert extract_boxed(completion) == content


@pytest.mark.parametrize(
    ("completion", "whole", "cut"),
    [
        ("The final answer is 12. I hope so.", "12", "12"),
        ("The final answer is 12.\n", "12", "12"),
        ("The final answer is 12", "12", None),
        ("The final answer is 12.", "12", None),  # maybe 12.5
        ("Answer: 12\nAnswer: 13", "13", "12"),
        (r"\boxed{12} and the final answer is 1", "12", "12"),
        ("**Final Answer:** 42\n", "42", "42"),
        ("#### 1,234\n", "1,234", "1,234"),
        ("The answer is $x$. Done", "$x$", "$x$"),
        ("Your previous answer was 3. So", None, None),
    ],
)
def test_a_statement_counts_in_a_cut_completion_only_if_its_sentence_ended(
    completion, whole, cut
) -> None:
    assert extract_explicit(completion) == whole
    assert extract_explicit(explicit_part(completion)) == cut


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"so \boxed{\dfrac{1}{2}}.", "0.5"),
        (r"The final answer is $\frac{1}{2}$. I hope it is correct.", "0.5"),
        ("The answer is 5 apples, not 6.", "5"),
        ("Answer: 1, 2 and 3", "1, 2 and 3"),
        ("The answer is sqrt(2) + 1", "sqrt(2)+1"),
        ("The answer is $18 a day.", "18"),
        (r"\boxed{\text{Evelyn}}", "Evelyn"),
        ("3 + 4 makes 7 of them", "7"),
        ("So x is 3/4.", "0.75"),
        ("10/2 is 5", "5"),
        ("on 3/4/2020", "2020"),
        (r"The answer is $3 \text{ cents}$.", r"3 \text{cents}"),
        ("The answer is 2/6 of the cake.", "1/3"),
        (r"\boxed{$}", None),
        ("no idea", None),
    ],
)
def test_a_mathematical_answer_is_the_box_the_statement_or_the_last_number(
    completion, answer
) -> None:
    assert extract_math(completion) == answer


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("(B)", "B"),
        ("The answer is B because A is wrong.", "B"),
        (r"\boxed{\textbf{(C)}}", "C"),
        (r"\boxed{A) red}", "A"),
        ("Answer: b", "B"),
        ("A dog is in (D), not in the house", "D"),
        ("I pick\n**E**", "E"),
        ("The answer is blue", None),
        ("A dog", None),
        (r"\boxed{F}", None),  # no such option
    ],
)
def test_a_choice_is_one_letter(completion, letter) -> None:
    assert extract_choice(completion) == letter


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("It prints\n`crave`\n", "crave"),
        (r"\boxed{\text{crave}}", "crave"),
        ("The answer is 'crave'.", "crave"),
        ("", None),
    ],
)
def test_free_text_is_the_explicit_answer_or_the_last_line(completion, answer) -> None:
    assert extract_text(completion) == answer


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("1,200", "1200"),
        (r"1{,}200", "1200"),
        (r"11,\! 111,\! 100", "11111100"),
        ("(1,234)", "(1, 234)"),
        ("+5.", "5"),
        (".50", "0.5"),
        ("-0", "0"),
        ("\u22124/8", "-0.5"),
        (r"-\frac{-4}{8}", "0.5"),
        (r"\tfrac12", "0.5"),
        ("2/6", "1/3"),
        ("1/0", "1/0"),
        (r"\left( 3 , 4 \right)", "(3, 4)"),
        (r"x^2 - 1", "x^2-1"),
        (r"\pi r", r"\pi r"),
        (r"\begin{pmatrix}1 \\ 2\end{pmatrix}", r"\begin{pmatrix}1 \\ 2\end{pmatrix}"),
        ("f'", "f'"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_the_canonical_form_of_a_mathematical_answer(answer, form) -> None:
    assert canonical_math(answer) == form


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text("0123456789,./-+ \\$(){}x='\u2212frac*!~", max_size=20))
def test_the_canonical_form_is_a_fixed_point(text) -> None:
    once = canonical_math(text)
    assert canonical_math(once) == once


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.fractions(max_denominator=10**6))
def test_equal_ratios_have_one_form(value) -> None:
    form = canonical_math(f"{value.numerator}/{value.denominator}")
    assert canonical_math(rf"\frac{{{3 * value.numerator}}}{{{3 * value.denominator}}}") == form
    assert type(value)(form) == value
