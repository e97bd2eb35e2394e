"""Closed forms of the two-state chain: exact arithmetic, identities, properties, gradients."""

import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msjax.errors import InputError
from msjax.theory import chain as theory
from msjax.theory.chain import UNBOUNDED, Regime, TwoStateChain

EDGES = [
    # p0, p_ic, p_ci
    ("0", "0", "0"),  # frozen
    ("3/10", "1", "1"),  # alternating
    ("1/5", "3/5", "2/5"),  # independent rounds
    ("1", "3/10", "1/5"),
    ("0", "3/10", "1/5"),
    ("3/5", "3/10", "1/5"),  # neutral
    ("1/10", "7/10", "4/5"),  # r = -1/2
    ("1/10", "9/10", "1"),  # r = -9/10
    ("7/10", "1/5", "0"),
    ("7/10", "0", "1/5"),
    ("1/2", "1/1000000", "1/2000000"),  # nearly frozen
    ("1/2", "999999/1000000", "999999/1000000"),  # nearly alternating
]
GRID = [tuple(map(Fraction, point)) for point in EDGES] + [
    tuple(Fraction(i, 7) for i in point) for point in itertools.product((0, 2, 5, 7), repeat=3)
]
probability = st.floats(0, 1, allow_subnormal=False)
chains = st.tuples(probability, probability, probability)
hypothesis_settings = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def exact_accuracy(p0, p_ic, p_ci, k: int):
    """First entry of (p0, 1 - p0) T^k, by repeated squaring of T, in fractions or decimals."""

    def product(a, b):
        return [[sum(a[i][m] * b[m][j] for m in (0, 1)) for j in (0, 1)] for i in (0, 1)]

    power = [[p0 * 0 + 1, p0 * 0], [p0 * 0, p0 * 0 + 1]]
    base = [[1 - p_ci, p_ci], [p_ic, 1 - p_ic]]
    while k:
        if k & 1:
            power = product(power, base)
        base, k = product(base, base), k >> 1
    return p0 * power[0][0] + (1 - p0) * power[1][0]


def batch(points) -> TwoStateChain:
    return TwoStateChain(*(np.array([float(p[i]) for p in points]) for i in range(3)))


def test_accuracy_after_equals_the_rational_matrix_power(x64):
    rounds = np.array([0, 1, 2, 3, 4, 5, 8, 13, 31])
    computed = jax.vmap(lambda c: theory.accuracy_after(c, rounds))(batch(GRID))
    exact = [[float(exact_accuracy(*point, int(k))) for k in rounds] for point in GRID]
    np.testing.assert_allclose(computed, exact, rtol=0, atol=4e-16)


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 3e-7), (True, 6e-16)])
def test_many_rounds_near_the_frozen_chain_keep_full_precision(precision, tolerance):
    # r^k computed from a rounded r would be off by k ulp here.
    p0, p_ic, p_ci = (Decimal(f) for f in (0.25, 2.0**-13, 2.0**-14))
    with jax.enable_x64(precision), localcontext(prec=60):
        chain = TwoStateChain(float(p0), float(p_ic), float(p_ci))
        for k in (1, 1000, 4097, 20000):
            exact = float(exact_accuracy(p0, p_ic, p_ci, k))
            assert float(theory.accuracy_after(chain, k)) == pytest.approx(exact, rel=tolerance)


def test_marginal_gain_and_distance_are_accurate_relative_to_their_size(x64):
    rounds = [0, 1, 2, 7, 31]
    of_rounds = jax.jit(
        jax.vmap(
            lambda c: (
                theory.marginal_gain(c, np.array(rounds)),
                theory.total_variation(c, np.array(rounds)),
            )
        )
    )
    gain, distance = of_rounds(batch(GRID))
    for i, (p0, p_ic, p_ci) in enumerate(GRID):
        curve = {k: exact_accuracy(p0, p_ic, p_ci, k) for k in {*rounds, *(k + 1 for k in rounds)}}
        exact = [float(curve[k + 1] - curve[k]) for k in rounds]
        np.testing.assert_allclose(gain[i], exact, rtol=1e-13, atol=1e-16)
        if p_ic + p_ci > 0:
            exact = [float(abs(curve[k] - p_ic / (p_ic + p_ci))) for k in rounds]
            np.testing.assert_allclose(distance[i], exact, rtol=1e-13, atol=1e-16)
        else:
            assert np.isnan(distance[i]).all()
    tail = theory.total_variation(TwoStateChain(0.5, 0.25, 0.0), 2000)
    assert float(tail) == pytest.approx(0.5 * 0.75**2000, rel=1e-10)


