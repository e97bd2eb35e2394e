"""Policy updates from rewarded completions: GRPO, PPO or SFT, of all weights or of adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from msjax.errors import InputError, require
from msjax.train.ttrl.lora import adapted, new_adapters
from msjax.train.ttrl.policy_losses import (
    AGGREGATIONS,
    Aggregation,
    clipped_policy_loss,
    clipped_value_loss,
    generalised_advantages,
    group_advantages,
    kl_estimate,
    token_weights,
)
from msjax.train.ttrl.rollouts import Prompt, Rollouts, completion_logprobs

__all__ = ["METHODS", "Learner", "Learnt", "Measured", "Method", "Rewarded", "State", "Update"]

Method = Literal["grpo", "ppo", "sft"]
METHODS: tuple[Method, ...] = ("grpo", "ppo", "sft")

_LORA_SCALE = 2.0  # alpha / rank, with alpha = 2 rank
SLOTS = 1024  # of the KV caches whose activations one gradient keeps


@dataclass(frozen=True)
class Update:
    """How the policy is updated.

    Attributes:
        method: grpo: group-relative advantages, clipped ratio. ppo: a linear critic on the final
            hidden states, advantages by GAE. sft: likelihood of the completions that agree.
        rank: of LoRA adapters; 0 updates all weights.
        learning_rate: of AdamW (without weight decay).
        max_norm: gradients are clipped to this norm.
        epochs_per_step: updates on the same rollouts.
        clip_low, clip_high: bounds of the ratio, see `clipped_policy_loss`.
        kl_weight: of the KL to the starting policy in the loss.
        aggregation: see `token_weights`.
        scaled: whether group advantages are divided by their standard deviation.
        trace: lambda of GAE; the discount is 1.
        value_weight, value_clip: weight and clip of the critic's loss.

    Raises:
        InputError: a setting outside its range.
    """

    method: Method = "grpo"
    rank: int = 0
    learning_rate: float = 1e-4
    max_norm: float = 1.0
    epochs_per_step: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_weight: float = 0.0
    aggregation: Aggregation = "sequence"
    scaled: bool = True
    trace: float = 0.95
    value_weight: float = 0.5
    value_clip: float = 0.2

    def __post_init__(self) -> None:
        for name, value, known in (
            ("method", self.method, METHODS),
            ("aggregation", self.aggregation, AGGREGATIONS),
        ):
            if value not in known:
                raise InputError(f"{name} is {value!r}; give one of {', '.join(known)}")
        for name in ("rank", "kl_weight", "clip_low", "clip_high", "value_weight"):
            require(name, getattr(self, name), lambda x: x >= 0, "give a number >= 0")
        for name in ("learning_rate", "max_norm", "value_clip"):
            require(name, getattr(self, name), lambda x: x > 0, "give a number > 0")
        require(
            "epochs_per_step",
            self.epochs_per_step,
            lambda x: x >= 1,
            "give a number of updates >= 1",
        )


class Rewarded(NamedTuple):
    """Retained rollouts of one question, and the reward of each."""

    prompt: Prompt
    rollouts: Rollouts
    rewards: Float[np.ndarray, " n"]


class Measured(NamedTuple):
    """Completions under the policy that sampled them.

    Attributes:
        logprobs: (n, max_new) of their tokens under the policy, in nats.
        reference: the same under the starting policy.
        values: the critic's, before each token; 0 without a critic.
    """

    logprobs: Float[Array, "n max_new"]
    reference: Float[Array, "n max_new"]
    values: Float[Array, "n max_new"]


class State(NamedTuple):
    """All that training changes.

    Attributes:
        policy: weights, or adapters by name.
        critic: weight and bias on hidden states; None but for PPO.
        opt_state: of the optimiser.
    """

    policy: PyTree[Array]
    critic: dict[str, Array] | None
    opt_state: PyTree[Array]


class Learnt(NamedTuple):
    """One step of learning: the new state; loss and gradient norm of its last pass."""

    state: State
    loss: float
    gradient: float


class Learner:
    """Updates one decoder, or adapters of it.

    Args:
        graphdef: the decoder's structure, from `nnx.split`.
        base: its starting weights, which are also the reference of KL.
        update: how.
        temperature: the completions are sampled at.
        max_new: most tokens per completion, the length of aggregation "constant".
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        base: PyTree[Array],
        update: Update,
        *,
        temperature: float,
        max_new: int,
    ):
        self.graphdef, self.base, self.update = graphdef, base, update
        self._temperature, self._max_new = temperature, max_new

    def initial(self, key: Key[Array, ""]) -> State:
        """The state that samples as the starting weights do."""
        rank = self.update.rank
        policy = new_adapters(key, self.base, rank) if rank else self.base
        critic = None
        if self.update.method == "ppo":
            width = nnx.merge(self.graphdef, self.base).config.hidden_size
            critic = {"weight": jnp.zeros(width), "bias": jnp.zeros(())}
        return State(policy, critic, _optimiser(self.update).init((policy, critic)))

    def weights(self, state: State) -> PyTree[Array]:
        """The decoder's weights in this state."""
        return _whole(self.base, state.policy) if self.update.rank else state.policy

    def measure(self, state: State, prompt: Prompt, rollouts: Rollouts) -> Measured:
        """Log-probabilities and values of completions, before they are learnt from."""
        arguments = self.graphdef, prompt, rollouts.tokens, self._temperature
        logprobs, values = _evaluated(self.base, state.policy, state.critic, *arguments)
        reference, _ = _evaluated(self.base, self.base, None, *arguments)
        return Measured(logprobs, reference, values)

    def useful(self, rewards: Float[np.ndarray, " n"]) -> bool:
        """Whether an update can learn from these rewards.

        SFT needs a completion that agrees; the others need completions that differ.
        """
        if self.update.method == "sft":
            return bool(np.any(rewards > 0))
        return bool(np.max(rewards) > np.min(rewards))

    def learn(
        self, state: State, groups: Sequence[Rewarded], measured: Sequence[Measured]
    ) -> Learnt:
        """Updates on the groups together, `epochs_per_step` times.

        Args:
            state: before.
            groups: of useful rewards, with the same number of rollouts each.
            measured: of each group, in the state that sampled it.

        Raises:
            InputError: no group, or one without useful rewards.
        """
        if not groups or not all(self.useful(group.rewards) for group in groups):
            raise InputError(
                "the retained set is empty, or a group of it has rewards nothing can be learnt "
                "from; leave such groups out"
            )
        targets = self.targets(groups, measured)
        parts = [part for pair in zip(groups, targets, strict=True) for part in _parts(*pair)]
        loss = norm = jnp.zeros(())
        for _ in range(self.update.epochs_per_step):
            trainable = state.policy, state.critic
            total, loss = None, jnp.zeros(())
            for prompt, tokens, target in parts:
                part, gradient = update_gradient(
                    trainable,
                    self.base,
                    self.graphdef,
                    self.update,
                    prompt,
                    tokens,
                    target,
                    self._temperature,
                )
                loss = loss + part
                total = gradient if total is None else _added(total, gradient)
            state, norm = _applied(self.update, total, state)
        return Learnt(state, float(loss), float(norm))

    def targets(self, groups: Sequence[Rewarded], measured: Sequence[Measured]) -> list[_Target]:
        """Weights and advantages of the tokens of each group; weights are those of the step."""
        update = self.update
        masks = [
            group.rollouts.mask & (group.rewards > 0)[:, None]
            if update.method == "sft"
            else group.rollouts.mask
            for group in groups
        ]
        together = jnp.asarray(np.concatenate(masks))
        weights = token_weights(together, update.aggregation, self._max_new)
        parts = jnp.split(weights, np.cumsum([len(mask) for mask in masks])[:-1])
        return [
            _Target(weight, self._advantages(group, one), one)
            for group, weight, one in zip(groups, parts, measured, strict=True)
        ]

    def _advantages(self, group: Rewarded, measured: Measured) -> Float[Array, "n max_new"]:
        rewards, mask = jnp.asarray(group.rewards), jnp.asarray(group.rollouts.mask)
        if self.update.method == "ppo":
            return _gae(rewards, measured.values, mask, self.update.trace)
        if self.update.method == "grpo":
            rewards = group_advantages(rewards, scaled=self.update.scaled).advantages
        return jnp.broadcast_to(rewards[:, None], mask.shape)


