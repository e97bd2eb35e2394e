"""Completions of one prompt: sampled in blocks, and their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from msjax.errors import InputError
from msjax.llm.engine import Sampling
from msjax.llm.flax.config import DecoderConfig
from msjax.llm.flax.decode import decode, prefill
from msjax.llm.flax.kv_cache import KVCache, empty_cache, take_rows

__all__ = ["Prompt", "Rollouts", "Sampler", "completion_logprobs", "joined", "pad_prompt"]

_BUCKET = 16  # prompts are padded to multiples of this, so that few shapes are compiled


class Prompt(NamedTuple):
    """Tokens of a prompt, padded; ``length`` of them count."""

    tokens: Int[Array | np.ndarray, " padded"]
    length: Int[Array | np.ndarray, ""]


class Rollouts(NamedTuple):
    """Completions of one prompt.

    Attributes:
        tokens: (n, max_new) only the first ``counts`` of a row mean anything.
        counts: (n,) tokens of each, the end token included.
        ended: (n,) whether it stopped at an end token rather than at the limit.
    """

    tokens: Int[np.ndarray, "n max_new"]
    counts: Int[np.ndarray, " n"]
    ended: Bool[np.ndarray, " n"]

    @property
    def mask(self) -> Bool[np.ndarray, "n max_new"]:
        """Which tokens belong to the completions."""
        return np.arange(self.tokens.shape[1]) < self.counts[:, None]

    def first(self, n: int) -> Rollouts:
        """The first n completions."""
        return Rollouts(*(part[:n] for part in self))


def joined(blocks: Sequence[Rollouts]) -> Rollouts:
    """All completions of several blocks, in order."""
    return Rollouts(*map(np.concatenate, zip(*blocks, strict=True)))


def pad_prompt(ids: Sequence[int]) -> Prompt:
    """Token ids of a prompt, padded to a common length.

    Raises:
        InputError: no ids.
    """
    if not ids:
        raise InputError("the prompt is empty; give at least one token")
    padded = np.zeros(-(-len(ids) // _BUCKET) * _BUCKET, np.int32)
    padded[: len(ids)] = ids
    return Prompt(padded, np.array(len(ids), np.int32))


class Sampler:
    """Samples completions of one prompt, whose cache is computed once and shared by all of them.

    Args:
        graphdef: the decoder's structure, from `nnx.split`.
        weights: its parameters.
        config: of the decoder.
        prompt: what is completed.
        temperature: of sampling, above 0.
        max_new: most tokens per completion.

    Raises:
        InputError: a temperature <= 0, max_new < 1, or a prompt that leaves the context no room
            for max_new tokens.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        weights: PyTree[Array],
        config: DecoderConfig,
        prompt: Prompt,
        *,
        temperature: float,
        max_new: int,
    ):
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}; completions must differ, so give > 0")
        if max_new < 1:
            raise InputError(f"max_new is {max_new}; it must be at least 1")
        length, context = int(prompt.length), config.max_position_embeddings
        if length + max_new > context:
            raise InputError(
                f"a prompt of {length} tokens and max_new {max_new} exceed the context of "
                f"{context} tokens; lower max_new or shorten the prompt"
            )
        self._graphdef, self._weights, self._config = graphdef, weights, config
        self._sampling, self._max_new = Sampling(temperature), max_new
        self._pending = int(prompt.tokens[length - 1])
        cache = empty_cache(config, 1, len(prompt.tokens) + max_new, _dtype(weights))
        tokens, fresh = prompt.tokens[None], np.array([length - 1], np.int32)
        self._cache = prefill(graphdef, weights, tokens, fresh, cache)

    def sample(self, keys: Key[Array, " n"]) -> Rollouts:
        """One completion per key; each depends on its own key alone (up to float rounding)."""
        n = keys.shape[0]
        done = decode(
            self._graphdef,
            self._weights,
            np.full(n, self._pending, np.int32),
            np.full(n, self._max_new, np.int32),
            keys,
            _spread(self._cache, n),
            sampling=self._sampling,
            end_tokens=self._config.eos_token_ids,
            max_new=self._max_new,
        )
        return Rollouts(*map(np.asarray, (done.tokens, done.counts, done.ended)))


@partial(jax.jit, static_argnums=1)
def _spread(cache: KVCache, n: int) -> KVCache:
    return take_rows(cache, jnp.zeros(n, jnp.int32))


def _dtype(weights: PyTree[Array]) -> jnp.dtype:
    return jax.tree.leaves(weights)[0].dtype


def completion_logprobs(
    graphdef: nnx.GraphDef,
    weights: PyTree[Array],
    prompt: Prompt,
    completions: Int[Array | np.ndarray, "n max_new"],
    temperature: Float[Array, ""] | float,
) -> tuple[Float[Array, "n max_new"], Float[Array, "n max_new hidden"]]:
    """Log-probability of every token of completions, as it was sampled, by one forward pass.

    The prompt is run once; gradients flow through its cache.

    Args:
        graphdef: the decoder's structure, from `nnx.split`.
        weights: its parameters.
        prompt: what was completed.
        completions: (n, max_new) tokens.
        temperature: they were sampled at; log-probabilities are those of logits / temperature.

    Returns:
        Log-probabilities in nats (n, max_new), and the final hidden state before each token.
    """
    decoder = nnx.merge(graphdef, weights)
    n, max_new = completions.shape
    cache = empty_cache(decoder.config, 1, prompt.tokens.shape[0] + max_new, decoder.dtype)
    tokens, length = jnp.asarray(prompt.tokens), jnp.asarray(prompt.length)
    _, cache = decoder(tokens[None], (length - 1)[None], cache)
    pending = jnp.broadcast_to(tokens[length - 1], (n, 1))
    inputs = jnp.concatenate([pending, jnp.asarray(completions)[:, :-1]], axis=1)
    fresh = jnp.full(n, max_new, jnp.int32)
    hidden, _ = decoder(inputs, fresh, take_rows(cache, jnp.zeros(n, jnp.int32)))
    logits = decoder.logits(hidden.reshape(hidden.shape[0], -1)) / temperature
    chosen = jnp.take_along_axis(logits, completions.reshape(1, -1), axis=0)[0]
    logprobs = (chosen - jax.nn.logsumexp(logits, axis=0)).reshape(n, max_new)
    return logprobs, jnp.moveaxis(hidden, 0, -1)
