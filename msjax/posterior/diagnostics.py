"""May draws be used? R-hat, bulk and tail ESS, divergences; Pareto shapes of importance weights."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import scipy.special
from jaxtyping import Float

from msjax.posterior.sample import Sample

MAX_R_HAT = 1.01
MIN_ESS = 400
HIGH_PARETO_K = 0.7
"""Pareto shape beyond which an importance-sampling estimate is not to be trusted."""


@dataclass(frozen=True)
class Diagnostics:
    """Rank-normalised split R-hat, bulk and tail ESS of every parameter, and divergences.

    Reference: Vehtari et al. (2021), Rank-normalization, folding, and localization.
    """

    r_hat: dict[str, float]
    bulk_ess: dict[str, float]
    tail_ess: dict[str, float]
    divergences: int

    @property
    def failures(self) -> list[str]:
        """Why the draws cannot be used, in words; empty for a sound sample."""
        found = []
        if self.divergences:
            found.append(f"{self.divergences} divergent transitions")
        name = max(self.r_hat, key=lambda name: np.nan_to_num(self.r_hat[name], nan=np.inf))
        if not self.r_hat[name] <= MAX_R_HAT:
            found.append(f"R-hat of {name} is {self.r_hat[name]:.3f} (at most {MAX_R_HAT})")
        for title, sizes in (("bulk", self.bulk_ess), ("tail", self.tail_ess)):
            name = min(sizes, key=lambda name: np.nan_to_num(sizes[name], nan=0))
            if not sizes[name] >= MIN_ESS:
                found.append(f"{title} ESS of {name} is {sizes[name]:.0f} (at least {MIN_ESS})")
        return found


def diagnose(sample: Sample) -> Diagnostics:
    """Diagnostics of a sample, which is refused or trusted by `Diagnostics.failures`."""
    # Slow to import, and what needs no sampler needs not this.
    from arviz_stats.base import array_stats

    draws = sample.draws.items()
    tail = {"method": "tail", "prob": (0.05, 0.95)}
    return Diagnostics(
        r_hat={name: float(array_stats.rhat(x)) for name, x in draws},
        bulk_ess={name: float(array_stats.ess(x, method="bulk")) for name, x in draws},
        tail_ess={name: float(array_stats.ess(x, **tail)) for name, x in draws},
        divergences=int(np.sum(sample.stats.get("diverging", 0))),
    )


def pareto_smoothed(
    log_weight: Float[np.ndarray, "sample draw"],
) -> tuple[Float[np.ndarray, "sample draw"], Float[np.ndarray, " sample"]]:
    """Logarithms of importance weights, smoothed so that the weights sum to 1, and Pareto shapes.

    The shape is 0 where the largest weights are equal, so that no few draws decide, and inf where
    none can be fitted.

    Reference: Vehtari et al. (2024), Pareto smoothed importance sampling.
    """
    from arviz_stats.base import array_stats

    # The tail is fitted to weights, not to their logarithms, and must not overflow.
    below = log_weight - log_weight.max(axis=1, keepdims=True)
    smoothed = below - scipy.special.logsumexp(below, axis=1, keepdims=True)
    shape = np.full(len(below), np.inf)
    for i, row in enumerate(below):
        if np.sum(row == 0) >= np.floor(min(3 * np.sqrt(row.size), row.size / 5)):
            shape[i] = 0  # the whole tail, which is so long
            continue
        # ArviZ refuses fewer draws than it needs, and divides by nought where one weight is all.
        with suppress(ValueError), np.errstate(all="ignore"):
            found, fitted = array_stats.psislw(-row)
            if np.isfinite(found).all() and np.isfinite(fitted):
                smoothed[i], shape[i] = found, fitted
    return smoothed, shape
