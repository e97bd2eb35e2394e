"""HTML pages in a real browser: nothing on its console, nothing asked of a network."""

import pytest
from browser import measured, needs_chromium, opened
from decision.test_card import runs
from report.test_claims_report import RESULTS
from report.test_page import hostile_card

from msjax.decision.card import decide
from msjax.report import card
from msjax.report.figures import claims_report

pytestmark = [pytest.mark.browser, needs_chromium]


def test_a_bad_page_is_noticed(tmp_path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('x')</script>")
    console, asked = opened(bad, tmp_path)
    assert len(console) == 1 and asked == ["http://127.0.0.1:9/x.png"]


def test_the_card_opens_without_errors_or_requests(tmp_path) -> None:
    found = decide(runs(["0111"] * 20 + ["1011"] * 12 + ["0000"] * 8))
    path = card.write(found, tmp_path / "card.html")
    assert opened(path, tmp_path) == ([], [])
    assert (tmp_path / "page.png").stat().st_size > 10_000


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_card_fits_and_its_questions_open(width, tmp_path) -> None:
    found = measured(card.write(hostile_card(), tmp_path / "card.html"), width, tmp_path)
    assert found["seen"] <= width and found["wide"] <= width and found["wide_open"] <= width
    assert found["opened"] == found["details"] > 20
    assert found["before"] == 0 and found["shown"] > 15


def test_a_page_that_is_too_wide_is_noticed(tmp_path) -> None:
    wide = tmp_path / "wide.html"
    wide.write_text("<!doctype html><p style='width: 500px'>x</p>")
    assert measured(wide, 390, tmp_path)["wide"] > 390


def test_the_claims_open_without_errors_or_requests(tmp_path) -> None:
    path = claims_report.write(RESULTS, 0, 10_000, tmp_path / "claims.html")
    assert opened(path, tmp_path) == ([], [])
