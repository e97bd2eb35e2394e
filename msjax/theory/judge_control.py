"""The best loop with a judge: stop, ask it again, revise, or start over.

Two answers matter: the current one, which may still be revised, and the incumbent, which is kept
to be returned in its place. They are not independent, for one came of the other, so what is
believed is their joint distribution: c = P(incumbent right), u = P(current right | incumbent
right) and w = P(current right | incumbent wrong).

docs/theory.md H6 derives what follows.
"""

import enum
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int8, Real

from msjax.errors import InputError, require, require_probability, require_value_and_cost
from msjax.theory.chain import TwoStateChain
from msjax.theory.judge import Judge

__all__ = ["Action", "LoopControl", "LoopCosts", "best_loop"]


class Action(enum.IntEnum):
    """What may be done; `KEEPING` leaves the incumbent, otherwise the current answer takes its
    place first.
    """

    STOP = 0
    ASK = 1
    REVISE = 2
    REVISE_KEEPING = 3
    RESTART = 4
    RESTART_KEEPING = 5


class LoopCosts(NamedTuple):
    """What each action costs, in the unit of the value of a right answer; infinite is forbidden."""

    verdict: Real[ArrayLike, ""]
    revision: Real[ArrayLike, ""]
    restart: Real[ArrayLike, ""] = float("inf")


class LoopControl(NamedTuple):
    """The solved problem: entry [h, i, j, l] is for h actions left, at c, u, w of the grid.

    Attributes:
        beliefs: the grid (probability), from 0 to 1, the same for c, u and w.
        value_to_go: value expected from here on under the best rule, in units of `value`.
        action: the `Action` that attains it; with none left it is `STOP`.
    """

    beliefs: Float[Array, "grid"]
    value_to_go: Float[Array, "horizon_plus_1 grid grid grid"]
    action: Int8[Array, "horizon_plus_1 grid grid grid"]

    def value_at(
        self,
        left: int,
        incumbent: Real[ArrayLike, ""],
        if_right: Real[ArrayLike, ""],
        if_wrong: Real[ArrayLike, ""],
    ) -> Float[Array, ""]:
        """Value with so many actions left at c, u, w, interpolated between points of the grid.

        After the first answer, which is current and incumbent, that is p0, 1 and 0.
        """
        return _interpolated(self.value_to_go[left], self.beliefs, (incumbent, if_right, if_wrong))


def best_loop(
    chain: TwoStateChain,
    judge: Judge,
    value: Real[ArrayLike, ""],
    costs: LoopCosts,
    horizon: int,
    grid_size: int = 33,
) -> LoopControl:
    """The best rule of all that see only verdicts, when at most `horizon` actions may be taken.

    V_0(c, u, w) = value max(c, b), b = c u + (1 - c) w,
    V_h = max(V_0, -cost + E[V_(h-1)(c', u', w')]) over asking for one more verdict on the current
    answer (Bayes' rule), a revision (u' = p_ic + r u, w' likewise) and a fresh answer
    (u' = w' = p0), the last two with either answer as the incumbent.

    Verdicts on one answer are independent given whether it is right. In each of c, u and w the
    value is convex, so that interpolating it between the points of a grid gives an upper bound,
    which falls to V_h as the grid gets finer. Stopping wins ties, to within rounding.

    Args:
        chain: a scalar chain (`vmap` for more).
        judge: its rates, scalars.
        value: value of a right answer, > 0, in any unit (tokens, say).
        costs: of a verdict, a revision and a fresh answer, in the same unit, >= 0.
        horizon: the most actions after the first answer, >= 0.
        grid_size: equally spaced points of each of c, u and w, >= 2.

    Returns: `LoopControl`.

    Raises:
        InputError: a chain or rates that are not scalar, a rate outside [0, 1] or NaN, value <= 0,
            a cost < 0, horizon < 0 or grid_size < 2.

    Reference: docs/theory.md H6.
    """
    rates = {f"judge.{name}": rate for name, rate in judge._asdict().items()}
    if any(np.ndim(x) for x in (chain.p0, *judge)):
        raise InputError("chain or judge is not scalar; give one of each, or use jax.vmap")
    for name, rate in rates.items():
        require_probability(name, rate)
    require_value_and_cost(value)
    for name, cost in costs._asdict().items():
        require(f"costs.{name}", cost, lambda x: x >= 0, "give a cost >= 0 (inf: never)")
    require("horizon", horizon, lambda x: x >= 0, "give a number of actions >= 0")
    require("grid_size", grid_size, lambda x: x >= 2, "give a number of beliefs >= 2")
    return _solved(chain, judge, value, costs, horizon, grid_size)


