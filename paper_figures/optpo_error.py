"""Figure: error and expected votes of a lead in votes.

Votes fall on the right answer with probability p and on the wrong one with 1 - p; everything is
exact (no sampling), so there are no intervals.

Reference: OptPO (arXiv 2512.02882); docs/theory.md E4 and E5.
"""

from pathlib import Path
from typing import Any

import numpy as np

from msjax.report.figures import style
from msjax.report.figures.sources import Sources
from msjax.theory.voting import (
    error_probability,
    expected_votes,
    votes_distribution,
    wald_two_class,
)

__all__ = ["SAYS", "make"]

SAYS = "OptPO: error and expected votes of a lead"

_SOURCE = "ours, closed form (docs/theory.md E4, E5); exact, no sampling"
_BUDGET = 64
_CHANCES = (0.55, 0.6, 0.7, 0.8)
_MARGINS = tuple(range(1, 11))


def make(_: Sources, stem: Path) -> None:
    """Error and expected votes against the lead, with a budget and (lines) without one."""
    rows: list[dict[str, Any]] = []
    margins = np.array(_MARGINS)
    with style.panels(2, 3.4, 3.3, share_y=False) as (figure, (error, votes)):
        for number, p in enumerate(_CHANCES):
            look = style.series(number)
            distributions = [votes_distribution(np.array([p, 1 - p]), h, _BUDGET) for h in _MARGINS]
            wrong = [float(error_probability(distribution)) for distribution in distributions]
            cast = [float(expected_votes(distribution)) for distribution in distributions]
            free = wald_two_class(p, margins)
            error.plot(margins, wrong, ls="none", ms=4, **look)
            error.plot(margins, np.asarray(free.error), lw=0.8, color=look["color"])
            votes.plot(margins, cast, ls="none", ms=4, **look)
            votes.plot(margins, np.asarray(free.expected_votes), lw=0.8, color=look["color"])
            for axis, end in ((error, wrong[-1]), (votes, cast[-1])):
                axis.annotate(
                    f"p = {p:g}",
                    (_MARGINS[-1], end),
                    xytext=(6, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                    color=look["color"],
                )
            rows += [
                {
                    "p_right": p,
                    "margin": h,
                    "error": wrong[i],
                    "votes": cast[i],
                    "error_without_budget": float(free.error[i]),
                    "votes_without_budget": float(free.expected_votes[i]),
                }
                for i, h in enumerate(_MARGINS)
            ]
        error.set_yscale("log")
        error.set_ylabel("P(returned answer is wrong)")
        votes.set_yscale("log", base=2)
        votes.set_yticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
        votes.set_ylabel("expected votes")
        for axis in (error, votes):
            axis.set_xlabel("lead that stops the vote")
            axis.set_xlim(right=_MARGINS[-1] + 2)
        note = (
            "p: probability that a vote is right, of two answers. Markers: exact, with a budget of "
            f"{_BUDGET} votes; lines: without a budget (Wald)."
        )
        style.save(figure, stem, rows, _SOURCE, note)
