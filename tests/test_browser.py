"""HTML pages in a real browser: silent, alone, and readable by all in every width."""

import pytest
from browser import audited, needs_chromium, opened
from decision.test_card import runs
from report.test_claims_report import RESULTS
from report.test_page import hostile_card
from report.test_report import made

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


@pytest.mark.slow
def test_the_claims_open_without_errors_or_requests(tmp_path) -> None:
    path = claims_report.write(RESULTS, 0, 10_000, tmp_path / "claims.html")
    assert opened(path, tmp_path) == ([], [])


BAD = """<!doctype html><style>
  body { background: #fff; color: #000; }
  @media (prefers-color-scheme: dark) { p { color: #333; background: #222; } }
</style><h1>A</h1><h3>B</h3><p>dim in the dark</p><p style="color: #999; background: #fff">dim</p>
<div style="width: 500px">long</div><img src="data:,"><svg></svg><i id=a></i><i id=a></i>
<a href="#b">nowhere</a><table><tr><th></th></tr></table>"""


def test_every_page_can_be_read_by_all(tmp_path) -> None:
    (tmp_path / "bad.html").write_text(BAD)
    pages = {
        "card": card.write(hostile_card(), tmp_path / "card.html"),
        "report": made(),
        "verify": claims_report.write(RESULTS, 0, 10_000, tmp_path / "verify.html"),
        "bad": tmp_path / "bad.html",
    }
    found = audited(pages, tmp_path)
    assert len(found) == 4 * len(pages)
    for name, one in found.items():
        if not name.startswith("bad"):
            assert one["faults"] == [], name
            assert one["texts"] > 50 and one["tables"] > 2
    assert found["card 390 dark"]["details"] > 20

    narrow, dark = found["bad 390 light"]["faults"], found["bad 390 dark"]["faults"]
    assert {
        "wider than its frame: 508",
        "contrast 2.85: dim",
        "no language or title",
        "img without alt",
        "svg without label",
        "heading 1 then 3",
        "th without scope or text",
        "table that cannot be scrolled by key",
        "one id twice",
        "link to nothing: nowhere",
    } <= set(narrow)
    assert [x for x in dark if x.startswith("contrast")] == [
        "contrast 1.26: dim in the dark",
        "contrast 2.85: dim",
    ]
    assert not any(x.startswith("wider") for x in found["bad 768 light"]["faults"])
