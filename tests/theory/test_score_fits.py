"""Fits of score distributions: against SciPy, moment equations, symmetries, awkward pools."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from msjax.errors import InputError
from msjax.theory import score_fits as fits
from msjax.theory.best_of_n import TruncatedNormal, samples_to_reach

NODES, WEIGHTS = (
    (x + y) / 2 for x, y in zip(np.polynomial.legendre.leggauss(60), (1, 0), strict=True)
)
hypothesis_settings = settings(max_examples=60, deadline=None, derandomize=True)
# One shape, so that each function is compiled once.
pools = st.lists(
    st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32)), min_size=6, max_size=6
)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def log_likelihood(mu, sigma, scores) -> float:
    """Of a truncated normal, its mass integrated where the density is above rounding."""
    top = min(max(mu, 0.0), 1.0)
    reach = min(9 * sigma, 45 * sigma**2 / max(abs(top - mu), 1e-12))
    low, high = max(0.0, top - reach), min(1.0, top + reach)
    s = low + (high - low) * NODES

    def relative(s):
        return ((top - mu) ** 2 - (s - mu) ** 2) / (2 * sigma**2)

    mass = (high - low) * np.sum(WEIGHTS * np.exp(relative(s)))
    return float(np.sum(relative(scores)) - len(scores) * np.log(mass))


def log_posterior(mu, sigma, scores, prior) -> float:
    away = (mu - prior[0]) ** 2 + (sigma - prior[1]) ** 2
    return log_likelihood(mu, sigma, scores) - away / (2 * fits.PRIOR_DEVIATION**2)


def scipy_optimum(objective, start) -> tuple[np.ndarray, float]:
    """The reference's method: L-BFGS-B with mu free and sigma >= 1e-6."""
    found = optimize.minimize(
        lambda x: -objective(*x), start, method="L-BFGS-B", bounds=[(None, None), (1e-6, None)]
    )
    return found.x, -float(found.fun)


