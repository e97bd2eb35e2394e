"""Figure: what intervals cover when the model that is fitted is not the one that made the runs.

Reference: docs/theory.md F6.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msjax.report.figures import style
from msjax.report.figures.sources import Sources

__all__ = ["SAYS", "make"]

SAYS = "what intervals cover when the model is wrong"
_QUANTITY, _LEVEL = "p_2K", "0.9"


def make(sources: Sources, stem: Path) -> None:
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
        fontsize=7,
        color="white" if found["share"] < 0.6 else "black",
    )
