"""The claims on benchmarks hold, and a plausible mistake in any closed form is caught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msjax.decision import sensitivity
from msjax.theory import population as theory
from msjax.theory.chain import TwoStateChain, accuracy_after, accuracy_curve
from msjax.theory.population import Population, PopulationBounds, limit_accuracy
from msjax.verify import populations as claims
from msjax.verify.benchmarks import BENCHMARKS, BETA, exact_flows, question_counts


@pytest.mark.parametrize("precision", ["float64", pytest.param("float32", marks=pytest.mark.study)])
def test_every_claim_stands_and_the_known_error_is_refuted(verdicts, precision):
    results = verdicts(claims.CLAIMS, precision=precision)
    assert len(results) == 10
    assert [r.id for r in results.values() if not r.ok] == []
    assert [r.id for r in results.values() if not r.holds] == ["B1.pooled_limit"]


@pytest.mark.parametrize("sabotage", [1e-4, -1e-4])
def test_a_closed_form_that_is_off_by_a_ten_thousandth_is_caught(verdicts, sabotage):
    results = verdicts(claims.CLAIMS, sabotage=sabotage)
    assert [r.id for r in results.values() if r.holds and r.exact_ok] == []


def test_simulation_alone_catches_two_thousandths(verdicts):
    results = verdicts(claims.CLAIMS, sabotage=2e-3)
    assert [r.id for r in results.values() if r.monte_carlo_ok] == []


def means(population: Population) -> TwoStateChain:
    """The chain with the mean of each probability, as if questions were alike."""
    chains, weights = population.chains, population.weights
    return TwoStateChain(*(weights @ p for p in (chains.p0, chains.p_ic, chains.p_ci)))


def bounds_of_the_means(population: Population) -> PopulationBounds:
    p0, limit = means(population).p0, limit_accuracy(population)
    return PopulationBounds(jnp.maximum(p0, limit), limit, jnp.minimum(p0, limit))


def gate_on_rates(population: Population, k):
    """Refines where p_ic > p_ci, the refuted criterion of A2."""
    chains = population.chains
    after = jax.vmap(lambda chain: accuracy_after(chain, k))(chains)
    helped = (chains.p_ic > chains.p_ci)[:, None]
    return population.weights @ jnp.where(helped, after, chains.p0[:, None])


def rates_of_the_means(population: Population, k):
    chain = means(population)
    same = jnp.ones(k.shape)
    return theory.PooledRates(chain.p_ic * same, chain.p_ci * same)


def gain_of_the_means(population: Population):
    chain = means(population)
    return (1 - chain.p0) * chain.p_ic - chain.p0 * chain.p_ci


def curve_of_the_means(population: Population, rounds: int):
    return accuracy_curve(means(population), rounds)


def one_round_late(chain, rounds):
    found = gradients(chain, rounds)
    return found._replace(accuracy=jnp.roll(found.accuracy, 1, axis=-2))


gradients = sensitivity.gradients


@pytest.mark.parametrize(
    ("module", "name", "mutant", "caught_by"),
    [
        (theory, "mean_accuracy_curve", curve_of_the_means, ["B1.mixture"]),
        (theory, "pooled_rates", rates_of_the_means, ["B1.pooled_rates"]),
        (theory, "bounds", bounds_of_the_means, ["B2.upper", "B2.lower"]),
        (theory, "gated_accuracy_after", gate_on_rates, ["B2.gating"]),
        (theory, "population_first_gain", gain_of_the_means, ["B3.regime"]),
        (sensitivity, "gradients", one_round_late, ["B4.gradients"]),
    ],
)
def test_a_wrong_closed_form_is_caught_by_both_ways(
    monkeypatch, verdicts, module, name, mutant, caught_by
):
    monkeypatch.setattr(module, name, mutant)
    results = verdicts(claims.CLAIMS, ids=caught_by)
    assert [r.id for r in results.values() if r.monte_carlo_ok or r.exact_ok] == []


def test_an_upper_bound_off_by_as_much_as_the_lower_one_leaves_the_identity(monkeypatch, verdicts):
    bounds = theory.bounds

    def shifted(population):
        found = bounds(population)
        return found._replace(upper=found.upper + 1e-3, lower=found.lower - 1e-3)

    monkeypatch.setattr(theory, "bounds", shifted)
    results = verdicts(claims.CLAIMS, ids=["B2.upper", "B2.lower", "B2.identity"])
    assert {r.id for r in results.values() if r.ok} == {"B2.identity"}


def test_the_known_error_counts_as_one_only_while_it_is_wrong(monkeypatch, verdicts):
    def with_the_true_limit(population):
        limit = limit_accuracy(population)
        return TwoStateChain(limit, limit, 1 - limit)

    monkeypatch.setattr(theory, "pooled_chain", with_the_true_limit)
    assert not verdicts(claims.CLAIMS, ids=["B1.pooled_limit"])["B1.pooled_limit"].ok


def test_exact_flows_of_beta_distributions_begin_with_their_means():
    flows = exact_flows(BETA)
    p0, p_ic, p_ci = (a / (a + b) for a, b in BETA)
    first = [float(flow[0]) for flow in flows]
    np.testing.assert_allclose(first, [p0, 1 - p0, (1 - p0) * p_ic, p0 * p_ci], rtol=1e-15)
    for k in range(16):
        assert flows.right[k + 1] == flows.right[k] + flows.repaired[k] - flows.broken[k]
        assert flows.right[k] + flows.wrong[k] == 1


def test_counts_add_up_and_runs_differ(laboratory):
    for setting in BENCHMARKS:
        found = laboratory.run(question_counts, setting)
        pilot = laboratory.run(question_counts, setting, "pilot")
        assert found.paths.sum() == pilot.paths.sum() == laboratory.n_ensemble
        flow = np.diff(found.correct, axis=1)
        np.testing.assert_array_equal(flow, found.repaired - found.broken)
        assert np.all(found.correct <= found.paths[:, None])
        assert np.any(found.paths != pilot.paths)
