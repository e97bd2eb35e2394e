"""`msjax figures`: figures and tables of your own results."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from msjax.cli.output import OutputFile, OutputFolder


@dataclass(frozen=True)
class Figures:
    """Draw your own results as PDF and PNG, with the numbers behind each figure as CSV.

    Nothing is computed anew. Results that are missing, or cannot be used, skip their figures by
    name; the message says which command makes them. A second run writes the same bytes.

    Example: msjax figures --results artifacts --out figures
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Figures to draw (accuracy_per_round, rules, auditor_table, claims_residuals); all of them if
    none is named."""
    results: Path | None = None
    """Folder with your results: pilot.jsonl, fit.json, replay.json, audit.json, verify.json."""
    out: OutputFolder = Path("figures")
    """Folder for the figures and manifest.json."""
    json: OutputFile | None = None
    """Also write every artefact (files, sources, status) to this file, as JSON."""

    def run(self) -> int:
        """Draw and list; 2 if a result cannot be used, 1 if one is missing, else 0."""
        from msjax.cli.output import write_json
        from msjax.errors import InputError
        from msjax.report.figures.catalogue import CATALOGUE
        from msjax.report.figures.gallery import draw_and_report, select
        from msjax.report.figures.sources import Sources

        figures = select(CATALOGUE, self.names)
        if self.results is None:
            raise InputError(
                "--results is missing; give the folder with fit.json, replay.json, audit.json or "
                "verify.json, which `msjax fit`, `replay`, `audit` and `verify` write with --json"
            )
        if not self.results.is_dir():
            raise InputError(f"--results is {self.results}; give a folder that exists")
        command = shlex.join(["msjax", *sys.argv[1:]])
        status, artefacts = draw_and_report(figures, Sources(self.results), self.out, command)
        if self.json is not None:
            write_json(self.json, {"artefacts": artefacts})
        return status
