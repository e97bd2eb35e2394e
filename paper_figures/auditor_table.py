"""Table: exact errors of every rule that votes.

Reference: docs/stopping.md; docs/theory.md E4, E6.
"""

from pathlib import Path

from msjax.report.figures import auditor
from msjax.report.figures.sources import Sources

__all__ = ["SAYS", "make"]

SAYS = "exact errors of rules that vote"


def make(sources: Sources, stem: Path) -> None:
    """One row per rule."""
    auditor.make(sources, stem)
