"""Figures of a calibration study: ranks of every model, and coverage when the model is wrong.

Reference: docs/theory.md F6.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msjax.report.figures import style
from msjax.report.figures.posterior import ecdf_band, grid
from msjax.report.figures.sources import Sources

__all__ = ["make_misspecification", "make_ranks"]

_COLUMNS = 4
_QUANTITY, _LEVEL = "p_2K", "0.9"


def make_ranks(sources: Sources, stem: Path) -> None:
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


def make_misspecification(sources: Sources, stem: Path) -> None:
    """Share of 90 % intervals of the accuracy after 2K rounds that hold the truth."""
    coverage = sources.json("calibration.json")["coverage"]
    cells = {(c["truth"], c["fitted"]): c for c in coverage if c["quantity"] == _QUANTITY}
    models = list(dict.fromkeys(truth for truth, _ in cells))
    shares = np.array([[_share(cells.get((t, f))) for f in models] for t in models])
    rows = [
        {"truth": t, "fitted": f, "simulations": c["simulations"], **c["covered"][_LEVEL]}
        for (t, f), c in cells.items()
    ]
    with style.panels(1, 1.0 * len(models), 0.75 * len(models) + 0.6) as (figure, (axis,)):
        mesh = axis.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for i, t in enumerate(models):
            for j, f in enumerate(models):
                if (t, f) in cells:
                    _write(axis, j, i, cells[t, f])
        axis.set_xticks(range(len(models)), models, rotation=30, ha="right", fontsize=7)
        axis.set_yticks(range(len(models)), models, fontsize=7)
        axis.set_xlabel("model fitted")
        axis.set_ylabel("model that made the runs")
        axis.grid(False)
        figure.colorbar(mesh, label="share of 90 % intervals that hold the truth [95 %]")
        style.save(figure, stem, rows, sources.origin("simulated runs"))


def _share(cell: Mapping[str, Any] | None) -> float:
    return np.nan if cell is None else cell["covered"][_LEVEL]["share"]


def _write(axis: Any, x: int, y: int, cell: Mapping[str, Any]) -> None:
    found = cell["covered"][_LEVEL]
    axis.text(
        x,
        y,
        f"{found['share']:.2f}\n[{found['low']:.2f}, {found['high']:.2f}]",
        ha="center",
        va="center",
        fontsize=6.5,
        color="white" if found["share"] < 0.6 else "black",
    )
