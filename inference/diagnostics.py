"""Did the sampler work? R-hat, bulk ESS, and agreement of draws with the exact posterior."""

from dataclasses import dataclass

import numpy as np
import scipy.stats
from jaxtyping import Float
from numpyro.diagnostics import effective_sample_size, gelman_rubin

from inference.models import BetaPosterior

MAX_R_HAT = 1.01
MIN_ESS = 400
DISAGREEMENT_FALSE_ALARM = 1e-6
"""Probability, over all comparisons of one fit, of refusing a sampler that is right."""


@dataclass(frozen=True)
class Diagnostics:
    """Sampler diagnostics; arrays are [3, benchmark] in the order p0, p_ic, p_ci.

    `agreement[i]` holds z-scores of NUTS against the exact posterior, for the mean (i = 0) and for
    the probability below the exact 5 % and 95 % quantiles (i = 1, 2); `agreement_limit` is what
    |z| may reach.
    """

    r_hat: Float[np.ndarray, "3 benchmark"]
    bulk_ess: Float[np.ndarray, "3 benchmark"]
    divergences: int
    agreement: Float[np.ndarray, "3 3 benchmark"]
    agreement_limit: float

    @property
    def failures(self) -> list[str]:
        """Why the fit cannot be used, in words; empty for a sound one."""
        found = []
        if self.divergences:
            found.append(f"{self.divergences} divergent transitions")
        if not self.r_hat.max() <= MAX_R_HAT:
            found.append(f"R-hat is {self.r_hat.max():.3f} (at most {MAX_R_HAT})")
        if not self.bulk_ess.min() >= MIN_ESS:
            found.append(f"bulk ESS is {self.bulk_ess.min():.0f} (at least {MIN_ESS})")
        worst = np.abs(self.agreement).max()
        if not worst <= self.agreement_limit:
            found.append(
                f"NUTS is {worst:.1f} Monte Carlo standard errors off the exact posterior "
                f"(at most {self.agreement_limit:.1f})"
            )
        return found


def diagnose(
    draws: Float[np.ndarray, "chain draw 3 benchmark"], divergences: int, exact: BetaPosterior
) -> Diagnostics:
    """Diagnostics of MCMC draws, which are refused or trusted by `Diagnostics.failures`."""
    agreement = _agreement(draws, exact)
    return Diagnostics(
        r_hat=rank_r_hat(draws),
        bulk_ess=effective_sample_size(_rank_normalised(_split(draws))),
        divergences=divergences,
        agreement=agreement,
        agreement_limit=float(scipy.stats.norm.isf(DISAGREEMENT_FALSE_ALARM / 2 / agreement.size)),
    )


def rank_r_hat(draws: Float[np.ndarray, "chain draw *event"]) -> Float[np.ndarray, "*event"]:
    """Rank-normalised split R-hat: the larger of those of the draws and of their folding.

    Reference: Vehtari et al. (2021), Rank-normalization, folding, and localization, eq. 4 and 14.
    """
    split = _split(draws)
    folded = np.abs(split - np.median(split, axis=(0, 1)))
    return np.maximum(gelman_rubin(_rank_normalised(split)), gelman_rubin(_rank_normalised(folded)))


def _split(draws: np.ndarray) -> np.ndarray:
    """Every chain cut in two, so that a drift within a chain shows; an odd draw is dropped."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _rank_normalised(draws: np.ndarray) -> np.ndarray:
    flat = draws.reshape(-1, *draws.shape[2:])
    ranks = scipy.stats.rankdata(flat, axis=0)
    return scipy.stats.norm.ppf((ranks - 0.375) / (len(flat) + 0.25)).reshape(draws.shape)


def _agreement(draws: np.ndarray, exact: BetaPosterior) -> np.ndarray:
    """Z = (Monte Carlo mean - exact) / (sd / sqrt(ESS)), of the draws and of two indicators.

    Comparing P(draw < exact quantile) with its level asks the same as comparing quantiles, and its
    standard error needs no density estimate. The ESS is capped at the number of draws: a larger
    estimate (anticorrelated chains) would make the test sharper than the estimate is reliable.
    """
    total = draws.shape[0] * draws.shape[1]

    def z(values: np.ndarray, mean: np.ndarray | float, sd: np.ndarray | float) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            # A chain that never crosses a quantile leaves its indicator constant, 0 / 0.
            ess = np.nan_to_num(effective_sample_size(_split(values)), nan=total).clip(max=total)
        return (values.mean(axis=(0, 1), dtype=float) - mean) / (sd / np.sqrt(ess))

    rows = [z(draws, exact.mean, exact.sd)]
    for level in (0.05, 0.95):
        below = draws < scipy.stats.beta.ppf(level, exact.alpha, exact.beta)
        rows.append(z(below.astype(float), level, np.sqrt(level * (1 - level))))
    return np.stack(rows)
