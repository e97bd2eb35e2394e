"""A claim: one statement of the theory, computed three ways that share no code.

`closed_form` is what the library says, `exact` the same numbers from all paths or from rational
arithmetic, `monte_carlo` what simulation has to say about the predictions it is given. Predictions
are handed in rather than computed there, so that a falsified one can be put in their place.
"""

import dataclasses
import threading
import zlib
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from msjax.errors import InputError
from msjax.verify.evidence import Evidence

__all__ = ["MIN_CHAINS", "Claim", "Laboratory", "compiled"]

MIN_CHAINS = 10_000
"""Fewer chains than this cannot tell the effects of the settings from noise."""

QUICK_OPTIONS: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
}
"""Of XLA: programs that are compiled in half the time, and slower."""

T = TypeVar("T")


def compiled(function: Callable[..., Any], *static: str | int) -> Callable[..., Any]:
    """A function of the library, compiled once for each shape of its arguments.

    What claims say is computed a few times, so that optimising it would take longer.

    Args:
        function: the same object each time, or it is compiled again.
        static: names or positions of arguments that are part of the program.
    """
    return jax.jit(
        function,
        static_argnames=[one for one in static if isinstance(one, str)] or None,
        static_argnums=[one for one in static if isinstance(one, int)] or None,
        compiler_options=quick_options(),
    )


@cache
def quick_options() -> dict[str, Any]:
    """Those of `QUICK_OPTIONS`, unless this XLA does not know one of them."""
    try:
        jax.jit(lambda x: x, compiler_options=QUICK_OPTIONS).lower(0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return QUICK_OPTIONS


class Laboratory:
    """Runs simulations and works out exact values, each once, however often they are looked at.

    Args:
        key: typed random key, consumed.
        n_chains: paths, vote streams or other samples per setting, at least `MIN_CHAINS`.

    Attributes:
        n_chains: as given.
        n_ensemble: a thousand times as many, for ensembles, whose cost does not depend on it.

    Raises:
        InputError: too few chains.
    """

    def __init__(self, key: Key[Array, ""], n_chains: int = 1_000_000) -> None:
        if n_chains < MIN_CHAINS:
            raise InputError(f"chains is {n_chains}; give at least {MIN_CHAINS:,}")
        self.n_chains = n_chains
        self.n_ensemble = 1000 * n_chains
        self._key = key
        self._done: dict[Hashable, Any] = {}
        self._locks: dict[Hashable, threading.Lock] = {}

    def run(self, experiment: Callable[..., T], *setting: Hashable) -> T:
        """`experiment(key, self, *setting)`, from memory if it ran before.

        The key depends on the experiment and its setting alone, so a claim sees the same data
        whichever other claims are checked.
        """
        home = experiment.__module__.rpartition(".")[2]
        name = (home, experiment.__qualname__, setting)
        key = jax.random.fold_in(self._key, zlib.crc32(repr(name).encode()))
        return self._once(name, lambda: experiment(key, self, *setting))

    def exact(self, claim: "Claim", setting: tuple) -> Float[np.ndarray, "m"]:
        """The exact values of a claim at a setting, from memory if they were worked out before."""
        return self._once(
            (claim.exact, setting), lambda: np.ravel(np.asarray(claim.exact(setting), float))
        )

    def _once(self, name: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` returned when it was first asked for; claims ask from several threads."""
        with self._locks.setdefault(name, threading.Lock()):
            if name not in self._done:
                self._done[name] = compute()
            return self._done[name]


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement, where it comes from, and three ways to its numbers.

    Attributes:
        id: section of docs/theory.md and name, such as "A1.transient".
        statement: what is claimed.
        reference: its source.
        settings: parameter settings (tuples) on which it is checked; include the edge regimes.
        closed_form: setting to predictions, a vector; compiled once for all settings, with their
            floats traced and everything else static, unless `compiled` is false.
        exact: setting to the same vector, by enumeration or rational arithmetic.
        monte_carlo: laboratory, setting and predictions to evidence, None where simulation has
            nothing to add at this setting.
        tolerance: largest error allowed between closed form and exact value, relative to
            max(1, |exact|), in float64.
        holds: false for a known error, which the check has to refute.
        compiled: false for a closed form that runs on the host, or compiles what it needs itself.
    """

    id: str
    statement: str
    reference: str
    settings: tuple[tuple, ...]
    closed_form: Callable[[Any], ArrayLike]
    exact: Callable[[Any], ArrayLike]
    monte_carlo: Callable[[Laboratory, Any, Float[np.ndarray, "m"]], Evidence | None]
    tolerance: float = 1e-11
    holds: bool = True
    compiled: bool = True

    @property
    def section(self) -> str:
        """The section of docs/theory.md that makes the claim."""
        return self.id.split(".")[0]
