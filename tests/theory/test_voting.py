"""Voting: rational arithmetic, enumeration of every vote sequence, Wald's limit, gradients."""

import functools
import itertools
import math
from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msjax.errors import InputError
from msjax.theory import voting as theory
from msjax.theory.chain import UNBOUNDED

hypothesis_settings = settings(max_examples=40, deadline=None, derandomize=True)
COUNTS = np.array(list(itertools.product(range(5), repeat=3)))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def likelihoods(votes, p_right: Fraction, p_wrong: list[Fraction]) -> list[Fraction]:
    """P(votes | H_j) for every answer j, in the order in which the votes were cast."""
    return [
        math.prod((p_right if c == j else p_wrong[c]) ** v for c, v in enumerate(votes))
        for j in range(len(votes))
    ]


def leader_and_runner_up(votes) -> tuple[int, int]:
    first, second, *_ = sorted(range(len(votes)), key=lambda c: -votes[c])
    return first, second


def test_bayes_factors_are_the_ratio_of_the_two_likelihoods(x64):
    p_right, equal = Fraction(3, 5), [Fraction(1, 5)] * 3
    unequal = [Fraction(1, 10), Fraction(1, 4), Fraction(1, 20)]
    exact = []
    for p_wrong in (equal, unequal):
        for votes in COUNTS.tolist():
            likelihood = likelihoods(votes, p_right, p_wrong)
            first, second = leader_and_runner_up(votes)
            exact.append(math.log(likelihood[first] / likelihood[second]))
    exact = np.reshape(exact, (2, -1))
    margins = theory.log_bayes_factor(COUNTS, 0.6, 0.2)
    np.testing.assert_allclose(margins, exact[0], atol=1e-14)
    for p_wrong, expected in ((equal, exact[0]), (unequal, exact[1])):
        chances = np.array([float(p) for p in p_wrong])
        by_class = theory.log_bayes_factor_by_class(COUNTS, 0.6, chances)
        np.testing.assert_allclose(by_class, expected, atol=1e-14)
    # The leader's votes are cheap: the evidence is against it though it leads.
    cheap = theory.log_bayes_factor_by_class(np.array([5, 4]), 0.5, np.array([0.45, 0.05]))
    assert float(cheap) < 0


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 2e-6), (True, 4e-15)])
def test_posteriors_are_those_of_bayes(precision, tolerance):
    exact = []
    for votes in COUNTS.tolist():
        likelihood = likelihoods(votes, Fraction(3, 5), [Fraction(1, 5)] * 3)
        exact.append([float(x / sum(likelihood)) for x in likelihood])
    with jax.enable_x64(precision):
        computed = theory.class_posterior(COUNTS, 0.6, 0.2)
        leader = theory.leader_posterior(COUNTS, 0.6, 0.2)
    np.testing.assert_allclose(computed, exact, rtol=tolerance)
    np.testing.assert_allclose(leader, np.max(exact, axis=1), rtol=tolerance)
    np.testing.assert_allclose(np.asarray(computed).sum(axis=1), 1, rtol=tolerance)


def test_posteriors_at_extreme_counts_and_for_misleading_votes():
    votes = np.array([2_000_000_000, 0, 1_999_999_999])
    np.testing.assert_allclose(theory.class_posterior(votes, 0.6, 0.2), [0.75, 0, 0.25], rtol=1e-6)
    # A wrong answer attracts more votes than the right one: leading speaks against.
    assert float(theory.leader_posterior(np.array([3, 0]), 0.25, 0.75)) == pytest.approx(1 / 28)
    assert float(theory.leader_posterior(np.array([0, 0, 0]), 0.5, 0.25)) == pytest.approx(1 / 3)


def searched_margin(threshold: Fraction, ratio: Fraction) -> int:
    return next(h for h in itertools.count(1) if ratio**h >= threshold)


@pytest.mark.parametrize("precision", [False, True])
def test_margin_is_the_smallest_found_by_search(precision):
    chances = [Fraction(i, 20) for i in range(2, 19)]
    pairs = [(p, q) for p in chances for q in chances if p > q and p + q <= 1]
    thresholds = [Fraction(11, 10), Fraction(2), Fraction(9), Fraction(27), Fraction(10**4)]
    points = [(t, p, q) for t in thresholds for p, q in pairs]
    # Thresholds that a whole margin meets exactly.
    points += [((p / q) ** h, p, q) for h in (1, 2, 3, 7) for p, q in pairs]
    exact = [searched_margin(t, p / q) for t, p, q in points]
    threshold, p_right, p_wrong = (
        np.array([float(x) for x in c]) for c in zip(*points, strict=True)
    )
    with jax.enable_x64(precision):
        found = theory.margin_needed(threshold, p_right, p_wrong)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, exact)


