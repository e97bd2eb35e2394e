"""Figure: what one chain says of questions that differ.

Reference: docs/theory.md.
"""

from pathlib import Path

from msjax.report.figures import heterogeneity
from msjax.report.figures.sources import Sources

__all__ = ["SAYS", "make"]

SAYS = "one chain for questions that differ"


def make(sources: Sources, stem: Path) -> None:
    """From the results of `msjax sensitivity`."""
    origin = sources.origin("closed form and quadrature, no sampling")
    heterogeneity.draw(sources.json("heterogeneity.json"), stem, origin)
