"""`msjax fit`: what it prints first, what its JSON holds, what it refuses."""

import json

import pytest

from msjax.cli.check import Check
from msjax.cli.fit import Fit
from msjax.errors import InputError
from msjax.posterior.checks import NAMES
from msjax.posterior.store import load


def line(benchmark, question, correct, **changes):
    rounds = len(correct)
    usage = {"prompt": 60, "cached": 0, "completion": 40}
    fields = {
        "version": 1,
        "model": "scripted",
        "benchmark": benchmark,
        "question_id": f"q{question}",
        "protocol": "sequential",
        "question": "1 + 1",
        "gold": "2",
        "answers": ["2"] * rounds,
        "correct": [bool(state) for state in correct],
        "scores": [None] * rounds,
        "tokens": [usage] * rounds,
        "completions": [""] * rounds,
        "stop_reason": "budget",
        "censored": False,
        "key": "0",
        "settings": {},
    }
    return json.dumps(fields | changes) + "\n"


@pytest.fixture
def runs(tmp_path):
    """Five benchmarks that differ in what they allow one to say."""
    paths = {
        "chain": ["0011", "0111", "1111", "1011", "0001", "1101", "0000", "1110"] * 6,
        "mixture": ["1111"] * 15 + ["0000"] * 15 + ["0101", "1010"] * 8,
        "solved": ["111"] * 9,
        "single": ["1", "0"],
        "oracle": ["1", "01", "000", "001"] * 5,
    }
    path = tmp_path / "runs.jsonl"
    path.write_text(
        "".join(
            line(
                name,
                i,
                [int(state) for state in states],
                censored=name == "oracle" and len(states) < 3,
            )
            for name, rows in paths.items()
            for i, states in enumerate(rows)
        )
    )
    return path


def test_report_json_and_posterior(runs, tmp_path, capsys):
    command = Fit(
        (runs,),
        model="pooled",
        out=tmp_path / "posterior.nc",
        json=tmp_path / "fit.json",
        seed=3,
    )
    assert command.run() == 0
    printed = capsys.readouterr().out
    first, *rest = printed.splitlines()
    assert first == "seed 3"
    mixture = printed[printed.index("\nmixture (") : printed.index("\nsolved (")]
    assert mixture.index("!! CONTRADICTED") < mixture.index("fix, p_ic")
    for announced in ("CONTRADICTED", "CENSORED", "NOT IDENTIFIED", "NOT CHECKED"):
        assert announced in printed
    assert "repairs this share" in printed and "breaks this share" in printed
    assert "not identified: prior [" in printed and "nan" not in printed
    assert "Revising pays" in printed and "rounds that pay best" not in printed

    report = json.loads((tmp_path / "fit.json").read_text())
    assert report["seed"] == 3
    assert list(report["benchmarks"]) == ["chain", "mixture", "solved", "single", "oracle"]
    for benchmark in report["benchmarks"].values():
        for field in ("models", "diagnostics", "bounds", "checks", "ppc", "warnings"):
            assert field in benchmark
        assert [(m["model"], m["weight"]) for m in benchmark["models"]] == [("pooled", 1.0)]
        assert set(benchmark["parameters"]) == {"p0", "p_ic", "p_ci"}
        assert len(benchmark["quantities"]["accuracy"]) == 11
        assert benchmark["diagnostics"]["independent"]
    chain, single = report["benchmarks"]["chain"], report["benchmarks"]["single"]
    p_ic = chain["parameters"]["p_ic"]
    assert p_ic["identified"] and p_ic["posterior"]["low"] < p_ic["posterior"]["high"]
    assert p_ic["posterior"]["low"] > p_ic["prior"]["low"]
    assert 0 <= chain["quantities"]["probability_refining_helps"] <= 1
    assert not single["parameters"]["p_ic"]["identified"]
    assert single["quantities"]["accuracy"][0] and single["quantities"]["accuracy"][1] is None
    oracle = report["benchmarks"]["oracle"]
    assert oracle["parameters"]["p_ci"]["identified"] is False
    assert all(found is None for found in oracle["bounds"]["limit"].values())
    assert load(tmp_path / "posterior.nc").benchmarks == tuple(report["benchmarks"])


@pytest.mark.slow
def test_figures(runs, tmp_path):
    assert Fit((runs,), model="pooled", figures=tmp_path / "figures").run() == 0
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"bounds.png", "chain.curve.png", "oracle.checks.png"} <= drawn


def test_auto_says_why(runs, tmp_path, capsys):
    """On the benchmarks that allow one candidate only, so that nothing is compiled."""
    short = tmp_path / "short.jsonl"
    lines = runs.read_text().splitlines(keepends=True)
    short.write_text("".join(line for line in lines if '"single"' in line))
    assert Fit((short,), json=tmp_path / "fit.json").run() == 0
    assert "pooled (the only candidate that these runs allow)" in capsys.readouterr().out
    assert Fit((short,), model="pooled", worth=2.0, price=1e-3).run() == 0
    assert not any(text.endswith(" ") for text in capsys.readouterr().out.splitlines())
    found = json.loads((tmp_path / "fit.json").read_text())["benchmarks"]["single"]
    assert found["models"][0]["model"] == "pooled" and found["models"][0]["weight"] == 1
    assert "at least 2 rounds" in found["models"][1]["refused"]


def test_a_price_says_how_many_rounds_pay(runs, tmp_path, capsys):
    command = Fit((runs,), model="pooled", worth=1.0, price=0.0, json=tmp_path / "fit.json")
    assert command.run() == 0
    assert "rounds that pay best: 3" in capsys.readouterr().out
    found = json.loads((tmp_path / "fit.json").read_text())["benchmarks"]
    assert found["chain"]["quantities"]["optimal_rounds"]["median"] == 3
    assert found["oracle"]["quantities"]["optimal_rounds"] is None


def test_checks_alone(runs, tmp_path, capsys):
    command = Check((runs,), json=tmp_path / "checks.json")
    assert command.run() == 1
    assert "a homogeneous chain is contradicted" in capsys.readouterr().out
    found = json.loads((tmp_path / "checks.json").read_text())["benchmarks"]
    assert [check["name"] for check in found["mixture"]] == list(NAMES)
    assert any(check["contradicted"] for check in found["mixture"])
    solved = tmp_path / "solved.jsonl"
    lines = runs.read_text().splitlines(keepends=True)
    solved.write_text("".join(line for line in lines if '"solved"' in line))
    assert Check((solved,)).run() == 0


def test_bad_input_is_named(runs, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Fit((tmp_path / "absent.jsonl",)).run()
    with pytest.raises(InputError, match="occurs twice"):
        Fit((runs, runs)).run()
    parallel = tmp_path / "parallel.jsonl"
    parallel.write_text(line("pool", 0, [1, 0], protocol="parallel"))
    with pytest.raises(InputError, match="'poold'; choose from pooled"):
        Fit((runs,), model="poold").run()
    with pytest.raises(InputError, match="--worth is nan"):
        Fit((tmp_path / "absent.jsonl",), worth=float("nan")).run()
    with pytest.raises(InputError, match="belongs to --model noisy"):
        Fit((runs,), verifier=(9, 1, 9, 1)).run()
    with pytest.raises(InputError, match="'parallel'"):
        Fit((parallel,)).run()
