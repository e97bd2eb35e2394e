"""Best of n scores: direct integration, rational arithmetic, sampling, gradients."""

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
from msjax.theory import best_of_n as theory
from msjax.theory.best_of_n import TruncatedNormal
from msjax.theory.chain import UNBOUNDED

MEANS = (-50.0, -3.0, -0.2, 0.0, 0.3, 0.5, 0.9, 1.0, 1.2, 13.0, 139.0)
DEVIATIONS = (0.001, 0.02, 0.1, 0.3, 1.0, 30.0)
SCORES = (1e-6, 0.001, 0.1, 0.5, 0.77, 0.99, 0.999999)
LAWS = [*itertools.product(MEANS, DEVIATIONS)]
hypothesis_settings = settings(max_examples=40, deadline=None, derandomize=True)
distributions = st.tuples(st.floats(-60, 150), st.floats(0.01, 100, allow_subnormal=False))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def distribution_batch(points=LAWS) -> TruncatedNormal:
    return TruncatedNormal(*(np.array(x)[:, None] for x in zip(*points, strict=True)))


def panels(mu, sigma, start, end):
    """Composite Gauss-Legendre rule where the density on [start, end] is not negligible.

    Returns nodes, weights and the density at the nodes over that at `top`, the highest point.
    """
    mu, sigma, start, end = (np.longdouble(x) for x in (mu, sigma, start, end))
    top = min(max(mu, start), end)
    reach = min(11 * sigma, 60 * sigma**2 / max(abs(top - mu), np.longdouble(1e-30)))
    edges = np.linspace(max(start, top - reach), min(end, top + reach), 301, dtype=np.longdouble)
    node, weight = np.polynomial.legendre.leggauss(6)
    width = np.diff(edges)[:, None] / 2
    nodes = edges[:-1, None] + width * (node + 1)
    log_density = (top - nodes) * (nodes + top - 2 * mu) / (2 * sigma**2)
    return nodes, width * weight, np.exp(log_density), top


def integrated_log_odds(mu, sigma, s):
    """log(F(s) / (1 - F(s))) from the two integrals of the density."""
    _, below_weights, below, below_top = panels(mu, sigma, 0.0, s)
    _, above_weights, above, above_top = panels(mu, sigma, s, 1.0)
    mu, sigma = np.longdouble(mu), np.longdouble(sigma)
    fall = (above_top - below_top) * (above_top + below_top - 2 * mu) / (2 * sigma**2)
    return fall + np.log(np.sum(below_weights * below)) - np.log(np.sum(above_weights * above))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [(False, 2e-5), (True, 5e-14)])
def test_both_tails_equal_the_integrals_of_the_density_however_small(precision, tolerance):
    with jax.enable_x64(precision):
        scores = distribution_batch()
        s = jnp.array([0.0, *SCORES, 1.0], scores.dtype)[None, :]
        cdf, sf = jax.jit(
            lambda s: (theory.score_log_cdf(scores, s), theory.score_log_sf(scores, s))
        )(s)
        assert cdf.dtype == scores.dtype == (jnp.float64 if precision else jnp.float32)
    np.testing.assert_array_equal(cdf[:, [0, -1]], [[-np.inf, 0.0]] * len(LAWS))
    np.testing.assert_array_equal(sf[:, [0, -1]], [[0.0, -np.inf]] * len(LAWS))
    distributions = zip(scores.mu[:, 0].tolist(), scores.sigma[:, 0].tolist(), strict=True)
    points = itertools.product(distributions, s[0, 1:-1].tolist())
    odds = np.array([integrated_log_odds(mu, sigma, at) for (mu, sigma), at in points])
    for computed, x in ((cdf, odds), (sf, -odds)):
        exact = np.where(x > 0, 0, x) - np.log1p(np.exp(-np.abs(x)))
        computed, exact = np.ravel(computed[:, 1:-1]), exact.astype(float)
        seen = np.abs(exact) > 1e-30
        np.testing.assert_allclose(computed[seen], exact[seen], rtol=tolerance)
        assert np.all(np.abs(computed[~seen]) < 1.1e-30)


def test_scores_that_rounding_puts_outside_are_at_the_end():
    outside = jax.jit(theory.score_log_cdf)(TruncatedNormal(0.8, 0.1), np.array([-1e-9, 1 + 1e-6]))
    np.testing.assert_array_equal(outside, [-np.inf, 0.0])


