"""A decoder and its KV cache over many devices: tensor parallel and data parallel.

The devices form a mesh of two axes. Along ``model`` each device holds some of the heads, of the
feed-forward features and of the vocabulary; along ``data`` each holds some of the rows of a batch.
XLA inserts the communication: one sum over ``model`` after attention and one after the
feed-forward block of each layer.

Query, key and value (and gate and up) are stacked in one matrix whose rows are cut evenly, so the
cuts do not fall between the parts. XLA then moves activations of the new tokens, never weights,
to the devices whose heads they belong to.

Reference:
    Shoeybi et al. 2019, Megatron-LM, section 3; Xu et al. 2021, GSPMD.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from msjax.errors import InputError
from msjax.llm.flax.config import DecoderConfig
from msjax.llm.flax.decoder import Decoder
from msjax.llm.flax.kv_cache import KVCache, empty_cache

__all__ = [
    "CACHE",
    "WEIGHTS",
    "check_divisible",
    "device_mesh",
    "empty_cache_on",
    "shard_cache",
    "shard_decoder",
    "weight_sharding",
]

_OUT, _IN = PartitionSpec("model", None), PartitionSpec(None, "model")

#: How a parameter is cut, by the end of its path; what is not listed is whole on every device.
WEIGHTS = {
    "embedding": _OUT,
    "head.weight": _OUT,
    "qkv.weight": _OUT,
    "qkv.bias": PartitionSpec("model"),
    "out.weight": _IN,
    "gate_up.weight": _OUT,
    "gate_up.bias": PartitionSpec("model"),
    "down.weight": _IN,
}

#: How each leaf of a `KVCache` is cut: rows over ``data``, heads over ``model``.
CACHE = {
    "keys": PartitionSpec("data", "model"),
    "values": PartitionSpec("data", "model"),
    "lengths": PartitionSpec("data"),
}


def device_mesh(data: int, model: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh of ``data`` x ``model`` devices, the first of those given (all by default).

    Raises:
        InputError: an axis is not positive, or there are too few devices.
    """
    devices = jax.devices() if devices is None else devices
    for axis, size in (("data", data), ("model", model)):
        if size < 1:
            raise InputError(f"mesh axis {axis} is {size}; it must be at least 1")
    if data * model > len(devices):
        raise InputError(
            f"a mesh of {data} x {model} (data x model) needs {data * model} devices and there "
            f"are {len(devices)}; lower data or model"
        )
    return Mesh(np.array(devices[: data * model]).reshape(data, model), ("data", "model"))


def check_divisible(config: DecoderConfig, mesh: Mesh) -> None:
    """Checks that the ``model`` axis cuts between heads, features and tokens of the vocabulary.

    Raises:
        InputError: it does not divide one of them (named).
    """
    size = mesh.shape["model"]
    for field in ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"):
        value = getattr(config, field)
        if value % size:
            raise InputError(
                f"mesh axis model of {size} devices does not divide {field} {value}; choose a "
                "size that divides it and use the other devices for data"
            )


def weight_sharding(path: Sequence[Any], mesh: Mesh) -> NamedSharding:
    """Placement of the parameter at a path of the decoder's state, by its last entries."""
    suffix = ".".join(map(str, path[-2:]))
    return NamedSharding(mesh, WEIGHTS.get(suffix, PartitionSpec()))


def shard_decoder(decoder: Decoder, mesh: Mesh) -> Decoder:
    """The decoder with its weights placed on a mesh of `device_mesh`.

    Raises:
        InputError: the mesh does not divide the model (see `check_divisible`).
    """
    check_divisible(decoder.config, mesh)
    graphdef, state = nnx.split(decoder)
    parameters = [
        (path, leaf.replace(jax.device_put(leaf[...], weight_sharding(path, mesh))))
        for path, leaf in nnx.to_flat_state(state)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(parameters))


@cache
def empty_cache_on(mesh: Mesh | None) -> Callable[..., KVCache]:
    """`kv_cache.empty_cache`, compiled; on a mesh each device makes its own part and no more."""
    shardings = None
    if mesh is not None:
        parts: dict[str, Any] = {field: NamedSharding(mesh, spec) for field, spec in CACHE.items()}
        shardings = KVCache(**parts)
    return jax.jit(empty_cache, static_argnums=(0, 1, 2, 3), out_shardings=shardings)


def shard_cache(cache: KVCache, mesh: Mesh) -> KVCache:
    """The cache with its rows and heads placed on a mesh of `device_mesh`.

    Raises:
        InputError: the mesh does not divide the rows or the heads.
    """
    kv_heads = cache.keys[0].shape[1]
    for axis, field, value in (
        ("data", "rows", cache.rows),
        ("model", "num_key_value_heads", kv_heads),
    ):
        if value % mesh.shape[axis]:
            raise InputError(
                f"mesh axis {axis} of {mesh.shape[axis]} devices does not divide {field} {value}; "
                "choose a size that divides it"
            )
    placed = {
        field: jax.device_put(getattr(cache, field), NamedSharding(mesh, spec))
        for field, spec in CACHE.items()
    }
    return cache._replace(**placed)
