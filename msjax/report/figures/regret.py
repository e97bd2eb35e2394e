"""Figure: utility lost by errors in the parameters, and by the size of the pilot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msjax.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_PERCENT = 100.0


def draw(
    chains: Mapping[str, Mapping[str, Any]],
    acceptable: float,
    stem: Path,
    source: str | None = None,
) -> Path:
    """One panel per chain with the regret of errors in p_ic and p_ci, and one against pilot size.

    Args:
        chains: by name of the chain, `value` of a correct answer, `errors_ic`, `errors_ci` and
            `regret` [ic, ci], and pilot sizes `questions` with `mean`, `low` and `high` of the
            regret, in the unit of `value`.
        acceptable: regret to mark (share of the value).
        stem: where to save, without suffix.
        source: whose results these are, if that is to be said.

    Returns:
        The PNG's path.

    Reference: docs/theory.md B4.
    """
    worst = max(_PERCENT * np.max(found["regret"]) / found["value"] for found in chains.values())
    with style.panels(len(chains) + 1, 3.4, share_y=False) as (figure, axes):
        for axis, (name, found) in zip(axes, chains.items(), strict=False):
            mesh = _heat_map(axis, name, found, acceptable, worst)
        figure.colorbar(mesh, ax=axes[len(chains) - 1], label="regret (% of value)")
        axes[0].set_ylabel("error in $p_{ci}$")
        _pilots(axes[-1], chains, acceptable)
        rows = [row for name, found in chains.items() for row in _rows(name, found)]
        note = (
            "Errors: believed less true rate; the cross is no error. White line and dashed line: "
            f"{_PERCENT * acceptable:g} % of value.\nPilots: mean regret with 95 % intervals."
        )
        return style.save(figure, stem, rows, source, note)


def _heat_map(
    axis: Axes, name: str, found: Mapping[str, Any], acceptable: float, worst: float
) -> Any:
    """Regret over the grid, with a line around what is acceptable."""
    regret = _PERCENT * np.asarray(found["regret"]).T / found["value"]
    grid = found["errors_ic"], found["errors_ci"]
    mesh = axis.pcolormesh(*grid, regret, cmap="cividis", vmin=0, vmax=worst, rasterized=True)
    level = _PERCENT * acceptable
    if regret.min() < level < regret.max():
        axis.contour(*grid, regret, levels=[level], colors="white", linewidths=0.8)
    axis.plot(0, 0, "+", color="white", ms=8)
    axis.set_title(style.formula(name))
    axis.set_xlabel("error in $p_{ic}$")
    axis.grid(False)
    return mesh


def _pilots(axis: Axes, chains: Mapping[str, Mapping[str, Any]], acceptable: float) -> None:
    """Mean regret with its interval against pilot size; linear far below the acceptable."""
    for number, (name, found) in enumerate(chains.items()):
        mean, low, high = (
            _PERCENT * np.asarray(found[part]) / found["value"] for part in ("mean", "low", "high")
        )
        axis.errorbar(
            found["questions"],
            mean,
            yerr=[mean - low, high - mean],
            fmt="o-",
            ms=3,
            lw=1,
            capsize=2,
            color=f"C{number}",
            label=style.formula(name),
        )
    level = _PERCENT * acceptable
    axis.axhline(level, color=style.OBSERVED, ls="--", lw=0.8)
    axis.set_xscale("log")
    axis.set_yscale("symlog", linthresh=level / 10)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("questions in the pilot")
    axis.set_ylabel("mean regret (% of value)")
    axis.legend(loc="upper right")


def _rows(name: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    empty = dict.fromkeys(("error_ic", "error_ci", "questions", "regret", "low", "high"))
    grid = [
        empty | {"chain": name, "error_ic": ic, "error_ci": ci, "regret": lost}
        for ic, row in zip(found["errors_ic"], found["regret"], strict=True)
        for ci, lost in zip(found["errors_ci"], row, strict=True)
    ]
    names = ("questions", "regret", "low", "high")
    pilots = zip(*(found[part] for part in ("questions", "mean", "low", "high")), strict=True)
    return grid + [
        empty | {"chain": name} | dict(zip(names, pilot, strict=True)) for pilot in pilots
    ]
