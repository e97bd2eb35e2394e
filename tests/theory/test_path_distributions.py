"""Distributions of whole trajectories: all paths enumerated, exact arithmetic, gradients."""

import itertools
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msjax.errors import InputError
from msjax.theory import chain as theory
from msjax.theory import path_distributions as distributions
from msjax.theory.chain import UNBOUNDED, TwoStateChain

EDGES = [
    # p0, p_ic, p_ci
    ("0", "0", "0"),  # frozen, wrong
    ("3/10", "0", "0"),  # frozen
    ("3/10", "1", "1"),  # alternating
    ("1/5", "3/5", "2/5"),  # independent rounds
    ("1", "3/10", "1/5"),
    ("0", "3/10", "1/5"),
    ("3/5", "3/10", "1/5"),  # stationary start
    ("1/10", "7/10", "4/5"),  # r = -1/2
    ("1/10", "9/10", "1"),  # r = -9/10
    ("7/10", "1/5", "0"),
    ("7/10", "0", "1/5"),
    ("1", "0", "1"),
    ("1/2", "1/1000000", "1/2000000"),  # nearly frozen
    ("1/2", "999999/1000000", "999999/1000000"),  # nearly alternating
]
GRID = [tuple(map(Fraction, point)) for point in EDGES]
ROUNDS = 7
probability = st.floats(0, 1, allow_subnormal=False)
chains = st.tuples(probability, probability, probability)
hypothesis_settings = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def batch(points) -> TwoStateChain:
    return TwoStateChain(*(np.array([float(p[i]) for p in points]) for i in range(3)))


def paths(p0, p_ic, p_ci, answers: int):
    """All possible trajectories as tuples of booleans, with their probabilities."""
    for path in itertools.product((True, False), repeat=answers):
        distribution = p0 if path[0] else 1 - p0
        for now, then in itertools.pairwise(path):
            flip = p_ci if now else p_ic
            distribution *= flip if now != then else 1 - flip
        if distribution:
            yield path, distribution


