"""The error of taking questions for alike: known integrals, samples, the mixture of the theory."""

import jax
import numpy as np
import pytest
from scipy import integrate

from msjax.decision.heterogeneity import heterogeneity_curve, homogeneity_error
from msjax.errors import InputError
from msjax.theory.chain import TwoStateChain
from msjax.theory.population import Population, beta_population


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def test_a_homogeneous_benchmark_is_one_chain(x64):
    for point in [(0.5, 0.3, 0.1), (0.2, 0.9, 0.8), (0.4, 0.0, 0.0)]:
        alike = Population(TwoStateChain(*(np.full(3, p) for p in point)))
        found = homogeneity_error(alike, 6)
        np.testing.assert_allclose(found.curve, 0, atol=1e-15)
        assert abs(float(found.limit)) < 1e-15


def test_the_pooled_chain_is_right_for_one_round_only(x64):
    chains = TwoStateChain(np.array([0.9, 0.2, 0.5]), np.array([0.1, 0.6, 0.0]), 0.1)
    population = Population(chains, np.array([0.5, 0.25, 0.25]))
    found = homogeneity_error(population, 3)
    curve = np.asarray(chains.p0)[:, None]
    for _ in range(3):
        last = curve[:, -1:]
        move = np.asarray(chains.p_ic)[:, None] * (1 - last) - 0.1 * last
        curve = np.hstack([curve, last + move])
    mean = np.array([0.5, 0.25, 0.25]) @ curve
    right = np.array([0.5, 0.25, 0.25]) * np.asarray(chains.p0)
    wrong = np.array([0.5, 0.25, 0.25]) - right
    p_ic = wrong @ np.asarray(chains.p_ic) / wrong.sum()
    pooled = [mean[0]]
    for _ in range(3):
        pooled.append(pooled[-1] + p_ic * (1 - pooled[-1]) - 0.1 * pooled[-1])
    np.testing.assert_allclose(found.curve, mean - pooled, atol=1e-15)
    np.testing.assert_allclose(found.curve[:2], 0, atol=1e-15)
    assert np.all(np.abs(found.curve[2:]) > 1e-3)


def test_the_mixture_of_the_theory(x64):
    mixture = beta_population((2.0, 1.0), (0.5, 3.0), (0.3, 6.0))
    found = homogeneity_error(mixture, 30)
    # Means 1/7 and 1/21, so the pooled limit is .75; the true one .6947.
    limit = heterogeneity_curve(1 / 7, 1 / 21, 1 / 4.5, 1 / 7.3)
    assert limit == pytest.approx(-0.0553, abs=5e-5)
    # The quadrature of the population, made for polynomials, comes near.
    assert float(found.limit) == pytest.approx(float(limit), abs=3e-3)
    assert np.all(np.diff(found.curve[1:]) < 0)
    assert found.curve[-1] > limit


def test_known_integrals():
    # p_ic uniform (mean 1/2, correlation 1/3), p_ci = c for all: E[pi] = 1 - c log(1 + 1/c).
    for c in (0.01, 0.3, 0.9):
        exact = 1 - c * np.log1p(1 / c) - 0.5 / (0.5 + c)
        assert heterogeneity_curve(0.5, c, 1 / 3, 0.0) == pytest.approx(exact, abs=1e-10)
        # Exchanging the two rates exchanges pi and 1 - pi.
        assert heterogeneity_curve(c, 0.5, 0.0, 1 / 3) == pytest.approx(-exact, abs=1e-10)
    # p_ic ~ Beta(2, 1) and p_ci uniform.
    exact, _ = integrate.quad(lambda x: 2 * x**2 * np.log1p(1 / x), 0, 1, epsabs=1e-13)
    found = heterogeneity_curve(2 / 3, 0.5, 1 / 4, 1 / 3)
    assert found == pytest.approx(exact - (2 / 3) / (2 / 3 + 1 / 2), abs=1e-10)


def test_equal_laws_and_equal_rates_leave_no_error():
    rho = np.array([0.001, 0.1, 0.5, 0.8])
    np.testing.assert_allclose(heterogeneity_curve(0.2, 0.2, rho, rho), 0, atol=1e-10)
    assert heterogeneity_curve(0.3, 0.1, 0.0, 0.0) == pytest.approx(0, abs=1e-15)


def test_a_small_spread_acts_through_the_two_variances():
    m_ic, m_ci, rho = 0.3, 0.1, np.array([[1e-5, 0.0], [0.0, 1e-5], [1e-5, 1e-5]])
    variance = rho * np.array([m_ic * (1 - m_ic), m_ci * (1 - m_ci)])
    expected = (m_ic * variance[:, 1] - m_ci * variance[:, 0]) / (m_ic + m_ci) ** 3
    found = heterogeneity_curve(m_ic, m_ci, rho[:, 0], rho[:, 1])
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert found[2] == pytest.approx(1e-5 * m_ic * m_ci * (m_ic - m_ci) / 0.4**3, rel=1e-3)


@pytest.mark.parametrize("rho", [0.05, 0.4, 0.8])
def test_large_spreads_agree_with_sampling(rho):
    rng = np.random.default_rng(0)
    strength, n = 1 / rho - 1, 400_000
    # Ratios of logarithms of Gamma variates: small ones underflow.
    x, y = (
        np.log(rng.gamma(m * strength + 1, size=n)) + np.log(rng.uniform(size=n)) / (m * strength)
        for m in (0.3, 0.1)
    )
    x, y = (
        log - np.logaddexp(log, np.log(rng.gamma((1 - m) * strength, size=n)))
        for log, m in ((x, 0.3), (y, 0.1))
    )
    pi = 1 / (1 + np.exp(y - x))
    error = 4 * pi.std() / np.sqrt(n)
    assert heterogeneity_curve(0.3, 0.1, rho, rho) == pytest.approx(pi.mean() - 0.75, abs=error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 0.1, 0.1, 0.1), "p_ic is 0.0; a mean rate"),
        ((0.1, 1.0, 0.1, 0.1), "p_ci is 1.0; a mean rate"),
        ((0.1, 0.1, 1.0, 0.1), "correlation_ic is 1.0; give a correlation"),
        ((0.1, 0.1, 0.1, np.array([0.1, np.nan])), r"correlation_ci\[1\] is nan"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        heterogeneity_curve(*arguments)
