"""Monte Carlo of chains against the enumerated distribution of all paths."""

import itertools
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from scipy import stats

from msjax.errors import InputError
from msjax.simulation import functionals
from msjax.simulation.paths import (
    simulate,
    simulate_counts,
    simulate_histogram,
    simulate_joint_counts,
)
from msjax.theory.chain import TwoStateChain, accuracy_curve
from msjax.verify.evidence import FALSE_ALARM

N, ROUNDS = 100_000, 3
POINTS = [(0.3, 0.2, 0.1), (0.9, 0.4, 0.2), (0.1, 0.7, 0.8), (0.5, 0.5, 0.5)]


@pytest.mark.parametrize("point", POINTS)
def test_distribution_of_whole_paths(point):
    paths = np.asarray(simulate(jax.random.key(1), TwoStateChain(*point), N, ROUNDS))
    p0, p_ic, p_ci = point
    for path in itertools.product((True, False), repeat=ROUNDS + 1):
        distribution = p0 if path[0] else 1 - p0
        for now, then in itertools.pairwise(path):
            flip = p_ci if now else p_ic
            distribution *= flip if now != then else 1 - flip
        found = int((paths == np.array(path)).all(1).sum())
        share = FALSE_ALARM / (len(POINTS) * 2 ** (ROUNDS + 1))
        assert stats.binomtest(found, N, distribution).pvalue > share, path


def test_counts_and_joint_counts_are_those_of_the_paths_of_the_same_key():
    chain = TwoStateChain(0.3, 0.2, 0.1)
    paths = np.asarray(simulate(jax.random.key(2), chain, N, ROUNDS)).astype(int)
    assert paths.shape == (N, ROUNDS + 1)
    counts = simulate_counts(jax.random.key(2), chain, N, ROUNDS)
    np.testing.assert_array_equal(counts, paths.sum(0))
    joint = simulate_joint_counts(jax.random.key(2), chain, N, ROUNDS)
    np.testing.assert_array_equal(joint, paths.T @ paths)


def test_certain_events_are_certain():
    alternating = simulate(jax.random.key(3), TwoStateChain(1.0, 1.0, 1.0), N, ROUNDS)
    np.testing.assert_array_equal(alternating, np.tile([True, False, True, False], (N, 1)))
    frozen = np.asarray(simulate(jax.random.key(4), TwoStateChain(0.4, 0.0, 0.0), N, ROUNDS))
    assert (frozen == frozen[:, :1]).all()
    assert not simulate_counts(jax.random.key(5), TwoStateChain(0.0, 0.0, 0.5), N, ROUNDS).any()


def test_zero_rounds_and_one_chain():
    assert simulate_counts(jax.random.key(0), TwoStateChain(1.0, 0.1, 0.1), 1, 0).tolist() == [1]


def test_other_probabilities_do_not_compile_again(compiling_nothing):
    functional = functionals.correct_count(ROUNDS)
    runs = [
        simulate_counts,
        simulate_joint_counts,
        simulate,
        lambda key, chain, n, rounds: simulate_histogram(key, chain, n, rounds, functional),
    ]
    for run in runs:
        run(jax.random.key(0), TwoStateChain(*POINTS[0]), N, ROUNDS)
        with compiling_nothing():
            for seed, point in enumerate(POINTS):
                run(jax.random.key(seed), TwoStateChain(*point), N, ROUNDS)


@pytest.mark.slow
def test_vmap_over_keys_and_chains():
    chains = TwoStateChain(*np.array(POINTS).T)
    keys = jax.random.split(jax.random.key(6), len(POINTS))
    together = jax.vmap(lambda key, chain: simulate_counts(key, chain, N, ROUNDS))(keys, chains)
    alone = [
        simulate_counts(key, TwoStateChain(*point), N, ROUNDS)
        for key, point in zip(keys, POINTS, strict=True)
    ]
    np.testing.assert_array_equal(together, np.stack(alone))


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        simulate_counts(jax.random.key(7), TwoStateChain(0.3, 0.2, 0.1), 64, 3)


@pytest.mark.slow
def test_blocks_hold_the_chains_asked_for():
    """More chains than one block holds, and a number that fills no whole word."""
    chain, n = TwoStateChain(0.3, 0.2, 0.1), 300_007
    paths = np.asarray(simulate(jax.random.key(8), chain, n, 2))
    assert paths.shape == (n, 3)
    assert (paths[:100_000] != paths[150_000:250_000]).any(axis=0).all()
    np.testing.assert_array_equal(simulate_counts(jax.random.key(8), chain, n, 2), paths.sum(0))


def test_one_chain_per_path():
    """Rows of a population: each follows its own distribution."""
    n = 50_001
    kind = np.arange(n) % len(POINTS)
    rows = TwoStateChain(*np.array(POINTS).T[:, kind])
    paths = np.asarray(simulate(jax.random.key(10), rows, n, 4))
    for which, point in enumerate(POINTS):
        own = paths[kind == which]
        expected = np.asarray(accuracy_curve(TwoStateChain(*point), 4))
        for k in range(5):
            found = stats.binomtest(int(own[:, k].sum()), len(own), float(expected[k]))
            assert found.pvalue > FALSE_ALARM / 20


