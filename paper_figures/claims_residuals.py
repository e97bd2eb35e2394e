"""Figure: residuals of every claim of the theory, simulated.

Reference: docs/theory.md.
"""

from pathlib import Path

from msjax.report.figures import claims_report
from msjax.report.figures.sources import Sources

__all__ = ["SAYS", "make"]

SAYS = "every claim of the theory, simulated"


def make(sources: Sources, stem: Path) -> None:
    """Standardised residuals beside their thresholds."""
    claims_report.make(sources, stem)
