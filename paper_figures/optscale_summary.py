"""Table: QwQ-32B at N = 60, as OptScale's summary quotes it.

Reference: OptScale (arXiv 2506.22376).
"""

from pathlib import Path

from msjax.report.figures import table
from msjax.report.figures.sources import Sources
from paper_figures.optscale_table import NOTE, numbers
from paper_figures.published import summary

__all__ = ["SAYS", "make"]

SAYS = "OptScale: QwQ-32B at N = 60"


def make(_: Sources, stem: Path) -> None:
    """What the summary quotes of QwQ-32B."""
    rows = [[cell.method, str(cell.budget), cell.dataset, *numbers(cell)] for cell in summary()]
    header = ["method and model", "N", "dataset", "accuracy", "tokens"]
    table.write(header, rows, stem, "published, quoted from OptScale's summary", NOTE)