@pytest.fixture(scope="module")
def enumerated() -> dict[str, np.ndarray]:
    """What the paths of ROUNDS + 1 answers say of every chain of the grid, as floats."""
    answers = ROUNDS + 1
    shape = (len(GRID), answers + 1)
    first, count = (np.full(shape, Fraction(0)) for _ in range(2))
    for i, point in enumerate(GRID):
        for path, distribution in paths(*point, answers):
            first[i, path.index(True) if any(path) else answers] += distribution
            count[i, sum(path)] += distribution
    values = np.arange(answers + 1)
    mean = (count * values).sum(1)
    exact = {
        "first": first[:, :answers],
        "verified": np.cumsum(first[:, :answers], axis=1),
        "count": count,
        "mean": mean,
        "variance": (count * values**2).sum(1) - mean**2,
        "win": count[:, values > answers / 2].sum(1),
        "tie": count[:, answers // 2],
    }
    return {name: value.astype(float) for name, value in exact.items()}


def all_distributions(chain: TwoStateChain) -> dict[str, jax.Array]:
    k = np.arange(ROUNDS + 1).reshape(-1, *(1 for _ in chain.shape))
    majority = distributions.majority_accuracy(chain, ROUNDS)
    return {
        "first": jnp.moveaxis(distributions.first_correct_pmf(chain, k), 0, -1),
        "verified": jnp.moveaxis(distributions.verified_accuracy(chain, k), 0, -1),
        "count": distributions.correct_count_pmf(chain, ROUNDS),
        "mean": distributions.correct_count_mean(chain, ROUNDS),
        "variance": distributions.correct_count_variance(chain, ROUNDS),
        "win": majority.win,
        "tie": majority.tie,
    }


@pytest.mark.parametrize(
    ("precision", "tolerance", "transformed"),
    [
        (False, 4e-7, jax.jit(all_distributions)),
        (True, 2e-15, jax.jit(jax.vmap(all_distributions))),
    ],
    ids=["float32 at once", "float64 one by one"],
)
def test_all_paths_enumerated_give_every_distribution(
    enumerated, precision, tolerance, transformed
):
    with jax.enable_x64(precision):
        computed = transformed(batch(GRID))
    for name, exact in enumerated.items():
        # Next to r = -1 and 1 the inputs' rounding to float32 decides, not ours.
        np.testing.assert_allclose(computed[name], exact, rtol=0, atol=8 * tolerance, err_msg=name)
        np.testing.assert_allclose(
            computed[name][:-2], exact[:-2], rtol=0, atol=4 * tolerance, err_msg=name
        )


def test_stays_of_enumerated_paths_are_geometric(x64):
    for p_ic, p_ci in ((Fraction(3, 10), Fraction(1, 5)), (Fraction(1), Fraction(7, 10))):
        for start, leave in ((1, p_ci), (0, p_ic)):
            stay = [Fraction(0)] * (ROUNDS + 2)
            for path, distribution in paths(Fraction(start), p_ic, p_ci, ROUNDS + 1):
                stay[len(list(next(itertools.groupby(path))[1]))] += distribution
            # The stay of all answers may go on, so it is left out.
            computed = distributions.sojourn_pmf(float(leave), np.arange(1, ROUNDS + 1))
            np.testing.assert_allclose(computed, [float(s) for s in stay[1:-1]], atol=1e-15)


def test_means_of_waiting_times_and_their_edges(x64):
    chain = batch([(0.25, 0.125, 0.5), (1.0, 0.125, 0.0), (0.5, 0.0, 1.0), (1.0, 0.0, 0.25)])
    np.testing.assert_allclose(distributions.mean_first_correct(chain), [6.0, 0.0, np.inf, 0.0])
    stays = distributions.mean_sojourns(chain)
    np.testing.assert_allclose(stays.correct, [2.0, np.inf, 1.0, 4.0])
    np.testing.assert_allclose(stays.incorrect, [8.0, 8.0, np.inf, np.inf])
    k = np.arange(2000)
    waits = np.asarray(distributions.first_correct_pmf(TwoStateChain(0.25, 0.125, 0.5), k))
    assert waits.sum() == pytest.approx(1)
    assert k @ waits == pytest.approx(6.0)
    lengths = np.asarray(distributions.sojourn_pmf(np.array([[0.125], [0.0], [1.0]]), k + 1))
    assert (k + 1) @ lengths[0] == pytest.approx(8.0)
    assert not lengths[1].any()
    np.testing.assert_array_equal(lengths[2], k == 0)


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 3e-6), (True, 1e-14)])
def test_first_success_is_accurate_relative_to_its_own_size(precision, tolerance):
    # 1 - (1 - p0)(1 - p_ic)^k, computed as it stands, would lose all digits here.
    with jax.enable_x64(precision):
        p0, p_ic, k = 1e-12, 1e-10, 500
        chain = TwoStateChain(p0, p_ic, 0.5)
        exact = -math.expm1(math.log1p(-p0) + k * math.log1p(-p_ic))
        assert float(distributions.verified_accuracy(chain, k)) == pytest.approx(
            exact, rel=tolerance
        )
        tail = distributions.first_correct_pmf(TwoStateChain(0.5, 0.25, 0.5), 201)
        assert float(tail) == pytest.approx(0.125 * 0.75**200, rel=30 * tolerance)
        assert (
            float(distributions.verified_accuracy(TwoStateChain(0.5, 0.25, 1.0), UNBOUNDED)) == 1.0
        )


@hypothesis_settings
@given(chains, st.integers(0, 30))
def test_verified_accuracy_sums_the_distribution_of_the_first_success_and_bounds_the_accuracy(
    point, k
):
    with jax.enable_x64(True):
        chain, rounds = TwoStateChain(*point), np.arange(31)
        total = float(np.cumsum(distributions.first_correct_pmf(chain, rounds))[k])
        verified = float(distributions.verified_accuracy(chain, k))
        accuracy = float(theory.accuracy_after(chain, k))
    assert verified == pytest.approx(total, abs=1e-14)
    assert accuracy - 1e-15 <= verified <= 1


