"""Figure: accuracy against tokens, every fixed number of rounds and the rule."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msjax.data.trajectory import Trajectory
from msjax.evaluate.paired import ALL, of_benchmark, tokens_until
from msjax.evaluate.summary import proportion
from msjax.report.figures import style
from msjax.texts import figure_text


def draw(policy: Sequence[Trajectory], full: Sequence[Trajectory], stem: Path) -> Path:
    """One panel per benchmark and one for all; bars are 90 % intervals of the accuracy.

    Args:
        policy: runs that a rule stopped.
        full: the same questions, all rounds; stopping them after k rounds is "fixed k".
        stem: where to save, without suffix.

    Returns:
        The PNG's path.

    Reference: MarkovScale (arXiv 2602.01120), accuracy against tokens of all methods.
    """
    names = list(dict.fromkeys(run.benchmark for run in full))
    if len(names) > 1:
        names.append(ALL)
    rounds = min(run.revisions for run in full)
    rows: list[dict[str, Any]] = []
    with style.panels(len(names), share_x=True) as (figure, axes):
        for axis, name in zip(axes, names, strict=True):
            fixed = of_benchmark(full, name)
            points = [_point(name, f"fixed {k}", fixed, k) for k in range(rounds + 1)]
            stopped = of_benchmark(policy, name)
            rule = _point(name, "rule", stopped, None)
            _errorbar(
                axis, points, fmt="o-", color=style.method("fixed")["color"], label="fixed rounds"
            )
            for point in points:
                axis.annotate(
                    point["policy"].removeprefix("fixed "),
                    (point["tokens"], point["accuracy"]),
                    xytext=(4, 4),
                    textcoords="offset points",
                    fontsize=7,
                )
            look = style.method("markovscale")
            _errorbar(
                axis, [rule], fmt=look["marker"], color=look["color"], label="posterior-aware rule"
            )
            axis.set_title(f"{figure_text(name)} (n = {len(fixed)})")
            axis.set_xlabel("uncached tokens per question")
            rows += [*points, rule]
        figure.supylabel("accuracy (90 % intervals)")
        axes[0].set_ylim(0, 1)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
        return style.save(figure, stem, rows)


def _point(name: str, policy: str, runs: Sequence[Trajectory], k: int | None) -> dict[str, Any]:
    """Accuracy and mean tokens when each run stops after k rounds (None: where it did stop)."""
    stops = [run.revisions if k is None else k for run in runs]
    right = sum(run.correct[stop] for run, stop in zip(runs, stops, strict=True))
    tokens = [tokens_until(run, stop) for run, stop in zip(runs, stops, strict=True)]
    accuracy = proportion(right, len(runs))
    return {
        "benchmark": name,
        "policy": policy,
        "questions": len(runs),
        "tokens": float(np.mean(tokens)),
        "accuracy": accuracy.estimate,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
    }


def _errorbar(axis: Any, points: Sequence[dict[str, Any]], **look: Any) -> None:
    axis.errorbar(
        [point["tokens"] for point in points],
        [point["accuracy"] for point in points],
        yerr=[
            [point["accuracy"] - point["accuracy_low"] for point in points],
            [point["accuracy_high"] - point["accuracy"] for point in points],
        ],
        ms=4,
        capsize=2,
        lw=1,
        **look,
    )
