"""The notebooks run, in small, and their executed copies are of the same source."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from msjax.llm.flax.weights import model_file

SOURCES = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]_*.py"))


def test_there_are_five() -> None:
    assert [source.name[0] for source in SOURCES] == ["1", "2", "3", "4", "5"]


# A minute each where everything has to be compiled first; what the one with a live model does,
# `make reproduce` does in CI too.
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(
            source,
            id=source.stem,
            marks=pytest.mark.study if "live_model" in source.stem else pytest.mark.slow,
        )
        for source in SOURCES
    ],
)
def test_a_notebook_runs(source, tmp_path) -> None:
    if "weights.ensure" in source.read_text() and not model_file().is_file():
        pytest.skip("the model is not here; obtain it with `msjax weights`")
    # As a reader runs it: how the tests are compiled makes a model slow.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    ran = subprocess.run(
        [sys.executable, source],
        cwd=tmp_path,
        env=environment | {"MSJAX_SMALL": "1", "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.strip()


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_executed_copy_is_of_this_source(source) -> None:
    import jupytext

    ours, executed = jupytext.read(source), jupytext.read(source.with_suffix(".ipynb"))
    assert [(c.cell_type, c.source) for c in ours.cells] == [
        (c.cell_type, c.source) for c in executed.cells
    ]
    for cell in executed.cells:
        if cell.cell_type == "code" and "print(" in cell.source and "def " not in cell.source:
            assert cell.outputs, f"{source.stem} was not executed as a whole"
