"""The claims on one chain hold, and a plausible mistake in any closed form is caught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msjax.simulation.paths import simulate_joint_counts
from msjax.theory import chain as theory
from msjax.verify import chain as claims
from msjax.verify.bench import gather, judge, select
from msjax.verify.claim import Laboratory


@pytest.mark.parametrize("precision", ["float64", pytest.param("float32", marks=pytest.mark.study)])
def test_every_claim_stands_and_the_known_error_is_refuted(verdicts, precision):
    results = verdicts(claims.CLAIMS, precision=precision)
    assert len(results) == 16
    assert [r.id for r in results.values() if not r.ok] == []


@pytest.mark.parametrize("sabotage", [1e-4, -1e-4])
def test_a_closed_form_that_is_off_by_a_ten_thousandth_is_caught(verdicts, sabotage):
    results = verdicts(claims.CLAIMS, sabotage=sabotage)
    assert [r.id for r in results.values() if r.holds and r.exact_ok] == []


def test_simulation_alone_catches_a_thousandth(verdicts):
    results = verdicts(claims.CLAIMS, sabotage=1e-3)
    missed = {r.id for r in results.values() if r.holds and r.monte_carlo_ok}
    # Orders and whole numbers of rounds do not change when they are off by a thousandth.
    whole = {"A2.regime", "A4.rounds_to_within", "A6.optimal_rounds", "A6.round_costs"}
    paths_only = {"A1.two_rounds", "A10.independent"}  # not enough paths here; ensembles have
    assert missed <= whole | paths_only


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
        ("stationary_accuracy", {"A10.independent"}),
        ("total_variation", {"A4.rate"}),
        ("marginal_gain", {"A5.marginal_gain"}),
        ("eigenvalue", {"A4.memory"}),
        ("half_life", {"A4.half_life"}),
        ("regime", {"A2.regime"}),
        ("accuracy_range", {"A3.range"}),
        ("rounds_to_within", {"A4.rounds_to_within"}),
        ("optimal_rounds", {"A6.optimal_rounds"}),
        ("optimal_rounds_with_costs", {"A6.round_costs"}),
    ],
)
def test_a_wrong_closed_form_is_caught_by_both_ways(monkeypatch, verdicts, name, caught_by):
    monkeypatch.setattr(theory, name, mutant(name))
    section = next(iter(caught_by)).split(".")[0]
    results = verdicts(claims.CLAIMS, section)
    assert caught_by <= {r.id for r in results.values() if not r.monte_carlo_ok}
    assert caught_by <= {r.id for r in results.values() if not r.exact_ok}


def test_a_single_impossible_path_is_caught(monkeypatch):
    def one_moved(key, chain, *size):
        joint = np.array(simulate_joint_counts(key, chain, *size))
        joint[3, 3] += chain.p_ic == chain.p_ci == 0
        return joint

    monkeypatch.setattr(claims, "simulate_joint_counts", one_moved)
    laboratory = Laboratory(jax.random.key(3), 200_000)
    results = judge(list(gather(select(claims.CLAIMS, "A10"), laboratory)))
    assert {result.id for result in results if not result.monte_carlo_ok} == {"A10.frozen"}
