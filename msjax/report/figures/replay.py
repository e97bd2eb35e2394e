"""Accuracy against tokens of every rule on recorded pools, with the rules that nothing beats."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msjax.report.figures.sources import MODEL_RUNS, Sources
from msjax.report.figures.style import OBSERVED, look, panels, save
from msjax.texts import figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from msjax.evaluate.crossfit import Evaluation

__all__ = ["draw", "make"]

_WIDE = 5
"""Ratio of tokens from which their axis is logarithmic."""


def draw(result: Evaluation, stem: Path) -> Path:
    """One panel: a point per rule with the 90 % interval of its accuracy; returns the PNG.

    Args:
        result: of one pool.
        stem: where to save, without suffix.
    """
    pool = {
        "questions": result.pool.questions,
        "unit": result.pool.unit,
        "rules": {rule.name: _numbers(rule) for rule in result.rules},
        "yardsticks": {rule.name: _numbers(rule) for rule in result.yardsticks},
    }
    return _draw({result.pool.name: pool}, stem, None)


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
    """A panel per pool; rules that did the same share one point and one entry of the legend."""
    names = list(dict.fromkeys(x for pool in pools.values() for x in _methods(pool)))
    rows = []
    with panels(len(pools), 3.4 if len(pools) > 1 else 5.0, 4.6) as (figure, axes):
        for axis, (title, pool) in zip(axes, pools.items(), strict=True):
            _panel(axis, pool, names)
            axis.set_title(f"{figure_text(title)} (n = {pool['questions']})", fontsize=9)
            axis.set_xlabel(f"{figure_text(pool['unit'])} per question")
            for name, rule in _methods(pool).items():
                found = rule["accuracy"]
                rows.append(
                    {
                        "benchmark": title,
                        "rule": name,
                        "tokens": rule["uncached"],
                        "accuracy": found["estimate"],
                        "low": found["low"],
                        "high": found["high"],
                        "efficient": rule["efficient"],
                    }
                )
        axes[0].set_ylabel("accuracy (90 % intervals over questions)")
        return save(figure, stem, rows, source)


def _methods(pool: Mapping[str, Any]) -> dict[str, Any]:
    return {**pool["rules"], **pool["yardsticks"]}


def _panel(axis: Axes, pool: Mapping[str, Any], names: list[str]) -> None:
    points: defaultdict[tuple[float, ...], list[str]] = defaultdict(list)
    for name, rule in _methods(pool).items():
        found = rule["accuracy"]
        points[rule["uncached"], found["estimate"], found["low"], found["high"]].append(name)
    for (tokens, middle, low, high), same in sorted(points.items()):
        yardstick = same[0] in pool["yardsticks"]
        colours = {"color": OBSERVED, "marker": "*"} if yardstick else look(names.index(same[0]))
        label = ", ".join(same)
        hollow: dict[str, Any] = (
            {} if pool["rules"].get(same[0], {}).get("efficient") else {"mfc": "white"}
        )
        axis.errorbar(
            tokens,
            middle,
            yerr=[[max(0.0, middle - low)], [max(0.0, high - middle)]],
            ms=5,
            capsize=2,
            lw=1,
            ls="none",
            label=label if len(label) < 44 else "\n   ".join(_halves(same)),
            **colours,
            **hollow,
        )
    spent = [tokens for tokens, *_ in points]
    if max(spent) > _WIDE * min(spent):
        axis.set_xscale("log")
    axis.legend(
        fontsize=6,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        title="full marker: no other rule is as accurate\nwith fewer tokens; star: looks at labels",
        title_fontsize=6,
    )


def _halves(names: list[str]) -> list[str]:
    """Names in lines of two."""
    pairs = [", ".join(names[i : i + 2]) for i in range(0, len(names), 2)]
    return [f"{pair}," for pair in pairs[:-1]] + pairs[-1:]