def test_paths_enumerated_one_by_one_give_the_accuracies(x64):
    length = 8
    for point in EDGES:
        p0, p_ic, p_ci = map(Fraction, point)
        accuracy = [Fraction(0)] * (length + 1)
        for path in itertools.product((True, False), repeat=length + 1):
            distribution = p0 if path[0] else 1 - p0
            for now, then in itertools.pairwise(path):
                flip = p_ci if now else p_ic
                distribution *= flip if now != then else 1 - flip
            for k, right in enumerate(path):
                accuracy[k] += distribution if right else 0
        curve = theory.accuracy_curve(TwoStateChain(float(p0), float(p_ic), float(p_ci)), length)
        np.testing.assert_allclose(curve, [float(a) for a in accuracy], rtol=0, atol=4e-16)


def test_higher_p_ic_than_p_ci_does_not_mean_that_refinement_helps():
    chain = TwoStateChain(p0=0.9, p_ic=0.4, p_ci=0.2)
    assert theory.regime(chain) == Regime.HARMFUL
    assert float(theory.accuracy_after(chain, 1)) == pytest.approx(0.76)


def test_regime_is_exactly_neutral_for_decimal_inputs():
    tenths = np.arange(1, 10) / 10
    p_ic, p_ci = (a.ravel() for a in np.meshgrid(tenths, tenths))
    for precision in (False, True):
        with jax.enable_x64(precision):
            assert not np.any(theory.regime(TwoStateChain(p_ic / (p_ic + p_ci), p_ic, p_ci)))
            assert np.all(theory.regime(TwoStateChain(p_ic / (p_ic + p_ci) - 0.01, p_ic, p_ci)) > 0)
    assert theory.regime(TwoStateChain(0.3, 0.0, 0.0)) == Regime.NEUTRAL


def test_eigenvalue_and_limit_in_the_edge_regimes():
    frozen, alternating = TwoStateChain(0.3, 0.0, 0.0), TwoStateChain(0.3, 1.0, 1.0)
    independent = TwoStateChain(0.2, 0.75, 0.25)
    assert [float(theory.eigenvalue(c)) for c in (frozen, alternating, independent)] == [1, -1, 0]
    assert np.isnan(theory.stationary_accuracy(frozen))
    assert float(theory.stationary_accuracy(alternating)) == 0.5
    np.testing.assert_array_equal(theory.accuracy_curve(frozen, 3), np.full(4, np.float32(0.3)))
    np.testing.assert_allclose(theory.accuracy_curve(alternating, 3), [0.3, 0.7, 0.3, 0.7], 1e-6)
    np.testing.assert_allclose(theory.accuracy_curve(independent, 3), [0.2, 0.75, 0.75, 0.75])
    assert float(theory.accuracy_after(alternating, UNBOUNDED)) == pytest.approx(0.7)
    assert [float(theory.half_life(c)) for c in (frozen, alternating, independent)] == [
        np.inf,
        np.inf,
        0,
    ]
    assert float(theory.half_life(TwoStateChain(0.1, 0.3, 0.2))) == pytest.approx(1)
    within = [int(theory.rounds_to_within(c, 0.01)) for c in (frozen, alternating, independent)]
    assert within == [0, UNBOUNDED, 1]
    assert int(theory.rounds_to_within(TwoStateChain(0.1, 0.3, 0.2), 0.0)) == UNBOUNDED
    assert int(theory.rounds_to_within(TwoStateChain(0.6, 0.3, 0.2), 0.0)) == 0
    assert int(theory.rounds_to_within(TwoStateChain(0.1, 0.3, 0.2), 0.125)) == 2


def test_range_bounds_the_curve_and_is_reached(x64):
    rng = np.random.default_rng(0)
    chain = TwoStateChain(*rng.uniform(size=(3, 2000)))
    curve = np.asarray(theory.accuracy_curve(chain, 400))
    bounds = theory.accuracy_range(chain)
    assert np.all(curve <= np.asarray(bounds.supremum)[:, None] + 1e-15)
    assert np.all(curve >= np.asarray(bounds.infimum)[:, None] - 1e-15)
    settled = np.abs(np.asarray(theory.eigenvalue(chain))) < 0.9
    np.testing.assert_allclose(curve.max(1)[settled], bounds.supremum[settled], atol=1e-15)
    np.testing.assert_allclose(curve.min(1)[settled], bounds.infimum[settled], atol=1e-15)


