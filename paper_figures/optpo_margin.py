"""Figure: the lead in votes that OptPO's Bayes factor amounts to.

Votes fall on the right answer with probability p and on the wrong one with 1 - p; everything is
exact (no sampling), so there are no intervals.

Reference: OptPO (arXiv 2512.02882); docs/theory.md E3.
"""

from pathlib import Path
from typing import Any

import numpy as np

from msjax.report.figures import style
from msjax.report.figures.sources import Sources
from msjax.theory.voting import margin_needed

__all__ = ["SAYS", "make"]

SAYS = "OptPO: the rule is a lead in votes"

_SOURCE = "ours, closed form (docs/theory.md E3); exact, no sampling"
_THRESHOLDS = (4.0, 10.0, 20.0, 100.0)


def make(_: Sources, stem: Path) -> None:
    """Which lead a Bayes factor amounts to: the stopping rule is a vote margin."""
    chances = np.round(np.linspace(0.51, 0.95, 89), 4)
    rows: list[dict[str, Any]] = []
    with style.panels(1, 4.6, 3.3) as (figure, (axis,)):
        for number, threshold in enumerate(_THRESHOLDS):
            margin = np.asarray(margin_needed(threshold, chances, 1 - chances))
            axis.step(
                chances,
                margin,
                where="mid",
                color=style.COLOURS[number],
                ls=("-", "--", ":", "-.")[number],
                label=f"Bayes factor {threshold:g}",
            )
            rows += [
                {"bayes_factor": threshold, "p_right": float(p), "margin": int(m)}
                for p, m in zip(chances, margin, strict=True)
            ]
        axis.set_yscale("log", base=2)
        axis.set_yticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
        axis.set_xlabel("P(a vote is right), two answers")
        axis.set_ylabel("lead that stops the vote")
        axis.legend()
        style.save(figure, stem, rows, _SOURCE)
