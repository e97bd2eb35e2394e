"""Fit one model to the runs of one benchmark, and refuse what did not converge."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int8, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.posterior.diagnostics import Diagnostics, diagnose
from msjax.posterior.models.model import Draws, Model
from msjax.posterior.sample import (
    CHAINS,
    DRAWS,
    Sample,
    draw_independently,
    sample_posterior,
)

LONGER = 4
"""So many times the draws are taken if the first ones fail their diagnostics."""
THINNED = 1000
"""Draws that are carried through functions of the parameters."""


class NotConvergedError(RuntimeError):
    """The sampler failed its diagnostics, so its result is not handed out."""


@dataclass(frozen=True)
class Fit:
    """The posterior of one model for one benchmark.

    `diagnostics` are those that its sampler passed, None where draws are independent, and
    `log_evidence` the log-probability of the runs under the model, NaN where it was not computed.
    `identified` says of every parameter whether the runs bear on it; where they do not, its draws
    are draws from the prior.
    """

    count: Runs
    model: Model
    sample: Sample
    diagnostics: Diagnostics | None
    identified: dict[str, bool]
    log_evidence: float = np.nan

    @property
    def runs(self) -> Int8[np.ndarray, "question answer"]:
        """The data the model was fitted to."""
        return self.count.seen_as(self.model.sees)

    @property
    def known(self) -> bool:
        """Whether accuracies and bounds rest on data in all that they need."""
        nuisance = self.model.nuisance
        return all(ok for name, ok in self.identified.items() if name not in nuisance)

    @property
    def draws(self) -> Draws:
        """About 1,000 draws, evenly from all chains, each [draw]."""
        return thin(self.sample)


def fit_model(
    count: Runs,
    model: Model,
    key: PRNGKeyArray,
    *,
    draws: int = DRAWS,
    chains: int = CHAINS,
) -> Fit:
    """Posterior of `model` for the runs of one benchmark.

    Draws are independent where the posterior has a closed form or falls into factors of at most
    three parameters, which are integrated. Else NUTS draws them, once more and four times as long
    if it fails its diagnostics, before it is refused.

    Raises:
        NotConvergedError: divergences, R-hat > 1.01, or bulk or tail ESS < 400.

    Reference: docs/theory.md F1, F3.
    """
    runs = count.require_rounds().seen_as(model.sees)
    identified = model.identified(runs)
    independent = draw_independently(model, runs, key, draws=draws, chains=chains)
    if independent:
        return Fit(count, model, independent.sample, None, identified, independent.log_evidence)
    for many in (draws, LONGER * draws):
        sample = sample_posterior(model, runs, key, draws=many, chains=chains)
        diagnostics = diagnose(sample)
        if not diagnostics.failures:
            break
    else:
        raise NotConvergedError(
            f"{count.name}: the fit of {model.name} is refused: "
            f"{'; '.join(diagnostics.failures)}; take more draws (draws={LONGER * draws} per "
            "chain), another seed, or another model"
        )
    return Fit(count, model, sample, diagnostics, identified)


def thin(sample: Sample) -> Draws:
    """About 1,000 draws, evenly from all chains, each [draw]."""
    flat = sample.flat
    total = len(next(iter(flat.values())))
    step = max(1, total // THINNED)
    return {name: values[::step] for name, values in flat.items()}
