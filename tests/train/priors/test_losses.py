"""Evidence of predicted priors: special functions, quadrature, the distributions of probability."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.special import betaln

from msjax.theory.score_fits import fit_truncated_normal, score_statistics
from msjax.train.priors.losses import (
    BetaPrior,
    ScorePrior,
    beta_binomial_log_evidence,
    distribution_grid,
    distribution_log_prior,
    expected_distribution,
    score_log_evidence,
)

GRID = distribution_grid(40)
PRIORS = [(0.5, 0.04, 5.0), (0.95, 0.004, 3.0), (0.2, 0.02, 12.0), (0.7, 0.15, 0.6)]


def prior(mean, variance, weight):
    return ScorePrior(*(jnp.float32(x) for x in (mean, variance, weight)))


def evidence_in_float64(mean, icc, yes, no):
    a, b = mean * (1 - icc) / icc, (1 - mean) * (1 - icc) / icc
    return betaln(a + yes, b + no) - betaln(a, b)


def test_beta_binomial_and_its_gradient():
    cases = np.array(
        [
            (mean, icc, *counts)
            for mean in (0.02, 0.4, 0.9)
            for icc in (0.01, 0.3, 0.95)
            for counts in ((0, 0), (1, 0), (0, 3), (2, 5), (7, 7))
        ]
    )
    mean, icc, yes, no = cases.T

    def found(mean, icc, yes, no):
        return beta_binomial_log_evidence(BetaPrior(mean, icc), yes, no, 14)

    both = jax.jit(jax.vmap(jax.value_and_grad(found, (0, 1))))
    counts = (jnp.asarray(x, jnp.int32) for x in (yes, no))
    values, slopes = both(jnp.float32(mean), jnp.float32(icc), *counts)
    np.testing.assert_allclose(values, evidence_in_float64(mean, icc, yes, no), 1e-4, 2e-5)
    for slope, (dm, di) in zip(slopes, ((1e-6, 0), (0, 1e-6)), strict=True):
        above = evidence_in_float64(mean + dm, icc + di, yes, no)
        below = evidence_in_float64(mean - dm, icc - di, yes, no)
        np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=2e-3, atol=2e-3)


def test_beta_binomial_by_hand():
    # Uniform prior: mean 1/2, icc 1/3. P(two successes) = 1/3, P(a success, then a failure) = 1/6.
    uniform = BetaPrior(jnp.float32(0.5), jnp.float32(1 / 3))
    assert np.exp(beta_binomial_log_evidence(uniform, 2, 0, 4)) == pytest.approx(1 / 3, rel=1e-6)
    assert np.exp(beta_binomial_log_evidence(uniform, 1, 1, 4)) == pytest.approx(1 / 6, rel=1e-6)
    assert float(uniform.strength) == pytest.approx(2)


@pytest.mark.parametrize("parameters", PRIORS)
def test_the_density_of_a_score_integrates_to_one(parameters):
    # sin^2 puts nodes where densities are steep.
    angle = np.linspace(0, np.pi / 2, 2001)
    s = np.sin(angle) ** 2
    statistics = jax.vmap(score_statistics)(jnp.asarray(s, jnp.float32)[:, None])
    density = jax.jit(jax.vmap(lambda x: score_log_evidence(prior(*parameters), x, GRID)))(
        statistics
    )
    assert trapezoid(np.exp(density) * np.sin(2 * angle), angle) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("parameters", PRIORS)
def test_scores_may_be_seen_one_after_the_other(parameters):
    mean, variance, weight = parameters
    scores = np.array([0.3, 0.8, 0.75, 0.9], np.float32)
    evidence = jax.jit(lambda prior, seen: score_log_evidence(prior, seen, GRID))
    whole = evidence(prior(*parameters), score_statistics(scores))
    steps = 0.0
    for s in scores.astype(float):
        one = score_statistics(np.array([s], np.float32))
        steps += evidence(prior(mean, variance, weight), one)
        # The prior plus one score is the prior of one more score.
        second = (weight * (variance + mean**2) + s**2) / (weight + 1)
        mean, weight = (weight * mean + s) / (weight + 1), weight + 1
        variance = second - mean**2
    assert float(whole) == pytest.approx(float(steps), abs=5e-3)


def test_evidence_is_an_integral_over_distributions():
    """Against a plain sum over slopes at 1/2 and curvatures, with moments on a grid of scores."""
    mean, variance, weight = 0.6, 0.05, 4.0
    scores = np.array([0.5, 0.62, 0.8, 0.55])
    slopes, curvatures = np.linspace(-200, 200, 201), np.linspace(0.5, 600, 300)
    s = np.linspace(0, 1, 301) - 0.5
    before = after = -np.inf
    for b in curvatures:
        exponent = slopes[:, None] * s - b / 2 * s**2
        top = exponent.max(axis=1)
        log_mass = top + np.log(trapezoid(np.exp(exponent - top[:, None]), s, axis=1))
        d = mean - 0.5
        alone = weight * (slopes * d - b / 2 * (d**2 + variance) - log_mass)
        x = scores[:, None] - 0.5
        seen = (slopes * x - b / 2 * x**2 - log_mass).sum(axis=0)
        before = np.logaddexp(before, np.logaddexp.reduce(alone))
        after = np.logaddexp(after, np.logaddexp.reduce(alone + seen))
    found = score_log_evidence(
        prior(mean, variance, weight), score_statistics(scores.astype(np.float32)), GRID
    )
    assert float(found) == pytest.approx(after - before, abs=0.01)


def test_the_mode_is_the_fit_to_predicted_and_seen_scores():
    predicted, seen = np.array([0.4, 0.5, 0.6, 0.7]), np.array([0.7, 0.9, 0.8])
    both = score_statistics(np.concatenate([predicted, seen]).astype(np.float32))
    fit = fit_truncated_normal(both).distribution
    some = score_statistics(seen.astype(np.float32))
    grid = distribution_grid(150)
    density = (
        distribution_log_prior(prior(predicted.mean(), predicted.var(), 4.0), grid) - grid.log_area
    )
    n, away = 3, float(some.mean) - grid.centre
    density += n * (
        grid.slope * away - grid.curvature / 2 * (away**2 + float(some.squares) / n) - grid.log_mass
    )
    best = int(np.argmax(density))
    sigma = grid.curvature[best] ** -0.5
    assert sigma == pytest.approx(float(fit.sigma), rel=0.06)
    assert grid.centre[best] + grid.slope[best] / grid.curvature[best] == pytest.approx(
        float(fit.mu), abs=0.02
    )


def test_the_predicted_mean_is_the_expected_mean():
    # Diaconis and Ylvisaker's theorem; exact but for distributions that are flatter than a normal.
    for mean, variance, weight in [(0.5, 0.02, 6.0), (0.3, 0.01, 10.0)]:
        expected, deviation = expected_distribution(prior(mean, variance, weight), GRID)
        assert float(expected) == pytest.approx(mean, abs=2e-3)
        # The variance predicted has that of the mean in it.
        assert float(deviation) ** 2 < variance


@pytest.mark.study
def test_a_finer_grid_gives_the_same():
    scores = score_statistics(np.array([0.97, 0.99, 0.9, 1.0, 0.98, 0.95], np.float32))
    fine = distribution_grid(200)
    for parameters in PRIORS:
        coarse = float(score_log_evidence(prior(*parameters), scores, GRID))
        assert coarse == pytest.approx(
            float(score_log_evidence(prior(*parameters), scores, fine)), abs=5e-3
        )
