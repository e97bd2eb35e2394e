"""Paired differences: hand-computed values, coverage, and what is refused."""

import numpy as np
import pytest
from scipy.stats import binom

from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage
from msjax.errors import InputError
from msjax.evaluate.means import DIFFERENCES, UNBOUNDED, mean_interval
from msjax.evaluate.paired import (
    against_fixed,
    compare,
)
from msjax.evaluate.summary import accuracy_per_round, proportion, summarise
from msjax.llm.live import cut_by
from msjax.rules.fixed import self_consistency
from msjax.verify.evidence import FALSE_ALARM


def run(question: str, correct: str, benchmark: str = "sums") -> Trajectory:
    """A trajectory from a word such as "CIC"; round k computes 10 + k tokens."""
    n = len(correct)
    return Trajectory(
        model="scripted",
        benchmark=benchmark,
        question_id=question,
        protocol="sequential",
        question="1 + 1",
        gold="2",
        answers=tuple("2" if state == "C" else None for state in correct),
        correct=tuple(state == "C" for state in correct),
        scores=(None,) * n,
        tokens=tuple(Usage(prompt=100, cached=95, completion=5 + k) for k in range(n)),
        completions=("",) * n,
        stop_reason="budget",
        censored=False,
        key="0",
        settings={},
    )


FULL = [run("a", "CCC"), run("b", "ICC"), run("c", "CIC"), run("d", "III", "other")]
STOPPED = [run("a", "C"), run("b", "IC"), run("c", "C"), run("d", "I", "other")]


def test_differences_are_those_of_the_same_questions() -> None:
    found = against_fixed("all", STOPPED, FULL, 1)
    assert (found.accuracy, found.fixed_accuracy) == (3 / 4, 2 / 4)
    assert found.accuracy_gain.estimate == pytest.approx(1 / 4)
    assert found.tokens == pytest.approx((10 + 21 + 10 + 10) / 4)
    assert found.fixed_tokens == pytest.approx(21)
    saved = np.array([11, 0, 11, 11])
    assert found.tokens_saved.estimate == pytest.approx(saved.mean())
    half = 2.3533634 * saved.std(ddof=1) / 2  # t quantile .95 with 3 degrees of freedom
    assert found.tokens_saved.high - found.tokens_saved.low == pytest.approx(2 * half, rel=1e-6)


def test_every_k_and_every_benchmark_is_compared() -> None:
    found = compare(STOPPED, FULL, 2)
    assert [(c.benchmark, c.k) for c in found] == [
        (name, k) for name in ("all", "sums", "other") for k in range(3)
    ]


def test_agreement_keeps_an_interval_of_positive_width() -> None:
    same = np.array([True, False, True, True])
    found = mean_interval(same.astype(float) - same, DIFFERENCES)
    assert found.estimate == 0
    assert found.low < 0 < found.high


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(0.1, 0.1), (0.02, 0.1), (0.3, 0.05)])
def test_the_paired_interval_covers(rates) -> None:
    gain, loss = rates
    random = np.random.default_rng(5)
    repeats, n = 2000, 60
    covered = 0
    for _ in range(repeats):
        pair = random.random(n)
        first, second = pair < gain, (pair > gain) & (pair < gain + loss)
        found = mean_interval(first.astype(float) - second, DIFFERENCES)
        covered += found.low <= gain - loss <= found.high
    # At least nominal up to Monte Carlo error; the adjustment makes it a little conservative.
    assert covered >= binom.ppf(FALSE_ALARM, repeats, 0.88)


def test_one_pair_says_nothing_about_a_mean() -> None:
    found = mean_interval(np.array([2.0]), UNBOUNDED)
    assert (found.estimate, found.low, found.high) == (2, -np.inf, np.inf)


def test_samples_are_compared_with_the_votes_on_as_many() -> None:
    random = np.random.default_rng(3)
    full = []
    for i in range(40):
        answers = [(None, "1", "2", "3")[one] for one in random.integers(0, 4, 6)]
        full.append(
            run(str(i), "I" * 6).model_copy(
                update={
                    "protocol": "parallel",
                    "answers": tuple(answers),
                    "correct": tuple(answer == "2" for answer in answers),
                }
            )
        )
    found = compare(full, full, 5)
    assert [(one.k, one.parallel) for one in found] == [(0, True), (1, True), (3, True), (5, True)]
    for one in found:
        voted = cut_by(self_consistency(one.k + 1), full)
        assert one.fixed_accuracy == pytest.approx(np.mean([vote.right for vote in voted]))
    assert len({one.fixed_accuracy for one in found}) > 2


def test_runs_of_prefixes_return_their_last_answer_as_rounds_do() -> None:
    prefixes = [one.model_copy(update={"protocol": "prefix"}) for one in FULL]
    for k in range(3):
        expected = np.mean([one.correct[k] for one in FULL])
        found = against_fixed("all", prefixes, prefixes, k)
        assert found.fixed_accuracy == pytest.approx(expected) and not found.parallel


def test_other_questions_or_fewer_rounds_are_refused() -> None:
    with pytest.raises(InputError, match="same questions"):
        against_fixed("all", STOPPED[:2], FULL, 1)
    with pytest.raises(InputError, match="same questions"):
        against_fixed("all", [*STOPPED[:3], run("e", "C")], FULL, 1)
    with pytest.raises(InputError, match="fewer than k = 3"):
        against_fixed("all", STOPPED, FULL, 3)


@pytest.mark.parametrize(("right", "questions"), [(0, 20), (7, 20), (20, 20), (1, 1)])
def test_a_proportion_lies_in_its_interval_and_in_the_unit_interval(right, questions) -> None:
    found = proportion(right, questions)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.low < found.high


def test_accuracy_per_round_counts_only_runs_that_reached_it() -> None:
    observed = accuracy_per_round([run("a", "C"), run("b", "IC"), run("c", "III")])
    assert [point.estimate for point in observed] == pytest.approx([1 / 3, 1 / 2, 0])


def test_a_summary_adds_up() -> None:
    sums, other = summarise(FULL)
    assert (sums.questions, other.questions) == (3, 1)
    assert sums.first_accuracy.estimate == pytest.approx(2 / 3)
    assert sums.accuracy.estimate == 1 and sums.answers == 3
    assert sums.unanswered == pytest.approx(2 / 9)
    assert sums.tokens == Usage(prompt=900, cached=855, completion=3 * (5 + 6 + 7))
