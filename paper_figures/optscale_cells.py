"""OptScale's published table, cell by cell, against the curves published with it.

The completions behind the table are not published, so no cell can be replayed. What can be done:
every accuracy and token count is looked up in the curve or sweep that should hold it, and for
OptScale's own rows the choice of thresholds is made again, by its rule (best accuracy on the test
set, ties to fewest tokens) and by none (the median over all thresholds it tried).

    python -m paper_figures.optscale_cells FOLDER
"""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from msjax.cli.tables import markdown
from paper_figures.published import complete, differences, panels

__all__ = ["OptscaleCells"]


@dataclass(frozen=True)
class OptscaleCells:
    """Hold OptScale's published table against the curves published with it.

    python -m paper_figures.optscale_cells FOLDER
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """folder with OptScale's public result files as CSV"""

    def rows(self) -> list[list[str]]:
        """Per method: cells that agree, largest differences, what choosing on the test adds."""
        cells, files = complete(self.folder)
        compared = differences(cells, files)
        tried = panels(self.folder)
        rows = []
        for method in dict.fromkeys(cell.method for cell in cells):
            own = [cell for cell in cells if cell.method == method]
            held = [d for d in compared if d.method == method]
            wrong = {(d.budget, d.dataset) for d in held if not d.agrees}
            off = {
                name: max(abs(d.published - d.found) for d in held if d.quantity == name)
                for name in ("accuracy", "tokens")
            }
            gains = [
                (
                    cell.accuracy - statistics.median(x.accuracy for x in tried[cell.key]),
                    cell.tokens / statistics.median(x.tokens for x in tried[cell.key]),
                )
                for cell in own
                if cell.key in tried
            ]
            more = (
                f"{statistics.mean(a for a, _ in gains):+.2f} points, "
                f"{statistics.median(t for _, t in gains):.2f} x tokens"
                if gains
                else "-"
            )
            agree = len(held) // 2 - len(wrong)
            rows.append(
                [method, f"{agree} of {len(own)}", str(len(own) - len(held) // 2)]
                + [f"{off['accuracy']:.2f}", f"{off['tokens']:,.0f}", more]
            )
        return rows

    def run(self) -> None:
        """Print the table as Markdown."""
        header = ["method", "cells that agree", "not published", "largest difference, points"]
        header += ["tokens", "published less median threshold"]
        print(markdown(header, self.rows()))


if __name__ == "__main__":
    tyro.cli(OptscaleCells).run()
