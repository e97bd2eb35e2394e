"""Do posteriors mean what they say? Ranks of the truth among draws, and coverage of intervals.

Parameters are drawn from the prior of one model, runs are simulated from it and fitted by the same
or another model, and the truth is ranked among the draws. If prior, likelihood, simulator and
sampler belong together, each rank 0..99 is equally likely, for every quantity that is computed from
parameters and data (simulation-based calibration, SBC). If a wrong model is fitted, the same ranks
say how often its intervals hold the truth.

Reference: docs/theory.md F6; Talts et al. (2018), Validating Bayesian inference algorithms with
simulation-based calibration; Modrak et al. (2023), Simulation-based calibration checking for
Bayesian computation: the choice of test quantities shapes sensitivity.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Array, Float, Int, Int8, Key, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.posterior.models.chains import Pooled
from msjax.posterior.models.model import Draws, Model, Parameters
from msjax.posterior.models.partial_pooling import PARAMETERS, PartiallyPooled, sample_jointly
from msjax.posterior.sample import (
    TARGET_ACCEPTANCE,
    compiled_nuts,
    condensed,
    draw_independently,
    host_generator,
    log_likelihoods,
    padded,
    sample_prior,
    tabulate,
)

RANKED = 99
"""Posterior draws among which the truth is ranked; 100 ranks split evenly into 50 and 90 %."""
LIKELIHOOD = "log_likelihood"
"""Name of the test quantity that looks at the data."""
_THINNING = 5
_BENCHMARKS = 8
"""Benchmarks that are drawn towards each other; as many as are compiled for in any case."""
_TOGETHER = 50
"""Simulations sampled in one call, whatever their number, so that one shape is compiled."""


class Covered(NamedTuple):
    """Share of simulations whose interval held the truth, with its 95 % Wilson interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranks:
    """How the truth ranks among posterior draws, over simulations.

    `ranks` holds one array of ranks 0..99 per quantity: the parameters that both models have; the
    log-likelihood of the runs; and, with K the rounds observed, the accuracies `p_K`, `p_2K` and
    the limit. `widths` are mean widths (probability) of the 90 % intervals of the latter three.
    """

    model: str
    fitted: str
    ranks: dict[str, Int[np.ndarray, " simulation"]]
    widths: dict[str, float]

    @property
    def p_values(self) -> dict[str, float]:
        """`uniformity` of every quantity's ranks."""
        return {name: uniformity(ranks) for name, ranks in self.ranks.items()}

    def covered(self, quantity: str, level: float) -> Covered:
        """Share of central intervals of this level that hold the truth.

        Between order statistics of 99 draws the level is exact when 100 (1 - level) / 2 is whole.
        """
        tail = round((RANKED + 1) * (1 - level) / 2)
        ranks = self.ranks[quantity]
        inside = int(((ranks >= tail) & (ranks < RANKED + 1 - tail)).sum())
        low, high = scipy.stats.binomtest(inside, len(ranks)).proportion_ci(0.95, method="wilson")
        return Covered(inside / len(ranks), float(low), float(high))


def rank_statistics(
    model: Model,
    key: PRNGKeyArray,
    *,
    simulations: int,
    questions: int,
    rounds: int,
    fitted: Model | None = None,
) -> Ranks:
    """Ranks of parameters drawn from the prior of `model` in posteriors of `fitted`.

    The same key gives every `fitted` (default: the model itself) the same runs. The
    log-likelihood is that of `model` if `fitted` has all its parameters, else that of `fitted` if
    these are all known, else it is left out. Ties are broken at random.

    Reference: docs/theory.md F6.
    """
    fitted = model if fitted is None else fitted
    prior_key, data_key, fit_key = jax.random.split(key, 3)
    random = host_generator(data_key)
    truth = sample_prior(model, prior_key, simulations)
    runs = simulate_runs(model, truth, questions, rounds, random)
    draws = posterior_draws(fitted, runs, fit_key)
    common = [name for name in model.parameters if name in fitted.parameters]
    ranks = {name: _rank(random, draws[name], truth[name]) for name in common}
    judge = next((m for m in (model, fitted) if set(m.parameters) <= set(common)), None)
    if judge is not None:
        together = {name: np.column_stack([draws[name], truth[name]]) for name in judge.parameters}
        values = _run_log_likelihoods(judge, runs, together)
        ranks[LIKELIHOOD] = _rank(random, values[:, :-1], values[:, -1])
    true = outcomes(model, truth, rounds)
    each = [outcomes(fitted, _one(draws, i), rounds) for i in range(simulations)]
    widths = {}
    tail = (RANKED + 1) // 20
    for name in (name for name in true if name in each[0]):
        found = np.sort(np.stack([one[name] for one in each]), axis=1)
        ranks[name] = _rank(random, found, true[name])
        widths[name] = float((found[:, -tail] - found[:, tail - 1]).mean())
    return Ranks(model.name, fitted.name, ranks, widths)


