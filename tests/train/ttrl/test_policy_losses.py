"""Losses by hand, by numerical gradients in float64, and against rlax where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msjax.errors import InputError
from msjax.train.ttrl.policy_losses import (
    clipped_policy_loss,
    clipped_value_loss,
    entropy,
    generalised_advantages,
    group_advantages,
    kl_estimate,
    token_weights,
)


@pytest.fixture
def double_precision():
    with jax.enable_x64(True):
        yield


def numerical_gradient(function, at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        ahead, behind = at.copy(), at.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (float(function(ahead)) - float(function(behind))) / (2 * step)
    return gradient


def test_group_advantages_by_hand() -> None:
    rewards = jnp.array([1.0, 0.0, 0.0, 0.0])
    scaled, centred = group_advantages(rewards), group_advantages(rewards, scaled=False)
    np.testing.assert_allclose(centred.advantages, [0.75, -0.25, -0.25, -0.25])
    # mean 1/4, standard deviation sqrt(3)/4
    np.testing.assert_allclose(
        scaled.advantages, [3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)], rtol=1e-6
    )
    assert bool(scaled.varied) and bool(centred.varied)


@pytest.mark.parametrize("rewards", [[0.1, 0.1, 0.1], [1.0, 1.0], [0.0]])
def test_a_group_without_variance_teaches_nothing(rewards) -> None:
    """Also where the mean rounds: a quotient of two rounding errors would be an advantage."""
    groups = jax.vmap(group_advantages)(jnp.array([rewards]))
    assert not groups.varied.any()
    assert not groups.advantages.any()


def test_no_rewards_are_named() -> None:
    with pytest.raises(InputError, match="rewards is empty"):
        group_advantages(jnp.zeros(0))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),  # within bounds: d(-rho A)/d log rho = -rho A
        (1.5, 2.0, -2.6, 0.0),  # above 1.3: no reward for going further
        (1.5, -2.0, 3.0, 3.0),  # but the way back is open
        (0.5, 2.0, -1.0, -1.0),
        (0.5, -2.0, 1.8, 0.0),  # below 0.9
    ],
)
def test_clipped_ratio_has_separate_bounds(ratio, advantage, loss, slope) -> None:
    def at(logprob):
        return clipped_policy_loss(logprob, jnp.float32(-1.0), jnp.float32(advantage), 0.1, 0.3)

    found, gradient = jax.value_and_grad(at)(jnp.float32(np.log(ratio) - 1))
    assert float(found) == pytest.approx(loss, rel=1e-5)
    assert float(gradient) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_kl_estimate_is_unbiased_and_never_negative() -> None:
    policy = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    reference = jnp.log(jnp.array([0.2, 0.2, 0.6]))
    estimates = kl_estimate(policy, reference)
    exact = jnp.sum(jnp.exp(policy) * (policy - reference))
    assert float(jnp.sum(jnp.exp(policy) * estimates)) == pytest.approx(float(exact), rel=1e-5)
    assert (estimates > 0).all()
    assert float(kl_estimate(policy, policy).max()) == 0
    # log .2 - log .5 = -.9163: exp(-.9163) + .9163 - 1
    assert float(estimates[0]) == pytest.approx(0.4 + 0.916291 - 1, rel=1e-5)


def test_entropy_by_hand() -> None:
    logits = jnp.log(jnp.array([[1.0, 1.0, 2.0], [4.0, 4.0, 4.0]]))
    np.testing.assert_allclose(entropy(logits), [1.5 * np.log(2), np.log(3)], rtol=1e-6)


MASK = jnp.array([[True, False, False, False], [True, True, True, False], [False] * 4])


@pytest.mark.parametrize(
    ("aggregation", "length", "first", "second"),
    [
        ("sequence", None, 1 / 2, 1 / 6),
        ("token", None, 1 / 4, 1 / 4),
        ("constant", 5, 1 / 10, 1 / 10),
    ],
)
def test_token_weights_by_hand(aggregation, length, first, second) -> None:
    """Sequences of 1, 3 and 0 tokens: means over tokens then sequences, over tokens, over 2 x 5."""
    weights = token_weights(MASK, aggregation, length)
    expected = [[first, 0, 0, 0], [second] * 3 + [0], [0] * 4]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_token_weights_add_up_in_parts() -> None:
    losses = jnp.arange(12.0).reshape(3, 4)
    weights = token_weights(MASK, "sequence")
    whole = float(jnp.sum(weights * losses))
    assert whole == pytest.approx(np.mean([0.0, np.mean([4.0, 5.0, 6.0])]))
    parts = sum(float(jnp.sum(weights[i] * losses[i])) for i in range(3))
    assert parts == pytest.approx(whole)


@pytest.mark.parametrize(
    ("aggregation", "length", "message"),
    [("mean", None, "aggregation is 'mean'"), ("constant", None, "length is None")],
)
def test_bad_aggregations_are_named(aggregation, length, message) -> None:
    with pytest.raises(InputError, match=message):
        token_weights(MASK, aggregation, length)


def test_advantages_by_hand() -> None:
    """Three tokens, reward 1 with the last; discount .9, trace .5; the fourth is padding."""
    rewards, values = jnp.array([0.0, 0.0, 1.0, 9.0]), jnp.array([0.2, 0.4, 0.5, 9.0])
    mask = jnp.array([True, True, True, False])
    found = generalised_advantages(rewards, values, mask, 0.9, 0.5)
    third = 1 - 0.5
    second = 0.9 * 0.5 - 0.4 + 0.45 * third
    first = 0.9 * 0.4 - 0.2 + 0.45 * second
    np.testing.assert_allclose(found, [first, second, third, 0], rtol=1e-6)


def test_advantages_are_returns_less_values_at_trace_1() -> None:
    random = np.random.default_rng(0)
    rewards, values = jnp.asarray(random.normal(size=(2, 8)), jnp.float32)
    found = generalised_advantages(rewards, values, jnp.ones(8, bool), 1.0, 1.0)
    returns = jnp.cumsum(rewards[::-1])[::-1]
    np.testing.assert_allclose(found, returns - values, atol=1e-5)


def test_value_loss_by_hand() -> None:
    values = jnp.array([0.5, 0.5, 0.1])
    old, returns = jnp.zeros(3), jnp.array([1.0, 0.0, 1.0])
    # clipped to .2: the worse of (.5 - 1)^2 and (.2 - 1)^2, of .5^2 and .2^2; .1 is within
    found = clipped_value_loss(values, old, returns, 0.2)
    np.testing.assert_allclose(found, [0.32, 0.125, 0.405], rtol=1e-6)
    with pytest.raises(InputError, match="clip is 0"):
        clipped_value_loss(values, old, returns, 0.0)


def test_gradients_are_those_of_finite_differences(double_precision) -> None:
    """Every loss at random points, which lie off the corners of the clips."""
    random = np.random.default_rng(1)
    at, old, advantages = random.normal(size=(3, 4, 5))
    mask = random.random((4, 5)) < 0.7
    weights = token_weights(jnp.asarray(mask), "sequence")

    def policy(x):
        losses = clipped_policy_loss(x, jnp.asarray(old), jnp.asarray(advantages), 0.2, 0.3)
        return jnp.sum(weights * (losses + 0.1 * kl_estimate(x, jnp.asarray(old))))

    def value(x):
        return jnp.sum(clipped_value_loss(x, jnp.asarray(old), jnp.asarray(advantages), 0.2))

    def advantage(x):
        rows = jax.vmap(generalised_advantages, (0, 0, 0, None, None))(
            jnp.asarray(old), x, jnp.asarray(mask), 0.9, 0.8
        )
        return jnp.sum(rows**2)

    for function in (policy, value, advantage, lambda x: jnp.sum(entropy(x))):
        exact = np.asarray(jax.jit(jax.grad(function))(jnp.asarray(at)))
        np.testing.assert_allclose(exact, numerical_gradient(jax.jit(function), at), atol=1e-7)
        assert np.abs(exact).max() > 1e-2


def test_rlax_agrees() -> None:
    rlax = pytest.importorskip("rlax", exc_type=Exception)  # its distrax may be too old
    random = np.random.default_rng(2)
    rewards, values = jnp.asarray(random.normal(size=(2, 9)), jnp.float32)
    ours = generalised_advantages(rewards, values, jnp.ones(9, bool), 0.95, 0.9)
    theirs = rlax.truncated_generalized_advantage_estimation(
        rewards, jnp.full(9, 0.95), 0.9, jnp.append(values, 0.0)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    ratios, advantages = jnp.exp(jnp.asarray(random.normal(size=(2, 50)), jnp.float32))
    ours = clipped_policy_loss(jnp.log(ratios), jnp.zeros(50), advantages - 1, 0.2, 0.2)
    theirs = rlax.clipped_surrogate_pg_loss(ratios, advantages - 1, 0.2)
    assert float(jnp.mean(ours)) == pytest.approx(float(theirs), abs=1e-5)
