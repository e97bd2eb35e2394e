"""The exact audit against enumeration, closed forms, simulation, and published claims."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msjax.errors import InputError
from msjax.rules.audit import QUICK_COMPILE, audit, stop_distribution
from msjax.rules.fixed import answer_by, self_consistency, until_repeated
from msjax.rules.optpo import optpo, optpo_posterior
from msjax.rules.protocol import Observation
from msjax.rules.votes import (
    asc,
    certificate,
    consol,
    dsc,
    esc,
    first_answer_certificate,
    vote_margin,
)
from msjax.theory import voting
from msjax.verify.evidence import FALSE_ALARM, of_counts

partial = functools.partial
QUICK = partial(jax.jit, compiler_options=QUICK_COMPILE)


def outcomes(rule, streams):
    """Votes until the rule stops and the class it returns, for streams of classes (-1: none)."""

    def follow(stream):
        first = jnp.argmax(stream[None, :] == stream[:, None], axis=1)
        new = (first == jnp.arange(stream.shape[0])) & (stream >= 0)
        numbered = (jnp.cumsum(new) - 1)[first]
        answers = jnp.where(stream >= 0, numbered, -1).astype(jnp.int32)
        nan = jnp.full(stream.shape, jnp.nan)
        says = jax.lax.scan(rule.update, rule.init(), Observation(answers, nan, nan))[1]
        at = jnp.argmax(says.stop)
        returned = says.answer_id[at]
        known = (answers == returned) & (returned >= 0)
        return at, jnp.where(known.any(), stream[jnp.argmax(known)], -1), says.stop.any()

    at, winner, stopped = QUICK(jax.vmap(follow))(jnp.asarray(streams, jnp.int32))
    assert stopped.all()
    return np.asarray(at) + 1, np.asarray(winner)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule_of",
    [
        self_consistency,
        partial(vote_margin, margin=2),
        asc,
        partial(dsc, difficulty=1),
        partial(esc, window=3),
        consol,
        partial(until_repeated, times=3),
        partial(optpo, p_right=0.5, p_wrong=0.2, threshold=6.0, min_samples=4),
        partial(optpo_posterior, p_right=0.5, p_wrong=0.2, classes=3),
        partial(certificate, delta=0.4, predictive=False),
        partial(certificate, delta=0.4),
        lambda budget: answer_by(vote_margin(budget, 2), "last", budget),
    ],
)
def test_the_audit_is_the_sum_over_all_sequences_of_votes(rule_of) -> None:
    budget, rates = 5, (0.4, 0.2, 0.2)
    streams = np.array(list(itertools.product([0, 1, 2, -1], repeat=budget)))
    at, winner = outcomes(rule_of(budget), streams)
    chance = np.array([*rates, 0.2])[streams].prod(axis=1)
    distribution = stop_distribution(rule_of(budget), rates, budget)
    exact = np.bincount(at - 1, chance, minlength=budget)
    np.testing.assert_allclose(distribution.stopped_at, exact, atol=1e-12)
    assert distribution.right == pytest.approx(chance[winner == 0].sum(), abs=1e-12)


def test_a_vote_margin_has_the_closed_forms_of_the_theory() -> None:
    rates = (0.55, 0.45)
    found = audit(partial(vote_margin, margin=4), 41, rates, horizons=(41,))
    distribution = voting.votes_distribution(np.array(rates), 4, 41)
    assert found.error == pytest.approx(float(voting.error_probability(distribution)), rel=1e-5)
    assert found.expected_votes == pytest.approx(
        float(voting.expected_votes(distribution)), rel=1e-5
    )
    assert found.undecided == pytest.approx(float(distribution.undecided), rel=1e-5)
    at = np.cumsum(distribution.stopped_at)
    assert found.p95_votes == 1 + int(np.argmax(at >= 0.95))
    fair = voting.votes_distribution(np.array([0.5, 0.5]), 4, 41)
    assert found.null[41] == pytest.approx(1 - float(fair.undecided), rel=1e-5)


@pytest.mark.slow
def test_without_pressure_of_a_budget_it_has_walds_values() -> None:
    found = audit(partial(vote_margin, margin=3), 200, (0.6, 0.4), horizons=(1,))
    wald = voting.wald_two_class(0.6, 3)
    assert found.error == pytest.approx(float(wald.error), rel=1e-6)
    assert found.expected_votes == pytest.approx(float(wald.expected_votes), rel=1e-6)
    assert found.undecided < 1e-12
    assert found.unanimous_votes == 3
    assert found.equivalent_margin == 3


@pytest.mark.slow
def test_certificates_at_a_coin_toss() -> None:
    horizon = 400
    for predictive, percent in ((False, (4.28, 6.52, 9.15)), (True, (2.54, 3.04, 3.39))):
        rule = first_answer_certificate(horizon + 1, predictive=predictive)
        declared = np.cumsum(stop_distribution(rule, (0.0, 0.5, 0.5), horizon).stopped_at)
        np.testing.assert_allclose(100 * declared[[31, 99, 399]], percent, atol=0.005)


def test_the_certificate_of_the_leader_has_the_null_distribution_of_the_first_answer() -> None:
    for predictive in (False, True):
        distributions = [
            stop_distribution(make(21, predictive=predictive), (0.0, 0.5, 0.5), 20).stopped_at
            for make in (certificate, first_answer_certificate)
        ]
        np.testing.assert_allclose(distributions[0], distributions[1], atol=1e-12)
        assert distributions[0].sum() > 0.02


def test_claims_at_a_coin_toss() -> None:
    small = {"horizons": (10, 20), "claimed_error": 0.05}
    certified = partial(first_answer_certificate, predictive=True)
    found = audit(asc, 6, (0.6, 0.4), null_rule_of=certified, **small)
    assert found.anytime_valid is True
    found = audit(asc, 6, (0.6, 0.4), **small)
    assert found.anytime_valid is False
    assert found.null[10] < found.null[20]


@pytest.mark.parametrize(
    ("rule_of", "margin"),
    [
        (consol, 3),
        (partial(vote_margin, margin=5), 5),
        (partial(vote_margin, margin=2, min_samples=4), None),
        (asc, None),
        (esc, None),
        (partial(until_repeated, times=3), None),
        (self_consistency, None),
        (partial(optpo, p_right=0.6, p_wrong=0.3, threshold=3.0), 3.0),
        (partial(optpo, p_right=0.6, p_wrong=0.3, threshold=30.0), 30.0),
    ],
)
def test_what_margin_a_rule_amounts_to(rule_of, margin) -> None:
    if isinstance(margin, float):
        margin = int(voting.margin_needed(margin, 0.6, 0.3))
    assert stop_distribution(rule_of(13), (0.5, 0.3, 0.2), 12).equivalent_margin == margin


@pytest.mark.slow
def test_the_rule_run_on_thirty_thousand_questions() -> None:
    n, budget, rates = 30_000, 12, (0.5, 0.3, 0.15)
    streams = jax.random.choice(
        jax.random.key(11), jnp.array([0, 1, 2, -1]), (n, budget), p=jnp.array([*rates, 0.05])
    )
    at, winner = outcomes(asc(budget), streams)
    distribution = stop_distribution(asc(budget), rates, budget)
    counts = np.bincount(at - 1, minlength=budget)
    seen = of_counts(
        np.append(counts, (winner == 0).sum()),
        n,
        np.append(distribution.stopped_at, distribution.right),
    )
    assert (seen.tail > FALSE_ALARM / len(seen.tail)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 0}, "budget is 0"),
        ({"budget": 10**6}, "from 1 to 4,096"),
        ({"rates": ()}, "rates is empty"),
        ({"rates": (0.7, 0.4)}, "the sum of rates is 1.1"),
        ({"rates": (1.2,)}, r"rates\[0\] is 1.2"),
        ({"rates": (float("nan"), 0.4)}, r"rates\[0\] is nan"),
        ({"claimed_error": 1.0}, "claimed_error is 1.0"),
        ({"horizons": ()}, "horizons is empty"),
        ({"horizons": (5, 0)}, r"horizons\[1\] is 0"),
    ],
)
def test_bad_input_is_named(arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        audit(**{"rule_of": asc, "budget": 4, "rates": (0.6, 0.4), **arguments})


def test_too_many_states_are_refused(monkeypatch) -> None:
    monkeypatch.setattr("msjax.rules.audit.STATE_LIMIT", 20)
    with pytest.raises(InputError, match="states are undecided at once; |at most 20 are followed"):
        stop_distribution(self_consistency(9), (0.5, 0.3, 0.2), 9)