def partial_pooling_ranks(
    key: PRNGKeyArray, *, simulations: int, questions: int, rounds: int
) -> Ranks:
    """Ranks of what benchmarks have in common, and of rates, in posteriors of partial pooling.

    Typical rates and spreads are drawn from the prior; eight benchmarks have rates from the
    distribution they define, the last of them only a tenth of the questions. Ranked are mu, tau,
    and the rates of the first and the last benchmark.

    Reference: docs/theory.md F6, F8.
    """
    data_key, fit_key = jax.random.split(key)
    random = host_generator(data_key)
    shape = (simulations, len(PARAMETERS))
    mu, tau = random.logistic(size=shape), abs(random.normal(size=shape))
    effects = random.normal(size=(_BENCHMARKS, *shape))
    rates = scipy.special.expit(mu + tau * effects)
    sizes = [questions] * (_BENCHMARKS - 1) + [max(1, questions // 10)]
    benchmarks = [
        simulate_runs(Pooled(), dict(zip(PARAMETERS, rate.T, strict=True)), size, rounds, random)
        for rate, size in zip(rates, sizes, strict=True)
    ]
    truth = {f"mu[{name}]": mu[:, i] for i, name in enumerate(PARAMETERS)}
    truth |= {f"tau[{name}]": tau[:, i] for i, name in enumerate(PARAMETERS)}
    for b in (0, _BENCHMARKS - 1):
        truth |= {f"{name}[{b}]": rates[b, :, i] for i, name in enumerate(PARAMETERS)}
    draws = {name: np.empty((simulations, RANKED)) for name in truth}
    for i, one in enumerate(jax.random.split(fit_key, simulations)):
        counts = [Runs.from_arrays(x[i], benchmark=str(b)) for b, x in enumerate(benchmarks)]
        found = sample_jointly(counts, one, draws=RANKED * _THINNING, chains=1).flat
        for name, values in draws.items():
            values[i] = found[name][::_THINNING]
    ranks = {name: _rank(random, draws[name], values) for name, values in truth.items()}
    return Ranks(PartiallyPooled.name, PartiallyPooled.name, ranks, {})


def simulate_runs(
    model: Model, draws: Draws, questions: int, rounds: int, random: np.random.Generator
) -> Int8[np.ndarray, "draw question answer"]:
    """Runs of new questions with 1 + `rounds` answers each, one benchmark per draw."""
    return model.continue_runs(random, draws, np.zeros((questions, 0), np.int8), rounds + 1)


def outcomes(model: Model, draws: Draws, rounds: int) -> dict[str, Float[np.ndarray, " draw"]]:
    """Accuracy after K = `rounds` and 2K rounds, and in the limit where the model has one."""
    curves = model.curves(draws, 2 * rounds)
    kinds = {"p_K": curves.accuracy[..., rounds], "p_2K": curves.accuracy[..., -1]}
    if curves.limit is not None:
        kinds["limit"] = curves.limit
    return {name: (curves.weight * values).sum(axis=1) for name, values in kinds.items()}


def posterior_draws(
    model: Model, runs: Int8[np.ndarray, "simulation question answer"], key: PRNGKeyArray
) -> dict[str, Float[np.ndarray, "simulation draw"]]:
    """99 draws for every set of runs: independent ones where a model has them, else by NUTS."""
    keys = jax.random.split(key, len(runs))
    found = [
        independent.sample.flat
        for correct, one in zip(runs, keys, strict=True)
        if (independent := draw_independently(model, correct, one, draws=RANKED, chains=1))
    ]
    if not found:
        return nuts_draws(model, runs, key)
    return {name: np.stack([draws[name] for draws in found]) for name in model.parameters}


def nuts_draws(
    model: Model, runs: Int8[np.ndarray, "simulation question answer"], key: PRNGKeyArray
) -> dict[str, Float[np.ndarray, "simulation draw"]]:
    """99 draws for every set of runs by the sampler of `msjax.posterior.sample.run_nuts`.

    One chain per set, 50 sets at a time; each fifth draw is kept. As in a fit, sets with divergent
    transitions are sampled again more finely.
    """
    statistics, multiplicity = _tables(model, runs)
    free = {name: np.float32(name in model.parameters) for name in model.sampled_as.parameters}
    keys = jax.random.split(key, len(runs))
    found = {name: np.empty((len(runs), RANKED)) for name in model.parameters}
    left = np.arange(len(runs))
    for target in TARGET_ACCEPTANCE:
        diverged = np.zeros(len(runs), dtype=bool)
        for start in range(0, len(left), _TOGETHER):
            chosen = np.resize(left[start : start + _TOGETHER], _TOGETHER)
            samples, diverging = _vectorised_nuts(
                model.sampled_as,
                free,
                statistics[chosen],
                multiplicity[chosen],
                keys[chosen],
                np.float32(target),
            )
            diverged[chosen] = diverging
            for name, values in found.items():
                values[chosen] = samples[name]
        left = np.flatnonzero(diverged)
    return found


def uniformity(ranks: Int[np.ndarray, " simulation"]) -> float:
    """p-value of the hypothesis that every rank 0..99 is equally likely.

    The number R_i of ranks below i is Binomial(n, i / 100). The statistic is the least two-sided
    tail probability of any R_i, that is the widest simultaneous band of the ECDF which the ranks
    leave. Its distribution is exact: R_1, R_2, ... is a Markov chain with binomial steps, followed
    through the band.

    Reference: Sailynoja, Buerkner & Vehtari (2022), Graphical test for discrete uniformity and its
    applications in goodness-of-fit evaluation and multiple sample comparison.
    """
    n = len(ranks)
    below = np.cumsum(np.bincount(ranks, minlength=RANKED + 1))[:-1]
    share = np.arange(1, RANKED + 1)[:, None] / (RANKED + 1)
    counts = np.arange(n + 1)
    few = scipy.stats.binom.cdf(counts, n, share)
    many = scipy.stats.binom.sf(counts - 1, n, share)
    tail = np.minimum(few, many)
    least = tail[np.arange(RANKED), below].min()
    probability, now = np.ones(1), np.zeros(1, dtype=int)
    for i, inside in enumerate(tail > least * (1 + 1e-9)):
        following = np.flatnonzero(inside)
        steps = following - now[:, None]
        ready = 1 / (RANKED + 1 - i)
        probability = probability @ scipy.stats.binom.pmf(steps, n - now[:, None], ready)
        now = following
    return float(np.clip(1 - probability.sum(), 0, 1))


def _rank(
    random: np.random.Generator,
    draws: Float[np.ndarray, "simulation draw"],
    truth: Float[np.ndarray, " simulation"],
) -> Int[np.ndarray, " simulation"]:
    below = (draws < truth[:, None]).sum(axis=1)
    return below + random.integers((draws == truth[:, None]).sum(axis=1) + 1)


def _one(draws: Draws, i: int) -> Draws:
    return {name: values[i] for name, values in draws.items()}


def _run_log_likelihoods(
    model: Model, runs: Int8[np.ndarray, "simulation question answer"], draws: Draws
) -> Float[np.ndarray, "simulation draw"]:
    tables = [tabulate(model, correct) for correct in runs]
    return np.stack(
        [
            log_likelihoods(model, table, _one(draws, i)) @ table.multiplicity
            for i, table in enumerate(tables)
        ]
    )


def _tables(
    model: Model, runs: Int8[np.ndarray, "simulation question answer"]
) -> tuple[np.ndarray, np.ndarray]:
    """Statistics [simulation, row, statistic] and multiplicities of all sets, of one shape."""
    tables = [condensed(model, tabulate(model, correct)) for correct in runs]
    room = max(len(multiplicity) for _, multiplicity in tables)
    statistics, multiplicity = zip(*(padded(*table, room) for table in tables), strict=True)
    return np.stack(statistics), np.stack(multiplicity)


@partial(jax.jit, static_argnums=0)
def _vectorised_nuts(
    model: Model,
    free: Parameters,
    statistics: Array,
    multiplicity: Array,
    keys: Key[Array, " simulation"],
    target: Array,
) -> tuple[dict[str, Float[Array, "simulation draw"]], Array]:
    """Thinned draws of every simulation, and whether any transition of its chain diverged."""

    def one(
        statistics: Array, multiplicity: Array, key: PRNGKeyArray
    ) -> tuple[dict[str, Array], Array]:
        samples, stats = compiled_nuts(
            model,
            free,
            statistics,
            multiplicity,
            key,
            target,
            draws=RANKED * _THINNING,
            chains=1,
            devices=1,
        )
        return {name: x[0, ::_THINNING] for name, x in samples.items()}, stats["diverging"].any()

    return jax.vmap(one)(statistics, multiplicity, keys)