def test_votes_that_are_no_evidence_reach_no_threshold():
    found = theory.margin_needed(
        19.0, np.array([0.3, 0.2, 0.5, 0.5]), np.array([0.3, 0.4, 0.5, 0.1])
    )
    assert found.tolist() == [UNBOUNDED] * 3 + [2]
    assert int(theory.margin_needed(1 + 1e-12, 0.5, 0.1)) == 1


@functools.cache
def enumerated_distribution(chances: tuple[Fraction, ...], margin: int, max_votes: int):
    """The same distribution from every sequence of votes, one by one."""
    classes = len(chances)
    stopped_at, winner = [Fraction(0)] * max_votes, [Fraction(0)] * classes
    undecided_leader = [Fraction(0)] * classes
    for sequence in itertools.product(range(classes), repeat=max_votes):
        distribution = math.prod(chances[c] for c in sequence)
        counts = [0] * classes
        for t, c in enumerate(sequence):
            counts[c] += 1
            first, second = leader_and_runner_up(counts)
            if counts[first] - counts[second] >= margin:
                stopped_at[t] += distribution
                winner[first] += distribution
                break
        else:
            stopped_at[-1] += distribution
            leaders = [c for c in range(classes) if counts[c] == max(counts)]
            for c in leaders:
                undecided_leader[c] += distribution / len(leaders)
    undecided = sum(undecided_leader)
    return theory.VotesDistribution(
        *(np.array(x, float) for x in (stopped_at, winner, undecided, undecided_leader))
    )


VOTES = [
    # probabilities in tenths, margin, max_votes
    ((6, 4), 2, 9),
    ((7, 3), 3, 12),
    ((10, 0), 4, 5),
    ((5, 5), 1, 1),
    ((5, 3, 2), 2, 8),
    ((4, 4, 2), 3, 8),
    ((6, 3, 1), 9, 8),  # the budget is never saved
    ((4, 3, 2, 1), 2, 6),
    ((5, 5, 0, 0), 1, 6),
    ((4, 3, 2, 1), 3, 7),
]


@functools.partial(jax.jit, static_argnums=(1, 2))
def distribution_votes_error(chances, margin, max_votes):
    distribution = theory.votes_distribution(chances, margin, max_votes)
    return distribution, theory.expected_votes(distribution), theory.error_probability(distribution)


@pytest.mark.parametrize(("tenths", "margin", "max_votes"), VOTES)
def test_votes_distribution_equals_the_enumeration_of_all_sequences(x64, tenths, margin, max_votes):
    chances = tuple(Fraction(i, 10) for i in tenths)
    exact = enumerated_distribution(chances, margin, max_votes)
    distribution, votes, error = distribution_votes_error(
        np.array(chances, float), margin, max_votes
    )
    chex.assert_trees_all_close(distribution, exact, rtol=1e-14, atol=1e-30)
    expected = np.sum(exact.stopped_at * np.arange(1, max_votes + 1))
    assert float(votes) == pytest.approx(expected, rel=1e-14)
    wrong = np.sum((exact.winner + exact.undecided_leader)[1:])
    assert float(error) == pytest.approx(wrong, rel=1e-14)


def test_votes_distribution_in_float32():
    tenths, margin, max_votes = VOTES[-1]
    exact = enumerated_distribution(tuple(Fraction(i, 10) for i in tenths), margin, max_votes)
    distribution = theory.votes_distribution(np.array(tenths, np.float32) / 10, margin, max_votes)
    chex.assert_trees_all_close(jax.tree.map(np.asarray, distribution), exact, rtol=1e-6)
    assert {leaf.dtype for leaf in distribution} == {np.dtype("float32")}


def test_ties_at_the_budget_count_as_half_an_error(x64):
    distribution, _, error = distribution_votes_error(np.array([0.75, 0.25]), 3, 2)
    assert float(distribution.undecided) == 1
    assert float(error) == pytest.approx(0.0625 + 0.375 / 2)


def test_wald_is_the_limit_of_a_large_budget(x64):
    for p_right, margin in ((0.75, 2), (0.5, 3), (0.35, 3)):
        distribution, votes, error = distribution_votes_error(
            np.array([p_right, 1 - p_right]), margin, 600
        )
        limit = theory.wald_two_class(p_right, margin)
        assert float(distribution.undecided) < 1e-12
        assert float(error) == pytest.approx(float(limit.error), rel=1e-12)
        assert float(votes) == pytest.approx(float(limit.expected_votes), rel=1e-10)


