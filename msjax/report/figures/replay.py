"""Accuracy against tokens of every rule on recorded pools, with the rules that nothing beats."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msjax.report.figures import style
from msjax.report.figures.sources import MODEL_RUNS, Sources
from msjax.texts import figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from msjax.evaluate.crossfit import Evaluation

__all__ = ["draw", "draw_pools", "make"]

_WIDE = 5
"""Ratio of tokens from which their axis is logarithmic."""


def draw(result: Evaluation, stem: Path) -> Path:
    """One panel: a point per rule with the 90 % interval of its accuracy; returns the PNG.

    Args:
        result: of one pool.
        stem: where to save, without suffix.
    """
    return draw_pools({result.pool.name: result}, stem)


def draw_pools(results: Mapping[str, Evaluation], stem: Path, source: str | None = None) -> Path:
    """A panel for each pool, by title; `source` says whose results these are."""
    pools = {
        title: {
            "questions": result.pool.questions,
            "unit": result.pool.unit,
            "rules": {rule.name: _numbers(rule) for rule in result.rules},
            "yardsticks": {rule.name: _numbers(rule) for rule in result.yardsticks},
        }
        for title, result in results.items()
    }
    return _draw(pools, stem, source)


def make(sources: Sources, stem: Path) -> None:
    """Accuracy against tokens of all methods, one panel per benchmark.

    Reference: MarkovScale (arXiv 2602.01120), Fig. 1.
    """
    _draw(sources.json("replay.json")["pools"], stem, sources.origin(MODEL_RUNS))


def _numbers(rule: Any) -> dict[str, Any]:
    return {
        "accuracy": vars(rule.accuracy),
        "uncached": rule.uncached,
        "efficient": rule.efficient,
    }


def _draw(pools: Mapping[str, Mapping[str, Any]], stem: Path, source: str | None) -> Path:
    """A panel per pool; rules that did the same share one point."""
    rows, named = [], []
    wide, tall = (style.WIDEST, 2.1) if len(pools) > 1 else (5.0, 3.6)
    with style.panels(len(pools), wide, tall, share_x=_alike(pools), share_y=False, columns=1) as (
        figure,
        axes,
    ):
        for axis, (title, pool) in zip(axes, pools.items(), strict=True):
            axis.set_title(f"{figure_text(title)} (n = {pool['questions']})")
            if axis is axes[-1] or not _alike(pools):
                axis.set_xlabel(f"{figure_text(pool['unit'])} per question")
            named.append(_panel(axis, pool))
            rows += [
                {
                    "benchmark": title,
                    "rule": name,
                    "tokens": rule["uncached"],
                    "accuracy": rule["accuracy"]["estimate"],
                    "low": rule["accuracy"]["low"],
                    "high": rule["accuracy"]["high"],
                    "efficient": rule["efficient"],
                }
                for name, rule in _methods(pool).items()
            ]
            axis.margins(x=0.15, y=0.15)
        figure.supylabel("accuracy (90 % intervals over questions)")
        span = max(high - low for low, high in (axis.get_ylim() for axis in axes))
        for axis in axes:  # a difference is as long in every panel
            start = max(sum(axis.get_ylim()) / 2 - span / 2, -0.03)
            axis.set_ylim(start, start + span)
        note = (
            "Full marker: no other rule is as accurate with fewer tokens. Grey: looks at labels.\n"
            "Rules that did the same share a point; the CSV file names them all."
        )
        style.place_small_print(figure, source, note)
        for axis, points in zip(axes, named, strict=True):
            style.label_points(axis, points)
        return style.save(figure, stem, rows)


def _alike(pools: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether costs of all pools are of a size, so that one axis serves them."""
    units = {pool["unit"] for pool in pools.values()}
    spent = [rule["uncached"] for pool in pools.values() for rule in _methods(pool).values()]
    return len(units) == 1 and max(spent) <= _WIDE * min(spent)


def _methods(pool: Mapping[str, Any]) -> dict[str, Any]:
    return {**pool["rules"], **pool["yardsticks"]}


def _panel(
    axis: Axes, pool: Mapping[str, Any]
) -> list[tuple[float, float, float, float, str, str]]:
    """Draw the points of a pool; returns what `style.label_points` needs."""
    same: defaultdict[tuple[float, ...], list[str]] = defaultdict(list)
    for name, rule in _methods(pool).items():
        found = rule["accuracy"]
        same[rule["uncached"], found["estimate"], found["low"], found["high"]].append(name)
    points = []
    for (tokens, middle, low, high), names in sorted(same.items()):
        look = style.method(names[0])
        hollow: dict[str, Any] = (
            {} if pool["rules"].get(names[0], {}).get("efficient") else {"mfc": "white"}
        )
        axis.errorbar(
            tokens,
            middle,
            yerr=[[max(0.0, middle - low)], [max(0.0, high - middle)]],
            ms=5,
            capsize=2,
            lw=1,
            ls="none",
            **look,
            **hollow,
        )
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        points.append((tokens, middle, low, high, figure_text(names[0]) + more, look["color"]))
    spent = [tokens for tokens, *_ in same]
    if max(spent) > _WIDE * min(spent):
        axis.set_xscale("log")
    return points
