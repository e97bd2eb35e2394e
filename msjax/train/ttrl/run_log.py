"""What a run of test-time training saw, as JSON Lines: settings, held-out answers, steps."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msjax.data.store import check_settings
from msjax.errors import InputError
from msjax.train.ttrl.early_stopping import Step
from msjax.train.ttrl.held_out import HeldOut

__all__ = ["Journal"]


class Journal:
    """The log of one run: line by line, each on disk before the run goes on.

    Args:
        path: of the file; what it holds already is kept, but for a torn last line.
        settings: what the run must keep constant, in JSON's own types.

    Attributes:
        steps: those recorded.
        held_out: accuracy "before" and "after", as far as recorded.

    Raises:
        InputError: the file holds a run with other settings, or something else.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        self.steps: list[Step] = []
        self.held_out: dict[str, HeldOut] = {}
        self._settings = json.loads(json.dumps(settings))
        path.parent.mkdir(parents=True, exist_ok=True)
        for number, line in enumerate(path.read_bytes().splitlines(True) if path.exists() else []):
            if line.endswith(b"\n"):
                self._read(number + 1, line)
        self._rewrite()

    def write_step(self, step: Step) -> None:
        """Appends a step."""
        self.steps.append(step)
        self._append({"step": asdict(step)})

    def write_held_out(self, when: str, found: HeldOut) -> None:
        """Appends the accuracy "before" or "after"."""
        self.held_out[when] = found
        self._append({"held_out": {"when": when, **asdict(found)}})

    def rewind(self, steps: int) -> None:
        """Forgets all but the first steps, and what came after them."""
        if len(self.steps) > steps:
            self.steps = self.steps[:steps]
            self.held_out.pop("after", None)
            self._rewrite()

    def _read(self, number: int, line: bytes) -> None:
        try:
            ((kind, content),) = json.loads(line).items()
            if kind == "settings":
                check_settings(self.path, content, self._settings)
            elif kind == "held_out":
                when = content.pop("when")
                self.held_out[when] = HeldOut(**_tuples(content))
            else:
                self.steps.append(Step(**_tuples(content)))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.path}, line {number}: no line of such a run ({error}); name another folder"
            ) from None

    def _rewrite(self) -> None:
        lines: list[dict[str, Any]] = [{"settings": self._settings}]
        if "before" in self.held_out:
            lines.append({"held_out": {"when": "before", **asdict(self.held_out["before"])}})
        lines += [{"step": asdict(step)} for step in self.steps]
        if "after" in self.held_out:
            lines.append({"held_out": {"when": "after", **asdict(self.held_out["after"])}})
        part = self.path.with_name(f".{self.path.name}.part")
        part.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
        os.replace(part, self.path)

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _tuples(content: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
