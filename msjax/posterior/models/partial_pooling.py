"""Several benchmarks, or several models, at once: rates that are drawn towards each other.

    logit p of benchmark b ~ Normal(mu, tau), for each of p = p0, p_ic, p_ci,
    successes ~ Binomial(trials, p),

with a uniform prior on the typical rate sigmoid(mu) and tau ~ HalfNormal(1). Two things are
assumed: benchmarks are exchangeable, so that nothing is known beforehand of how one differs from
another; and within a benchmark all questions have one chain.

Given mu and tau the benchmarks are independent, so their rates are integrated out, each by a
quadrature that moves to where its likelihood and its prior meet. NUTS samples tau, and mu in units
of about its posterior given tau; rates are drawn given both. Sampled all together they make a
funnel: thousands of trials need the centred form, few or none the non-centred.

Reference: docs/theory.md F8; Gelman (2006), Prior distributions for variance parameters in
hierarchical models; Betancourt & Girolami (2015), Hamiltonian Monte Carlo for hierarchical models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.special
from jax.scipy.special import logsumexp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int8, PRNGKeyArray
from numpyro.infer import MCMC, NUTS

from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.posterior.diagnostics import Diagnostics, diagnose
from msjax.posterior.fits import Fit, NotConvergedError
from msjax.posterior.models.chains import Pooled, started, transition_counts
from msjax.posterior.models.model import Parameters
from msjax.posterior.sample import (
    CHAINS,
    DRAWS,
    STATS,
    TARGET_ACCEPTANCE,
    WARMUP,
    Sample,
    host_generator,
)

PARAMETERS = ("p0", "p_ic", "p_ci")

_SPACING, _STEPS = 0.5, 16
"""Quadrature nodes, in standard deviations of where likelihood and prior meet: 33 out to 8."""

_BISECTIONS = 16

_FINER = 4
"""Times as many nodes to draw rates from."""

_ROOM = 8
"""Benchmarks are filled up with ones without trials to a multiple of this: fewer compilations."""


class PartiallyPooled(Pooled):
    """The pooled chain of one benchmark among several whose rates are drawn towards each other."""

    name = "partial_pooling"
    says = (
        "every question of a benchmark has the same rates in every round, and benchmarks have "
        "rates from one distribution"
    )
    joint_prior = "typical rates ~ Uniform(0, 1); sd of log-odds between benchmarks ~ HalfNormal(1)"

    distributions = {}

    def factors(self, correct: Int8[np.ndarray, "question answer"]) -> None:
        """None: rates of one benchmark depend on those of the others."""

    def prior(self) -> Parameters:
        """What one benchmark has before any data, of it or of the others."""
        sites = {}
        for name in self.parameters:
            typical = numpyro.sample(f"typical_{name}", dist.Logistic())
            spread = numpyro.sample(f"tau_{name}", dist.HalfNormal(1.0))
            effect = numpyro.sample(f"effect_{name}", dist.Normal())
            rate = jax.nn.sigmoid(typical + spread * effect)
            sites[name] = numpyro.deterministic(name, rate)
        return sites


@dataclass(frozen=True)
class PartialPooling:
    """The joint posterior of the chains of several benchmarks, with diagnostics that it passed.

    `sample` holds the scalars `p_ic[GPQA]` and so on for every parameter and benchmark, and
    `mu[p_ic]`, `tau[p_ic]` (log-odds) for every parameter. Where `identified` is False the
    benchmark has no trials of that parameter, which is known from the other benchmarks alone.
    """

    benchmarks: tuple[str, ...]
    counts: tuple[Runs, ...]
    sample: Sample
    diagnostics: Diagnostics
    identified: Bool[np.ndarray, "3 benchmark"]

    def rates(self, parameter: str) -> Float[np.ndarray, "draw benchmark"]:
        """Draws of "p0", "p_ic" or "p_ci" of every benchmark."""
        flat = self.sample.flat
        return np.stack([flat[f"{parameter}[{name}]"] for name in self.benchmarks], axis=1)

    def fit_of(self, benchmark: str) -> Fit:
        """The part of one benchmark as a `Fit` of `PartiallyPooled`, for all that takes one.

        Raises InputError for a benchmark that is not in `benchmarks`.
        """
        if benchmark not in self.benchmarks:
            raise InputError(
                f"benchmark is {benchmark!r}; choose from {', '.join(self.benchmarks)}"
            )
        b = self.benchmarks.index(benchmark)
        names = {name: f"{name}[{benchmark}]" for name in PARAMETERS}
        of_all = self.diagnostics
        return Fit(
            self.counts[b],
            PartiallyPooled(),
            Sample({name: self.sample.draws[x] for name, x in names.items()}, self.sample.stats),
            Diagnostics(
                r_hat={name: of_all.r_hat[x] for name, x in names.items()},
                bulk_ess={name: of_all.bulk_ess[x] for name, x in names.items()},
                tail_ess={name: of_all.tail_ess[x] for name, x in names.items()},
                divergences=of_all.divergences,
            ),
            dict(zip(PARAMETERS, self.identified[:, b].tolist(), strict=True)),
        )


def partially_pool(
    counts: Sequence[Runs],
    key: PRNGKeyArray,
    *,
    draws: int = DRAWS,
    chains: int = CHAINS,
) -> PartialPooling:
    """Joint posterior of p0, p_ic, p_ci of several benchmarks, each drawn towards the others.

    Benchmarks of one model are called by their names, those of several "model: benchmark".

    Raises:
        InputError: fewer than two benchmarks, or two of one name.
        NotConvergedError: divergences, R-hat > 1.01, or bulk or tail ESS < 400.

    Reference: docs/theory.md F8.
    """
    benchmarks = labels_of(counts)
    sample = sample_jointly(counts, key, draws=draws, chains=chains)
    diagnostics = diagnose(sample)
    if diagnostics.failures:
        raise NotConvergedError(
            f"{', '.join(benchmarks)}: partial pooling is refused: "
            f"{'; '.join(diagnostics.failures)}; take more draws (draws={draws} per chain) or "
            "another seed"
        )
    trials = np.stack([binomials(count)[1] for count in counts], axis=-1)
    return PartialPooling(benchmarks, tuple(counts), sample, diagnostics, trials > 0)


def sample_jointly(
    counts: Sequence[Runs],
    key: PRNGKeyArray,
    *,
    draws: int = DRAWS,
    chains: int = CHAINS,
) -> Sample:
    """The draws of `partially_pool`, not yet judged.

    Raises InputError for fewer than two benchmarks, or two of one name.
    """
    benchmarks = labels_of(counts)
    successes, trials = np.stack([binomials(count) for count in counts], axis=-1)
    fill = ((0, 0), (0, -len(counts) % _ROOM))
    for target in TARGET_ACCEPTANCE:
        found, stats = compiled_pooling(
            np.pad(successes, fill),
            np.pad(trials, fill),
            key,
            jnp.float32(target),
            draws=draws,
            chains=chains,
        )
        if not stats["diverging"].any():
            break
    mu, tau = (np.asarray(found[name], dtype=float) for name in ("mu", "tau"))
    random = host_generator(jax.random.fold_in(key, 1))
    named = {f"mu[{name}]": mu[..., i] for i, name in enumerate(PARAMETERS)}
    named |= {f"tau[{name}]": tau[..., i] for i, name in enumerate(PARAMETERS)}
    for b, benchmark in enumerate(benchmarks):
        rates = _draw_rates(random, mu, tau, successes[:, b], trials[:, b])
        named |= {f"{name}[{benchmark}]": rates[..., i] for i, name in enumerate(PARAMETERS)}
    return Sample(named, {name: np.asarray(values) for name, values in stats.items()})


def labels_of(counts: Sequence[Runs]) -> tuple[str, ...]:
    """Names of the benchmarks, with the model in front where there are several."""
    if len(counts) < 2:
        raise InputError(
            f"counts has {len(counts)} benchmarks; partial pooling needs two or more, fit one alone"
        )
    several = len({count.model for count in counts}) > 1
    labels = tuple(f"{count.model}: {count.name}" if several else count.name for count in counts)
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"benchmark {label!r} occurs twice in counts; give it once")
    return labels


def binomials(count: Runs) -> Float[np.ndarray, "2 3"]:
    """Successes and trials of p0, p_ic, p_ci."""
    ii, ic, ci, cc = transition_counts(count.observable).sum(axis=0)
    right, wrong = (x.sum() for x in started(count.observable))
    return np.array([[right, ic, ci], [right + wrong, ic + ii, ci + cc]], dtype=float)


def _joint(successes: Float[Array, "3 b"], trials: Float[Array, "3 b"]) -> None:
    """The NumPyro model of mu and tau, rates of the benchmarks integrated out."""
    # On the scale of log(exp(tau) - 1): that of log(tau) makes the prior's upper tail a cliff.
    positive = dist.constraints.softplus_positive
    tau = numpyro.sample("tau", dist.ImproperUniform(positive, (), (3,)))
    numpyro.factor("prior of tau", dist.HalfNormal().log_prob(tau).sum())
    log_odds, information = _normal_likelihood(successes, trials)
    weight = information / (1 + tau[:, None] ** 2 * information)
    precision = 1 / dist.Logistic().variance + weight.sum(axis=1)
    scale = 1 / jnp.sqrt(precision)
    unit = numpyro.sample("unit", dist.ImproperUniform(dist.constraints.real, (), (3,)))
    mu = numpyro.deterministic("mu", (weight * log_odds).sum(axis=1) / precision + scale * unit)
    numpyro.factor("prior of mu", (dist.Logistic().log_prob(mu) + jnp.log(scale)).sum())
    _, log_weight = benchmark_quadrature(mu[:, None], tau[:, None], successes, trials, 1)
    numpyro.factor("runs", logsumexp(log_weight, axis=-1).sum())


def _normal_likelihood(
    successes: Float[Array, "*cell"], trials: Float[Array, "*cell"]
) -> tuple[Float[Array, "*cell"], Float[Array, "*cell"]]:
    """Estimates of log-odds and their information (1 / variance), 0 where there are no trials."""
    share = (successes + 0.5) / (trials + 1)
    information = jnp.where(trials > 0, (trials + 1) * share * (1 - share), 0)
    return jnp.log(share) - jnp.log1p(-share), information


@partial(jax.jit, static_argnums=4)
def benchmark_quadrature(
    mu: Array, tau: Array, successes: Array, trials: Array, finer: int
) -> tuple[Array, Array]:
    """Nodes z of (logit p - mu) / tau ~ Normal(0, 1), and logs of weight times likelihood there.

    The trapezoidal rule around the mode, in units of the curvature there; a new last axis. The
    slope of the log density, tau (successes - trials p) - z, falls with z. It is 0 between the
    mode of the prior and that of the likelihood, at most tau / 2 beyond what is taken for the
    latter.
    """

    def halve(_: Int[ArrayLike, ""], ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        p = jax.nn.sigmoid(mu + tau * middle)
        rises = tau * (successes - trials * p) > middle
        return jnp.where(rises, middle, ends[0]), jnp.where(rises, ends[1], middle)

    # The integral does not depend on where its nodes are.
    mu_free, tau_free = mu, tau
    mu, tau = jax.lax.stop_gradient((mu, tau))
    log_odds, information = _normal_likelihood(successes, trials)
    of_likelihood = jnp.where(information > 0, (log_odds - mu) / tau, 0)
    ends = jnp.minimum(0, of_likelihood) - tau / 2, jnp.maximum(0, of_likelihood) + tau / 2
    mode = sum(jax.lax.fori_loop(0, _BISECTIONS, halve, ends)) / 2
    p = jax.nn.sigmoid(mu + tau * mode)
    step = _SPACING / finer / jnp.sqrt(1 + tau**2 * trials * p * (1 - p))[..., None]
    z = mode[..., None] + step * jnp.arange(-_STEPS * finer, _STEPS * finer + 1)
    x = mu_free[..., None] + tau_free[..., None] * z
    right, wrong = successes[..., None], (trials - successes)[..., None]
    log_likelihood = right * jax.nn.log_sigmoid(x) + wrong * jax.nn.log_sigmoid(-x)
    return z, log_likelihood - z**2 / 2 + jnp.log(step) - jnp.log(2 * jnp.pi) / 2


def _draw_rates(
    random: np.random.Generator,
    mu: Float[np.ndarray, "chain draw 3"],
    tau: Float[np.ndarray, "chain draw 3"],
    successes: Float[np.ndarray, " 3"],
    trials: Float[np.ndarray, " 3"],
) -> Float[np.ndarray, "chain draw 3"]:
    """One benchmark's rates given mu and tau, the density taken as constant around each node."""
    z, log_weight = (
        np.asarray(x, dtype=float) for x in benchmark_quadrature(mu, tau, successes, trials, _FINER)
    )
    weight = scipy.special.softmax(log_weight, axis=-1)
    up_to = np.cumsum(weight, axis=-1)
    uniform = random.random((*mu.shape, 1)) * up_to[..., -1:]
    node = (up_to <= uniform).sum(axis=-1, keepdims=True)
    beyond, mass, middle = (np.take_along_axis(x, node, -1) for x in (up_to, weight, z))
    effect = middle + (z[..., 1:2] - z[..., :1]) * ((uniform - beyond) / mass + 0.5)
    return scipy.special.expit(mu + tau * effect[..., 0])


@partial(jax.jit, static_argnames=("draws", "chains"))
def compiled_pooling(
    successes: Array, trials: Array, key: PRNGKeyArray, target: Array, *, draws: int, chains: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The whole run under one jit, as in `msjax.posterior.sample`."""
    sampler = MCMC(
        NUTS(_joint, target_accept_prob=target, dense_mass=True),
        num_warmup=WARMUP,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    sampler.run(key, successes, trials, extra_fields=STATS)
    samples = sampler.get_samples(group_by_chain=True)
    return samples, sampler.get_extra_fields(group_by_chain=True)