def random_settings(n: int, seed: int):
    """Chains of every regime, a tenth of them on an edge, with values and costs."""
    rng = np.random.default_rng(seed)
    p0, p_ic, p_ci = rng.uniform(size=(3, n))
    on_edge = rng.integers(0, 60, n)
    p_ic = np.where(on_edge == 0, 0.0, np.where(on_edge == 1, 1.0, p_ic))
    p_ci = np.where(on_edge == 2, 0.0, np.where(on_edge == 3, 1 - p_ic, p_ci))
    p0 = np.where(on_edge == 4, 0.0, np.where(on_edge == 5, 1.0, p0))
    value = 10 ** rng.uniform(-1, 4, n)
    return TwoStateChain(p0, p_ic, p_ci), value, value * 10 ** rng.uniform(-4, 0, n)


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 2e-6), (True, 1e-14)])
def test_optimal_rounds_attain_the_maximum_on_20_000_settings(precision, tolerance):
    with jax.enable_x64(precision):
        chain, value, cost = random_settings(20_000, seed=1)
        best = np.asarray(theory.optimal_rounds(chain, value, cost))
        p0, p_ic, p_ci = (np.asarray(x, float) for x in (chain.p0, chain.p_ic, chain.p_ci))
    # Brute force by the recursion in float64, far enough that later rounds cannot pay.
    accuracy, top, top_k = p0.copy(), value * p0, np.zeros(p0.size, int)
    runner_up, at_best = np.full(p0.size, -np.inf), np.where(best == 0, value * p0, np.nan)
    reach = 1500
    for k in range(1, reach + 1):
        accuracy = accuracy * (1 - p_ci) + (1 - accuracy) * p_ic
        worth = value * accuracy - cost * k
        better = worth > top
        runner_up = np.where(better, top, np.maximum(runner_up, worth))
        top, top_k = np.where(better, worth, top), np.where(better, k, top_k)
        at_best = np.where(best == k, worth, at_best)
    assert best.max() < reach
    assert np.all(at_best >= top - tolerance * value)
    clear = top - runner_up > tolerance * value
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(best[clear], top_k[clear])


@pytest.mark.parametrize("precision", [False, True])
def test_ties_in_decimal_inputs_go_to_the_smaller_k(precision):
    # r = 1/2 and d = (p_ic - p0/2): round k gains d / 2^k, which costs exactly that.
    points = list(itertools.product(("0.1", "0.3", "0.5"), ("0.3", "0.4", "0.45"), range(5)))
    p0, p_ic, k = (np.array([float(p[i]) for p in points]) for i in range(3))
    gains = [Fraction(p_ic) - Fraction(p0) / 2 for p0, p_ic, _ in points]
    cost = np.array([float(7 * gain / 2 ** p[2]) for gain, p in zip(gains, points, strict=True)])
    with jax.enable_x64(precision):
        chain = TwoStateChain(p0, p_ic, 0.5 - p_ic)
        np.testing.assert_array_equal(theory.optimal_rounds(chain, 7.0, cost), k)
        general = jax.jit(
            jax.vmap(lambda c, x: theory.optimal_rounds_with_costs(c, 7.0, jnp.full(8, x)))
        )
        np.testing.assert_array_equal(general(chain, cost), k)


def test_optimal_rounds_in_the_edge_regimes():
    def best(p0, p_ic, p_ci, cost):
        return int(theory.optimal_rounds(TwoStateChain(p0, p_ic, p_ci), 1.0, cost))

    assert best(0.1, 0.3, 0.2, 0.0) == UNBOUNDED
    assert best(0.6, 0.3, 0.2, 0.0) == 0  # neutral
    assert best(0.9, 0.3, 0.2, 0.0) == 0  # harmful
    assert best(0.3, 0.0, 0.0, 0.0) == 0  # frozen
    assert best(0.3, 1.0, 1.0, 0.0) == 1  # alternating
    assert best(0.3, 1.0, 1.0, 0.5) == 0
    assert best(0.2, 0.75, 0.25, 0.5) == 1  # independent rounds
    assert best(0.2, 0.75, 0.25, 0.6) == 0
    assert best(0.1, 0.7, 0.8, 0.0) == 1  # overshoot


def test_general_argmax_agrees_with_the_closed_form_and_with_brute_force(x64):
    chain, _, cost = random_settings(500, seed=2)
    cost = np.maximum(cost, 1e-3)
    reach = 60
    plain = jax.jit(
        jax.vmap(lambda c, x: theory.optimal_rounds_with_costs(c, 1.0, jnp.full(reach, x)))
    )
    capped = np.minimum(theory.optimal_rounds(chain, 1.0, cost), reach)
    np.testing.assert_array_equal(plain(chain, cost), capped)
    costs = np.random.default_rng(3).uniform(0, 0.1, reach)
    worth = np.asarray(theory.accuracy_curve(chain, reach)) - np.cumsum(np.r_[0, costs])
    found = theory.optimal_rounds_with_costs(chain, 1.0, costs)
    np.testing.assert_array_equal(found, worth.argmax(1))


