"""`msjax reproduce`: from answers to a page that needs no network.

A folder that was made before, with `--json run.json` in it, is taken instead of a recorded
reproduction if MSJAX_ARTIFACTS names it.
"""

import csv
import json
import os
import re
from pathlib import Path

import pytest
from browser import audited, needs_chromium, opened

from msjax.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A reproduction from recorded answers, and where weights would have been put."""
    out = tmp_path_factory.mktemp("recorded")
    cache = out.with_name("no weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSJAX_CACHE", str(cache))
        arguments = ["reproduce", "--out", str(out), "--recorded", "--small"]
        assert main([*arguments, "--json", str(out / "run.json")]) == 0
    return out, cache


@pytest.fixture(scope="module")
def folder(request):
    """Everything a reproduction leaves behind."""
    if "MSJAX_ARTIFACTS" in os.environ:
        return Path(os.environ["MSJAX_ARTIFACTS"])
    return request.getfixturevalue("recorded")[0]


@pytest.fixture(scope="module")
def provenance(folder):
    """What the folder says of its own origin."""
    return json.loads((folder / "provenance.json").read_text())


def test_every_step_ran_and_left_its_results(folder) -> None:
    steps = json.loads((folder / "run.json").read_text())
    assert list(steps)[-5:] == ["pilot", "verify", "fit", "rule", "report"]
    assert all(step["status"] == 0 for step in steps.values())
    claims = json.loads((folder / "verify.json").read_text())
    assert all(claim["ok"] for claim in claims)
    assert {"id", "closed_form", "estimate", "z", "ok"} <= set(claims[0])


def test_the_page_is_self_contained_and_says_what_it_shows(folder, provenance) -> None:
    page = (folder / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*['\"](?!data:|#)", page)
    assert "url(" not in page
    assert page.count("data:image/png;base64,") == 2
    recorded = "the recorded runs that ship with msjax" in page
    assert recorded == provenance["recorded"]
    fit = json.loads((folder / "fit.json").read_text())
    for name, found in fit["benchmarks"].items():
        assert name in page
        for warning in found["warnings"]:
            assert warning.split(":")[0] in page


def test_the_numbers_behind_the_figures_agree_with_the_results(folder) -> None:
    fit = json.loads((folder / "fit.json").read_text())
    with (folder / "figures" / "accuracy_per_round.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        curve = fit["benchmarks"][row["benchmark"]]["quantities"]["accuracy"]
        known = curve[int(row["k"])]
        assert row["posterior_median"] == ("" if known is None else str(known["median"]))
    rule = json.loads((folder / "rule.json").read_text())
    with (folder / "figures" / "accuracy_tokens.csv").open() as file:
        points = {(row["benchmark"], row["policy"]): row for row in csv.DictReader(file)}
    for c in rule["comparison"]:
        fixed = points[c["benchmark"], f"fixed {c['k']}"]
        assert float(fixed["accuracy"]) == pytest.approx(c["fixed_accuracy"])
        assert float(fixed["tokens"]) == pytest.approx(c["fixed_tokens"])
        assert float(points[c["benchmark"], "rule"]["accuracy"]) == pytest.approx(c["accuracy"])


def test_a_second_report_is_the_same_to_the_byte(folder) -> None:
    names = ["report.html", "figures/accuracy_per_round.png", "figures/accuracy_tokens.csv"]
    before = [(folder / name).read_bytes() for name in names]
    assert main(["report", str(folder)]) == 0
    assert [(folder / name).read_bytes() for name in names] == before


def test_answers_of_another_source_do_not_mix_into_a_folder(folder, provenance, capsys) -> None:
    before = (folder / "pilot.jsonl").read_bytes()
    recorded = provenance["recorded"]
    same, other = (["--recorded"], [])[:: 1 if recorded else -1]
    assert main(["reproduce", "--out", str(folder), "--small", *other]) == 2
    assert f"recorded={recorded}, this one has recorded={not recorded}" in capsys.readouterr().err
    assert main(["reproduce", "--out", str(folder), "--small", *same, "--seed", "1"]) == 2
    assert "seed=0, this one has seed=1" in capsys.readouterr().err
    assert (folder / "pilot.jsonl").read_bytes() == before


@pytest.mark.browser
@needs_chromium
def test_the_page_opens_and_can_be_read_by_all(folder, tmp_path) -> None:
    page = folder / "report.html"
    assert opened(page, tmp_path) == ([], [])
    for found in audited({"report": page}, tmp_path).values():
        assert found["faults"] == [] and found["tables"] > 10


def test_recorded_answers_do_without_the_model(recorded):
    out, cache = recorded
    assert (out / "report.html").exists() and not cache.exists()