def scattered_pools(count: int, size: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mu, sigma = random.uniform(0.3, 1.1, (count, 1)), random.uniform(0.03, 0.25, (count, 1))
    low, high = stats.norm.cdf(-mu / sigma), stats.norm.cdf((1 - mu) / sigma)
    u = random.uniform(size=(count, size))
    return np.clip(mu + sigma * stats.norm.ppf(low + u * (high - low)), 0, 1)


@functools.cache
def fitted(dtype=np.float32):
    scores = scattered_pools(24, 16).astype(np.float32)
    with jax.enable_x64(dtype == np.float64):
        return scores, fits.fit_truncated_normal(fits.score_statistics(scores.astype(dtype)))


@pytest.mark.slow
def test_likelihoods_reach_those_of_the_per_problem_optimiser() -> None:
    scores, fit = fitted()
    compared = 0
    for pool, mu, sigma, degenerate in zip(
        scores.astype(float),
        fit.distribution.mu,
        fit.distribution.sigma,
        fit.degenerate,
        strict=True,
    ):
        objective = functools.partial(log_likelihood, scores=pool)
        at, best = scipy_optimum(objective, (pool.mean(), pool.std()))
        ours = objective(float(mu), float(sigma))
        # At the bound of sigma at most .00125 nats per score are left (docs/theory.md D4).
        assert ours >= best - (0.00125 * len(pool) if degenerate else 1e-4)
        if not degenerate and sigma < 0.3 and ours < best + 1e-6:
            np.testing.assert_allclose((mu, sigma), at, rtol=0.02)
            compared += 1
    assert compared >= 10


def test_posterior_modes_reach_those_of_the_per_problem_optimiser() -> None:
    scores = scattered_pools(10, 6, seed=1).astype(np.float32)
    prior = (0.6, 0.15)
    distribution = fits.fit_truncated_normal_to_prior(
        fits.score_statistics(scores), TruncatedNormal(*prior)
    )
    for pool, mu, sigma in zip(
        scores.astype(float), distribution.mu, distribution.sigma, strict=True
    ):
        objective = functools.partial(log_posterior, scores=pool, prior=prior)
        _, best = scipy_optimum(objective, prior)
        assert objective(float(mu), float(sigma)) >= best - 1e-4


def test_moments_of_the_fit_are_those_of_the_scores(x64) -> None:
    scores, fit = fitted(np.float64)
    kept = ~np.asarray(fit.degenerate) & (np.asarray(fit.distribution.sigma) < 1)
    assert kept.sum() >= 12
    mu, sigma = (
        np.asarray(fit.distribution.mu)[kept, None],
        np.asarray(fit.distribution.sigma)[kept, None],
    )
    density = WEIGHTS * np.exp(-((NODES - mu) ** 2) / (2 * sigma**2))
    density /= np.sum(density, 1, keepdims=True)
    pools = scores.astype(float)[kept]
    np.testing.assert_allclose(density @ NODES, pools.mean(1), rtol=1e-9)
    np.testing.assert_allclose(density @ NODES**2, (pools**2).mean(1), rtol=1e-9)


def test_posterior_mode_has_no_slope(x64) -> None:
    scores = scattered_pools(10, 5, seed=2)
    prior = (0.5, 0.12)
    distribution = fits.fit_truncated_normal_to_prior(
        fits.score_statistics(scores), TruncatedNormal(*prior)
    )
    for pool, mu, sigma in zip(scores, distribution.mu, distribution.sigma, strict=True):
        at = np.array([mu, sigma])
        slope = optimize.approx_fprime(at, lambda x, p=pool: log_posterior(*x, p, prior), 1e-6)
        assert np.abs(slope * sigma).max() < 1e-3


def needed_of(fit, s_min) -> np.ndarray:
    return np.minimum(samples_to_reach(fit.distribution, s_min, 0.95), 64)


def test_float32_finds_what_float64_finds() -> None:
    _, single = fitted()
    _, double = fitted(np.float64)
    np.testing.assert_array_equal(single.degenerate, double.degenerate)
    for s_min in (0.5, 0.9):
        with jax.enable_x64(True):
            expected = needed_of(double, s_min)
        np.testing.assert_allclose(needed_of(single, s_min), expected, atol=1)


@pytest.mark.study
def test_mirrored_scores_mirror_the_distributions() -> None:
    scores = scattered_pools(40, 8, seed=3).astype(np.float32)
    here, there = (fits.score_statistics(x) for x in (scores, 1 - scores))
    for fit in (fits.fit_truncated_normal, fits.fit_beta):
        one, other = fit(here), fit(there)
        np.testing.assert_array_equal(one.degenerate, other.degenerate)
        kept = ~np.asarray(one.degenerate)
        if fit is fits.fit_beta:
            np.testing.assert_allclose(
                one.distribution.a[kept], other.distribution.b[kept], rtol=1e-3
            )
            np.testing.assert_allclose(
                one.distribution.b[kept], other.distribution.a[kept], rtol=1e-3
            )
            continue
        kept &= np.asarray(one.distribution.sigma) < 0.4
        np.testing.assert_allclose(
            one.distribution.mu[kept], 1 - other.distribution.mu[kept], atol=5e-3
        )
        np.testing.assert_allclose(
            one.distribution.sigma[kept], other.distribution.sigma[kept], rtol=5e-3
        )


@pytest.mark.study
def test_the_prior_gives_way_as_scores_come_in() -> None:
    prior = TruncatedNormal(0.4, 0.2)
    nothing = fits.fit_truncated_normal_to_prior(fits.no_scores(), prior)
    assert (nothing.mu, nothing.sigma) == (prior.mu, prior.sigma)
    once = fits.score_statistics(np.array([0.62, 0.7, 0.75, 0.55, 0.9, 0.8], np.float32))
    # The same mean and variance from ever more scores.
    counts = jnp.array([1, 16, 10**3, 10**6], jnp.int32)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, 4), once)
    many = many._replace(number=counts, squares=counts * (once.squares / once.number))
    distribution, target = (
        fits.fit_truncated_normal_to_prior(many, prior),
        fits.fit_truncated_normal(once),
    )
    gap = np.abs(distribution.mu - target.distribution.mu)
    assert np.all(np.diff(gap) < 0)
    np.testing.assert_allclose(distribution.mu[-1], target.distribution.mu, atol=1e-3)
    np.testing.assert_allclose(distribution.sigma[-1], target.distribution.sigma, rtol=5e-3)


@pytest.mark.parametrize(
    ("scores", "degenerate"),
    [
        ([0.0] * 6, True),
        ([1.0] * 6, True),
        ([0.7] * 6, True),
        ([0.0, 1.0] * 3, True),
        ([1.0] * 5 + [0.0], True),
        (1 - stats.expon.ppf(np.linspace(0.05, 0.98, 40), scale=0.05), False),
        (1 - 0.05 * stats.expon.ppf(np.linspace(0.05, 0.98, 40)) ** 1.5, True),
        (np.linspace(0, 1, 9), True),
        (np.linspace(0.2, 0.8, 9), False),
        ([0.7, np.nan, np.nan], True),
        ([np.nan] * 3, True),
    ],
)
def test_fits_without_a_maximum_are_flagged_and_bounded(scores, degenerate) -> None:
    fit = fits.fit_truncated_normal(fits.score_statistics(np.array(scores, np.float32)))
    assert bool(fit.degenerate) == degenerate
    assert fits.RESOLUTION / 2 < fit.distribution.sigma <= fits.LARGEST_SIGMA * (1 + 1e-5)
    assert abs(fit.distribution.mu) < 1.1 * fits.LARGEST_SIGMA**2 / fits.RESOLUTION


def test_scores_at_an_end_give_the_exponential_distribution() -> None:
    scores = (1 - 0.05 * stats.expon.ppf(np.linspace(0.05, 0.98, 40)) ** 1.5).astype(np.float32)
    fit = fits.fit_truncated_normal(fits.score_statistics(scores))
    rate = (float(fit.distribution.mu) - 1) / float(fit.distribution.sigma) ** 2
    assert rate == pytest.approx(1 / np.mean(1 - scores), rel=0.01)


