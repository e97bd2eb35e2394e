"""The claims on loops with a judge hold, and a plausible mistake in any closed form is caught."""

import jax.numpy as jnp
import pytest

from msjax.theory import judge as theory
from msjax.theory.chain import TwoStateChain
from msjax.theory.judge import Judge
from msjax.verify import loops as claims


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", pytest.param("float32", marks=pytest.mark.study)])
def test_every_claim_stands(verdicts, precision):
    results = verdicts(claims.CLAIMS, precision=precision)
    assert len(results) == 10
    assert [r.id for r in results.values() if not r.ok] == []


def test_a_closed_form_that_is_off_by_a_ten_thousandth_is_caught(verdicts):
    results = verdicts(claims.CLAIMS, sabotage=1e-4)
    assert [r.id for r in results.values() if r.exact_ok] == []


def one_revision_more(original):
    return lambda chain, judge, revisions: original(
        chain, judge, jnp.minimum(jnp.asarray(revisions) + 1, 50)
    )


def rates_exchanged(original):
    return lambda chain, judge, rounds: original(chain, Judge(*reversed(judge)), rounds)


def judge_of_the_means(original):
    """Questions taken for alike."""

    def mean(population, judge, revisions):
        chains, weights = population.chains, population.weights
        rates = [weights @ p for p in (chains.p0, chains.p_ic, chains.p_ci, *judge)]
        return theory.until_accepted(TwoStateChain(*rates[:3]), Judge(*rates[3:]), revisions)

    return mean


def independent_votes(original):
    return lambda judge, votes, threshold, *_: original(judge, votes, threshold)


def never_starting_over(original):
    def best(chain, judge, value, costs, horizon):
        return original(chain, judge, value, costs._replace(restart=float("inf")), horizon)

    return best


def scores_of_exchanged_rates(original):
    return lambda scores: original(scores=Judge(*reversed(scores)))


@pytest.mark.parametrize(
    ("name", "mistake", "caught_by"),
    [
        ("until_accepted", one_revision_more, "H1.outcome"),
        ("until_accepted", rates_exchanged, "H1.without_cap"),
        ("acceptance_pmf", rates_exchanged, "H1.round"),
        ("mean_outcome", judge_of_the_means, "H3.benchmark"),
        ("judge_by_votes", independent_votes, "H4.votes"),
        ("filter_verdicts", rates_exchanged, "H5.belief"),
        (
            "resample_until_accepted",
            lambda right: lambda p0, judge, samples: right(p0, judge, samples + 1),
            "H2.outcome",
        ),
        ("accepted_accuracy", lambda right: lambda p0, judge: judge[0] + 0 * p0, "H2.accepted"),
        pytest.param(
            *("judge_control.best_loop", never_starting_over, "H6.best_loop"),
            marks=pytest.mark.slow,
        ),
        ("rules.SignalDistribution", scores_of_exchanged_rates, "H8.two_valued"),
    ],
)
def test_a_wrong_closed_form_is_caught_by_both_ways(
    monkeypatch, verdicts, name, mistake, caught_by
):
    *module, name = name.split(".")
    place = getattr(claims, module[0]) if module else theory
    monkeypatch.setattr(place, name, mistake(getattr(place, name)))
    result = verdicts(claims.CLAIMS, ids=[caught_by])[caught_by]
    assert not result.monte_carlo_ok
    assert not result.exact_ok
