"""The claims on trajectories hold, and a plausible mistake in any closed form is caught."""

import jax.numpy as jnp
import pytest

from msjax.theory import chain as one_round
from msjax.theory import path_distributions as theory
from msjax.verify import trajectories as claims


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", pytest.param("float32", marks=pytest.mark.study)])
def test_every_claim_stands(verdicts, precision):
    results = verdicts(claims.CLAIMS, precision=precision)
    assert len(results) == 9
    assert [r.id for r in results.values() if not r.ok] == []


def test_a_closed_form_that_is_off_by_a_ten_thousandth_is_caught(verdicts):
    results = verdicts(claims.CLAIMS, sabotage=1e-4)
    assert [r.id for r in results.values() if r.exact_ok] == []


def independent_variance(chain, rounds):
    """Var S as if the answers did not depend on each other."""
    p = one_round.accuracy_curve(chain, claims.ROUNDS)
    each = jnp.cumsum(p * (1 - p))
    return each[rounds]


def mutant(name):
    """A closed form with a plausible mistake."""
    original = getattr(theory, name)
    return {
        "verified_accuracy": one_round.accuracy_after,
        "first_correct_pmf": lambda chain, k: original(chain, k + 1),
        "mean_first_correct": lambda chain: 1 / chain.p_ic,
        "sojourn_pmf": lambda leave, m: original(leave, m + 1),
        "mean_sojourns": lambda chain: theory.Sojourns(*original(chain)[::-1]),
        "correct_count_pmf": lambda chain, rounds: jnp.roll(original(chain, rounds), 1),
        "correct_count_mean": lambda chain, rounds: (
            (rounds + 1) * jnp.nan_to_num(one_round.stationary_accuracy(chain))
        ),
        "correct_count_variance": independent_variance,
        "time_average_variance": lambda chain: (
            original(chain) / (1 - one_round.eigenvalue(chain) ** 2)
        ),
        "majority_accuracy": lambda chain, rounds: theory.Majority(
            sum(original(chain, rounds)), original(chain, rounds).tie
        ),
    }[name]


@pytest.mark.parametrize(
    ("name", "caught_by"),
    [
        ("verified_accuracy", "A7.verified_curve"),
        ("first_correct_pmf", "A7.first_correct"),
        ("mean_first_correct", "A7.mean_first_correct"),
        ("sojourn_pmf", "A7.sojourns"),
        ("mean_sojourns", "A7.sojourns"),
        ("correct_count_pmf", "A8.law"),
        ("correct_count_mean", "A8.mean"),
        ("correct_count_variance", "A8.variance"),
        ("time_average_variance", "A8.time_average"),
        ("majority_accuracy", "A8.majority"),
    ],
)
def test_a_wrong_closed_form_is_caught_by_both_ways(monkeypatch, verdicts, name, caught_by):
    monkeypatch.setattr(theory, name, mutant(name))
    result = verdicts(claims.CLAIMS, ids=[caught_by])[caught_by]
    assert not result.monte_carlo_ok
    assert not result.exact_ok