@hypothesis_settings
@given(chains, st.integers(0, 40), st.integers(0, 40))
def test_semigroup(point, j, k):
    with jax.enable_x64(True):
        chain = TwoStateChain(*point)
        restarted = TwoStateChain(theory.accuracy_after(chain, j), chain.p_ic, chain.p_ci)
        assert float(theory.accuracy_after(restarted, k)) == pytest.approx(
            float(theory.accuracy_after(chain, j + k)), abs=1e-14
        )


@hypothesis_settings
@given(chains, st.integers(0, UNBOUNDED))
def test_accuracy_is_a_probability_and_swapping_right_and_wrong_mirrors_it(point, k):
    p0, p_ic, p_ci = point
    for precision, tolerance in ((False, 1e-5), (True, 1e-14)):
        with jax.enable_x64(precision):
            accuracy = float(theory.accuracy_after(TwoStateChain(p0, p_ic, p_ci), k))
            mirrored = float(theory.accuracy_after(TwoStateChain(1 - p0, p_ci, p_ic), k))
        assert 0 <= accuracy <= 1
        # Next to r = -1 the input's rounding, not ours, decides after 2^31 rounds.
        if p_ic + p_ci < 1.9 or k < 100:
            assert accuracy == pytest.approx(1 - mirrored, abs=tolerance)


@hypothesis_settings
@given(chains)
def test_curve_is_monotone_unless_it_oscillates(point):
    chain = TwoStateChain(*point)
    steps = np.diff(np.asarray(theory.accuracy_curve(chain, 30)))
    if float(theory.eigenvalue(chain)) >= 0:
        assert (steps >= -1e-6).all() or (steps <= 1e-6).all()
    else:
        assert (np.abs(steps[1:]) <= np.abs(steps[:-1]) + 1e-6).all()


@hypothesis_settings
@given(chains, st.integers(1, 200))
def test_sign_of_the_gain_is_the_regime_at_every_round(point, k):
    with jax.enable_x64(True):
        chain = TwoStateChain(*point)
        gain = float(theory.accuracy_after(chain, k)) - float(chain.p0)
        sign = int(theory.regime(chain))
    assert gain * sign >= 0 if sign else abs(gain) < 1e-13


@hypothesis_settings
@given(chains, st.integers(0, 60))
def test_marginal_gain_is_the_difference_and_the_affine_form(point, k):
    with jax.enable_x64(True):
        chain = TwoStateChain(*point)
        gain = float(theory.marginal_gain(chain, k))
        now, then = (float(theory.accuracy_after(chain, i)) for i in (k, k + 1))
    assert gain == pytest.approx(then - now, abs=1e-14)
    assert gain == pytest.approx(point[1] - (point[1] + point[2]) * now, abs=1e-14)


