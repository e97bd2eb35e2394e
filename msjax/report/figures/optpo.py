"""Figures: OptPO's vote rule in closed form.

Votes fall on the right answer with probability p and on the wrong one with 1 - p; everything is
exact (no sampling), so there are no intervals.

Reference: OptPO (arXiv 2512.02882); docs/theory.md E1 to E5.
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from msjax.report.figures import style
from msjax.report.figures.sources import Sources
from msjax.theory.voting import (
    error_probability,
    expected_votes,
    margin_needed,
    votes_law,
    wald_two_class,
)

__all__ = ["make_error", "make_margin", "make_rollouts"]

_SOURCE = "ours, closed form (docs/theory.md {}); exact, no sampling"
_BUDGET = 64
_CHANCES = (0.55, 0.6, 0.7, 0.8)
_MARGINS = tuple(range(1, 11))
_FIXED = (1, 3, 5, 9, 17, 33, 64)
_THRESHOLDS = (4.0, 10.0, 20.0, 100.0)


def make_rollouts(_: Sources, stem: Path) -> None:
    """Rollouts against accuracy: stopping at a lead beside the majority of a fixed number."""
    rows: list[dict[str, Any]] = []
    with style.panels(len(_CHANCES), 2.4, 3.3) as (figure, axes):
        for axis, p in zip(axes, _CHANCES, strict=True):
            chances = np.array([p, 1 - p])
            adaptive = [votes_law(chances, h, _BUDGET) for h in _MARGINS]
            cost = [float(expected_votes(law)) for law in adaptive]
            right = [1 - float(error_probability(law)) for law in adaptive]
            series = (
                ("stop at a lead", _MARGINS, cost, right),
                ("fixed number", _FIXED, _FIXED, [_majority(p, n) for n in _FIXED]),
            )
            for number, (name, labels, votes, accuracy) in enumerate(series):
                axis.plot(votes, accuracy, ms=4, lw=1, label=name, **style.look(number))
                rows += [
                    {"p_right": p, "rule": name, "setting": s, "votes": v, "accuracy": a}
                    for s, v, a in zip(labels, votes, accuracy, strict=True)
                ]
            axis.set_title(f"a vote is right with p = {p:g}", fontsize=9)
            axis.set_xscale("log")
            axis.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
            axis.set_xlabel(f"expected votes\n(budget {_BUDGET})")
        axes[0].set_ylabel("P(returned answer is right)")
        axes[-1].legend(fontsize=7, loc="lower right")
        style.save(figure, stem, rows, _SOURCE.format("E4"))


def _majority(p: float, votes: int) -> float:
    """P(most votes are right), ties by lot."""
    tie = binom.pmf(votes / 2, votes, p) if votes % 2 == 0 else 0.0
    return float(binom.sf(votes / 2, votes, p) + tie / 2)


def make_margin(_: Sources, stem: Path) -> None:
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
        axis.legend(fontsize=7)
        style.save(figure, stem, rows, _SOURCE.format("E3"))


def make_error(_: Sources, stem: Path) -> None:
    """Error and expected votes against the lead, with a budget and (lines) without one."""
    rows: list[dict[str, Any]] = []
    margins = np.array(_MARGINS)
    with style.panels(2, 3.4, 3.3, share_y=False) as (figure, (error, votes)):
        for number, p in enumerate(_CHANCES):
            look = style.look(number)
            laws = [votes_law(np.array([p, 1 - p]), h, _BUDGET) for h in _MARGINS]
            wrong = [float(error_probability(law)) for law in laws]
            cast = [float(expected_votes(law)) for law in laws]
            free = wald_two_class(p, margins)
            label = f"p = {p:g}"
            error.plot(margins, wrong, ls="none", ms=4, label=label, **look)
            error.plot(margins, np.asarray(free.error), lw=0.8, color=look["color"])
            votes.plot(margins, cast, ls="none", ms=4, label=label, **look)
            votes.plot(margins, np.asarray(free.expected_votes), lw=0.8, color=look["color"])
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
            axis.set_xlabel(f"lead that stops the vote (markers: budget {_BUDGET})")
        votes.legend(fontsize=7)
        style.save(figure, stem, rows, _SOURCE.format("E4, E5"))
