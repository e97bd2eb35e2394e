"""Decoder in Flax NNX: grouped-query attention, rotary positions, SwiGLU.

Between layers the hidden state is feature-major, (features, tokens), and weights are stored
(out, in), as checkpoints have them. ``weight @ hidden`` then reads every weight once, along its
rows: on a CPU this decodes a small batch about twice as fast as ``hidden @ weight.T``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from msjax.llm.flax.config import DecoderConfig, inverse_frequencies
from msjax.llm.flax.kv_cache import KVCache, append_keys, append_values, new_slots, visible

__all__ = ["Decoder"]


class Linear(nnx.Module):
    """``weight @ x`` (plus bias) on feature-major input."""

    def __init__(self, out: int, into: int, *, bias: bool, dtype: DTypeLike, rngs: nnx.Rngs):
        scale = into**-0.5
        self.weight = nnx.Param(scale * rngs.params.normal((out, into), dtype))
        self.bias = nnx.Param(jnp.zeros((out,), dtype)) if bias else None

    def __call__(self, x: Float[Array, "in_ tokens"]) -> Float[Array, "out tokens"]:
        y = self.weight[...] @ x
        return y if self.bias is None else y + self.bias[...][:, None]


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation over the features, the first axis, computed in float32.

    Reference:
        Zhang and Sennrich 2019, Root Mean Square Layer Normalization, equation 4.
    """

    def __init__(self, features: int, *, eps: float, dtype: DTypeLike):
        self.weight = nnx.Param(jnp.ones((features,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "features *tokens"]) -> Float[Array, "features *tokens"]:
        wide = x.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=0, keepdims=True) + self.eps)
        weight = jnp.expand_dims(self.weight[...], tuple(range(1, x.ndim)))
        return weight * (wide * scale).astype(x.dtype)