def test_error_at_the_margin_is_bounded_by_the_posterior_and_equals_it_for_two_classes(x64):
    for classes, p_right, margin in ((2, 0.6, 3), (3, 0.5, 2), (4, 0.4, 2)):
        p_wrong = (1 - p_right) / (classes - 1)
        chances = np.array([p_right] + [p_wrong] * (classes - 1))
        distribution, _, _ = distribution_votes_error(chances, margin, 30)
        wrong = np.asarray(distribution.winner)[1:].sum() / np.asarray(distribution.winner).sum()
        bound = 1 - 1 / (1 + (classes - 1) * (p_wrong / p_right) ** margin)
        assert wrong <= bound * (1 + 1e-12)
        assert classes > 2 or wrong == pytest.approx(bound)


def test_a_larger_margin_costs_votes_and_saves_errors(x64):
    chances = np.array([0.5, 0.3, 0.2])
    _, votes, errors = zip(
        *(distribution_votes_error(chances, h, 40) for h in (1, 2, 4)), strict=True
    )
    assert votes[0] < votes[1] < votes[2]
    assert errors[0] > errors[1] > errors[2]


def exact_wald(p: Fraction, h: int) -> tuple[float, float]:
    q = 1 - p
    total = p**h + q**h
    advantage = sum(p ** (h - 1 - i) * q**i for i in range(h)) / total  # (p^h - q^h) / (p - q)
    return float(q**h / total), float(h * advantage)


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 3e-6), (True, 1e-14)])
def test_wald_equals_rational_arithmetic_everywhere(precision, tolerance):
    chances = [0.0, 1e-6, 0.25, 0.499, 0.5 - 2**-20, 0.5, 0.5 + 2**-24, 0.501, 0.75, 0.9, 1.0]
    margins = np.array([1, 2, 3, 10, 31])
    with jax.enable_x64(precision):
        p_right = jnp.array(chances)
        computed = theory.wald_two_class(p_right[:, None], margins[None, :])
    exact = [[exact_wald(Fraction(p), h) for h in margins.tolist()] for p in p_right.tolist()]
    error, votes = np.moveaxis(np.array(exact), -1, 0)
    np.testing.assert_allclose(computed.error, error, rtol=tolerance, atol=1e-37)
    np.testing.assert_allclose(computed.expected_votes, votes, rtol=tolerance)


def test_wald_at_huge_margins(x64):
    fair = theory.wald_two_class(0.5, UNBOUNDED)
    assert float(fair.error) == 0.5
    assert float(fair.expected_votes) == pytest.approx(float(UNBOUNDED) ** 2)
    biased = theory.wald_two_class(np.array([0.6, 0.4]), 10**6)
    np.testing.assert_array_equal(biased.error, [0, 1])
    np.testing.assert_allclose(biased.expected_votes, 5e6, rtol=1e-12)


@hypothesis_settings
@given(st.floats(0, 1, allow_subnormal=False), st.integers(1, 200))
def test_wald_is_symmetric_and_costs_between_h_and_h_squared_votes(p_right, margin):
    with jax.enable_x64(True):
        test = theory.wald_two_class(np.array([p_right, 1 - p_right]), margin)
    error, votes = np.asarray(test.error), np.asarray(test.expected_votes)
    assert error.sum() == pytest.approx(1, abs=1e-12)
    assert votes[0] == pytest.approx(votes[1], rel=1e-12)
    assert margin * (1 - 1e-12) <= votes[0] <= margin**2 * (1 + 1e-12)


@pytest.mark.slow
def test_gradients_of_wald_are_right_at_a_fair_and_a_certain_vote(x64):
    def exact_slopes(p: Fraction, h: int) -> list[float]:
        step = Fraction(1, 10**8)
        above, below = exact_wald(p + step, h), exact_wald(p - step, h)
        return [(a - b) / float(2 * step) for a, b in zip(above, below, strict=True)]

    slopes = jax.jit(jax.vmap(jax.jacobian(lambda p: jnp.stack(theory.wald_two_class(p, 5)))))
    points = [Fraction(i, 10**4) for i in (1000, 4999, 5000, 5001, 8000)]
    computed = slopes(np.array(points, float))
    np.testing.assert_allclose(computed, [exact_slopes(p, 5) for p in points], rtol=1e-5, atol=1e-6)
    # At p = 0 and 1: error' = 0, and votes = h / |2 p - 1| to first order.
    np.testing.assert_allclose(slopes(np.array([0.0, 1.0])), [[0, 10], [0, -10]])
    single = jax.vmap(jax.jacobian(lambda p: jnp.stack(theory.wald_two_class(p, 1))))
    np.testing.assert_allclose(single(np.array([0.0, 0.5, 1.0])), [[-1, 0]] * 3)


