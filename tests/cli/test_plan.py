"""`msjax plan`: what it prints, what its JSON holds, what it refuses."""

import dataclasses
import json

import pytest
import tyro

from msjax.cli.plan import Plan
from msjax.errors import InputError
from msjax.posterior.fits import NotConvergedError


def line(benchmark, question, correct):
    rounds = len(correct)
    fields = {
        "version": 1,
        "model": "scripted",
        "benchmark": benchmark,
        "question_id": f"q{question}",
        "protocol": "sequential",
        "question": "1 + 1",
        "gold": "2",
        "answers": ["2"] * rounds,
        "correct": [state == "1" for state in correct],
        "scores": [None] * rounds,
        "tokens": [{"prompt": 60, "cached": 0, "completion": 40}] * rounds,
        "completions": [""] * rounds,
        "stop_reason": "budget",
        "censored": False,
        "key": "0",
        "settings": {},
    }
    return json.dumps(fields) + "\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A pilot from which one can plan, and one from which one cannot."""
    paths = {
        "chain": ["0011", "0111", "1111", "1011", "0001", "1101", "0000", "1110"] * 6,
        "solved": ["111"] * 9,
    }
    path = tmp_path_factory.mktemp("plan") / "runs.jsonl"
    lines = [line(name, i, run) for name, rows in paths.items() for i, run in enumerate(rows)]
    path.write_text("".join(lines))
    return path


@pytest.fixture
def command(runs):
    return Plan((runs,), benchmark="chain", questions=(1, 50, 100), rounds=(3,))


def test_report_and_json(command, tmp_path, capsys):
    path = tmp_path / "plan.json"
    assert dataclasses.replace(command, width=0.11, json=path).run() == 0
    printed = capsys.readouterr().out
    report = json.loads(path.read_text())
    assert report["wanted"] == {"width": 0.11}
    assert list(report["benchmarks"]) == ["chain"]
    found = report["benchmarks"]["chain"]
    assert found["sentence"] in printed
    assert "chain: Strategies that can be compared: first answer, revise. Not recorded: " in printed
    lacks = report["strategies"]["chain"]
    assert lacks["revise"] == "" and lacks["resample until accepted"] == "--samples N --judge self"
    assert found["now"]["width"]["mean"] > 0.11 and found["now"]["tokens"] == 0
    assert [design["questions"] for design in found["designs"]] == [1, 50, 100]
    assert found["smallest"] == found["designs"][2]
    assert "record 100 more questions with 3 rounds each (about 40,000 tokens)" in printed
    assert all(design["evsi"]["mean"] <= found["evpi"]["mean"] for design in found["designs"])
    for design in found["designs"]:
        assert (
            f"{design['width']['mean']:.3f} +- {design['width']['standard_error']:.3f}" in printed
        )


@pytest.mark.slow
def test_answers_when_there_is_nothing_to_record_and_when_nothing_suffices(command, capsys):
    assert dataclasses.replace(command, error=0.4).run() == 0
    assert "the runs recorded already suffice" in capsys.readouterr().out
    assert dataclasses.replace(command, error=1e-9, decision="limit").run() == 0
    assert "none of the designs tried is enough; the best, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0.1, "error": 0.1}, "ask for one of them"),
        ({"width": 0.0}, "--width is 0"),
        ({"error": 0.6}, "--error is 0.6"),
        ({"benchmark": "none"}, "--benchmark is 'none'; choose from chain, solved"),
        ({"benchmark": None}, "'solved': the runs do not identify p_ic"),
        ({"model": "none"}, "model is 'none'"),
        ({"questions": (0,)}, r"questions\[0\] is 0"),
    ],
)
def test_refusals(command, wrong, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(command, **wrong).run()


def test_a_fit_that_did_not_converge_ends_with_status_1(command, monkeypatch, capsys):
    def refuse(*_):
        raise NotConvergedError("chain: the fit is refused")

    monkeypatch.setattr("msjax.posterior.fits.fit_model", refuse)
    assert command.run() == 1
    assert "msjax plan: chain: the fit is refused" in capsys.readouterr().err


def test_options():
    parsed = tyro.cli(Plan, args=["a.jsonl", "--questions", "10", "20", "--error", ".05"])
    assert parsed.questions == (10, 20) and parsed.error == 0.05
