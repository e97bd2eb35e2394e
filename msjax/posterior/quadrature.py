"""Posteriors that fall into independent factors of one to three parameters, by quadrature.

Given its first answer, what a question does in the state I and what it does in C are independent
in many models (`Model.factors`), so a posterior of seven parameters is a product of factors of at
most three. Each is put on a grid that is even in the quantiles of its prior, so that the weights of
the midpoint rule are the likelihood alone, and narrowed until it holds what has mass. Nothing is
compiled, draws are independent, and the probability of the data comes with them.

Reference: docs/theory.md F1, F3.
"""

import itertools
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float

from msjax.posterior.models.model import Draws, Factor

_NODES = {1: 400, 2: 80, 3: 36}
"""Nodes along each axis, by the number of axes."""
_NEGLIGIBLE = 1e-6
"""Mass that may lie beyond each end of an axis."""
_SETTLED = 0.9
"""Share of an axis that must be kept for the grid to count as narrow enough."""
_NARROWINGS = 60
_SPREAD = 3.0
"""Nodes along each axis that must share the mass before a grid is narrowed to them; where the
likelihood is sharper, it is flattened first, so that the grid does not lose it."""


class Grid(NamedTuple):
    """The posterior of one factor: probabilities of cells, and the logarithm of its evidence.

    `edges[i]` bounds the cells of parameter i in quantiles of its prior.
    """

    factor: Factor
    edges: tuple[Float[np.ndarray, " edge"], ...]
    probability: Float[np.ndarray, " *cell"]
    log_evidence: float

    def draw(self, random: np.random.Generator, draws: int) -> Draws:
        """Independent draws of the factor's parameters, uniform within cells."""
        up_to = np.cumsum(self.probability.ravel())
        cell = np.searchsorted(up_to / up_to[-1], random.random(draws), side="right")
        index = np.unravel_index(cell, self.probability.shape)
        found = {}
        for name, prior, edges, i in zip(
            self.factor.parameters, self.factor.priors, self.edges, index, strict=True
        ):
            quantile = edges[i] + random.random(draws) * (edges[i + 1] - edges[i])
            found[name] = np.asarray(prior.ppf(quantile), dtype=float)
        return found


def integrate(factor: Factor) -> Grid:
    """The posterior of a factor on a grid that holds all but a millionth at each end of an axis."""
    dimensions = len(factor.parameters)
    nodes = _NODES[dimensions]
    ends = [(0.0, 1.0)] * dimensions
    for _ in range(_NARROWINGS):
        edges = tuple(np.linspace(low, high, nodes + 1) for low, high in ends)
        log_likelihood = _on_grid(factor, edges)
        weight, flattened = _weights(log_likelihood, _SPREAD**dimensions)
        kept = [_bulk(weight, axis) for axis in range(dimensions)]
        narrow = all(last - first >= _SETTLED * nodes for first, last in kept)
        if narrow and not flattened:
            break
        ends = [(x[first], x[last]) for x, (first, last) in zip(edges, kept, strict=True)]
    volume = sum(np.log(x[1] - x[0]) for x in edges)
    return Grid(factor, edges, weight, float(scipy.special.logsumexp(log_likelihood) + volume))


def _on_grid(
    factor: Factor, edges: tuple[Float[np.ndarray, " edge"], ...]
) -> Float[np.ndarray, " *cell"]:
    middles = [
        prior.ppf((x[1:] + x[:-1]) / 2) for prior, x in zip(factor.priors, edges, strict=True)
    ]
    open_grid = np.meshgrid(*middles, indexing="ij", sparse=True)
    values = factor.log_likelihood(dict(zip(factor.parameters, open_grid, strict=True)))
    return np.broadcast_to(values, tuple(len(x) - 1 for x in edges))


def _weights(
    log_likelihood: Float[np.ndarray, " *cell"], spread: float
) -> tuple[Float[np.ndarray, " *cell"], bool]:
    """Probabilities of cells, of a power of the likelihood if too few cells would share them."""
    for halvings in itertools.count():
        weight = np.exp((log_likelihood - log_likelihood.max()) / 2**halvings)
        weight /= weight.sum()
        if 1 / (weight**2).sum() >= spread:
            return weight, halvings > 0
    raise AssertionError


def _bulk(weight: Float[np.ndarray, " *cell"], axis: int) -> tuple[int, int]:
    """First cell to keep and the first not to, along an axis, with one to spare at each end."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    up_to = np.cumsum(weight.sum(axis=others))
    first = int(np.searchsorted(up_to, _NEGLIGIBLE))
    last = int(np.searchsorted(up_to, 1 - _NEGLIGIBLE)) + 1
    return max(first - 1, 0), min(last + 1, len(up_to))
