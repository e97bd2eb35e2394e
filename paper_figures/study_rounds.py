"""Figure: accuracy per round of the study, and what one chain for all questions makes of it.

Reference: MarkovScale (arXiv 2602.01120), Fig. 2, on recordings of this project.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from msjax.evaluate.means import SHARES, mean_interval
from msjax.posterior.for_rules import PosteriorForRules
from msjax.report.figures import style
from msjax.report.figures.accuracy_per_round import draw_band, draw_observed
from msjax.texts import figure_text
from paper_figures.sources import PaperSources
from paper_figures.study_front import WAYS

__all__ = ["SAYS", "make"]

SAYS = "MarkovScale Fig. 2 on our study: accuracy per round, posterior band of one chain"
_STRATEGIES = ("reconsider", "restart")


def make(sources: PaperSources, stem: Path) -> None:
    """One panel per strategy, model and benchmark."""
    posterior = PosteriorForRules(jax.random.key(0))
    groups = []
    for way in _STRATEGIES:
        recorded = sources.study(way)
        groups += [(way, group) for group in (() if recorded is None else recorded.groups)]
    rows: list[dict[str, Any]] = []
    with style.panels(len(groups), width=3.4) as (figure, axes):
        for axis, (way, runs) in zip(axes, groups, strict=True):
            rounds = np.arange(runs.samples)
            draws = posterior.accuracy(runs, runs.rounds)
            low, middle, high = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
            observed = [mean_interval(x.astype(float), SHARES) for x in runs.right.T]
            draw_band(axis, low, middle, high, "posterior of $E[p_k]$, one chain")
            draw_observed(axis, observed)
            name = f"{figure_text(runs.models[0])}\n{figure_text(runs.benchmarks[0])}"
            axis.set_title(f"{name} (n = {runs.questions})\n{WAYS[way].partition(',')[0]}")
            axis.set_xlabel("refinement rounds k")
            axis.set_xticks(rounds)
            rows += [
                {
                    "model": runs.models[0],
                    "benchmark": runs.benchmarks[0],
                    "way": way,
                    "k": k,
                    "observed": observed[k].estimate,
                    "observed_low": observed[k].low,
                    "observed_high": observed[k].high,
                    "posterior_median": middle[k],
                    "posterior_low": low[k],
                    "posterior_high": high[k],
                }
                for k in rounds.tolist()
            ]
        axes[0].set_ylim(-0.03, 0.05 + max(row["observed_high"] for row in rows))
        figure.supylabel("accuracy (90 % intervals)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
        style.save(figure, stem, rows, "ours, recorded with msjax (inference/study)")
