"""Weights of a Hugging Face folder into a `Decoder`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from msjax.errors import InputError
from msjax.models.config import DecoderConfig
from msjax.models.decoder import Decoder

__all__ = ["load"]

_REMEDY = "fetch the checkpoint again (`msjax weights` for the default model)"
# Buffers that some exporters store and every implementation computes.
_COMPUTED = ("rotary_emb.inv_freq",)


def load(folder: Path | str, dtype: DTypeLike | None = None) -> Decoder:
    """Reads ``config.json`` and ``model.safetensors``, whole or in shards, into a decoder.

    Tensors are read one at a time, so memory holds the weights once.

    Args:
        folder: a local Hugging Face model folder.
        dtype: of the weights; None is float32 on a CPU and bfloat16 on any other device.

    Raises:
        InputError: a file is absent or damaged, the model is not implemented, a tensor is
            missing, unexpected or of the wrong shape (each named).
    """
    folder = Path(folder)
    config = DecoderConfig.from_folder(folder)
    if dtype is None:
        dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    abstract = nnx.eval_shape(lambda: Decoder(config, dtype=dtype, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(abstract)
    parameters = dict(nnx.to_flat_state(state))
    sources = {path: _sources(path, leaf.shape, config) for path, leaf in parameters.items()}
    with ExitStack() as stack:
        files = _open_tensors(folder, stack)
        _check_names({name for source in sources.values() for name in source}, set(files), config)
        for path, leaf in parameters.items():
            parts = [_read(files[name], name, shape) for name, shape in sources[path].items()]
            fused = parts[0] if len(parts) == 1 else np.concatenate(parts)
            parameters[path] = leaf.replace(jnp.asarray(fused, dtype))
    return nnx.merge(graphdef, nnx.from_flat_state(parameters))


def _sources(
    path: tuple[Any, ...], shape: tuple[int, ...], config: DecoderConfig
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that, stacked along the first axis, fill a parameter."""
    match path:
        case ("embedding",):
            return {"model.embed_tokens.weight": shape}
        case ("norm", "weight"):
            return {"model.norm.weight": shape}
        case ("head", "weight"):
            return {"lm_head.weight": shape}
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
                "mlp_norm": {"post_attention_layernorm": shape[0]},
                "mlp.gate_up": {"mlp.gate_proj": inner, "mlp.up_proj": inner},
                "mlp.down": {"mlp.down_proj": shape[0]},
            }[".".join(map(str, block))]
            prefix = f"model.layers.{layer}"
            return {f"{prefix}.{name}.{kind}": (n, *shape[1:]) for name, n in rows.items()}
    raise AssertionError(f"parameter {path} has no source")


def _open_tensors(folder: Path, stack: ExitStack) -> dict[str, safe_open]:
    """Every tensor name of the checkpoint, with the open file that holds it."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        names = [whole.name]
    elif index.is_file():
        try:
            names = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{index} has no readable weight_map; {_REMEDY}") from error
    else:
        raise InputError(f"{folder} has no model.safetensors; {_REMEDY}")
    files = {}
    for name in names:
        try:
            file = stack.enter_context(safe_open(folder / name, framework="numpy"))
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot read {folder / name} ({error}); {_REMEDY}") from error
        files.update(dict.fromkeys(file.keys(), file))
    return files


def _check_names(needed: set[str], found: set[str], config: DecoderConfig) -> None:
    found = {name for name in found if not name.endswith(_COMPUTED)}
    if config.tie_word_embeddings:
        # some exporters store the tied matrix a second time
        found.discard("lm_head.weight")
    missing, unexpected = sorted(needed - found), sorted(found - needed)
    if missing or unexpected:
        raise InputError(
            f"the tensors do not fit config.json: missing {_listed(missing)}, "
            f"unexpected {_listed(unexpected)}; {_REMEDY}"
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return f"[{shown}, and {len(names) - 20} more]" if len(names) > 20 else f"[{shown}]"


def _read(file: safe_open, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    tensor = file.get_tensor(name)
    if tensor.shape != shape:
        raise InputError(
            f"tensor {name} has shape {tensor.shape}, config.json asks for {shape}; {_REMEDY}"
        )
    return tensor
