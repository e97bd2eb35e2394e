"""Accuracy against tokens of every rule on one pool, with the rules that nothing beats."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from paper_figures.style import MODEL, OBSERVED, RULE, panels, save

if TYPE_CHECKING:
    from msjax.evaluation import Evaluation


def draw(result: "Evaluation", folder: Path) -> Path:
    """One panel: a point per rule with the 90 % interval of its accuracy; returns the PNG."""
    rows = []
    with panels(1, width=6.4, height=4.2) as (figure, (axes,)):
        for rule in (*result.rules, *result.yardsticks):
            labels = rule in result.yardsticks
            colour = OBSERVED if labels else (RULE if rule.efficient else MODEL)
            found = rule.accuracy
            axes.errorbar(
                rule.computed,
                found.estimate,
                yerr=[
                    [max(0.0, found.estimate - found.low)],
                    [max(0.0, found.high - found.estimate)],
                ],
                fmt="s" if labels else "o",
                color=colour,
                capsize=2,
                markersize=4,
            )
            axes.annotate(
                rule.name,
                (rule.computed, found.estimate),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=7,
                color=colour,
            )
            rows.append(
                {
                    "rule": rule.name,
                    "tokens": rule.computed,
                    "accuracy": found.estimate,
                    "low": found.low,
                    "high": found.high,
                    "efficient": rule.efficient,
                }
            )
        axes.set_xscale("log")
        axes.set_xlabel(f"{result.pool.unit} per question")
        axes.set_ylabel("accuracy (probability)")
        axes.set_title(f"{result.pool.name}: 90 % intervals over questions")
        name = re.sub(r"\W+", "_", result.pool.name).strip("_")
        return save(figure, folder / f"replay_{name}", rows)