@pytest.mark.parametrize("point", [(0.3, 0.2, 0.1), (2**-11, 2**-14, 1 - 1e-5)])
def test_rows_that_are_alike_follow_the_paths_of_one_chain(point):
    """Also where open coins of several words are gathered, and where two of them meet."""
    n = 2**20
    rows = TwoStateChain(*(np.full(n, p, np.float32) for p in point))
    alike = simulate_joint_counts(jax.random.key(11), TwoStateChain(*point), n, 6)
    np.testing.assert_array_equal(simulate_joint_counts(jax.random.key(11), rows, n, 6), alike)


def test_each_row_has_its_own_probability_down_to_its_last_digits():
    """Coins that are still open after twelve digits, of rows whose probabilities begin alike."""
    n, rounds = 2**20, 15
    p = np.array([2**-13, 2**-12, 3 * 2**-14, 2**-16])
    rows = TwoStateChain(*(p[np.arange(n) % 4].astype(np.float32) for _ in range(2)), np.ones(n))
    # A correct chain always fails, so that it flips: rows are correct on average p / (1 + p).
    counts = [np.asarray(simulate(jax.random.key(13), rows, n, rounds))[i::4] for i in range(4)]
    for paths, own in zip(counts, p, strict=True):
        wrong = np.vstack([np.ones(len(paths), bool), ~paths.T[:-1]])
        flips = int((wrong & paths.T).sum())
        found = stats.binomtest(flips, int(wrong.sum()), float(own))
        assert found.pvalue > FALSE_ALARM / 4, own


@pytest.mark.slow
def test_devices_do_not_change_a_bit():
    """Two and eight devices of another process; the numbers are those of one device here."""
    script = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from msjax.theory.chain import TwoStateChain
from msjax.simulation.functionals import longest_streak
from msjax.simulation.paths import *
key, chain = jax.random.key(12), TwoStateChain(0.3, 0.2, 0.1)
for devices in (2, 8):
    where = jax.devices()[:devices]
    print(np.asarray(simulate_counts(key, chain, 300_007, 2, where)).tolist())
print(np.asarray(simulate_joint_counts(key, chain, 300_007, 2, where)).tolist())
print(np.asarray(simulate_histogram(key, chain, 300_007, 2, longest_streak(2), where)).tolist())
print(np.asarray(simulate(key, chain, 300_007, 2, where)).sum(1).tolist())
rows = TwoStateChain(*(np.linspace(low, 1, 300_007, dtype=np.float32) for low in (0, 0.2, 0.4)))
print(np.asarray(simulate_counts(key, rows, 300_007, 2, where)).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    key, chain = jax.random.key(12), TwoStateChain(0.3, 0.2, 0.1)
    rows = TwoStateChain(*(np.linspace(low, 1, 300_007, dtype=np.float32) for low in (0, 0.2, 0.4)))
    here = [
        *(simulate_counts(key, chain, 300_007, 2) for _ in range(2)),
        simulate_joint_counts(key, chain, 300_007, 2),
        simulate_histogram(key, chain, 300_007, 2, functionals.longest_streak(2)),
        np.asarray(simulate(key, chain, 300_007, 2)).sum(1),
        simulate_counts(key, rows, 300_007, 2),
    ]
    assert done.stdout.splitlines() == [str(np.asarray(x).tolist()) for x in here]


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 2])
def test_every_host_of_a_distributed_run_gets_the_whole_result(hosts):
    script = """
import sys, jax, numpy as np
port, hosts, rank = map(int, sys.argv[1:])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=hosts, process_id=rank)
from msjax.theory.chain import TwoStateChain
from msjax.simulation.paths import simulate_counts
assert len(jax.devices()) == hosts
counts = simulate_counts(jax.random.key(12), TwoStateChain(.3, .2, .1), 300_007, 2)
print(np.asarray(counts).tolist())
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(port), str(hosts), str(rank)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(hosts)
    ]
    printed = [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes]
    here = simulate_counts(jax.random.key(12), TwoStateChain(0.3, 0.2, 0.1), 300_007, 2)
    assert printed == hosts * [str(np.asarray(here).tolist())]


@pytest.mark.parametrize("run", [simulate_counts, simulate_joint_counts, simulate])
@pytest.mark.parametrize(
    ("chain", "n", "rounds", "message"),
    [
        ((0.3, 0.2, 0.1), 0, 3, "n is 0"),
        ((0.3, 0.2, 0.1), 2**31, 3, "n is 2147483648"),
        ((0.3, 0.2, 0.1), 10, -1, "rounds is -1"),
        ((np.array([0.3, 0.4]), 0.2, 0.1), 10, 1, r"chain has shape \(2,\)"),
    ],
)
def test_bad_input_is_named(run, chain, n, rounds, message):
    with pytest.raises(InputError, match=message):
        run(jax.random.key(0), TwoStateChain(*chain), n, rounds)


def test_memory_that_is_not_there_is_refused_with_what_to_lower():
    with pytest.raises(InputError, match="lower n or rounds, or use simulate_counts"):
        simulate(jax.random.key(0), TwoStateChain(0.3, 0.2, 0.1), 2_000_000_000, 5000)
