"""Figure: accuracy per round, estimated chain, posterior band, limit.

Reference: MarkovScale (arXiv 2602.01120), Fig. 2.
"""

from pathlib import Path

from msjax.report.figures import accuracy_per_round
from msjax.report.figures.sources import Sources

__all__ = ["SAYS", "make"]

SAYS = "MarkovScale Fig. 2: accuracy per round, estimated chain, posterior band, limit"


def make(sources: Sources, stem: Path) -> None:
    """One panel per benchmark."""
    accuracy_per_round.make(sources, stem)
