"""Fit the pooled chain: exact posterior, NUTS beside it, and the checks of its assumptions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped
from numpyro.infer import MCMC, NUTS

from inference.checks import Check, check_chain
from inference.counts import BenchmarkCounts
from inference.diagnostics import Diagnostics, diagnose
from inference.models import (
    UNIFORM,
    BetaPosterior,
    BetaPrior,
    Tally,
    exact_posterior,
    pooled_chain,
    tally,
)
from inference.posterior import ChainPosterior
from msjax.errors import InputError

WARMUP = 500


class NotConvergedError(RuntimeError):
    """The sampler failed its diagnostics, so its result is not handed out."""


@dataclass(frozen=True)
class NutsRun:
    """NUTS draws of (p0, p_ic, p_ci) and what the sampler reported for each draw."""

    draws: Float[np.ndarray, "chain draw 3 benchmark"]
    stats: dict[str, Shaped[np.ndarray, "chain draw"]]


@dataclass(frozen=True)
class ChainFit:
    """A fit that passed its diagnostics.

    `posterior` holds independent draws of the exact posterior, which whatever follows should use;
    `nuts` and `diagnostics` are the evidence that the sampled model and the closed form agree.
    `checks[b]` are those of benchmark b.
    """

    counts: tuple[BenchmarkCounts, ...]
    tally: Tally
    prior: BetaPrior
    exact: BetaPosterior
    posterior: ChainPosterior
    nuts: NutsRun
    diagnostics: Diagnostics
    checks: tuple[tuple[Check, ...], ...]


def fit(
    counts: Sequence[BenchmarkCounts],
    key: PRNGKeyArray,
    *,
    prior: BetaPrior = UNIFORM,
    draws: int = 1000,
    chains: int = 4,
) -> ChainFit:
    """Posterior of p0, p_ic, p_ci of every benchmark, with checks; all benchmarks in one NUTS run.

    `draws` per chain; the exact posterior gives `draws * chains` independent ones.

    Raises:
        InputError: no counts.
        NotConvergedError: divergences, R-hat > 1.01, bulk ESS < 400, or NUTS off the exact
            posterior by more than Monte Carlo error.

    Reference: docs/theory.md A1.
    """
    if not counts:
        raise InputError("counts: none given; a fit needs at least one benchmark")
    nuts_key, exact_key, check_key = jax.random.split(key, 3)
    data = tally(counts)
    exact = exact_posterior(data, prior)
    nuts = run_nuts(data, nuts_key, prior=prior, draws=draws, chains=chains)
    diagnostics = diagnose(nuts.draws, int(nuts.stats["diverging"].sum()), exact)
    if diagnostics.failures:
        raise NotConvergedError(
            f"the fit is refused: {'; '.join(diagnostics.failures)}; take more draws "
            f"(draws={draws} per chain) or another seed"
        )
    checks = tuple(
        check_chain(count, jax.random.fold_in(check_key, i), prior=prior)
        for i, count in enumerate(counts)
    )
    return ChainFit(
        counts=tuple(counts),
        tally=data,
        prior=prior,
        exact=exact,
        posterior=_posterior(counts, data, checks, exact.sample(exact_key, draws * chains)),
        nuts=nuts,
        diagnostics=diagnostics,
        checks=checks,
    )


def run_nuts(
    data: Tally, key: PRNGKeyArray, *, prior: BetaPrior = UNIFORM, draws: int, chains: int
) -> NutsRun:
    """NUTS draws from `pooled_chain`, chains vectorised, after 500 rounds of warm-up each."""
    samples, stats = _compiled_nuts(data, key, prior, draws=draws, chains=chains)
    return NutsRun(np.asarray(samples), {name: np.asarray(x) for name, x in stats.items()})


@partial(jax.jit, static_argnames=("draws", "chains"))
def _compiled_nuts(
    data: Tally, key: PRNGKeyArray, prior: BetaPrior, *, draws: int, chains: int
) -> tuple[Array, dict[str, Array]]:
    """The whole run under one jit: left alone, NumPyro compiles anew for every fit."""
    sampler = MCMC(
        NUTS(pooled_chain),
        num_warmup=WARMUP,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    sampler.run(key, data, prior, extra_fields=("diverging", "accept_prob", "num_steps"))
    samples = sampler.get_samples(group_by_chain=True)["probability"]
    return samples, sampler.get_extra_fields(group_by_chain=True)


def _posterior(
    counts: Sequence[BenchmarkCounts],
    data: Tally,
    checks: Sequence[Sequence[Check]],
    draws: Float[np.ndarray, "draw 3 benchmark"],
) -> ChainPosterior:
    tokens = np.full((len(counts), 1 + max(count.rounds for count in counts)), np.nan)
    for row, count in enumerate(counts):
        tokens[row, : count.rounds + 1] = count.tokens_per_round
    p0, p_ic, p_ci = np.moveaxis(draws, 1, 0)
    return ChainPosterior(
        benchmarks=tuple(count.benchmark for count in counts),
        p0=p0,
        p_ic=p_ic,
        p_ci=p_ci,
        identified=data.identified,
        tokens_per_round=tokens,
        censored=np.array([count.censored > 0 for count in counts]),
        contradicted=np.array([any(check.contradicted for check in found) for found in checks]),
    )