@hypothesis_settings
@given(chains)
def test_moments_are_those_of_the_distribution_and_the_mean_is_the_sum_of_the_curve(point):
    with jax.enable_x64(True):
        chain, rounds = TwoStateChain(*point), 24
        distribution = np.asarray(distributions.correct_count_pmf(chain, rounds))
        mean = float(distributions.correct_count_mean(chain, rounds))
        variance = float(distributions.correct_count_variance(chain, rounds))
        curve = np.asarray(theory.accuracy_curve(chain, rounds))
    count = np.arange(distribution.size)
    assert distribution.min() >= 0
    assert distribution.sum() == pytest.approx(1, abs=1e-14)
    assert mean == pytest.approx(curve.sum(), rel=1e-13, abs=1e-13)
    assert mean == pytest.approx(distribution @ count, rel=1e-13, abs=1e-13)
    assert variance == pytest.approx(distribution @ (count - mean) ** 2, rel=1e-12, abs=1e-13)


@hypothesis_settings
@given(chains, st.integers(0, 3))
def test_swapping_right_and_wrong_mirrors_count_and_majority(point, half):
    p0, p_ic, p_ci = point
    rounds = 9 + half % 2
    with jax.enable_x64(True):
        chain, mirrored = TwoStateChain(p0, p_ic, p_ci), TwoStateChain(1 - p0, p_ci, p_ic)
        distribution = distributions.correct_count_pmf(chain, rounds)
        np.testing.assert_allclose(
            distribution,
            distributions.correct_count_pmf(mirrored, rounds)[::-1],
            rtol=0,
            atol=1e-14,
        )
        variances = [
            float(distributions.correct_count_variance(c, rounds)) for c in (chain, mirrored)
        ]
        ours, theirs = (distributions.majority_accuracy(c, rounds) for c in (chain, mirrored))
    assert variances[0] == pytest.approx(variances[1], abs=1e-13)
    assert float(ours.win + theirs.win + ours.tie) == pytest.approx(1, abs=1e-14)
    assert float(ours.tie) == pytest.approx(float(theirs.tie), abs=1e-14)


def classical_moments(p0, p_ic, p_ci, n: int):
    """Mean and variance of the count of n answers by the closed forms, which have poles."""
    gap = p_ic + p_ci
    r, pi = 1 - gap, p_ic / gap
    power, start = r**n, p0 - pi
    geometric = (1 - power) / gap
    at_limit = pi * (1 - pi) * ((1 + r) * n - 2 * r * geometric)
    transient = (1 - 2 * pi) * start * ((1 + r) * geometric - 2 * n * power)
    variance = (at_limit + transient) / gap - (start * geometric) ** 2
    return n * pi + start * geometric, variance


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 2e-6), (True, 4e-15)])
def test_moments_keep_their_digits_where_the_classical_forms_lose_them(precision, tolerance):
    points = [
        (0.25, 2.0**-13, 2.0**-14),
        (0.0, 2.0**-20, 2.0**-12),
        (1.0, 0.5, 2.0**-18),
        (0.75, 0.625, 0.75),
        (0.25, 1 - 2.0**-10, 1 - 2.0**-9),
    ]
    rounds = np.array([0, 1, 6, 1000, 4096, 20001])
    with jax.enable_x64(precision), localcontext(prec=60):
        of_rounds = jax.jit(
            jax.vmap(
                lambda c: (
                    distributions.correct_count_mean(c, rounds),
                    distributions.correct_count_variance(c, rounds),
                )
            )
        )
        means, variances = of_rounds(batch(points))
        for i, j in itertools.product(range(len(points)), range(rounds.size)):
            mean, variance = classical_moments(*map(Decimal, points[i]), int(rounds[j]) + 1)
            assert float(means[i, j]) == pytest.approx(float(mean), rel=tolerance)
            assert float(variances[i, j]) == pytest.approx(
                float(variance), rel=4 * tolerance, abs=tolerance
            )


