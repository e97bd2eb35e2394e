"""The house has storeys: a room imports rooms below it, and rooms of one storey form no circle."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "msjax"
STOREYS = (
    ("errors", "_child", "_io", "devices", "intervals", "texts"),
    ("theory",),
    ("data",),
    ("rules", "simulation"),
    ("posterior", "evaluate"),
    ("decision",),
    ("tasks", "llm", "data.importers"),  # files of others hold texts, which tasks read and grade
    ("train", "verify", "report"),
    ("integrations", "cli", "testing"),
    ("", "__main__"),  # the front door
)
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}


def room_of(module: str) -> str:
    """The room of `msjax.a.b.c`: the longest beginning of `a.b.c` that is one."""
    parts = module.split(".")[1:]
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((name for name in names if name in STOREY), names[-1] if names else "")


@cache
def imports(source: str) -> tuple[tuple[str, str], ...]:
    """Pairs (module, name in it, if any) of ours imported anywhere: in functions, for types too."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports name the whole path"
            found += [(node.module, alias.name) for alias in node.names]
    return tuple(pair for pair in found if pair[0].split(".")[0] == "msjax")


def arrows(files: dict[str, str]) -> dict[tuple[str, str], list[str]]:
    """Which room imports which, and by what: "importing module -> imported module"."""
    found: dict[tuple[str, str], list[str]] = {}
    for module, source in files.items():
        for home, name in imports(source):
            target = f"{home}.{name}" if f"{home}.{name}" in files else home
            pair = room_of(module), room_of(target)
            if pair[0] != pair[1]:
                found.setdefault(pair, []).append(f"{module} -> {target}")
    return found


def faults(files: dict[str, str]) -> list[str]:
    """Rooms without a storey, upward arrows, and circles in a storey."""
    found = [f"{room} has no storey" for room in {room_of(m) for m in files} - set(STOREY)]
    beside: dict[str, set[str]] = {}
    drawn = arrows(files)
    for (importer, imported), by in drawn.items():
        heights = STOREY.get(importer, 0), STOREY.get(imported, 0)
        if heights[0] < heights[1]:
            found += by
        elif heights[0] == heights[1]:
            beside.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(beside).prepare()
    except CycleError as error:
        rooms = error.args[1]
        circle = [drawn[pair][0] for pair in zip(rooms[1:], rooms, strict=False)]
        found.append(f"a circle: {', '.join(circle)}")
    return found


def files_of(root: Path) -> dict[str, str]:
    """The source of every module, by its name."""
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


KNOWN_TO_PYTHON = {"_replace", "_asdict", "_fields", "_repr_html_"}
"""Begin with an underscore and are public: of named tuples, and what notebooks look for."""


def private_names(source: str) -> list[str]:
    """Names of modules of others that begin with an underscore, in imports, attributes, patches."""
    named = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            named += [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) != "self":
            named.append(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            texts = (x.value for x in node.args[:2] if isinstance(x, ast.Constant))
            named += [name for text in texts for name in str(text).split(".")]
    private = re.compile(r"_[^_]")
    return [x for x in named if private.match(x) and x not in KNOWN_TO_PYTHON | {"_io"}]


def test_tests_name_public_things() -> None:
    folder = Path(__file__).parent
    found = {
        path.relative_to(folder).as_posix(): names
        for path in folder.rglob("*.py")
        if (names := private_names(path.read_text()))
    }
    assert found == {}
    assert private_names("from msjax.rules.votes import _fresh\nvotes._bet(_fresh())") == [
        "_fresh",
        "_bet",
    ]
    assert private_names("patch.setattr('msjax.rules.audit._LIMIT', 2)") == ["_LIMIT"]


def test_every_room_imports_only_what_lies_below_it() -> None:
    files = files_of(ROOT)
    assert len(arrows(files)) > 30
    assert faults(files) == []


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("msjax.theory.chain", "import msjax.data.store", "msjax.theory.chain -> msjax.data.store"),
        (
            "msjax.rules.grid",
            "def f():\n    from msjax.cli import main",
            "msjax.rules.grid -> msjax.cli",
        ),
        (
            "msjax.rules.grid",
            "if TYPE_CHECKING:\n    from msjax.posterior import fits",
            "msjax.rules.grid -> msjax.posterior.fits",
        ),
        ("msjax.rules.grid", "from msjax import TwoStateChain", "msjax.rules.grid -> msjax"),
        ("msjax.attic.chest", "import numpy", "attic has no storey"),
    ],
)
def test_an_arrow_that_must_not_be_is_named(module: str, line: str, fault: str) -> None:
    files = files_of(ROOT)
    files[module] = f"{files.get(module, '')}\n{line}\n"
    assert faults(files) == [fault]


def test_a_circle_in_a_storey_is_named() -> None:
    files = files_of(ROOT)
    files["msjax.tasks.files"] += "\nimport msjax.llm.record\n"
    (fault,) = faults(files)
    assert fault.startswith("a circle: ") and "msjax.tasks.files -> msjax.llm.record" in fault
