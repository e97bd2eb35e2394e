"""`msjax run` with a real (tiny) decoder: pilot, posterior, rule, and what kills survive."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msjax.cli import main
from msjax.cli.run import full_file
from msjax.data.store import read_runs

MODEL = Path(__file__).parents[1] / "fixtures" / "tiny_llama" / "tied"
COMMON = ["--model", str(MODEL), "--max-new-tokens", "6", "--temperature", "1.0"]


def generate(out: Path, *options: str) -> int:
    return main(["run", str(out), *COMMON, *options])


@pytest.fixture(scope="module")
def pilot(tmp_path_factory) -> Path:
    """Six recorded questions of one benchmark, with two revisions each."""
    out = tmp_path_factory.mktemp("pilot") / "pilot.jsonl"
    options = ["--benchmarks", "arithmetic-hard", "--questions", "6", "--rounds", "2"]
    assert generate(out, *options, "--json", str(out.with_suffix(".json"))) == 0
    return out


@pytest.mark.slow
def test_samples_instead_of_rounds(tmp_path, capsys) -> None:
    out = tmp_path / "samples.jsonl"
    options = ["--benchmarks", "arithmetic-hard", "--questions", "5", "--samples", "4"]
    assert generate(out, *options, "--json", str(tmp_path / "s.json")) == 0
    runs = read_runs(out)
    assert [(run.protocol, len(run.answers)) for run in runs] == [("parallel", 4)] * 5
    assert json.loads((tmp_path / "s.json").read_text())["samples"] == 4
    before = out.read_bytes()
    assert generate(out, *options) == 0 and out.read_bytes() == before
    capsys.readouterr()
    assert generate(out, *options[:-1], "3") == 2
    assert "rule='samples: 4', but this run has rule='samples: 3'" in capsys.readouterr().err
    for wrong in (["--samples", "0"], ["--samples", "4", "--rule", "markovscale"]):
        assert generate(tmp_path / "no.jsonl", *wrong) == 2
        assert "samples" in capsys.readouterr().err
    cold = ["run", str(tmp_path / "no.jsonl"), "--temperature", "0", "--samples", "2"]
    assert main(cold) == 2 and "all samples equal" in capsys.readouterr().err
    assert main(["replay", str(out), "--rules", "fixed+majority", "--orders", "5"]) == 0
    assert "fixed+majority" in capsys.readouterr().out


@pytest.mark.slow
def test_a_pilot_for_all_strategies_shares_first_answers_and_goes_on_after_a_break(
    tmp_path, capsys
) -> None:
    out = tmp_path / "p.jsonl"
    options = ["--benchmarks", "arithmetic-easy", "--questions", "8", "--rounds", "1"]
    options += ["--judge", "self", "--pilot-for", "strategies"]
    assert generate(out, *options) == 0
    files = [out, full_file(out, "samples: 4"), full_file(out, "longer: 12")]
    rounds, samples, longer = ({x.question_id: x for x in read_runs(file)} for file in files)
    for name, run in rounds.items():
        protocols = [x[name].protocol for x in (rounds, samples, longer)]
        assert protocols == ["sequential", "parallel", "longer"]
        assert samples[name].ended(1).tokens == run.ended(1).tokens
        assert samples[name].completions[0] == run.completions[0]
        assert samples[name].verdicts[0] == run.verdicts[0]
        assert longer[name].completions[0].startswith(run.completions[0])
        assert (longer[name].completions[0] == run.completions[0]) or run.finish[0] == "length"
        assert len(samples[name].answers) == 4 and len(longer[name].answers) == 1
    shown = capsys.readouterr().out
    assert f"msjax card {' '.join(map(str, files))}" in shown

    def said() -> list[dict[str, tuple]]:
        return [
            {x.question_id: (x.completions, x.verdicts) for x in read_runs(file)} for file in files
        ]

    whole = said()
    for file, kept in zip(files, (8, 3, 0), strict=True):
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:kept]))
    assert generate(out, *options) == 0
    assert said() == whole
    assert main(["card", *map(str, files)]) == 0
    assert "think longer" in capsys.readouterr().out
    assert main(["card", str(files[2])]) == 2
    assert "only answers with a larger limit" in capsys.readouterr().err
    assert main(["fit", str(files[2])]) == 2
    assert "protocol is 'longer'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--rule", "until_repeated"], "leave --rule, --shadow and --pilot out"),
        (["--longer", "6"], "give more than the 6 tokens"),
        (["--temperature", "0"], "makes all samples equal"),
        (["--rounds", "0"], "give at least 1 to compare revisions"),
        (["--samples", "1"], "give at least 2 to compare votes"),
    ],
)
def test_bad_options_of_a_pilot_for_strategies_are_named(tmp_path, capsys, options, says) -> None:
    out = tmp_path / "p.jsonl"
    assert generate(out, "--pilot-for", "strategies", *options) == 2
    assert says in capsys.readouterr().err and not out.exists()


def test_a_rule_for_samples_learns_from_samples(tmp_path, capsys) -> None:
    common = ["--benchmarks", "arithmetic-hard", "--questions", "5"]
    pilot, out = tmp_path / "pilot.jsonl", tmp_path / "samples.jsonl"
    assert generate(pilot, *common, "--samples", "4") == 0
    fresh = [*common, "--start", "5", "--samples", "4", "--pilot", str(pilot)]
    assert generate(out, *fresh, "--rule", "esc", "--json", str(tmp_path / "r.json")) == 0
    stopped, full = read_runs(out), read_runs(tmp_path / "samples.samples-4.jsonl")
    for short, long in zip(stopped, full, strict=True):
        assert short.protocol == long.protocol == "parallel" and len(long.answers) == 4
        assert short.completions == long.completions[: len(short.completions)]
    result = json.loads((tmp_path / "r.json").read_text())
    assert [one["k"] for one in result["comparison"]] == [0, 1, 3]
    watched = tmp_path / "watched.jsonl"
    assert generate(watched, *fresh, "--shadow", "vote_margin", "--score", "confidence") == 0
    assert "vote_margin would have done this" in capsys.readouterr().out
    for rule, complaint in {
        "markovscale": "is for rounds",
        "belief": "is for rounds",
        "dsc": "can only be replayed",
    }.items():
        assert generate(tmp_path / "no.jsonl", *fresh, "--rule", rule) == 2
        assert complaint in capsys.readouterr().err
    assert generate(tmp_path / "no.jsonl", *fresh[:-3], "3", *fresh[-2:], "--rule", "esc") == 2
    assert "has 4 to 4 samples, samples is 3" in capsys.readouterr().err
    rounds = [*common, "--rounds", "3", "--pilot", str(pilot)]
    for given, complaint in (
        (rounds, "holds samples of arithmetic-hard"),
        ([*rounds, "--rule", "esc"], "'esc' is for samples, and this run has rounds"),
    ):
        assert generate(tmp_path / "no.jsonl", *given) == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "no.jsonl").exists()


def test_from_pilot_to_rule(pilot, tmp_path, capsys) -> None:
    summary = json.loads(pilot.with_suffix(".json").read_text())["summary"][0]
    runs = read_runs(pilot)
    assert summary["questions"] == len(runs) == 6
    assert summary["tokens"]["completion"] == sum(u.completion for r in runs for u in r.tokens)
    # A revision reads what is known from the cache, all but the last token of it.
    for run in runs:
        first, second, _ = run.tokens
        assert first.cached == 0
        assert second.cached == first.prompt + first.completion - 1

    posterior = tmp_path / "posterior.nc"
    assert main(["fit", str(pilot), "--model", "pooled", "--out", str(posterior)]) == 0
    capsys.readouterr()
    fresh = tmp_path / "fresh.jsonl"
    rule = [
        "--rule",
        "markovscale",
        "--posterior",
        str(posterior),
        "--json",
        str(tmp_path / "r.json"),
    ]
    options = ["--benchmarks", "arithmetic-hard", "--start", "6", "--questions", "6"]
    assert generate(fresh, *options, "--rounds", "2", *rule) == 0
    printed = capsys.readouterr().out
    assert "the pilot does not identify" in printed  # nothing this model says is right
    result = json.loads((tmp_path / "r.json").read_text())
    stop = result["plans"]["arithmetic-hard"]["optimal_rounds"]
    stopped, full = read_runs(fresh), read_runs(full_file(fresh, "fixed: 2"))
    for short, long in zip(stopped, full, strict=True):
        assert short.revisions == stop
        assert short.completions == long.completions[: stop + 1]
    assert [c["k"] for c in result["comparison"]] == [0, 1, 2]
    assert result["comparison"][stop]["tokens_saved"]["estimate"] == 0

    assert generate(fresh, *options, "--rounds", "3", *rule) == 2
    assert "has fewer rounds than rounds = 3" in capsys.readouterr().err


def test_other_settings_do_not_mix_into_a_file(pilot, capsys) -> None:
    options = ["--benchmarks", "arithmetic-hard", "--questions", "6", "--rounds", "2"]
    assert generate(pilot, *options, "--seed", "1") == 2
    assert "recorded with seed=0, but this run has seed=1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--temperature nan", "temperature is nan"),
        ("--top-p 1.5", "top_p is 1.5"),
        ("--batch-size 0", "batch_size is 0"),
        ("--max-new-tokens 0", "max_new_tokens is 0"),
        ("--timeout -1", "timeout is -1"),
        ("--server http://127.0.0.1:9/v1 --model m", "--benchmarks is missing; name what"),
        ("--worth nan", "--worth is nan"),
        ("--worth 1 --price -1", "--price is -1"),
        ("--rule bogus", "rules: 'bogus' is unknown; known are fixed"),
        ("--shadow bogus", "rules: 'bogus' is unknown; known are"),
        ("--score bogus", "certainty, or reward"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(options, message, tmp_path, capsys) -> None:
    out = tmp_path / "runs.jsonl"
    assert main(["run", str(out), "--model", "absent", *options.split()]) == 2
    said = capsys.readouterr()
    assert message in said.err and not said.out and not out.exists()


def test_a_posterior_of_another_benchmark_is_refused(pilot, tmp_path, capsys) -> None:
    posterior = tmp_path / "posterior.nc"
    assert main(["fit", str(pilot), "--model", "pooled", "--out", str(posterior)]) == 0
    options = ["--benchmarks", "arithmetic-easy", "--rule", "markovscale"]
    assert generate(tmp_path / "x.jsonl", *options, "--posterior", str(posterior)) == 2
    assert "knows arithmetic-hard but not arithmetic-easy" in capsys.readouterr().err


MANY = ["--benchmarks", "arithmetic-hard", "--questions", "40", "--rounds", "1"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[dict]:
    """What a run of many questions leaves behind."""
    out = tmp_path_factory.mktemp("whole") / "whole.jsonl"
    assert generate(out, *MANY, "--batch-size", "4") == 0
    return by_question(out)


def by_question(out: Path) -> list[dict]:
    """The lines of a run, in the order of the questions, scores to six digits.

    Who shares a batch changes the order in which questions end, and the last digits of floats.
    """
    runs = [json.loads(line) for line in out.read_text().splitlines()]
    for run in runs:
        run["scores"] = [pytest.approx(score, rel=1e-5) for score in run["scores"]]
    return sorted(runs, key=lambda run: run["question_id"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kill", "status"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.study), (signal.SIGKILL, -9)],
)
def test_a_killed_run_resumes_to_the_uninterrupted_one(
    kill, status, tmp_path, undisturbed, interruptible
) -> None:
    broken = tmp_path / "broken.jsonl"
    command = [sys.executable, "-m", "msjax", "run", str(broken), *COMMON, *MANY]
    process = subprocess.Popen([*command, "--batch-size", "4"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (broken.exists() and broken.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(kill)
    assert process.wait() == status
    kept = broken.read_bytes().count(b"\n")
    assert 0 < kept < 40
    assert generate(broken, *MANY, "--batch-size", "4") == 0
    assert by_question(broken) == undisturbed


def test_a_run_without_room_for_its_file_resumes_once_there_is(
    tmp_path, undisturbed, capsys
) -> None:
    broken = tmp_path / "broken.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        status = generate(broken, *MANY, "--batch-size", "4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2
    said = capsys.readouterr().err.splitlines()[-1]
    kept = broken.read_bytes().count(b"\n")
    assert f"broken.jsonl: cannot be written (File too large); {kept} lines are" in said
    assert 0 < kept < 40 and broken.stat().st_size == 20_000
    assert generate(broken, *MANY, "--batch-size", "4") == 0
    assert by_question(broken) == undisturbed


@pytest.mark.slow
def test_a_published_file_with_a_question_longer_than_the_context(tmp_path, capsys) -> None:
    lines = [{"question": "What is 2 + 2?", "answer": "#### 4"}]
    lines += [{"question": "What is " + "2 + " * 300 + "2?", "answer": "#### 602"}]
    file = tmp_path / "gsm8k.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "runs.jsonl"
    options = ["--benchmarks", str(file), "--rounds", "1"]
    assert generate(out, *options) == 0
    said = capsys.readouterr().err
    assert "longer than the model's context from round 0 on" in said
    assert "gsm8k: 2 questions, accuracy" in said  # nobody watches a bar here
    short, long = sorted(read_runs(out), key=lambda run: run.question_id)
    assert all(usage.prompt > 0 for usage in short.tokens)
    assert long.answers == (None, None) and not any(usage.prompt for usage in long.tokens)
