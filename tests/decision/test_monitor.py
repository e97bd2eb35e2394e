"""A promise and a rate watched live: false alarms, and that they ring when they should."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from msjax.decision.monitor import PromiseMonitor, RateTest, audited, promise_evidence
from msjax.errors import InputError
from msjax.verify.evidence import FALSE_ALARM


def test_evidence_has_mean_one_on_the_edge_of_the_promise():
    """Over all that 6 questions may show, each question's mean being -eps."""
    shares = {-1: 0.25, 0: 0.6, 1: 0.15}
    paths = np.array(list(itertools.product(shares, repeat=6)))
    mass = np.prod([[shares[d] for d in path] for path in paths], axis=1)
    assert mass @ promise_evidence(paths, 0.1) == pytest.approx(np.ones(6))
    # A promise that is kept with room to spare gives less.
    assert (mass @ promise_evidence(paths, 0.2) < 1).all()


def test_the_monitor_adds_up_to_the_evidence_of_all_questions():
    random = np.random.default_rng(0)
    differences = random.choice([-1, 0, 1], 80, p=[0.3, 0.65, 0.05])
    evidence = promise_evidence(differences, 0.05)
    monitor = PromiseMonitor(0.05, false_alarm=0.05)
    assert math.isnan(monitor.mean) and not monitor.broken
    for i, difference in enumerate(differences):
        rings = monitor.add(float(difference))
        assert monitor.evidence == pytest.approx(evidence[i])
        assert rings == (evidence[: i + 1].max() >= 20)
    assert monitor.questions == 80 and monitor.mean == pytest.approx(differences.mean())
    assert monitor.broken_at == int(np.argmax(evidence >= 20)) + 1 < 80


def test_false_alarms_are_rare_and_late_breaks_are_noticed():
    random = np.random.default_rng(1)
    kept = random.choice([-1, 0, 1], (2000, 600), p=[0.15, 0.75, 0.1])
    alarms = int((promise_evidence(kept, 0.05).max(axis=1) >= 20).sum())
    assert binom.sf(alarms - 1, 2000, 0.05) > FALSE_ALARM
    late = random.choice([-1, 0, 1], (50, 700), p=[0.3, 0.65, 0.05])
    late[:, :300] = kept[:50, :300]
    rang = promise_evidence(late, 0.05) >= 100
    assert rang.any(axis=1).all() and np.median(rang.argmax(axis=1)) < 450


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.97])
def test_a_rate_that_stays_rarely_rings(rate):
    random = np.random.default_rng(2)
    pilot = random.binomial(40, rate, 400)
    test = RateTest(pilot, 40 - pilot)
    live = (random.random((200, 400)) < rate).cumsum(axis=0)
    for trials in range(5, 201, 5):
        if trials == 100:
            test.restart()
        p = test.update(live[trials - 1], trials - live[trials - 1])
    alarms = int((p <= 0.1).sum())
    assert binom.sf(alarms - 1, 400, 0.1) > FALSE_ALARM


def test_a_rate_that_changes_rings_and_no_pilot_says_nothing():
    test, mirrored, nothing = RateTest(40, 60), RateTest(60, 40), RateTest(0, 0)
    p_values = []
    for trials in range(1, 151):
        p_values.append(float(test.update(trials // 10, trials - trials // 10)))
        other = float(mirrored.update(trials - trials // 10, trials // 10))
        assert other == pytest.approx(p_values[-1])
        assert nothing.update(trials // 10, trials - trials // 10) == 1
    assert p_values[0] > 0.5 and p_values[-1] < 0.003
    assert (np.diff(p_values) <= 0).all()


def test_a_restarted_test_notices_what_changes_late():
    """400 trials like those of the pilot, then failures alone."""
    plain, restarted = RateTest(80, 120), RateTest(80, 120)
    for test in (plain, restarted):
        test.update(160, 240)
    restarted.restart()
    assert float(restarted.update(160, 290)) < 0.001 < float(plain.update(160, 290))
    once, twice = RateTest(40, 10), RateTest(40, 10)
    twice.restart()
    # Both tests of the second saw the same, so the share of the first decides.
    assert float(once.update(0, 30)) == float(twice.update(0, 30)) < 0.01


def test_audited_questions_are_a_share_that_names_decide():
    names = [f"q{i}" for i in range(4000)]
    tenth = {name for name in names if audited(name, 0.1)}
    assert binom.cdf(len(tenth), 4000, 0.1) > FALSE_ALARM / 2
    assert binom.sf(len(tenth) - 1, 4000, 0.1) > FALSE_ALARM / 2
    assert tenth < {name for name in names if audited(name, 0.3)}
    assert all(audited(name, 1.0) for name in names) and not audited("q", 0.0)


def test_bad_input():
    with pytest.raises(InputError, match="eps is 0.0"):
        PromiseMonitor(0.0)
    with pytest.raises(InputError, match="false_alarm is 1"):
        PromiseMonitor(0.1, false_alarm=1.0)
    with pytest.raises(InputError, match="difference is nan"):
        PromiseMonitor(0.1).add(math.nan)
    with pytest.raises(InputError, match="successes is -1; a count"):
        RateTest(-1, 3)
    with pytest.raises(InputError, match="failures is -2"):
        RateTest(1, 3).update(0, -2)
    test = RateTest(1, 3)
    test.update(2, 2)
    with pytest.raises(InputError, match="fewer live trials than before"):
        test.update(1, 4)
    with pytest.raises(InputError, match="share is 2"):
        audited("q", 2.0)