@hypothesis_settings
@given(distributions, st.floats(0, 1, allow_subnormal=False))
def test_tails_add_to_one_and_mirroring_swaps_them(distribution, s):
    mu, sigma = distribution
    with jax.enable_x64(True):
        s = round(s * 2**20) / 2**20  # so that 1 - s is exact
        scores = TruncatedNormal(mu, sigma)
        cdf, sf = (float(f(scores, s)) for f in (theory.score_log_cdf, theory.score_log_sf))
        assert math.exp(cdf) + math.exp(sf) == pytest.approx(1, abs=1e-14)
        mirrored = float(theory.score_log_cdf(TruncatedNormal(1 - mu, sigma), 1 - s))
        # 1 - mu is not exact: the exponent moves by its rounding.
        assert mirrored == pytest.approx(sf, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("precision", [False, True])
def test_quantile_is_the_first_score_that_reaches_the_probability(precision):
    probabilities = np.sort(np.r_[0, 1e-6, np.random.default_rng(0).uniform(size=60), 1 - 1e-6, 1])
    with jax.enable_x64(precision):
        scores = distribution_batch()

        @jax.jit
        def quantile_and_cdf(probability):
            s = theory.score_quantile(scores, probability)
            around = jnp.stack([s, jnp.nextafter(s, 0.0)])
            return s, jnp.exp(theory.score_log_cdf(scores, around))

        s, (reached, before) = quantile_and_cdf(jnp.array(probabilities[None, :], scores.dtype))
        slack = 32 * float(jnp.finfo(scores.dtype).eps)
    s, reached, before = (np.asarray(x) for x in (s, reached, before))
    assert np.all(np.diff(s, axis=1) >= 0)
    assert np.all(s[:, 0] == 0) and np.all(s[:, -1] == 1)
    assert np.all(reached >= probabilities * (1 - slack) - slack)
    assert np.all(before <= probabilities * (1 + slack) + slack)


def kolmogorov_bound(samples: int, false_alarm: float = 1e-9) -> float:
    """Dvoretzky-Kiefer-Wolfowitz: the empirical distribution is that near."""
    return math.sqrt(math.log(2 / false_alarm) / (2 * samples))


@pytest.mark.slow
def test_samples_and_their_best_follow_their_distributions():
    draws, n = 8_000, 4
    for i, point in enumerate([(0.8, 0.2), (-50.0, 1.0), (13.0, 0.5)]):
        scores = TruncatedNormal(*point)
        key = jax.random.fold_in(jax.random.key(0), i)
        sample = theory.sample_scores(key, scores, (draws, n))
        single, best = np.sort(sample[:, 0]), np.sort(sample.max(1))
        rank = np.arange(1, draws + 1) / draws
        expected = np.exp(theory.score_log_cdf(scores, single))
        assert np.abs(rank - expected).max() < kolmogorov_bound(draws) + 1 / draws
        expected = np.exp(theory.best_score_log_cdf(scores, best, n))
        assert np.abs(rank - expected).max() < kolmogorov_bound(draws) + 1 / draws
        # Hoeffding, at the same false alarm.
        slack = float(best[-1] - best[0]) * kolmogorov_bound(draws)
        expected = float(theory.expected_best_score(scores, n))
        assert expected == pytest.approx(float(best.mean()), abs=slack)
    many = TruncatedNormal(np.array([0.2, 0.8]), 0.1)
    shaped = jax.eval_shape(lambda key: theory.sample_scores(key, many, (3, 2)), key)
    assert shaped.shape == (3, 2)


def test_best_of_n_is_the_power_and_stays_finite_in_log_space(x64):
    scores, n = TruncatedNormal(0.8, 0.2), np.array([1, 3, 10**6])
    single = theory.score_log_cdf(scores, 0.7)
    np.testing.assert_allclose(theory.best_score_log_cdf(scores, 0.7, n), n * single)
    assert float(theory.best_score_log_cdf(TruncatedNormal(139.0, 0.1), 0.5, 7)) < -48_000


def searched_samples(exceedance: Fraction, confidence: Fraction) -> int:
    n, failure = 1, 1 - exceedance
    while failure > 1 - confidence:
        n, failure = n + 1, failure * (1 - exceedance)
    return n


@pytest.mark.parametrize("precision", [False, True])
def test_samples_needed_is_the_smallest_n_found_by_search(precision):
    chances = [Fraction(i, 100) for i in (1, 5, 10, 20, 25, 37, 50, 62, 75, 90, 95, 99)]
    points = list(itertools.product(chances, chances))
    exact = [searched_samples(*point) for point in points]
    exceedance, confidence = (np.array([float(p[i]) for p in points]) for i in (0, 1))
    with jax.enable_x64(precision):
        found = theory.samples_needed(exceedance, confidence)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("precision", [False, True])
def test_a_confidence_met_exactly_in_decimals_needs_no_further_sample(precision):
    tenths = [Fraction(i, 10) for i in range(1, 10)]
    points = [(e, k) for e in tenths for k in range(1, 8) if (1 - e) ** k > Fraction(1, 2000)]
    exceedance = np.array([float(e) for e, _ in points])
    confidence = np.array([float(1 - (1 - e) ** k) for e, k in points])
    with jax.enable_x64(precision):
        found = theory.samples_needed(exceedance, confidence)
        np.testing.assert_array_equal(found, [k for _, k in points])
        more = theory.samples_needed(exceedance, confidence + 1e-3 * (1 - confidence))
        np.testing.assert_array_equal(more, [k + 1 for _, k in points])


def test_a_threshold_rarely_exceeded_needs_many_samples_and_a_low_one_needs_one():
    # F(s_min) near 1 means MANY samples; one public summary of OptScale has it backwards.
    scores = TruncatedNormal(0.5, 0.1)
    assert int(theory.samples_to_reach(scores, 0.8, 0.95)) > 1000
    assert int(theory.samples_to_reach(scores, 0.2, 0.95)) == 1
    needed = theory.samples_to_reach(scores, np.linspace(0, 1, 101), 0.95)
    assert np.all(np.diff(needed) >= 0)
    assert int(needed[0]) == 1 and int(needed[-1]) == UNBOUNDED


def test_samples_needed_at_the_edges():
    assert int(theory.samples_needed(1.0, 0.999)) == 1
    assert int(theory.samples_needed(1.0, 1e-3)) == 1
    assert int(theory.samples_needed(0.0, 0.5)) == UNBOUNDED
    assert int(theory.samples_needed(0.5, 1e-12)) == 1
    assert int(theory.samples_to_reach(TruncatedNormal(0.5, 1e7), 0.9, 0.19)) == 2
    with jax.enable_x64(True):
        assert int(theory.samples_needed(1e-8, 0.95)) == 299_573_226
        assert int(theory.samples_needed(1e-9, 0.95)) == UNBOUNDED  # 2,995,732,273


def test_samples_to_reach_meets_the_confidence_and_one_less_does_not(x64):
    rng = np.random.default_rng(1)
    scores = TruncatedNormal(rng.uniform(-2, 3, 2000), rng.uniform(0.02, 2, 2000))
    s_min, confidence = rng.uniform(0.05, 0.95, 2000), rng.uniform(0.01, 0.999, 2000)
    n = np.asarray(theory.samples_to_reach(scores, s_min, confidence))
    finite = n < UNBOUNDED
    assert finite.mean() > 0.8
    failure = n * np.asarray(theory.score_log_cdf(scores, s_min))
    assert np.all((failure <= np.log1p(-confidence) * (1 - 1e-12)) | ~finite)
    assert np.all((failure * (n - 1) / n > np.log1p(-confidence)) | ~finite)
    exceedance = np.exp(theory.score_log_sf(scores, s_min))
    np.testing.assert_array_equal(n, theory.samples_needed(exceedance, confidence))


def test_samples_to_reach_in_the_far_tail():
    # P(S > s) = exp(-5000 s) nearly; 1 - F is lost to rounding where log F is not.
    scores = TruncatedNormal(-50.0, 0.1)
    with jax.enable_x64(True):
        exact = int(theory.samples_to_reach(scores, 0.004, 0.95))
    assert exact == pytest.approx(math.log(20) * math.exp(20), rel=0.01)
    near = int(theory.samples_to_reach(scores, 0.0036, 0.95))
    assert near == pytest.approx(math.log(20) * math.exp(18), rel=0.01)
    assert int(theory.samples_to_reach(scores, 0.02, 0.95)) == UNBOUNDED
    assert int(theory.samples_to_reach(TruncatedNormal(139.0, 0.1), 0.99, 0.95)) == 1


BEST_LAWS = [
    *itertools.product((-50.0, 0.5, 1.0, 139.0), (0.01, 0.1, 1.0, 30.0)),
    (0.5, 1e7),  # uniform
]
BEST_OF = np.array([1, 2, 3, 64, 10**6, 10**9])


@functools.cache
def integrated_best() -> np.ndarray:
    """Integral of 1 - F^n by six nodes on each of 240 pieces between quantiles of the best."""
    cuts = np.r_[np.log(np.geomspace(1e-18, 0.05, 60)), np.log(np.linspace(0.06, 0.94, 120))]
    log_cdf = np.r_[cuts, np.log1p(-np.geomspace(0.05, 1e-18, 60))] / BEST_OF[:, None, None]
    shape = (BEST_OF.size, len(BEST_LAWS), log_cdf.shape[-1])
    log_odds = np.broadcast_to(log_cdf - np.log(-np.expm1(log_cdf)), shape)
    with jax.enable_x64(True):
        scores = distribution_batch(BEST_LAWS)
        wide = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], shape), scores)
        edges = np.asarray(theory.bisect(wide, jnp.array(log_odds)))
        edges = np.concatenate([np.zeros((*shape[:2], 1)), edges], axis=2)
        node, weight = np.polynomial.legendre.leggauss(6)
        width = np.diff(edges)[..., None] / 2
        at = np.minimum(edges[..., :-1, None] + width * (node + 1), 1)
        log_cdf = theory.score_log_cdf(scores, at.reshape(*shape[:2], -1))
    beaten = -np.expm1(BEST_OF[:, None, None] * np.asarray(log_cdf)).reshape(at.shape)
    return np.sum(beaten * width * weight, (2, 3)).T


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [(False, 2e-6), (True, 1e-12)])
def test_expected_best_score_is_as_accurate_as_it_says(precision, tolerance):
    with jax.enable_x64(precision):
        computed = theory.expected_best_score(distribution_batch(BEST_LAWS), BEST_OF[None, :])
    np.testing.assert_allclose(computed, integrated_best(), rtol=tolerance)
    np.testing.assert_allclose(computed[-1], BEST_OF / (BEST_OF + 1), rtol=tolerance)
    # Each further sample raises the best by less.
    gains = np.diff(computed, axis=1)
    assert np.all(gains >= -tolerance) and np.all(gains[:, 1] <= gains[:, 0] + tolerance)
    for distribution, single in zip(BEST_LAWS, integrated_best()[:, 0], strict=True):
        nodes, weights, density, _ = panels(*distribution, 0.0, 1.0)
        mean = np.sum(nodes * weights * density) / np.sum(weights * density)
        assert single == pytest.approx(float(mean), rel=1e-12)


