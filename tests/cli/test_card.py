"""`msjax card`: what it prints, writes, returns and refuses."""

import json
import re
import shlex
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from msjax.cli import main
from msjax.data.store import read_runs
from msjax.testing.server import Reply, completion

PILOTS = Path(__file__).parents[1] / "data" / "pilots"
PILOT = str(PILOTS / "full60.jsonl")


def test_it_is_as_wide_as_the_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["card", PILOT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if "  msjax " not in line) <= 60
    (head,) = (line for line in lines if line.split()[:1] == ["policy"])
    assert head.split()[:3] == ["policy", "right", "accuracy"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl"),
        ([], "RUNS is empty"),
        ([PILOT, "--demo"], "--demo"),
        ([PILOT, "--margin", "2"], "margin"),
        ([PILOT, "--no-worse", "0"], "--no-worse is 0.0; give a probability in (0, 1)"),
        ([PILOT, "--no-worse", "0.1", "--sure", "1"], "--sure is 1.0"),
        ([PILOT, "--sure", "0.1"], "--sure is given without --no-worse"),
        ([PILOT, "--worth", "0"], "worth"),
        ([PILOT, "--price", "0.1"], "worth is missing"),
        ([PILOT, "--dollars-per-million-tokens", "2"], "--worth is missing"),
        ([PILOT, "--price", "1", "--dollars-per-million-tokens", "2"], "one of them"),
        ([PILOT, "--baseline", "7 rounds"], "baseline"),
        ([PILOT, "--cluster", "topic"], "topic"),
        ([PILOT, PILOT], "occurs"),
        ([str(PILOTS / "inconsistent.jsonl")], "same answer"),
    ],
)
def test_refuses(arguments, names, capsys):
    assert main(["card", *arguments]) == 2
    assert names in capsys.readouterr().err


def test_prints_and_writes_the_same(tmp_path, capsys):
    page, numbers = tmp_path / "card.html", tmp_path / "card.json"
    arguments = [PILOT, "--worth", "0.5", "--dollars-per-million-tokens", "20"]
    assert main(["card", *arguments, "--html", str(page), "--json", str(numbers)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    found = json.loads(numbers.read_text())
    assert found["price"] == pytest.approx(2e-5) and found["worth"] == 0.5
    (one,) = found["benchmarks"]
    assert one["decided_by"] == "net value" and "20 per million" in one["statements"]["price"]
    html = page.read_text()
    assert "http" not in html and "<script" not in html
    for sentence in (one["headline"], *one["statements"].values()):
        assert sentence in printed and sentence in unescape(html)
    again = tmp_path / "again.json"
    assert main(["card", *arguments, "--json", str(again)]) == 0
    assert again.read_bytes() == numbers.read_bytes()


def test_fails_unless_the_word_holds():
    assert main(["card", PILOT, "--fail-unless", "better"]) == 0
    ragged = str(PILOTS / "ragged60.jsonl")
    assert main(["card", ragged, "--fail-unless", "better"]) == 1
    assert main(["card", ragged, "--fail-unless", "no-worse"]) == 1


def test_a_demonstration_needs_nothing(capsys):
    assert main(["card", "--demo"]) == 0
    assert "Keep the first answer: it is better than 3 rounds." in capsys.readouterr().out


def test_says_which_policy_is_guaranteed_to_be_no_worse(tmp_path, capsys):
    numbers, page = tmp_path / "card.json", tmp_path / "card.html"
    arguments = ["--no-worse", "0.1", "--json", str(numbers), "--html", str(page)]
    assert main(["card", "--demo", *arguments]) == 0
    printed = capsys.readouterr().out
    found = json.loads(numbers.read_text())["guarantees"]
    assert set(found) == {f"arithmetic-{level}" for level in ("easy", "medium", "hard")}
    for name, one in found.items():
        assert one["delta"] == pytest.approx(0.1 / 3)  # one sentence of three
        chosen = [test for test in one["tested"] if test["policy"] == one["policy"]]
        assert chosen[0]["p_value"] <= one["delta"]
        assert f"guarantee, {name}: " in printed
    said = [line.partition(": ")[2] for line in printed.splitlines() if "guarantee, " in line]
    assert len(said) == 3 and all(sentence in unescape(page.read_text()) for sentence in said)


@pytest.mark.slow
def test_the_commands_that_are_advised_can_be_followed(tmp_path, serve, monkeypatch, capsys):
    """A model that is right at its second answer, behind a server, on questions from a file."""
    monkeypatch.chdir(tmp_path)
    lines = [
        json.dumps({"question": f"What is {i} + {i}?", "answer": str(2 * i)}) for i in range(60)
    ]
    Path("sums.jsonl").write_text("\n".join(lines))

    def answers(_: int, request: dict) -> Reply:
        asked = [m["content"] for m in request["messages"] if m["role"] == "user"]
        number = int(re.search(r"What is (\d+)", " ".join(asked)).group(1))
        right = len(asked) > 1 or number % 5 == 0
        return Reply(completion(f"The answer is {2 * number + (not right)}."))

    server = serve(answers)
    where = ["--server", server.url, "--model", "small-model", "--max-new-tokens", "20"]
    pilot = ["run", "pilot.jsonl", "--benchmarks", "sums.jsonl", "--template", "reconsider"]
    assert main([*pilot, *where, "--questions", "25", "--rounds", "2"]) == 0
    capsys.readouterr()
    assert main(["card", "pilot.jsonl"]) == 0
    printed = capsys.readouterr().out
    (apply,) = re.findall(r"apply it: +(msjax run .*)", printed)
    assert "--benchmarks sums.jsonl --server URL --model small-model --template reconsider" in apply
    words = shlex.split(apply.replace("URL", server.url))[1:]
    assert main([*words, "--start", "25", "--questions", "10"]) == 0
    live = read_runs(Path("live.jsonl"))
    assert all(run.right for run in live) and {run.revisions for run in live} == {1}

    first = sorted(read_runs(Path("pilot.jsonl")), key=lambda run: run.question_id)[:12]
    Path("few.jsonl").write_text("".join(run.model_dump_json() + "\n" for run in first))
    capsys.readouterr()
    assert main(["card", "few.jsonl"]) == 0
    printed = capsys.readouterr().out
    (more,) = re.findall(r"record more: +(msjax run .*)", printed)
    words = shlex.split(more.replace("URL", server.url))[1:]
    assert main(words) == 0
    (then,) = re.findall(r"then: +(msjax card .*)", printed)
    assert main(shlex.split(then)[1:]) == 0
    assert "better than the first answer" in capsys.readouterr().out


def test_a_log_of_ones_own_is_advised_to_be_served(tmp_path, capsys):
    rows = ["question_id,round,correct"]
    rows += [f"q{i},{k},{int(i % 8 > 0 if k else i % 4 == 0)}" for i in range(40) for k in range(3)]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(rows))
    assert main(["card", str(log)]) == 0
    printed = capsys.readouterr().out
    assert "msjax serve --upstream URL --rounds 1 --rule fixed" in printed
    assert "msjax run" not in printed


@pytest.mark.slow
def test_the_page_does_without_jax(tmp_path):
    """Which takes as long to import as everything else together."""
    program = (
        "import sys; from msjax.cli import main; main(sys.argv[1:]); sys.exit('jax' in sys.modules)"
    )
    page = ["card", "--demo", "--no-worse", "0.1", "--worth", "1", "--price", "1e-4"]
    subprocess.run([sys.executable, "-c", program, *page], check=True, capture_output=True)
