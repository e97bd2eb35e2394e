"""`msjax figures`: the papers' figures and tables, and our own, from saved results."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from msjax.cli.output import OutputFile, OutputFolder


@dataclass(frozen=True)
class Figures:
    """Draw figures and tables as PDF and PNG, with the numbers behind each as CSV.

    Nothing is computed anew but closed forms. Results that are missing, or cannot be used, skip
    their figures by name. A second run writes the same bytes.

    Example: msjax figures markovscale_rounds optpo_error --out figures
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Figures to draw; all of them if none is named."""
    out: OutputFolder = Path("figures")
    """Folder for the figures, manifest.json and differences.csv."""
    results: Path | None = None
    """Folder with your own results (fit.json, replay.json, verify.json, ...); otherwise those that
    ship with msjax."""
    optscale: Path | None = None
    """Folder with OptScale's public result files as CSV; otherwise what is transcribed of them."""
    json: OutputFile | None = None
    """Also write every artefact (files, sources, status, differences) to this file, as JSON."""

    def run(self) -> int:
        """Draw and list; 2 if a result cannot be used, 1 if one is missing, else 0."""
        from tqdm import tqdm

        from msjax.cli.output import write_json
        from msjax.errors import InputError
        from msjax.report.figures.catalogue import NOT_REPRODUCIBLE, select
        from msjax.report.figures.gallery import draw_all, write_manifest
        from msjax.report.figures.sources import Sources

        for option in ("results", "optscale"):
            folder = getattr(self, option)
            if folder is not None and not folder.is_dir():
                raise InputError(f"--{option} is {folder}; give a folder that exists")
        entries = select(self.names)
        with tqdm(total=len(entries), unit="figure", disable=None, leave=False) as bar:

            def show(name: str) -> None:
                bar.set_postfix_str(name)
                bar.update()

            found = draw_all(entries, Sources(self.results, self.optscale), self.out, show)
        for artefact in found:
            print(f"{artefact.name:<22}{artefact.reason or artefact.says}")
        names = {
            status: [x.name for x in found if x.status == status]
            for status in ("drawn", "skipped", "refused")
        }
        differences = [d for artefact in found for d in artefact.differences]
        if differences:
            agree = sum(d.agrees for d in differences)
            print(f"{agree} of {len(differences)} published numbers agree: differences.csv")
        manifest = write_manifest(found, self.out, shlex.join(["msjax", *sys.argv[1:]]))
        print(f"{len(names['drawn'])} drawn in {self.out}, {manifest.name} beside them")
        for status in ("skipped", "refused"):
            if names[status]:
                print(f"{status}: {', '.join(names[status])}", file=sys.stderr)
        if self.json is not None:
            listed = [
                vars(x)
                | {"differences": [d._asdict() | {"agrees": d.agrees} for d in x.differences]}
                for x in found
            ]
            write_json(self.json, {"artefacts": listed, "not_reproducible": NOT_REPRODUCIBLE})
        return 2 if names["refused"] else 1 if names["skipped"] else 0
