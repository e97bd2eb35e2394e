"""Tasks from files: GSM8K, MATH-500, AIME and AMC in their published fields, or your own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msjax.errors import InputError
from msjax.tasks.benchmark import Task
from msjax.tasks.prompts import Template
from msjax.tasks.samples import SUFFIXES, samples
from msjax.tasks.scorers import Scorer

__all__ = ["SUFFIXES", "load_benchmark"]

_FIELDS = ("question", "target", "id")


def load_benchmark(
    path: Path | str,
    template: str | Template = "step-by-step",
    scorer: str | Scorer | Callable[[str, str], Any] = "math",
    fields: Mapping[str, str] | None = None,
) -> Task:
    """A task from a file, named like it.

    Args:
        path: see `msjax.tasks.samples.samples`.
        template: name or file of the prompts, see `find_template`.
        scorer: see `msjax.tasks.scorers.find_scorer`.
        fields: which field of the file holds question, target and id, where their names are not
            among those that are known.

    Raises:
        InputError: a bad file, scorer or template, or a target that no answer can match.
    """
    mapping = dict(fields or {})
    for name in mapping:
        if name not in _FIELDS:
            raise InputError(f"fields has {name!r}; what can be named are {', '.join(_FIELDS)}")
    return Task(samples(path, **mapping), scorer=scorer, template=template)