def test_edge_regimes_of_the_count():
    frozen_alternating = batch([(0.25, 0.0, 0.0), (0.25, 1.0, 1.0)])
    distribution = distributions.correct_count_pmf(frozen_alternating, 3)
    np.testing.assert_array_equal(distribution, [[0.75, 0, 0, 0, 0.25], [0, 0, 1, 0, 0]])
    majority = distributions.majority_accuracy(frozen_alternating, 3)
    np.testing.assert_array_equal(majority, [[0.25, 0], [0, 1]])
    rounds = np.array([[0], [3], [4], [UNBOUNDED]])
    mean = distributions.correct_count_mean(frozen_alternating, rounds)
    exact = [[0.25, 0.25], [1, 2], [1.25, 2.25], [2.0**29, 2.0**30]]
    np.testing.assert_allclose(mean, exact, rtol=1e-6)
    variance = distributions.correct_count_variance(frozen_alternating, rounds)
    exact = 3 / 16 * np.array([[1, 1], [16, 0], [25, 1], [2.0**62, 0]])
    np.testing.assert_allclose(variance, exact, rtol=1e-6)


def test_rounding_drains_nothing_from_a_long_distribution():
    distribution = distributions.correct_count_pmf(
        batch([(0.3, 0.001, 0.2), (0.3, 0.1, 0.1), (0.9, 1e-4, 1e-4)]), 2000
    )
    np.testing.assert_allclose(np.sum(distribution, axis=-1), 1, rtol=1e-5)


def test_time_average_variance_is_the_limit_of_the_exact_variance(x64):
    chain = batch([point for point in GRID if 0 < point[1] + point[2] < 2][:-2])
    answers = 10**6
    scaled = distributions.correct_count_variance(chain, answers - 1) / answers
    np.testing.assert_allclose(distributions.time_average_variance(chain), scaled, atol=1e-4)
    r = theory.eigenvalue(chain)
    pi = theory.stationary_accuracy(chain)
    np.testing.assert_allclose(
        distributions.time_average_variance(chain), pi * (1 - pi) * (1 + r) / (1 - r), rtol=1e-14
    )
    assert float(distributions.time_average_variance(TwoStateChain(0.3, 1.0, 1.0))) == 0
    assert np.isnan(distributions.time_average_variance(TwoStateChain(0.3, 0.0, 0.0)))


def by_enumeration(x):
    """Differentiable oracle of `by_distributions`, from all paths of ROUNDS + 1 answers."""
    right = jnp.array([*itertools.product((True, False), repeat=ROUNDS + 1)])
    distribution = jnp.where(right[:, 0], x[0], 1 - x[0])
    for k in range(ROUNDS):
        now, then = right[:, k], right[:, k + 1]
        keeps = jnp.where(then, 1 - x[2], x[2])
        repairs = jnp.where(then, x[1], 1 - x[1])
        distribution = distribution * jnp.where(now, keeps, repairs)
    count = right.sum(1)
    mean, half = jnp.vdot(distribution, count), (ROUNDS + 1) // 2
    return jnp.stack(
        [
            jnp.vdot(distribution, right.any(1)),
            jnp.vdot(distribution, right[:, -1] & (count == 1)),
            mean,
            jnp.vdot(distribution, count**2) - mean**2,
            jnp.vdot(distribution, count > half),
            jnp.vdot(distribution, count == half),
        ]
    )


def by_distributions(x):
    chain = TwoStateChain(*x)
    return jnp.stack(
        [
            distributions.verified_accuracy(chain, ROUNDS),
            distributions.first_correct_pmf(chain, ROUNDS),
            distributions.correct_count_mean(chain, ROUNDS),
            distributions.correct_count_variance(chain, ROUNDS),
            *distributions.majority_accuracy(chain, ROUNDS),
        ]
    )


