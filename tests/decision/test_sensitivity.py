"""Derivatives, information and regret: rational arithmetic, enumeration, simulated pilots."""

import itertools
from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msjax.decision import sensitivity
from msjax.errors import InputError
from msjax.simulation.paths import simulate
from msjax.theory.chain import TwoStateChain, accuracy_after, optimal_rounds

POINTS = [
    # p0, p_ic, p_ci
    ("1/2", "3/10", "1/10"),
    ("9/10", "2/5", "1/5"),  # harmful
    ("1/10", "7/10", "4/5"),  # r = -1/2
    ("1/5", "3/5", "2/5"),  # r = 0
    ("3/10", "1", "1"),  # alternating
    ("1/5", "0", "0"),  # frozen
    ("0", "1/4", "1/8"),
    ("1", "1/4", "1/8"),
    ("7/10", "1/5", "0"),
    ("7/10", "0", "1/5"),
    ("1/2", "1/1000000", "1/2000000"),  # nearly frozen
]
EXACT = [tuple(map(Fraction, point)) for point in POINTS]
ROUNDS = 4
VALUE, COST = 1.0, 0.01
probability = st.floats(0, 1, allow_subnormal=False)
chains = st.tuples(probability, probability, probability)
hypothesis_settings = settings(max_examples=40, deadline=None, derandomize=True)

gradients = jax.jit(sensitivity.gradients, static_argnums=1)
fisher_information = jax.jit(sensitivity.fisher_information, static_argnums=1)
standard_errors = jax.jit(sensitivity.standard_errors, static_argnums=1)
regret = jax.jit(sensitivity.regret)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def batch(points) -> TwoStateChain:
    return TwoStateChain(*(np.array([float(p[i]) for p in points]) for i in range(3)))


def slopes(f, point) -> list[float]:
    """Derivatives of a rational function, by central differences without any rounding."""
    step = Fraction(1, 10**16)
    found = []
    for i in range(3):
        up, down = ([x + sign * step * (i == j) for j, x in enumerate(point)] for sign in (1, -1))
        found.append(float((f(*up) - f(*down)) / (2 * step)))
    return found


def exact_curve(p0, p_ic, p_ci, rounds: int) -> list[Fraction]:
    """p_0, ..., p_rounds, one exact multiplication per round."""
    curve = [p0]
    for _ in range(rounds):
        curve.append(curve[-1] * (1 - p_ci) + (1 - curve[-1]) * p_ic)
    return curve


