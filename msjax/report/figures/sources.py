"""Where the figures' numbers come from: saved results, read once each and remembered by hash."""

import gzip
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from msjax.data.store import read_runs
from msjax.data.trajectory import Trajectory
from msjax.errors import InputError
from msjax.report.figures.published import Cell, complete

__all__ = ["MODEL_RUNS", "MissingSourceError", "Sources"]

MODEL_RUNS = "SmolLM2-135M-Instruct, recorded runs"

_MADE_BY = {
    "audit.json": "msjax audit all --json audit.json",
    "calibration.json": "python -m inference.calibration --json calibration.json",
    "fit.json": "msjax fit pilot.jsonl --json fit.json",
    "heterogeneity.json": "msjax sensitivity --p0 .5 --p-ic .3 --p-ci .1 --out FOLDER",
    "pilot.jsonl": "msjax generate pilot.jsonl",
    "regret.json": "msjax sensitivity --p0 .5 --p-ic .3 --p-ci .1 --out FOLDER",
    "replay.json": "msjax replay pilot.jsonl --json replay.json",
    "verify.json": "msjax verify --json verify.json",
}


class MissingSourceError(InputError):
    """A result that a figure reads is not there: the message says how it is made."""


class Sources:
    """Saved results by name.

    Args:
        results: folder with results of `msjax`; None for those that ship with msjax.
        optscale: folder with OptScale's whole result files as CSV; None for what is transcribed.

    `used` holds, by name, the SHA-256 of every file read since `forget`, and the seed it states.
    """

    def __init__(self, results: Path | None = None, optscale: Path | None = None) -> None:
        self._results, self._optscale = results, optscale
        self.used: dict[str, dict[str, Any]] = {}

    def origin(self, what: str) -> str:
        """Whose results are read, in words; `what` says of what ours are."""
        if self._results is None:
            return f"ours, shipped with msjax ({what})"
        return f"user's results, folder {self._results.name}"

    def forget(self) -> None:
        """Begin a new list of files used."""
        self.used = {}

    def json(self, name: str) -> Any:
        """What `name` holds.

        Raises:
            MissingSourceError: it is not there.
            InputError: it is not JSON.
        """
        path = self._path(name, "saved")
        data = path.read_bytes()
        try:
            found = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
        except (ValueError, OSError) as error:
            raise InputError(f"{path}: not JSON ({error}); make it again") from None
        settings = found.get("options", found) if isinstance(found, dict) else {}
        self._note(name, data, settings.get("seed"))
        return found

    def runs(self, name: str) -> list[Trajectory]:
        """The trajectories of a JSON Lines file.

        Raises:
            MissingSourceError: it is not there.
            InputError: see `msjax.data.store.read_runs`.
        """
        path = self._path(name, "recorded")
        runs = read_runs(path)
        self._note(name, path.read_bytes(), runs[0].settings.get("seed"))
        return runs

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
            self._note(f"optscale/{name}", (self._optscale / name).read_bytes(), None)
        return found

    def _note(self, name: str, data: bytes, seed: Any) -> None:
        self.used[name] = {"sha256": hashlib.sha256(data).hexdigest(), "seed": seed}

    def _path(self, name: str, shipped: str) -> Path:
        if self._results is not None:
            folder = self._results
        elif shipped == "recorded":
            folder = Path(str(files("msjax") / "recorded"))
        else:
            folder = Path(str(files("msjax") / "report" / "saved"))
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
        raise MissingSourceError(f"{folder / name}: no such file; make it by `{_MADE_BY[name]}`")
