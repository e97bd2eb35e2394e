"""Independent draws from posteriors that are nearly normal, by importance sampling.

The posterior, in coordinates without limits, is drawn from around its mode m by Student's
distribution with 5 degrees of freedom and the curvature H at the mode, m + H^-1/2 t; draws are
reweighted by posterior over proposal, the greatest weights smoothed by a generalised Pareto
distribution (PSIS), and resampled. The shape k of that distribution says whether it works: above
0.7 the proposal is moved to the mean and covariance of what it found, three times, before it is
given up.

Reference: docs/theory.md F1; Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed
importance sampling.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import scipy.optimize
import scipy.special
import scipy.stats
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import biject_to
from numpyro.infer.util import constrain_fn, potential_energy

from msjax.posterior.models.model import Draws, Model, Parameters

__all__ = ["Importance", "importance_sample"]

_PROPOSALS, _FREEDOM, _WIDER, _ROUNDS = 4096, 5.0, 1.1, 4
_FARTHEST = 6.0
"""Farthest coordinate of a mode: a probability of .0025, a standard deviation of .0025 or 400."""
_STEP = 0.02
"""Of differences of slopes, in coordinates of about unit scale."""
_RELIABLE = 0.7
"""Pareto shape up to which importance sampling is reliable at this size."""


class Importance(NamedTuple):
    """Draws [draw], the log-probability of the data, and the shape of the weights."""

    draws: Draws
    log_evidence: float
    pareto_k: float


def importance_sample(
    model: Model,
    statistics: Float[np.ndarray, "row statistic"],
    multiplicity: Float[np.ndarray, " row"],
    random: np.random.Generator,
    draws: int,
) -> Importance | None:
    """`draws` resampled draws of the model's parameters; None where the shape is above 0.7.

    Args:
        model: `largest` of itself, so that models of other runs share what is compiled.
        statistics: of the rows, padded to a common size.
        multiplicity: how often each row occurs.
        random: source of the draws.
        draws: how many.
    """
    from arviz_stats.base import array_stats

    size, unravel = _coordinates(model, statistics.shape[1])
    data = (jnp.asarray(statistics), jnp.asarray(multiplicity))

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        found, slope = _value_and_slope(model, unravel, jnp.asarray(x, jnp.float32), *data)
        if not np.isfinite(found):
            return 1e9, np.zeros(size)
        return float(found), np.nan_to_num(np.asarray(slope, dtype=float))

    limits = [(-_FARTHEST, _FARTHEST)] * size
    found = scipy.optimize.minimize(
        value, np.zeros(size), jac=True, method="L-BFGS-B", bounds=limits
    )
    mode, step = found.x, _STEP * np.eye(size)
    curvature = np.stack([value(mode + s)[1] - value(mode - s)[1] for s in step]) / (2 * _STEP)
    curvature = np.where(np.isfinite(curvature), curvature, np.eye(size))
    values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
    # Flat directions are as wide as the priors, whose coordinates have about unit scale.
    scale = vectors * (_WIDER / np.sqrt(np.maximum(values, 0.1)))
    for _ in range(_ROUNDS):
        normal = random.standard_normal((_PROPOSALS, size))
        chi = random.chisquare(_FREEDOM, _PROPOSALS) / _FREEDOM
        points = mode + (normal / np.sqrt(chi)[:, None]) @ scale.T
        proposal = scipy.stats.multivariate_t(mode, scale @ scale.T, df=_FREEDOM)
        energy, drawn = _energies(model, unravel, jnp.asarray(points, jnp.float32), *data)
        log_weight = -np.asarray(energy, float) - proposal.logpdf(points)
        log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
        smooth, shape = array_stats.psislw(-log_weight)
        if shape <= _RELIABLE:
            break
        # Around the mean of what was found, and as wide as that.
        weight = scipy.special.softmax(np.asarray(smooth))
        mode = weight @ points
        apart = points - mode
        scale = _WIDER * np.linalg.cholesky((apart.T * weight) @ apart + 1e-6 * np.eye(size))
    else:
        return None
    weight = scipy.special.softmax(np.asarray(smooth))
    # Systematic resampling, then shuffled: as few repetitions as the weights allow.
    at = np.searchsorted(np.cumsum(weight), (random.random() + np.arange(draws)) / draws)
    chosen = random.permutation(np.minimum(at, _PROPOSALS - 1))
    evidence = float(scipy.special.logsumexp(log_weight) - np.log(_PROPOSALS))
    kept = {name: np.asarray(drawn[name], float)[chosen] for name in model.parameters}
    return Importance(kept, evidence, float(shape))


def _joint(model: Model, statistics: Array, multiplicity: Array) -> None:
    from msjax.posterior.sample import joint

    free = {name: jnp.float32(1) for name in model.parameters}
    joint(model, free, statistics, multiplicity)


@cache
def _coordinates(model: Model, width: int) -> tuple[int, Any]:
    """Number of coordinates without limits, and the sites of NumPyro from a vector of them."""
    seeded = numpyro.handlers.seed(_joint, jax.random.key(0))

    def free() -> dict[str, Array]:
        sites = numpyro.handlers.trace(seeded).get_trace(model, jnp.zeros((1, width)), jnp.zeros(1))
        return {
            name: biject_to(site["fn"].support).inv(site["value"])
            for name, site in sites.items()
            if site["type"] == "sample" and not site["is_observed"]
        }

    shapes = jax.eval_shape(free)
    flat, unravel = ravel_pytree(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
    return len(flat), unravel


def _energy(model: Model, unravel: Any, x: Array, statistics: Array, multiplicity: Array) -> Array:
    """Minus the log of posterior density times the probability of the data."""
    return potential_energy(_joint, (model, statistics, multiplicity), {}, unravel(x))


@partial(jax.jit, static_argnums=(0, 1))
def _value_and_slope(model: Model, unravel: Any, x: Array, *data: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(lambda x: _energy(model, unravel, x, *data))(x)


@partial(jax.jit, static_argnums=(0, 1))
def _energies(model: Model, unravel: Any, points: Array, *data: Array) -> tuple[Array, Parameters]:
    def one(x: Array) -> tuple[Array, dict[str, Array]]:
        args = (model, *data)
        values = constrain_fn(_joint, args, {}, unravel(x), return_deterministic=True)
        kept = {name: values[name] for name in model.parameters}
        return _energy(model, unravel, x, *data), kept

    return jax.lax.map(one, points, batch_size=16)
