"""Tasks a run can ask: by name, from a local file, or a function of one's own."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from msjax._io import load_named
from msjax.errors import InputError
from msjax.tasks.benchmark import Question, Task
from msjax.tasks.files import SUFFIXES, load_benchmark
from msjax.tasks.procedural import PROCEDURAL
from msjax.tasks.prompts import find_template
from msjax.tasks.samples import Samples, samples
from msjax.tasks.scorers import Scorer

__all__ = ["BENCHMARKS", "Question", "Task", "find_task", "load_benchmark"]

BENCHMARKS = {benchmark.name: benchmark for benchmark in PROCEDURAL}
"""Tasks by name.

arithmetic-easy, -medium and -hard are products of digits, sums of digits and sums of two-digit
numbers, of which SmolLM2-135M-Instruct answers about .8, .5 and .2 right at once. Two more are not
mathematical: cube-choice (six options: a colour of a cube that was turned) and program-output (what
a short Brainf*ck program prints).
"""


def find_task(
    name_or_path: str | Path,
    template: str | Path | None = None,
    scorer: str | Scorer | Callable[[str, str], Any] | None = None,
    fields: Mapping[str, str] | None = None,
) -> Task:
    """A task by name, from a file, or by "module:function".

    Args:
        name_or_path: a key of `BENCHMARKS`, a file for `load_benchmark`, or a function without
            arguments that returns a `Task`, samples, or a list of dictionaries.
        template: name or file of the prompts, see `find_template`; None keeps the task's own.
        scorer: see `msjax.tasks.scorers.find_scorer`; None keeps the task's own, which for a file
            is math.
        fields: see `load_benchmark`; for files alone.

    Raises:
        InputError: an unknown name, a bad file, template or scorer, or a scorer or fields for a
            task that has its own.
    """
    name = str(name_or_path)
    if Path(name).suffix.lower() in SUFFIXES:
        known = load_benchmark(name, scorer=scorer or "math", fields=fields)
    elif name in BENCHMARKS or ":" in name:
        if fields:
            raise InputError(f"fields are given, but task {name!r} is no file; drop them")
        known = BENCHMARKS[name] if name in BENCHMARKS else _own(name, scorer)
        if scorer is not None and name in BENCHMARKS:
            raise InputError(f"scorer is given, but task {name!r} grades its own answers; drop it")
    else:
        raise InputError(
            f"benchmark {name!r} is unknown; known are {', '.join(BENCHMARKS)}, or name a "
            f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file, or a function as module:function"
        )
    return known if template is None else known.asked_with(find_template(template))


def _own(name: str, scorer: str | Scorer | Callable[[str, str], Any] | None) -> Task:
    found = load_named(name, "task")
    if callable(found) and not isinstance(found, Task):
        found = found()
    if isinstance(found, Task):
        if scorer is not None:
            raise InputError(f"scorer is given, but task {name!r} has its own; drop it")
        return found
    if isinstance(found, list):
        found = replace(samples(found), name=name.rpartition(":")[2])
    if not isinstance(found, Samples):
        raise InputError(
            f"task {name!r} is a {type(found).__name__}; return a Task, samples, or a list of "
            "dictionaries"
        )
    return Task(found, scorer=scorer or "math", template="step-by-step")
