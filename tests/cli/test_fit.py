"""`msjax fit`: what it prints first, what its JSON holds, what it refuses."""

import json

import pytest

from inference.store import load
from msjax.cli.fit import Fit
from msjax.errors import InputError


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
    command = Fit((runs,), out=tmp_path / "posterior.nc", json=tmp_path / "fit.json", seed=3)
    assert command.run() == 0
    printed = capsys.readouterr().out
    first, *rest = printed.splitlines()
    assert first == "model scripted, seed 3"
    assert any(text.startswith("!! mixture: CONTRADICTED") for text in rest)
    numbers = printed.index("90 % interval")
    for announced in ("CONTRADICTED", "CENSORED", "NOT IDENTIFIED", "NOT CHECKED"):
        assert printed.index(announced) < numbers
    assert "not identified" in printed and "nan" not in printed

    report = json.loads((tmp_path / "fit.json").read_text())
    assert report["model"] == "scripted" and report["seed"] == 3
    assert list(report["benchmarks"]) == ["chain", "mixture", "solved", "single", "oracle"]
    for benchmark in report["benchmarks"].values():
        assert set(benchmark["parameters"]) == {"p0", "p_ic", "p_ci"}
        assert set(benchmark["quantities"]) == {
            "r",
            "pi",
            "accuracy",
            "optimal_rounds",
            "probability_refining_helps",
        }
        assert [check["name"] for check in benchmark["checks"]] == ["order", "rounds", "questions"]
        assert set(benchmark["diagnostics"]["r_hat"]) == {"p0", "p_ic", "p_ci"}
        assert len(benchmark["quantities"]["accuracy"]) == 11
    chain, single = report["benchmarks"]["chain"], report["benchmarks"]["single"]
    assert set(chain["parameters"]["p_ic"]) == {"mean", "median", "low", "high"}
    assert chain["parameters"]["p_ic"]["low"] < chain["parameters"]["p_ic"]["high"]
    assert 0 <= chain["quantities"]["probability_refining_helps"] <= 1
    assert single["parameters"]["p_ic"] is None
    assert single["quantities"]["accuracy"][0] and single["quantities"]["accuracy"][1] is None
    assert report["benchmarks"]["oracle"]["parameters"]["p_ci"] is None
    assert load(tmp_path / "posterior.nc").benchmarks == tuple(report["benchmarks"])


def test_bad_input_is_named(runs, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Fit((tmp_path / "absent.jsonl",)).run()
    with pytest.raises(InputError, match="occurs twice"):
        Fit((runs, runs)).run()
    parallel = tmp_path / "parallel.jsonl"
    parallel.write_text(line("pool", 0, [1, 0], protocol="parallel"))
    with pytest.raises(InputError, match="'parallel'"):
        Fit((parallel,)).run()
