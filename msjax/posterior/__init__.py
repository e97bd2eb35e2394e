"""Posteriors of recorded runs: `fit` is the way in."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msjax.posterior.posterior import Curve, IdentifiedSet, Posterior, Quantity, fit

__all__ = ["Curve", "IdentifiedSet", "Posterior", "Quantity", "fit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module("msjax.posterior.posterior"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
