"""`msjax doctor`: what a machine has, and small results that no machine may change."""

import json

import pytest

from msjax.cli import main
from msjax.verify import machine


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Exit status and report of one call."""
    out = tmp_path_factory.mktemp("doctor") / "found.json"
    return main(["doctor", "--json", str(out)]), json.loads(out.read_text())


@pytest.mark.slow
def test_known_results_are_found_again(found) -> None:
    status, report = found
    assert status == 0
    assert {name: check["passed"] for name, check in report["checks"].items()} == {
        "simulator": True,
        "decoder": True,
    }
    assert report["devices"] and report["versions"]["jax"]
    assert all(report["extras"][name] for name in ("local", "report", "serve"))


def test_a_result_that_is_off_fails(monkeypatch, capsys) -> None:
    monkeypatch.setattr(machine, "check_decoder", lambda: machine.Check("decoder", None, "left"))
    monkeypatch.setattr(machine, "simulate_counts", lambda *_: machine.np.array([1, 2]))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "simulator    WRONG: right after each round in (1, 2)" in said
    assert "decoder      not checked: left" in said