GRADIENT_POINTS = [
    # mu, sigma, s
    (0.8, 0.2, 0.7),
    (0.8, 0.2, 0.9),
    (0.4, 0.3, 0.4),
    (0.0, 0.5, 0.6),
    (1.0, 0.5, 0.6),
    (1.3, 0.2, 0.95),
    (-3.0, 1.5, 0.2),
    (13.0, 2.0, 0.5),
]


@pytest.mark.slow
def test_gradients_match_finite_differences(x64):
    def all_of(x):
        scores, at = TruncatedNormal(x[0], x[1]), x[2]
        return jnp.stack(
            [
                theory.score_log_cdf(scores, at),
                theory.score_quantile(scores, at),
                theory.expected_best_score(scores, 5),
            ]
        )

    # The points themselves, then each moved in each argument, up and down.
    points, step = np.array(GRADIENT_POINTS), 1e-5
    moves = step * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    both = jax.jacfwd(lambda x: (all_of(x),) * 2, has_aux=True)
    slopes, values = jax.jit(jax.vmap(jax.vmap(both)))(points[:, None, :] + moves[None, :, :])
    slopes, values = np.asarray(slopes), np.asarray(values)
    expected = np.moveaxis((values[:, 1:4] - values[:, 4:]) / (2 * step), 1, 2)
    np.testing.assert_allclose(slopes[:, 0], expected, rtol=2e-5, atol=1e-7)


