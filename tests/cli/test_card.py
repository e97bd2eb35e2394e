"""`msjax card`: what it prints, writes, returns and refuses."""

import json
from html import unescape
from pathlib import Path

import pytest

from msjax.cli import main

PILOTS = Path(__file__).parents[1] / "data" / "pilots"
PILOT = str(PILOTS / "full60.jsonl")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl"),
        ([], "RUNS is empty"),
        ([PILOT, "--demo"], "--demo"),
        ([PILOT, "--margin", "2"], "margin"),
        ([PILOT, "--no-worse", "0"], "--no-worse is 0.0; give a number in (0, 1)"),
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
