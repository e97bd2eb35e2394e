"""Low-rank adaptation of a decoder's matrices, as a function of its weights.

The adapted decoder is the same decoder with other weights, so everything that takes weights
(`prefill`, `decode`, `FlaxEngine`) takes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, PyTree

from msjax.errors import InputError, require

__all__ = ["Adapter", "adapted", "new_adapters"]


class Adapter(NamedTuple):
    """A change of one matrix, up @ down.

    Attributes:
        down: (rank, in).
        up: (out, rank).
    """

    down: Float[Array, "rank in_"]
    up: Float[Array, "out rank"]


def new_adapters(key: Key[Array, ""], weights: PyTree[Array], rank: int) -> dict[str, Adapter]:
    """Adapters of every matrix inside the layers, that change nothing yet.

    Query, key and value are one matrix and share a down-projection, as gate and up do.
    ``down`` is normal with variance 1 / in, ``up`` is 0.

    Args:
        key: consumed.
        weights: a decoder's parameters, from `nnx.split`.
        rank: of each change, from 1 to the smaller side of the smallest matrix.

    Raises:
        InputError: a rank outside its range.

    Reference:
        LoRA (arXiv 2106.09685), section 4.1.
    """
    matrices = {path: leaf[...] for path, leaf in nnx.to_flat_state(weights) if _is_adapted(path)}
    most = min(min(matrix.shape) for matrix in matrices.values())
    require("rank", rank, lambda x: (x >= 1) & (x <= most), f"give a rank from 1 to {most}")
    keys = jax.random.split(key, len(matrices))
    adapters = {}
    for one, (path, matrix) in zip(keys, matrices.items(), strict=True):
        out, into = matrix.shape
        down = jax.random.normal(one, (rank, into), matrix.dtype) * into**-0.5
        adapters[_name(path)] = Adapter(down, jnp.zeros((out, rank), matrix.dtype))
    return adapters


def adapted(weights: PyTree[Array], adapters: dict[str, Adapter], scale: float) -> PyTree[Array]:
    """The weights W + scale up @ down.

    Args:
        weights: a decoder's parameters, from `nnx.split`.
        adapters: from `new_adapters` of a decoder of the same shape.
        scale: alpha / rank in the paper's notation.

    Raises:
        InputError: an adapter of a matrix the decoder lacks, or of another shape.
    """
    flat = dict(nnx.to_flat_state(weights))
    names = {_name(path): path for path in flat}
    for name, (down, up) in adapters.items():
        if name not in names:
            raise InputError(f"adapter {name} has no matrix; make adapters from these weights")
        leaf = flat[names[name]]
        if leaf.shape != (up.shape[0], down.shape[1]):
            raise InputError(
                f"adapter {name} is {up.shape[0]} x {down.shape[1]}, its matrix "
                f"{' x '.join(map(str, leaf.shape))}; make adapters from these weights"
            )
        flat[names[name]] = leaf.replace(leaf[...] + scale * (up @ down))
    return nnx.from_flat_state(flat)


def _is_adapted(path: tuple[Any, ...]) -> bool:
    return path[0] == "layers" and path[-1] == "weight" and not path[-2].endswith("norm")


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
