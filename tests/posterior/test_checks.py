"""The assumption checks: silent under a homogeneous chain, loud otherwise, never silent by lack."""

import collections
import json

import jax
import numpy as np
import pytest
import scipy.stats

from msjax.data.runs import Runs
from msjax.posterior.checks import CHAIN_NAMES, LEVEL, NAMES, check_chain
from msjax.verify.evidence import FALSE_ALARM

DATA_SETS, REPLICATES = 100, 199


def findings(datasets, make_counts, censored=0) -> collections.Counter:
    """How many data sets contradict each check of the chain, any of them, and independence."""
    found: collections.Counter = collections.Counter()
    for i, states in enumerate(datasets):
        count = make_counts(states, censored=censored)
        order_0, *checks = check_chain(count, jax.random.key(i), replicates=REPLICATES)
        assert not order_0.contradicted
        found["order 0"] += order_0.p_value is not None and order_0.p_value <= LEVEL
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


CASES = {
    # name: p0, p_ic, p_ci, questions, rounds
    "plenty": (0.5, 0.3, 0.15, 60, 6),
    "few flips": (0.8, 0.1, 0.02, 20, 3),
    "oracle": (0.5, 0.3, 0.15, 60, 4),
    "label-free stop": (0.5, 0.3, 0.15, 60, 6),
    "independent answers": (0.2, 0.7, 0.3, 60, 4),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[] if case in ("few flips", "oracle") else pytest.mark.slow)
        for case in CASES
    ],
)
def test_false_alarms(case, simulate, make_counts):
    random = np.random.default_rng(4)
    datasets = [simulate(random, *CASES[case]) for _ in range(DATA_SETS)]
    if case == "oracle":
        datasets = [stop_at_success(states) for states in datasets]
    if case == "label-free stop":
        datasets = [stop_when_unchanged(random, states) for states in datasets]
    found = findings(datasets, make_counts, censored=int(case == "oracle"))
    false = [found["any"]] + [found["order 0"]] * (case == "independent answers")
    for alarms in false:
        test = scipy.stats.binomtest(alarms, DATA_SETS, LEVEL, alternative="greater")
        assert test.pvalue > FALSE_ALARM, found


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
def test_power(kind, simulate, make_counts):
    """Each departure is found in at least 18 of 20 data sets by the check that is named for it."""
    random = np.random.default_rng(8)
    datasets = []
    for _ in range(20):
        states = simulate(random, 0.4, 0.3, 0.1, 200, 6)
        if kind == "questions":
            easy = random.random(200) < 0.5
            states = simulate(
                random, 0.5, np.where(easy, 0.6, 0.05), np.where(easy, 0.05, 0.4), 200, 6
            )
        elif kind != "order 0":
            for k in range(1, 6):
                before, now = states[:, k - 1], states[:, k]
                if kind == "order 2":
                    leave = np.where(before == now, 0.1, 0.4)
                elif kind == "rounds":
                    leave = 0.5 / k**1.5
                else:
                    leave = np.where(states[:, max(k - 2, 0)] == now, 0.1, 0.4)
                states[:, k + 1] = now ^ (random.random(200) < leave)
        datasets.append(states)
    assert findings(datasets, make_counts)[kind] >= 18


@pytest.mark.parametrize("departure", ["second order", "mixture"])
def test_chapman_kolmogorov_sees_more_than_one_departure(departure, simulate, make_counts):
    random = np.random.default_rng(9)
    datasets = []
    for _ in range(20):
        settled = random.random(200) < 0.4
        states = simulate(random, 0.5, np.where(settled, 0, 0.4), np.where(settled, 0, 0.3), 200, 5)
        if departure == "second order":
            for k in range(1, 5):
                leave = np.where(states[:, k - 1] == states[:, k], 0.15, 0.45)
                states[:, k + 1] = states[:, k] ^ (random.random(200) < leave)
        datasets.append(states)
    assert findings(datasets, make_counts)["Chapman-Kolmogorov"] >= 18


def test_power_of_the_rounds_check_under_an_oracle(simulate, make_counts):
    """Questions that differ show as a rate that falls with the round."""
    random = np.random.default_rng(8)
    datasets = [
        stop_at_success(
            simulate(random, 0.4, np.where(random.random(300) < 0.5, 0.6, 0.05), 0.5, 300, 4)
        )
        for _ in range(20)
    ]
    found = findings(datasets, make_counts, censored=1)
    assert found["rounds"] >= 18, found
    assert found["rounds"] == found["any"] and not found["order 0"]


SHORT = [[0, 1], [1, 1]]
STILL = [[0, 0, 0], [1, 1, 1]]
STOPPED = [[1, -1, -1], [0, 1, -1], [0, 0, 1]]


