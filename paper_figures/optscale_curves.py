"""Figure: accuracy against tokens of OptScale and what it was compared with, as published.

Reference: OptScale (arXiv 2506.22376) and its public results.
"""

import statistics
from pathlib import Path
from typing import Any

from msjax.evaluate.summary import proportion
from msjax.report.figures import style
from msjax.report.figures.gallery import Difference
from paper_figures.published import DATASETS, Cell, curves, differences, table
from paper_figures.sources import PaperSources

__all__ = ["SAYS", "make"]

SAYS = "OptScale: accuracy against tokens"

_SPELLED = {
    # as published: the rule whose look it has, and its name in words
    "BoN": ("fixed+best_score", "best of N (BoN)"),
    "SC": ("fixed+majority", "self-consistency (SC)"),
    "MR-Thinking": ("fixed", "rounds (MR-Thinking)"),
    "ESC": ("esc", "early stopping (ESC)"),
    "ASC": ("asc", "adaptive consistency (ASC)"),
    "DSC": ("dsc", "difficulty-adaptive (DSC)"),
    "OptScale0": ("optscale", "OptScale0"),
    "OptScale-t": ("optscale,trained", "OptScale-t (trained)"),
}


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
    with style.panels(len(DATASETS) + 1, 2.4, 2.5, share_y=False) as (figure, axes):
        for axis, (dataset, questions) in zip(axes, DATASETS.items(), strict=False):
            axis.set_xscale("log")
            for method in methods:
                mine = sorted(
                    {c for c in cells if (c.method, c.dataset) == (method, dataset)},
                    key=lambda cell: cell.budget,
                )
                _curve(axis, mine)
                rows += [_row(cell, questions) for cell in mine]
            _typical(axis, [cell for cell in cells if cell.dataset == dataset], questions)
            axis.set_title(f"{dataset} (n = {questions})")
        figure.supylabel("accuracy (%)")
        axes[-1].axis("off")
        axes[-1].legend(*axes[0].get_legend_handles_labels(), loc="center")
        style.save(
            figure,
            stem,
            rows,
            "published, OptScale repository (MIT), "
            + ("whole files given by the user" if files else "transcribed at powers of two"),
            "Across: completion tokens per question. Black bar: 90 % interval of n questions at "
            "the middle accuracy; the CSV file has that of every point.",
        )
    return differences(curves(), files)


def _row(cell: Cell, questions: int) -> dict[str, Any]:
    found = proportion(round(cell.accuracy * questions / 100), questions)
    return cell._asdict() | {
        "questions": questions,
        "low": round(100 * found.low, 3),
        "high": round(100 * found.high, 3),
    }


def _curve(axis: Any, cells: list[Cell]) -> None:
    if not cells:
        return
    rule, says = _SPELLED[cells[0].method]
    axis.plot(
        [cell.tokens for cell in cells],
        [cell.accuracy for cell in cells],
        ms=3.5,
        lw=0.8,
        markevery=[i for i, cell in enumerate(cells) if (cell.budget & (cell.budget - 1)) == 0],
        label=says,
        **style.method(rule),
    )


def _typical(axis: Any, cells: list[Cell], questions: int) -> None:
    """One interval for all points of a panel, at its right edge: they are of nearly one width."""
    middle = statistics.median(cell.accuracy for cell in cells)
    found = proportion(round(middle * questions / 100), questions)
    ends = [[middle - 100 * found.low], [100 * found.high - middle]]
    x = 1.6 * max(cell.tokens for cell in cells)
    axis.errorbar(x, middle, yerr=ends, color=style.OBSERVED, lw=1.2, capsize=2.5)
