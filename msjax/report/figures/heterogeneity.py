"""Figure: accuracy of a benchmark whose questions differ, against one chain for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msjax.report.figures import style
from msjax.texts import figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_SPREADS = {
    "both": ("both rates vary", "-"),
    "ic": ("only $p_{ic}$ varies", "--"),
    "ci": ("only $p_{ci}$ varies", ":"),
}


def draw(
    benchmarks: Mapping[str, Mapping[str, Any]], stem: Path, source: str | None = None
) -> Path:
    """One panel per benchmark with the two curves, and one with the error of the limit.

    Args:
        benchmarks: by name, the accuracies `mixture` and `pooled` after k = 0, 1, ... rounds, their
            limits `limit` and `pooled_limit`, and the error of the limit against the intra-question
            `correlation` when `both` rates, only p_ic (`ic`) or only p_ci (`ci`) vary.
        stem: where to save, without suffix.
        source: whose results these are, if that is to be said.

    Returns:
        The PNG's path.

    Reference: docs/theory.md B1 and B4.
    """
    with style.panels(len(benchmarks) + 1, 3.3, share_y=False) as (figure, axes):
        for axis, (name, found) in zip(axes, benchmarks.items(), strict=False):
            _curves(axis, name, found)
        axes[0].set_ylabel("accuracy")
        axes[0].legend(fontsize=7, loc="best")
        _limit_errors(axes[-1], benchmarks)
        rows = [row for name, found in benchmarks.items() for row in _rows(name, found)]
        return style.save(figure, stem, rows, source)


def _curves(axis: Axes, name: str, found: Mapping[str, Any]) -> None:
    rounds = range(len(found["mixture"]))
    for part, limit, colour, label in (
        ("mixture", "limit", style.OBSERVED, "mixture (true)"),
        ("pooled", "pooled_limit", style.RULE, "pooled chain"),
    ):
        axis.plot(rounds, found[part], color=colour, label=label)
        axis.axhline(found[limit], color=colour, ls="--", lw=0.8)
    limits = f"limits (dashed) {found['limit']:.3f} and {found['pooled_limit']:.3f}"
    axis.set_title(f"{figure_text(name)}\n{limits}", fontsize=9)
    axis.set_xlabel("refinement rounds k")


def _limit_errors(axis: Axes, benchmarks: Mapping[str, Mapping[str, Any]]) -> None:
    """Limit of the mixture less that of the pooled chain, at fixed mean rates."""
    for number, (name, found) in enumerate(benchmarks.items()):
        for part, (_, line) in _SPREADS.items():
            label = figure_text(name) if part == "both" else None
            axis.plot(found["correlation"], found[part], line, color=f"C{number}", label=label)
    for varies, line in _SPREADS.values():
        axis.plot([], [], line, color=style.OBSERVED, label=varies)
    axis.set_title("true limit less pooled limit", fontsize=9)
    axis.set_xlabel("intra-question correlation of flips")
    axis.set_ylabel("limit error (probability)")
    low, high = axis.get_ylim()
    axis.set_ylim(low - 0.55 * (high - low), high)
    axis.legend(fontsize=6, loc="lower left")


def _rows(name: str, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    empty = dict.fromkeys(("k", "mixture", "pooled", "correlation", *_SPREADS))
    curves = zip(found["mixture"], found["pooled"], strict=True)
    errors = zip(*(found[part] for part in ("correlation", *_SPREADS)), strict=True)
    return [
        empty | {"benchmark": name, "k": k, "mixture": true, "pooled": pooled}
        for k, (true, pooled) in enumerate(curves)
    ] + [
        empty | {"benchmark": name} | dict(zip(("correlation", *_SPREADS), error, strict=True))
        for error in errors
    ]
