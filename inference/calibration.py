"""Calibration of the posteriors, and what their intervals cover when the model is wrong.

First every model is fitted to runs simulated from itself, with parameters from its prior: the truth
must have a uniform rank among posterior draws (simulation-based calibration). Then every model is
fitted to the runs of every other one, and central intervals are counted that hold the truth.

    python -m inference.calibration --json calibration.json
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from tqdm import tqdm

from msjax.cli.output import write_json
from msjax.cli.tables import markdown
from msjax.posterior.calibration import RANKED, Ranks, partial_pooling_ranks, rank_statistics
from msjax.posterior.models import CANDIDATES, find_model
from msjax.posterior.models.partial_pooling import PartiallyPooled

LEVELS = (0.5, 0.9)
ALARM = 0.05
"""Chance that a sound set of posteriors gets any bad verdict (Bonferroni)."""
BINS = 20
OUTCOMES = {
    "p_K": "accuracy after the K rounds observed",
    "p_2K": "accuracy after 2K rounds, an extrapolation",
    "limit": "accuracy in the limit",
}


@dataclass(frozen=True)
class Calibration:
    """Simulation-based calibration of the models, and coverage of each under every other.

    python -m inference.calibration --json calibration.json
    """

    simulations: int = 200
    """simulated benchmarks per model, fitted by the model itself"""
    crossed: int = 100
    """simulated benchmarks per pair of different models"""
    questions: int = 100
    """questions of each"""
    rounds: int = 6
    """rounds of revision of each question"""
    models: tuple[str, ...] = tuple(model.name for model in CANDIDATES)
    """names of the models; partial_pooling is calibrated on several benchmarks and not crossed"""
    seed: int = 0
    """seed of all random draws"""
    json: Path | None = None
    """write the results here as well"""


def study(options: Calibration) -> Iterator[Ranks]:
    """Every pair of models, the right ones first."""
    models = [find_model(name) for name in options.models if name != PartiallyPooled.name]
    pairs = [(model, model) for model in models]
    pairs += [(truth, fitted) for truth in models for fitted in models if truth != fitted]
    keys = jax.random.split(jax.random.key(options.seed), 2)
    for truth, fitted in (bar := tqdm(pairs, unit="pair")):
        bar.set_postfix_str(f"{fitted.name} fitted to {truth.name}")
        yield rank_statistics(
            truth,
            jax.random.fold_in(keys[int(truth == fitted)], models.index(truth)),
            simulations=options.simulations if truth == fitted else options.crossed,
            questions=options.questions,
            rounds=options.rounds,
            fitted=fitted,
        )
    if PartiallyPooled.name in options.models:
        yield partial_pooling_ranks(
            jax.random.key(options.seed),
            simulations=options.simulations,
            questions=options.questions,
            rounds=options.rounds,
        )


def sbc_table(right: list[Ranks]) -> str:
    """p-value of every quantity's ranks."""
    p_values = {(r.model, name): p for r in right for name, p in r.p_values.items()}
    verdicts = {True: "uniform", False: "**not uniform**"}
    rows = [
        (model, name, f"{p:.3g}", verdicts[p * len(p_values) >= ALARM])
        for (model, name), p in p_values.items()
    ]
    return markdown(("model", "quantity", "p-value", "ranks"), rows)


def coverage_table(found: list[Ranks], quantity: str, level: float) -> str:
    """Share of intervals that hold the truth, its Wilson interval, and (at 90 %) mean width."""
    cells = {(r.model, r.fitted): r for r in found if quantity in r.widths}
    names = list(dict.fromkeys(r.model for r in found))

    def cell(truth: str, fitted: str) -> str:
        if (truth, fitted) not in cells:
            return "-"
        ranks = cells[truth, fitted]
        share, low, high = ranks.covered(quantity, level)
        text = f"{share:.2f} [{low:.2f}, {high:.2f}]"
        if level == 0.9:
            text += f" ({ranks.widths[quantity]:.2f})"
        # What is significantly too low is what a reader has to see.
        return f"**{text}**" if high < level else text

    rows = [(truth, *(cell(truth, fitted) for fitted in names)) for truth in names]
    return markdown(("truth \\ fitted", *names), rows)


def report(options: Calibration, found: list[Ranks]) -> str:
    """Both parts as Markdown."""
    right = [r for r in found if r.model == r.fitted]
    parts = [
        f"{options.questions} questions, K = {options.rounds} rounds, seed {options.seed}; "
        f"parameters drawn from the prior of the true model; {RANKED} posterior draws.",
        f"Simulation-based calibration, {options.simulations} simulations per model. A verdict is "
        f"given at {ALARM:g} divided by the number of p-values.",
        sbc_table(right),
    ]
    if len(found) > len(right):
        parts.append(
            f"Coverage, {options.crossed} simulations per pair ({options.simulations} on the "
            "diagonal), with 95 % Wilson intervals; bold where these lie below the nominal level; "
            "at 90 % the mean width in parentheses."
        )
        for quantity, title in OUTCOMES.items():
            for level in LEVELS:
                parts.append(f"{level:.0%} intervals of the {title}:")
                parts.append(coverage_table(found, quantity, level))
    return "\n\n".join(parts)


def as_json(options: Calibration, found: list[Ranks]) -> dict[str, Any]:
    """Everything, in JSON's types."""
    return {
        "options": {name: x for name, x in asdict(options).items() if name != "json"},
        "sbc": [
            {
                "model": r.model,
                "ranks": {name: histogram(ranks) for name, ranks in r.ranks.items()},
                "simulations": options.simulations,
                "draws": RANKED,
                "p_values": r.p_values,
            }
            for r in found
            if r.model == r.fitted
        ],
        "coverage": [
            {
                "truth": r.model,
                "fitted": r.fitted,
                "simulations": len(r.ranks[name]),
                "quantity": name,
                "mean_width": width,
                "covered": {f"{x:g}": r.covered(name, x)._asdict() for x in LEVELS},
            }
            for r in found
            for name, width in r.widths.items()
        ],
        "versions": {x: version(x) for x in ("msjax", "jax", "numpyro", "numpy", "scipy")}
        | {"python": platform.python_version()},
    }


def histogram(ranks: np.ndarray) -> list[int]:
    """How many ranks fall into each of 20 bins of equal size."""
    return np.bincount(ranks * BINS // (RANKED + 1), minlength=BINS).tolist()


def main(options: Calibration) -> None:
    """Run, print the tables, and write them if asked to; when interrupted, those that are done."""
    found: list[Ranks] = []
    try:
        for ranks in study(options):
            found.append(ranks)
    except KeyboardInterrupt:
        print(f"interrupted after {len(found)} pairs")
    if found:
        print(report(options, found))
    if options.json is not None:
        write_json(options.json, as_json(options, found))


if __name__ == "__main__":
    main(tyro.cli(Calibration))
