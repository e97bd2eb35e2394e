"""Every test: shapes and types checked at run time, silent rank promotion an error."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# The hook must precede the first import of the modules it checks.
install_import_hook(
    ["msjax.chain", "msjax.stopping", "msjax.models", "simulate", "inference"], "beartype.beartype"
)

_SHARED = Path(os.environ.get("MSJAX_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture
def real_data() -> Path:
    """Folder of recorded trajectories of other projects; skips, by name, where it is absent."""
    folder = _SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"real data: no folder {folder}; set MSJAX_SHARED")
    return folder