@pytest.mark.parametrize(
    ("name", "states", "censored", "reason"),
    [
        ("order 0", [[0], [1]], 0, "one round"),
        ("order 0", [[0, 0, 0], [1, 0, 0]], 0, "alike"),
        ("order 0", STOPPED, 2, "hide what follows"),
        *((name, [[0], [1]], 0, "two rounds") for name in CHAIN_NAMES),
        *((name, SHORT, 0, "two rounds") for name in CHAIN_NAMES),
        *((name, STILL, 0, "too few changes") for name in CHAIN_NAMES),
        ("order 2", STOPPED, 2, "only I before"),
        ("questions", STOPPED, 2, "look the same"),
        ("Chapman-Kolmogorov", STOPPED, 2, "hide what follows"),
    ],
)
def test_a_check_that_cannot_be_done_says_so(name, states, censored, reason, make_counts):
    count = make_counts(states, censored=censored)
    checks = check_chain(count, jax.random.key(0), replicates=9)
    assert tuple(check.name for check in checks) == NAMES
    check = checks[NAMES.index(name)]
    assert (check.statistic, check.p_value, check.contradicted) == (None, None, None)
    assert check.sentence.startswith("cannot be checked") and reason in check.sentence


@pytest.fixture(scope="module")
def ordinary(simulate, make_counts):
    """Ordinary runs and their checks by name."""
    states = simulate(np.random.default_rng(1), 0.5, 0.3, 0.2, 80, 7)
    checks = check_chain(make_counts(states), jax.random.key(0))
    return states, {check.name: check for check in checks}


def test_the_order_statistics_are_pearsons_chi_square(ordinary):
    states, checks = ordinary
    table = [[((states[:, :-1] == i) & (states[:, 1:] == j)).sum() for j in (0, 1)] for i in (0, 1)]
    expected = scipy.stats.chi2_contingency(table, correction=False).statistic
    assert checks["order 0"].statistic == pytest.approx(expected)

    before, now, following = states[:, :-2], states[:, 1:-1], states[:, 2:]
    expected = 0.0
    for state in (0, 1):
        table = [
            [((now == state) & (before == i) & (following == j)).sum() for j in (0, 1)]
            for i in (0, 1)
        ]
        expected += scipy.stats.chi2_contingency(table, correction=False).statistic
    order_2 = checks["order 2"]
    assert order_2.sentence.endswith(", level 0.0125")  # as rounded levels cannot be compared with
    assert order_2.statistic == pytest.approx(expected)
    assert order_2.p_value == pytest.approx(scipy.stats.chi2.sf(expected, 2), abs=0.05)


def test_chapman_kolmogorov_compares_many_steps_with_powers(ordinary):
    """Statistic and shares, visit by visit; a run that ended is counted with its forecast."""
    states, checks = ordinary
    now, following = states[:, :-1], states[:, 1:]
    p_right = np.array([following[now == i].mean() for i in (0, 1)])
    step = np.stack([1 - p_right, p_right], axis=1)
    residual, last = following - p_right[now], states.shape[1] - 1
    statistic, shares = 0.0, []
    for start in (0, 1):
        best = (-1.0, "")
        for s in range(2, 6):
            reached = [
                np.linalg.matrix_power(step, max(k + s - last, 0))[states[:, min(k + s, last)], 1]
                for k in range(last)
            ]
            share = np.stack(reached, axis=1)[now == start].mean()
            forecast = np.linalg.matrix_power(step, s)[start, 1]
            weight = np.zeros(now.shape)
            for j in range(2, s + 1):
                power = (p_right[1] - p_right[0]) ** (s - j)
                weight[:, j - 1 :] += power * (states[:, : last + 1 - j] == start)
            difference = (share - forecast) * (now == start).sum()
            assert (residual * weight).sum() == pytest.approx(difference)
            variance = sum(
                p * (1 - p) * (now == i).sum() * weight[now == i].var()
                for i, p in enumerate(p_right)
            )
            text = f"{s} rounds after {'IC'[start]} {share:.3f} right, P^{s} gives {forecast:.3f}"
            best = max(best, (difference**2 / variance, text))
        statistic += best[0]
        shares.append(best[1])
    check = checks["Chapman-Kolmogorov"]
    assert check.statistic == pytest.approx(statistic)
    assert all(text in check.sentence for text in shares)


@pytest.mark.realdata
def test_ten_rounds_of_gsm8k_are_no_homogeneous_chain(real_data, make_counts):
    path = real_data / "incremental_gsm8k" / "qwen2.5-7b.jsonl"
    lines = path.read_text().splitlines()
    count = make_counts([json.loads(line)["correct"] for line in lines])
    (_, ic), (ci, _) = moves = count.transitions.sum(axis=0)
    exits_i, exits_c = moves.sum(axis=1)
    assert (ci, exits_c, ic, exits_i) == (47, 2314, 211, 1034)
    assert round(ci / exits_c, 3) == 0.020 and round(ic / exits_i, 3) == 0.204
    order_0, *checks = check_chain(count, jax.random.key(0), replicates=999)
    assert order_0.p_value <= LEVEL and "not independent" in order_0.sentence
    for check in checks:
        assert check.contradicted, check.sentence


def test_more_answers_than_a_batch_are_checked() -> None:
    """A split of the replicates into more parts than there are would leave some empty."""
    labels = np.random.default_rng(0).random((130_000, 3)) < 0.5
    checks = check_chain(Runs.from_arrays(labels), jax.random.key(0), replicates=5)
    assert not any(check.contradicted for check in checks)
    assert all(check.p_value > 0 for check in checks if check.p_value is not None)
