"""What the documentation shows exists: links, commands with their options, formats, functions."""

import ast
import dataclasses
import json
import re
import tomllib
import typing
from importlib import import_module
from pathlib import Path

import pytest

import msjax
from msjax import cli
from msjax.data.trajectory import Trajectory
from msjax.tasks.prompts import Template
from msjax.verify import CLAIMS

ROOT = Path(__file__).parents[1]
STUDIES = ("simulate", "inference", "paper_figures", "benchmarks")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += [ROOT / folder / "README.md" for folder in ("notebooks", *STUDIES)]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def options_of(command) -> set[str]:
    """The options of a command and of the steps it consists of."""
    found = set()
    for name, kind in typing.get_type_hints(command).items():
        steps = [step for step in typing.get_args(kind) if dataclasses.is_dataclass(step)]
        if steps:
            found |= set().union(*map(options_of, steps))
        else:
            found |= {f"--{no}{name.replace('_', '-')}" for no in ("", "no-")}
    return found


def commands() -> dict[str, set[str]]:
    """The options of every command."""
    return {name: options_of(cli.find_command(name)) for name in cli.COMMANDS}


LONG = ("theory.md", "results.md")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_page_is_read_in_one_sitting(page) -> None:
    assert page.name in LONG or len(page.read_text().split()) <= 2500


def test_the_reference_lists_every_public_name() -> None:
    text = (ROOT / "docs/reference/index.md").read_text()
    assert sorted(re.findall(r"^\| \[?`msjax\.(\w+)`", text, re.MULTILINE)) == msjax.__all__


def test_every_module_of_the_reference_exists() -> None:
    for page in sorted((ROOT / "docs/reference").glob("*.md")):
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
            assert (ROOT / (name.replace(".", "/") + ".py")).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    local = [link for link in links if not link.startswith(("http:", "https:"))]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_and_their_options_exist(page) -> None:
    text = page.read_text().replace("\\\n", " ")
    known, unknown = commands(), []
    command = r"(?:^ {4}|`)msjax ((?:train )?[a-z]+)\b([^`\n]*)"
    for name, rest in re.findall(command, text, re.MULTILINE):
        options = set(re.findall(r"(?<!\S)--[a-z0-9-]+", rest))
        if name not in known or not options <= known[name]:
            unknown.append((name, options))
    assert unknown == []


def options_of_study(module: str) -> set[str] | None:
    """The options of `python -m module`: the fields of what it gives to `tyro.cli`."""
    path = ROOT / module.replace(".", "/")
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.is_file():
        return None
    source = path.read_text()
    (name,) = re.findall(r"tyro\.cli\((\w+)", source)
    (body,) = (x.body for x in ast.parse(source).body if getattr(x, "name", "") == name)
    fields = {x.target.id for x in body if isinstance(x, ast.AnnAssign)}
    return {f"--{no}{field.replace('_', '-')}" for field in fields for no in ("", "no-")}


def test_studies_that_are_named_exist_with_their_options() -> None:
    sources = [x for folder in ("msjax", *STUDIES) for x in sorted((ROOT / folder).rglob("*.py"))]
    named = set()
    for page in (*PAGES, *sources):
        text = page.read_text().replace("\\\n", " ")
        for module, rest in re.findall(r"python -m ((?!msjax\b)[a-z][\w.]*\w)([^`\"\n]*)", text):
            named.add(module)
            known = options_of_study(module)
            assert known is not None, (page, module)
            assert set(re.findall(r"(?<!\S)--[a-z0-9-]+", rest)) <= known, (page, module)
    programs = [x for x in sources if "tyro.cli(" in x.read_text() and "msjax" not in x.parts]
    modules = {".".join(x.relative_to(ROOT).with_suffix("").parts) for x in programs}
    assert {x.removesuffix(".__main__") for x in modules if x.split(".")[0] in STUDIES} <= named


def test_the_formats_that_are_shown_are_read() -> None:
    text = (ROOT / "docs/data.md").read_text()
    (line,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert Trajectory.model_validate_json(line).correct == (False, True)
    (template,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert Template(**tomllib.loads(template)).system == "You are careful."
    fields = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.MULTILINE)
    named = {name for cell in fields for name in re.findall(r"`(\w+)`", cell)}
    assert set(json.loads(line)) | {"returned"} <= named


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_anchors_lead_to_a_heading(page) -> None:
    links = re.findall(r"\]\(([^):#]*)#([^)]+)\)", page.read_text())
    targets = ((page.parent / path if path else page, anchor) for path, anchor in links)
    assert [anchor for target, anchor in targets if anchor not in headings(target)] == []


def results() -> list[list[str]]:
    """The rows of the theory's table: result, functions, claims."""
    text = (ROOT / "docs/theory.md").read_text()
    table = text[text.index("## Results, functions and claims") :]
    rows = re.findall(r"^\| (?!result |---)(.*) \|$", table, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows]


def test_every_result_links_to_its_section() -> None:
    for result, _, _ in results():
        (found,) = re.findall(r"^\[([A-H]\d+) [^]]+\]\(#([a-h]\d+)-[^)]+\)$", result)
        assert found[0].lower() == found[1], result


def test_every_function_that_the_theory_names_is_defined_where_its_link_leads() -> None:
    cells = [functions for _, functions, _ in results()]
    links = [link for cell in cells for link in re.findall(r"\[`([\w.]+)`\]\(([^)]+)\)", cell)]
    assert len(links) == sum(cell.count("`") for cell in cells) / 2
    trees = {path: ast.parse((ROOT / "docs" / path).read_text()) for _, path in links}
    for label, path in links:
        home, name = label.rsplit(".", 1)
        assert path == f"../msjax/{home.replace('.', '/')}.py", label
        assert name in {getattr(node, "name", "") for node in trees[path].body}, label


def test_the_theory_names_every_claim_that_is_verified_and_no_other() -> None:
    named = []
    for result, _, claims in results():
        for claim, path in re.findall(r"\[([\w.]+)\]\(([^)]+)\)", claims):
            assert claim.split(".")[0] == result[1:].split()[0], claim
            module = import_module(path.removeprefix("../").removesuffix(".py").replace("/", "."))
            assert claim in {known.id for known in module.CLAIMS}, claim
            named.append(claim)
    assert sorted(named) == sorted(claim.id for claim in CLAIMS)
