"""`msjax card`: what it refuses."""

from importlib.resources import files

import pytest

from msjax.cli import main


@pytest.fixture(scope="module")
def pilot(tmp_path_factory):
    """Six questions of the recorded pilot."""
    path = tmp_path_factory.mktemp("card") / "pilot.jsonl"
    lines = (files("msjax") / "recorded" / "pilot.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:6]))
    return path


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl"),
        (["PILOT", "--margin", "2"], "margin"),
        (["PILOT", "--value", "0"], "value"),
        (["PILOT", "PILOT"], "occurs twice"),
    ],
)
def test_refuses(pilot, arguments, names, capsys):
    assert main(["card", *(str(pilot) if x == "PILOT" else x for x in arguments)]) == 2
    assert names in capsys.readouterr().err