def test_gradients_at_the_ends_are_the_density_there_and_finite_for_far_distributions():
    def tails(x):
        scores = TruncatedNormal(x[0], x[1])
        return jnp.stack([theory.score_log_cdf(scores, x[2]), theory.score_log_sf(scores, x[2])])

    points = jnp.array([(*distribution, end) for distribution in LAWS for end in (1.0, 0.0)])
    slopes = np.asarray(jax.jit(jax.vmap(jax.jacrev(tails)))(points)).reshape(len(LAWS), 2, 2, 3)
    assert np.all(np.isfinite(slopes))
    assert np.all(slopes[..., :2] == 0)
    ends = np.array([1.0, 0.0])
    for (mu, sigma), slope in zip(LAWS, slopes, strict=True):
        _, weights, density, top = panels(mu, sigma, 0.0, 1.0)
        rise = (top - ends) * (ends + top - 2 * mu) / (2 * sigma**2)
        height = (np.exp(rise) / np.sum(weights * density)).astype(float)
        at_one, at_zero = slope[0, 0, 2], -slope[1, 1, 2]
        np.testing.assert_allclose([at_one, at_zero], height, rtol=2e-5, atol=1e-30)


def test_shapes_broadcast_and_transformations_agree():
    scores = TruncatedNormal(np.array([0.2, 0.8]), np.array([[0.1], [0.2], [2.0]]))
    assert scores.shape == (3, 2)
    single = TruncatedNormal(0.5, 0.2)
    assert theory.score_log_cdf(single, np.full((2, 3), 0.5)).shape == (2, 3)
    assert theory.best_score_log_cdf(single, 0.5, np.arange(1, 4)).shape == (3,)
    assert theory.samples_to_reach(scores, 0.5, 0.9).shape == (3, 2)

    def everything(distribution):
        return {
            "best": theory.best_score_log_cdf(distribution, 0.6, 4),
            "needed": theory.samples_to_reach(distribution, 0.6, 0.9),
        }

    mapped = jax.jit(jax.vmap(jax.vmap(everything)))
    chex.assert_trees_all_close(jax.jit(everything)(scores), mapped(scores), rtol=1e-5)


def test_the_distribution_is_a_pytree_that_may_be_built_from_traced_values():
    at_mean = jax.jit(lambda mu: theory.score_log_cdf(TruncatedNormal(mu, 0.2), mu))(0.5)
    assert float(at_mean) == pytest.approx(math.log(0.5))
    leaves = jax.tree_util.tree_leaves_with_path(TruncatedNormal(1, 2))
    assert [jax.tree_util.keystr(path) for path, _ in leaves] == [".mu", ".sigma"]
    assert TruncatedNormal(1, 2).dtype == jnp.float32


LAW = TruncatedNormal(0.5, 0.2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TruncatedNormal(math.nan, 0.1), "mu is nan; give a finite mean"),
        (lambda: TruncatedNormal(0.5, 0.0), r"sigma is 0\.0"),
        (lambda: TruncatedNormal(0.5, np.array([0.1, -1.0])), r"sigma\[1\] is -1\.0"),
        (lambda: TruncatedNormal(np.ones(2), np.ones(3)), r"'sigma': \(3,\).*broadcast"),
        (lambda: theory.score_log_cdf(LAW, 1.5), r"s is 1\.5; a score must lie in \[0, 1\]"),
        (lambda: theory.score_log_sf(LAW, math.nan), "s is nan"),
        (lambda: theory.score_quantile(LAW, -0.1), r"probability is -0\.1"),
        (
            lambda: theory.sample_scores(jax.random.key(0), distribution_batch(), (3,)),
            r"shape is \(3,\)",
        ),
        (lambda: theory.best_score_log_cdf(LAW, 0.5, 0), "n is 0; give a number of samples >= 1"),
        (lambda: theory.expected_best_score(LAW, -2), "n is -2"),
        (lambda: theory.samples_needed(1.1, 0.9), r"exceedance is 1\.1"),
        (lambda: theory.samples_needed(0.5, 1.0), r"confidence is 1\.0; .* \(0, 1\)"),
        (lambda: theory.samples_needed(0.5, 0.0), r"confidence is 0\.0"),
        (lambda: theory.samples_to_reach(LAW, 1.2, 0.9), r"s_min is 1\.2"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
