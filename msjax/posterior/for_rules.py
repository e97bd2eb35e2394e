"""The posterior as stopping rules take it: draws of accuracy curves, and of one chain's rates.

Gate and N* need the curve alone, which any model has. Beliefs in single answers rest on one chain
for all questions, whatever model the curve comes from, so their rates are the pooled model's.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.posterior.average import average_accuracy
from msjax.posterior.compare import weigh
from msjax.posterior.fits import fit_model, thin
from msjax.posterior.models import find_model
from msjax.posterior.models.chains import Pooled
from msjax.posterior.models.model import Draws
from msjax.posterior.posterior import AUTO, split_key
from msjax.posterior.sample import sample_posterior
from msjax.theory.chain import TwoStateChain

__all__ = ["PosteriorForRules"]


@dataclass(frozen=True)
class PosteriorForRules:
    """A `msjax.rules.spec.ChainPosterior`: what `msjax fit` with this model and key finds.

    Attributes:
        key: of the benchmark, the `seed` of `msjax.posterior.fit`.
        model: whose curves are taken: the name of one, or "auto" for the average over models.
    """

    key: PRNGKeyArray
    model: str = Pooled.name

    def accuracy(self, runs: Runs, rounds: int) -> Float[np.ndarray, "draw rounds_plus_1"]:
        """Posterior draws of E[p_0], ..., E[p_rounds].

        Raises:
            InputError: an unknown model.
            NotConvergedError: as `msjax.posterior.fits.fit_model`.
        """
        if self.model == Pooled.name:
            return Pooled().curves(self._pooled(runs), rounds).mean_accuracy
        key, _ = split_key(self.key)
        if self.model == AUTO:
            return average_accuracy(weigh(runs, key), rounds)
        found = fit_model(runs, find_model(self.model), key)
        return found.model.curves(found.draws, rounds).mean_accuracy

    def rates(self, runs: Runs) -> TwoStateChain:
        """Posterior draws of the rates of one chain for all questions (the pooled model)."""
        draws = self._pooled(runs)
        return TwoStateChain(*(np.float32(draws[name]) for name in Pooled.parameters))

    def _pooled(self, runs: Runs) -> Draws:
        key, _ = split_key(self.key)
        return thin(sample_posterior(Pooled(), runs.require_rounds().observable, key))
