"""Figure: accuracy per round, observed against the posterior of E[p_k] and of its limit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from msjax.data.trajectory import Trajectory
from msjax.evaluate.summary import accuracy_per_round
from msjax.intervals import Interval
from msjax.report.figures import style
from msjax.report.figures.sources import MODEL_RUNS, Sources
from msjax.texts import figure_text

__all__ = ["draw", "draw_band", "draw_observed", "make"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def make(sources: Sources, stem: Path) -> None:
    """`draw` of saved results."""
    fit = sources.json("fit.json")
    draw(sources.runs("pilot.jsonl"), fit, stem, sources.origin(MODEL_RUNS))


def draw(
    runs: Sequence[Trajectory], fit: dict[str, Any], stem: Path, source: str | None = None
) -> Path:
    """One panel per benchmark; bars, bands and the limit are 90 % intervals.

    Args:
        runs: the pilot that was fitted.
        fit: what `msjax fit --json` wrote for it.
        stem: where to save, without suffix.
        source: whose results these are, if that is to be said.

    Returns:
        The PNG's path.

    Reference: MarkovScale (arXiv 2602.01120), accuracy curves with estimated transitions.
    """
    rows: list[dict[str, Any]] = []
    with style.panels(len(fit["benchmarks"]), share_x=True) as (figure, axes):
        for axis, (name, found) in zip(axes, fit["benchmarks"].items(), strict=True):
            mine = [run for run in runs if run.benchmark == name]
            observed = accuracy_per_round(mine)
            curve, limit = found["quantities"]["accuracy"], found["quantities"]["pi"]
            if all(point is not None for point in curve):
                low, middle, high = (
                    [point[name] for point in curve] for name in ("low", "median", "high")
                )
                draw_band(axis, low, middle, high, "posterior of $E[p_k]$")
            if limit is not None:
                axis.axhline(limit["median"], color=style.MODEL, ls="--", lw=1, label="limit")
                axis.axhspan(limit["low"], limit["high"], color=style.MODEL, alpha=0.08, lw=0)
            else:
                axis.text(0.5, 0.92, "limit not identified", transform=axis.transAxes, ha="center")
            draw_observed(axis, observed)
            contradicted = any(text.startswith("CONTRADICTED") for text in found["warnings"])
            verdict = ",\ncontradicted by the runs" if contradicted else ""
            model = figure_text(found["model"])
            axis.set_title(f"{figure_text(name)} (n = {len(mine)})\n{model}{verdict}")
            axis.set_xlabel("refinement rounds k")
            rows += _rows(name, observed, curve)
        figure.supylabel("accuracy (90 % intervals)")
        axes[0].set_ylim(0, 1)
        named = {
            label: handle
            for axis in axes
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=len(named))
        return style.save(figure, stem, rows, source)


def draw_band(
    axis: "Axes",
    low: ArrayLike,
    middle: ArrayLike,
    high: ArrayLike,
    label: str,
) -> None:
    """Medians and intervals of E[p_0], E[p_1], ..."""
    rounds = range(np.size(middle))
    axis.fill_between(rounds, low, high, color=style.MODEL, alpha=0.25, linewidth=0)
    axis.plot(rounds, middle, color=style.MODEL, label=label)


def draw_observed(axis: "Axes", observed: Sequence[Interval]) -> None:
    """Accuracy after each round, with its interval."""
    axis.errorbar(
        range(len(observed)),
        [point.estimate for point in observed],
        yerr=[
            [point.estimate - point.low for point in observed],
            [point.high - point.estimate for point in observed],
        ],
        fmt="o",
        ms=4,
        capsize=2,
        color=style.OBSERVED,
        label="observed",
    )


def _rows(name: str, observed: Sequence[Any], curve: Sequence[Any]) -> list[dict[str, Any]]:
    rows = []
    for k, point in enumerate(curve):
        seen = observed[k] if k < len(observed) else None
        rows.append(
            {
                "benchmark": name,
                "k": k,
                "observed": seen and seen.estimate,
                "observed_low": seen and seen.low,
                "observed_high": seen and seen.high,
                "posterior_median": point and point["median"],
                "posterior_low": point and point["low"],
                "posterior_high": point and point["high"],
            }
        )
    return rows
