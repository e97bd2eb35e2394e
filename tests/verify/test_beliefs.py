"""The claims on beliefs hold, and a plausible mistake in any closed form is caught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msjax.theory import belief as theory
from msjax.theory.answer_posterior import answer_posterior
from msjax.verify import beliefs as claims
from msjax.verify.beliefs import HIDDEN, SEEING, hidden_runs


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", pytest.param("float32", marks=pytest.mark.study)])
def test_every_claim_stands(verdicts, precision):
    results = verdicts(claims.CLAIMS, precision=precision)
    assert len(results) == 8
    assert [r.id for r in results.values() if not r.ok] == []


@pytest.mark.parametrize("sabotage", [1e-4, -1e-4])
def test_a_closed_form_that_is_off_by_a_ten_thousandth_is_caught(verdicts, sabotage):
    results = verdicts(claims.CLAIMS, sabotage=sabotage)
    assert [r.id for r in results.values() if r.exact_ok] == []


def test_simulation_alone_catches_a_thousandth(verdicts):
    results = verdicts(claims.CLAIMS, sabotage=1e-3)
    assert [r.id for r in results.values() if r.monte_carlo_ok] == []


ORIGINAL = {name: getattr(theory, name) for name in theory.__all__}


def one_step_values(*problem, **options):
    """As if no more than one revision could be made."""
    best = ORIGINAL["optimal_continuation"](*problem, **options)
    one = jnp.minimum(1, jnp.arange(best.value_to_go.shape[0]))
    return best._replace(value_to_go=best.value_to_go[one])


def free_continuation(chain, value, cost, *others, **options):
    """As if later revisions cost nothing."""
    return ORIGINAL["optimal_continuation"](chain, value, 0 * cost, *others, **options)


def wrong_answers_kept(chain, changed, keep_wrong):
    """As if a wrong answer never gave way to another wrong one."""
    return ORIGINAL["filter_changes"](chain, changed, 0 * keep_wrong + 1)


MUTANTS = {
    "forgets the broken": (
        "predict",
        lambda chain, b: chain.p_ic + (1 - chain.p_ic) * b,
        ["C1.predict"],
    ),
    "free threshold": (
        "continue_threshold",
        lambda chain, value, cost: ORIGINAL["continue_threshold"](chain, value, 0 * cost),
        ["C1.threshold"],
    ),
    "decides by the rates": (
        "worth_continuing",
        lambda chain, b, value, cost: jnp.broadcast_to(chain.p_ic > chain.p_ci, jnp.shape(b)),
        ["C1.threshold", "C1.nothing_seen"],
    ),
    "one step": ("optimal_continuation", one_step_values, ["C1.nothing_seen", "C1.look_ahead"]),
    "free": ("optimal_continuation", free_continuation, ["C1.nothing_seen", "C1.look_ahead"]),
    "wrong way round": (
        "update_on_score",
        lambda b, ratio: ORIGINAL["update_on_score"](b, -ratio),
        ["C2.score"],
    ),
    "forgets the prior": (
        "update_on_score",
        lambda b, ratio: jax.nn.sigmoid(ratio),
        ["C2.score"],
    ),
    "wrong answers kept": ("filter_changes", wrong_answers_kept, ["C2.change"]),
    "likelihood of the last change": (
        "log_likelihood_of_changes",
        lambda chain, changed, rho: ORIGINAL["log_likelihood_of_changes"](
            chain, changed[:, -1:], rho
        ),
        ["C2.change"],
    ),
    "only flips change": (
        "change_probability",
        lambda chain, b, rho: b * chain.p_ci + (1 - b) * chain.p_ic,
        ["C2.change_probability"],
    ),
    "answers never come back": (
        "answer_posterior",
        lambda distribution, answers: answer_posterior(
            distribution._replace(wrong_answers=1e6), answers
        ),
        ["C3.answers"],
    ),
}


@pytest.mark.parametrize("mistake", MUTANTS)
def test_a_wrong_closed_form_is_caught_by_both_ways(monkeypatch, verdicts, mistake):
    name, mutant, caught_by = MUTANTS[mistake]
    monkeypatch.setattr(theory if name in ORIGINAL else claims, name, mutant)
    results = verdicts(claims.CLAIMS, ids=caught_by)
    assert [r.id for r in results.values() if r.monte_carlo_ok or r.exact_ok] == []


def test_looking_ahead_matters_in_some_setting_and_not_in_all(laboratory):
    differs = [claims.exact_seeing(setting)[3:] for setting in SEEING]
    assert differs[0].tolist() == [0, 1, 1]
    assert np.sum(differs) == 2


def test_every_run_is_counted_once_and_runs_differ(laboratory):
    for setting in HIDDEN:
        counts = laboratory.run(hidden_runs, setting)
        assert [level.shape for level in counts] == [(2, 1), (2, 2), (2, 4), (2, 8)]
        for level, later in zip(counts, counts[1:], strict=False):
            # The later change is the higher bit: both halves of it make up the level before.
            together = later.reshape(2, 2, -1).sum(axis=(0, 1))
            np.testing.assert_array_equal(together, level.sum(axis=0))
    pilot = laboratory.run(hidden_runs, HIDDEN[0], "pilot")
    assert np.any(pilot[-1] != laboratory.run(hidden_runs, HIDDEN[0])[-1])
