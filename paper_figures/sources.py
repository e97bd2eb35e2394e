"""Where the numbers of the papers' figures come from: the studies' saved results."""

import json
from pathlib import Path
from typing import Any, ClassVar

from msjax.data.datasets import load, study_files, study_strategies
from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.report.figures.sources import MissingSourceError, Sources
from paper_figures.published import Cell, complete

__all__ = ["PaperSources"]

_ROOT = Path(__file__).parents[1]
PREDICTIONS = _ROOT / "inference" / "study" / "predictions"
_SHIPPED = (
    _ROOT / "inference" / "results",
    _ROOT / "simulate" / "results",
    _ROOT / "msjax" / "recorded",
)
_SENSITIVITY = "msjax sensitivity --p0 .5 --p-ic .3 --p-ci .1 --out FOLDER"


class PaperSources(Sources):
    """Results that ship with the project, or those of the user.

    Args:
        results: folder with results of `msjax`; None for those that ship.
        optscale: folder with OptScale's whole result files as CSV; None for what is transcribed.
    """

    made_by: ClassVar[dict[str, str]] = {
        **Sources.made_by,
        "gains.json": "python -m inference.atlas --data FOLDER --no-fits --gains gains.json",
        "calibration.json": "python -m inference.calibration --json calibration.json",
        "heterogeneity.json": _SENSITIVITY,
        "regret.json": _SENSITIVITY,
    }

    def __init__(self, results: Path | None = None, optscale: Path | None = None) -> None:
        super().__init__(*([results] if results else _SHIPPED))
        self._shipped, self._optscale = results is None, optscale

    def origin(self, what: str) -> str:
        """Whose results are read, in words; `what` says of what ours are."""
        return f"ours, shipped with msjax ({what})" if self._shipped else super().origin(what)

    def study(self, way: str) -> Runs | None:
        """What the study has recorded of a way of asking; None if nothing."""
        if way not in study_strategies():
            return None
        for path in study_files(way):
            self.note(path.name, path.read_bytes(), 0)
        return load("study", way)

    def predictions(self) -> list[tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]]:
        """Registered predictions that have been scored: what of, prediction, score."""
        found = []
        for path in sorted(PREDICTIONS.glob("*.score.json")):
            before = path.with_name(path.name.replace(".score", ""))
            for one in (before, path):
                self.note(one.name, one.read_bytes(), 0)
            model, _, rest = path.name.removesuffix(".score.json").partition("-Instruct.")
            name = (f"{model}-Instruct", *rest.split("."))
            found.append((name, json.loads(before.read_bytes()), json.loads(path.read_bytes())))
        return found

    def optscale(self) -> tuple[list[Cell], dict[str, list[Cell]]] | None:
        """The whole result files of OptScale; None if no folder was given.

        Raises:
            MissingSourceError: the folder lacks a file.
            InputError: a file has other columns.
        """
        if self._optscale is None:
            return None
        try:
            found = complete(self._optscale)
        except FileNotFoundError as error:
            raise MissingSourceError(f"{error.filename}: no such file") from None
        except (KeyError, ValueError) as error:
            raise InputError(f"{self._optscale}: a file has other columns ({error!r})") from None
        for name in ("results_table.csv", *found[1]):
            self.note(f"optscale/{name}", (self._optscale / name).read_bytes(), None)
        return found
