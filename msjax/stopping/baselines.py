"""Rules that everything else is compared with."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from msjax.errors import InputError
from msjax.stopping.protocol import Decision, Observation, StoppingRule


def fixed_rounds(k: int) -> StoppingRule:
    """Revise exactly `k` times and return the last answer ("MR-Thinking" with k + 1 answers).

    Args:
        k: refinement rounds after the first answer; 0 keeps the first answer.

    Raises:
        InputError: k is negative.

    Reference: OptScale (arXiv 2506.22376), sequential baseline; docs/stopping.md.
    """
    if k < 0:
        raise InputError(f"k = {k} refinement rounds: must be 0 or more")

    def init() -> Int[Array, ""]:
        return jnp.int32(0)

    def update(rounds: Int[Array, ""], seen: Observation) -> tuple[Int[Array, ""], Decision]:
        return rounds + 1, Decision(rounds >= k, seen.answer_id, jnp.float32(jnp.nan))

    return StoppingRule(init, update)
