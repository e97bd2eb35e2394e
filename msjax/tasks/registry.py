"""Benchmarks a run can ask: by name, or from a local file."""

from pathlib import Path

from msjax.errors import InputError
from msjax.tasks.benchmark import Benchmark, Question
from msjax.tasks.files import SUFFIXES, load_benchmark
from msjax.tasks.procedural import PROCEDURAL
from msjax.tasks.prompts import find_template

__all__ = ["BENCHMARKS", "Benchmark", "Question", "find_benchmark", "load_benchmark"]

BENCHMARKS = {benchmark.name: benchmark for benchmark in PROCEDURAL}
"""Benchmarks by name.

arithmetic-easy, -medium and -hard are products of digits, sums of digits and sums of two-digit
numbers, of which SmolLM2-135M-Instruct answers about .8, .5 and .2 right at once. Two more are not
mathematical: cube-choice (six options: a colour of a cube that was turned) and program-output (what
a short Brainf*ck program prints).
"""


def find_benchmark(name_or_path: str | Path, template: str | Path | None = None) -> Benchmark:
    """A benchmark by name, or from a .jsonl or .parquet file.

    Args:
        name_or_path: a key of `BENCHMARKS`, or a file for `load_benchmark`.
        template: name or file of the prompts, see `find_template`; None keeps the benchmark's own.

    Raises:
        InputError: an unknown name, a bad file, or a bad template.
    """
    name = str(name_or_path)
    if name in BENCHMARKS:
        known = BENCHMARKS[name]
    elif Path(name).suffix.lower() in SUFFIXES:
        known = load_benchmark(name)
    else:
        raise InputError(
            f"benchmark {name!r} is unknown; known are {', '.join(BENCHMARKS)}, or name a "
            f"{' or '.join(SUFFIXES)} file"
        )
    return known if template is None else known.asked_with(find_template(template))
