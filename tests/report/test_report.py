"""The report of a reproduction: it holds the card, agrees with it, and shows what does not fit."""

import dataclasses
import json
import re
from functools import cache
from html import unescape
from pathlib import Path
from tempfile import mkdtemp

import pytest
from report.test_claims_report import RESULTS
from report.test_page import DEMO, HOSTILE, table

from msjax.cli import main
from msjax.data.runs import Runs
from msjax.data.store import read_runs
from msjax.decision.card import decide
from msjax.report import run

POINT = {"mean": 0.4, "median": 0.4, "low": 0.3, "high": 0.5}
WORTH, PRICE = 2.0, 1e-4


def check(name: str, contradicted: bool | None) -> dict:
    return {"name": name, "contradicted": contradicted, "sentence": f"{name} was looked at"}


@cache
def made() -> Path:
    """A folder as `msjax reproduce` leaves it, and its report; texts in it hold tags."""
    folder = Path(mkdtemp())
    kept = [
        one.model_copy(update={"benchmark": HOSTILE, "question_id": f"{i}{HOSTILE}"})
        for i, one in enumerate(read_runs(DEMO)[:12])
    ]
    for name in ("pilot.jsonl", "fresh.jsonl", "fresh.fixed-3.jsonl"):
        lines = (one.model_dump_json() for one in kept)
        (folder / name).write_text("\n".join(lines) + "\n")
    fit = {
        "worth": WORTH,
        "price": PRICE,
        "benchmarks": {
            HOSTILE: {
                "model": "pooled",
                "questions": 12,
                "observed": {"accuracy": [0.5, 0.25]},
                "warnings": ["CONTRADICTED: one chain does not describe these runs"],
                "bounds": {"limit": dict.fromkeys(("lower", "neutral", "upper"), POINT)},
                "quantities": {
                    "p0": POINT,
                    "p_ic": POINT,
                    "p_ci": None,
                    "pi": None,
                    "accuracy": [POINT] * 4,
                    "probability_refining_helps": 0.25,
                    "optimal_rounds": POINT,
                },
                "checks": [
                    check("rounds", True),
                    check("questions", False),
                    check("order 2", None),
                ],
                "ppc": [{"surprising": True, "sentence": "accuracy per round: unlike"}],
            }
        },
    }
    ends = {"estimate": 0.1, "low": 0.0, "high": 0.2}
    compared = {"benchmark": HOSTILE, "k": 1, "accuracy": 0.5, "fixed_accuracy": 0.4}
    compared |= {"tokens": 100.0, "fixed_tokens": None, "accuracy_gain": ends, "tokens_saved": ends}
    plan = {"optimal_rounds": 2, "net_value": [0.5, 0.6, 0.7]}
    origin = {"model": HOSTILE, "recorded": True, "questions": 12, "fresh_questions": 12}
    files = {
        "provenance.json": origin | {"rounds": 3, "seed": 0, "versions": {"msjax": "0"}},
        "verify.json": [dataclasses.asdict(one) | {"setting": [0.5]} for one in RESULTS],
        "fit.json": fit,
        "rule.json": {"plans": {HOSTILE: plan}, "comparison": [compared]},
    }
    for name, found in files.items():
        text = json.dumps(found).replace("-Infinity", "null").replace("Infinity", "null")
        (folder / name).write_text(text.replace("NaN", "null"))
    run.write(folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def page() -> str:
    return made().read_text()


def test_says_what_the_card_says(page) -> None:
    pilot = made().parent / "pilot.jsonl"
    runs = Runs.from_records(read_runs(pilot))
    (one,) = decide(runs, worth=WORTH, price=PRICE, files=[str(pilot)]).to_dict()["benchmarks"]
    text = unescape(page)
    assert set(table(page)) == {policy["name"] for policy in one["policies"]}
    assert text.count(one["headline"]) == 2  # in the contents and above its table
    for said in (*one["statements"].values(), *(x["command"] for x in one["commands"])):
        assert said in text
    plans = page.partition('aria-label="Plans"')[2].partition("</table>")[0]
    assert one["use"]["name"] in unescape(plans) and "revise 2 times" in plans


def test_what_is_contradicted_looks_different_by_more_than_colour(page) -> None:
    rows = re.findall(r"<tr[^>]*>.*?</tr>", page.partition('id="model"')[2], flags=re.DOTALL)
    words = ("✗</span> contradicted", "✓</span> not contradicted", "–</span> not checked")
    found = [next(row for row in rows if word in row) for word in words]
    assert [row.startswith('<tr class="bad">') for row in found] == [True, False, False]
    assert "it does not fit" in page.partition("</nav>")[0]
    assert "<details open><summary>1 of 1" in page


def test_texts_stay_texts_and_nothing_is_asked_of_a_network(page) -> None:
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(src|href)\s*=\s*['\"](?!data:|#)|url\(", page)
    assert page.count("data:image/png;base64,") == 2


def test_a_folder_without_results_is_named(tmp_path, capsys) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "provenance.json: no such file" in capsys.readouterr().err
    for file in made().parent.glob("*.json*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name, text, says in (("rule.json", "{}", "'plans'"), ("verify.json", "[]", "no claims")):
        (tmp_path / name).write_text(text)
        assert main(["report", str(tmp_path)]) == 2
        assert says in capsys.readouterr().err