@pytest.mark.slow
def test_gradients_are_those_of_the_enumeration_at_every_edge(x64):
    points = jnp.array([[float(x) for x in point] for point in GRID])
    computed = jax.jit(jax.vmap(jax.jacrev(by_distributions)))(points)
    exact = jax.jit(jax.vmap(jax.jacfwd(by_enumeration)))(points)
    np.testing.assert_allclose(computed, exact, rtol=1e-12, atol=1e-12)


def means_and_limits(x):
    chain = TwoStateChain(*x)
    return jnp.stack(
        [
            distributions.mean_first_correct(chain),
            *distributions.mean_sojourns(chain),
            distributions.time_average_variance(chain),
            distributions.sojourn_pmf(x[1], 5),
        ]
    )


def test_gradients_match_finite_differences_and_are_never_nan(x64):
    inner = [(0.3, 0.2, 0.1), (0.3, 0.7, 0.8), (0.3, 0.6, 0.4), (0.6, 0.95, 0.9)]
    # Where a mean is infinite or a limit undefined its slope is not, but it must not be NaN.
    edges = [(0.5, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, 0.0, 1.0), (1.0, 1.0, 0.0)]
    points = jnp.array(inner + edges)
    computed = jax.jit(jax.vmap(jax.jacrev(means_and_limits)))(points)
    assert np.isfinite(computed).all()
    evaluate, points = jax.jit(jax.vmap(means_and_limits)), points[: len(inner)]
    for i in range(3):
        shift = jnp.zeros_like(points).at[:, i].set(1e-5)
        expected = (evaluate(points + shift) - evaluate(points - shift)) / 2e-5
        np.testing.assert_allclose(computed[: len(inner), :, i], expected, rtol=1e-6, atol=1e-6)


def test_shapes_broadcast():
    chain = TwoStateChain(np.array([0.1, 0.5]), 0.4, np.array([[0.0], [0.6], [1.0]]))

    def shape(function, *arguments):
        return jax.eval_shape(function, *arguments).shape

    for function in (
        distributions.verified_accuracy,
        distributions.first_correct_pmf,
        distributions.correct_count_mean,
        distributions.correct_count_variance,
    ):
        assert shape(function, chain, 3) == (3, 2)
        assert shape(function, CHAIN, np.ones((2, 3), int)) == (2, 3)
    assert shape(distributions.mean_first_correct, chain) == (3, 2)
    assert shape(distributions.time_average_variance, chain) == (3, 2)
    assert shape(lambda c: distributions.correct_count_pmf(c, 5), chain) == (3, 2, 7)
    assert shape(distributions.sojourn_pmf, np.full((2, 1), 0.1), np.array([1, 2, 3])) == (2, 3)


CHAIN = TwoStateChain(0.2, 0.1, 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distributions.verified_accuracy(CHAIN, -1), "k is -1"),
        (
            lambda: distributions.first_correct_pmf(CHAIN, np.array([0, -3])),
            r"k\[1\] is -3; .*>= 0",
        ),
        (lambda: distributions.sojourn_pmf(1.5, 1), r"leave is 1\.5; .*\[0, 1\]"),
        (lambda: distributions.sojourn_pmf(np.array([0.5, math.nan]), 1), r"leave\[1\] is nan"),
        (lambda: distributions.sojourn_pmf(0.5, 0), "m is 0; .*>= 1"),
        (lambda: distributions.correct_count_pmf(CHAIN, -1), "rounds is -1"),
        (lambda: distributions.majority_accuracy(CHAIN, -2), "rounds is -2"),
        (lambda: distributions.correct_count_mean(CHAIN, -1), "rounds is -1; .*>= 0"),
        (lambda: distributions.correct_count_variance(CHAIN, np.array([-1])), r"rounds\[0\] is -1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
