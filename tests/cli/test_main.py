"""The command line as a whole: quick help, and exit statuses that mean one thing each."""

import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from msjax.cli import COMMANDS, main, overview
from msjax.cli.card import Card
from msjax.cli.output import OutputFile, OutputFolder, Seed, check_options
from msjax.cli.reproduce import Reproduce
from msjax.cli.run import Run
from msjax.cli.train_adapt import TrainAdapt
from msjax.cli.verify import Verify
from msjax.errors import InputError

HEAVY = ("jax", "flax", "numpyro", "transformers", "matplotlib", "arviz_stats", "scipy", "numpy")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, msjax.cli\n"
        f"heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_fits_a_screen_and_names_every_command(capsys) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30 and max(map(len, lines)) <= 100
    assert all(any(line.startswith(f"  {name} ") for line in lines) for name in COMMANDS)


def test_no_command_shows_the_help_and_is_status_2(capsys) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.strip() == overview()


def test_version_is_the_installed_one(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"msjax {version('msjax')}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Example: msjax {command}" in printed
    assert "--json" in printed or command == "serve"  # which has no result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["crad", "pilot.jsonl"], "did you mean card?"),
        (["xyzzy"], "see `msjax --help`"),
        (["generat", "out.jsonl"], "did you mean run?"),
        (["train", "everything"], "did you mean train adapt or train priors?"),
        (["fit", "absent.jsonl"], "absent.jsonl: no such file"),
        (["report", "absent"], "no such file; run `msjax reproduce`"),
        (["verify", "--section", "Z9"], "Z9"),
        (["run", "out.jsonl", "--benchmarks", "soms"], "'soms' is unknown"),
        (["run", "out.jsonl", "--rule", "markovscale"], "needs --pilot FILE"),
        (
            ["run", "out.jsonl", "--rule", "markovscale", "--posterior", "absent.nc"],
            "absent.nc",
        ),
        (["run", "out.jsonl", "--model", "absent"], "absent"),
        (["run", "out.jsonl", "--questions", "0"], "questions = 0"),
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


@pytest.mark.parametrize(
    ("arguments", "one", "other"),
    [
        ("check runs.jsonl --json runs.jsonl", "RUNS", "--json"),
        ("card other.jsonl runs.jsonl --html folder/../runs.jsonl", "RUNS", "--html"),
        ("replay link.jsonl --csv runs.jsonl", "POOLS", "--csv"),
        ("card runs.jsonl --html new --json new", "--html", "--json"),
        ("generate runs.jsonl --json runs.jsonl", "OUT", "--json"),
        ("generate runs.jsonl --pilot runs.jsonl", "OUT", "--pilot"),
        ("generate runs.jsonl --posterior runs.jsonl", "OUT", "--posterior"),
        ("generate new --benchmarks runs.jsonl --json runs.jsonl", "--benchmarks", "--json"),
        ("predict fit a --features runs.jsonl --out runs.jsonl", "--features", "--out"),
    ],
)
def test_outputs_replace_neither_inputs_nor_each_other(
    arguments, one, other, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("runs.jsonl").write_text("as it was")
    Path("link.jsonl").symlink_to("runs.jsonl")
    assert main(arguments.split()) == 2
    assert f"{one} and {other} are both {tmp_path.resolve()}" in capsys.readouterr().err
    assert Path("runs.jsonl").read_text() == "as it was"
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "link.jsonl", "runs.jsonl"}


@pytest.mark.parametrize(
    "arguments", ["card CIRCLE", "fit RUNS --out CIRCLE", "card RUNS --html CIRCLE"]
)
def test_a_link_that_leads_back_to_itself_is_named(arguments, tmp_path, capsys) -> None:
    circle, runs = tmp_path / "circle.jsonl", tmp_path / "runs.csv"
    circle.symlink_to(circle)
    runs.write_text("question,round,correct\na,0,1\n")
    given = arguments.replace("CIRCLE", str(circle)).replace("RUNS", str(runs))
    assert main(given.split()) == 2
    assert "circle.jsonl" in capsys.readouterr().err
    assert circle.is_symlink()


@pytest.mark.parametrize(
    "arguments",
    [
        "check runs --json FOLDER",
        "card runs --html FOLDER",
        "replay runs --csv FOLDER",
        "replay runs --latex FILE/table.tex",
        "generate FOLDER",
        "fit runs --out FOLDER",
        "fit runs --figures FILE",
        "predict features runs --out FOLDER",
        "verify --report FILE/deep/report.html",
        "figures --out FILE",
        "sensitivity --p0 .5 --p-ic .3 --p-ci .1 --out FILE",
        "reproduce --out FILE",
        "weights --out FILE/model",
        "adapt FILE",
        "report FILE",
    ],
)
def test_outputs_that_cannot_be_made_are_refused_at_once(
    arguments, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FOLDER").mkdir()
    Path("FILE").touch()
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert any(f" is {name}" in error and "; name a" in error for name in ("FOLDER", "FILE"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FILE", "FOLDER"]


def test_outputs_may_be_new_or_there_and_inputs_may_repeat(tmp_path) -> None:
    @dataclass
    class Command:
        runs: tuple[Path, ...]
        out: OutputFile
        figures: OutputFolder | None = None
        json: OutputFile | None = None
        seed: Seed = 2**32 - 1

    (tmp_path / "old").touch()
    runs = (tmp_path / "runs", tmp_path / "runs")
    check_options(Command(runs, tmp_path / "old", tmp_path, tmp_path / "new" / "folder" / "file"))
    with pytest.raises(InputError, match="--figures and --out|--out and --figures"):
        check_options(Command(runs, tmp_path / "new", tmp_path / "new"))


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
@pytest.mark.parametrize("command", ["verify", "reproduce", "predict fit a --features b --out c"])
def test_seeds_that_jax_would_cut_are_refused(command, seed, capsys) -> None:
    assert main([*command.split(), "--seed", seed]) == 2
    assert f"--seed is {seed}; give a seed from 0 to 4294967295" in capsys.readouterr().err


class _Interrupted:
    """Ctrl-C while its destructor runs, where Python drops exceptions."""

    def __del__(self) -> None:
        raise KeyboardInterrupt


def _drop_an_interrupt(command) -> int:
    _Interrupted()
    for _ in range(1000):
        time.sleep(0.01)
    return 0


def _drop_an_interrupt_last(command) -> int:
    _Interrupted()
    return 0


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("run", [_drop_an_interrupt, _drop_an_interrupt_last])
def test_an_interrupt_that_python_drops_still_ends_the_command(run, monkeypatch) -> None:
    hook = sys.unraisablehook
    monkeypatch.setattr(Verify, "run", run)
    assert main(["verify"]) == 130
    assert sys.unraisablehook is hook


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        (Run, ["run", "out"], "goes on from what is on disk"),
        (TrainAdapt, ["adapt", "out"], "goes on from what is on disk"),
        (Reproduce, ["reproduce"], "goes on from what is on disk"),
        (Card, ["card", "runs"], "starts from the beginning"),
        (Verify, ["verify"], "starts from the beginning"),
    ],
)
def test_an_interrupted_command_says_whether_it_resumes(
    command, arguments, says, monkeypatch, tmp_path, capsys
) -> None:
    def interrupted(self) -> int:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "run", interrupted)
    assert main(arguments) == 130
    assert capsys.readouterr().err == f"msjax: interrupted; the same command {says}\n"
