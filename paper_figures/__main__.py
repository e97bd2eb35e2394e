"""Draws the papers' figures and tables.

python -m paper_figures markovscale_rounds optpo_error --out figures
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from msjax.cli.output import write_json
from msjax.errors import InputError
from msjax.report.figures.gallery import draw_and_report, select
from paper_figures.catalogue import CATALOGUE, NOT_REPRODUCIBLE
from paper_figures.sources import PaperSources


@dataclass(frozen=True)
class PaperFigures:
    """Draw the papers' figures and tables as PDF and PNG, with the numbers behind each as CSV.

    Nothing is computed anew but closed forms. Results that are missing, or cannot be used, skip
    their figures by name. A second run writes the same bytes.

    python -m paper_figures markovscale_rounds optpo_error --out figures
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Figures to draw; all of them if none is named."""
    out: Path = Path("figures")
    """Folder for the figures, manifest.json and differences.csv."""
    results: Path | None = None
    """Folder with your own results (fit.json, replay.json, verify.json, ...); otherwise those
    saved beside the studies."""
    optscale: Path | None = None
    """Folder with OptScale's public result files as CSV; otherwise what is transcribed of them."""
    json: Path | None = None
    """Also write every artefact (files, sources, status, differences) to this file, as JSON."""

    def run(self) -> int:
        """Draw and list; 2 if a result cannot be used, 1 if one is missing, else 0."""
        for option in ("results", "optscale"):
            folder = getattr(self, option)
            if folder is not None and not folder.is_dir():
                raise InputError(f"--{option} is {folder}; give a folder that exists")
        figures = select(CATALOGUE, self.names)
        sources = PaperSources(self.results, self.optscale)
        command = shlex.join(["python", "-m", "paper_figures", *sys.argv[1:]])
        status, artefacts = draw_and_report(figures, sources, self.out, command)
        if self.json is not None:
            found = {"artefacts": artefacts, "not_reproducible": NOT_REPRODUCIBLE}
            write_json(self.json, found)
        return status


def main(arguments: list[str] | None = None) -> int:
    """Exit status; one line on standard error where something cannot be used."""
    try:
        return tyro.cli(PaperFigures, prog="python -m paper_figures", args=arguments).run()
    except (InputError, OSError) as error:
        print(f"paper_figures: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
