"""A decoder's weights into a Hugging Face folder: `msjax.llm.flax.load` read backwards."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, PyTree
from safetensors.numpy import save_file

from msjax._io import replacing
from msjax.llm.flax.checkpoint import sources_of
from msjax.llm.flax.config import DecoderConfig
from msjax.llm.flax.gguf import is_gguf, read_gguf, write_folder

__all__ = ["copy_folder", "write_weights"]

_OF_THE_WEIGHTS = ("*.safetensors*", "msjax.json", "training.json", ".*")


def write_weights(folder: Path, weights: PyTree[Array], config: DecoderConfig) -> None:
    """Writes ``model.safetensors``, whole or not at all, under the names `checkpoint.load` reads.

    Args:
        folder: an existing model folder with its ``config.json``.
        weights: a decoder's parameters, from `nnx.split`.
        config: of that decoder.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, leaf in nnx.to_flat_state(weights):
        fused, start = np.asarray(jax.device_get(leaf[...])), 0
        for name, shape in sources_of(path, fused.shape, config).items():
            tensors[name] = np.ascontiguousarray(fused[start : start + shape[0]])
            start += shape[0]
    with replacing(folder / "model.safetensors") as part:
        save_file(tensors, part, metadata={"format": "pt"})


def copy_folder(source: Path, folder: Path) -> None:
    """Copies configuration and tokenizer of a model folder or GGUF file, and no weights."""
    if is_gguf(source):
        write_folder(read_gguf(source), folder)
        return
    shutil.copytree(
        source, folder, ignore=shutil.ignore_patterns(*_OF_THE_WEIGHTS), dirs_exist_ok=True
    )
