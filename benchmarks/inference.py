"""Effective samples per second beside PyMC, nutpie and BlackJAX, on the same models and runs.

Runs take turns, so that what else the machine does falls on all alike. A rate is the bulk ESS of
the worst parameter over the time of warm-up and sampling; what comes before (tracing, compiling)
is shown beside it. `fit` integrates these models and draws independently, which is timed whole;
its NUTS, which models that cannot be integrated take, is a row of its own. PyMC and nutpie are
given each model in the way its users would write it, one row per question, and once more with the
table of distinct runs that msjax makes itself; BlackJAX the log-density of msjax.

    pip install -e '.[bench]'
    python -m benchmarks.inference --json inference.json
"""

from __future__ import annotations

import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from msjax.cli.output import prepare_sampling, write_json
from msjax.cli.tables import markdown


@dataclass(frozen=True)
class Inference:
    """Compare msjax's samplers with others, and time `auto`.

    python -m benchmarks.inference --json inference.json
    """

    questions: int = 1000
    """questions simulated"""
    rounds: int = 10
    """refinement rounds"""
    repeats: int = 5
    """timed turns"""
    json: Path | None = None
    """write the results here as well"""


@dataclass(frozen=True)
class Row:
    """One sampler on one model; rates are effective samples per second, one per turn."""

    model: str
    sampler: str
    rates: list[float]
    before: float
    mean: dict[str, float]


Sampler = Callable[[int], tuple[float, float, dict[str, float]]]
"""From a seed to effective samples, seconds of sampling, and posterior means."""


def simulated_runs(questions: int, rounds: int) -> np.ndarray:
    """Runs with settled questions and Beta rates, so that neither model is a caricature."""
    random = np.random.default_rng(0)
    states = np.empty((questions, rounds + 1), dtype=np.int8)
    states[:, 0] = random.random(questions) < 0.55
    settled = random.random(questions) < np.where(states[:, 0] == 1, 0.5, 0.4)
    p_ic = np.where(settled, 0, random.beta(1.5, 3, questions))
    p_ci = np.where(settled, 0, random.beta(1, 6, questions))
    for k in range(rounds):
        uniform = random.random(questions)
        states[:, k + 1] = np.where(states[:, k] == 1, uniform >= p_ci, uniform < p_ic)
    return states


def worst_ess(draws: dict[str, np.ndarray]) -> float:
    """Bulk ESS of the worst parameter, from draws [chain, draw]."""
    from arviz_stats.base import array_stats

    return min(float(array_stats.ess(values, method="bulk")) for values in draws.values())


def of_msjax(name: str, runs: np.ndarray, nuts: bool) -> Sampler:
    """What `fit` draws, or `msjax.posterior.sample.run_nuts` on the table of distinct runs."""
    import jax

    from msjax.posterior.models import find_model
    from msjax.posterior.sample import run_nuts, sample_posterior, tabulate

    model = find_model(name)

    def sample(seed: int) -> tuple[float, float, dict[str, float]]:
        start = time.perf_counter()
        key = jax.random.key(seed)
        if nuts:
            found = run_nuts(model, tabulate(model, runs), key)
        else:
            found = sample_posterior(model, runs, key)
        seconds = time.perf_counter() - start
        return worst_ess(found.draws), seconds, {n: x.mean() for n, x in found.draws.items()}

    return sample


def of_blackjax(name: str, runs: np.ndarray) -> Sampler:
    """BlackJAX's NUTS with its window adaptation, four chains vectorised, on msjax's density."""
    import blackjax
    import jax
    import jax.numpy as jnp

    from msjax.posterior.models import find_model
    from msjax.posterior.sample import condensed, tabulate

    model = find_model(name)
    statistics, times = map(jnp.asarray, condensed(model, tabulate(model, runs)))

    def density(free: dict[str, Any]) -> Any:
        """Log-posterior of log-odds: priors are uniform, and Beta(1, 2) of correlations."""
        parameters = {n: jax.nn.sigmoid(x) for n, x in free.items()}
        jacobian = sum(jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x) for x in free.values())
        prior = sum(jnp.log1p(-parameters[n]) for n in free if n.startswith("icc"))
        return times @ model.log_likelihood(parameters, statistics) + jacobian + prior

    @jax.jit
    @jax.vmap
    def chain(key: Any) -> Any:
        start_key, warm_key, key = jax.random.split(key, 3)
        uniform = jax.random.uniform(start_key, (len(model.parameters),), minval=-1, maxval=1)
        start = dict(zip(model.parameters, uniform, strict=True))
        warm = blackjax.window_adaptation(blackjax.nuts, density)
        (state, parameters), _ = warm.run(warm_key, start, num_steps=1000)
        step = blackjax.nuts(density, **parameters).step

        def one(state: Any, key: Any) -> Any:
            state, _ = step(key, state)
            return state, state.position

        return jax.lax.scan(one, state, jax.random.split(key, 1000))[1]

    def sample(seed: int) -> tuple[float, float, dict[str, float]]:
        start = time.perf_counter()
        found = jax.block_until_ready(chain(jax.random.split(jax.random.key(seed), 4)))
        seconds = time.perf_counter() - start
        draws = {n: 1 / (1 + np.exp(-np.asarray(x, float))) for n, x in found.items()}
        return worst_ess(draws), seconds, {n: x.mean() for n, x in draws.items()}

    return sample


