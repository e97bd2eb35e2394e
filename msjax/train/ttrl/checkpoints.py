"""Training states on disk, exact to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

__all__ = ["Checkpoints"]


class Checkpoints:
    """The newest states of a run; each is written whole or not at all.

    Args:
        folder: of the checkpoints, created if need be.
        every: steps from one to the next.
    """

    def __init__(self, folder: Path, every: int):
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(
            save_interval_steps=every, max_to_keep=2, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def latest(self) -> int | None:
        """Steps done at the newest state, None if there is none."""
        return self._manager.latest_step()

    def save(self, steps: int, state: PyTree, *, force: bool = False) -> None:
        """Writes the state after so many steps if it is due, or with ``force`` in any case."""
        import orbax.checkpoint as ocp

        self._manager.save(steps, args=ocp.args.StandardSave(_arrays(state)), force=force)

    def restore(self, like: PyTree) -> PyTree:
        """The newest state, in the structure of ``like``."""
        import orbax.checkpoint as ocp

        leaves, structure = jax.tree.flatten(like)
        wanted = ocp.args.StandardRestore(_arrays(like))
        found: Any = self._manager.restore(self._manager.latest_step(), args=wanted)
        stored = [jnp.asarray(found[f"{i:05d}"]) for i in range(len(leaves))]
        return jax.tree.unflatten(structure, stored)

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.close()


def _arrays(state: PyTree) -> dict[str, np.ndarray]:
    return {f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
