"""Weights of a Hugging Face folder, or of a GGUF file, into a `Decoder`."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open

from msjax._io import reading
from msjax.devices import free_memory
from msjax.errors import InputError
from msjax.llm.flax.config import DecoderConfig
from msjax.llm.flax.decoder import Decoder
from msjax.llm.flax.gguf import is_gguf, read_gguf
from msjax.llm.flax.sharding import check_divisible, weight_sharding

__all__ = ["load", "sources_of"]

_REMEDY = "fetch the checkpoint again (`msjax weights` lists models it can obtain)"
# Buffers that some exporters store and every implementation computes.
_COMPUTED = ("rotary_emb.inv_freq",)
_DTYPES = ("F64", "F32", "F16", "BF16")
BLOCK = 2**24  # values read at once
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


class Tensors(Protocol):
    """Stored tensors, under the names of a Hugging Face folder."""

    def names(self) -> set[str]:
        """Of all of them."""
        ...

    def read(self, name: str, out: Shaped[np.ndarray, "..."]) -> None:
        """Fills an array with one, converted to the array's dtype."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one."""
        ...


def load(path: Path | str, dtype: DTypeLike | None = None, mesh: Mesh | None = None) -> Decoder:
    """Reads the weights of a model folder or of a GGUF file into a decoder.

    A folder has ``config.json`` and ``model.safetensors``, whole or in shards. Where a head is
    stored there that differs from the embedding to which config.json ties it, the stored one is
    used, as `transformers` does.

    Parameters are read one at a time and the largest first: host memory holds those read so far
    and beside them only the one at hand, as it is stored and as it becomes.

    Args:
        path: a local Hugging Face model folder, or a GGUF file.
        dtype: of the weights; None is float32 on a CPU and bfloat16 on any other device.
        mesh: devices to spread the weights over (see `sharding.device_mesh`); None is the default
            device.

    Raises:
        InputError: a file is absent or damaged, the model is not implemented, a tensor is
            missing, unexpected, quantized (but in a GGUF file) or of the wrong shape (each named),
            there is not enough memory, or the mesh does not divide the model (see
            `sharding.check_divisible`).
    """
    path = Path(path)
    tensors: Tensors
    if is_gguf(path):
        tensors = model = read_gguf(path)
        config = DecoderConfig.from_dict(model.config)
    else:
        config = DecoderConfig.from_folder(path)
        tensors = folder = _Folder(path)
        if config.tie_word_embeddings and _HEAD in folder.names() and not folder.tied():
            config = replace(config, tie_word_embeddings=False)
    if config.num_hidden_layers > len(tensors.names()):  # before they are laid out one by one
        raise InputError(
            f"num_hidden_layers is {config.num_hidden_layers}, but {path} holds "
            f"{len(tensors.names())} tensors; {_REMEDY}"
        )
    if mesh is not None:
        check_divisible(config, mesh)
    if dtype is None:
        dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    abstract = nnx.eval_shape(lambda: Decoder(config, dtype=dtype, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(abstract)
    parameters = dict(nnx.to_flat_state(state))
    _check_memory(path, parameters, mesh)
    sources = {path: sources_of(path, leaf.shape, config) for path, leaf in parameters.items()}
    _check_names({name for source in sources.values() for name in source}, tensors.names(), config)
    # what is largest needs most room beside it, so it is read while memory holds nothing else
    for name, leaf in sorted(parameters.items(), key=lambda item: -math.prod(item[1].shape)):
        fused = np.empty(leaf.shape, leaf.dtype)
        start = 0
        for source, shape in sources[name].items():
            if tensors.shape(source) != shape:
                raise InputError(
                    f"tensor {source} has shape {tensors.shape(source)}, the configuration asks "
                    f"for {shape}; {_REMEDY}"
                )
            tensors.read(source, fused[start : start + shape[0]])
            start += shape[0]
        device = None if mesh is None else weight_sharding(name, mesh)
        # a transfer still under way would hold its copy while the next one is read
        parameters[name] = leaf.replace(jax.block_until_ready(jax.device_put(fused, device)))
    return nnx.merge(graphdef, nnx.from_flat_state(parameters))


def _check_memory(path: Path, parameters: dict[Any, Any], mesh: Mesh | None) -> None:
    """Raises InputError, before anything is read, where the weights do not fit in memory."""
    first = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    devices = [first] if mesh is None else list(mesh.devices.flat)
    free = free_memory(first)
    each = sum(_bytes_on_each(name, leaf, mesh) for name, leaf in parameters.items())
    # Devices of a CPU share the memory of the machine.
    needed = each * len(devices) if first.platform == "cpu" else each
    if free is None or needed <= free:
        return
    leaf = next(iter(parameters.values()))
    numbers = sum(math.prod(leaf.shape) for leaf in parameters.values())
    fit = numbers * free / needed
    where = "are free" if len(devices) == 1 else f"are free for {len(devices)} devices"
    remedy = "end other programs, or take a smaller model"
    if first.platform != "cpu":
        where = "of the device are free" if len(devices) == 1 else "of each device are free"
        enough = math.ceil(len(devices) * needed / max(free, 1))
        remedy += f", or spread it over a mesh of {enough} devices along its model axis"
    raise InputError(
        f"{path} needs {needed / 1e9:.3g} GB of memory as {leaf.dtype}, and {free / 1e9:.3g} GB "
        f"{where}; {remedy} (at most {fit / 1e9:.2g} billion parameters fit)"
    )


def _bytes_on_each(name: tuple[Any, ...], leaf: Any, mesh: Mesh | None) -> int:
    """Of a parameter on each device."""
    held = leaf.shape if mesh is None else weight_sharding(name, mesh).shard_shape(leaf.shape)
    return math.prod(held) * leaf.dtype.itemsize


def sources_of(
    path: tuple[Any, ...], shape: tuple[int, ...], config: DecoderConfig
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that, stacked along the first axis, fill a parameter."""
    match path:
        case ("embedding",):
            return {_EMBEDDING: shape}
        case ("norm", "weight"):
            return {"model.norm.weight": shape}
        case ("head", "weight"):
            return {_HEAD: shape}
        case ("layers", layer, *block, kind):
            width = config.num_attention_heads * config.head_dim
            kv_width = config.num_key_value_heads * config.head_dim
            inner = config.intermediate_size
            rows = {
                "attention_norm": {"input_layernorm": shape[0]},
                "attention.qkv": {
                    "self_attn.q_proj": width,
                    "self_attn.k_proj": kv_width,
                    "self_attn.v_proj": kv_width,
                },
                "attention.out": {"self_attn.o_proj": shape[0]},
                "attention.query_norm": {"self_attn.q_norm": shape[0]},
                "attention.key_norm": {"self_attn.k_norm": shape[0]},
                "mlp_norm": {"post_attention_layernorm": shape[0]},
                "mlp.gate_up": {"mlp.gate_proj": inner, "mlp.up_proj": inner},
                "mlp.down": {"mlp.down_proj": shape[0]},
            }[".".join(map(str, block))]
            prefix = f"model.layers.{layer}"
            return {f"{prefix}.{name}.{kind}": (n, *shape[1:]) for name, n in rows.items()}
    raise AssertionError(f"parameter {path} has no source")


class _Folder:
    """Tensors of a Hugging Face folder."""

    def __init__(self, folder: Path) -> None:
        self._files = _files(folder)

    def names(self) -> set[str]:
        return set(self._files)

    def tied(self) -> bool:
        """Whether the stored head equals the embedding."""
        return _equal(self._files, _HEAD, _EMBEDDING)

    def shape(self, name: str) -> tuple[int, ...]:
        with safe_open(self._files[name], framework="numpy") as file:
            return tuple(file.get_slice(name).get_shape())

    def read(self, name: str, out: Shaped[np.ndarray, "..."]) -> None:
        # a file stays mapped, and what was read of it in memory, for as long as it is open
        with safe_open(self._files[name], framework="numpy") as file:
            tensor = file.get_slice(name)
            if tensor.get_dtype() not in _DTYPES:
                raise InputError(
                    f"tensor {name} has dtype {tensor.get_dtype()}; use a checkpoint that is not "
                    f"quantized, with weights in one of {', '.join(_DTYPES)}, or a GGUF file"
                )
            rows = max(1, BLOCK // math.prod(out.shape[1:]))
            for start in range(0, out.shape[0], rows):
                end = min(start + rows, out.shape[0])
                out[start:end] = tensor[start:end]


def _files(folder: Path) -> dict[str, Path]:
    """Every tensor name of the checkpoint, with the file that holds it."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        names = [whole.name]
    elif index.is_file():
        with reading(index, _REMEDY):
            content = json.loads(index.read_text(encoding="utf-8"))
            names = sorted({str(Path(name).name) for name in content["weight_map"].values()})
    else:
        raise InputError(f"{folder} has no model.safetensors; {_REMEDY}")
    files = {}
    for name in names:
        try:
            with safe_open(folder / name, framework="numpy") as file:
                files.update(dict.fromkeys(file.keys(), folder / name))
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"cannot read {folder / name} ({error}); {_REMEDY}") from error
    return files


def _check_names(needed: set[str], found: set[str], config: DecoderConfig) -> None:
    found = {name for name in found if not name.endswith(_COMPUTED)}
    if config.tie_word_embeddings:
        # some exporters store the tied matrix a second time
        found.discard(_HEAD)
    missing, unexpected = sorted(needed - found), sorted(found - needed)
    if missing or unexpected:
        raise InputError(
            f"the tensors do not fit the configuration: missing {_listed(missing)}, "
            f"unexpected {_listed(unexpected)}; {_REMEDY}"
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return f"[{shown}, and {len(names) - 20} more]" if len(names) > 20 else f"[{shown}]"


def _equal(files: dict[str, Path], one: str, other: str) -> bool:
    """Whether two stored tensors hold the same values."""
    if other not in files:
        return False
    with (
        safe_open(files[one], framework="numpy") as left,
        safe_open(files[other], framework="numpy") as right,
    ):
        first, second = left.get_slice(one), right.get_slice(other)
        shape = first.get_shape()
        if shape != second.get_shape() or len(shape) != 2:
            return False
        rows = max(1, BLOCK // max(1, shape[1]))
        starts = range(0, shape[0], rows)
        blocks = (slice(start, min(start + rows, shape[0])) for start in starts)
        return all(np.array_equal(first[block], second[block]) for block in blocks)
