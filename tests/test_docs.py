"""What the documentation shows exists: links, commands with their options, formats, functions."""

import dataclasses
import json
import re
import tomllib
import typing
from importlib import import_module
from pathlib import Path

import pytest

from msjax import cli
from msjax.generation.prompts import Template
from msjax.records import Trajectory

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "notebooks/README.md"]


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
    pairs = (typing.get_args(annotated)[:2] for annotated in typing.get_args(cli.Command))
    return {name.name: options_of(command) for command, name in pairs}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    local = [link for link in links if not link.startswith(("http:", "https:"))]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page) -> None:
    text = page.read_text().replace("\\\n", " ")
    known, unknown = commands(), []
    for name, rest in re.findall(r"(?:^ {4}|`)msjax ([a-z]+)\b([^`\n]*)", text, re.MULTILINE):
        options = set(re.findall(r"(?<!\S)--[a-z0-9-]+", rest))
        if name not in known or not options <= known[name]:
            unknown.append((name, options))
    assert unknown == []


def test_the_formats_that_are_shown_are_read() -> None:
    text = (ROOT / "docs/data.md").read_text()
    (line,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert Trajectory.model_validate_json(line).correct == (False, True)
    (template,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert Template(**tomllib.loads(template)).system == "You are careful."
    fields = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.MULTILINE)
    named = {name for cell in fields for name in re.findall(r"`(\w+)`", cell)}
    assert set(json.loads(line)) | {"returned"} <= named


def test_every_function_that_the_theory_names_exists() -> None:
    text = (ROOT / "docs/theory.md").read_text()
    table = text[text.index("## Results, functions and claims") :]
    for path in re.findall(r"`((?:simulate\.|inference\.|msjax\.)?\w+(?:\.\w+)*\.\w+)`", table):
        full = path if path.startswith(("simulate.", "inference.", "msjax.")) else f"msjax.{path}"
        module, name = full.rsplit(".", 1)
        assert hasattr(import_module(module), name), path
