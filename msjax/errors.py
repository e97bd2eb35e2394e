"""What can be wrong with what was given, a server or an installation; and checks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool


class InputError(ValueError):
    """Bad input: the message names the field, the value found and the remedy.

    Commands turn it into one line on standard error and exit status 2.
    """


class ServerError(OSError):
    """A model server failed, or answers what cannot be used: the message names it and the remedy.

    What a run recorded before stays, and the same command goes on from there. Commands report it
    like any other `OSError`: one line on standard error and exit status 2.
    """


class MissingExtraError(ImportError):
    """An optional package is not installed: the message is the command that installs it.

    Commands turn it into one line on standard error and exit status 2.
    """


def require_extra(extra: str, *packages: str) -> None:
    """Raise `MissingExtraError` unless the packages, which `msjax[extra]` brings, are installed.

    Args:
        extra: name of a group of optional dependencies, such as "local".
        packages: names as they are imported.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(
                f"{package} is not installed; install it with `pip install 'msjax[{extra}]'`"
            )


def require(
    name: str, value: Any, holds: Callable[[np.ndarray], Bool[np.ndarray, "..."]], remedy: str
) -> None:
    """Raise `InputError` at the first concrete element of `value` for which `holds` is false."""
    import numpy as np

    # Where JAX was not imported nothing is traced, and commands that do without it stay quick.
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(value, jax.core.Tracer):
        return
    array = np.asarray(value)
    good = holds(array)
    if np.all(good):
        return
    index = tuple(int(i) for i in np.argwhere(~good)[0])
    label = f"{name}[{', '.join(map(str, index))}]" if index else name
    raise InputError(f"{label} is {array[index]}; {remedy}")


def require_probability(name: str, value: Any) -> None:
    """Raise `InputError` unless `value`, an array or a number, lies in [0, 1]."""
    require(name, value, lambda x: (x >= 0) & (x <= 1), "a probability must lie in [0, 1]")


def require_uncertain(name: str, value: Any) -> None:
    """Raise `InputError` unless `value`, a probability, lies in (0, 1): neither 0 nor 1."""
    require(name, value, lambda x: (x > 0) & (x < 1), "give a probability in (0, 1)")


def require_value_and_cost(value: Any, *, named: str = "value", **cost: Any) -> None:
    """Raise `InputError` unless `value`, that of a correct answer, is above 0 and finite, and a
    cost (`cost=`, `costs=`, `price=`) not below 0 and finite.

    Any of them may be None for not given, but a cost without a value.
    """
    for name, x in cost.items():
        if x is None:
            continue
        if value is None:
            raise InputError(
                f"{named} is missing; say what a right answer is worth, since {name} is given"
            )
        remedy = f"give a finite {name} >= 0"
        require(name, x, lambda x: (x >= 0) & (x < float("inf")), remedy)
    if value is not None:
        remedy = "a correct answer must be worth something: give a finite value > 0"
        require(named, value, lambda x: (x > 0) & (x < float("inf")), remedy)
