"""Fits of score distributions for many questions at once against a SciPy loop over questions.

The loop is what OptScale's public code does: L-BFGS-B on the textbook density of the truncated
normal, mu free and sigma >= 1e-6, from the mean and standard deviation of the scores (maximum
likelihood) or from the prediction (posterior mode). Both get the same scores; turns alternate, so
that what else the machine does falls on both. Optima are the same if our objective, evaluated in
float64, is no more than `TOLERANCE` nats below SciPy's.

    python -m benchmarks.score_fits --json score_fits.json
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from scipy import optimize, special

from msjax.cli.output import write_json
from msjax.cli.tables import markdown
from msjax.theory.best_of_n import TruncatedNormal
from msjax.theory.score_fits import (
    LARGEST_SIGMA,
    PRIOR_DEVIATION,
    fit_truncated_normal,
    fit_truncated_normal_to_prior,
    score_statistics,
)

TOLERANCE = 1e-3
"""Nats of the objective of a whole question."""

PRIOR = (0.6, 0.15)


@dataclass(frozen=True)
class ScoreFits:
    """Compare fits of score distributions.

    python -m benchmarks.score_fits --json score_fits.json
    """

    questions: int = 20_000
    """questions fitted at once"""
    scores: int = 64
    """scores per question"""
    loop: int = 300
    """of these, questions fitted by the SciPy loop"""
    repeats: int = 5
    """timed turns"""
    json: Path | None = None
    """write the results here as well"""


@dataclass(frozen=True)
class FitRow:
    """One kind of fit; times are microseconds per question, one per turn.

    Attributes:
        fit: which.
        compiling: seconds of our first call.
        ours: compiled, all questions at once.
        loop: SciPy, question by question.
        compared: questions of the loop whose distribution is identified (not flagged degenerate).
        worse: of these, questions where our objective is lower by more than `TOLERANCE`.
        better: of these, questions where it is higher by more than `TOLERANCE`.
        shortfall: nats by which the worst of these is lower.
        degenerate: share of all questions that our fit flags.
    """

    fit: str
    compiling: float
    ours: list[float]
    loop: list[float]
    compared: int
    worse: int
    better: int
    shortfall: float
    degenerate: float


def simulated_scores(questions: int, scores: int) -> np.ndarray:
    """Scores of questions that differ, from spread to piled up near 1, in float32."""
    random = np.random.default_rng(0)
    mean, total = random.beta(6, 2, (questions, 1)), random.gamma(2, 10, (questions, 1))
    return random.beta(mean * total, (1 - mean) * total, (questions, scores)).astype(np.float32)


def objective(mu: float, sigma: float, scores: np.ndarray, prior: tuple | None) -> float:
    """Log-likelihood, or log posterior up to a constant, in float64 without cancellation."""
    near, far = sorted((abs(mu), abs(1 - mu)))
    if 0 <= mu <= 1:
        inside = special.ndtr((1 - mu) / sigma) - special.ndtr(-mu / sigma)
        log_mass = np.log(inside)
    else:
        tail, end = special.log_ndtr(-near / sigma), special.log_ndtr(-far / sigma)
        log_mass = tail + np.log(-np.expm1(end - tail))
    value = -np.sum((scores - mu) ** 2) / (2 * sigma**2)
    value -= len(scores) * (np.log(sigma) + log_mass)
    if prior is not None:
        value -= ((mu - prior[0]) ** 2 + (sigma - prior[1]) ** 2) / (2 * PRIOR_DEVIATION**2)
    return float(value)


def scipy_fit(scores: np.ndarray, prior: tuple | None) -> np.ndarray:
    """Mu and sigma by L-BFGS-B, as in OptScale's public code."""

    def loss(x: np.ndarray) -> float:
        mu, sigma = x
        mass = special.ndtr((1 - mu) / sigma) - special.ndtr(-mu / sigma)
        value = np.sum(((scores - mu) / sigma) ** 2) / 2
        value += len(scores) * (np.log(sigma) + np.log(max(mass, 1e-300)))
        if prior is not None:
            value += ((mu - prior[0]) ** 2 + (sigma - prior[1]) ** 2) / (2 * PRIOR_DEVIATION**2)
        return value

    start = prior or (scores.mean(), scores.std())
    bounds = [(None, None), (1e-6, None)]
    return optimize.minimize(loss, start, method="L-BFGS-B", bounds=bounds).x


def compare_fits(name: str, scores: np.ndarray, loop: int, repeats: int) -> FitRow:
    """Time both on the same scores, from raw scores to parameters, and compare the optima."""
    prior = PRIOR if name == "posterior mode" else None
    distribution: Callable = jax.jit(
        (lambda s: fit_truncated_normal_to_prior(score_statistics(s), TruncatedNormal(*PRIOR)))
        if prior
        else (lambda s: fit_truncated_normal(score_statistics(s)))
    )
    pools = scores[:loop].astype(float)

    def timed(work: Callable, questions: int) -> tuple[float, Any]:
        start = time.perf_counter()
        result = work()
        return (time.perf_counter() - start) / questions * 1e6, result

    first, found = timed(lambda: jax.block_until_ready(distribution(scores)), 1)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(timed(lambda: jax.block_until_ready(distribution(scores)), len(scores))[0])
        spent, fits = timed(lambda: [scipy_fit(pool, prior) for pool in pools], loop)
        theirs.append(spent)
    fit, degenerate = (found, np.zeros(len(scores), bool)) if prior else found
    kept = np.flatnonzero(~np.asarray(degenerate)[:loop])
    mu, sigma = np.asarray(fit.mu, float), np.asarray(fit.sigma, float)
    gain = np.array(
        [
            objective(mu[i], sigma[i], pools[i], prior)
            - objective(fits[i][0], fits[i][1], pools[i], prior)
            for i in kept
        ]
    )
    return FitRow(
        name,
        first / 1e6,
        ours,
        theirs,
        len(kept),
        int(np.sum(gain < -TOLERANCE)),
        int(np.sum(gain > TOLERANCE)),
        float(max(0, -gain.min())),
        float(np.mean(degenerate)),
    )


def main() -> None:
    """Measure, print the table, write the JSON."""
    options = tyro.cli(ScoreFits)
    scores = simulated_scores(options.questions, options.scores)
    rows = [
        compare_fits(name, scores, options.loop, options.repeats)
        for name in ("maximum likelihood", "posterior mode")
    ]
    cells = []
    for row in rows:
        ratios = [b / a for a, b in zip(row.ours, row.loop, strict=True)]
        cells.append(
            [
                row.fit,
                f"{statistics.median(row.ours):.2f}",
                f"{statistics.median(row.loop):.0f}",
                f"{statistics.median(ratios):.0f} ({min(ratios):.0f}-{max(ratios):.0f})",
                f"{row.compiling:.1f}",
                f"{row.worse} / {row.better} of {row.compared}",
                f"{row.shortfall:.1e}",
                f"{row.degenerate:.1%}",
            ]
        )
    header = ["fit", "msjax, us per question", "SciPy, us", "SciPy / msjax (range)"]
    header += ["first call, s", "worse / better", "worst shortfall, nats", "degenerate"]
    print(f"{options.questions} questions x {options.scores} scores, {options.repeats} turns;")
    print(f"SciPy on the first {options.loop}; degenerate: sigma at {LARGEST_SIGMA:.0f} or more")
    print(markdown(header, cells))
    if options.json:
        write_json(options.json, {"fits": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