def exact_worth(k: int, p0, p_ic, p_ci):
    return exact_curve(p0, p_ic, p_ci, k)[k] - Fraction(COST) * k


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 2e-6), (True, 1e-13)])
def test_gradients_equal_the_derivatives_of_rational_arithmetic(precision, tolerance):
    with jax.enable_x64(precision):
        found = gradients(batch(EXACT), ROUNDS, VALUE, COST)
    for i, point in enumerate(EXACT):
        for k in range(ROUNDS + 1):
            exact = slopes(lambda *p: exact_curve(*p, k)[k], point)  # noqa: B023
            np.testing.assert_allclose(found.accuracy[i, k], exact, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(found.eigenvalue[i], [0, -1, -1])
        if point[1] + point[2] == 0:
            assert np.isnan(found.stationary_accuracy[i]).all()
            continue
        exact = slopes(lambda p0, p_ic, p_ci: p_ic / (p_ic + p_ci), point)
        np.testing.assert_allclose(found.stationary_accuracy[i], exact, rtol=tolerance, atol=0)


def test_the_best_worth_is_differentiated_at_its_number_of_rounds(x64):
    found = gradients(batch(EXACT), ROUNDS, VALUE, COST).worth
    for i, point in enumerate(EXACT):
        best = max(range(40), key=lambda k: exact_worth(k, *point))  # noqa: B023
        exact = slopes(lambda *p: exact_worth(best, *p), point)  # noqa: B023
        np.testing.assert_allclose(found[i], exact, rtol=1e-12, atol=1e-12)


def test_the_slope_of_the_best_worth_predicts_it_nearby(x64):
    point, step = np.array([0.5, 0.3, 0.1]), 1e-6

    def best_worth(p) -> float:
        return max(float(exact_worth(k, *map(Fraction, p))) for k in range(40))

    found = gradients(batch(EXACT), ROUNDS, VALUE, COST).worth
    for i, slope in enumerate(found[0]):
        move = step * np.eye(3)[i]
        change = best_worth(point + move) - best_worth(point - move)
        assert change / (2 * step) == pytest.approx(float(slope), abs=1e-8)


def test_free_rounds_are_worth_their_limit(x64):
    found = gradients(batch(EXACT), ROUNDS, VALUE, 0.0)
    np.testing.assert_allclose(found.worth[0], found.stationary_accuracy[0], atol=1e-12)


def score_covariance(point, answers: int) -> np.ndarray:
    """Covariance of the score of one path, summed over all paths, in fractions."""
    step = Fraction(1, 10**12)

    def distribution(p, path) -> Fraction:
        p0, p_ic, p_ci = p
        probability = p0 if path[0] else 1 - p0
        for now, then in itertools.pairwise(path):
            flip = p_ci if now else p_ic
            probability *= flip if now != then else 1 - flip
        return probability

    total = [[Fraction(0)] * 3 for _ in range(3)]
    for path in itertools.product((False, True), repeat=answers):
        probability = distribution(point, path)
        if probability == 0:
            continue
        score = []
        for i in range(3):
            up, down = ([x + s * step * (i == j) for j, x in enumerate(point)] for s in (1, -1))
            score.append(
                (distribution(up, path) - distribution(down, path)) / (2 * step) / probability
            )
        for i, j in itertools.product(range(3), repeat=2):
            total[i][j] += probability * score[i] * score[j]
    return np.array(total, float)


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_fisher_information_is_the_covariance_of_the_score(rounds, x64):
    inside = [point for point in EXACT if all(0 < p < 1 for p in point)]
    found = fisher_information(batch(inside), rounds)
    for information, point in zip(found, inside, strict=True):
        exact = score_covariance(point, rounds + 1)
        np.testing.assert_allclose(information, exact, rtol=1e-11, atol=1e-10)


def test_information_at_the_boundary_is_infinite_or_absent():
    # Frozen; never wrong, so that nothing is seen of p_ic; never right.
    chain = TwoStateChain(np.array([0.5, 1.0, 0.0]), np.array([0.0, 0.3, 0.0]), np.zeros(3))
    found = np.asarray(fisher_information(chain, 3))
    infinite = np.inf
    expected = [[4, infinite, infinite], [infinite, 0, infinite], [infinite, infinite, 0]]
    np.testing.assert_allclose(np.diagonal(found, axis1=1, axis2=2), expected, rtol=1e-6)
    assert np.all(found[:, ~np.eye(3, dtype=bool)] == 0)
    errors = standard_errors(chain, 3, 50)
    np.testing.assert_allclose(errors.p_ic, [0, infinite, 0])
    np.testing.assert_allclose(errors.p_ci, [0, 0, infinite])
    # pi = 1 of the second chain does not depend on p_ic to first order.
    np.testing.assert_allclose(errors.stationary_accuracy, [np.nan, 0, np.nan])
    np.testing.assert_allclose(errors.accuracy[0], np.sqrt(0.25 / 50), rtol=1e-6)
    np.testing.assert_allclose(errors.accuracy[1:], 0)
    for leaf in jax.tree.leaves(standard_errors(chain, 0, 50)):
        assert not np.any(np.isnan(leaf[1]))


def test_a_rare_state_keeps_its_relative_information(x64):
    # rounds - R would have lost half of the digits of W.
    information = fisher_information(TwoStateChain(1 - 2.0**-40, 0.25, 0.0), 2)[1, 1]
    assert float(information) == pytest.approx(2.0**-40 * (1 + 0.75) / (0.25 * 0.75), rel=1e-12)


@pytest.mark.slow
def test_standard_errors_are_those_of_simulated_pilots(x64):
    chain, rounds, questions, pilots = TwoStateChain(0.5, 0.3, 0.1), ROUNDS, 200, 2000
    paths = np.asarray(simulate(jax.random.key(3), chain, questions * pilots, rounds))
    paths = paths.reshape(pilots, questions, rounds + 1)
    now, then = paths[..., :-1], paths[..., 1:]

    def rate(events, trials):
        return events.sum(axis=(1, 2)) / trials.sum(axis=(1, 2))

    p0, p_ic, p_ci = paths[..., 0].mean(axis=1), rate(~now & then, ~now), rate(now & ~then, now)
    predicted = standard_errors(chain, rounds, questions)
    # The standard deviation of 2000 estimates is known to 1.6 %; 6 % is almost 4 of those.
    for estimate, error in [(p0, predicted.p0), (p_ic, predicted.p_ic), (p_ci, predicted.p_ci)]:
        assert estimate.std() == pytest.approx(float(error), rel=0.06)
    fitted = TwoStateChain(p0, p_ic, p_ci)
    pi = p_ic / (p_ic + p_ci)
    assert pi.std() == pytest.approx(float(predicted.stationary_accuracy), rel=0.06)
    for k in range(rounds + 1):
        spread = np.std(np.asarray(accuracy_after(fitted, k)))
        assert spread == pytest.approx(float(predicted.accuracy[k]), rel=0.06)


def test_standard_errors_broadcast_and_fall_with_the_root_of_the_pilot():
    chain = TwoStateChain(np.array([0.5, 0.2]), 0.3, 0.1)
    found = standard_errors(chain, 2, np.array([[10], [1000]]))
    chex.assert_shape(found[:4], (2, 2))
    chex.assert_shape(found.accuracy, (2, 2, 3))
    for leaf in jax.tree.leaves(found):
        np.testing.assert_allclose(leaf[0], 10 * leaf[1], rtol=1e-6)
    chex.assert_trees_all_close(
        jax.tree.map(lambda leaf: leaf[1, 0], found),
        standard_errors(TwoStateChain(0.5, 0.3, 0.1), 2, 1000),
        rtol=1e-6,
    )


def exact_regret(point, believed, longest: int = 200) -> float:
    """By search over all numbers of rounds, in fractions; the smaller of equal ones."""
    true, wrong = (exact_curve(*map(Fraction, p), longest) for p in (point, believed))
    worth = [p - Fraction(COST) * k for k, p in enumerate(true)]
    expected = [p - Fraction(COST) * k for k, p in enumerate(wrong)]
    return float(max(worth) - worth[expected.index(max(expected))])


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 3e-7), (True, 1e-14)])
def test_regret_equals_the_search_over_all_rounds(precision, tolerance):
    point = (0.5, 0.3, 0.1)
    wrong = [(0.5, 0.45, 0.1), (0.8, 0.3, 0.1), (0.1, 0.05, 0.4), (0.5, 0.7, 0.8), (0.2, 0, 0.3)]
    exact = [exact_regret(point, w) for w in wrong]
    with jax.enable_x64(precision):
        found = regret(TwoStateChain(*point), batch(wrong), VALUE, COST)
    np.testing.assert_allclose(found, exact, atol=tolerance)
    assert max(exact) > 0.1


