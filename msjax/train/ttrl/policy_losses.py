"""Losses of policy updates: advantages, clipped ratios, divergence, values, token weights.

Everything is pure. Losses act elementwise on log-probabilities of tokens, in nats; a batch's loss
is the sum of its tokens' losses times `token_weights`, so that it can be added up in parts.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from msjax.errors import InputError, require

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "GroupAdvantages",
    "clipped_policy_loss",
    "clipped_value_loss",
    "entropy",
    "generalised_advantages",
    "group_advantages",
    "kl_estimate",
    "token_weights",
]

Aggregation = Literal["sequence", "token", "constant"]
AGGREGATIONS: tuple[Aggregation, ...] = ("sequence", "token", "constant")


class GroupAdvantages(NamedTuple):
    """Advantages of the completions of one question.

    Attributes:
        advantages: (n,) one per completion.
        varied: whether rewards differ at all; if not, all advantages are 0 and there is nothing
            to learn.
    """

    advantages: Float[Array, " n"]
    varied: Bool[Array, ""]


def group_advantages(rewards: Float[Array, " n"], *, scaled: bool = True) -> GroupAdvantages:
    """How much better each completion of a question did than the others.

    A_i = (r_i - mean r) / std r, with the standard deviation over n; without ``scaled``
    A_i = r_i - mean r, which does not favour questions whose rewards hardly vary.

    Args:
        rewards: (n,) of the completions of one question.
        scaled: whether to divide by the standard deviation.

    Raises:
        InputError: no rewards.

    Reference:
        GRPO: DeepSeekMath (arXiv 2402.03300), section 4.1.2; without the division:
        Dr. GRPO (arXiv 2503.20783), section 3.2.
    """
    if rewards.shape[0] == 0:
        raise InputError("rewards is empty; a group needs at least one retained completion")
    varied = jnp.max(rewards) > jnp.min(rewards)
    centred = jnp.where(varied, rewards - jnp.mean(rewards), 0.0)
    if scaled:
        centred = centred / jnp.where(varied, jnp.std(rewards), 1.0)
    return GroupAdvantages(centred, varied)


def clipped_policy_loss(
    logprobs: Float[Array, "*shape"],
    old_logprobs: Float[Array, "*shape"],
    advantages: Float[Array, "*shape"],
    clip_low: float,
    clip_high: float,
) -> Float[Array, "*shape"]:
    """-min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) with rho = exp(new - old), per token.

    Args:
        logprobs: of tokens under the policy that is trained.
        old_logprobs: under the policy that sampled them.
        advantages: of those tokens.
        clip_low: in [0, 1].
        clip_high: >= 0.

    Raises:
        InputError: a bound outside its range.

    Reference:
        PPO (arXiv 1707.06347), equation 7; separate bounds: DAPO (arXiv 2503.14476), section 3.1.
    """
    require("clip_low", clip_low, lambda x: (x >= 0) & (x <= 1), "give a bound in [0, 1]")
    require("clip_high", clip_high, lambda x: x >= 0, "give a bound >= 0")
    ratio = jnp.exp(logprobs - old_logprobs)
    clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    return -jnp.minimum(ratio * advantages, clipped * advantages)


def kl_estimate(
    logprobs: Float[Array, "*shape"], reference: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The k3 estimate of KL(policy || reference) from tokens the policy sampled, in nats.

    exp(d) - d - 1 with d = reference - logprobs: never negative, and unbiased.

    Reference:
        Schulman 2020, Approximating KL Divergence; DeepSeekMath (arXiv 2402.03300), equation 4.
    """
    difference = reference - logprobs
    return jnp.expm1(difference) - difference


def entropy(logits: Float[Array, "*shape vocab"]) -> Float[Array, "*shape"]:
    """-sum_v p_v log p_v of the softmax over the last axis, in nats."""
    logprobs = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)


def token_weights(
    mask: Bool[Array, "sequences tokens"], aggregation: str, length: int | None = None
) -> Float[Array, "sequences tokens"]:
    """What each token's loss weighs in the loss of a batch, which is the weighted sum.

    - sequence: mean over the tokens of each sequence, then over sequences (GRPO);
    - token: mean over all tokens (DAPO), long sequences weigh more;
    - constant: sum over tokens / (sequences x ``length``) (Dr. GRPO), no bias by length.

    Sequences without a token weigh nothing and do not count.

    Args:
        mask: which tokens count.
        aggregation: one of `AGGREGATIONS`.
        length: tokens; only for "constant".

    Raises:
        InputError: another aggregation, or "constant" without a length >= 1.

    Reference:
        DeepSeekMath (arXiv 2402.03300), equation 3; DAPO (arXiv 2503.14476), section 3.3;
        Dr. GRPO (arXiv 2503.20783), section 3.2.
    """
    counted = mask.astype(jnp.result_type(float))
    per_sequence = jnp.sum(counted, axis=1)
    sequences = jnp.maximum(jnp.sum(per_sequence > 0), 1)
    if aggregation == "sequence":
        return counted / (jnp.maximum(per_sequence, 1)[:, None] * sequences)
    if aggregation == "token":
        return counted / jnp.maximum(jnp.sum(counted), 1)
    if aggregation == "constant":
        if length is None or length < 1:
            raise InputError(f"length is {length}; aggregation 'constant' needs a length >= 1")
        return counted / (sequences * length)
    raise InputError(f"aggregation is {aggregation!r}; give one of {', '.join(AGGREGATIONS)}")


def generalised_advantages(
    rewards: Float[Array, " tokens"],
    values: Float[Array, " tokens"],
    mask: Bool[Array, " tokens"],
    discount: float,
    trace: float,
) -> Float[Array, " tokens"]:
    """Advantages of one sequence's tokens by GAE; the sequence ends with its last counted token.

    A_t = delta_t + discount trace A_{t+1},  delta_t = r_t + discount V_{t+1} - V_t, and V and A are
    0 after the end. A_t + V_t is what the value is trained towards.

    Args:
        rewards: (tokens,) at each token.
        values: (tokens,) expected return before each token.
        mask: (tokens,) which tokens count; the counted ones come first.
        discount: gamma, in [0, 1].
        trace: lambda, in [0, 1].

    Raises:
        InputError: discount or trace outside [0, 1].

    Reference:
        GAE (arXiv 1506.02438), equation 16.
    """
    for name, value in (("discount", discount), ("trace", trace)):
        require(name, value, lambda x: (x >= 0) & (x <= 1), "give a number in [0, 1]")
    rewards, values = jnp.where(mask, rewards, 0.0), jnp.where(mask, values, 0.0)
    after = jnp.append(values[1:], 0.0)
    surprises = rewards + discount * after - values

    def back(
        later: Float[Array, ""], surprise: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        advantage = surprise + discount * trace * later
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.zeros_like(surprises[0]), surprises, reverse=True)
    return advantages


def clipped_value_loss(
    values: Float[Array, "*shape"],
    old_values: Float[Array, "*shape"],
    returns: Float[Array, "*shape"],
    clip: float,
) -> Float[Array, "*shape"]:
    """max((V - R)^2, (V_c - R)^2) / 2, V_c being V kept within ``clip`` of the old value.

    Raises:
        InputError: a clip <= 0.

    Reference:
        The code of PPO (openai/baselines, ppo2); Engstrom et al. 2020 (arXiv 2005.12729),
        section 3.
    """
    require("clip", clip, lambda x: x > 0, "give a width > 0")
    near = old_values + jnp.clip(values - old_values, -clip, clip)
    return jnp.maximum((values - returns) ** 2, (near - returns) ** 2) / 2
