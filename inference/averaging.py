"""What the intervals of `msjax fit` cover: averaged over models, and of one model picked.

Pilots are simulated from distributions that nobody tells the fit: some are among its models, some
are not. Every printed 90 % interval is held against the truth: what the first revision repairs and
breaks, the accuracy after the last recorded round, the range given for twice as many rounds, the
limit, and the bounds as sets. Beside the average stands the model with most weight, alone.

    python -m inference.averaging --json inference/results/averaging.json
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
import tyro

from msjax.cli.output import write_json
from msjax.cli.tables import markdown
from msjax.data.runs import Runs
from msjax.intervals import Interval
from msjax.posterior import Posterior, fit
from msjax.posterior.quantities import estimate

QUANTITIES = ("p_ic", "p_ci", "accuracy", "later", "limit", "upper", "lower")
_MANY = 400_000
"""Questions whose means are taken for the truth; their error is below .002."""
_LONG = 400
"""Rounds that stand for many."""
_QUANTILES = np.linspace(-5, 5, 201)


class Questions(NamedTuple):
    """Rates of questions in their first round, and by how much their log-odds change per round."""

    p0: np.ndarray
    p_ic: np.ndarray
    p_ci: np.ndarray
    drift: float = 0.0


@dataclass(frozen=True)
class Averaging:
    """Coverage of the 90 % intervals of `msjax fit`.

    python -m inference.averaging --json inference/results/averaging.json
    """

    pilots: int = 50
    """simulated pilots per distribution"""
    questions: int = 50
    """questions of each"""
    rounds: int = 3
    """rounds of revision of each question"""
    seed: int = 0
    """seed of all random draws"""
    json: Path | None = None
    """write the results here as well"""


def one_chain(random: np.random.Generator, n: int) -> Questions:
    """Every question alike."""
    return Questions(np.full(n, 0.6), np.full(n, 0.3), np.full(n, 0.1))


def mover_stayer(random: np.random.Generator, n: int) -> Questions:
    """Half the questions never change, 45 % of them right."""
    settled, right = random.random(n) < 0.5, random.random(n) < 0.45
    p0 = np.where(settled, right, 0.5)
    return Questions(p0, np.where(settled, 0, 0.4), np.where(settled, 0, 0.2))


def heterogeneous(random: np.random.Generator, n: int) -> Questions:
    """Rates from Beta distributions with intra-question correlation .25."""
    return Questions(np.full(n, 0.6), random.beta(0.9, 2.1, n), random.beta(0.3, 2.7, n))


def correlated(random: np.random.Generator, n: int) -> Questions:
    """Log-odds of all three rates jointly normal: easy questions are right, mended and kept."""
    correlation = np.array([[1, 0.6, -0.6], [0.6, 1, -0.6], [-0.6, -0.6, 1]])
    z = random.normal(size=(n, 3)) @ np.linalg.cholesky(correlation).T
    weight = scipy.special.softmax(-(_QUANTILES**2) / 2)

    def rate(mean: float, sd: float, effect: np.ndarray) -> np.ndarray:
        def off(location: float) -> float:
            return float(weight @ scipy.special.expit(location + sd * _QUANTILES) - mean)

        return scipy.special.expit(scipy.optimize.brentq(off, -12, 12) + sd * effect)

    return Questions(rate(0.5, 1.5, z[:, 0]), rate(0.25, 1.3, z[:, 1]), rate(0.15, 1.3, z[:, 2]))


def drifting(random: np.random.Generator, n: int) -> Questions:
    """Every question alike, and the log-odds of both rates fall by a half every round."""
    return Questions(np.full(n, 0.5), np.full(n, 0.35), np.full(n, 0.2), drift=-0.5)


DISTRIBUTIONS = {
    "one chain": one_chain,
    "mover-stayer": mover_stayer,
    "correlated effects": correlated,
    "heterogeneous": heterogeneous,
    "drifting": drifting,
}


def rates(questions: Questions, k: int) -> tuple[np.ndarray, np.ndarray]:
    """P(I -> C) and P(C -> I) of every question in round k + 1."""
    if not questions.drift:
        return questions.p_ic, questions.p_ci
    p_ic, p_ci = (
        scipy.special.expit(scipy.special.logit(p) + questions.drift * k)
        for p in (questions.p_ic, questions.p_ci)
    )
    return p_ic, p_ci


def truth(questions: Questions, rounds: int) -> dict[str, float]:
    """What the intervals are about; `later` is the accuracy after twice the rounds."""
    p0, p_ic, p_ci = questions[:3]
    accuracy, curve = p0.copy(), [p0.mean()]
    for k in range(2 * rounds if not questions.drift else _LONG):
        repaired, broken = rates(questions, k)
        accuracy = accuracy + (1 - accuracy) * repaired - accuracy * broken
        curve.append(accuracy.mean())
    if not questions.drift:
        moving = p_ic + p_ci
        accuracy = np.where(moving > 0, p_ic / np.where(moving > 0, moving, 1), p0)
    return {
        "p_ic": ((1 - p0) * p_ic).sum() / (1 - p0).sum(),
        "p_ci": (p0 * p_ci).sum() / p0.sum(),
        "accuracy": curve[rounds],
        "later": curve[2 * rounds],
        "limit": accuracy.mean(),
        "upper": np.maximum(p0, accuracy).mean(),
        "lower": np.minimum(p0, accuracy).mean(),
    }


def pilot(random: np.random.Generator, questions: Questions, rounds: int) -> np.ndarray:
    """Right or wrong, [question, answer]."""
    n = len(questions.p0)
    states = np.empty((n, rounds + 1), dtype=np.int8)
    states[:, 0] = random.random(n) < questions.p0
    for k in range(rounds):
        p_ic, p_ci = rates(questions, k)
        leave = np.where(states[:, k] == 1, p_ci, p_ic)
        states[:, k + 1] = states[:, k] ^ (random.random(n) < leave)
    return states


def averaged(post: Posterior) -> dict[str, Interval]:
    """The printed intervals."""
    return {
        "p_ic": post.p_ic.interval(),
        "p_ci": post.p_ci.interval(),
        "accuracy": post.accuracy[post.runs.rounds].interval(),
        "later": post.later[post.runs.rounds - 1],
        "limit": post.limit.interval(),
        "upper": post.upper.interval(),
        "lower": post.lower.interval(),
    }


def picked(post: Posterior) -> dict[str, Interval]:
    """The same of the model with most weight alone; rates by its own names for them."""
    name, draws = post.leading.model.name, post.leading.draws
    found = post.by_model[name]
    return {
        "p_ic": estimate(draws["p_ic"]),
        "p_ci": estimate(draws["p_ci"]),
        "limit": estimate(found.limit.neutral),
        "upper": estimate(found.limit.upper),
    }


def judge(name: str, options: Averaging) -> dict[str, Any]:
    """Shares of intervals that hold the truth, among those printed, under one distribution."""
    draw = DISTRIBUTIONS[name]
    random = np.random.default_rng([options.seed, list(DISTRIBUTIONS).index(name)])
    true = truth(draw(random, _MANY), options.rounds)
    hits: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    weights: dict[str, list[float]] = {}
    start = time.process_time()
    for i in range(options.pilots):
        states = pilot(random, draw(random, options.questions), options.rounds)
        post = fit(Runs.from_arrays(states), seed=jax.random.key(i))
        for model, weight in post.models.items():
            weights.setdefault(model, []).append(weight)
        for kind, intervals in (("average", averaged(post)), ("picked", picked(post))):
            for quantity, interval in intervals.items():
                if interval.identified:
                    inside = interval.low <= true[quantity] <= interval.high
                    hits.setdefault(f"{kind} {quantity}", []).append(bool(inside))
                    widths.setdefault(f"{kind} {quantity}", []).append(interval.high - interval.low)
    return {
        "truth": true,
        "seconds_per_fit": (time.process_time() - start) / options.pilots,
        "mean_weight": {model: float(np.mean(x)) for model, x in weights.items()},
        "coverage": {
            key: {
                "printed": len(x) / options.pilots,
                "share": float(np.mean(x)),
                "low": _wilson(x)[0],
                "high": _wilson(x)[1],
                "width": float(np.mean(widths[key])),
            }
            for key, x in hits.items()
        },
    }


def study(options: Averaging) -> dict[str, Any]:
    """Every distribution, one process each, as many at a time as there are cores."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        found = pool.map(partial(judge, options=options), DISTRIBUTIONS)
        return dict(zip(DISTRIBUTIONS, found, strict=True))