@jax.jit
def regret_and_bound(true: TwoStateChain, believed: TwoStateChain, value: float, cost: float):
    stops = jnp.stack([optimal_rounds(chain, value, cost) for chain in (true, believed)])
    apart = jnp.abs(accuracy_after(true, stops) - accuracy_after(believed, stops))
    lost = sensitivity.regret(true, believed, value, cost)
    return lost, 2 * value * jnp.max(apart), sensitivity.regret(true, true, value, cost)


@hypothesis_settings
@given(chains, chains, st.floats(1e-3, 1.0))
def test_regret_lies_between_0_and_twice_the_error_of_the_accuracies(point, other, cost):
    with jax.enable_x64(True):
        lost, bound, own = regret_and_bound(TwoStateChain(*point), TwoStateChain(*other), 2.0, cost)
        assert 0 <= float(lost) <= float(bound) + 1e-9
        assert own == 0


def test_regret_broadcasts_and_is_finite_for_free_rounds():
    true = TwoStateChain(np.array([[0.9], [0.5]]), 0.4, 0.2)
    believed = TwoStateChain(np.array([0.1, 0.5, 0.95]), 0.4, 0.2)
    found = regret(true, believed, 1.0, 0.0)
    chex.assert_shape(found, (2, 3))
    np.testing.assert_allclose(found[0], [0.9 - 2 / 3, 0.9 - 2 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(found[1], [0, 0, 2 / 3 - 0.5], atol=1e-6)


def test_the_grid_is_the_regret_of_every_pair_of_errors():
    chain = TwoStateChain(0.5, 0.3, 0.1)
    errors_ic, errors_ci = np.array([-0.4, -0.1, 0.0, 0.1]), np.array([-0.2, 0.0, 0.3])
    grid = jax.jit(sensitivity.regret_grid)(chain, errors_ic, errors_ci, VALUE, COST, 0.05)
    p_ic = np.repeat([0.0, 0.2, 0.3, 0.4], 3)
    believed = TwoStateChain(0.55, p_ic, np.tile([0.0, 0.1, 0.4], 4))
    np.testing.assert_allclose(grid.ravel(), regret(chain, believed, VALUE, COST), atol=3e-7)
    chex.assert_shape(grid, (4, 3))


def test_noise_costs_nothing_when_it_is_absent_and_more_when_it_is_large(x64):
    chain, scale, draws = TwoStateChain(0.5, 0.3, 0.1), np.array([0.0, 0.3, 1.0]), 20_000
    found = sensitivity.noise_regret(jax.random.key(0), chain, scale, draws, VALUE, COST)
    assert found.mean[0] == found.low[0] == found.high[0] == 0
    assert 0 < found.mean[1] < found.mean[2]
    assert np.all(found.low[1:] < found.mean[1:]) and np.all(found.mean[1:] < found.high[1:])
    rng = np.random.default_rng(1)
    p = np.array([0.5, 0.3, 0.1])
    odds = np.log(p / (1 - p))[:, None] + rng.normal(size=(3, draws))
    direct = np.asarray(regret(chain, TwoStateChain(*(1 / (1 + np.exp(-odds)))), VALUE, COST))
    error = np.hypot(direct.std() / np.sqrt(draws), (found.high[2] - found.low[2]) / 3.92)
    assert direct.mean() == pytest.approx(float(found.mean[2]), abs=4 * error)
    # The interval is that of the mean.
    half = (found.high[2] - found.low[2]) / 2
    assert float(half) == pytest.approx(1.96 * direct.std() / np.sqrt(draws), rel=0.05)


SIZES = np.array([2, 20, 200, 20_000])


@pytest.fixture(scope="module")
def pilots():
    """`pilot_regret` of 4000 pilots per size, 2 rounds; compiled once."""
    draws = 4000
    return lambda chain, sizes=SIZES: sensitivity.pilot_regret(
        jax.random.key(1), chain, sizes, 2, draws, VALUE, COST
    )


@pytest.mark.slow
def test_pilot_regret_is_that_of_pilots_simulated_path_by_path(pilots):
    chain, questions, draws = TwoStateChain(0.5, 0.3, 0.1), 20, 4000
    found = pilots(chain)
    paths = np.asarray(simulate(jax.random.key(9), chain, questions * draws, 2))
    paths = paths.reshape(draws, questions, 3)
    now, then = paths[..., :-1], paths[..., 1:]

    def estimate(events, trials):
        return (events.sum(axis=(1, 2)) + 0.5) / (trials.sum(axis=(1, 2)) + 1)

    believed = TwoStateChain(
        estimate(paths[..., :1], np.ones_like(paths[..., :1])),
        estimate(~now & then, ~now),
        estimate(now & ~then, now),
    )
    direct = np.asarray(regret(chain, believed, VALUE, COST))
    error = np.sqrt(2 / draws) * direct.std()
    assert float(found.mean[1]) == pytest.approx(direct.mean(), abs=4 * error)
    assert np.all(np.diff(found.mean) < 0)
    assert found.mean[-1] < 1e-3
    assert np.all((found.low <= found.mean) & (found.mean <= found.high))


def test_other_chains_and_sizes_compile_nothing_and_give_numbers(pilots, compiling_nothing):
    sizes = np.array([1, 3, 1000, 10**6])
    pilots(TwoStateChain(0.5, 0.3, 0.1), sizes)
    for point in [(0, 0, 0), (1, 0, 0), (0.5, 1, 1), (1, 0.2, 0.3)]:
        with compiling_nothing():
            found = pilots(TwoStateChain(*map(float, point)), sizes)
        assert all(np.isfinite(leaf).all() for leaf in found)
        assert found.mean[-1] < 1e-3


ONE = TwoStateChain(0.5, 0.3, 0.1)
MANY = TwoStateChain(np.array([0.5, 0.6]), 0.3, 0.1)
KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sensitivity.gradients(ONE, -1), "rounds is -1"),
        (lambda: sensitivity.gradients(ONE, 1, 0.0), "value is 0.0"),
        (lambda: sensitivity.fisher_information(ONE, -1), "rounds is -1"),
        (lambda: sensitivity.standard_errors(ONE, 1, 0), "questions is 0"),
        (lambda: sensitivity.regret(ONE, MANY, 1.0, -1.0), "cost is -1.0"),
        (lambda: sensitivity.regret_grid(MANY, np.zeros(1), np.zeros(1), 1.0, 0.0), "one chain"),
        (lambda: sensitivity.noise_regret(KEY, MANY, np.ones(1), 9, 1.0, 0.0), "one chain"),
        (lambda: sensitivity.noise_regret(KEY, ONE, -np.ones(1), 9, 1.0, 0.0), r"scale\[0\] is -1"),
        (lambda: sensitivity.noise_regret(KEY, ONE, np.ones(1), 1, 1.0, 0.0), "draws is 1"),
        (
            lambda: sensitivity.pilot_regret(KEY, ONE, np.array([5, 0]), 1, 9, 1.0, 0.0),
            r"questions\[1\] is 0; give numbers of questions from 1 to 1,000,000",
        ),
        (
            lambda: sensitivity.pilot_regret(KEY, ONE, np.array([5]), -1, 9, 1.0, 0.0),
            "rounds is -1",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
