"""Table: OptScale's published table at N = 8, 16, 32, 64, and what its own curves say of it.

Reference: OptScale (arXiv 2506.22376), public results.
"""

from pathlib import Path

from msjax.evaluate.summary import proportion
from msjax.report.figures import table
from msjax.report.figures.gallery import Difference
from paper_figures.published import DATASETS, Cell, curves, differences
from paper_figures.published import table as published_table
from paper_figures.sources import PaperSources

__all__ = ["NOTE", "SAYS", "make", "numbers"]

SAYS = "OptScale: the table at N = 8, 16, 32, 64"
NOTE = "Accuracy in percent with 90 % interval over questions; completion tokens per question."


def make(sources: PaperSources, stem: Path) -> list[Difference]:
    """The table with half-widths of 90 % intervals, and its differences from the curves.

    With the whole result files every transcribed cell is held against their table, and every cell
    of their table against the curves and sweeps published with it.
    """
    cells = published_table()
    keys = list(dict.fromkeys((cell.method, cell.budget) for cell in cells))
    rows = []
    for method, budget in keys:
        mine = [cell for cell in cells if (cell.method, cell.budget) == (method, budget)]
        rows.append([f"{method}, N = {budget}", *(x for cell in mine for x in numbers(cell))])
    best = [
        (keys.index((cell.method, cell.budget)), 1 + 2 * list(DATASETS).index(cell.dataset))
        for cell in cells
        if cell.accuracy
        == max(x.accuracy for x in cells if (x.budget, x.dataset) == (cell.budget, cell.dataset))
    ]
    header = ["method"]
    for dataset, questions in DATASETS.items():
        header += [f"{dataset} (n = {questions})", "tokens"]
    source = "published, OptScale repository (MIT), transcribed"
    table.write(header, rows, stem, source, f"{NOTE} Bold: the highest accuracy at that N.", best)
    whole = sources.optscale()
    if whole is None:
        return differences(cells, {"transcribed curves": curves()})
    theirs, files = whole
    return differences(cells, {"results_table.csv": theirs}) + differences(theirs, files)


def numbers(cell: Cell) -> list[str]:
    """Accuracy with the 90 % interval of so many questions, and tokens."""
    questions = DATASETS[cell.dataset]
    found = proportion(round(cell.accuracy * questions / 100), questions)
    return [
        f"{cell.accuracy:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]",
        f"{cell.tokens:,.0f}",
    ]
