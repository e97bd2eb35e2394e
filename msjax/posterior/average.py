"""Draws of an average over models: from each in proportion to its weight."""

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
from jaxtyping import Float

from msjax.posterior.compare import Candidate
from msjax.posterior.fits import Fit
from msjax.posterior.quantities import Quantities
from msjax.posterior.sample import Sample

DRAWS = 1000
MATERIAL = 0.05
"""Weight from which a model counts by itself: in ranges over models, and in their criticism."""


def apportion(weights: Sequence[float], total: int) -> list[int]:
    """`total` draws shared out in proportion to the weights, by largest remainders."""
    exact = np.asarray(weights, dtype=float) / np.sum(weights) * total
    shares = np.floor(exact).astype(int)
    largest = np.argsort(shares - exact, kind="stable")
    shares[largest[: total - shares.sum()]] += 1
    return shares.tolist()


def part(fit: Fit, draws: int) -> Fit:
    """A fit with the first of its draws only."""
    few = {name: x[None, :draws] for name, x in fit.draws.items()}
    return replace(fit, sample=Sample(few, {}))


def average_accuracy(
    candidates: Sequence[Candidate], rounds: int
) -> Float[np.ndarray, "draw rounds_plus_1"]:
    """Draws of E[p_0], ..., E[p_rounds], averaged; those of a prior where not identified."""
    fits = [c.fit for c in candidates if c.fit]
    if len(fits) == 1:
        return fits[0].model.curves(fits[0].draws, rounds).mean_accuracy
    shares = apportion([c.weight for c in candidates if c.fit], DRAWS)
    return np.concatenate(
        [
            fit.model.curves(part(fit, share).draws, rounds).mean_accuracy
            for fit, share in zip(fits, shares, strict=True)
            if share
        ]
    )


def average(by_model: Sequence[Quantities], weights: Sequence[float]) -> Quantities:
    """Draws of the average; NaN in those of a model that says nothing of a quantity.

    Draws of a model must be in no order, or it must be the only one.
    """
    if len(by_model) == 1:
        return by_model[0]
    shares = apportion(weights, DRAWS)
    return jax.tree.map(
        lambda *draws: np.concatenate([x[:n] for x, n in zip(draws, shares, strict=True)]),
        *by_model,
    )
