"""Draw figures of the catalogue, and write down what each was made from."""

import csv
import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msjax.errors import InputError
from msjax.report.figures.catalogue import Entry
from msjax.report.figures.published import Difference
from msjax.report.figures.sources import MissingSourceError, Sources

__all__ = ["Artefact", "draw_all", "write_manifest"]

_SUFFIXES = (".png", ".pdf", ".csv")
_VERSIONS = ("msjax", "jax", "numpy", "scipy", "matplotlib")


@dataclass(frozen=True)
class Artefact:
    """One figure as it came out.

    Attributes:
        name, says: the figure.
        status: "drawn", "skipped" for want of a source, or "refused" for one that cannot be used,
            such as one of another version.
        reason: which source it is and how to make it; None where drawn.
        files: SHA-256 by name of the file.
        sources: SHA-256 and seed, by name, of what was read.
        differences: numbers that stand for the same thing as published ones.
    """

    name: str
    says: str
    status: str
    reason: str | None
    files: dict[str, str]
    sources: dict[str, dict[str, Any]]
    differences: tuple[Difference, ...]


def draw_all(
    entries: Sequence[Entry],
    sources: Sources,
    folder: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Artefact]:
    """Draw every entry into `folder` for which there is a source that can be used.

    Writes `differences.csv` too, if a published number stands beside another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for entry in entries:
        progress(entry.name)
        found.append(_draw(entry, sources, folder))
    differences = [(x.name, d) for x in found for d in x.differences]
    if differences:
        with (folder / "differences.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["figure", *Difference._fields, "agrees"])
            writer.writerows([name, *d, d.agrees] for name, d in differences)
    return found


def _draw(entry: Entry, sources: Sources, folder: Path) -> Artefact:
    sources.forget()
    stem = folder / entry.name
    try:
        differences = tuple(entry.make(sources, stem) or ())
    except InputError as error:
        status = "skipped" if isinstance(error, MissingSourceError) else "refused"
        return Artefact(entry.name, entry.says, status, str(error), {}, {}, ())
    except (KeyError, TypeError) as error:
        if not sources.used:
            raise
        reason = (
            f"{', '.join(sources.used)} lacks what this version of msjax writes ({error}); "
            "make it again"
        )
        return Artefact(entry.name, entry.says, "refused", reason, {}, dict(sources.used), ())
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (stem.with_suffix(suffix) for suffix in _SUFFIXES)
    }
    return Artefact(entry.name, entry.says, "drawn", None, files, dict(sources.used), differences)


def write_manifest(artefacts: Sequence[Artefact], folder: Path, command: str) -> Path:
    """Write `manifest.json`: what every file was made from, by what, with what.

    Nothing is drawn at random; seeds are those of the results read.
    """
    path = folder / "manifest.json"
    manifest = {
        "command": command,
        "versions": {name: version(name) for name in _VERSIONS}
        | {"python": platform.python_version()},
        "figures": {
            x.name: {"status": x.status, "files": x.files, "sources": x.sources} for x in artefacts
        },
    }
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    return path
