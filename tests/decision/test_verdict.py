"""What is recommended, the word on it, and that its intervals hold, on pilots of known truth."""

import numpy as np
import pytest

from msjax.decision.advice import SIZES, questions_needed
from msjax.decision.verdict import Outcomes, judge, word


def labels(random, questions, rounds, p0, p_ic, p_ci):
    right = [random.random(questions) < p0]
    for _ in range(rounds):
        uniform = random.random(questions)
        right.append(np.where(right[-1], uniform >= p_ci, uniform < p_ic))
    return np.stack(right, axis=1).astype(float)


def judged(right, tokens=100.0, **options):
    questions, answers = right.shape
    spent = np.broadcast_to(tokens * np.arange(1, answers + 1), right.shape)
    outcomes = Outcomes(right, spent, np.arange(questions), answers - 1)
    return judge(outcomes, margin=0.02, **options)


def rows(*patterns):
    return np.array([[int(x) for x in p] for p, times in patterns for _ in range(times)], float)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.2, "better"),
        (-0.02, 0.1, "no worse"),
        (-0.02, -0.01, "no worse"),
        (-0.2, -0.01, "worse"),
        (-0.1, 0.1, "cannot tell"),
        (0.0, 0.0, "no worse"),
    ],
)
def test_words(low, high, said):
    assert word(low, high, 0.02) == said


def test_takes_the_fewest_tokens_that_are_as_good():
    # One round repairs 20 of 60 and a second one nothing more.
    found = judged(rows(("000", 20), ("011", 20), ("111", 20)))
    assert found.chosen == 1 and found.verdict == "better" and found.reference == 0
    assert found.gain.estimate[1] == pytest.approx(1 / 3)
    assert found.against.estimate[1] == 0 and found.against.low[1] < 0 < found.against.high[1]


def test_keeps_the_first_answer_where_revising_breaks():
    found = judged(rows(("100", 15), ("111", 20), ("000", 15)))
    assert found.chosen == 0 and found.reference == 2 and found.verdict == "better"
    assert found.gain.exact[0] and found.gain.low[0] == found.gain.high[0] == 0


def test_saving_of_the_baseline_is_exactly_nothing():
    found = judged(rows(("000", 20), ("001", 20), ("111", 20)))
    assert found.chosen == 2
    assert found.saving.exact[2] and found.saving.estimate[2] == 0
    # Every question takes 300 tokens, so nothing shows how fresh ones vary.
    assert np.isnan(found.tokens.low).all()


def test_never_recommends_what_is_worse_than_the_present_practice():
    random = np.random.default_rng(0)
    for _ in range(40):
        assert judged(labels(random, 50, 6, 0.6, 0.25, 0.15)).verdict != "worse"


def test_no_interval_has_width_0_where_nothing_differs():
    found = judged(np.ones((50, 4)))
    assert found.chosen == 0 and found.verdict == "cannot tell"
    assert found.difference[1] < 0 < found.difference[2]


def test_few_questions_decide_nothing():
    found = judged(rows(("01", 19)))
    assert found.chosen == found.baseline == 1 and found.verdict == "cannot tell"
    assert judged(rows(("01", 20))).verdict == "better"


def test_a_price_decides_by_net_value():
    right = rows(("000", 20), ("011", 20), ("111", 20))
    cheap, dear = (judged(right, token_price=price) for price in (1e-4, 1e-2))
    assert cheap.chosen == 1 and cheap.decided_by == "net value"
    assert cheap.net_gain.estimate[1] == pytest.approx(1 / 3 - 100e-4)
    assert dear.chosen == 0 and dear.verdict == "better"  # than two rounds
    assert dear.net_against.estimate[0] == pytest.approx(-1 / 3 + 2)


def test_order_of_policies_of_equal_accuracy_does_not_hide_the_cheaper():
    right = rows(("0001", 30), ("1111", 30))
    doubled = np.column_stack([right, right[:, -1]])
    found = judged(doubled)
    assert found.chosen == 3


@pytest.mark.slow
def test_intervals_of_the_policy_chosen_hold_and_words_are_true():
    # A pilot's truth is known; over 150 pilots a coverage of .9 is seen as .8 or less with
    # probability 1e-4, and false words in 10 % as 20 % likewise.
    random = np.random.default_rng(1)
    for p0, p_ic, p_ci in ((0.6, 0.3, 0.2), (0.4, 0.5, 0.05), (0.55, 0.25, 0.1)):
        truth = labels(random, 400_000, 3, p0, p_ic, p_ci).mean(axis=0)
        held, false, pilots = 0, 0, 150
        for _ in range(pilots):
            found = judged(labels(random, 50, 3, p0, p_ic, p_ci))
            _, low, high = found.difference
            true = truth[found.chosen] - truth[found.reference]
            held += low <= true <= high
            false += (found.verdict == "better" and true <= 0) or (
                found.verdict == "no worse" and true < -0.02
            )
        assert held >= 0.8 * pilots and false <= 0.2 * pilots


def test_clusters_widen_intervals():
    right = np.repeat(rows(("01", 8), ("10", 4), ("11", 14)), 2, axis=0)
    spent = np.broadcast_to([100.0, 200.0], right.shape)
    alone = judge(Outcomes(right, spent, np.arange(52), 1), margin=0.02)
    pairs = judge(Outcomes(right, spent, np.arange(52) // 2, 1), margin=0.02)
    assert pairs.clusters[0] == 26 and pairs.gain.error[1] > 1.3 * alone.gain.error[1]


def test_more_questions_for_smaller_differences():
    near = judged(labels(np.random.default_rng(2), 50, 1, 0.6, 0.3, 0.2))
    more = questions_needed(near, 0.02)
    assert more.questions in SIZES and 0.8 <= more.chance < 0.95
    wide = questions_needed(near, 0.1)
    assert wide.questions < more.questions


def test_nothing_depends_on_the_order_of_questions():
    right = labels(np.random.default_rng(3), 60, 3, 0.5, 0.3, 0.1)
    one, other = judged(right), judged(right[::-1])
    assert one.chosen == other.chosen
    assert one.gain.low == pytest.approx(other.gain.low, abs=1e-9)
