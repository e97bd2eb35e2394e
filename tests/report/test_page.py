"""The page of a card: everything that the card says, and nothing that a text could smuggle in."""

import re
from functools import cache
from html import unescape
from pathlib import Path

import pytest

import msjax
from msjax.data.importers.reading import read
from msjax.data.runs import Runs
from msjax.data.store import read_runs
from msjax.decision.card import decide
from msjax.report.card import write

PILOTS = Path(__file__).parents[1] / "data" / "pilots"
DEMO = Path(msjax.__file__).parent / "recorded" / "pilot.jsonl"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@cache
def card_of(path: Path):
    return decide(read(path))


def page_of(card, folder: Path) -> str:
    return write(card, folder / "card.html").read_text()


@cache
def hostile_card():
    """The first benchmark of the demonstration, with tags in every text it holds."""
    names = {"benchmark": HOSTILE, "model": HOSTILE, "question": HOSTILE, "gold": HOSTILE}
    return decide(
        Runs.from_records(
            run.model_copy(
                update=names
                | {
                    "question_id": f"{i}{HOSTILE}",
                    "answers": tuple(f"{right}{HOSTILE}" for right in run.correct),
                }
            )
            for i, run in enumerate(read_runs(DEMO)[:40])
        )
    )


def table(html: str) -> dict[str, list[str]]:
    """The cells of every policy, by its name."""
    rows = re.findall(
        r"<tr[^>]*><td>(?:<span.*?</span>)?<bdi>(.*?)</bdi>(.*?)</tr>", html, flags=re.DOTALL
    )
    return {unescape(name): re.findall("<td>(.*?)</td>", unescape(rest)) for name, rest in rows}


def number(interval, form: str) -> str:
    parts = [format(interval[name], form) for name in ("estimate", "low", "high")]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]"


@pytest.mark.parametrize("path", [DEMO, PILOTS / "ragged60.jsonl"], ids=["demo", "ragged60"])
def test_holds_every_number_of_every_policy(path, tmp_path) -> None:
    card = card_of(path)
    sections = page_of(card, tmp_path).split("<section")[1:]
    found = card.to_dict()
    for one, section in zip(found["benchmarks"], sections, strict=False):
        rows = table(section)
        assert set(rows) == {policy["name"] for policy in one["policies"]}
        for policy in one["policies"]:
            row = rows[policy["name"]]
            assert number(policy["accuracy"], ".2f") in row
            if policy["right"] is not None:
                before = "" if policy["name"] == "first" else f"{policy['first_right']:.0f} -> "
                assert f"{before}{policy['right']} of {policy['questions']}" in row
            if policy["name"] != "first":
                assert number(policy["gain"], "+.2f") in row
            if policy["name"] != one["baseline"]:
                assert number(policy["against"], "+.2f") in row
            for name in ("uncached", "saving"):
                known = (
                    policy[name]["low"] is not None and policy[name]["low"] < policy[name]["high"]
                )
                alone = f"{policy[name]['estimate']:,.0f}"
                assert (number(policy[name], ",.0f") if known else alone) in row
            if policy["tokens_per_right"] is not None:
                assert f"{policy['tokens_per_right']:,.0f}" in row


def test_says_what_to_do_first_and_how(tmp_path) -> None:
    (one,) = card_of(PILOTS / "ragged60.jsonl").to_dict()["benchmarks"]
    html = unescape(page_of(card_of(PILOTS / "ragged60.jsonl"), tmp_path))
    order = [one["headline"], *(x["command"] for x in one["commands"]), "<table", "<svg"]
    order += one["statements"].values()
    places = [html.index(part) for part in order]
    assert places == sorted(places)


def test_draws_the_counts_of_every_round(tmp_path) -> None:
    card = card_of(PILOTS / "full60.jsonl")
    (one,) = card.to_dict()["benchmarks"]
    picture = page_of(card, tmp_path).split("<svg")[2]
    counts = re.findall(r'class="mark"[^>]*>(\d+)<', picture)
    wanted = [str(x[name]) for x in one["rounds_changed"] for name in ("repaired", "broken")]
    assert counts == wanted and len(counts) == 6
    heights = [float(x) for x in re.findall(r'height="([\d.]+)"', picture)]
    scale = heights[0] / int(counts[0])
    assert heights == pytest.approx([scale * int(x) for x in counts], abs=0.1)


def test_questions_that_changed_can_be_looked_up(tmp_path) -> None:
    card = card_of(DEMO)
    html = unescape(page_of(card, tmp_path))
    for one in card.to_dict()["benchmarks"]:
        changed = one["questions_changed"]
        for k in one["rounds_changed"]:
            for what in ("repaired", "broken"):
                assert k[what] == sum(k["round"] in x[what] for x in changed)
        for x in changed:
            assert f"<bdi>{x['question_id']}</bdi>" in html and f">{x['question']}</div>" in html
            assert all(answer is None or f">{answer}</td>" in html for answer in x["answers"])


def test_several_benchmarks_have_contents_and_stand_side_by_side(tmp_path) -> None:
    card = card_of(DEMO)
    html = unescape(page_of(card, tmp_path))
    for i, one in enumerate(card.to_dict()["benchmarks"], start=1):
        assert f'<a href="#runs-{i}"><bdi>{one["title"]}</bdi></a>' in html
        assert f'<section id="runs-{i}">' in html
    together = html.partition('<section id="together">')[2]
    assert together.count('class="bar"') == 2 * len(card.pooled) == 6
    for one in card.pooled:
        assert f"{one.name}: 3 rounds, last answer" in together
        assert f"{one.pooled.estimate:+.2f} [{one.pooled.low:+.2f}" in together


def test_texts_stay_texts(tmp_path) -> None:
    card = hostile_card()
    assert card.to_dict()["benchmarks"][0]["questions_changed"]
    for html in (page_of(card, tmp_path), card._repr_html_()):
        assert "<script" not in html and "<img" not in html
        assert "&lt;script&gt;alert(1)" in html


def test_asks_nothing_of_a_network(tmp_path) -> None:
    html = page_of(card_of(DEMO), tmp_path)
    assert not re.search(r"https?:|//|url\(|@import|src=|<link", html)
    assert set(re.findall(r'href="(.)', html)) == {"#"}


def test_notebooks_show_what_the_terminal_says() -> None:
    card = card_of(PILOTS / "full60.jsonl")
    shown = unescape(card._repr_html_())
    (one,) = card.to_dict()["benchmarks"]
    for said in (one["headline"], *one["statements"].values(), *one["shown"]):
        assert said in shown
    assert all(x["command"] in shown for x in one["commands"])
