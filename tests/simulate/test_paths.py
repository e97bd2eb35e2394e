"""Monte Carlo of chains against the enumerated law of all paths."""

import itertools

import chex
import jax
import numpy as np
import pytest
from scipy import stats

from msjax.chain import TwoStateChain
from msjax.errors import InputError
from simulate import paths as simulation
from simulate.claims import FALSE_ALARM
from simulate.paths import simulate_counts, simulate_joint_counts, simulate_paths

POINTS = [(0.3, 0.2, 0.1), (0.9, 0.4, 0.2), (0.1, 0.7, 0.8), (0.5, 0.5, 0.5)]


@pytest.mark.parametrize("point", POINTS)
def test_law_of_whole_paths(point):
    n, rounds = 100_000, 3
    paths = np.asarray(simulate_paths(jax.random.key(1), TwoStateChain(*point), n, rounds))
    p0, p_ic, p_ci = point
    for path in itertools.product((True, False), repeat=rounds + 1):
        law = p0 if path[0] else 1 - p0
        for now, then in itertools.pairwise(path):
            flip = p_ci if now else p_ic
            law *= flip if now != then else 1 - flip
        found = int((paths == np.array(path)).all(1).sum())
        share = FALSE_ALARM / (len(POINTS) * 2 ** (rounds + 1))
        assert stats.binomtest(found, n, law).pvalue > share, path


def test_counts_and_joint_counts_are_those_of_the_paths_of_the_same_key():
    chain = TwoStateChain(0.3, 0.2, 0.1)
    paths = np.asarray(simulate_paths(jax.random.key(2), chain, 5000, 6)).astype(int)
    assert paths.shape == (5000, 7)
    counts = simulate_counts(jax.random.key(2), chain, 5000, 6)
    np.testing.assert_array_equal(counts, paths.sum(0))
    joint = simulate_joint_counts(jax.random.key(2), chain, 5000, 6)
    np.testing.assert_array_equal(joint, paths.T @ paths)


def test_certain_events_are_certain():
    n = 5000
    alternating = simulate_paths(jax.random.key(3), TwoStateChain(1.0, 1.0, 1.0), n, 6)
    np.testing.assert_array_equal(
        alternating, np.tile([True, False, True, False, True, False, True], (n, 1))
    )
    frozen = np.asarray(simulate_paths(jax.random.key(4), TwoStateChain(0.4, 0.0, 0.0), n, 6))
    assert (frozen == frozen[:, :1]).all()
    assert not simulate_counts(jax.random.key(5), TwoStateChain(0.0, 0.0, 0.5), n, 6).any()


def test_zero_rounds_and_one_chain():
    assert simulate_counts(jax.random.key(0), TwoStateChain(1.0, 0.1, 0.1), 1, 0).tolist() == [1]


def test_other_probabilities_do_not_compile_again():
    counted = jax.jit(
        chex.assert_max_traces(simulation._counts.__wrapped__, n=1),
        static_argnames=("n_chains", "rounds"),
    )
    for seed, point in enumerate(POINTS):
        counted(jax.random.key(seed), TwoStateChain(*point), n_chains=100, rounds=3)


def test_vmap_over_keys_and_chains():
    chains = TwoStateChain(*np.array(POINTS).T)
    keys = jax.random.split(jax.random.key(6), len(POINTS))
    together = jax.vmap(lambda key, chain: simulate_counts(key, chain, 5000, 6))(keys, chains)
    alone = [
        simulate_counts(key, TwoStateChain(*point), 5000, 6)
        for key, point in zip(keys, POINTS, strict=True)
    ]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        simulate_counts(jax.random.key(7), TwoStateChain(0.3, 0.2, 0.1), 64, 3)


@pytest.mark.parametrize("run", [simulate_counts, simulate_joint_counts, simulate_paths])
@pytest.mark.parametrize(
    ("chain", "n_chains", "rounds", "message"),
    [
        ((0.3, 0.2, 0.1), 0, 3, "n_chains is 0"),
        ((0.3, 0.2, 0.1), 2**31, 3, "n_chains is 2147483648"),
        ((0.3, 0.2, 0.1), 10, -1, "rounds is -1"),
        ((np.array([0.3, 0.4]), 0.2, 0.1), 10, 1, r"chain has shape \(2,\)"),
    ],
)
def test_bad_input_is_named(run, chain, n_chains, rounds, message):
    with pytest.raises(InputError, match=message):
        run(jax.random.key(0), TwoStateChain(*chain), n_chains, rounds)
