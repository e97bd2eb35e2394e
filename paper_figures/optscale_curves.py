"""Figure: accuracy against tokens of OptScale and what it was compared with, as published.

Reference: OptScale (arXiv 2506.22376) and its public results.
"""

from pathlib import Path
from typing import Any

import numpy as np

from msjax.evaluate.summary import proportion
from msjax.report.figures import style
from msjax.report.figures.gallery import Difference
from paper_figures.published import DATASETS, Cell, curves, differences, table
from paper_figures.sources import PaperSources

__all__ = ["SAYS", "make"]

SAYS = "OptScale: accuracy against tokens"

_CURVES = ("BoN", "SC", "MR-Thinking")


def make(sources: PaperSources, stem: Path) -> list[Difference]:
    """One panel per dataset; intervals are those of a share of so many questions.

    With the whole result files every budget is drawn and every transcribed number is held against
    them, otherwise powers of two.
    """
    whole = sources.optscale()
    files = {} if whole is None else whole[1]
    cells = [cell for found in files.values() for cell in found] if files else curves() + table()
    methods = list(dict.fromkeys(cell.method for cell in cells))
    rows: list[dict[str, Any]] = []
    with style.panels(len(DATASETS), 2.5, 4.4, share_y=False) as (figure, axes):
        for axis, (dataset, questions) in zip(axes, DATASETS.items(), strict=True):
            for number, method in enumerate(methods):
                mine = sorted(
                    {c for c in cells if (c.method, c.dataset) == (method, dataset)},
                    key=lambda cell: cell.budget,
                )
                _curve(axis, mine, questions, number)
                rows += [_row(cell, questions) for cell in mine]
            axis.set_xscale("log")
            axis.set_xlabel("completion tokens\nper question")
            axis.set_title(f"{dataset} (n = {questions})", fontsize=9)
        axes[0].set_ylabel("accuracy (%, 90 % intervals at N = 8 and 64)")
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=len(methods),
            fontsize=7,
        )
        style.save(
            figure,
            stem,
            rows,
            "published, OptScale repository (MIT), "
            + ("whole files given by the user" if files else "transcribed at powers of two"),
        )
    return differences(curves(), files)


def _row(cell: Cell, questions: int) -> dict[str, Any]:
    found = proportion(round(cell.accuracy * questions / 100), questions)
    return cell._asdict() | {
        "questions": questions,
        "low": round(100 * found.low, 3),
        "high": round(100 * found.high, 3),
    }


def _curve(axis: Any, cells: list[Cell], questions: int, number: int) -> None:
    look = style.look(number)
    tokens = np.array([cell.tokens for cell in cells])
    accuracy = np.array([cell.accuracy for cell in cells])
    axis.plot(
        tokens,
        accuracy,
        color=look["color"],
        marker=look["marker"],
        ms=3,
        lw=0.8,
        markevery=[i for i, cell in enumerate(cells) if (cell.budget & (cell.budget - 1)) == 0],
        label=cells[0].method if cells else None,
    )
    for cell in cells:
        if cell.budget in (8, 64):
            row = _row(cell, questions)
            ends = [[cell.accuracy - row["low"]], [row["high"] - cell.accuracy]]
            axis.errorbar(
                cell.tokens,
                cell.accuracy,
                yerr=np.maximum(ends, 0),
                color=look["color"],
                lw=0.6,
                capsize=1.5,
                alpha=0.6,
            )
