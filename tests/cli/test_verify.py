"""`msjax verify`: table, JSON and exit status."""

import json

import pytest
import tyro

from msjax.cli import main
from msjax.cli.verify import Verify
from msjax.errors import InputError
from msjax.theory import chain as theory
from msjax.verify import CLAIMS


def test_table_json_and_status(tmp_path, capsys):
    path = tmp_path / "claims.json"
    assert Verify(chains=20_000, seed=5, section="A2", json=path).run() == 0
    printed = capsys.readouterr().out
    assert "seed 5" in printed
    assert "A2.regime              holds: exact error" in printed
    assert "A2.rates_decide        refuted, as it should be" in printed
    assert (
        "    p_k - p0 has the sign of p_ic (1-p0) - p_ci p0 [arXiv 2602.01120 Theorem 3.1"
        in printed
    )
    assert "    a known misconception: p_ic > p_ci means that refinement helps" in printed
    rows = json.loads(path.read_text())
    assert [row["id"] for row in rows] == ["A2.regime", "A2.rates_decide"]
    assert all(row["ok"] is True for row in rows)
    assert all(isinstance(row[name], float) for row in rows for name in ("closed_form", "estimate"))
    assert rows[1]["z"] < -10


def test_claims_are_listed_in_words_without_checking_them(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["verify", "--list"]) == 0
    printed = capsys.readouterr()
    names = [line for line in printed.out.splitlines() if not line.startswith(" ")]
    assert names == [claim.id for claim in CLAIMS] and len(names) > 50
    assert " ".join(printed.out.split()).count("Theorem 3.1") == 3 and not printed.err
    assert max(map(len, printed.out.splitlines())) <= 60


def test_a_wrong_closed_form_gives_status_1(monkeypatch, capsys):
    right = theory.accuracy_after
    monkeypatch.setattr(theory, "accuracy_after", lambda chain, k: right(chain, k) * (1 + 1e-2))
    assert Verify(chains=200_000, section="A1").run() == 1
    printed = capsys.readouterr()
    assert "FAILED: A1.transient" in printed.out and "speak against it, worst at" in printed.out
    assert printed.err == "checking A1\n"


def test_unknown_section_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="section is .B9.; choose one of A1, A2, .*E5"):
        Verify(section="B9").run()


def test_command_line():
    command = tyro.cli(Verify, args=["--section", "A4", "--seed", "7", "--chains", "50000"])
    assert command == Verify(chains=50_000, seed=7, section="A4")


def test_sabotage_reports_what_is_caught(tmp_path, capsys):
    path = tmp_path / "sabotage.json"
    options = {"chains": 10_000, "claim": ("A1.transient", "A2.rates_decide", "E2.posterior")}
    assert Verify(sabotage=1e-4, json=path, **options).run() == 1
    rows = json.loads(path.read_text())
    assert [(row["id"], row["caught"]) for row in rows] == [
        ("A1.transient", True),
        ("E2.posterior", True),
    ]
    assert "2 of 2 closed forms that are off by 0.0001 were caught" in capsys.readouterr().out
    assert Verify(sabotage=0.0, **options).run() == 0
    assert main(["verify", "--sabotage", "nan"]) == 2


@pytest.mark.slow
def test_a_report_beside_the_table(tmp_path):
    page = tmp_path / "claims.html"
    assert Verify(chains=10_000, section="A10", precision="float32", report=page).run() == 0
    assert "A10.frozen" in page.read_text()
    with pytest.raises(InputError, match=".pdf"):
        Verify(report=tmp_path / "claims.pdf").run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"claim": ("A4.rates",)}, "did you mean A4.rate"),
        ({"chains": 100}, "chains is 100"),
        ({"devices": 0}, "devices is 0"),
        ({"devices": 1000}, "devices is 1000, but there are"),
        ({"section": "A1", "claim": ("A2.regime",)}, "no claim"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Verify(**options).run()
