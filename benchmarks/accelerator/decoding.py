"""Decode and prefill with random weights in the shapes of known models, and what they read.

A step of decoding reads every weight once and every slot of the cache; what is read, over the time
of a step and what a copy on the same device moves per second, is the share of the bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from benchmarks.accelerator.measurement import Clock, Measurement, seconds
from benchmarks.accelerator.shapes import SHAPES, each_setting, shrunk
from msjax.devices import free_memory
from msjax.errors import InputError
from msjax.llm.flax import Decoder, DecoderConfig
from msjax.llm.flax.decode import Sampling, decode, prefill
from msjax.llm.flax.sharding import check_divisible, device_mesh, empty_cache_on, weight_sharding

DTYPE = jnp.bfloat16
NEW_TOKENS = 64
CHUNK = 256
"""Tokens of each row that a call of prefill computes."""
PREFILL_ROWS = 16
"""At most, as scores of attention take rows x heads x chunk x context numbers."""

measurement = partial(Measurement, "decoding")


def measure(clock: Clock, small: bool) -> Iterator[Measurement]:
    """The bandwidth, then every model, the settings with most rows per byte of cache first."""
    bandwidth = _bandwidth(2**24 if small else 2**30)
    yield measurement("copy on the device", {"bytes_per_second": bandwidth})
    for name, share in zip(SHAPES, clock.shares(len(SHAPES)), strict=True):
        yield from _model(name, share, small, bandwidth)


def _bandwidth(size: int) -> float:
    """Bytes per second that a copy reads and writes."""
    numbers = jnp.zeros(size // 4, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    copy(numbers).block_until_ready()
    return 2 * size / seconds(lambda: copy(numbers).block_until_ready(), 9)


def _model(name: str, clock: Clock, small: bool, bandwidth: float) -> Iterator[Measurement]:
    entries = shrunk(SHAPES[name]) if small else SHAPES[name]
    config = DecoderConfig.from_dict(entries)
    placed = _placement(config)
    if isinstance(placed, str):
        yield measurement(name, says=placed)
        return
    model = _Model(config, placed, NEW_TOKENS // 16 if small else NEW_TOKENS)

    def timed(setting: str, rows: int, context: int) -> Measurement:
        needed, room = model.bytes_of(rows, context), model.room()
        if room is not None and needed > room:
            fit = model.rows_that_fit(context, room)
            then = f"{fit} row{'s' * (fit > 1)} would fit" if fit > 0 else "no row would fit"
            says = f"not loaded: {needed / 1e9:.2g} GB needed, {room / 1e9:.2g} free; {then}"
            return measurement(setting, {"bytes_needed": needed}, says=says)
        try:
            return measurement(setting, model.timed(rows, context, bandwidth))
        except jax.errors.JaxRuntimeError as error:
            return measurement(setting, says=f"not measured: {str(error).splitlines()[0]}")

    yield from each_setting("decoding", name, clock, small, timed)


def _placement(config: DecoderConfig) -> Mesh | None | str:
    """One device if the weights fit there, else as many as it takes; why not, in words."""
    weights = _weight_bytes(config)
    room = free_memory(jax.devices()[0])
    if room is None or weights <= room:
        return None
    for number in range(2, len(jax.devices()) + 1):
        mesh = device_mesh(1, number)
        try:
            check_divisible(config, mesh)
        except InputError:
            continue
        if weights <= number * room:
            return mesh
    return (
        f"not loaded: its weights take {weights / 1e9:.1f} GB as bfloat16 and {room / 1e9:.1f} GB "
        f"of the device are free; {math.ceil(weights / room)} such devices would hold it"
    )


def _abstract(config: DecoderConfig) -> Any:
    return nnx.eval_shape(lambda: Decoder(config, dtype=DTYPE, rngs=nnx.Rngs(0)))


def _weight_bytes(config: DecoderConfig) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(_abstract(config)))


@dataclass
class _Model:
    """A decoder with random weights, which are made when they are first needed."""

    config: DecoderConfig
    mesh: Mesh | None
    new_tokens: int

    def __post_init__(self) -> None:
        self.graphdef, self._shapes = nnx.split(_abstract(self.config))
        self._weights: Any = None

    @property
    def devices(self) -> int:
        return 1 if self.mesh is None else self.mesh.size

    def room(self) -> int | None:
        """Bytes that the devices have free, weights counted as free."""
        free = free_memory(jax.devices()[0])
        held = 0 if self._weights is None else _weight_bytes(self.config)
        return None if free is None else free * self.devices + held

    def row_bytes(self, context: int) -> int:
        """Bytes of the cache of a row."""
        heads, layers = self.config.num_key_value_heads, self.config.num_hidden_layers
        return 2 * layers * heads * self.config.head_dim * context * DTYPE.dtype.itemsize

    def bytes_of(self, rows: int, context: int) -> int:
        """Bytes of weights, cache, and the logits and scores of one step."""
        config = self.config
        step = rows * 4 * (2 * config.vocab_size + 2 * config.num_attention_heads * context)
        return _weight_bytes(config) + rows * self.row_bytes(context) + step

    def rows_that_fit(self, context: int, room: int) -> int:
        """How many would."""
        each = self.bytes_of(1, context) - self.bytes_of(0, context)
        return (room - self.bytes_of(0, context)) // each

    def read_per_step(self, rows: int, context: int) -> tuple[int, int]:
        """Bytes of weights and cache; of an embedding that is no head only rows are read."""
        config = self.config
        embedding = config.vocab_size * config.hidden_size * DTYPE.dtype.itemsize
        unread = 0 if config.tie_word_embeddings else embedding
        return _weight_bytes(config) - unread, rows * self.row_bytes(context)

    def timed(self, rows: int, context: int, bandwidth: float) -> dict[str, Any]:
        """Tokens per second of both, and what they reach of the device."""
        if self._weights is None:
            self._weights = random_weights(self._shapes, self.mesh)
        step = self._step(rows, context)
        weights, cache = self.read_per_step(rows, context)
        chunk = min(CHUNK, context // 2)
        some = min(rows, PREFILL_ROWS)
        read = self._prefill(some, context, chunk)
        share = (weights + cache) / step / (bandwidth * self.devices)
        # Two operations per weight and token, and two per number of the cache and query head.
        config = self.config
        attention = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
        operations = weights + 2 * attention * context
        return {
            "devices": self.devices,
            "decode_tokens_per_second": rows / step,
            "step_seconds": step,
            "weight_bytes_per_token": weights / rows,
            "cache_bytes_per_token": cache / rows,
            "share_of_bandwidth": share,
            "prefill_rows": some,
            "prefill_chunk": chunk,
            "prefill_tokens_per_second": some * chunk / read,
            "prefill_operations_per_second": some * chunk / read * operations,
        }

    def _step(self, rows: int, context: int) -> float:
        """Seconds of one step of decoding at the end of a context that is full by then."""
        pending = jnp.zeros(rows, jnp.int32)
        limits = jnp.full(rows, self.new_tokens, jnp.int32)
        keys = jax.random.split(jax.random.key(0), rows)
        settings = {"sampling": Sampling(0.0), "end_tokens": (), "max_new": self.new_tokens}
        cache = empty_cache_on(self.mesh)(self.config, rows, context, DTYPE)
        before = jnp.full(rows, context - self.new_tokens, jnp.int32)

        def generate() -> None:
            nonlocal cache
            done = decode(
                self.graphdef,
                self._weights,
                pending,
                limits,
                keys,
                cache._replace(lengths=before + 0),
                **settings,
            )
            cache = jax.block_until_ready(done.cache)

        generate()
        return seconds(generate, 3) / self.new_tokens

    def _prefill(self, rows: int, context: int, chunk: int) -> float:
        """Seconds of a call that computes a chunk of each row at the end of the context."""
        tokens = jnp.zeros((rows, chunk), jnp.int32)
        fresh = jnp.full(rows, chunk, jnp.int32)
        cache = empty_cache_on(self.mesh)(self.config, rows, context, DTYPE)
        before = jnp.full(rows, context - chunk, jnp.int32)

        def append() -> None:
            nonlocal cache
            full = cache._replace(lengths=before + 0)
            cache = prefill(self.graphdef, self._weights, tokens, fresh, full)
            jax.block_until_ready(cache)

        append()
        return seconds(append, 3)


def random_weights(shapes: Any, mesh: Mesh | None) -> Any:
    """Weights drawn one by one, each where it belongs; no device holds more than its share."""
    key, made = jax.random.key(0), []
    for number, (path, leaf) in enumerate(nnx.to_flat_state(shapes)):
        place = None if mesh is None else weight_sharding(path, mesh)
        scale = 1.0 if leaf.ndim == 1 else leaf.shape[-1] ** -0.5
        draw = jax.jit(_normal, static_argnums=(1, 2), out_shardings=place)
        made.append((path, leaf.replace(draw(jax.random.fold_in(key, number), leaf.shape, scale))))
    return nnx.from_flat_state(made)


def _normal(key: jax.Array, shape: tuple[int, ...], scale: float) -> jax.Array:
    return jax.random.normal(key, shape, DTYPE) * jnp.asarray(scale, DTYPE)
