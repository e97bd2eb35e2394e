"""Figure: ranks of the truth among posterior draws, for every model.

Reference: docs/theory.md F6.
"""

from pathlib import Path
from typing import Any

import numpy as np

from msjax.report.figures import style
from msjax.report.figures.posterior import ecdf_band, grid
from msjax.report.figures.sources import Sources

__all__ = ["SAYS", "make"]

SAYS = "simulation-based calibration"
_COLUMNS = 4


def make(sources: Sources, stem: Path) -> None:
    """One panel per model: ECDF of every quantity's ranks less the uniform, in a 99 % band."""
    models = sources.json("calibration.json")["sbc"]
    blocks = -(-len(models) // _COLUMNS)
    rows: list[dict[str, Any]] = []
    with grid(blocks, _COLUMNS, 1.7, 1.9, share=True) as (figure, axes):
        for i, found in enumerate(models):
            axis = axes[i // _COLUMNS, i % _COLUMNS]
            bins = len(next(iter(found["ranks"].values())))
            edges = np.arange(bins + 1) / bins
            band = ecdf_band(found["simulations"], bins)
            axis.fill_between(edges, *band, color=style.MODEL, alpha=0.2, lw=0)
            worst = min(found["p_values"], key=found["p_values"].get)
            for name, counts in found["ranks"].items():
                ecdf = np.append(0, np.cumsum(counts)) / found["simulations"]
                least = name == worst
                colour, wide = (style.RULE, 1.4) if least else (style.OBSERVED, 0.6)
                axis.plot(edges, ecdf - edges, lw=wide, color=colour, zorder=3 if least else 2)
                rows += [
                    {
                        "model": found["model"],
                        "quantity": name,
                        "rank": round(float(edge), 4),
                        "difference": round(float(x), 6),
                        "low": round(float(low), 6),
                        "high": round(float(high), 6),
                        "p_value": found["p_values"][name],
                    }
                    for edge, x, low, high in zip(edges, ecdf - edges, *band, strict=True)
                ]
            axis.set_title(
                f"{found['model']}\n{len(found['ranks'])} quantities\n"
                f"{worst}: p = {found['p_values'][worst]:.2g}",
                fontsize=7,
            )
            axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        for i in range(len(models), blocks * _COLUMNS):
            axes[i // _COLUMNS, i % _COLUMNS].remove()
            axes[i // _COLUMNS - 1, i % _COLUMNS].tick_params(labelbottom=True)
        figure.supylabel("ECDF of the ranks less uniform")
        simulations = sorted({found["simulations"] for found in models})
        note = (
            "Across: rank of the truth among posterior draws. A line is a quantity; orange is the "
            "one named, whose p is least.\n"
            f"Band: 99 %, for a whole line. n = {' to '.join(map(str, simulations))} simulations."
        )
        style.save(figure, stem, rows, sources.origin("simulated runs"), note)
