"""Maxima of smooth functions of two variables, many at once, by a safeguarded Newton method."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["Ascent", "maximise", "positive_curvature"]


class Ascent(NamedTuple):
    """How to climb: slopes, and entries (1, 1), (1, 2), (2, 2) of a matrix of downward curvature.

    `rounding` is the part of the slope along a step that may be due to rounding alone.
    """

    gradient: tuple[Array, Array]
    curvature: tuple[Array, Array, Array]
    rounding: Array | float = 0.0


class _Search(NamedTuple):
    """The best point so far, the step from there, its slope and the share of it to try next."""

    point: tuple[Array, Array]
    step: tuple[Array, Array]
    slope: Array
    share: Array
    done: Array


def maximise(
    climb: Callable[[Array, Array], Ascent],
    start: tuple[Array, Array],
    lower: Array | float = -jnp.inf,
    longest: tuple[float, float] = (jnp.inf, jnp.inf),
) -> tuple[Array, Array]:
    """Maximum of a function of two variables, the second of which is >= `lower`, elementwise.

    A Newton step is taken whole, or shortened until the slope at its end, along the step, is no
    steeper downhill than half of what it was uphill at its start. Slopes alone are compared: they
    keep their accuracy at the top, where differences of values are all rounding.
    """
    eps = float(jnp.finfo(start[0].dtype).eps)
    margin = jnp.asarray(lower) + 1e-5 * jnp.where(jnp.isinf(lower), 0, jnp.abs(lower))

    def unfinished(now: tuple[Array, _Search]) -> Array:
        return (now[0] < 100) & ~jnp.all(now[1].done)

    def advance(now: tuple[Array, _Search]) -> tuple[Array, _Search]:
        evaluations, old = now
        first, second = (x + old.share * d for x, d in zip(old.point, old.step, strict=True))
        second = jnp.where(second <= margin, lower, second)
        (g1, g2), (h11, h12, h22), rounding = climb(first, second)
        accepted = g1 * old.step[0] + g2 * old.step[1] >= -old.slope / 2
        determinant = h11 * h22 - h12**2
        d1 = (h22 * g1 - h12 * g2) / determinant
        d2 = (h11 * g2 - h12 * g1) / determinant
        held = (second <= margin) & ~(d2 > 0)
        regular = (determinant > 0) & ~held
        d1 = jnp.where(regular, d1, g1 / h11)
        d2 = jnp.where(regular, d2, jnp.where(held, 0, g2 / h22))
        slope = g1 * d1 + g2 * d2
        excess = jnp.maximum(jnp.abs(d1) / longest[0], jnp.abs(d2) / longest[1])
        share = 1 / jnp.maximum(1, excess)
        share = jnp.where(second + share * d2 < lower, (lower - second) / d2, share)
        new = _Search((first, second), (d1, d2), slope, share, slope <= eps + rounding)
        shorter = old._replace(share=old.share / 4)
        found = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, shorter)
        found = jax.tree.map(lambda a, b: jnp.where(old.done, a, b), old, found)
        return evaluations + 1, found

    zero = jnp.zeros_like(start[0])
    nothing = _Search(start, (zero, zero), zero, zero, jnp.zeros_like(zero, bool))
    _, found = jax.lax.while_loop(unfinished, advance, (jnp.int32(0), nothing))
    # The last step is worth taking: it squares what error is left.
    first, second = (x + found.share * d for x, d in zip(found.point, found.step, strict=True))
    return first, jnp.maximum(second, lower)


def positive_curvature(
    observed: tuple[Array, Array, Array], expected: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    """The observed curvature with its eigenvalues made positive, so that its step leads uphill.

    Eigenvalues are those in units in which the expected curvature has a diagonal of ones; a
    symmetric matrix H becomes the square root of H^2.
    """
    unit1, unit2 = jnp.sqrt(expected[0]), jnp.sqrt(expected[2])
    h11, h12, h22 = observed[0] / unit1**2, observed[1] / (unit1 * unit2), observed[2] / unit2**2
    determinant = jnp.abs(h11 * h22 - h12**2)
    root_trace = jnp.sqrt(h11**2 + 2 * h12**2 + h22**2 + 2 * determinant)
    return (
        (h11**2 + h12**2 + determinant) / root_trace * unit1**2,
        h12 * (h11 + h22) / root_trace * unit1 * unit2,
        (h22**2 + h12**2 + determinant) / root_trace * unit2**2,
    )
