"""The claims on selecting among chains hold, and a plausible mistake is caught."""

import jax.numpy as jnp
import pytest

from msjax.theory import hybrid as theory
from msjax.verify import hybrid as claims


@pytest.mark.parametrize("precision", ["float64", pytest.param("float32", marks=pytest.mark.study)])
def test_every_claim_stands(verdicts, precision):
    results = verdicts(claims.CLAIMS, precision=precision)
    assert len(results) == 3
    assert [r.id for r in results.values() if not r.ok] == []


def test_a_closed_form_that_is_off_by_a_ten_thousandth_is_caught(verdicts):
    results = verdicts(claims.CLAIMS, sabotage=1e-4)
    assert [r.id for r in results.values() if r.exact_ok] == []


def mutant(name):
    """A closed form with a plausible mistake."""
    original = getattr(theory, name)
    return {
        # Wrong answers that never agree.
        "majority_accuracy_of_chains": lambda p, m, agreement: original(p, m, 0.0 * agreement),
        # The distance of the scores taken for that of their difference.
        "verifier_accuracy_of_chains": lambda p, m, distance: original(
            p, m, distance / jnp.sqrt(2.0)
        ),
        # As many chains as can be paid for.
        "best_split": lambda chain, budget, first, per_round, select: theory.Split(
            m := int(budget // first), 0, select(chain.p0, m), m * first
        ),
    }[name]


@pytest.mark.parametrize(
    ("name", "caught_by"),
    [
        ("majority_accuracy_of_chains", "A9.majority"),
        ("verifier_accuracy_of_chains", "A9.verifier"),
        ("best_split", "A9.budget"),
    ],
)
def test_a_wrong_closed_form_is_caught_by_both_ways(monkeypatch, verdicts, name, caught_by):
    monkeypatch.setattr(theory, name, mutant(name))
    result = verdicts(claims.CLAIMS, ids=[caught_by])[caught_by]
    assert not result.monte_carlo_ok
    assert not result.exact_ok
