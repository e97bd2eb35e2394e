"""Figures of a user's own results: what is skipped, and what is refused."""

import json

import pytest

from msjax.errors import InputError
from msjax.report.figures.catalogue import CATALOGUE
from msjax.report.figures.gallery import draw_all, select, write_manifest
from msjax.report.figures.sources import Sources

AUDIT = {
    "rule": "asc",
    "rates": [0.6, 0.4],
    "budget": 16,
    "error": 0.1,
    "undecided": 0.0,
    "expected_votes": 6.5,
    "p95_votes": 14,
    "equivalent_margin": None,
    "claimed_error": 0.05,
    "anytime_valid": False,
    "null": {"16": 0.2},
}


def test_missing_source_skips_by_name_and_goes_on(tmp_path):
    (tmp_path / "audit.json").write_text(json.dumps([AUDIT]))
    found = draw_all(select(CATALOGUE, ["rules", "auditor_table"]), Sources(tmp_path), tmp_path)
    assert [x.status for x in found] == ["skipped", "drawn"]
    assert "msjax replay" in found[0].reason and not found[0].files
    table = (tmp_path / "auditor_table.csv").read_text().splitlines()
    assert table[0].startswith("rule,") and table[1].startswith("asc,") and table[1].endswith("NO")
    manifest = json.loads(write_manifest(found, tmp_path, "msjax figures").read_text())
    assert manifest["figures"]["rules"]["status"] == "skipped"
    assert set(manifest["versions"]) >= {"msjax", "matplotlib", "python"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [('[{"rule": "asc"}]', "audit.json lacks what this version"), ("[{", "audit.json: not JSON")],
)
def test_results_that_cannot_be_used_are_refused(tmp_path, text, reason):
    (tmp_path / "audit.json").write_text(text)
    (found,) = draw_all(select(CATALOGUE, ["auditor_table"]), Sources(tmp_path), tmp_path)
    assert found.status == "refused" and reason in found.reason and not found.files


def test_unknown_name_gives_near_ones():
    with pytest.raises(InputError, match="auditor_table"):
        select(CATALOGUE, ["auditor_tabel"])
    assert select(CATALOGUE, []) == CATALOGUE


def test_a_name_stands_beside_its_point_where_there_is_room() -> None:
    from msjax.report.figures import style

    points = [(x, y, y - 0.03, y + 0.03, "name", "k") for y in (0.2, 0.5, 0.8) for x in range(5)]
    with style.panels(1, width=6.0) as (figure, (axis,)):
        axis.set(xlim=(-0.5, 5), ylim=(0, 1))
        style.label_points(axis, points)
        height = axis.texts[0].get_window_extent().height * 72 / figure.dpi
        for text in axis.texts:
            across, up = text.get_position()
            assert across == pytest.approx(6) and up == pytest.approx(-height / 2, abs=0.5)