@hypothesis_settings
@given(chains, st.floats(1e-6, 0.5))
def test_rounds_to_within_is_the_first_round_that_near(point, eps):
    with jax.enable_x64(True):
        chain = TwoStateChain(*point)
        k = int(theory.rounds_to_within(chain, eps))
        if point[1] + point[2] == 0:
            assert k == 0
        elif k < UNBOUNDED:
            assert float(theory.total_variation(chain, k)) <= eps * (1 + 1e-9)
            assert k == 0 or float(theory.total_variation(chain, k - 1)) > eps * (1 - 1e-9)
        else:
            assert float(theory.total_variation(chain, UNBOUNDED)) > eps * (1 - 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("accuracy", theory.accuracy_after),
        ("gain", theory.marginal_gain),
        ("limit", lambda chain, k: theory.stationary_accuracy(chain)),
        ("distance", theory.total_variation),
        ("half-life", lambda chain, k: theory.half_life(chain)),
    ],
)
def test_gradients_match_finite_differences(x64, name, function):
    points = [(0.3, 0.2, 0.1), (0.3, 0.7, 0.8), (0.3, 1e-4, 1e-4), (0.3, 0.95, 0.9)]
    if name not in ("distance", "half-life"):  # |r| has a kink at r = 0
        points.append((0.3, 0.6, 0.4))
    points, rounds = jnp.array(points), jnp.array([0, 1, 2, 5])

    def over_rounds(x):
        return jax.vmap(lambda k: function(TwoStateChain(*x), k))(rounds)

    computed = jax.jit(jax.vmap(jax.jacobian(over_rounds)))(points)
    step = 1e-4 * points[:, 1]
    evaluate = jax.jit(jax.vmap(over_rounds))
    for i in range(3):
        shift = jnp.zeros_like(points).at[:, i].set(step)
        difference = evaluate(points + shift) - evaluate(points - shift)
        expected = difference / (2 * step[:, None])
        np.testing.assert_allclose(computed[..., i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("point", [(0.5, 0.0, 0.0), (1.0, 0.3, 0.2), (0.0, 1.0, 1.0), (0.2, 1, 0)])
def test_gradients_on_the_boundary_are_those_of_the_polynomial(x64, point):
    # p_3 written out: x -> x (1 - p_ci) + (1 - x) p_ic, three times.
    def by_recursion(x):
        accuracy = x[0]
        for _ in range(3):
            accuracy = accuracy * (1 - x[2]) + (1 - accuracy) * x[1]
        return accuracy

    x = jnp.array(point, float)
    computed = jax.grad(lambda x: theory.accuracy_after(TwoStateChain(*x), 3))(x)
    np.testing.assert_allclose(computed, jax.grad(by_recursion)(x), atol=1e-14)


@pytest.mark.slow
def test_shapes_broadcast_and_transformations_agree():
    chain = TwoStateChain(np.array([0.1, 0.5]), 0.4, np.array([[0.0], [0.6], [1.0]]))
    assert chain.shape == (3, 2)
    assert theory.accuracy_after(chain, 3).shape == (3, 2)
    assert theory.accuracy_curve(chain, 5).shape == (3, 2, 6)
    single = TwoStateChain(0.1, 0.4, 0.6)
    assert theory.accuracy_after(single, np.arange(6).reshape(2, 3)).shape == (2, 3)

    def everything(c):
        return {
            "accuracy": theory.accuracy_after(c, 3),
            "gain": theory.marginal_gain(c, 2),
            "eigenvalue": theory.eigenvalue(c),
            "limit": theory.stationary_accuracy(c),
            "regime": theory.regime(c),
            "range": theory.accuracy_range(c),
            "half-life": theory.half_life(c),
            "within": theory.rounds_to_within(c, 0.01),
            "stop": theory.optimal_rounds(c, 10.0, 0.1),
            "stop with costs": theory.optimal_rounds_with_costs(c, 10.0, np.array([0.1, 0.4])),
        }

    mapped = jax.jit(jax.vmap(jax.vmap(everything)))
    chex.assert_trees_all_close(jax.jit(everything)(chain), mapped(chain), rtol=1e-6)


def test_chain_is_a_pytree_that_may_be_built_from_traced_values():
    gain = jax.jit(jax.grad(lambda p0: theory.accuracy_after(TwoStateChain(p0, 0.3, 0.2), 2)))
    assert float(gain(0.4)) == pytest.approx(0.25)
    doubled = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), TwoStateChain(0.5, 0.25, 0.25))
    assert doubled.dtype == jnp.bfloat16
    assert theory.accuracy_after(doubled, 2).dtype == jnp.bfloat16
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(doubled)]
    assert paths == [".p0", ".p_ic", ".p_ci"]
    assert TwoStateChain(1, 0, 0).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TwoStateChain(1.2, 0.1, 0.1), r"p0 is 1\.2; .*\[0, 1\]"),
        (lambda: TwoStateChain(0.2, -0.1, 0.1), r"p_ic is -0\.1"),
        (lambda: TwoStateChain(0.2, 0.1, math.nan), "p_ci is nan"),
        (lambda: TwoStateChain(0.2, np.array([[0.1, 7.0]]), 0.1), r"p_ic\[0, 1\] is 7\.0"),
        (lambda: TwoStateChain(np.ones(2), np.ones(3), 0.1), r"'p_ic': \(3,\).*broadcast"),
        (lambda: theory.accuracy_after(TwoStateChain(0.2, 0.1, 0.1), -1), "k is -1"),
        (lambda: theory.accuracy_curve(TwoStateChain(0.2, 0.1, 0.1), -2), "rounds is -2"),
        (lambda: theory.rounds_to_within(TwoStateChain(0.2, 0.1, 0.1), -0.1), r"eps is -0\.1"),
        (lambda: theory.optimal_rounds(TwoStateChain(0.2, 0.1, 0.1), 0.0, 1.0), r"value is 0\.0"),
        (lambda: theory.optimal_rounds(TwoStateChain(0.2, 0.1, 0.1), 1.0, -1.0), r"cost is -1\.0"),
        (
            lambda: theory.optimal_rounds_with_costs(
                TwoStateChain(0.2, 0.1, 0.1), 1.0, np.array([1.0, -2.0])
            ),
            r"costs\[1\] is -2\.0",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
