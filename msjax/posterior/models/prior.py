"""Priors of single parameters, as NumPyro samples them and as quadrature divides them up."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpyro.distributions as dist
import scipy.stats
from jaxtyping import Float
from scipy.stats.distributions import rv_frozen

from msjax.errors import InputError

__all__ = ["Prior", "beta", "half_normal", "normal", "prior_of", "uniform"]

_ARGUMENTS = {
    "uniform": ("low", "high"),
    "beta": ("concentration1", "concentration0"),
    "normal": ("loc", "scale"),
    "halfnormal": ("scale",),
}
"""Families, and the names that NumPyro gives their parameters."""
_SMALLEST = 1e-12
"""Quantiles of a Beta distribution stay this far from 0 and 1, where logarithms end."""


@dataclass(frozen=True)
class Prior:
    """The prior distribution of one parameter.

    Attributes:
        family: "uniform" (low, high), "beta" (a, b), "normal" (mean, sd) or "halfnormal" (sd).
        parameters: of the distribution, in this order.
    """

    family: str
    parameters: tuple[float, ...]

    def __str__(self) -> str:
        title = {"halfnormal": "HalfNormal"}.get(self.family, self.family.capitalize())
        return f"{title}({', '.join(f'{x:g}' for x in self.parameters)})"

    def numpyro(self) -> dist.Distribution:
        """The distribution to sample from."""
        families = {
            "uniform": dist.Uniform,
            "beta": dist.Beta,
            "normal": dist.Normal,
            "halfnormal": dist.HalfNormal,
        }
        return families[self.family](*self.parameters)

    def scipy(self) -> rv_frozen:
        """The distribution to take quantiles of."""
        if self.family == "uniform":
            low, high = self.parameters
            return scipy.stats.uniform(low, high - low)
        if self.family == "halfnormal":
            return scipy.stats.halfnorm(0, *self.parameters)
        families = {"beta": scipy.stats.beta, "normal": scipy.stats.norm}
        return families[self.family](*self.parameters)

    def ppf(self, q: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
        """Quantiles."""
        found = np.asarray(self.scipy().ppf(q), dtype=float)
        return np.clip(found, _SMALLEST, 1 - _SMALLEST) if self.family == "beta" else found

    @property
    def support(self) -> tuple[float, float]:
        """The interval on which it has density."""
        low, high = self.scipy().support()
        return float(low), float(high)

    @property
    def as_beta(self) -> tuple[float, float] | None:
        """The parameters of the Beta distribution that it is, if it is one."""
        if self.family == "beta":
            return self.parameters[0], self.parameters[1]
        return (1.0, 1.0) if self == uniform(0, 1) else None


def uniform(low: int | float, high: int | float) -> Prior:
    """Uniform between two ends."""
    return Prior("uniform", (float(low), float(high)))


def beta(a: int | float, b: int | float) -> Prior:
    """Beta(a, b): as if a successes and b failures were known, less one each."""
    return Prior("beta", (float(a), float(b)))


def normal(mean: int | float, sd: int | float) -> Prior:
    """Normal with this mean and standard deviation."""
    return Prior("normal", (float(mean), float(sd)))


def half_normal(sd: int | float) -> Prior:
    """The absolute value of a normal number with mean 0."""
    return Prior("halfnormal", (float(sd),))


def prior_of(parameter: str, given: Any) -> Prior:
    """The prior that was given for a parameter.

    Args:
        parameter: its name, for messages.
        given: text ("beta:1,99"), a distribution of NumPyro (`Beta(1, 99)`) or of SciPy
            (`scipy.stats.beta(1, 99)`), or a `Prior`.

    Raises InputError for another distribution, or parameters out of range.
    """
    found = _read(given)
    if found is None or len(found.parameters) != len(_ARGUMENTS[found.family]):
        raise InputError(
            f"prior of {parameter} is {given!r}; give uniform:LOW,HIGH, beta:A,B, normal:MEAN,SD "
            "or halfnormal:SD, or such a distribution of NumPyro or SciPy"
        )
    positive = {"beta": found.parameters, "normal": found.parameters[1:]}
    wrong = any(x <= 0 for x in positive.get(found.family, ()))
    wrong |= found.family == "halfnormal" and found.parameters[0] <= 0
    wrong |= found.family == "uniform" and not found.parameters[0] < found.parameters[-1]
    if wrong or not all(map(math.isfinite, found.parameters)):
        raise InputError(
            f"prior of {parameter} is {found}; a, b and standard deviations must be positive, "
            "LOW below HIGH, and all of them finite"
        )
    return found


def _read(given: Any) -> Prior | None:
    if isinstance(given, Prior):
        return given if given.family in _ARGUMENTS else None
    if isinstance(given, str):
        family, _, numbers = given.partition(":")
        try:
            parameters = tuple(float(x) for x in numbers.split(","))
        except ValueError:
            return None
        return Prior(family.lower(), parameters) if family.lower() in _ARGUMENTS else None
    if isinstance(given, rv_frozen):
        return _of_scipy(given)
    family = type(given).__name__.lower()
    if isinstance(given, dist.Distribution) and family in _ARGUMENTS and not given.batch_shape:
        return Prior(family, tuple(float(getattr(given, x)) for x in _ARGUMENTS[family]))
    return None


def _of_scipy(given: rv_frozen) -> Prior | None:
    shapes, loc, scale = given.dist._parse_args(*given.args, **given.kwds)
    shapes, loc, scale = tuple(map(float, shapes)), float(loc), float(scale)
    kind = given.dist.name
    if kind == "uniform":
        return uniform(loc, loc + scale)
    if kind == "norm":
        return normal(loc, scale)
    if kind == "beta" and (loc, scale) == (0.0, 1.0):
        return beta(*shapes)
    if kind == "halfnorm" and loc == 0.0:
        return half_normal(scale)
    return None


def in_words(priors: Mapping[str, Prior]) -> str:
    """All of them in one line, parameters of one prior together."""
    together: dict[Prior, list[str]] = {}
    for name, prior in priors.items():
        together.setdefault(prior, []).append(name)
    return "; ".join(f"{', '.join(names)} ~ {prior}" for prior, names in together.items())