class _Target(NamedTuple):
    weights: Float[Array, "n max_new"]
    advantages: Float[Array, "n max_new"]
    measured: Measured


def _parts(
    group: Rewarded, target: _Target
) -> Iterator[tuple[Prompt, Int[np.ndarray, "rows max_new"], _Target]]:
    """A group in parts whose gradients fit into memory and add up to its own."""
    tokens = group.rollouts.tokens
    rows = max(1, SLOTS // (len(group.prompt.tokens) + tokens.shape[1]))
    for start in range(0, len(tokens), rows):
        part = slice(start, start + rows)
        yield group.prompt, tokens[part], jax.tree.map(lambda leaf, part=part: leaf[part], target)


def _whole(base: PyTree[Array], policy: PyTree[Array]) -> PyTree[Array]:
    return adapted(base, policy, _LORA_SCALE) if isinstance(policy, dict) else policy


def _values(
    critic: dict[str, Array] | None, hidden: Float[Array, "n max_new hidden"]
) -> Float[Array, "n max_new"]:
    if critic is None:
        return jnp.zeros(hidden.shape[:2], hidden.dtype)
    return hidden @ critic["weight"] + critic["bias"]


@partial(jax.jit, static_argnames=("graphdef", "temperature"))
def _evaluated(
    base: PyTree[Array],
    policy: PyTree[Array],
    critic: dict[str, Array] | None,
    graphdef: nnx.GraphDef,
    prompt: Prompt,
    tokens: Int[Array, "n max_new"],
    temperature: float,
) -> tuple[Float[Array, "n max_new"], Float[Array, "n max_new"]]:
    weights = _whole(base, policy)
    logprobs, hidden = completion_logprobs(graphdef, weights, prompt, tokens, temperature)
    return logprobs, _values(critic, hidden)


@partial(jax.jit, static_argnames="trace")
def _gae(
    rewards: Float[Array, " n"],
    values: Float[Array, "n max_new"],
    mask: Bool[Array, "n max_new"],
    trace: float,
) -> Float[Array, "n max_new"]:
    """The reward of a completion comes with its last token."""
    last = jnp.sum(mask, axis=1, keepdims=True) - 1
    at_end = jnp.arange(mask.shape[1])[None, :] == last
    per_token = jnp.where(at_end, rewards[:, None], 0.0)
    return jax.vmap(generalised_advantages, (0, 0, 0, None, None))(
        per_token, values, mask, 1.0, trace
    )


@partial(jax.jit, static_argnames=("graphdef", "update", "temperature"))
def update_gradient(
    trainable: tuple[PyTree[Array], dict[str, Array] | None],
    base: PyTree[Array],
    graphdef: nnx.GraphDef,
    update: Update,
    prompt: Prompt,
    tokens: Int[Array, "n max_new"],
    target: _Target,
    temperature: float,
) -> tuple[Float[Array, ""], PyTree[Array]]:
    """The loss of a group, or of a part of one, and its gradient."""

    def loss(trainable: tuple[PyTree[Array], dict[str, Array] | None]) -> Float[Array, ""]:
        policy, critic = trainable
        weights = _whole(base, policy)
        logprobs, hidden = completion_logprobs(graphdef, weights, prompt, tokens, temperature)
        return jnp.sum(target.weights * _token_losses(update, logprobs, critic, hidden, target))

    return jax.value_and_grad(loss)(trainable)


def _token_losses(
    update: Update,
    logprobs: Float[Array, "n max_new"],
    critic: dict[str, Array] | None,
    hidden: Float[Array, "n max_new hidden"],
    target: _Target,
) -> Float[Array, "n max_new"]:
    advantages, old = target.advantages, target.measured
    if update.method == "sft":
        losses = -logprobs
    else:
        losses = clipped_policy_loss(
            logprobs, old.logprobs, advantages, update.clip_low, update.clip_high
        )
    if update.method == "ppo":
        returns = advantages + old.values
        values = _values(critic, hidden)
        losses += update.value_weight * clipped_value_loss(
            values, old.values, returns, update.value_clip
        )
    if update.kl_weight:
        losses += update.kl_weight * kl_estimate(logprobs, old.reference)
    return losses


_added = jax.jit(lambda first, second: jax.tree.map(jnp.add, first, second), donate_argnums=0)


def _optimiser(update: Update) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(update.max_norm),
        optax.adamw(update.learning_rate, weight_decay=0.0),
    )


@partial(jax.jit, static_argnames="update")
def _applied(
    update: Update, gradient: PyTree[Array], state: State
) -> tuple[State, Float[Array, ""]]:
    """The state after one step of the optimiser, and the norm of the gradient."""
    trainable = state.policy, state.critic
    changes, opt_state = _optimiser(update).update(gradient, state.opt_state, trainable)
    policy, critic = optax.apply_updates(trainable, changes)
    return State(policy, critic, opt_state), optax.tree.norm(gradient)
