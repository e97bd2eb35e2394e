"""Figure: accuracy of a benchmark whose questions differ, against one chain for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msjax.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_SPREADS = {
    "both": ("both rates vary", "o"),
    "ic": ("only $p_{ic}$ varies", "s"),
    "ci": ("only $p_{ci}$ varies", "^"),
}
_LIMITS = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Colours of benchmarks in the last panel: none of those of the curves."""


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
        axes[0].legend(loc="lower right")
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
        axis.plot(1.04 * rounds[-1], found[limit], "<", ms=5, color=colour)
    limits = f"limits (arrows) {found['limit']:.3f} and {found['pooled_limit']:.3f}"
    axis.set_title(f"{style.formula(name)}\n{limits}")
    axis.set_xlabel("refinement rounds k")


def _limit_errors(axis: Axes, benchmarks: Mapping[str, Mapping[str, Any]]) -> None:
    """Limit of the mixture less that of the pooled chain, at fixed mean rates."""
    for found, colour in zip(benchmarks.values(), _LIMITS, strict=False):
        for part, (_, marker) in _SPREADS.items():
            every = max(1, len(found["correlation"]) // 6)
            axis.plot(
                found["correlation"],
                found[part],
                marker=marker,
                ms=4,
                color=colour,
                markevery=every,
            )
    for number, (colour, _) in enumerate(zip(_LIMITS, benchmarks, strict=False), start=1):
        axis.plot([], [], color=colour, label=f"panel {number}")
    for varies, marker in _SPREADS.values():
        axis.plot([], [], marker, ms=4, color="#595959", label=varies)
    axis.set_title("limit of the mixture\nless that of the chain")
    axis.set_xlabel("intra-question correlation")
    axis.set_ylabel("difference of limits")
    low, high = axis.get_ylim()
    axis.set_ylim(low - 0.75 * (high - low), high)
    axis.legend(loc="lower left")


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
