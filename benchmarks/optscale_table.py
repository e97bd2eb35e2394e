"""OptScale's published table, cell by cell, from the aggregate curves published with it.

The completions behind the table are not published, so no cell can be replayed. What can be done:
every accuracy and token count is looked up in the curve or sweep that should hold it, and for
OptScale's own rows the choice of thresholds is made again, by its rule (best accuracy on the test
set, ties to fewest tokens) and by none (the median over all thresholds it tried).

    python -m benchmarks.optscale_table --data FOLDER --json optscale_table.json
"""

from __future__ import annotations

import csv
import json
import re
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from msjax.cli.output import write_json
from msjax.cli.tables import markdown

DATASETS = ("MATH500", "GSM8K", "AIME24", "AIME25", "AMC23")
_TOLERANCE = {"accuracy": 0.05, "tokens": 0.5}
"""Rounding of the published table, in percent and tokens."""


@dataclass(frozen=True)
class OptscaleTable:
    """Check OptScale's published table against the curves published with it.

    python -m benchmarks.optscale_table --data FOLDER --json optscale_table.json
    """

    data: Path
    """folder with the recordings, which holds optscale/"""
    json: Path | None = None
    """write every cell here as well"""


@dataclass(frozen=True)
class Cell:
    """One published pair of numbers and what the curves say; None where they do not hold it."""

    method: str
    budget: int
    dataset: str
    accuracy: float
    tokens: float
    found_accuracy: float | None
    found_tokens: float | None
    median_accuracy: float | None = None
    median_tokens: float | None = None

    @property
    def agrees(self) -> bool | None:
        """Whether both numbers are those of the curves, to the rounding of the table."""
        if self.found_accuracy is None or self.found_tokens is None:
            return None
        return (
            abs(self.accuracy - self.found_accuracy) <= _TOLERANCE["accuracy"] + 1e-9
            and abs(self.tokens - self.found_tokens) <= _TOLERANCE["tokens"] + 1e-9
        )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def published(folder: Path) -> list[tuple[str, int, str, float, float]]:
    """Method, budget, dataset, accuracy (percent) and tokens of every cell of the table."""
    found = []
    for row in _rows(folder / "results_table.csv"):
        label = row["Baseline"] or ""
        match = re.match(r"(.*?)\s*\(\$N=(\d+)\$\)", label)
        if not match:
            continue
        method, budget = match.group(1).replace(" (Ours)", ""), int(match.group(2))
        found += [
            (method, budget, name, float(row[f"{name} acc."]), float(row[f"{name} token."]))
            for name in DATASETS
        ]
    return found


def check(folder: Path) -> list[Cell]:
    """Every cell with what the curves say of it."""
    curves = {
        "Best-of-N (BoN)": ("bon_curves.csv", "N"),
        "Self-Consistency": ("sc_majority_curves.csv", "N"),
        "MR-Thinking": ("mr_thinking_curves.csv", "max_N"),
    }
    known: dict[tuple[str, int, str], tuple[float, float]] = {}
    for method, (file, column) in curves.items():
        for row in _rows(folder / file):
            known[method, int(row[column]), row["dataset"]] = _pair(row)
    sweeps = {
        "Early-stopping SC (ESC)": ("sc_esc_asc.csv", "esc_max_n_sweep", "max_n"),
        "Adaptive SC (ASC)": ("sc_esc_asc.csv", "asc_max_n_sweep", "max_n"),
        "Difficulty-Adaptive SC (DSC)": (
            "sc_dsc.csv",
            "dsc_max_sample_size_sweep",
            "max_sample_size",
        ),
    }
    for method, (file, section, name) in sweeps.items():
        for row in _rows(folder / file):
            if row["section"] == section:
                budget = int(json.loads(row["setting_json"])[name])
                known[method, budget, row["dataset"]] = _pair(row)
    tried: dict[tuple[str, int, str], list[tuple[float, float]]] = {}
    for row in _rows(folder / "optscale_panels.csv"):
        symbol = {"MLE": "OptScale$^0$ (MLE)", "MAP": "OptScale$^t$ (MAP)"}[row["method"]]
        tried.setdefault((symbol, int(row["max_N"]), row["dataset"]), []).append(_pair(row))
    cells = []
    for method, budget, dataset, accuracy, tokens in published(folder):
        key = (method, budget, dataset)
        settings = tried.get(key)
        if settings:
            best = min(settings, key=lambda pair: (-pair[0], pair[1]))
            middle = [statistics.median(values) for values in zip(*settings, strict=True)]
            cells.append(Cell(*key, accuracy, tokens, *best, *middle))
        else:
            cells.append(Cell(*key, accuracy, tokens, *known.get(key, (None, None))))
    return cells


def _pair(row: dict[str, str]) -> tuple[float, float]:
    return 100 * float(row["accuracy"]), float(row["avg_tokens"])


def report(cells: list[Cell]) -> str:
    """Per method: cells that agree, the largest differences, and what choosing on the test adds."""
    rows = []
    for method in dict.fromkeys(cell.method for cell in cells):
        mine = [cell for cell in cells if cell.method == method]
        there = [cell for cell in mine if cell.found_accuracy is not None]
        agree = sum(bool(cell.agrees) for cell in there)
        off = [
            max((abs(getattr(c, name) - getattr(c, f"found_{name}")) for c in there), default=0.0)
            for name in ("accuracy", "tokens")
        ]
        chosen = [
            (c.accuracy - c.median_accuracy, c.tokens / c.median_tokens)
            for c in mine
            if c.median_accuracy is not None and c.median_tokens is not None
        ]
        gain = (
            f"{statistics.mean(a for a, _ in chosen):+.2f} points, "
            f"{statistics.median(t for _, t in chosen):.2f} x tokens"
            if chosen
            else "-"
        )
        rows.append(
            [method, f"{agree} of {len(mine)}", str(len(mine) - len(there))]
            + [f"{off[0]:.2f}", f"{off[1]:,.0f}", gain]
        )
    header = ["method", "cells that agree", "not published"]
    header += ["largest difference, points", "tokens", "published less median threshold"]
    return markdown(header, rows)


def main() -> None:
    """Print the table as Markdown, write the JSON."""
    options = tyro.cli(OptscaleTable)
    cells = check(options.data / "optscale")
    print(report(cells))
    if options.json:
        write_json(options.json, {"cells": [asdict(cell) for cell in cells]})


if __name__ == "__main__":
    main()
