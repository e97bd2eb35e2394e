"""What counts as the answer of a completion: kinds of wordings, and their variations."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msjax.errors import InputError
from msjax.tasks import scorers
from msjax.tasks.characters import clean
from msjax.tasks.math_form import canonical_math
from msjax.tasks.thoughts import opens_thought, spoken

MATH = scorers.math()


def answer(completion, scorer=MATH, **options):
    return scorer.read(completion, **options).answer


def reads(completion, expected, **options):
    """Whether the answer is `expected`, or, for None, there is none."""
    found = answer(completion, **options)
    return found is None if expected is None else MATH.grade(canonical_math(expected), found).equal


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>\nPerhaps \\boxed{16}? No.\n</think>\n\nThe result is **11**.", "11"),
        ("Perhaps \\boxed{16}? No.\n</think>\n\nThe result is **11**.", "11"),
        ("<think>\n\n</think>\n\n\\boxed{5}", "5"),
        ("<thinking>\\boxed{3}</thinking> So \\boxed{4}", "4"),
        ("<Think>\\boxed{3}</Think>4", "4"),
        ("< think >\\boxed{3}</ think >4", "4"),
        ("<think>one</think>first \\boxed{1}<think>two \\boxed{2}</think>\\boxed{3}", "3"),
        ("[THINK]\\boxed{3}[/THINK]\\boxed{4}", "4"),
        ("\u25c1think\u25b7\\boxed{3}\u25c1/think\u25b7\\boxed{4}", "4"),
        ("<seed:think>\\boxed{3}</seed:think>4", "4"),
        ("<reasoning>\n\\boxed{3}\n</reasoning>\n<answer>\n5\n</answer>\n", "5"),
        (
            "<|begin_of_thought|>\\boxed{3}<|end_of_thought|>\n"
            "<|begin_of_solution|>It is \\boxed{4}<|end_of_solution|>",
            "4",
        ),
        ("<think>a</think><answer>5</answer>", "5"),
        ("<think>a</think>\n<answer>\nThe total is \\boxed{5}\n</answer>", "5"),
        ("<think>\\boxed{3}</think><answer>5", "5"),
        (
            "<|channel|>analysis<|message|>\\boxed{3}<|end|><|start|>assistant"
            "<|channel|>final<|message|>The answer is 7.<|return|>",
            "7",
        ),
        ("analysisWe need 3+4=7. \\boxed{3}assistantfinalThe answer is 7.", "7"),
        ("<think>x</think>\n\nFinal answer: 4<|im_end|>\n<|im_start|>user\nNext 9", "4"),
        ("<think>ok</think>", None),
        ("<thought>\\boxed{3}</thought>\\boxed{4}", "4"),
        ("<|channel|>analysis<|message|>4<|end|><|channel|>commentary<|message|>5<|end|>", None),
    ],
)
def test_thoughts_are_no_answers(completion, expected) -> None:
    assert reads(completion, expected)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "completion",
    [
        "<think>\nPerhaps \\boxed{16}? No.",
        "[THINK]\\boxed{3}",
        "<think>a</think> The answer is 5. <think> or \\boxed{6}",
        "<|channel|>analysis<|message|>\\boxed{3}",
        "analysisWe need 3+4=7. The answer is 7.",
        "<think><answer>5</answer>",
    ],
)
def test_a_thought_that_never_closes_has_no_answer(completion, finished) -> None:
    found = MATH.read(completion, finished=finished, earlier=("12",))
    assert found == (None, "a thought that never closed has no answer")
    assert spoken(completion) is None


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("Perhaps \\boxed{16}? No, since", None),
        ("The answer is 16.\nWait.", None),
        ("Perhaps \\boxed{16}? No.</think>\nSo \\boxed{11}.", "11"),
        ("<think>Perhaps \\boxed{16}?</think>\nSo \\boxed{11}.", "11"),
        ("16?<|end|><|start|>assistant<|channel|>final<|message|>So \\boxed{11}.", "11"),
        ("16?<|end|><|start|>assistant<|channel|>final<|message|>", None),
    ],
)
def test_a_thought_that_the_prompt_opened_ends_with_its_closing_tag_alone(
    completion, expected, finished
) -> None:
    assert reads(completion, expected, thinking=True, finished=finished)


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<\uff5cAssistant\uff5c><think>", True),
        ("[/INST][THINK]", True),
        ("<|start|>assistant<|channel|>analysis<|message|>", True),
        ("<think>\nOkay, so I need to", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("Write <think> first.<|im_end|>\n<|im_start|>assistant\n", False),
        ("<|start|>assistant<|channel|>final<|message|>", False),
        ("", False),
    ],
)
def test_prompts_that_end_inside_a_thought(prompt, opened) -> None:
    assert opens_thought(prompt) is opened


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("\\boxed{31,800 dollars}", "31800"),
        ("\\boxed{31,800 \\text{ dollars}}", "31800"),
        ("The total is 31\u202f800 dollars", "31800"),
        ("The total is 31\u00a0800 dollars", "31800"),
        ("\\boxed{1 234}", "1234"),
        ("\\boxed{1\\,234}", "1234"),
        ("\\boxed{1{,}234,567}", "1234567"),
        ("\\boxed{11,\\! 111,\\! 100}", "11111100"),
        ("\\boxed{\u20133}", "-3"),
        ("\\boxed{\u2212 3}", "-3"),
        ("\\boxed{\u20113}", "-3"),
        ("The answer is \u20133.", "-3"),
        ("The answer is -$5.", "-5"),
        ("The answer is $-5$.", "-5"),
        ("The answer is -\\$5.", "-5"),
        ("The answer is negative 5.", "-5"),
        ("It is 7\u2014not more than 9, and the total: \u2014 7", "7"),
        ("so \\boxed {42} with 2 digits", "42"),
        ("so \\fbox{42} with 2 digits", "42"),
        ("\\boxed\n{42}", "42"),
        ("\\boxed 42", "42"),
        ("boxed{42}", "42"),
        ("\x08oxed{42}", "42"),
        ("\\boxed{\\boxed{42}}", "42"),
        ("\\boxed{x = \\fbox{42}}", "42"),
        ("\\boxed{\\text{42}}", "42"),
        ("\\boxed{} The answer is 5", "5"),
        ("\\boxed{...} The answer is 3", "3"),
        ("Put it in \\boxed{answer}. So 42", "42"),
        ("\\boxed{3} and then \\boxed{4", "3"),
        ("\\boxed{3} and then \\boxed{}", "3"),
        ("\\boxed{", None),
        ("\\boxed{}", None),
        ("first \\boxed{3}, no: \\boxed{4}", "4"),
        ("$x=\\boxed{1}$ or $x=\\boxed{2}$", "1, 2"),
        ("\\(\\boxed{1}\\) and \\(\\boxed{2}\\)", "2, 1"),
        ("\\boxed{3}, \\boxed{4}", "3, 4"),
        ("\\boxed{5} and \\boxed{5}", "5"),
        ("\\boxed{\\text{Tom has } 5 \\text{ apples}}", "5"),
        ("\\boxed{1\u00bd}", "1.5"),
        ("The answer is 1 \u00bd cups.", "3/2"),
        ("The answer is 2 1/2 hours.", "2.5"),
        ("so it is \u00be", "0.75"),
        ("\\boxed{10\u207b\u00b3}", "0.001"),
        ("\\boxed{2\u221a3}", "2\\sqrt{3}"),
        ("\\boxed{4\u200b2}", "42"),
        ("\\boxed{\uff14\uff12}", "42"),
        ("The answer is \U0001d7d2\U0001d7d0.", "42"),
        ("\\boxed{\u0664\u0662}", "42"),
        ("The answer is 50%.", "50%"),
        ("The answer is 5 million dollars.", "5000000"),
        ("The answer is 3:30 PM.", "3:30 p.m."),
        ("The answer is 3 x 10^5 m", "300000"),
        ("\\boxed{1{,}234\\ \\text{m}^2}", "1234 m^2"),
        ("\\boxed{1.234.567}", "1234567"),
        ("\\boxed{\\num{1,234}}", "1234"),
        ("\\boxed{\\SI{1234}{\\meter}}", "1234"),
        ("The answer is Rs. 1,234.", "1234"),
        ("The answer is $1.2M.", "1200000"),
        ("The answer is \\$3k a month.", "3000"),
        ("\\boxed{\u207b5}", "-5"),
        ("\\boxed{{-}5}", "-5"),
        ("\\boxed{\\text{-}5}", "-5"),
        ("The answer is 2 and 1/3 cups.", "7/3"),
        ("\\boxed{1\\over 2}", "0.5"),
        ("\\boxed{{1 \\over 2}}", "0.5"),
        ("\\boxed{\\color{red}{5}}", "5"),
        ("\\boxed{\\textcolor{blue}{5}}", "5"),
        ("\\boxed{\\bf 5}", "5"),
        ("\\[\\boxed{\\begin{aligned} x &= 3+2\\\\ &= 5\\end{aligned}}\\]", "5"),
        ("The answer is:\n\\[\\begin{aligned} x &= 3+2\\\\ &= 5\\end{aligned}\\]\nOf 3.", "5"),
        ("\\boxed{\\text{Answer: }5}", "5"),
        ("\\boxed{5 \\quad \\text{(apples)}}", "5"),
        ("\\boxed5", "5"),
        ("\\boxed{\\_\\_} The answer is 5", "5"),
        ("I will write \\boxed{number}. The answer is 5.", "5"),
        ("\\boxed{\\textcolor{red}{4,012,993}}", "4012993"),
        ("\\boxed{43\u00a0986\\text{ (km)}}", "43986"),
        ("\\boxed{x = -85,\\!761\\text{ (km)}}", "-85761"),
        ("\\boxed{x = 86\\,214}", "86214"),
        ("#### {72936 \\over 43}", "72936/43"),
        ("#### 977\\,\\tfrac{7}{10}", "977.7"),
        ("#### 7~798~677", "7798677"),
        ("#### 7.798.677", "7798677"),
        ("#### -\\num{0.865}", "-0.865"),
        ("**Answer:** 47\u202f451/500", "47.902"),
        ("The answer is \u2212\u20b99.", "-9"),
    ],
)
def test_numbers_and_boxes_however_they_are_written(completion, expected) -> None:
    assert reads(completion, expected)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("The answer is 12,34,567.", "1234567"),
        ("So the total comes to 1,23,456 rupees.", "123456"),
        ("\\boxed{1'234'567}", "1234567"),
        ("\\boxed{1_234_567}", "1234567"),
        ("The answer is 1.234,56.", "1234.56"),
        ("\\boxed{1 234,56}", "1234.56"),
        ("\\boxed{10,20,30}", "10, 20, 30"),
        ("The answer is 1.2k.", "1200"),
        ("The total is 5k people.", "5000"),
        ("The answer is 3bn dollars.", "3000000000"),
        ("\u7b54\u6848\u662f5\u4e07", "50000"),
        ("The answer is 5 lakh rupees.", "500000"),
        ("So it takes 2 and 1/3 hours.", "7/3"),
        ("The answer is 2 and 1/3.", "7/3"),
        ("\\boxed{9.8 \\frac{m}{s^2}}", "9.8 m/s^2"),
        ("The answer is 1 hour and 30 minutes for 2 trips.", "90 minutes"),
        ("The answer is 5 dollars and 25 cents.", "$5.25"),
        ("The answer is _25_.", "25"),
        ("The result is *25* in 3 days", "25"),
        ("The answer is <u>25</u>.", "25"),
        ("The total is ~~12~~ 25.", "25"),
        ("The total is 25, ~~not 12~~", "25"),
        ("The answer is 4\ufe0f\u20e32\ufe0f\u20e3.", "42"),
        ("The answer is 25!", "25"),
        ("**Answer: 25!** \U0001f389", "25"),
        ("So she has 25! Great job!", "25"),
        ("The answer is $25!$.", "25!"),
        ("There are 25! ways.", "25!"),
        ("The answer is 5! = 120.", "120"),
        ("The answer is 5!/(3!2!).", "10"),
        ("In conclusion, Tom has 15 apples after giving 3 away to 2 friends.", "15"),
        ("With 7.\n\n### Conclusion\n\nTom has 15 apples in his 2 baskets.", "15"),
        ("To conclude, 3 * 5 = 15 apples in 2 bags.", "15"),
        ("The answer is 5. In conclusion, it took us 3 steps.", "5"),
        ("Summary:\n- Tom: 3\n- Total: 15", "15"),
        ("The answer is twelve apples.", "12"),
        ("The answer is three hundred forty-two thousand dollars.", "342000"),
        ("The answer is two and a half.", "2.5"),
        ("<answer>Minus five</answer>", "-5"),
        ("two-thirds", "2/3"),
        ("The answer is five six.", "five six"),
        ("So the mass is 1.5e3 kg.", "1500"),
        ("\\boxed{1.5*10**3}", "1500"),
        ("\\boxed{0.(3)}", "1/3"),
        ("The answer is 0.3\u0305.", "1/3"),
        ("The answer is 3 to 4.", "3:4"),
        ("The answer is 3 out of 4.", "3/4"),
        ("The ratio is 5 : 6", "5:6"),
        ("The answer is March 5th.", "March 5"),
        ("\\boxed{\\text{4 July 1776}}", "July 4, 1776"),
        ("\\boxed{5^{\\text{th}}}", "5"),
        ("The answer is minus 5.", "-5"),
        ("\\boxed{\u221b2}", "\\sqrt[3]{2}"),
        ("The answer is 12. Wait, no, it's 15.", "15"),
        ("The answer is 12... wait, no, 15.", "15"),
        ("Answer: 12\nCorrection: 15", "15"),
        ("So \\boxed{12}. Wait, I made a mistake. The answer is 15.", "15"),
        ("\\boxed{15}. Actually, this can be checked: 3 * 5 = 15.", "15"),
        ("The answer is 15. No, 3 is not enough.", "15"),
        ("Wait, 3*4 = 12, then + 5 = 17. So 17.", "17"),
    ],
)
def test_numbers_however_people_say_them(completion, expected) -> None:
    assert reads(completion, expected)


@pytest.mark.parametrize(
    ("completion", "no"),
    [
        ("The answer is 5 dollars and 25 cents.", "5"),
        ("The answer is 1 hour 30 minutes.", "1"),
        ("The answer is 3 to 4.", "3"),
        ("The answer is March 5.", "5"),
        ("There are 25! ways.", "25"),
        ("So the mass is 1.5e3 kg.", "1.5"),
        ("The total is 5k people.", "5"),
        ("The answer is 5 lakh.", "5"),
    ],
)
def test_a_part_of_what_is_said_is_not_the_answer(completion, no) -> None:
    assert not reads(completion, no)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("The answer is that Ann needs **7 dozens** in 4 weeks.", "7"),
        ("Final answer:\n\nEarnings on Sunday:\n540", "540"),
        ("Final answer: she paid $36 for the 2 shirts.", "36"),
        ("The answer is $18 a day, or $36 for 2 days.", "18"),
        ("### Final Answer\n\nShe needs a total of **63 skeins** for her 3 children.", "63"),
        ("### Final Answer\n\nTina works 10 hours. She earns **$180**.", "180"),
        ("The final answer is:\n\n\\[\n18\n\\]\n", "18"),
        ("Final Answer\n------------\n18", "18"),
        ("The final answer is:\n$$\n18\n$$", "18"),
        ("**Final Answer**\n\n\\[ \\frac{3}{4} \\]", "0.75"),
        ("**Answer:** 42\n", "42"),
        ("**Answer: 42**", "42"),
        ("*Answer*: 42", "42"),
        ("The final answer is $\\frac{1}{2}$. I hope it is correct.", "0.5"),
        ("The answer to the question is 5.", "5"),
        ("The answer should be 15, not 12.", "15"),
        ("The answer is 15 instead of 12.", "15"),
        ("The answer is not 12 but 15.", "15"),
        ("The answer is 15 - 3 = 12 apples.", "12"),
        ("Answer: 5 + 3 = 8 apples", "8"),
        ("The answer is 5 apples, not 6.", "5"),
        ("Answer: 1, 2 and 3", "1, 2, 3"),
        ("The answer is sqrt(2) + 1", "\\sqrt{2}+1"),
        ("The answer is x = 5.", "5"),
        ("The answer is that Mr. Smith has 5 apples in 2 bags.", "5"),
        ("The answer is 2/6 of the cake.", "1/3"),
        ("The answer is $3 \\text{ cents}$.", "3 cents"),
        ("The answer is 5!", "5"),
        ("So 15 is the answer for all 3.", "15"),
        ('{"answer": 42}', "42"),
        ('{"reasoning": "3 + 4", "answer": "42", "confidence": 90}', "42"),
        ("5+3 = 8\n#### 8", "8"),
        ("#### Step 3\nit is 9", "9"),
        ("Answer: Let's think step by step. 3+4=7. So it's 7.", "7"),
        ("The answer is as follows. She has 7.", "7"),
        ("The answer is Evelyn.", "Evelyn"),
        ("The answer is:\n\n- 3/4", "0.75"),
        ("The answer is:\n\n1. 3/4", "0.75"),
        ("### Step 3: Final answer\n\nThe share is $\\frac{3}{4}$ of 12 cups.", "0.75"),
        ("\u7b54\u6848\u662f42\u3002\u5171\u67093\u4eba", "42"),
        ("\u6240\u4ee5\u603b\u5171\u670942\u4e2a\u82f9\u679c", "42"),
        ("Therefore, the fraction is $\\frac{3}{4}$.", "0.75"),
        ("Therefore the length is $2\\sqrt{3}$.", "2\\sqrt{3}"),
        ("Thus $x = \\frac{7}{9}$", "7/9"),
        ("Total: \\[ 5 \\times 3 = 15 \\text{ apples} \\]", "15"),
        ("1. First 3\n2. Then 4\n3. Total is 7", "7"),
        ("The result is 7\n\n**Step 3**: done", "7"),
        ("3 + 4 makes 7 of them", "7"),
        ("on 3/4/2020", "2020"),
        ("The answer is 2**5.", "32"),
        ("2**5 = **32**", "32"),
        ("The answer is 5!.", "120"),
        ("Great, the answer is 5!!", "5"),
        ("The answer is between 3 and 4.", "between 3 and 4"),
        ("The answer is three and three quarters.", "3.75"),
        ("The answer is...7", "7"),
        ("Answer: <7>", "7"),
        ("We get 7 as the final answer for 3 people.", "7"),
        ("So P = 5/36 \u2248 0.139.", "5/36"),
        ("So she pays 9 dollars.\n\nNote: this took 3 steps.", "9"),
        ("She pays 9.\n\nLet me know if you have 2 more questions.", "9"),
        ("\\boxed{\\textbf{(B)}\\ 12}", "12"),
        ("no idea", None),
        ("", None),
    ],
)
def test_a_statement_is_its_bold_part_else_its_first_number(completion, expected) -> None:
    assert reads(completion, expected)


@pytest.mark.parametrize(
    ("completion", "earlier", "expected"),
    [
        ("The previous answer is correct, so I keep 11.", (), "11"),
        ("My previous answer is incorrect. 3 + 8 = 11", ("12",), "11"),
        ("Your answer 12 is incorrect; it is 15.", ("12",), "15"),
        ("your answer 12 is incorrect; it is 15 because there are 3 groups", ("12",), "15"),
        ("The answer 12 is wrong. The correct answer is 15.", ("12",), "15"),
        ("The answer is not 12. It is 15.", ("12",), "15"),
        ("\\boxed{12} is incorrect. It should be \\boxed{15}.", (), "15"),
        ("I apologize, my previous answer was incorrect. The answer is 15.", ("12",), "15"),
        ("The previous answer was 12, but it should be 15.", ("12",), "15"),
        ("You are right, I made a mistake. 5*3 = 15.", ("12",), "15"),
        ("It is 15, not 12.", (), "15"),
        ("No, no, that is not a valid answer.", ("1",), None),
        ("83 + 11 is incorrect.", ("94",), None),
        ("Yes, that is correct.", ("12",), "12"),
        ("\u2713 Correct.", ("12",), "12"),
        ("Yes, that is correct.", (), None),
        ("Yes, my answer is correct.", ("7", None, "12", None), "12"),
        ("My answer of 12 is correct.", ("7",), "12"),
        ("I keep my previous answer.", ("12",), "12"),
        ("The answer remains the same.", ("12",), "12"),
        ("My answer remains 12.", (), "12"),
        ("I stand by my answer of 12.", (), "12"),
        ("12 is correct.", (), "12"),
        ("12 is incorrect.", (), None),
        ("Yes, that's correct. 4 * 6 = 24", ("20",), "24"),
        ("My original answer stands.", ("12",), "12"),
        ("No changes needed.", ("12",), "12"),
        ("That is not correct. It should be 15.", ("12",), "15"),
        ("12 was my earlier answer, but the right one is 15.", ("12",), "15"),
        ("I reviewed my solution and found no errors.", ("12",), "12"),
        ("I am confident in my answer.", ("12",), "12"),
        ("I agree with my previous answer.", ("12",), "12"),
        ("Same answer as before.", ("12",), "12"),
        ("After reviewing, everything is correct.", ("12",), "12"),
        ("I double-checked my calculation and it is right.", ("12",), "12"),
        ("I don't see any errors.", ("12",), "12"),
        ("I don't see how there are no mistakes in it.", ("12",), None),
        ("No mistakes found.", ("12",), "12"),
        ("Everything checks out.", ("12",), "12"),
        ("Not everything checks out.", ("12",), None),
        ("The solution above is correct.", ("12",), "12"),
        ("I won't change my answer.", ("12",), "12"),
        ("It is 13 (previously 12).", ("12",), "13"),
        ("The correct answer is $\\boxed{13}$, not $\\boxed{12}$.", ("12",), "13"),
        ("I'm not sure my answer is correct.", ("12",), None),
        ("I doubt that my previous answer is correct.", ("12",), None),
        ("Let me check whether my answer is correct. 3 + 8 = 11.", ("12",), "11"),
    ],
)
def test_a_verdict_on_an_earlier_answer_is_no_answer_of_its_own(
    completion, earlier, expected
) -> None:
    assert reads(completion, expected, earlier=earlier)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("The answer is 5.\n\nQuestion: Tom has 7 apples and 3 pears. How many?\nAnswer: 10", "5"),
        ("5\n\nQ: What is 3+4?\nA: 7", "5"),
        ("#### 5\n\nProblem: 9 cats\n#### 9", "5"),
        ("\\boxed{5}\n\nUser: and 3+4?\nAssistant: \\boxed{7}", "5"),
        ("The answer is 5.\n\n### Question 2:\nWhat is 3?\nThe answer is 3.", "5"),
        ("The answer is 5.\n\nTask: add\nAnswer: 9", "5"),
        ("<|assistant|>5<|user|>9<|assistant|>9", "5"),
        ("Question: What is 3+4?\nAnswer: 7", "7"),
        ("Let me restate.\n\nQuestion: 3 + 4?\n\nThe answer is 7.", "7"),
    ],
)
def test_what_a_model_goes_on_to_ask_itself_is_not_read(completion, expected) -> None:
    assert reads(completion, expected)


@pytest.mark.parametrize(
    ("completion", "whole", "cut"),
    [
        ("The final answer is 12. I hope so.", "12", "12"),
        ("The final answer is 12.\n", "12", "12"),
        ("The final answer is 12", "12", None),
        ("The final answer is 12.", "12", None),  # maybe 12.5
        ("Answer: 12\nAnswer: 13", "13", "12"),
        (r"\boxed{12} and the final answer is 1", "12", "12"),
        ("#### 1,234\n", "1234", "1234"),
        ("Final answer:\n\n\\[\n18\n\\]\nwe", "18", "18"),
        ("<think>a</think><answer>5</answer>", "5", "5"),
        ("half of 12 is 6, and", "6", None),
        (r"So \boxed{12", "12", None),
    ],
)
def test_a_cut_completion_has_no_answer_but_one_that_is_surely_whole(
    completion, whole, cut
) -> None:
    assert reads(completion, whole)
    assert reads(completion, cut, finished=False)


def test_which_of_several_boxes_counts_is_an_option() -> None:
    text = r"\boxed{1}. Then \boxed{2}. Then \boxed{2}."
    assert [answer(text, scorers.math(boxes)) for boxes in ("last", "first", "all")] == [
        "2",
        "1",
        None,
    ]
    assert answer(r"\boxed{0.5} that is \boxed{\frac{1}{2}}", scorers.math("all")) == "0.5"
    assert "do not agree" in scorers.math("all").read(text).how


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("(B)", "B"),
        ("The answer is B because A is wrong.", "B"),
        ("The answer is (B) and not (C).", "B"),
        (r"\boxed{\textbf{(C)}}", "C"),
        (r"\boxed{A) red}", "A"),
        ("Answer: b", "B"),
        ("**Answer: C**", "C"),
        ("The correct option is **D**.", "D"),
        ("Option A is wrong. The answer is option C.", "C"),
        ("<think>(A)? The answer is A.</think>B", "B"),
        ("A dog is in (D), not in the house", "D"),
        ("I pick\n**E**", "E"),
        ("I stand by my previous answer: B", "B"),
        ("Your answer (A) is wrong; it should be (B).", "B"),
        ("The answer is b) Paris.", "B"),
        ("B \u2013 Paris", "B"),
        ("Option (b) is correct.", "B"),
        ("My choice: B", "B"),
        ("The answer is definitely B.", "B"),
        ("The answer is neither A nor C but B.", "B"),
        ("I think the answer is (C). Wait, no, it's (B).", "B"),
        ("\u24b7", "B"),
        ("The answer is not B.", None),
        ("B. Paris", "B"),
        ("The answer is B. Paris", "B"),
        ("The answer is A and B", None),
        ("The answer is A dog", None),
        ("The answer is blue", None),
        ("A dog", None),
        ("b", "B"),
        ("[B]", "B"),
        ("A is wrong. C is in Italy. So B.", "B"),
        (r"\boxed{F}", None),  # no such option
        ("B (Rome)", "B"),
        ("The answer is B (Rome).", "B"),
        ("A? No, B.", "B"),
        ("Both A and C are wrong; B.", "B"),
        ("Of these options, only D satisfies the condition.", "D"),
        ("Of these options, only D is wrong.", None),
    ],
)
def test_a_choice_is_one_letter(completion, letter) -> None:
    assert answer(completion, scorers.choice("ABCDE")) == letter


ASKED = "The capital of France?\n(C) Lyon\n(A) Paris\n(D) New York\n(B) None of these"


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("Paris", "A"),
        ("The answer is **Paris**.", "A"),
        ("The answer is Paris because C is another town.", "A"),
        (r"\boxed{\text{Paris}}", "A"),
        ("<think>Lyon</think>\nFinal answer: the paris", "A"),
        ("The capital is **New York**", "D"),
        ("C", "C"),
        ("The answer is E", None),
        ("The answer is Paris or Lyon", None),
        ("The answer is Rome", None),
    ],
)
@pytest.mark.parametrize(
    "record",
    [
        {"question": ASKED},
        {"options": ["Paris", "None of these", "Lyon", "New York"]},
        {
            "choices": {
                "label": list("CABD"),
                "text": ["Lyon", "Paris", "None of these", "New York"],
            }
        },
        {"options": {"D": "New York", "A": "Paris", "C": "Lyon", "B": "None of these"}},
        {"question": "France? (A) Paris (B) None of these, (C) Lyon or (D) New York"},
        {"choices": ["A. Paris", "B. None of these", "C. Lyon", "D. New York"]},
    ],
)
def test_a_choice_may_be_said_by_its_text(completion, letter, record) -> None:
    known = scorers.choice().of_question(record.get("question", ""), record)
    assert answer(completion, known) == letter


def test_a_right_option_is_named_by_its_letter_or_surely_by_its_text() -> None:
    def target(given, options):
        return scorers.choice().of_question("", {"options": options}).target(given)

    assert target("(b)", ["Lyon", "Paris"]) == target("paris", ["Lyon", "Paris"]) == "B"
    assert target("1/2", ["0.5", "2"]) == "A"
    for named, options in [("Rome", ["Lyon", "Paris"]), ("C", ["Lyon", "Paris"]), (1, ["1", "0"])]:
        with pytest.raises(InputError, match="no answer that the scorer choice can read"):
            target(named, options)


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("It prints\n`crave`\n", "crave"),
        (r"\boxed{\text{crave}}", "crave"),
        ("The answer is 'crave'.", "crave"),
        ("<think>Lyon?</think>\nParis", "Paris"),
        ("", None),
    ],
)
def test_free_text_is_the_explicit_answer_or_the_last_line(completion, text) -> None:
    assert answer(completion, scorers.exact()) == text


@pytest.mark.parametrize(
    ("completion", "number"),
    [
        ("7", "7"),
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
        ("it is 50%", "50"),
        ("x2", None),
        ("no idea", None),
    ],
)
def test_the_last_number_in_plain_digits(completion, number) -> None:
    assert answer(completion, scorers.number(last_alone=True)) == number


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("x\u00b2 + y\u00b9\u00b2", "x^{2} + y^{12}"),
        ("a\u2081", "a_{1}"),
        ("1\u00bd", "1 1/2"),
        ("\u00bdx", r"\frac{1}{2}x"),
        ("5 \u2013 3", "5 - 3"),
        ("5\u20133", "5-3"),
        ("well \u2014 7", "well \u2014 7"),
        ("12\u2009345 and 3\u2009m", "12345 and 3 m"),
        ("plain", "plain"),
    ],
)
def test_characters_have_one_spelling(text, plain) -> None:
    assert clean(text) == plain
    assert clean(plain) == plain


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("1,200", "1200"),
        (r"1{,}200", "1200"),
        ("(1,234)", "(1, 234)"),
        ("+5.", "5"),
        (".50", "0.5"),
        ("-0", "0"),
        ("\u22124/8", "-0.5"),
        (r"-\frac{-4}{8}", "0.5"),
        (r"\tfrac12", "0.5"),
        ("2/6", "1/3"),
        ("1/0", "1/0"),
        ("1e-07", "0.0000001"),
        ("2 2/3", "8/3"),
        (r"\left( 3 , 4 \right)", "(3, 4)"),
        (r"x^2 - 1", "x^2-1"),
        (r"\pi r", r"\pi r"),
        (r"\begin{pmatrix}1 \\ 2\end{pmatrix}", r"\begin{pmatrix}1 \\ 2\end{pmatrix}"),
        ("f'", "f'"),
        ("9" * 5000, "9" * 5000),
        (r"5\text{ cm}^2", "5 cm^2"),
        (r"45^{\circ}", "45\u00b0"),
        (r"\varnothing", r"\emptyset"),
        ("$", ""),
    ],
)
def test_the_canonical_form_of_a_mathematical_answer(text, form) -> None:
    assert canonical_math(text) == form


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text("0123456789,./-+ \\$(){}x='\u2212frac*!~\u00bd\u00b2%", max_size=20))
def test_the_canonical_form_is_a_fixed_point(text) -> None:
    once = canonical_math(text)
    assert canonical_math(once) == once


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.fractions(max_denominator=10**6))
def test_equal_ratios_have_one_form(ratio) -> None:
    form = canonical_math(f"{ratio.numerator}/{ratio.denominator}")
    assert canonical_math(rf"\frac{{{3 * ratio.numerator}}}{{{3 * ratio.denominator}}}") == form
    assert Fraction(form) == ratio


@pytest.mark.parametrize(
    "hostile",
    [
        r"\boxed{" * 20_000,
        r"\boxed{1}" * 5_000,
        "$" * 20_000,
        "**" * 20_000,
        "the answer is " * 5_000,
        "<think>" * 10_000 + "</think>" * 10_000,
        "1,234 " * 10_000,
        "Question: 3?\n" * 3_000,
        "_ " * 10_000,
        "1 hour " * 4_000,
        "The answer is 12. " + "wait, no, " * 4_000,
        "{" * 20_000 + "}" * 20_000,
    ],
)
def test_reading_takes_time_linear_in_the_text(hostile) -> None:
    begun = time.process_time()
    MATH.read(hostile)
    assert time.process_time() - begun < 5
