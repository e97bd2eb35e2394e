"""`msjax verify`: table, JSON and exit status."""

import json

import pytest
import tyro

from msjax import chain as theory
from msjax.cli.verify import Verify
from msjax.errors import InputError


def test_table_json_and_status(tmp_path, capsys):
    path = tmp_path / "claims.json"
    assert Verify(chains=20_000, seed=5, section="A2", json=path).run() == 0
    printed = capsys.readouterr().out
    assert "seed 5" in printed
    assert "A2.regime" in printed
    assert "refuted" in printed
    rows = json.loads(path.read_text())
    assert [row["id"] for row in rows] == ["A2.regime", "A2.rates_decide"]
    assert all(row["ok"] is True for row in rows)
    assert all(isinstance(row[name], float) for row in rows for name in ("closed_form", "estimate"))
    assert rows[1]["z"] < -10


def test_a_wrong_closed_form_gives_status_1(monkeypatch, capsys):
    right = theory.accuracy_after
    monkeypatch.setattr(theory, "accuracy_after", lambda chain, k: right(chain, k) * (1 + 1e-2))
    assert Verify(chains=200_000, section="A1").run() == 1
    assert "FAILED: A1.transient" in capsys.readouterr().out


def test_unknown_section_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="A1, A2, A3, A4, A5, A6, A10"):
        Verify(section="B9").run()


def test_command_line():
    command = tyro.cli(Verify, args=["--section", "A4", "--seed", "7", "--chains", "50000"])
    assert command == Verify(chains=50_000, seed=7, section="A4")
