"""Figure: accuracy against tokens of every way to ask again that the study has recorded.

Reference: MarkovScale (arXiv 2602.01120), Fig. 1, on recordings of this project.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from msjax.decision.card import decide
from msjax.decision.policies import Policy
from msjax.report.figures import style
from msjax.texts import figure_text
from paper_figures.sources import PaperSources

__all__ = ["SAYS", "WAYS", "make"]

SAYS = "MarkovScale Fig. 1 on our study: accuracy against tokens of every way to ask again"

WAYS = {
    "reconsider": "asked to check its answer",
    "restart": "solved anew, shown the answer before",
    "samples": "majority of independent answers",
    "longer": "one longer answer",
}
"""Strategies of the study, in words."""


def make(sources: PaperSources, stem: Path) -> None:
    """One panel per model and benchmark; lines join numbers of rounds or of samples."""
    found = list(_points(sources))
    cells = list(dict.fromkeys((row["model"], row["benchmark"]) for row in found))
    looks: dict[str, Any] = {}
    with style.panels(len(cells), width=3.4) as (figure, axes):
        for axis, cell in zip(axes, cells, strict=True):
            mine = [row for row in found if (row["model"], row["benchmark"]) == cell]
            for number, way in enumerate(WAYS):
                points = [row for row in mine if row["way"] == way]
                if points:
                    _draw(axis, points, style.series(number), WAYS[way])
            n = " or ".join(map(str, sorted({row["questions"] for row in mine})))
            axis.set_title(f"{figure_text(cell[0])}\n{figure_text(cell[1])} (n = {n})")
            axis.set_xlabel("uncached tokens per question")
            axis.set_xlim(0, 1.06 * max(row["tokens"] for row in mine))
            axis.set_ylim(-0.02, min(1.0, 0.05 + max(row["accuracy_high"] for row in found)))
            handles, labels = axis.get_legend_handles_labels()
            looks |= dict(zip(labels, handles, strict=True))
        axes[0].set_ylabel("accuracy")
        figure.legend(looks.values(), looks.keys(), loc="outside upper left", ncols=2)
        note = "filled: after so many rounds or samples; hollow: other policies; 90 % intervals, "
        note += "for all points of one colour at once"
        style.save(figure, stem, found, "ours, recorded with msjax (inference/study)", note)


def _points(sources: PaperSources) -> Iterator[dict[str, Any]]:
    for way in WAYS:
        recorded = sources.study(way)
        for decision in decide(recorded).decisions if recorded is not None else ():
            runs = decision.pilot.runs
            model, benchmark = runs.models[0], runs.benchmarks[0]
            for row in decision.policies:
                if row.uncached is not None:
                    yield {
                        "model": model,
                        "benchmark": benchmark,
                        "way": way,
                        "policy": row.policy.name,
                        "is_rule": _is_rule(row.policy),
                        "questions": row.questions,
                        "tokens": row.uncached.estimate,
                        "accuracy": row.accuracy.estimate,
                        "accuracy_low": row.accuracy.low,
                        "accuracy_high": row.accuracy.high,
                    }


def _is_rule(policy: Policy) -> bool:
    """Whether it is other than a number of rounds, or of samples that vote."""
    first = policy.stop == "fixed" and policy.asks == 1
    joined = "majority" if policy.parallel else "last"
    return not first and (policy.stop != "fixed" or policy.returns != joined)


def _draw(axis: Any, points: list[dict[str, Any]], look: dict[str, Any], label: str) -> None:
    for rule in (False, True):
        some = [row for row in points if row["is_rule"] is rule]
        accuracy = np.array([row["accuracy"] for row in some])
        ends = [[row["accuracy_low"] for row in some], [row["accuracy_high"] for row in some]]
        axis.errorbar(
            [row["tokens"] for row in some],
            accuracy,
            yerr=np.abs(np.array(ends) - accuracy),
            ls="" if rule else "-",
            markerfacecolor="white" if rule else look["color"],
            label=None if rule else label,
            ms=4,
            lw=1,
            elinewidth=0.7,
            capsize=1.5,
            **look,
        )
