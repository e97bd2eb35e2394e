"""Prefill, sampling and the compiled decoding loop."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from msjax.llm.engine import Sampling
from msjax.llm.flax.kv_cache import KVCache, put_rows, take_rows

__all__ = ["Decoded", "Sampling", "YesNo", "decode", "entropy", "prefill", "prefill_rows", "sample"]

_BLOCK = 256  # tokens per block of the two-level searches

YesNo = tuple[tuple[int, ...], tuple[int, ...]]
"""Ids of the tokens that say yes, and of those that say no."""


class Decoded(NamedTuple):
    """What `decode` produced for each row.

    Attributes:
        tokens: (batch, max_new) the new tokens; only the first ``counts`` of a row mean anything.
        counts: (batch,) number of new tokens, the end token included.
        logprobs: (batch,) sum of their natural log-probabilities under the model itself, that is
            at temperature 1 and without top_p.
        entropies: (batch,) sum of the entropies, in nats, of that distribution at these tokens.
        ended: (batch,) whether the row stopped at an end token.
        log_odds: (batch,) of yes against no (nats), under the same distribution, where the last of
            these words was drawn; NaN where none was, or none is known.
        cache: what went in, plus every token but the last one.
    """

    tokens: Int[Array, "batch max_new"]
    counts: Int[Array, " batch"]
    logprobs: Float[Array, " batch"]
    entropies: Float[Array, " batch"]
    ended: Bool[Array, " batch"]
    log_odds: Float[Array, " batch"]
    cache: KVCache


@partial(jax.jit, static_argnames="graphdef", donate_argnames="cache")
def prefill(
    graphdef: nnx.GraphDef,
    weights: PyTree[Array],
    tokens: Int[Array, "batch time"],
    fresh: Int[Array, " batch"],
    cache: KVCache,
) -> KVCache:
    """Appends the first ``fresh[b]`` tokens of each row to the cache, whose buffers it reuses."""
    return nnx.merge(graphdef, weights)(tokens, fresh, cache)[1]


@partial(jax.jit, static_argnames="graphdef", donate_argnames="cache")
def prefill_rows(
    graphdef: nnx.GraphDef,
    weights: PyTree[Array],
    tokens: Int[Array, "some time"],
    fresh: Int[Array, " some"],
    cache: KVCache,
    rows: Int[Array, " some"],
) -> KVCache:
    """Appends the first ``fresh[i]`` tokens of ``tokens[i]`` to row ``rows[i]`` of the cache.

    Rows differ from each other; one beyond the last is padding. The other rows stay as they are,
    and the cache's buffers are reused.
    """
    some = take_rows(cache, rows)
    return put_rows(cache, nnx.merge(graphdef, weights)(tokens, fresh, some)[1], rows)


@partial(
    jax.jit,
    static_argnames=("graphdef", "sampling", "end_tokens", "max_new", "yes_no"),
    donate_argnames="cache",
)
def decode(
    graphdef: nnx.GraphDef,
    weights: PyTree[Array],
    pending: Int[Array, " batch"],
    limits: Int[Array, " batch"],
    keys: Key[Array, " batch"],
    cache: KVCache,
    drawn: Int[Array, " batch"] | Int[Array, ""] | int = 0,
    patience: Int[Array, ""] | int | None = None,
    *,
    sampling: Sampling,
    end_tokens: tuple[int, ...],
    max_new: int,
    yes_no: YesNo | None = None,
) -> Decoded:
    """Generates tokens in every row until each, or enough of them, met an end token or its limit.

    Args:
        graphdef: the decoder's structure, from `nnx.split`.
        weights: its parameters.
        pending: (batch,) last token of each row, the one that is not in the cache yet.
        limits: (batch,) most tokens to generate, up to max_new; a row with 0 is left untouched.
        keys: (batch,) one key per row; token t of a completion is drawn with ``fold_in(key, t)``,
            so a row does not depend on its place in the batch or on the other rows (beyond float
            rounding).
        cache: all tokens but the pending one, with room for ``limits`` more. Its buffers are
            donated.
        drawn: (batch,) tokens of each row's completion that earlier calls have drawn.
        patience: how many rows have to stop before this returns, at least 1; None: all.
        sampling: how tokens are drawn.
        end_tokens: ids that end a row.
        max_new: width of the result, in tokens.
        yes_no: tokens that say yes and tokens that say no, for `Decoded.log_odds`.
    """
    decoder = nnx.merge(graphdef, weights)
    batch = pending.shape[0]
    ends = jnp.asarray(end_tokens, jnp.int32)
    first = jnp.broadcast_to(jnp.asarray(drawn, jnp.int32), (batch,))

    class Loop(NamedTuple):
        step: Int[Array, ""]
        last: Int[Array, " batch"]
        alive: Bool[Array, " batch"]
        result: Decoded

    def body(loop: Loop) -> Loop:
        done = loop.result
        hidden, cache = decoder(loop.last[:, None], loop.alive.astype(jnp.int32), done.cache)
        step_keys = jax.vmap(jax.random.fold_in)(keys, first + loop.step)
        logits = decoder.logits(hidden[:, :, 0])
        last, logprobs = sample(logits, step_keys, sampling)
        met_end = loop.alive & jnp.any(last[:, None] == ends[None, :], axis=1)
        counts = done.counts + loop.alive
        result = Decoded(
            tokens=done.tokens.at[:, loop.step].set(last),
            counts=counts,
            logprobs=done.logprobs + jnp.where(loop.alive, logprobs, 0.0),
            entropies=done.entropies + jnp.where(loop.alive, entropy(logits), 0.0),
            ended=done.ended | met_end,
            log_odds=done.log_odds
            if yes_no is None
            else jnp.where(loop.alive, _said(done.log_odds, logits, last, yes_no), done.log_odds),
            cache=cache,
        )
        return Loop(loop.step + 1, last, loop.alive & ~met_end & (counts < limits), result)

    start = Decoded(
        tokens=jnp.zeros((batch, max_new), jnp.int32),
        counts=jnp.zeros((batch,), jnp.int32),
        logprobs=jnp.zeros((batch,), jnp.float32),
        entropies=jnp.zeros((batch,), jnp.float32),
        ended=jnp.zeros((batch,), bool),
        log_odds=jnp.full((batch,), jnp.nan, jnp.float32),
        cache=cache,
    )
    loop = Loop(jnp.zeros((), jnp.int32), pending, limits > 0, start)
    enough = 0 if patience is None else jnp.maximum(jnp.sum(limits > 0) - patience, 0)
    return jax.lax.while_loop(lambda loop: jnp.sum(loop.alive) > enough, body, loop).result


def sample(
    logits: Float[Array, "vocab batch"], keys: Key[Array, " batch"], sampling: Sampling
) -> tuple[Int[Array, " batch"], Float[Array, " batch"]]:
    """Draws one token per column; returns it and its log-probability at temperature 1.

    One uniform number per row goes through the inverse distribution function, searched in blocks
    of tokens: Gumbel noise for a whole vocabulary costs as much as the layers of a small model.
    """
    if sampling.temperature == 0:
        tokens = _most_probable(logits)
    else:
        scaled = logits / sampling.temperature
        weights = jnp.exp(scaled - jnp.max(scaled, axis=0, keepdims=True))
        if sampling.top_p is not None and sampling.top_p < 1:
            weights = _nucleus(weights, sampling.top_p)
        tokens = _draw(weights, jax.vmap(jax.random.uniform)(keys))
    chosen = jnp.take_along_axis(logits, tokens[None, :], axis=0)[0]
    return tokens, chosen - jax.nn.logsumexp(logits, axis=0)


def entropy(logits: Float[Array, "vocab batch"]) -> Float[Array, " batch"]:
    """Entropy in nats of softmax(logits), column by column: log sum exp x - E[x]."""
    total = jax.nn.logsumexp(logits, axis=0)
    return total - jnp.sum(jnp.exp(logits - total[None, :]) * logits, axis=0)


def _said(
    before: Float[Array, " batch"],
    logits: Float[Array, "vocab batch"],
    drawn: Int[Array, " batch"],
    yes_no: YesNo,
) -> Float[Array, " batch"]:
    """Log-odds of yes against no where the token that was drawn is one of them, else as before."""
    yes, no = (jnp.asarray(ids, jnp.int32) for ids in yes_no)
    odds = jax.nn.logsumexp(logits[yes], axis=0) - jax.nn.logsumexp(logits[no], axis=0)
    either = jnp.concatenate([yes, no])
    return jnp.where(jnp.any(drawn[:, None] == either[None, :], axis=1), odds, before)


def _most_probable(logits: Float[Array, "vocab batch"]) -> Int[Array, " batch"]:
    """The first of the greatest: on a CPU a maximum is vectorised, an argmax is not."""
    blocks = _blocks(logits, -jnp.inf)
    block = jnp.argmax(blocks.max(axis=1), axis=0)
    return (block * _BLOCK + jnp.argmax(_inside(blocks, block), axis=0)).astype(jnp.int32)


def _draw(
    weights: Float[Array, "vocab batch"], uniform: Float[Array, " batch"]
) -> Int[Array, " batch"]:
    blocks = _blocks(weights, 0.0)
    sums = blocks.sum(axis=1)
    target = uniform * sums.sum(axis=0)
    block, before = _first_beyond(sums, target)
    return block * _BLOCK + _first_beyond(_inside(blocks, block), target - before)[0]


def _blocks(
    values: Float[Array, "vocab batch"], padding: float
) -> Float[Array, "blocks block batch"]:
    vocab, batch = values.shape
    padded = jnp.pad(values, ((0, -vocab % _BLOCK), (0, 0)), constant_values=padding)
    return padded.reshape(-1, _BLOCK, batch)


def _inside(
    blocks: Float[Array, "blocks block batch"], block: Int[Array, " batch"]
) -> Float[Array, "block batch"]:
    return jnp.take_along_axis(blocks, block[None, None, :], axis=0)[0]


def _first_beyond(
    weights: Float[Array, "n batch"], target: Float[Array, " batch"]
) -> tuple[Int[Array, " batch"], Float[Array, " batch"]]:
    """First index whose running sum exceeds the target, and the sum before it.

    Rounding can leave no such index, or one of weight zero; then the heaviest one is taken.
    """
    running = jnp.cumsum(weights, axis=0)
    beyond = (running > target[None, :]) & (weights > 0)
    heaviest = jnp.argmax(weights, axis=0)
    index = jnp.where(beyond.any(axis=0), jnp.argmax(beyond, axis=0), heaviest).astype(jnp.int32)
    before = jnp.take_along_axis(running - weights, index[None, :], axis=0)[0]
    return index, before


def _nucleus(weights: Float[Array, "vocab batch"], top_p: float) -> Float[Array, "vocab batch"]:
    """Zeroes all but the heaviest weights that hold a fraction ``top_p`` of the total.

    Non-negative floats sort as their bit patterns, so bisecting the bits finds the exact
    threshold in 31 sums, far cheaper than sorting a vocabulary.
    """
    bits = jax.lax.bitcast_convert_type(weights, jnp.int32)
    wanted = top_p * weights.sum(axis=0)

    def halve(
        _: Int[Array, ""], bounds: tuple[Int[Array, " batch"], Int[Array, " batch"]]
    ) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.where(bits >= middle[None, :], weights, 0.0).sum(axis=0) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low = jnp.zeros_like(bits[0])
    high = bits.max(axis=0) + 1
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    return jnp.where(bits >= low[None, :], weights, 0.0)
