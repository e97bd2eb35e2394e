"""Figure: utility lost by errors in the rates, and by small pilots.

Reference: docs/theory.md.
"""

from pathlib import Path

from msjax.report.figures import regret
from msjax.report.figures.sources import Sources

__all__ = ["SAYS", "make"]

SAYS = "utility lost by errors in the rates, and by small pilots"

_ACCEPTABLE_REGRET = 0.01


def make(sources: Sources, stem: Path) -> None:
    """From the results of `msjax sensitivity`."""
    origin = sources.origin("closed form; pilots simulated")
    regret.draw(sources.json("regret.json"), _ACCEPTABLE_REGRET, stem, origin)
