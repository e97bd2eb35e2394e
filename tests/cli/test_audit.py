"""`msjax audit`: what it prints, what its JSON holds, what it refuses."""

import functools
import json

import pytest

from msjax.cli import audit as cli
from msjax.cli import main
from msjax.cli.audit import Audit
from msjax.errors import InputError
from msjax.rules import audit


@pytest.fixture
def short_horizons(monkeypatch):
    """The null is followed for a few votes only."""
    monkeypatch.setattr(audit, "audit", functools.partial(audit.audit, horizons=(4, 8)))


def test_report_and_json(short_horizons, tmp_path, capsys):
    path = tmp_path / "audit.json"
    assert main(["audit", "asc", "--p-right", ".7", "--budget", "9", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(path.read_text())
    assert found["rule"] == "asc"
    assert found["parameters"] == {"threshold": 0.95}
    assert found["rates"] == pytest.approx([0.7, 0.3])
    assert (found["unanimous_votes"], found["equivalent_margin"]) == (4, None)
    assert found["anytime_valid"] is False and found["null"]["8"] > found["claimed_error"]
    assert 0 < found["error"] < 0.3 and 4 < found["expected_votes"] < found["p95_votes"] == 9
    assert f"wrong answer            {found['error']:.4f}" in printed
    assert "no vote margin" in printed and "error 0.05: NOT kept at a coin toss" in printed


def test_options_reach_the_rule(short_horizons, tmp_path, capsys):
    path = tmp_path / "audit.json"
    options = ["--p-wrong", ".2", ".1", "--assumed-wrong", ".1", "--threshold", "40"]
    assert main(["audit", "optpo", "--budget", "6", *options, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert found["parameters"] == {
        "threshold": 40.0,
        "assumed_right": 0.6,
        "assumed_wrong": 0.1,
        "min_samples": 1,
    }
    assert found["equivalent_margin"] == 3 and len(found["rates"]) == 3
    assert "the same as stopping at a lead of 3" in capsys.readouterr().out


def test_all_rules_in_one_table(short_horizons, tmp_path, capsys, monkeypatch):
    path = tmp_path / "all.json"
    rules = cli.rules_to_audit((0.6, 0.4))
    assert len(rules) == 10
    three = {name: rules[name] for name in ("certificate", "consol", "esc")}
    monkeypatch.setattr(cli, "rules_to_audit", lambda rates: three)
    assert Audit("all", budget=3, json=path).run() == 0
    found = json.loads(path.read_text())
    printed = capsys.readouterr().out
    assert all(row["rule"] in printed for row in found)
    claims = {row["rule"]: row["anytime_valid"] for row in found}
    assert claims == {"certificate": True, "consol": False, "esc": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["ascc"], "RULE is 'ascc'; choose from all, fixed+majority,"),
        (["asc", "--margin", "3"], "--margin is given, but asc has none; it takes --threshold"),
        (["asc", "--threshold", "1.5"], "threshold is 1.5"),
        (["asc", "--p-right", "1.5"], "--p-right is 1.5"),
        (["asc", "--p-wrong", ".7"], "--p-right and --p-wrong sum to 1.3"),
        (["all", "--threshold", ".9"], "--threshold means different things"),
        (["vote_margin", "--budget", "0"], "budget is 0"),
    ],
)
def test_bad_options_are_named_and_give_status_2(options, message, capsys):
    assert main(["audit", *options]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_rule_is_an_input_error():
    with pytest.raises(InputError, match="certificate,predictive=no"):
        Audit("mmc").run()
