"""The package as it is imported and installed."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

import msjax

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_public_name_is_where_it_is_said_to_be() -> None:
    for name in set(msjax.__all__) - {"__version__"}:
        assert getattr(msjax, name).__name__.rpartition(".")[2] == name
    assert msjax.__version__ == version("msjax")


@pytest.mark.slow
def test_type_checkers_see_what_is_loaded_on_first_use() -> None:
    tree = ast.parse(Path(msjax.__file__).read_text())
    (typed,) = (node.body for node in tree.body if isinstance(node, ast.If))
    seen = {
        (alias.name, node.module)
        for node in typed
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names = {name for name, _ in seen}
    assert seen == {(name, getattr(msjax, name).__module__) for name in names}
    rest = set(msjax.__all__) - names - {"__version__"}
    assert all(isinstance(getattr(msjax, name), ModuleType) for name in rest)


@pytest.mark.slow
def test_an_unknown_name_is_named() -> None:
    with pytest.raises(AttributeError, match="'Chian'"):
        _ = msjax.Chian


EXTRAS = {
    "local": ("flax", "gguf", "jinja2", "safetensors", "tokenizers", "transformers"),
    "serve": ("aiohttp", "httptools", "openai", "prometheus_client", "starlette", "uvicorn"),
    "dspy": ("dspy",),
    "inspect": ("inspect_ai",),
    "tasks": ("math_verify", "reasoning_gym"),
    "parquet": ("pyarrow",),
    "arviz": ("arviz_base",),
    "report": ("jinja2", "matplotlib"),
    "train": ("optax", "orbax"),
}
OPTIONAL_ROOMS = (
    "llm.flax",
    "llm.serve",
    "report",
    "integrations",
    "train",
)


@pytest.mark.slow
def test_without_extras_the_core_works_and_the_rest_names_what_to_install(tmp_path) -> None:
    """Where no optional package is installed, nor one that ArviZ or they bring along."""
    absent = [name for names in EXTRAS.values() for name in names] + ["chex", "pandas", "xarray"]
    files = [path.relative_to(ROOT) for path in sorted((ROOT / "msjax").rglob("*.py"))]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files]
    prefixes = tuple(f"msjax.{room}" for room in OPTIONAL_ROOMS)
    core = [name for name in names if not name.startswith((*prefixes, "msjax.__main__"))]
    assert len(core) > 100
    (tmp_path / "one.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}')
    (tmp_path / "one.parquet").touch()
    served = "generate new.jsonl --server http://127.0.0.1:9/v1 --model m"
    commands = {
        "weights": "local",
        "generate new.jsonl": "local",
        f"{served} --benchmarks arithmetic-easy": "tasks",
        f"{served} --benchmarks one.jsonl --questions 1": "serve",
        "generate new.jsonl --benchmarks one.parquet": "parquet",
        "fit pilot.jsonl --figures new": "report",
        "serve --upstream http://127.0.0.1:9/v1": "serve",
        "import one.eval": "inspect",
        "figures": "report",
        "report .": "report",
        "card --demo --html new.html": "report",
        "train adapt new --tiny": "train",
        "train priors fit a --features b --out c": "train",
    }
    script = f"""
import sys
sys.modules.update(dict.fromkeys({absent}))
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from msjax.cli import main
for module in {core}:
    import_module(module)
