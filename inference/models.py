"""The pooled chain: one homogeneous two-state chain per benchmark, and its exact posterior.

Given its first answers and transitions, the likelihood of a homogeneous chain factorises into three
binomials: first answers right among questions, I -> C among the exits observed from I, C -> I among
those from C. (The numbers of exits are random, but the likelihood is proportional to the binomial
all the same.) With independent Beta priors the posterior is therefore exactly three Betas.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float, Int, PRNGKeyArray

from inference.counts import BenchmarkCounts


def host_generator(key: PRNGKeyArray) -> np.random.Generator:
    """NumPy's generator seeded by a JAX key, for work too small or too ragged to compile."""
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))


class BetaPrior(NamedTuple):
    """The Beta(alpha, beta) prior shared by p0, p_ic and p_ci; uniform unless said otherwise."""

    alpha: float = 1.0
    beta: float = 1.0


UNIFORM = BetaPrior()


class Tally(NamedTuple):
    """Sufficient statistics: successes among trials, for p0, p_ic, p_ci in this order.

    No trials means that the data say nothing of the parameter: it is not identified, and its
    posterior is its prior.
    """

    successes: Int[np.ndarray, "3 benchmark"]
    trials: Int[np.ndarray, "3 benchmark"]

    @property
    def identified(self) -> np.ndarray:
        """Whether the data bear on each parameter, [3, benchmark]."""
        return self.trials > 0


def tally(counts: Sequence[BenchmarkCounts]) -> Tally:
    """Successes and trials of the three parameters for every benchmark.

    p0: first answers right / questions. p_ic: I -> C / exits from I. p_ci: C -> I / exits from C,
    but 0 / 0 in a benchmark with censored runs, where only the runs that escaped censoring show
    what follows a right answer.

    Reference: docs/theory.md A1.
    """
    successes, trials = [], []
    for count in counts:
        (_, ic), (ci, cc) = count.transitions.sum(axis=0)
        ii = count.transitions[:, 0, 0].sum()
        seen = count.censored == 0
        successes.append([count.first_right, ic, ci * seen])
        trials.append([count.questions, ii + ic, (ci + cc) * seen])
    return Tally(np.array(successes, dtype=np.int32).T, np.array(trials, dtype=np.int32).T)


def pooled_chain(data: Tally, prior: BetaPrior = UNIFORM) -> None:
    """NumPyro model: probability ~ Beta(prior), successes ~ Binomial(trials, probability).

    Site `probability` is [3, benchmark], its rows p0, p_ic, p_ci; benchmarks share nothing.
    """
    parameters, benchmarks = data.trials.shape
    with (
        numpyro.plate("parameter", parameters, dim=-2),
        numpyro.plate("benchmark", benchmarks, dim=-1),
    ):
        probability = numpyro.sample("probability", dist.Beta(*prior))
        numpyro.sample("successes", dist.Binomial(data.trials, probability), obs=data.successes)


class BetaPosterior(NamedTuple):
    """Independent Beta(alpha, beta) laws of p0, p_ic, p_ci, each [3, benchmark]."""

    alpha: Float[np.ndarray, "3 benchmark"]
    beta: Float[np.ndarray, "3 benchmark"]

    @property
    def mean(self) -> np.ndarray:
        """Alpha / (alpha + beta)."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def sd(self) -> np.ndarray:
        """sqrt(mean (1 - mean) / (alpha + beta + 1))."""
        return np.sqrt(self.mean * (1 - self.mean) / (self.alpha + self.beta + 1))

    def sample(self, key: PRNGKeyArray, draws: int) -> Float[np.ndarray, "{draws} 3 benchmark"]:
        """Independent draws, in double precision."""
        return host_generator(key).beta(self.alpha, self.beta, (draws, *self.alpha.shape))


def exact_posterior(data: Tally, prior: BetaPrior = UNIFORM) -> BetaPosterior:
    """The conjugate posterior Beta(alpha + successes, beta + trials - successes).

    Reference: Gelman et al., Bayesian Data Analysis (2013), section 2.4.
    """
    return BetaPosterior(
        prior.alpha + data.successes.astype(float),
        prior.beta + (data.trials - data.successes).astype(float),
    )
