"""Executes the py:percent sources and keeps what they print and draw beside them as .ipynb."""

import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def main(numbers: list[str]) -> None:
    """Those whose names begin with the numbers, or all."""
    for source in sorted(HERE.glob("[0-9]_*.py")):
        if numbers and source.name[0] not in numbers:
            continue
        notebook = jupytext.read(source)
        start = time.monotonic()
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(HERE)}}).execute()
        for number, cell in enumerate(notebook.cells):
            cell.id = str(number)
            cell.metadata.pop("execution", None)
            if cell.cell_type == "code":
                # Progress bars and advice are for who watches.
                cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        nbformat.write(notebook, source.with_suffix(".ipynb"))
        print(f"{source.stem}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
