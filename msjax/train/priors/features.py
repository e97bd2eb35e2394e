"""Features of questions: vectors by question, their file, and pooled states of a local decoder."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from msjax._io import reading, replacing
from msjax.errors import InputError
from msjax.llm.flax.decoder import Decoder
from msjax.llm.flax.kv_cache import KVCache, empty_cache, take_rows

__all__ = ["FeatureTable", "pooled_states", "read_features", "write_features"]

_TOGETHER = 16  # prompts per batch
_LENGTH = 32  # prompts are padded to multiples of this


@dataclass(frozen=True)
class FeatureTable:
    """One vector per question.

    Attributes:
        source: what made them, which a predictor remembers.
        names: "benchmark/question_id" of every question.
        vectors: [question, feature].

    Raises InputError for no questions, a name twice, shapes that do not fit, or a number that is
    not finite.
    """

    source: str
    names: tuple[str, ...]
    vectors: Float[np.ndarray, "question feature"]

    def __post_init__(self) -> None:
        shape = self.vectors.shape
        if len(shape) != 2 or 0 in shape or shape[0] != len(self.names):
            raise InputError(
                f"features have shape {shape} for {len(self.names)} names; give one vector each"
            )
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InputError(f"features: question {twice!r} occurs twice; give one vector each")
        bad = np.argwhere(~np.isfinite(self.vectors))
        if len(bad):
            row, column = bad[0]
            raise InputError(
                f"features: number {column} of question {self.names[row]!r} is "
                f"{self.vectors[row, column]}; features must be finite"
            )

    def of(self, names: Sequence[str]) -> Float[np.ndarray, "question feature"]:
        """Vectors of these questions, in this order; InputError where one is missing."""
        row = {name: i for i, name in enumerate(self.names)}
        missing = [name for name in names if name not in row]
        if missing:
            raise InputError(
                f"features: question {missing[0]!r} has none ({len(missing)} of {len(names)} "
                "questions are missing); make them with `msjax train priors features`"
            )
        return self.vectors[[row[name] for name in names]]


def read_features(path: Path) -> FeatureTable:
    """Features from an .npz file with the arrays `names`, `features` and `source`.

    Raises InputError when the file is absent, lacks one of them, or as `FeatureTable`.
    """
    remedy = (
        "make it with `msjax train priors features`, or give an .npz file with the arrays names "
        "(texts benchmark/question_id), features (question x feature) and source (a text)"
    )
    with reading(path, remedy), path.open("rb") as stream, np.load(stream) as file:
        arrays = {name: file[name] for name in ("names", "features", "source")}
        vectors = arrays["features"].astype(np.float32)
    names = tuple(map(str, np.atleast_1d(arrays["names"])))
    return FeatureTable(str(arrays["source"]), names, vectors)


def write_features(path: Path, table: FeatureTable) -> None:
    """The file that `read_features` reads, whole or not at all."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, names=table.names, features=table.vectors, source=table.source)


def pooled_states(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    progress: Callable[[int], None] = lambda _: None,
) -> Float[np.ndarray, "prompt twice_hidden"]:
    """Final hidden states of prompts: the mean over their tokens, and that of the last token.

    Prompts of a batch are padded; what stands in the padding enters neither.

    Args:
        decoder: the model.
        prompts: token ids.
        progress: told how many more prompts are done.

    Raises:
        InputError: an empty prompt, or one longer than the context.
    """
    context = decoder.config.max_position_embeddings
    for i, prompt in enumerate(prompts):
        if not 1 <= len(prompt) <= context:
            raise InputError(f"prompt {i} has {len(prompt)} tokens; give 1 to {context}")
    graphdef, weights = nnx.split(decoder)
    hidden = decoder.config.hidden_size
    found = np.empty((len(prompts), 2 * hidden), np.float32)
    beginning: tuple[tuple[list[int], int], tuple[Array, KVCache]] | None = None
    # Neighbours begin alike: worked examples, which many prompts share, are read once.
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    for start in range(0, len(order), _TOGETHER):
        some = order[start : start + _TOGETHER]
        rows = [list(prompts[i]) for i in some]
        common = min(len(os.path.commonprefix(rows)), min(map(len, rows)) - 1)
        shared = rows[0][: common // _LENGTH * _LENGTH]
        rest = [row[len(shared) :] for row in rows]
        time = -(-max(map(len, rest)) // _LENGTH) * _LENGTH
        capacity = len(shared) + time
        if beginning is None or (shared, capacity) != beginning[0]:
            cache = empty_cache(decoder.config, 1, capacity, decoder.dtype)
            total = jnp.zeros((1, hidden))
            if shared:
                total, _, cache = _read(
                    graphdef, weights, *_padded([shared], 1, len(shared)), cache
                )
            beginning = (shared, capacity), (total, cache)
        total, cache = beginning[1]
        cache = take_rows(cache, jnp.zeros(_TOGETHER, jnp.int32))
        new, last, _ = _read(graphdef, weights, *_padded(rest, _TOGETHER, time), cache)
        lengths = np.array([len(row) for row in rows])[:, None]
        found[some, :hidden] = np.asarray(total + new)[: len(some)] / lengths
        found[some, hidden:] = np.asarray(last)[: len(some)]
        progress(len(some))
    return found


def _padded(
    rows: Sequence[Sequence[int]], batch: int, time: int
) -> tuple[Int[np.ndarray, "batch time"], Int[np.ndarray, " batch"]]:
    """Tokens, and how many of each row are real."""
    tokens, lengths = np.zeros((batch, time), np.int32), np.ones(batch, np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], lengths[i] = row, len(row)
    return tokens, lengths


@partial(jax.jit, static_argnames="graphdef")
def _read(
    graphdef: nnx.GraphDef,
    weights: PyTree[Array],
    tokens: Int[Array | np.ndarray, "batch time"],
    lengths: Int[Array | np.ndarray, " batch"],
    cache: KVCache,
) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"], KVCache]:
    """Sum of the final states of the new tokens of each row, the state of the last one, cache."""
    hidden, cache = nnx.merge(graphdef, weights)(jnp.asarray(tokens), jnp.asarray(lengths), cache)
    states = jnp.moveaxis(hidden, 0, 2).astype(jnp.float32)
    real = jnp.arange(tokens.shape[1])[None, :] < lengths[:, None]
    total = jnp.where(real[:, :, None], states, 0).sum(axis=1)
    last = jnp.take_along_axis(states, (lengths - 1)[:, None, None], axis=1)[:, 0]
    return total, last, cache