def of_pymc(name: str, runs: np.ndarray, distinct: bool, nutpie: bool = False) -> Sampler:
    """PyMC's NUTS, or nutpie's, four chains on all cores, a row per question or distinct run."""
    import pymc as pm
    import pytensor.tensor as pt

    from msjax.posterior.models.chains import transition_counts

    table = np.column_stack([runs[:, 0], transition_counts(runs)]).astype(int)
    times = np.ones(len(table), dtype=int)
    if distinct:
        table, times = np.unique(table, axis=0, return_counts=True)
    right, ii, ic, ci, cc = table.T
    with pm.Model() as model:
        p0, p_ic, p_ci = (pm.Uniform(n) for n in ("p0", "p_ic", "p_ci"))
        if name == "heterogeneous":
            moves: Any = 0
            for rate, spread, left, stayed in (
                (p_ic, "icc_ic", ic, ii),
                (p_ci, "icc_ci", ci, cc),
            ):
                icc = pm.Beta(spread, 1, 2)
                total = (1 - icc) / icc
                distribution = pm.BetaBinomial.dist(
                    alpha=rate * total, beta=(1 - rate) * total, n=left + stayed
                )
                moves = moves + pm.logp(distribution, left)
        else:
            settled_right, settled_wrong = (
                pm.Uniform(n) for n in ("settled_right", "settled_wrong")
            )
            share = pt.where(right, settled_right, settled_wrong)
            free = (
                ic * pt.log(p_ic) + ii * pt.log1p(-p_ic)
                + ci * pt.log(p_ci) + cc * pt.log1p(-p_ci)
            )  # fmt: skip
            stayed = pt.where(ic + ci == 0, pt.log(share), -np.inf)
            moves = pt.logaddexp(stayed, pt.log1p(-share) + free)
        first = pt.where(right, pt.log(p0), pt.log1p(-p0))
        pm.Potential("runs", pt.sum(times * (first + moves)))

    if nutpie:
        return _of_nutpie(model)

    def sample(seed: int) -> tuple[float, float, dict[str, float]]:
        with model, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = pm.sample(chains=4, cores=os.cpu_count(), random_seed=seed, progressbar=False)
        posterior = found["posterior"]
        draws = {str(n): x.values for n, x in posterior.data_vars.items()}
        means = {n: float(x.mean()) for n, x in draws.items()}
        return worst_ess(draws), float(posterior.attrs["sampling_time"]), means

    return sample


def _of_nutpie(model: Any) -> Sampler:
    import nutpie

    compiled = nutpie.compile_pymc_model(model)

    def sample(seed: int) -> tuple[float, float, dict[str, float]]:
        start = time.perf_counter()
        found = nutpie.sample(
            compiled, chains=4, cores=os.cpu_count(), seed=seed, progress_bar=False
        )
        seconds = time.perf_counter() - start
        draws = {str(n): np.asarray(x) for n, x in found["posterior"].data_vars.items()}
        draws = {n: x for n, x in draws.items() if not n.endswith("__")}
        return worst_ess(draws), seconds, {n: float(x.mean()) for n, x in draws.items()}

    return sample


def measure(samplers: dict[tuple[str, str], Sampler], repeats: int) -> list[Row]:
    """Every sampler once to compile, then in turns."""
    before: dict[tuple[str, str], float] = {}
    for key, sample in samplers.items():
        start = time.perf_counter()
        _, seconds, _ = sample(0)
        # What is timed of a compiled sampler holds its compiling the first time.
        compiles = key[1].startswith(("msjax", "BlackJAX"))
        before[key] = time.perf_counter() - start - (0 if compiles else seconds)
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in samplers}
    means = {}
    for turn in range(1, repeats + 1):
        for key, sample in samplers.items():
            ess, seconds, means[key] = sample(turn)
            rates[key].append(ess / seconds)
    return [Row(*key, rates[key], before[key], means[key]) for key in samplers]


def time_auto(runs: np.ndarray) -> float:
    """Seconds of `fit`, compiling included, for models not fitted before in this process."""
    import jax

    from msjax.data.runs import Runs
    from msjax.posterior import fit

    jax.clear_caches()
    count = Runs.from_arrays(runs, benchmark="simulated")
    start = time.perf_counter()
    fit(count)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = tyro.cli(Inference)
    prepare_sampling()
    logging.getLogger("pymc").setLevel(logging.ERROR)
    runs = simulated_runs(options.questions, options.rounds)
    auto = time_auto(runs)
    samplers: dict[tuple[str, str], Sampler] = {}
    for name in ("mover_stayer", "heterogeneous"):
        samplers[name, "msjax"] = of_msjax(name, runs, nuts=False)
        samplers[name, "msjax, NUTS"] = of_msjax(name, runs, nuts=True)
        samplers[name, "BlackJAX, msjax's density"] = of_blackjax(name, runs)
        samplers[name, "nutpie, a row per question"] = of_pymc(name, runs, False, nutpie=True)
        samplers[name, "nutpie, a row per distinct run"] = of_pymc(name, runs, True, nutpie=True)
        samplers[name, "PyMC, a row per question"] = of_pymc(name, runs, distinct=False)
        samplers[name, "PyMC, a row per distinct run"] = of_pymc(name, runs, distinct=True)
    rows = measure(samplers, options.repeats)
    ours = {row.model: row.rates for row in rows if row.sampler == "msjax"}
    cells = []
    for row in rows:
        ratios = [a / b for a, b in zip(ours[row.model], row.rates, strict=True)]
        cells.append(
            [
                row.model,
                row.sampler,
                f"{statistics.median(row.rates):.0f}",
                f"{statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})",
                f"{row.before:.1f}",
            ]
        )
    header = ["model", "sampler", "ESS per second", "msjax / this (range)", "first call, s"]
    print(f"{options.questions} questions x {options.rounds} rounds, {options.repeats} turns")
    print(markdown(header, cells))
    print(f"\nauto, all candidates, compiling included: {auto:.0f} s")
    if options.json:
        write_json(options.json, {"auto_seconds": auto, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
