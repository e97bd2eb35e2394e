"""`msjax report`: figures and one HTML page from the results of a reproduction."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from msjax.cli.output import OutputFile, OutputFolder


@dataclasses.dataclass(frozen=True)
class Report:
    """Draw the figures and write the HTML report of a folder that `msjax reproduce` filled.

    Example: msjax report artifacts
    """

    folder: Annotated[OutputFolder, tyro.conf.Positional] = Path("artifacts")
    """Folder with the saved results."""

    json: OutputFile | None = None
    """Also write the paths of what was made to this file, as JSON."""

    def run(self) -> int:
        """Write the report; returns 0."""
        from msjax.cli.output import write_json
        from msjax.report import run as report

        page = report.write(self.folder)
        print(f"report: {page}")
        if self.json is not None:
            figures = sorted((self.folder / "figures").iterdir())
            write_json(self.json, {"report": page, "figures": figures})
        return 0
