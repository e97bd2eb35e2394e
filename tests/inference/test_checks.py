"""The assumption checks: silent under a homogeneous chain, loud otherwise, never silent by lack."""

import collections
import json

import jax
import numpy as np
import pytest
import scipy.stats

from inference.checks import LEVEL, NAMES, check_chain
from simulate.claims.evidence import FALSE_ALARM

DATA_SETS, REPLICATES = 150, 199


def contradictions(datasets, make_counts, censored=0) -> collections.Counter:
    """How many data sets contradict each check, and any of them."""
    found: collections.Counter = collections.Counter()
    for i, states in enumerate(datasets):
        count = make_counts(states, censored=censored)
        checks = check_chain(count, jax.random.key(i), replicates=REPLICATES)
        found.update(check.name for check in checks if check.contradicted)
        found["any"] += any(check.contradicted for check in checks)
    return found


def stop_at_success(states):
    """What an oracle leaves of the runs."""
    seen = np.cumsum(states, axis=1) - states == 0
    return np.where(seen, states, -1)


def stop_when_unchanged(random, states):
    """What a label-free rule leaves that tends to stop once the answer is the same twice."""
    same = states[:, 1:] == states[:, :-1]
    stop = same & (random.random(same.shape) < 0.4)
    over = np.cumsum(stop, axis=1) - stop > 0
    return np.where(np.pad(over, ((0, 0), (1, 0))), -1, states)


@pytest.mark.parametrize("case", ["plenty", "few flips", "oracle", "label-free stop"])
def test_false_alarms_of_a_homogeneous_chain(case, simulate, make_counts):
    random = np.random.default_rng(4)
    settings = {"few flips": (0.8, 0.1, 0.02, 20, 3)}.get(case, (0.5, 0.3, 0.15, 60, 4))
    datasets = [simulate(random, *settings) for _ in range(DATA_SETS)]
    if case == "oracle":
        datasets = [stop_at_success(states) for states in datasets]
    if case == "label-free stop":
        datasets = [stop_when_unchanged(random, states) for states in datasets]
    found = contradictions(datasets, make_counts, censored=int(case == "oracle"))
    test = scipy.stats.binomtest(found["any"], DATA_SETS, LEVEL, alternative="greater")
    assert test.pvalue > FALSE_ALARM, found


@pytest.mark.parametrize("kind", NAMES)
def test_power(kind, simulate, make_counts):
    """Each departure is found in at least 18 of 20 data sets by the check that is named for it."""
    random = np.random.default_rng(8)
    datasets = []
    for _ in range(20):
        if kind == "questions":
            easy = random.random(200) < 0.5
            states = simulate(
                random, 0.5, np.where(easy, 0.6, 0.05), np.where(easy, 0.05, 0.4), 200, 6
            )
        else:
            states = simulate(random, 0.4, 0.3, 0.1, 200, 6)
            for k in range(1, 6):
                before, now = states[:, k - 1], states[:, k]
                if kind == "order":
                    leave = np.where(before == now, 0.1, 0.4)
                else:
                    leave = 0.5 / k**1.5
                states[:, k + 1] = now ^ (random.random(200) < leave)
        datasets.append(states)
    found = contradictions(datasets, make_counts)
    assert found[kind] >= 18, found


def test_power_of_the_rounds_check_under_an_oracle(simulate, make_counts):
    """Questions that differ show as a rate that falls with the round."""
    random = np.random.default_rng(8)
    datasets = [
        stop_at_success(
            simulate(random, 0.4, np.where(random.random(300) < 0.5, 0.6, 0.05), 0.5, 300, 4)
        )
        for _ in range(20)
    ]
    found = contradictions(datasets, make_counts, censored=1)
    assert found["rounds"] >= 18, found
    assert not found["order"] and not found["questions"]


@pytest.mark.parametrize(
    ("states", "censored", "reason"),
    [
        ([[0], [1]], 0, "two rounds"),
        ([[0, 1], [1, 1]], 0, "two rounds"),
        ([[0, 0, 0], [1, 1, 1]], 0, "too few changes"),
        ([[1, -1, -1], [0, 1, -1], [0, 0, 1]], 2, "only I before"),
    ],
)
def test_a_check_that_cannot_be_done_says_so(states, censored, reason, make_counts):
    order = check_chain(make_counts(states, censored=censored), jax.random.key(0))[0]
    assert order.name == "order"
    assert (order.statistic, order.p_value, order.contradicted) == (None, None, None)
    assert order.sentence.startswith("cannot be checked") and reason in order.sentence


def test_the_order_statistic_is_pearsons_chi_square(simulate, make_counts):
    states = simulate(np.random.default_rng(1), 0.5, 0.3, 0.2, 80, 5)
    before, now, following = states[:, :-2], states[:, 1:-1], states[:, 2:]
    expected = 0.0
    for state in (0, 1):
        table = [
            [((now == state) & (before == i) & (following == j)).sum() for j in (0, 1)]
            for i in (0, 1)
        ]
        expected += scipy.stats.chi2_contingency(table, correction=False).statistic
    order = check_chain(make_counts(states), jax.random.key(0))[0]
    assert order.statistic == pytest.approx(expected)
    assert order.p_value == pytest.approx(scipy.stats.chi2.sf(expected, 2), abs=0.05)


@pytest.mark.realdata
def test_ten_rounds_of_gsm8k_are_no_homogeneous_chain(real_data, make_counts):
    path = real_data / "incremental_gsm8k" / "qwen2.5-7b.jsonl"
    lines = path.read_text().splitlines()
    count = make_counts([json.loads(line)["correct"] for line in lines])
    (_, ic), (ci, _) = moves = count.transitions.sum(axis=0)
    exits_i, exits_c = moves.sum(axis=1)
    assert (ci, exits_c, ic, exits_i) == (47, 2314, 211, 1034)
    assert round(ci / exits_c, 3) == 0.020 and round(ic / exits_i, 3) == 0.204
    for check in check_chain(count, jax.random.key(0), replicates=999):
        assert check.contradicted, check.sentence
