"""Recordings that ship with the package, as runs."""

from __future__ import annotations

import gzip
from importlib.resources import files

from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory, parse_trajectory
from msjax.errors import InputError

__all__ = ["load"]

_END = ".jsonl.gz"


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
    recorded = files("msjax") / "recorded"
    if name == "pilot":
        where = [recorded / "pilot.jsonl"]
    elif name == "study":
        folder = recorded / "study"
        found = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
        names = sorted(name for name in found if name.endswith(_END))
        # where a cell has runs that are recorded to the end, those under way are left out
        whole = {name.removesuffix(_END) for name in names}
        where = [found[one] for one in names if one.removesuffix(f".early{_END}") not in whole]
    else:
        raise InputError(f"dataset {name!r} is unknown; choose from pilot, study")
    records: list[Trajectory] = []
    known: set[str] = set()
    for path in where:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if path.name.endswith(".gz") else content).splitlines()
        runs = [parse_trajectory(f"{path.name}, line {n}", line) for n, line in enumerate(lines, 1)]
        if name == "study":
            known |= {str(run.settings["strategy"]) for run in runs}
            runs = [run for run in runs if run.settings["strategy"] == strategy]
        records += runs
    if not records:
        raise InputError(
            f"strategy {strategy!r} is not recorded; there are {', '.join(sorted(known)) or 'none'}"
        )
    return Runs.from_records(records)