def _wilson(hits: list[bool]) -> tuple[float, float]:
    low, high = scipy.stats.binomtest(sum(hits), len(hits)).proportion_ci(0.9, method="wilson")
    return float(low), float(high)


def tables(results: dict[str, Any]) -> str:
    """Coverage of the average by distribution and quantity, then of the picked model."""

    def cell(found: dict[str, float] | None) -> str:
        if found is None:
            return "never printed"
        text = f"{found['share']:.2f}"
        return text if found["printed"] == 1 else f"{text} ({found['printed']:.0%} printed)"

    def rows(kind: str, quantities: tuple[str, ...]) -> list[list[str]]:
        return [
            [name, *(cell(x["coverage"].get(f"{kind} {q}")) for q in quantities)]
            for name, x in results.items()
        ]

    alone = ("p_ic", "p_ci", "limit", "upper")
    return "\n\n".join(
        [
            markdown(["averaged", *QUANTITIES], rows("average", QUANTITIES)),
            markdown(["one picked", *alone], rows("picked", alone)),
        ]
    )


def main() -> None:
    """Simulate, print the tables as Markdown, write the JSON."""
    options = tyro.cli(Averaging)
    results = study(options)
    print(f"{options.pilots} pilots of {options.questions} x {options.rounds}, seed {options.seed}")
    print(f"\n{tables(results)}")
    if options.json:
        settings = {"pilots", "questions", "rounds", "seed"}
        told = {name: getattr(options, name) for name in sorted(settings)}
        write_json(options.json, {**told, "distributions": results})


if __name__ == "__main__":
    main()
