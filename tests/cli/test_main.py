"""The command line as a whole: quick help, and exit statuses that mean one thing each."""

import subprocess
import sys

import pytest

from msjax.cli import main

HEAVY = ("jax", "flax", "numpyro", "transformers", "matplotlib", "arviz_stats", "scipy", "numpy")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, msjax.cli\n"
        f"heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


COMMANDS = [
    "adapt",
    "card",
    "figures",
    "predict",
    "weights",
    "generate",
    "fit",
    "check",
    "plan",
    "verify",
    "sensitivity",
    "report",
    "reproduce",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Example: msjax {command}" in printed
    assert "--json" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "absent.jsonl"], "absent.jsonl: no such file"),
        (["report", "absent"], "no such file; run `msjax reproduce`"),
        (["verify", "--section", "Z9"], "Z9"),
        (["generate", "out.jsonl", "--benchmarks", "soms"], "'soms' is unknown"),
        (["generate", "out.jsonl", "--rule", "posterior"], "needs --posterior FILE"),
        (["generate", "out.jsonl", "--rule", "posterior", "--posterior", "absent.nc"], "absent.nc"),
        (["generate", "out.jsonl", "--model", "absent"], "absent"),
        (["generate", "out.jsonl", "--questions", "0"], "questions = 0"),
        (["sensitivity", "--p0", "1.5", "--p-ic", ".3", "--p-ci", ".1"], "p0 is 1.5"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("msjax: error:")
    assert message in error


def test_unknown_options_are_status_2(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["verify", "--chians", "7"])
    assert stopped.value.code == 2
    assert "--chains" in capsys.readouterr().err
