"""Draw figures by name, and write down what each was made from."""

import hashlib
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from tqdm import tqdm

from msjax._io import write_csv, write_text
from msjax.errors import InputError
from msjax.report.figures.sources import MissingSourceError, Sources

__all__ = [
    "Artefact",
    "Difference",
    "Figure",
    "draw_all",
    "draw_and_report",
    "select",
    "write_manifest",
]

_VERSIONS = ("msjax", "jax", "numpy", "scipy", "matplotlib")


S = TypeVar("S", bound=Sources)


class Difference(NamedTuple):
    """A published number beside another one for the same thing."""

    method: str
    budget: int
    dataset: str
    quantity: str
    published: float
    found: float
    found_in: str
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the two are equal to the tolerance."""
        return abs(self.published - self.found) <= self.tolerance + 1e-9


@dataclass(frozen=True)
class Figure(Generic[S]):
    """A figure or a table.

    Attributes:
        name: what users type, and the name of its files.
        says: what it shows.
        make: draws it from the sources to a path without suffix; returns numbers that stand for the
            same thing as published ones, if there are any.
        suffixes: of the files that it writes.
    """

    name: str
    says: str
    make: Callable[[S, Path], list[Difference] | None]
    suffixes: tuple[str, ...] = (".png", ".pdf", ".csv")


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


def select(figures: Sequence[Figure[S]], names: Sequence[str]) -> list[Figure[S]]:
    """The figures named, all of them if none is.

    Raises:
        InputError: an unknown name; the message gives those that are near.
    """
    known = {figure.name: figure for figure in figures}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.4) or list(known)
            raise InputError(f"figure {name!r} is unknown; did you mean {', '.join(near)}?")
    return [known[name] for name in dict.fromkeys(names or known)]


def draw_and_report(
    figures: Sequence[Figure[S]], sources: S, folder: Path, command: str
) -> tuple[int, list[dict[str, Any]]]:
    """Draw into `folder`, with manifest.json and differences.csv, and print what came out.

    Returns:
        Exit status (2 if a result cannot be used, 1 if one is missing, else 0), and every artefact
        as a dictionary.
    """
    with tqdm(total=len(figures), unit="figure", disable=None, leave=False) as bar:

        def show(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        found = draw_all(figures, sources, folder, show)
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
    manifest = write_manifest(found, folder, command)
    print(f"{len(names['drawn'])} drawn in {folder}, {manifest.name} beside them")
    for status in ("skipped", "refused"):
        if names[status]:
            print(f"{status}: {', '.join(names[status])}", file=sys.stderr)
    listed = [
        vars(x) | {"differences": [d._asdict() | {"agrees": d.agrees} for d in x.differences]}
        for x in found
    ]
    return 2 if names["refused"] else 1 if names["skipped"] else 0, listed


def draw_all(
    figures: Sequence[Figure[S]],
    sources: S,
    folder: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Artefact]:
    """Draw every figure into `folder` for which there is a source that can be used.

    Writes `differences.csv` too, if a published number stands beside another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for figure in figures:
        progress(figure.name)
        found.append(_draw(figure, sources, folder))
    differences = [(x.name, d) for x in found for d in x.differences]
    if differences:
        header = ["figure", *Difference._fields, "agrees"]
        rows = [[name, *d, d.agrees] for name, d in differences]
        write_csv(folder / "differences.csv", [header, *rows])
    return found


def _draw(figure: Figure[S], sources: S, folder: Path) -> Artefact:
    sources.forget()
    stem = folder / figure.name
    try:
        differences = tuple(figure.make(sources, stem) or ())
    except InputError as error:
        status = "skipped" if isinstance(error, MissingSourceError) else "refused"
        return Artefact(figure.name, figure.says, status, str(error), {}, {}, ())
    except Exception as error:  # whatever a result of another kind leads to
        if not sources.used or isinstance(error, OSError):
            raise
        reason = (
            f"{', '.join(sources.used)} lacks what this version of msjax writes ({error!r}); "
            "make it again"
        )
        return Artefact(figure.name, figure.says, "refused", reason, {}, dict(sources.used), ())
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (stem.with_suffix(suffix) for suffix in figure.suffixes)
    }
    return Artefact(figure.name, figure.says, "drawn", None, files, dict(sources.used), differences)


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
    write_text(path, json.dumps(manifest, indent=2) + "\n")
    return path
