"""Posterior draws of a model's parameters: independent where they can be, else by NUTS."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.special
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Int8, Key, PRNGKeyArray, Shaped
from numpyro.infer import MCMC, NUTS

from msjax.data.runs import MISSING
from msjax.posterior.models.model import Draws, Model, Parameters
from msjax.posterior.quadrature import integrate

CHAINS = 8
DRAWS = 500
"""Draws per chain."""
WARMUP = 300
TARGET_ACCEPTANCE = (0.9, 0.99)
"""Of the first run, and of a second one if the first had divergent transitions."""
_ROWS = (8, 32, 128, 512, 2048, 8192, 32768)
_ROUNDS = (4, 8, 12, 16, 24, 32, 48, 64, 128, 256)
"""Rows and rounds that tables are padded to: compiling costs more than the arithmetic saved."""
_UNUSED = dist.Normal(0.5, 0.05)
STATS = ("diverging", "accept_prob", "num_steps", "energy")
"""What NUTS reports of each draw."""


class Table(NamedTuple):
    """The distinct runs of a benchmark as sufficient statistics.

    `multiplicity[i]` questions have the statistics `statistics[i]`; `row[q]` is that of question q.
    """

    statistics: Float[np.ndarray, "row statistic"]
    multiplicity: Int[np.ndarray, " row"]
    row: Int[np.ndarray, " question"]


class Sample(NamedTuple):
    """Draws of every parameter, and of what the sampler reports of each draw."""

    draws: dict[str, Shaped[np.ndarray, "chain draw"]]
    stats: dict[str, Shaped[np.ndarray, "chain draw"]]

    @property
    def flat(self) -> Draws:
        """Draws of all chains in one row, [draw]."""
        return {name: values.reshape(-1) for name, values in self.draws.items()}


class Independent(NamedTuple):
    """Independent draws, and the log-probability of the data under the model."""

    sample: Sample
    log_evidence: float


def tabulate(model: Model, correct: Int8[np.ndarray, "question answer"]) -> Table:
    """Sufficient statistics of the runs under a model, each distinct one once.

    Runs are taken as if cut short from 4, 8, 12, ... rounds, so that few shapes are compiled.
    """
    width = 1 + _bucket(correct.shape[1] - 1, _ROUNDS)
    correct = np.pad(correct, ((0, 0), (0, width - correct.shape[1])), constant_values=MISSING)
    rows, inverse, multiplicity = np.unique(
        model.statistics(correct), axis=0, return_inverse=True, return_counts=True
    )
    return Table(rows, multiplicity, inverse.reshape(-1))


def condensed(
    model: Model, table: Table
) -> tuple[Float[np.ndarray, "row statistic"], Float[np.ndarray, " row"]]:
    """Statistics and multiplicities of fewer rows with the same likelihood in total.

    The first row is the sum of those whose log-likelihoods are linear in their statistics.
    """
    linear = model.additive(table.statistics)
    if not linear.any():
        return table.statistics, table.multiplicity.astype(np.float32)
    total = table.multiplicity[linear] @ table.statistics[linear].astype(float)
    return (
        np.vstack([total, table.statistics[~linear]]).astype(np.float32),
        np.append(1, table.multiplicity[~linear]).astype(np.float32),
    )


def padded(
    statistics: Float[np.ndarray, "row statistic"],
    multiplicity: Shaped[np.ndarray, " row"],
    room: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows up to a common size, at least `room`, the last repeated 0 times: few shapes compile."""
    extra = _bucket(max(len(statistics), room), _ROWS) - len(statistics)
    statistics = np.pad(statistics, ((0, extra), (0, 0)), mode="edge")
    return statistics, np.pad(multiplicity, (0, extra)).astype(np.float32)


def host_generator(key: PRNGKeyArray) -> np.random.Generator:
    """NumPy's generator seeded by a JAX key, for work too small or too ragged to compile."""
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))


def sample_posterior(
    model: Model,
    correct: Int8[np.ndarray, "question answer"],
    key: PRNGKeyArray,
    *,
    draws: int = DRAWS,
    chains: int = CHAINS,
) -> Sample:
    """Draws from the posterior: independent ones where there are, NUTS otherwise.

    NUTS runs its chains vectorised on every device, after 300 rounds of warm-up with a dense mass
    matrix. Chains are spread over the devices where their number allows it. A second call with
    tables of about the same size compiles nothing.
    """
    independent = draw_independently(model, correct, key, draws=draws, chains=chains)
    if independent:
        return independent.sample
    return run_nuts(model, tabulate(model, correct), key, draws=draws, chains=chains)


def draw_independently(
    model: Model,
    correct: Int8[np.ndarray, "question answer"],
    key: PRNGKeyArray,
    *,
    draws: int = DRAWS,
    chains: int = CHAINS,
) -> Independent | None:
    """Independent draws, where the posterior is a product of Betas or of factors to integrate.

    Reference: docs/theory.md F1.
    """
    random, shape = host_generator(key), (chains, draws)
    exact = model.closed_form(correct)
    if exact is not None:
        return Independent(
            Sample(
                {
                    name: random.beta(*distribution, size=shape)
                    for name, distribution in exact.items()
                },
                {},
            ),
            sum(
                float(scipy.special.betaln(*found) - scipy.special.betaln(*_beta(model, name)))
                for name, found in exact.items()
            ),
        )
    factors = model.to_integrate(correct)
    if factors is None:
        return _by_importance(model, correct, random, shape) if model.nearly_normal else None
    grids = [integrate(factor) for factor in factors]
    drawn = {name: x for grid in grids for name, x in grid.draw(random, chains * draws).items()}
    return Independent(
        Sample({name: drawn[name].reshape(shape) for name in model.parameters}, {}),
        sum(grid.log_evidence for grid in grids),
    )


