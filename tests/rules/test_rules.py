"""Rules as pure functions: what they decide, and that they run in every arena."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msjax.errors import InputError
from msjax.rules.fixed import fixed_rounds
from msjax.rules.markovscale import plan_rounds, posterior_rounds
from msjax.rules.protocol import Observation
from msjax.theory.chain import (
    TwoStateChain,
    accuracy_after,
    accuracy_curve,
    optimal_rounds,
    optimal_rounds_with_costs,
)


def observations(count: int) -> Observation:
    return Observation(jnp.arange(count), jnp.full(count, jnp.nan), jnp.full(count, 20.0))


def stopping_round(rule, length: int = 12) -> int:
    """Round at which a rule first stops, scanning over observations under jit."""
    _, decisions = jax.jit(lambda seen: jax.lax.scan(rule.update, rule.init(), seen))(
        observations(length)
    )
    np.testing.assert_array_equal(decisions.answer_id, jnp.arange(length))
    return int(np.argmax(decisions.stop)) if decisions.stop.any() else length


def single(p0: float, p_ic: float, p_ci: float, rounds: int) -> jax.Array:
    """The curve of one chain, as if the posterior had a single draw."""
    return accuracy_curve(TwoStateChain(p0, p_ic, p_ci), rounds)[None]


@pytest.mark.parametrize("k", [0, 1, 5])
def test_fixed_rounds_stops_after_k_revisions(k) -> None:
    assert stopping_round(fixed_rounds(k)) == k


def test_fixed_rounds_refuses_a_negative_number() -> None:
    with pytest.raises(InputError, match="k = -1"):
        fixed_rounds(-1)


@pytest.mark.parametrize(
    ("p0", "p_ic", "p_ci"),
    [(0.2, 0.3, 0.1), (0.5, 0.05, 0.01), (0.9, 0.4, 0.2), (0.1, 0.9, 0.8), (0.5, 0.0, 0.0)],
)
def test_a_known_chain_and_equal_costs_give_the_closed_form(p0, p_ic, p_ci) -> None:
    plan = plan_rounds(single(p0, p_ic, p_ci, 30), jnp.full(30, 50.0), price=1e-4)
    closed = int(optimal_rounds(TwoStateChain(p0, p_ic, p_ci), 1.0, 50 * 1e-4))
    assert plan.optimal_rounds == closed
    assert stopping_round(posterior_rounds(plan), 31) == closed


def test_unequal_costs_follow_the_general_argmax() -> None:
    # The second round is dear, the third cheap: a myopic rule would stop at 1.
    tokens = jnp.array([10.0, 900.0, 10.0, 10.0])
    chain = TwoStateChain(0.2, 0.3, 0.05)
    plan = plan_rounds(single(0.2, 0.3, 0.05, 4), tokens, price=2e-4)
    assert plan.optimal_rounds == int(optimal_rounds_with_costs(chain, 1.0, 2e-4 * tokens))
    dear = plan_rounds(single(0.2, 0.3, 0.05, 4), tokens.at[1].set(100.0), price=2e-4)
    assert dear.optimal_rounds > 1


def test_stopping_is_right_from_every_round_not_only_the_first() -> None:
    key = jax.random.key(3)
    draws = TwoStateChain(*jax.random.uniform(key, (3, 200)))
    tokens = jnp.array([30.0, 5.0, 80.0, 5.0, 5.0])
    plan = plan_rounds(accuracy_curve(draws, 5), tokens, price=1e-3)
    net = np.asarray(plan.net_value)
    best_later = [max(net[k + 1 :], default=-np.inf) for k in range(len(net))]
    np.testing.assert_array_equal(plan.stop, net >= best_later)


def test_averaging_over_the_posterior_is_not_plugging_in_its_mean() -> None:
    # Either the model never repairs or it always does: the mean chain creeps, neither draw does.
    draws = TwoStateChain(jnp.array([0.3, 0.3]), jnp.array([0.0, 1.0]), jnp.zeros(2))
    tokens = jnp.full(8, 100.0)
    averaged = plan_rounds(accuracy_curve(draws, 8), tokens, price=2e-4)
    plugged = plan_rounds(single(0.3, 0.5, 0.0, 8), tokens, price=2e-4)
    assert averaged.optimal_rounds == 1
    assert plugged.optimal_rounds > 1
    np.testing.assert_allclose(averaged.accuracy[1:], (0.3 + 1.0) / 2, rtol=1e-6)


def test_rules_run_batched_and_report_their_belief() -> None:
    draws = TwoStateChain(jnp.array([0.2, 0.4]), jnp.array([0.3, 0.2]), jnp.array([0.1, 0.0]))
    rule = posterior_rounds(plan_rounds(accuracy_curve(draws, 4), jnp.full(4, 10.0), price=1e-4))
    state = jnp.zeros(6, jnp.int32)
    seen = Observation(jnp.arange(6), jnp.full(6, jnp.nan), jnp.full(6, 9.0))
    state, decision = jax.jit(jax.vmap(rule.update))(state, seen)
    np.testing.assert_allclose(decision.belief, np.full(6, 0.3), rtol=1e-6)
    _, decision = jax.jit(jax.vmap(rule.update))(state, seen)
    expected = float(jnp.mean(accuracy_after(draws, 1)))
    np.testing.assert_allclose(decision.belief, np.full(6, expected), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"price": -1.0}, "price is -1.0"),
        ({"price": float("nan")}, "price is nan"),
        ({"price": 1e-4, "value": 0.0}, "value is 0.0"),
        ({"price": 1e-4, "tokens_per_round": np.array([1.0, np.nan])}, "tokens_per_round"),
        ({"price": 1e-4, "tokens_per_round": np.ones(3)}, "accuracy has 3 rounds"),
        ({"price": 1e-4, "tokens_per_round": np.ones(0)}, "no round of revision was recorded"),
        ({"price": 1e-4, "accuracy": np.array([[0.5, np.nan, 0.5]])}, "a probability lies in"),
    ],
)
def test_bad_prices_are_named(arguments, message) -> None:
    given = {"accuracy": single(0.5, 0.2, 0.1, 2), "tokens_per_round": jnp.ones(2)} | arguments
    with pytest.raises(InputError, match=message):
        plan_rounds(**given)
