"""The package as an import: every public name exists, nothing heavy loads before it is used."""

import subprocess
import sys

import pytest

import msjax


def test_every_public_name_is_where_it_is_said_to_be() -> None:
    for name in msjax.__all__:
        assert getattr(msjax, name).__name__ == name


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(AttributeError, match="'Chian'"):
        _ = msjax.Chian


def test_the_library_imports_none_of_its_users() -> None:
    script = (
        "import sys, msjax\n"
        "for name in msjax.__all__: getattr(msjax, name)\n"
        "users = {'simulate', 'inference', 'paper_figures'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(users)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
