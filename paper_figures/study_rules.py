"""Figure: stopping rules replayed over what the study has recorded, settings chosen on other folds.

Samples are seen in 100 random orders, rounds in their own. Scores are the exponentials of the mean
log-probability of an answer's tokens.

Reference: OptScale (arXiv 2506.22376) and OptPO (arXiv 2512.02882), methods at their budgets;
MarkovScale (arXiv 2602.01120), Fig. 1; on recordings of this project.
"""

from pathlib import Path

import jax

from msjax.evaluate.crossfit import evaluate
from msjax.report.figures.replay import draw_pools
from msjax.rules import find_rules
from paper_figures.sources import PaperSources
from paper_figures.study_front import WAYS

__all__ = ["SAYS", "make"]

SAYS = "OptScale, OptPO and MarkovScale on our study: accuracy against tokens of every rule"
_STRATEGIES = ("samples", "restart")
"""Those in which enough changes for rules to differ."""


def make(sources: PaperSources, stem: Path) -> None:
    """One panel per strategy, model and benchmark."""
    found = {}
    for way in _STRATEGIES:
        recorded = sources.study(way)
        for group in () if recorded is None else recorded.groups:
            pool = group.with_confidences()
            title = f"{pool.models[0]}, {pool.benchmarks[0]}: {WAYS[way]}"
            found[title] = evaluate(pool, find_rules(pool), jax.random.key(0))
    draw_pools(found, stem, "ours, recorded with msjax (inference/study)")
