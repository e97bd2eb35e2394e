"""The posterior of the pooled chain as draws: what a fit hands on and a file gives back."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from msjax.chain import TwoStateChain

PARAMETERS = ("p0", "p_ic", "p_ci")


@dataclass(frozen=True)
class ChainPosterior:
    """Independent posterior draws of the pooled chain, for several benchmarks.

    `p0`, `p_ic`, `p_ci` are probabilities per draw; where `identified` (rows in this order) is
    false, they are draws from the prior. `tokens_per_round[b, k]` is the mean number of computed
    tokens of round k in benchmark b's runs, NaN beyond its rounds. `censored` marks benchmarks with
    runs that were stopped by looking at the label, `contradicted` those whose assumption checks
    reject one homogeneous chain.
    """

    benchmarks: tuple[str, ...]
    p0: Float[np.ndarray, "draw benchmark"]
    p_ic: Float[np.ndarray, "draw benchmark"]
    p_ci: Float[np.ndarray, "draw benchmark"]
    identified: Bool[np.ndarray, "3 benchmark"]
    tokens_per_round: Float[np.ndarray, "benchmark answer"]
    censored: Bool[np.ndarray, " benchmark"]
    contradicted: Bool[np.ndarray, " benchmark"]

    @property
    def chain(self) -> TwoStateChain:
        """All draws as one chain of shape [draw, benchmark]."""
        return TwoStateChain(self.p0, self.p_ic, self.p_ci)
