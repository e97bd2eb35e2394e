"""Figure: accuracy against tokens of all methods.

Reference: MarkovScale (arXiv 2602.01120), Fig. 1.
"""

from pathlib import Path

from msjax.report.figures import replay
from msjax.report.figures.sources import Sources

__all__ = ["SAYS", "make"]

SAYS = "MarkovScale Fig. 1: accuracy against tokens of all methods"


def make(sources: Sources, stem: Path) -> None:
    """One panel per benchmark."""
    replay.make(sources, stem)
