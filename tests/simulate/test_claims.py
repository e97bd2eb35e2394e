"""The claims hold, and a wrong closed form is caught: the check is able to fail."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from msjax import chain as theory
from msjax.errors import InputError
from simulate import claims
from simulate.claims import CLAIMS, FALSE_ALARM, SECTIONS, run_claims

N = 200_000


@pytest.fixture(scope="module")
def ensembles():
    """One simulated ensemble per chain of the grid, shared by every test of this file."""
    keys = jax.random.split(jax.random.key(11), len(claims.GRID))
    with jax.enable_x64(True):
        return [
            claims._simulate(key, theory.TwoStateChain(*point), N)
            for key, point in zip(keys, claims.GRID, strict=True)
        ]


@pytest.fixture
def failures(monkeypatch, ensembles):
    """Run claims on the shared ensembles; returns the ids of those that fail."""

    def run(section=None, replayed=ensembles):
        stored = iter(replayed)
        monkeypatch.setattr(claims, "_simulate", lambda *_: next(stored))
        return {r.id for r in run_claims(jax.random.key(0), N, section) if not r.ok}

    return run


def test_every_claim_stands_and_the_known_error_is_refuted(failures):
    assert failures() == set()


def off_by_a_percent(function):
    return lambda *args: function(*args) * (1 + 1e-2)


def mutant(name):
    """A closed form with a plausible mistake, and the claims that have to notice it."""
    original = getattr(theory, name)
    return {
        "accuracy_after": off_by_a_percent(original),
        "stationary_accuracy": off_by_a_percent(original),
        "total_variation": lambda chain, k: original(chain, k + 1),
        "marginal_gain": lambda chain, k: original(chain, k + 1),
        "eigenvalue": lambda chain: 1 - chain.p_ic,
        "half_life": lambda chain: 2 * original(chain),
        "regime": lambda chain: jnp.sign(chain.p_ic - chain.p_ci).astype(int),
        "accuracy_range": lambda chain: theory.AccuracyRange(
            jnp.fmax(chain.p0, theory.stationary_accuracy(chain)),
            jnp.fmin(chain.p0, theory.stationary_accuracy(chain)),
        ),
        "rounds_to_within": lambda chain, eps: original(chain, eps) + 1,
        "optimal_rounds": lambda chain, value, cost: (
            jnp.minimum(9, original(chain, value, cost)) + 1
        ),
        "optimal_rounds_with_costs": lambda chain, value, costs: original(
            chain, value, costs[0] * np.ones_like(costs)
        ),
    }[name]


@pytest.mark.parametrize(
    ("name", "caught_by"),
    [
        ("accuracy_after", {"A1.transient", "A1.two_rounds"}),
        ("stationary_accuracy", {"A4.rate", "A4.rounds_to_within"}),
        ("total_variation", {"A4.rate"}),
        ("marginal_gain", {"A5.marginal_gain"}),
        ("eigenvalue", {"A4.mixing"}),
        ("half_life", {"A4.half_life"}),
        ("regime", {"A2.regime"}),
        ("accuracy_range", {"A3.range"}),
        ("rounds_to_within", {"A4.rounds_to_within"}),
        ("optimal_rounds", {"A6.optimal_rounds"}),
        ("optimal_rounds_with_costs", {"A6.round_costs"}),
    ],
)
def test_a_wrong_closed_form_is_caught(monkeypatch, failures, name, caught_by):
    monkeypatch.setattr(theory, name, mutant(name))
    section = next(iter(caught_by)).split(".")[0]
    assert caught_by <= failures(section)


def test_a_single_impossible_path_is_caught(failures, ensembles):
    moved = [dataclasses.replace(e, joint=e.joint.copy()) for e in ensembles]
    next(e for e in moved if e.gap == 0).joint[3, 3] += 1  # one frozen chain of 200,000 moved
    assert failures("A10", moved) == {"A10.frozen"}


def test_results_carry_what_a_report_needs():
    results = run_claims(jax.random.key(3), claims.MIN_CHAINS, section="A10")
    assert [result.id for result in results] == [c.id for c in CLAIMS if c.section == "A10"]
    assert all(result.ok and math.isfinite(result.z) for result in results)
    total = sum(result.comparisons for result in results)
    assert results[0].threshold == pytest.approx(stats.norm.isf(FALSE_ALARM / total / 2))


def test_binomial_tails_are_exact():
    counts, n, p = np.array([0, 3, 40]), 1000, np.array([0.001, 0.02, 0.02])
    tail = claims._count_evidence(counts, n, p).tail
    low, high = stats.binom.cdf(counts, n, p), stats.binom.sf(counts - 1, n, p)
    np.testing.assert_allclose(tail, np.minimum(1, 2 * np.minimum(low, high)))
    certain = claims._count_evidence(np.array([1000, 999]), n, np.array([1.0, 1.0]))
    assert certain.tail.tolist() == [1, 0]
    assert certain.z.tolist() == [0, -math.inf]


def test_bernstein_bound_covers_the_tail_it_bounds():
    # Mean of X - Y for independent Bernoulli X and Y: its law is known exactly.
    n, p = 400, 0.03
    up = stats.binom.pmf(np.arange(n + 1), n, p)
    law = np.convolve(up, up[::-1])
    mean = np.arange(-n, n + 1) / n
    evidence = claims._mean_evidence(
        mean, np.zeros_like(mean), np.full_like(mean, 2 * p * (1 - p) / n), 2 / n
    )
    at_least_as_far = np.array([law[np.abs(mean) >= abs(m) - 1e-12].sum() for m in mean])
    assert np.all(evidence.tail >= at_least_as_far - 1e-12)


def test_sections_are_those_of_the_theory():
    assert SECTIONS == ("A1", "A2", "A3", "A4", "A5", "A6", "A10")
    with pytest.raises(InputError, match="section is 'A99'; choose one of A1, A2"):
        run_claims(jax.random.key(0), N, section="A99")
    with pytest.raises(InputError, match="n_chains is 10;"):
        run_claims(jax.random.key(0), 10)