@partial(jax.jit, static_argnames=("horizon", "grid_size"))
def _solved(
    chain: TwoStateChain,
    judge: Judge,
    value: Real[ArrayLike, ""],
    costs: LoopCosts,
    horizon: int,
    grid_size: int,
) -> LoopControl:
    """`best_loop` of checked arguments."""
    dtype = chain.dtype
    worth = jnp.asarray(value, dtype)
    grid = jnp.linspace(0, 1, grid_size, dtype=dtype)
    step = _actions(chain, judge, LoopCosts(*(jnp.asarray(x, dtype) for x in costs)), grid)
    c, _, _, b = _axes(grid)
    stop = worth * jnp.maximum(jnp.broadcast_to(c, b.shape), b)
    slack = 16 * jnp.finfo(dtype).eps * worth

    def back(later: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        ways = jnp.concatenate([stop[None], step(later)])
        favoured = ways.at[0].add(slack)
        best = jnp.max(ways, axis=0)
        return best, (best, jnp.argmax(favoured, axis=0).astype(jnp.int8))

    _, (values, actions) = jax.lax.scan(back, stop, length=horizon)
    none = jnp.zeros((1, *stop.shape), jnp.int8)
    return LoopControl(
        grid, jnp.concatenate([stop[None], values]), jnp.concatenate([none, actions])
    )


@jax.jit
def _interpolated(
    values: Float[Array, "grid grid grid"], beliefs: Float[Array, "grid"], at: tuple
) -> Float[Array, ""]:
    weights = (_hat(beliefs, x)[0] for x in at)
    return jnp.einsum("cuw,c,u,w->", values, *weights, precision="highest")


def _axes(grid: Array) -> tuple[Array, Array, Array, Array]:
    """c, u, w along their axes, and b of the shape of all."""
    c, u, w = grid[:, None, None], grid[None, :, None], grid[None, None, :]
    return c, u, w, c * u + (1 - c) * w


def _hat(grid: Array, x: Real[ArrayLike, "..."]) -> Float[Array, "points grid"]:
    """Weights of the points of the grid that interpolate linearly at x."""
    apart = jnp.abs(jnp.atleast_1d(x)[:, None] - grid[None]) * (len(grid) - 1)
    return jnp.maximum(0, 1 - apart)


def _actions(
    chain: TwoStateChain, judge: Judge, costs: LoopCosts, grid: Array
) -> Callable[[Array], Array]:
    """A function from V_(h-1) to the value of every action but stopping, in their order."""
    c, u, w, b = _axes(grid)
    p0, p_ic, p_ci = chain.p0, chain.p_ic, chain.p_ci
    s, f = (jnp.asarray(rate, grid.dtype) for rate in judge)
    at_p0, at_kept, at_repaired = (_hat(grid, x)[0] for x in (p0, 1 - p_ci, p_ic))
    revised = _hat(grid, grid * (1 - p_ci) + (1 - grid) * p_ic)
    shape = b.shape
    verdicts = []
    for right, wrong in ((s, f), (1 - s, 1 - f)):
        seen = grid * right + (1 - grid) * wrong
        posterior = jnp.where(seen > 0, grid * right / jnp.where(seen > 0, seen, 1), grid)
        if_right, if_wrong = u * right + (1 - u) * wrong, w * right + (1 - w) * wrong
        likely = c * if_right + (1 - c) * if_wrong
        incumbent = jnp.where(likely > 0, c * if_right / jnp.where(likely > 0, likely, 1), c)
        place = jnp.broadcast_to(incumbent, shape) * (len(grid) - 1)
        low = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, len(grid) - 2)
        verdicts.append((jnp.broadcast_to(likely, shape), _hat(grid, posterior), low, place - low))

    def values(later: Array) -> Float[Array, "action grid grid grid"]:
        asked = jnp.zeros(shape, grid.dtype)
        for likely, moved, low, share in verdicts:
            after = jnp.einsum("cuw,iu,jw->cij", later, moved, moved, precision="highest")
            below, above = (jnp.take_along_axis(after, low + i, axis=0) for i in (0, 1))
            asked += likely * (below + share * (above - below))

        def replaced(if_right: Array, if_wrong: Array) -> Array:
            line = jnp.einsum("cuw,u,w->c", later, if_right, if_wrong, precision="highest")
            return jnp.interp(b, grid, line)

        fresh = jnp.einsum("cuw,u,w->c", later, at_p0, at_p0, precision="highest")
        return jnp.stack(
            [
                asked - costs.verdict,
                replaced(at_kept, at_repaired) - costs.revision,
                jnp.einsum("cuw,iu,jw->cij", later, revised, revised, precision="highest")
                - costs.revision,
                replaced(at_p0, at_p0) - costs.restart,
                jnp.broadcast_to(fresh[:, None, None], shape) - costs.restart,
            ]
        )

    return values
