"""Ensembles: exactly the distribution of a sum of chains, at any size."""

import itertools
import math
from functools import partial

import jax
import numpy as np
import pytest
from scipy import stats

from msjax.errors import InputError
from msjax.simulation.ensemble import MOST_CHAINS, simulate_ensemble, thin
from msjax.simulation.enumeration import all_paths, path_distribution
from msjax.theory.chain import TwoStateChain, accuracy_curve
from msjax.verify.evidence import FALSE_ALARM

POINTS = [(0.3, 0.2, 0.1), (0.1, 0.7, 0.8), (0.6, 0.02, 0.95)]


def distribution_of_counts(point, n, answers):
    """P(N_0, N_1, ...) of n chains: n-fold convolution of the distribution of one path."""
    distribution = {(0,) * answers: 1.0}
    one = list(zip(all_paths(answers).astype(int), path_distribution(*point, answers), strict=True))
    for _ in range(n):
        longer: dict = {}
        for (counts, mass), (path, share) in itertools.product(distribution.items(), one):
            key = tuple(np.add(counts, path).tolist())
            longer[key] = longer.get(key, 0.0) + mass * share
        distribution = longer
    return distribution


def many(seed, point, n, draws, rounds):
    """`draws` ensembles of n chains."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed), draws)
        return np.asarray(_many(keys, np.array(point), np.float64(n), rounds))


@partial(jax.jit, static_argnames="rounds")
def _many(keys, point, n, rounds):
    return jax.vmap(lambda key: thin(key, point, n, rounds)[0])(keys)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("n", [1, 4])
def test_joint_distribution_of_few_chains_is_the_convolution_of_paths(point, n):
    draws, rounds = 20_000, 2
    found = many(1, point, n, draws, rounds).astype(int)
    distribution = distribution_of_counts(point, n, rounds + 1)
    seen = dict.fromkeys(distribution, 0)
    for row in map(tuple, found.tolist()):
        seen[row] += 1  # a KeyError here is an impossible outcome
    likely = [key for key in distribution if distribution[key] * draws >= 5]
    observed = np.array([seen[key] for key in likely] + [draws - sum(seen[k] for k in likely)])
    expected = (
        np.array([distribution[key] for key in likely] + [1 - sum(distribution[k] for k in likely)])
        * draws
    )
    kept = expected > 1e-9
    assert (observed[~kept] == 0).all()
    assert stats.chisquare(observed[kept], expected[kept]).pvalue > FALSE_ALARM / 12


@pytest.mark.parametrize("n", [40, 1000])
def test_marginal_distribution_by_chi_square(n):
    """Forty and a thousand chains: both samplers of the library, against the exact binomial."""
    draws, point = 20_000, (0.3, 0.2, 0.1)
    found = many(2, point, n, draws, 2).astype(int)
    with jax.enable_x64(True):
        curve = np.asarray(accuracy_curve(TwoStateChain(*point), 2))
    for k in range(3):
        edges = stats.binom.ppf(np.linspace(0, 1, 40)[1:-1], n, curve[k])
        edges = np.unique(np.concatenate([[-1], edges, [n]]))
        observed = np.histogram(found[:, k], edges + 0.5)[0]
        expected = np.diff(stats.binom.cdf(edges, n, curve[k])) * draws
        assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM / 6


@pytest.mark.parametrize("point", POINTS)
def test_moments_of_a_billion_chains(point):
    """Mean, variance and covariance of successive rounds over 20,000 ensembles of 10^9 chains."""
    n, draws, rounds = 10**9, 20_000, 2
    found = many(3, point, n, draws, rounds)
    with jax.enable_x64(True):
        curve = np.asarray(accuracy_curve(TwoStateChain(*point), rounds))
    sd = np.sqrt(n * curve * (1 - curve))
    z = (found - n * curve) / sd
    limit = stats.norm.isf(FALSE_ALARM / 48)
    assert (np.abs(z.mean(0)) < limit / math.sqrt(draws)).all()
    assert (np.abs((z**2).mean(0) - 1) < limit * math.sqrt(2 / draws)).all()
    # Cov(X_k, X_k+1) = r p_k (1 - p_k), hence this correlation of the counts.
    r = 1 - point[1] - point[2]
    expected = r * sd[:-1] / sd[1:]
    assert (np.abs((z[:, :-1] * z[:, 1:]).mean(0) - expected) < limit * math.sqrt(2 / draws)).all()


def test_flows_add_up_and_certain_events_are_certain():
    found = simulate_ensemble(jax.random.key(4), TwoStateChain(0.3, 0.2, 0.1), 10**9, 7)
    assert found.correct.dtype == np.int64
    np.testing.assert_array_equal(np.diff(found.correct), found.repaired - found.broken)
    frozen = simulate_ensemble(jax.random.key(5), TwoStateChain(0.3, 0.0, 0.0), 10**9, 7)
    assert (frozen.correct == frozen.correct[0]).all()
    turning = simulate_ensemble(jax.random.key(6), TwoStateChain(1.0, 1.0, 1.0), 10**9, 7)
    assert turning.correct.tolist() == [10**9, 0] * 4
    assert simulate_ensemble(
        jax.random.key(7), TwoStateChain(1.0, 0, 0), 1, 0
    ).correct.tolist() == [1]


def test_size_and_probabilities_do_not_compile_again(compiling_nothing):
    simulate_ensemble(jax.random.key(0), TwoStateChain(0.3, 0.2, 0.1), 10, 7)
    with compiling_nothing():
        simulate_ensemble(jax.random.key(1), TwoStateChain(0.5, 0.1, 0.9), 10**9, 7)


@pytest.mark.parametrize(
    ("chain", "n", "rounds", "message"),
    [
        ((0.3, 0.2, 0.1), 0, 3, "n is 0"),
        ((0.3, 0.2, 0.1), MOST_CHAINS + 1, 3, "n is 1000000000001"),
        ((0.3, 0.2, 0.1), 10, -1, "rounds is -1"),
        ((np.array([0.3, 0.4]), 0.2, 0.1), 10, 1, r"chain has shape \(2,\)"),
    ],
)
def test_bad_input_is_named(chain, n, rounds, message):
    with pytest.raises(InputError, match=message):
        simulate_ensemble(jax.random.key(0), TwoStateChain(*chain), n, rounds)