for command in {list(commands)}:
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        status = main(command.split())
    print(status, said.getvalue().splitlines()[-1])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for (command, extra), line in zip(commands.items(), lines, strict=True):
        assert line.startswith("2 msjax: error: "), (command, line)
        assert line.endswith(f"install it with `pip install 'msjax[{extra}]'`"), (command, line)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Folder of both distributions, made from a copy, so that nothing of an earlier build is in it.

    The wheel is built from the source distribution.
    """
    folder = tmp_path_factory.mktemp("wheel")
    top = [path for path in ROOT.iterdir() if path.name[0] != "." and path.name != "build"]
    for path in top:
        if path.is_file():
            shutil.copy(path, folder / path.name)
        elif any(path.glob("*.py")):
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder]
    subprocess.run(build, check=True, capture_output=True)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.mark.slow
def test_an_index_would_take_both_distributions(built, wheel) -> None:
    (source,) = built.glob("*.tar.gz")
    check = [sys.executable, "-m", "twine", "check", "--strict", source, wheel]
    subprocess.run(check, check=True, capture_output=True)
    contents = shutil.which("check-wheel-contents", path=Path(sys.executable).parent)
    subprocess.run([contents, wheel], check=True, capture_output=True)
    with tarfile.open(source) as archive:
        rooms = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert "msjax" in rooms and not rooms & {"tests", "inference", "simulate", "paper_figures"}


@pytest.mark.slow
def test_the_wheel_holds_the_library_and_nothing_else(wheel) -> None:
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "msjax").rglob("*") if p.is_file()}
    ours = {name for name in files if "__pycache__" not in name}
    named = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert named == ours


def foreign_wheel(folder: Path, name: str) -> Path:
    """A package of this name, whose modules say whose they are."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for module in ("__init__", "calibration", "page_coverage"):
            archive.writestr(f"{name}/{module}.py", f"OWNER = 'the foreign {name}'\n")
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.slow  # a page of decisions compiles for seconds, twice
def test_foreign_packages_neither_break_it_nor_are_broken_by_it(wheel, tmp_path) -> None:
    new = tmp_path / "venv"
    venv.create(new, with_pip=False)
    (packages,) = new.glob("lib/python3.*/site-packages")
    # Dependencies are those of this environment; it is on the path, its .pth files are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = new / "bin/python"
    (tmp_path / "inference.py").write_text("raise SystemExit('a file of the user was imported')\n")
    pilot = (ROOT / "msjax/recorded/pilot.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "pilot.jsonl").write_text("".join(pilot[:40]))  # one benchmark
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*command: object) -> str:
        done = subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pip(*arguments: object) -> None:
        quiet = ("--quiet", "--disable-pip-version-check")
        run(sys.executable, "-m", "pip", *quiet, "--python", python, *arguments)

    names = ("inference", "simulate")
    owner = "import sys; sys.path.pop(0); import inference, simulate; print(inference.OWNER)"
    foreign = [foreign_wheel(tmp_path, name) for name in names]
    pip("install", "--no-deps", "--no-index", *foreign, wheel)
    assert run(python, "-c", owner).strip() == "the foreign inference"
    home = run(python, "-c", "import msjax; print(msjax.__file__)").strip()
    assert Path(home).is_relative_to(packages)
    before = run(python, "-m", "msjax", "card", "pilot.jsonl")
    assert "arithmetic-easy" in before
    pip("uninstall", "--yes", *names)
    assert run(new / "bin/msjax", "card", "pilot.jsonl") == before


@pytest.mark.slow
@pytest.mark.parametrize("source", [None, "https://example.org/some/one"])
def test_the_readme_of_the_package_leads_anywhere_once_it_has_an_address(tmp_path, source) -> None:
    for name in ("README.md", "LICENSE", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "msjax", tmp_path / "msjax", ignore=lambda *_: {"recorded", "llm"})
    project = (ROOT / "pyproject.toml").read_text()
    if source:
        project = project.replace("[project.urls]\n", f'[project.urls]\nSource = "{source}"\n')
    (tmp_path / "pyproject.toml").write_text(project)
    build = "import setuptools.build_meta as b; b.prepare_metadata_for_build_wheel('out')"
    (tmp_path / "out").mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (metadata,) = (tmp_path / "out").glob("*/METADATA")
    text = metadata.read_text()
    local = re.findall(r"\]\((?!https?:)([^)]+)\)", text)
    if source is None:
        assert text.endswith((ROOT / "README.md").read_text())
        return
    assert local == []
    assert f"]({source}/raw/main/docs/images/card.png)" in text
    assert f"]({source}/blob/main/docs/concepts.md)" in text
