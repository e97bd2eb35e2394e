"""Recordings that ship with the package, as runs."""

from __future__ import annotations

from importlib.resources import as_file, files
from importlib.resources.abc import Traversable

from msjax.data.runs import Runs
from msjax.data.store import read_compressed, read_runs
from msjax.data.trajectory import Trajectory
from msjax.errors import InputError

__all__ = ["load", "study_files", "study_strategies"]

_END, _EARLY = ".jsonl.gz", ".early.jsonl.gz"


def load(name: str, strategy: str = "reconsider") -> Runs:
    """Runs of real models that were recorded for this project; `groups` tells their cells apart.

    Args:
        name: "pilot", 40 to 80 questions of three arithmetic benchmarks with three revisions by
            SmolLM2-135M-Instruct, or "study", what inference/study has recorded so far.
        strategy: of the study, which way of asking: "reconsider", "restart", "samples", ... Where
            no question of a cell has all its rounds yet, the runs have those that are recorded.

    Raises:
        InputError: an unknown name, or a strategy that is not recorded.

    Reference: inference/study/README.md, the data card.
    """
    if name == "pilot":
        paths = [files("msjax") / "recorded" / "pilot.jsonl"]
    elif name == "study":
        paths = study_files(strategy)
    else:
        raise InputError(f"dataset {name!r} is unknown; choose from pilot, study")
    records: list[Trajectory] = []
    for path in paths:
        with as_file(path) as file:
            records += read_compressed(file) if path.name.endswith(".gz") else read_runs(file)
    return Runs.from_records(records)


def study_strategies() -> tuple[str, ...]:
    """Ways of asking that the study has recorded."""
    return tuple(sorted({name.split(".")[-1] for name in _cells()}))


def study_files(strategy: str) -> list[Traversable]:
    """The study's recordings of a way of asking, a file for each model and benchmark.

    Raises:
        InputError: nothing of it is recorded.
    """
    found = [path for cell, path in sorted(_cells().items()) if cell.endswith(f".{strategy}")]
    if not found:
        known = ", ".join(study_strategies()) or "none"
        raise InputError(f"strategy {strategy!r} is not recorded; there are {known}")
    return found


def _cells() -> dict[str, Traversable]:
    """Files by MODEL.BENCHMARK.STRATEGY; runs under way only where none has come to its end."""
    folder = files("msjax") / "recorded" / "study"
    found = [x for x in folder.iterdir() if x.name.endswith(_END)] if folder.is_dir() else []
    under_way = {x.name.removesuffix(_EARLY): x for x in found if x.name.endswith(_EARLY)}
    whole = {x.name.removesuffix(_END): x for x in found if not x.name.endswith(_EARLY)}
    return under_way | whole
