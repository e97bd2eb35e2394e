"""Where the figures' numbers come from: saved results, read once each and remembered by hash."""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

from msjax._io import reading, unpacked
from msjax.data.store import read_runs
from msjax.data.trajectory import Trajectory
from msjax.errors import InputError

__all__ = ["MODEL_RUNS", "MissingSourceError", "Sources"]

MODEL_RUNS = "SmolLM2-135M-Instruct, recorded runs"


class MissingSourceError(InputError):
    """A result that a figure reads is not there: the message says how it is made."""


class Sources:
    """Saved results by name.

    Args:
        folders: with results of `msjax`, those that are looked at first first.

    `used` holds, by name, the SHA-256 of every file read since `forget`, and the seed it states.
    """

    made_by: ClassVar[dict[str, str]] = {
        "audit.json": "msjax audit all --json audit.json",
        "fit.json": "msjax fit pilot.jsonl --json fit.json",
        "pilot.jsonl": "msjax run pilot.jsonl",
        "replay.json": "msjax replay pilot.jsonl --json replay.json",
        "verify.json": "msjax verify --json verify.json",
    }
    """The command that makes each of them."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self.used: dict[str, dict[str, Any]] = {}

    def origin(self, what: str) -> str:
        """Whose results are read, in words; `what` would say of what ours are."""
        return f"user's results, folder {self._folders[0].name}"

    def forget(self) -> None:
        """Begin a new list of files used."""
        self.used = {}

    def json(self, name: str) -> Any:
        """What `name` holds.

        Raises:
            MissingSourceError: it is not there.
            InputError: it is not JSON.
        """
        path = self._path(name)
        with reading(path, "make it again"):
            data = path.read_bytes()
            found = json.loads(unpacked(path, "make it again") if path.suffix == ".gz" else data)
        settings = found.get("options", found) if isinstance(found, dict) else {}
        self.note(name, data, settings.get("seed"))
        return found

    def runs(self, name: str) -> list[Trajectory]:
        """The trajectories of a JSON Lines file.

        Raises:
            MissingSourceError: it is not there.
            InputError: see `msjax.data.store.read_runs`.
        """
        path = self._path(name)
        runs = read_runs(path)
        self.note(name, path.read_bytes(), runs[0].settings.get("seed"))
        return runs

    def note(self, name: str, data: bytes, seed: Any) -> None:
        """Remember what was read."""
        self.used[name] = {"sha256": hashlib.sha256(data).hexdigest(), "seed": seed}

    def _path(self, name: str) -> Path:
        for folder in self._folders:
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return path
        raise MissingSourceError(
            f"{self._folders[0] / name}: no such file; make it by `{self.made_by[name]}`"
        )
