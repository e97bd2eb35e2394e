"""What a run of test-time training saw, as JSON Lines: settings, held-out answers, steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msjax.data.json_lines import LineFile, open_lines
from msjax.data.store import check_settings
from msjax.errors import InputError
from msjax.train.ttrl.early_stopping import Step
from msjax.train.ttrl.held_out import HeldOut

__all__ = ["RunLog", "open_run_log"]


@contextmanager
def open_run_log(path: Path, settings: dict[str, Any]) -> Iterator[RunLog]:
    """The log of one run, for one process at a time.

    Args:
        path: of the file; what it holds already is kept, but for a torn last line.
        settings: what the run must keep constant, in JSON's own types.

    Raises:
        InputError: another process writes it, or it holds a run with other settings, steps that
            are not numbered 0, 1, ..., or something else; it is left as it is.
    """
    first = {"settings": json.loads(json.dumps(settings))}

    def check(lines: Sequence[dict[str, Any]]) -> None:
        if lines and "settings" not in lines[0]:
            raise InputError(f"{path}, line 1: no settings of a run; name another folder")
        steps = 0
        for number, line in enumerate(lines, 1):
            if "settings" in line:
                check_settings(path, line["settings"], first["settings"])
            elif "step" in line:
                if line["step"].step != steps:
                    raise InputError(
                        f"{path}, line {number}: step {line['step'].step} where step {steps} must "
                        "come, as if two processes had written it; name another folder"
                    )
                steps += 1

    head = _render(first).encode()
    with open_lines(path, _parse, _render, head=head, what="steps", check=check) as file:
        if not file.lines:
            file.append(first)
        yield RunLog(file)


class RunLog:
    """The log of one run: line by line, each on disk before the run goes on.

    Attributes:
        steps: those recorded.
        held_out: accuracy "before" and "after", as far as recorded.
    """

    def __init__(self, file: LineFile[dict[str, Any]]):
        self._file = file
        self.steps: list[Step] = [line["step"] for line in file.lines if "step" in line]
        found = [line["held_out"] for line in file.lines if "held_out" in line]
        self.held_out: dict[str, HeldOut] = dict(found)

    def write_step(self, step: Step) -> None:
        """Appends a step."""
        self._file.append({"step": step})
        self.steps.append(step)

    def write_held_out(self, when: str, found: HeldOut) -> None:
        """Appends the accuracy "before" or "after"."""
        self._file.append({"held_out": (when, found)})
        self.held_out[when] = found

    def rewind(self, steps: int) -> None:
        """Forgets all but the first steps, and what came after them."""
        if len(self.steps) > steps:
            self.steps = self.steps[:steps]
            self.held_out.pop("after", None)
            self._file.rewrite(
                [
                    self._file.lines[0],
                    *({"held_out": found} for found in self.held_out.items()),
                    *({"step": step} for step in self.steps),
                ]
            )


def _parse(where: str, line: bytes) -> dict[str, Any]:
    """{"settings": ...}, {"step": Step} or {"held_out": (when, HeldOut)}."""
    try:
        ((kind, content),) = json.loads(line).items()
        if kind == "settings":
            return {kind: dict(content)}
        if kind == "held_out":
            when = content.pop("when")
            return {kind: (str(when), HeldOut(**_tuples(content)))}
        if kind == "step":
            return {kind: Step(**_tuples(content))}
        raise ValueError(f"unknown field {kind}")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise InputError(f"{where}: no line of such a run ({error}); name another folder") from None


def _render(line: dict[str, Any]) -> str:
    ((kind, content),) = line.items()
    if kind == "step":
        content = asdict(content)
    elif kind == "held_out":
        content = {"when": content[0], **asdict(content[1])}
    return json.dumps({kind: content}, allow_nan=False)


def _tuples(content: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
