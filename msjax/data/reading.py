"""Reading recorded runs."""

from pathlib import Path

from msjax.data.runs import Runs

__all__ = ["read"]


def read(*paths: Path | str) -> Runs:
    """Runs from one or more JSON Lines files of trajectories.

    Raises InputError for a file that is absent, empty, torn or of another kind, a line that lacks
    fields (all are named), and a question that occurs twice.
    """
    return Runs.from_files(map(Path, paths))
