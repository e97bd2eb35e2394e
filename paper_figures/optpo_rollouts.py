"""Figure: OptPO's votes against accuracy.

Votes fall on the right answer with probability p and on the wrong one with 1 - p; everything is
exact (no sampling), so there are no intervals.

Reference: OptPO (arXiv 2512.02882); docs/theory.md E4.
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from msjax.report.figures import style
from msjax.report.figures.sources import Sources
from msjax.theory.voting import error_probability, expected_votes, votes_distribution

__all__ = ["SAYS", "make"]

SAYS = "OptPO: votes against accuracy"

_SOURCE = "ours, closed form (docs/theory.md E4); exact, no sampling"
_BUDGET = 64
_CHANCES = (0.55, 0.6, 0.7, 0.8)
_MARGINS = tuple(range(1, 11))
_FIXED = (1, 3, 5, 9, 17, 33, 64)


def make(_: Sources, stem: Path) -> None:
    """Rollouts against accuracy: stopping at a lead beside the majority of a fixed number."""
    rows: list[dict[str, Any]] = []
    with style.panels(len(_CHANCES), 2.4, 2.6) as (figure, axes):
        for axis, p in zip(axes, _CHANCES, strict=True):
            chances = np.array([p, 1 - p])
            adaptive = [votes_distribution(chances, h, _BUDGET) for h in _MARGINS]
            cost = [float(expected_votes(distribution)) for distribution in adaptive]
            right = [1 - float(error_probability(distribution)) for distribution in adaptive]
            series = (
                ("stop at a lead", "vote_margin", _MARGINS, cost, right),
                (
                    "fixed number",
                    "fixed+majority",
                    _FIXED,
                    _FIXED,
                    [_majority(p, n) for n in _FIXED],
                ),
            )
            for name, rule, labels, votes, accuracy in series:
                axis.plot(votes, accuracy, ms=4, lw=1, label=name, **style.method(rule))
                rows += [
                    {"p_right": p, "rule": name, "setting": s, "votes": v, "accuracy": a}
                    for s, v, a in zip(labels, votes, accuracy, strict=True)
                ]
            axis.set_title(f"a vote is right with p = {p:g}")
            axis.set_xscale("log")
            axis.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
            axis.set_xlabel(f"expected votes (budget {_BUDGET})")
        figure.supylabel("P(returned answer is right)")
        axes[-1].legend(loc="lower right")
        style.save(figure, stem, rows, _SOURCE)


def _majority(p: float, votes: int) -> float:
    """P(most votes are right), ties by lot."""
    tie = binom.pmf(votes / 2, votes, p) if votes % 2 == 0 else 0.0
    return float(binom.sf(votes / 2, votes, p) + tie / 2)
