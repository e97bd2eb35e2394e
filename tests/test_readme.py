"""What the README shows runs."""

import re
from importlib.resources import files
from pathlib import Path

import jax

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(tmp_path, monkeypatch, capsys) -> None:
    lines = (files("msjax") / "recorded/pilot.jsonl").read_text().splitlines(keepends=True)
    hard = [line for line in lines if '"arithmetic-hard"' in line]
    (tmp_path / "pilot.jsonl").write_text("".join(hard))
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    with jax.numpy_rank_promotion("allow"):  # NumPyro relies on it
        exec(compile(example, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("stop after") == 1


def test_every_local_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []
