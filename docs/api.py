"""Builds the API reference from the docstrings; what pdoc warns of is an error.

python docs/api.py build/api
"""

import sys
import warnings
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import walk_packages
from typing import get_type_hints

import pdoc

import msjax
from msjax.errors import MissingExtraError


def modules() -> list[str]:
    """The package and every module in it."""
    inside = walk_packages(msjax.__path__, "msjax.")
    return ["msjax", *(module.name for module in inside if "__main__" not in module.name)]


def left_out(names: list[str]) -> list[str]:
    """Packages of which a module stands in front of a library that is not installed; said for each.

    pdoc cannot show a package without all its modules.
    """
    absent = []
    for name in names:
        try:
            import_module(name)
        except MissingExtraError as missing:
            absent.append(name.rpartition(".")[0])
            print(f"left out: {absent[-1]} ({missing})")
    return absent


def specifications(names: list[str]) -> list[str]:
    """Those of the modules that pdoc does not find by itself, as `__all__` does not name them."""
    wanted, found = [], set()
    for name in names:
        if name not in found:
            wanted.append(name)
            found |= set(pdoc.extract.walk_specs([name]))
    return wanted


def resolve_named_tuples() -> None:
    """Puts types for their names: pdoc looks for those outside the module of a NamedTuple."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "msjax":
            for found in list(vars(module).values()):
                if isinstance(found, type) and issubclass(found, tuple):
                    with suppress(NameError):  # imported for type checkers alone: pdoc does that
                        found.__new__.__annotations__ = get_type_hints(found)


def build(folder: Path) -> None:
    """Writes one page per module, and an index."""
    names = modules()
    absent = left_out(names)
    names = [name for name in names if not name.startswith(tuple(absent))]
    resolve_named_tuples()
    warnings.filterwarnings("error", module="pdoc")
    for name in msjax.__all__:
        getattr(msjax, name)  # pdoc sees what has been loaded
    pdoc.render.configure(docformat="google", footer_text=f"msjax {version('msjax')}")
    pdoc.pdoc(*specifications(names), output_directory=folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
