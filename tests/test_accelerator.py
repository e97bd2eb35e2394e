"""`python -m benchmarks.accelerator`: what its file holds, whatever becomes of its parts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.accelerator import __main__ as command
from benchmarks.accelerator import decoding
from benchmarks.accelerator.measurement import Clock
from benchmarks.accelerator.report import tables

ROOT = Path(__file__).parents[1]


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["accelerator", *arguments])
    return command.main()


@pytest.mark.slow
def test_the_whole_command_in_small(tmp_path) -> None:
    out = tmp_path / "found.json"
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.accelerator", "--minutes", "12", "--json", str(out)],
        cwd=ROOT,
        env=os.environ | {"MSJAX_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    report = json.loads(out.read_text())
    assert report["small"] and report["parts"] == dict.fromkeys(command.SHARES, "whole")
    checked = {item["name"]: item["passed"] for item in report["measurements"]}
    passed = [name for name, result in checked.items() if result]
    assert len([name for name in passed if name.startswith("logits of tiny_")]) == 12
    assert {"decoder over 1 x 2 devices (data x model), beside one", "msjax doctor: decoder"} <= {
        *passed
    }
    assert len([name for name in passed if name.startswith("simulated")]) == 4
    rates = [item["values"] for item in report["measurements"] if item["part"] == "decoding"]
    assert len(rates) == 1 + 3 * 2  # the bandwidth; models times rows
    assert all(values["decode_tokens_per_second"] > 0 for values in rates[1:])
    assert "NUTS, 2 benchmarks x 2 chains" in checked
    assert "greedy answers of SmolLM2-135M-Instruct, float32: not checked" in ran.stdout


def test_a_part_that_breaks_off_or_is_cut_leaves_a_whole_file(tmp_path, monkeypatch, capsys):
    out = tmp_path / "found.json"
    monkeypatch.setattr(command, "SHARES", {"nothing": 1.0})
    assert run(monkeypatch, "--minutes", "1", "--json", str(out)) == 1
    assert "FAILED: nothing" in capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report["parts"]["nothing"].startswith("broke off: ModuleNotFoundError: No module named")

    monkeypatch.setattr(command, "SHARES", {"parity": 1.0})
    assert run(monkeypatch, "--minutes", "0.001", "--json", str(out)) == 0
    assert json.loads(out.read_text())["parts"] == {"parity": "cut at the end of its time"}


def test_a_check_that_fails_is_a_fault() -> None:
    item = {"part": "parity", "name": "logits", "values": {"largest_error": 2.0}, "says": ""}
    found = [item | {"passed": passed} for passed in (True, None, False)]
    assert command.faults(found, {"parity": "whole", "peer": "cut at the end"}) == ["logits"]
    lines = [line.split() for line in tables(found).splitlines()]
    assert lines[1:] == [["logits", "ok", "2"], ["logits", "WRONG", "2"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--minutes", "0"], "--minutes is 0.0; give a positive number"),
        (["--minutes", "nan"], "--minutes is nan"),
        (["--json", "/nowhere/at/all.json"], "name a file in a folder that can be written"),
        (["--json", "."], "--json is ."),
    ],
)
def test_bad_input_is_said(arguments, says, monkeypatch, capsys) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("free", "says"),
    [
        (10_000, "its weights take 0.0 GB as bfloat16 and 0.0 GB of the device are free; 28 such"),
        (310_000, "not loaded: 0.00039 GB needed, 0.00031 free; 1 row would fit"),
    ],
)
def test_what_does_not_fit_is_said_before_it_is_loaded(free, says, monkeypatch) -> None:
    monkeypatch.setattr(decoding, "free_memory", lambda device: free)
    monkeypatch.setattr(decoding, "random_weights", lambda *_: pytest.fail("loaded"))
    first = next(one for one in decoding.measure(Clock(60), small=True) if one.says)
    assert says in first.says