class Attention(nnx.Module):
    """Causal grouped-query attention over a KV cache; query, key and value are one matrix.

    With ``qk_norm`` the heads of query and key are normed, each over its own features, before
    they are rotated.

    Reference:
        Ainslie et al. 2023, GQA, section 2.2; Qwen3 Technical Report 2025, section 2 (qk_norm).
    """

    def __init__(self, config: DecoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        width = config.num_attention_heads * config.head_dim
        kv_width = config.num_key_value_heads * config.head_dim
        hidden, qkv_bias, out_bias = config.hidden_size, config.qkv_bias, config.out_bias
        self.qkv = Linear(width + 2 * kv_width, hidden, bias=qkv_bias, dtype=dtype, rngs=rngs)
        self.out = Linear(hidden, width, bias=out_bias, dtype=dtype, rngs=rngs)
        self.query_norm, self.key_norm = (
            RMSNorm(config.head_dim, eps=config.rms_norm_eps, dtype=dtype)
            if config.qk_norm
            else None
            for _ in range(2)
        )
        self.config = config

    def __call__(
        self,
        x: Float[Array, "hidden tokens"],
        rotation: tuple[Float[Array, "half batch time"], Float[Array, "half batch time"]],
        mask: Bool[Array, "batch time capacity"],
        slots: Int[Array, "batch time"],
        keys: Float[Array, "batch kv_heads head_dim capacity"],
        values: Float[Array, "batch kv_heads capacity head_dim"],
    ) -> tuple[
        Float[Array, "hidden tokens"],
        Float[Array, "batch kv_heads head_dim capacity"],
        Float[Array, "batch kv_heads capacity head_dim"],
    ]:
        """Attends from the new tokens; returns the output and the buffers with them appended."""
        heads, kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        head_dim, (batch, time) = self.config.head_dim, slots.shape
        qkv = self.qkv(x).reshape(heads + 2 * kv_heads, head_dim, batch, time)
        query, key, value = jnp.split(qkv, [heads, heads + kv_heads])
        if self.query_norm is not None and self.key_norm is not None:
            query, key = jax.vmap(self.query_norm)(query), jax.vmap(self.key_norm)(key)
        keys = append_keys(keys, _rotate(key, rotation).transpose(2, 3, 0, 1), slots)
        values = append_values(values, value.transpose(2, 3, 0, 1), slots)

        query = _rotate(query * head_dim**-0.5, rotation)
        query = query.reshape(kv_heads, heads // kv_heads, head_dim, batch, time)
        query = query.transpose(3, 0, 1, 4, 2).reshape(batch, kv_heads, -1, head_dim)
        scores = jnp.matmul(query, keys).astype(jnp.float32)
        scores = scores.reshape(batch, kv_heads, heads // kv_heads, time, -1)
        scores = jnp.where(mask[:, None, None], scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        mixed = jnp.matmul(weights.reshape(batch, kv_heads, -1, mask.shape[-1]), values)
        mixed = mixed.reshape(batch, heads, time, head_dim).transpose(1, 3, 0, 2)
        return self.out(mixed.reshape(heads * head_dim, batch * time)), keys, values


class MLP(nnx.Module):
    """SwiGLU feed-forward block; gate and up are one matrix.

    Reference:
        Shazeer 2020, GLU Variants Improve Transformer, equation 6.
    """

    def __init__(self, config: DecoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        hidden, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_up = Linear(2 * inner, hidden, bias=bias, dtype=dtype, rngs=rngs)
        self.down = Linear(hidden, inner, bias=bias, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "hidden tokens"]) -> Float[Array, "hidden tokens"]:
        gate, up = jnp.split(self.gate_up(x), 2)
        return self.down(jax.nn.silu(gate) * up)


class Layer(nnx.Module):
    """One pre-norm residual block: attention, then the feed-forward block."""

    def __init__(self, config: DecoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, dtype=dtype)
        self.attention = Attention(config, dtype=dtype, rngs=rngs)
        self.mlp_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, dtype=dtype)
        self.mlp = MLP(config, dtype=dtype, rngs=rngs)


class Decoder(nnx.Module):
    """A decoder of the Llama, Mistral, Qwen2 or Qwen3 family with a ragged KV cache.

    Args:
        config: shape and constants.
        dtype: of weights, activations and cache; norms and softmax are computed in float32.
        rngs: source of random initial weights (`checkpoint.load` replaces them).

    Reference:
        Touvron et al. 2023, LLaMA, section 2.2.
    """

    def __init__(self, config: DecoderConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        shape = (config.vocab_size, config.hidden_size)
        self.embedding = nnx.Param(rngs.params.normal(shape, dtype))
        self.layers = nnx.List(
            [Layer(config, dtype=dtype, rngs=rngs) for _ in range(config.num_hidden_layers)]
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, dtype=dtype)
        self.head = (
            None
            if config.tie_word_embeddings
            else Linear(config.vocab_size, config.hidden_size, bias=False, dtype=dtype, rngs=rngs)
        )

    @property
    def dtype(self) -> jnp.dtype:
        """Of weights, activations and cache."""
        return self.embedding.dtype

    def __call__(
        self, tokens: Int[Array, "batch time"], fresh: Int[Array, " batch"], cache: KVCache
    ) -> tuple[Float[Array, "hidden batch time"], KVCache]:
        """Appends tokens to the rows of a cache and returns their final hidden states.

        Args:
            tokens: (batch, time) new tokens of each row; those after the first ``fresh[b]`` of
                row b are padding, which changes no row, and whose states mean nothing.
            fresh: (batch,) number of new tokens of each row, 0 to time.
            cache: what the rows hold so far, with room for the new tokens.

        Returns:
            Normed hidden states (hidden, batch, time) for `logits`, and the cache with the new
            tokens in it.
        """
        (batch, time), capacity = tokens.shape, cache.capacity
        slots = new_slots(cache.lengths, fresh, time, capacity)
        mask = visible(cache.lengths, time, capacity)
        positions = cache.lengths[:, None] + jnp.arange(time, dtype=jnp.int32)[None, :]
        rotation = _rotation(self.config, positions, capacity, self.dtype)

        x = self.embedding[...][tokens.reshape(-1)].T
        keys, values = list(cache.keys), list(cache.values)
        for i, layer in enumerate(self.layers):
            mixed, keys[i], values[i] = layer.attention(
                layer.attention_norm(x), rotation, mask, slots, keys[i], values[i]
            )
            x = x + mixed
            x = x + layer.mlp(layer.mlp_norm(x))
        hidden = self.norm(x).reshape(-1, batch, time)
        lengths = cache.lengths + fresh
        return hidden, cache._replace(keys=tuple(keys), values=tuple(values), lengths=lengths)

    def logits(self, hidden: Float[Array, "hidden tokens"]) -> Float[Array, "vocab tokens"]:
        """Next-token logits of final hidden states, as float32."""
        weight = self.embedding if self.head is None else self.head.weight
        return (weight[...] @ hidden).astype(jnp.float32)


def _rotation(
    config: DecoderConfig, positions: Int[Array, "batch time"], capacity: int, dtype: DTypeLike
) -> tuple[Float[Array, "half batch time"], Float[Array, "half batch time"]]:
    # a table made on the host is exact at every position, and XLA, which would evaluate sine and
    # cosine again in every layer, only has to look them up
    angles = np.outer(inverse_frequencies(config), np.arange(capacity))
    cos, sin = jnp.asarray(np.cos(angles), dtype), jnp.asarray(np.sin(angles), dtype)
    return cos[:, positions], sin[:, positions]


def _rotate(
    x: Float[Array, "heads head_dim batch time"],
    rotation: tuple[Float[Array, "half batch time"], Float[Array, "half batch time"]],
) -> Float[Array, "heads head_dim batch time"]:
    """Turns feature i with feature i + head_dim / 2, the Hugging Face pairing."""
    cos, sin = (part[None] for part in rotation)
    first, second = jnp.split(x, 2, axis=1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)
