"""Means, their joint errors and multipliers, by hand, by closed form and by enumeration."""

import numpy as np
import pytest
from scipy import special, stats

from msjax.decision.band import joint_errors, multiplier, normal_points
from msjax.evaluate.means import DIFFERENCES, SHARES, UNBOUNDED, means, student


def test_means_by_hand():
    values = np.array([[1.0, 0.0], [0.0, np.nan], [-1.0, 1.0], [1.0, 1.0]])
    found = means(values, np.arange(4), DIFFERENCES)
    assert found.estimate == pytest.approx([1 / 4, 2 / 3])
    assert found.questions.tolist() == found.clusters.tolist() == [4, 3]
    # One half of +1, one half of -1 and one 0 are added.
    assert found.centre == pytest.approx([1 / 6, 2 / 5])
    square = np.array([(3 + 1) / 6 - (1 / 6) ** 2, (2 + 1) / 5 - (2 / 5) ** 2])
    assert found.error == pytest.approx(np.sqrt(square / [6, 5]))


def test_tokens_have_the_textbook_error():
    values = np.random.default_rng(0).gamma(2.0, 50.0, (30, 1))
    found = means(values, np.arange(30), UNBOUNDED)
    assert found.error == pytest.approx(stats.sem(values))
    assert np.isinf(means(values[:1], np.arange(1), UNBOUNDED).error).all()


def test_questions_repeated_five_times_count_once():
    values = np.random.default_rng(1).integers(-1, 2, (12, 3)).astype(float)
    once = means(values, np.arange(12), DIFFERENCES)
    five = means(np.repeat(values, 5, axis=0), np.repeat(np.arange(12), 5), DIFFERENCES)
    assert five.centre == pytest.approx(once.centre)
    assert five.error == pytest.approx(once.error)
    assert five.clusters.tolist() == [12] * 3 and five.questions.tolist() == [60] * 3


def test_nothing_that_differs_by_chance_has_no_error():
    found = means(np.zeros((50, 2)), np.arange(50), DIFFERENCES, np.array([True, False]))
    assert found.error[0] == 0 and found.exact[0]
    assert found.error[1] == pytest.approx(1 / 52)
    assert means(np.ones((50, 1)), np.arange(50), SHARES).error[0] > 0


def exact_coverage(n: int, broken: float, repaired: float) -> float:
    """Coverage of the single 90 % interval over all outcomes of n pairs."""
    b, r = (x.ravel() for x in np.indices((n + 1, n + 1)))
    b, r = b[b + r <= n], r[b + r <= n]
    shares = [broken, repaired, 1 - broken - repaired]
    weight = stats.multinomial.pmf(np.stack([b, r, n - b - r], axis=1), n, shares)
    centre = (r - b) / (n + 2)
    error = np.sqrt(((r + b + 1) / (n + 2) - centre**2) / (n + 2))
    reach = float(student(-special.ndtri(0.05), n)) * error
    inside = np.abs(centre - (repaired - broken)) <= reach
    return float(weight @ inside)


@pytest.mark.parametrize("n", [20, 50, 200])
@pytest.mark.parametrize(
    "cells", [(0.01, 0.02), (0.03, 0.03), (0.02, 0.2), (0.1, 0.2), (0.02, 0.5)]
)
def test_intervals_of_a_paired_difference_cover(n, cells):
    assert exact_coverage(n, *cells) > 0.89
    if n * sum(cells) > 8:
        assert exact_coverage(n, *cells) < 0.95


def test_multiplier_of_independent_columns():
    columns = 6
    values = np.kron(np.eye(columns), np.array([[1.0], [-1.0]] * 200))
    found = means(values, np.arange(len(values)), UNBOUNDED)
    (errors,) = joint_errors([found], normal_points(columns))
    widest = multiplier(np.abs(errors / found.error).max(axis=1), 0.9)
    # The columns are all but independent; a quantile over 4,096 points is that of .9 +- .02.
    shares = [1 - (1 - p) / 2 for p in (0.88 ** (1 / columns), 0.92 ** (1 / columns))]
    low, high = special.ndtri(shares)
    assert low < widest < high


def test_joint_errors_have_the_covariance_of_contributions():
    values = np.random.default_rng(2).normal(size=(40, 3)) @ np.random.default_rng(3).normal(
        size=(3, 4)
    )
    found = means(values, np.arange(40), UNBOUNDED)
    (errors,) = joint_errors([found], normal_points(4))
    expected = np.cov(values.T, ddof=0) / 40
    scale = found.error[:, None] * found.error
    assert np.abs(np.cov(errors.T) - expected).max() < (0.1 * scale).max()


def test_student_multiplier():
    assert float(student(1.6448536, 21)) == pytest.approx(stats.t.ppf(0.95, 20), rel=1e-6)
    assert np.isinf(student(1.6, 1))
