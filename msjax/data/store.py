"""Recorded runs: one JSON line per question, validated on reading, crash-safe on writing.

A line is written and fsynced as soon as its question is finished, so a run that is killed loses at
most the questions still in flight, and a torn last line is repaired when the run is resumed.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydantic_core

from msjax._io import unpacked
from msjax.data.details import identities, require_once
from msjax.data.json_lines import LineFile, complete_lines, open_lines
from msjax.data.trajectory import Trajectory, parse_trajectory
from msjax.errors import InputError

_WHAT = "recorded runs"
_HEAD = b'{"version":1,"model":"'


def read_runs(path: Path) -> list[Trajectory]:
    """All trajectories of a JSON Lines file, in file order.

    Raises InputError when the file is absent, empty, torn or of another kind, when a line does not
    follow the schema (unknown and missing fields included), or when a question occurs twice.
    """
    runs = [parse_trajectory(f"{path}, line {i}", x) for i, x in enumerate(run_lines(path), 1)]
    try:
        require_once(identities(runs), runs)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return runs


def read_compressed(path: Path) -> list[Trajectory]:
    """All trajectories of a JSON Lines file that gzip packed.

    Raises InputError as `read_runs`, and for a file that unpacks to more than 256 MB.
    """
    lines = unpacked(path, "name a file that gzip made of recorded runs").splitlines()
    return [parse_trajectory(f"{path}, line {i}", x) for i, x in enumerate(lines, 1)]


def run_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file of trajectories, as bytes.

    Raises InputError when the file is absent, empty, torn or of another kind.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; record a run with `msjax run`")
    number, read = 0, 0
    for line in complete_lines(path, _HEAD, _WHAT):
        yield line
        number, read = number + 1, read + len(line)
    if read < path.stat().st_size:
        raise InputError(
            f"{path}, line {number + 1}: torn (the writer was interrupted); resume the run "
            "that writes this file, which repairs it, or remove the line"
        )
    if not number:
        raise InputError(f"{path}: empty, so there is nothing to read; record a run first")


@contextmanager
def resume(
    path: Path,
    *,
    model: str,
    settings: Mapping[str, Any],
    learnt: Collection[str] = (),
    check: Callable[[Trajectory], None] = lambda run: None,
    keep: Callable[[Trajectory], Trajectory] = lambda run: run,
) -> Iterator[LineFile[Trajectory]]:
    """Open a run for appending, keeping what is there and dropping a torn last line.

    Args:
        path: of the run; it is made with its first line.
        model: that all lines belong to.
        settings: of all lines.
        learnt: settings that are not compared here.
        check: raises InputError where a line there does not belong to this run.
        keep: what is kept in memory of a run.

    Raises InputError when another process writes it, when it holds something else, or lines of
    another model or other settings (named with both values), since a mixture of runs estimates
    nothing. What is refused is left as it is.
    """

    def check_all(runs: Sequence[Trajectory]) -> None:
        for run in runs:
            found = {name: value for name, value in run.settings.items() if name not in learnt}
            check_settings(path, {"model": run.model, **found}, {"model": model, **settings})
            check(run)

    head = _HEAD[:-1] + pydantic_core.to_json(model)
    with open_lines(
        path, parse_trajectory, _render, head=head, what=_WHAT, check=check_all, keep=keep
    ) as file:
        yield file


def _render(run: Trajectory) -> str:
    return run.model_dump_json()


def check_settings(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises InputError, with both values, where a file was recorded with other settings."""
    for name in {**expected, **found}:
        if expected.get(name) != found.get(name):
            raise InputError(
                f"{path}: recorded with {name}={found.get(name)!r}, but this run has "
                f"{name}={expected.get(name)!r}; use the same settings or write somewhere else"
            )