def test_gradients_of_the_exact_distribution_match_finite_differences(x64):
    def summary(x):
        distribution = theory.votes_distribution(jnp.array([x[0], x[1], 1 - x[0] - x[1]]), 2, 12)
        return jnp.stack(
            [
                theory.expected_votes(distribution),
                theory.error_probability(distribution),
                distribution.undecided,
            ]
        )

    points, step = np.array([[0.5, 0.3], [1 / 3, 1 / 3], [1.0, 0.0]]), 1e-6
    slopes = jax.jit(jax.vmap(jax.jacrev(summary)))(points)
    moves = step * np.concatenate([np.eye(2), -np.eye(2)])
    values = jax.jit(jax.vmap(jax.vmap(summary)))(points[:, None, :] + moves[None, :, :])
    expected = np.moveaxis((values[:, :2] - values[:, 2:]) / (2 * step), 1, 2)
    np.testing.assert_allclose(slopes, expected, rtol=1e-6, atol=1e-8)


def test_gradients_of_the_posterior_match_the_logistic(x64):
    slope = jax.jit(jax.grad(lambda p: theory.leader_posterior(np.array([4, 1]), p, 1 - p)))
    p = 0.7
    posterior = p**3 / (p**3 + (1 - p) ** 3)
    assert float(slope(p)) == pytest.approx(3 * posterior * (1 - posterior) / (p * (1 - p)))


def test_shapes_broadcast_and_transformations_agree():
    votes, p_right = np.arange(24).reshape(4, 2, 3), np.array([0.5, 0.6])

    def shape_of(function, *arguments):
        return jax.eval_shape(function, *arguments).shape

    assert shape_of(theory.log_bayes_factor, votes, p_right, 0.1) == (4, 2)
    assert shape_of(theory.log_bayes_factor_by_class, votes, p_right, np.full(3, 0.1)) == (4, 2)
    assert shape_of(theory.class_posterior, votes[0, 0], p_right, 0.1) == (2, 3)
    assert shape_of(theory.leader_posterior, votes, 0.5, 0.1) == (4, 2)
    assert shape_of(theory.margin_needed, 9.0, p_right, np.full((3, 1), 0.1)) == (3, 2)
    mapped = jax.jit(jax.vmap(jax.vmap(lambda v: theory.leader_posterior(v, 0.5, 0.1))))
    np.testing.assert_allclose(mapped(votes), theory.leader_posterior(votes, 0.5, 0.1), rtol=1e-6)

    chances = np.array([[0.6, 0.4], [0.5, 0.5]])
    distributions, votes, errors = jax.vmap(lambda p: distribution_votes_error(p, 2, 9))(chances)
    single = distribution_votes_error(chances[1], 2, 9)
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf[1], (distributions, votes, errors)), single, rtol=1e-6
    )
    np.testing.assert_allclose(theory.expected_votes(distributions), votes, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.log_bayes_factor(np.array([1, -2]), 0.6, 0.2), r"votes\[1\] is -2"),
        (lambda: theory.log_bayes_factor(np.array([1]), 0.6, 0.2), r"shape \(1,\); .* two classes"),
        (lambda: theory.log_bayes_factor(np.array([1, 2]), 1.0, 0.2), r"p_right is 1\.0; .*\(0, 1"),
        (lambda: theory.class_posterior(np.array([1, 2]), 0.6, 0.0), r"p_wrong is 0\.0"),
        (
            lambda: theory.class_posterior(np.array([1, 2, 0]), 0.6, 0.4),
            "of one given wrong answer",
        ),
        (
            lambda: theory.log_bayes_factor_by_class(np.array([1, 2, 0]), 0.6, np.full(2, 0.1)),
            r"p_wrong has shape \(2,\); give one per class, 3",
        ),
        (lambda: theory.margin_needed(1.0, 0.6, 0.2), r"threshold is 1\.0; .* > 1"),
        (lambda: theory.margin_needed(math.inf, 0.6, 0.2), "threshold is inf"),
        (
            lambda: theory.votes_distribution(np.array([0.6, 0.4]), 0, 9),
            "margin is 0; give a lead >= 1",
        ),
        (lambda: theory.votes_distribution(np.array([0.6, 0.4]), 2, 0), "max_votes is 0"),
        (
            lambda: theory.votes_distribution(np.array([0.6, -0.4]), 2, 9),
            r"vote_probabilities\[1\] is -0",
        ),
        (
            lambda: theory.votes_distribution(np.array([0.6, 0.3]), 2, 9),
            "sum of vote_probabilities is 0.9",
        ),
        (lambda: theory.votes_distribution(np.array([1.0]), 2, 9), "two classes or more"),
        (
            lambda: theory.votes_distribution(np.full(5, 0.2), 5, 60),
            "undecided states; lower max_votes",
        ),
        (lambda: theory.wald_two_class(1.5, 2), r"p_right is 1\.5"),
        (lambda: theory.wald_two_class(0.5, 0), "margin is 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