def _beta(model: Model, name: str) -> tuple[float, float]:
    """The Beta prior of a parameter; the uniform one where the model does not list it."""
    prior = model.distributions.get(name)
    return (prior and prior.as_beta) or (1.0, 1.0)


def _by_importance(
    model: Model,
    correct: Int8[np.ndarray, "question answer"],
    random: np.random.Generator,
    shape: tuple[int, int],
) -> Independent | None:
    from msjax.posterior.importance import importance_sample

    rows = padded(*condensed(model, tabulate(model, correct)))
    found = importance_sample(model.sampled_as, *rows, random, shape[0] * shape[1])
    if found is None:
        return None
    drawn = {name: x.reshape(shape) for name, x in found.draws.items()}
    return Independent(Sample(drawn, {}), found.log_evidence)


def run_nuts(
    model: Model,
    table: Table,
    key: PRNGKeyArray,
    *,
    draws: int = DRAWS,
    chains: int = CHAINS,
) -> Sample:
    """NUTS on a table of statistics; see `sample_posterior`."""
    statistics, multiplicity = padded(*condensed(model, table))
    largest = model.sampled_as
    free = {name: np.float32(name in model.parameters) for name in largest.parameters}
    devices = jax.device_count() if chains % jax.device_count() == 0 else 1
    for target in TARGET_ACCEPTANCE:
        samples, stats = compiled_nuts(
            largest,
            free,
            statistics,
            multiplicity,
            key,
            jnp.float32(target),
            draws=draws,
            chains=chains,
            devices=devices,
        )
        if not stats["diverging"].any():
            break
    return Sample(
        {name: np.asarray(samples[name], dtype=float) for name in model.parameters},
        {name: np.asarray(values) for name, values in stats.items()},
    )


def sample_prior(model: Model, key: PRNGKeyArray, draws: int) -> Draws:
    """Independent draws from the prior, [draw].

    Where factors know their priors nothing is compiled.
    """
    factors = model.to_integrate(np.zeros((1, 2), dtype=np.int8))
    if factors is not None:
        random = host_generator(key)
        return {
            name: np.asarray(prior.ppf(random.random(draws)), dtype=float)
            for factor in factors
            for name, prior in zip(factor.parameters, factor.priors, strict=True)
        }

    def one(key: PRNGKeyArray) -> Parameters:
        return numpyro.handlers.seed(model.prior, key)()

    values = jax.vmap(one)(jax.random.split(key, draws))
    return {name: np.asarray(values[name], dtype=float) for name in model.parameters}


def log_likelihoods(model: Model, table: Table, draws: Draws) -> Float[np.ndarray, "draw row"]:
    """Log-probability of every distinct run under every draw; nested models share a program."""
    statistics, _ = padded(table.statistics, table.multiplicity)
    largest = model.sampled_as
    nothing = np.zeros_like(next(iter(draws.values())))
    every = {name: jnp.asarray(draws.get(name, nothing)) for name in largest.parameters}
    values = _pointwise(largest, every, statistics)
    return np.asarray(values, dtype=float)[:, : len(table.statistics)]


def joint(
    model: Model,
    free: Parameters,
    statistics: Float[Array, "row statistic"],
    multiplicity: Float[Array, " row"],
) -> None:
    """The NumPyro model: the prior, and the log-likelihood of all runs as one factor.

    Parameters whose `free` is 0 count as 0, so that the data do not touch them. They are drawn from
    a distribution as narrow as posteriors are, for wider ones would slow the warm-up down.
    """
    values = model.prior()
    parameters = {name: value * free[name] for name, value in values.items()}
    unused = [(1 - free[name]) * _UNUSED.log_prob(value) for name, value in values.items()]
    numpyro.factor("unused", sum(unused))
    log_likelihood = model.log_likelihood(parameters, statistics)
    numpyro.factor("runs", jnp.vdot(multiplicity, log_likelihood))


def _bucket(size: int, buckets: tuple[int, ...]) -> int:
    return next((bucket for bucket in buckets if size <= bucket), size)


@partial(jax.jit, static_argnums=0)
def _pointwise(model: Model, draws: Parameters, statistics: Array) -> Array:
    return jax.vmap(lambda one: model.log_likelihood(one, statistics))(draws)


@partial(jax.jit, static_argnums=0, static_argnames=("draws", "chains", "devices"))
def compiled_nuts(
    model: Model,
    free: Parameters,
    statistics: Array,
    multiplicity: Array,
    key: PRNGKeyArray,
    target: Array,
    *,
    draws: int,
    chains: int,
    devices: int,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The whole run under one jit: left alone, NumPyro compiles anew for every fit."""

    def run(keys: Key[Array, " device"]) -> tuple[dict[str, Array], dict[str, Array]]:
        kernel = NUTS(joint, target_accept_prob=target, dense_mass=True)
        sampler = MCMC(
            kernel,
            num_warmup=WARMUP,
            num_samples=draws,
            num_chains=chains // devices,
            chain_method="vectorized",
            progress_bar=False,
        )
        sampler.run(keys[0], model, free, statistics, multiplicity, extra_fields=STATS)
        samples = sampler.get_samples(group_by_chain=True)
        return samples, sampler.get_extra_fields(group_by_chain=True)

    keys = jax.random.split(key, devices)
    if devices == 1:
        return run(keys)
    mesh = Mesh(np.array(jax.devices()), ("chain",))
    along = PartitionSpec("chain")
    return jax.shard_map(run, mesh=mesh, in_specs=along, out_specs=along, check_vma=False)(keys)
