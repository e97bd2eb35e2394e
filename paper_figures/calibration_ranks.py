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
    with grid(blocks, _COLUMNS, 2.4, 2.2) as (figure, axes):
        for i, found in enumerate(models):
            axis = axes[i // _COLUMNS, i % _COLUMNS]
            bins = len(next(iter(found["ranks"].values())))
            edges = np.arange(bins + 1) / bins
            band = ecdf_band(found["simulations"], bins)
            axis.fill_between(edges, *band, color=style.MODEL, alpha=0.2, lw=0)
            for name, counts in found["ranks"].items():
                ecdf = np.append(0, np.cumsum(counts)) / found["simulations"]
                axis.plot(edges, ecdf - edges, lw=0.8, color=style.OBSERVED, alpha=0.7)
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
            least = min(found["p_values"].values())
            axis.set_title(
                f"{found['model']}\nn = {found['simulations']}, {len(found['ranks'])} quantities, "
                f"least p {least:.2g}",
                fontsize=7,
            )
            axis.set_xlabel("rank")
        for i in range(len(models), blocks * _COLUMNS):
            axes[i // _COLUMNS, i % _COLUMNS].remove()
        for row in range(blocks):
            axes[row, 0].set_ylabel("ECDF less uniform\n(99 % band)")
        style.save(figure, stem, rows, sources.origin("simulated runs"))