def test_beta_equals_scipy() -> None:
    random = np.random.default_rng(5)
    shapes = random.uniform(0.5, 20, (15, 2))
    scores = random.beta(*shapes.T[..., None], (15, 40)).astype(np.float32)
    fit = fits.fit_beta(fits.score_statistics(scores))
    assert not np.any(fit.degenerate)
    for pool, a, b in zip(
        scores.astype(float), fit.distribution.a, fit.distribution.b, strict=True
    ):
        clipped = np.clip(pool, fits.RESOLUTION, 1 - fits.RESOLUTION)
        expected = stats.beta.fit(clipped, floc=0, fscale=1)[:2]
        np.testing.assert_allclose((a, b), expected, rtol=2e-3)


@pytest.mark.slow
def test_beta_distribution_function_and_samples() -> None:
    a, b, s = (np.array(x, np.float32) for x in ([2.0, 30, 0.5], [5.0, 2, 0.5], [0.2, 0.99, 0.9]))
    distribution = fits.BetaScores(jnp.asarray(a), jnp.asarray(b))
    log_cdf = np.log(special.betainc(a.astype(float), b.astype(float), s.astype(float)))
    np.testing.assert_allclose(fits.beta_score_log_cdf(distribution, s), log_cdf, rtol=2e-5)
    np.testing.assert_array_equal(fits.beta_score_log_cdf(distribution, 1.0), np.zeros(3))
    needed = fits.beta_samples_to_reach(distribution, s, 0.95)
    np.testing.assert_array_equal(needed, np.ceil(np.log(0.05) / log_cdf))
    # Rarely exceeded (F near 1) takes many samples, nearly always exceeded takes one.
    easy, hard = fits.beta_samples_to_reach(
        fits.BetaScores(a[:1], b[:1]), np.array([0.001, 0.95]), 0.95
    )
    assert easy == 1 and hard > 1000


@pytest.mark.parametrize("scores", [[0.7] * 6, [1.0] * 6, [0.0] * 6, [0.3], [np.nan]])
def test_beta_without_a_maximum_is_flagged(scores) -> None:
    fit = fits.fit_beta(fits.score_statistics(np.array(scores, np.float32)))
    assert bool(fit.degenerate)
    assert 0 < fit.distribution.a + fit.distribution.b <= 1.01 * fits.LARGEST_CONCENTRATION


def running(scores) -> fits.ScoreStatistics:
    def add(state, score):
        return fits.add_score(state, score), None

    return jax.lax.scan(add, fits.no_scores(), jnp.asarray(scores, jnp.float32))[0]


@hypothesis_settings
@given(pools)
def test_every_pool_of_scores_has_finite_fits_and_likelihoods_near_the_best(scores) -> None:
    batch = fits.score_statistics(np.array(scores, np.float32))
    one_by_one = jax.jit(running)(np.array(scores, np.float32))
    for x, y in zip(batch, one_by_one, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    fit, beta = fits.fit_truncated_normal(batch), fits.fit_beta(batch)
    mode = fits.fit_truncated_normal_to_prior(batch, TruncatedNormal(0.5, 0.1))
    for distribution in (fit.distribution, mode, beta.distribution):
        assert all(np.isfinite(x) for x in jax.tree.leaves(distribution))
    assert (
        fit.distribution.sigma > 0
        and mode.sigma > 0
        and beta.distribution.a > 0
        and beta.distribution.b > 0
    )
    needed = samples_to_reach(fit.distribution, 0.9, 0.95)
    assert needed >= 1
    if not fit.degenerate:
        # No distribution nearby is better.
        pool, (mu, sigma) = (
            np.array(scores),
            (float(fit.distribution.mu), float(fit.distribution.sigma)),
        )
        best = log_likelihood(mu, sigma, pool)
        for factor in (0.8, 0.95, 1.05, 1.25):
            assert log_likelihood(mu, sigma * factor, pool) <= best + 1e-3
            assert log_likelihood(0.5 + (mu - 0.5) * factor, sigma, pool) <= best + 1e-3


@pytest.mark.study
def test_any_shape_and_vmap_give_the_same() -> None:
    scores = scattered_pools(12, 7, seed=6).astype(np.float32).reshape(3, 4, 7)
    flat = fits.fit_truncated_normal(fits.score_statistics(scores.reshape(12, 7)))
    shaped = fits.fit_truncated_normal(fits.score_statistics(scores))
    mapped = jax.vmap(jax.vmap(fits.fit_truncated_normal))(fits.score_statistics(scores))
    for fit in (shaped, mapped):
        assert fit.distribution.shape == (3, 4)
        np.testing.assert_allclose(
            fit.distribution.sigma.ravel(), flat.distribution.sigma, rtol=1e-4
        )


def test_scores_outside_the_unit_interval_are_named() -> None:
    with pytest.raises(InputError, match=r"scores\[0, 1\] is 1.5"):
        fits.score_statistics(np.array([[0.2, 1.5]]))
    with pytest.raises(InputError, match="s_min is 2.0"):
        fits.beta_samples_to_reach(fits.BetaScores(jnp.ones(2), jnp.ones(2)), 2.0, 0.9)
