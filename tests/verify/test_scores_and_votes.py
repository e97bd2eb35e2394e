"""The claims on scored samples and on votes hold, and plausible mistakes in them are caught."""

import jax
import jax.numpy as jnp
import pytest

from msjax.theory import best_of_n, voting
from msjax.verify import scores, votes

CLAIMS = scores.CLAIMS + votes.CLAIMS


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", pytest.param("float32", marks=pytest.mark.study)])
def test_every_claim_stands(verdicts, precision):
    assert [r.id for r in verdicts(CLAIMS, precision=precision).values() if not r.ok] == []


@pytest.mark.slow
def test_a_closed_form_that_is_off_by_a_ten_thousandth_is_caught(verdicts):
    assert [r.id for r in verdicts(CLAIMS, sabotage=1e-4).values() if r.exact_ok] == []


@pytest.mark.parametrize(
    ("module", "name", "mistake", "caught_by"),
    [
        # F near 1 taken for "few samples suffice"
        (
            best_of_n,
            "samples_needed",
            lambda right: lambda exceedance, alpha: right(1 - exceedance, alpha),
            "D2.samples_needed",
        ),
        (
            best_of_n,
            "expected_best_score",
            lambda right: lambda distribution, n: right(distribution, n + 1),
            "D3.expected_best",
        ),
        # the runner-up's votes left out
        (
            voting,
            "log_bayes_factor",
            lambda right: lambda v, p, q: jnp.max(v, axis=-1) * jnp.log(p / q),
            "E1.bayes_factor",
        ),
        # all other classes taken for one
        (
            voting,
            "leader_posterior",
            lambda right: lambda v, p, q: jax.nn.sigmoid(voting.log_bayes_factor(v, p, q)),
            "E2.posterior",
        ),
        (voting, "margin_needed", lambda right: lambda *a: right(*a) + 1, "E3.margin"),
    ],
)
def test_a_plausible_mistake_is_caught_by_simulation(
    monkeypatch, verdicts, module, name, mistake, caught_by
):
    monkeypatch.setattr(module, name, mistake(getattr(module, name)))
    result = verdicts(CLAIMS, ids=[caught_by])[caught_by]
    assert not result.exact_ok
    assert not result.monte_carlo_ok
