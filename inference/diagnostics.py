"""Did the sampler work? R-hat, bulk and tail ESS, divergences."""

from dataclasses import dataclass

import numpy as np

from inference.sample import Sample

MAX_R_HAT = 1.01
MIN_ESS = 400


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
    import arviz

    return Diagnostics(
        r_hat={name: float(arviz.rhat(x)) for name, x in sample.draws.items()},
        bulk_ess={name: float(arviz.ess(x, method="bulk")) for name, x in sample.draws.items()},
        tail_ess={name: float(arviz.ess(x, method="tail")) for name, x in sample.draws.items()},
        divergences=int(np.sum(sample.stats.get("diverging", 0))),
    )
