"""The report of `msjax verify`: one page that says everything, whatever the numbers are."""

import math
import re
from contextlib import contextmanager
from html import unescape

import numpy as np
import pytest

from msjax.errors import InputError
from msjax.report.figures import claims_report, style
from msjax.verify.bench import ClaimResult


def result(name: str, residuals: tuple[float, ...] = (0.5, -1.0), **changes) -> ClaimResult:
    """A claim that stands, with any field changed."""
    fields = {
        "id": name,
        "section": name.split(".")[0],
        "statement": "|p_k - pi| <= |r|^k & so on",
        "reference": "docs/theory.md A4",
        "holds": True,
        "ok": True,
        "exact_ok": True,
        "exact_error": 2.5e-16,
        "exact_values": 12,
        "tolerance": 1e-11,
        "monte_carlo_ok": True,
        "closed_form": 0.25,
        "estimate": 0.249,
        "standard_error": 0.001,
        "z": -1.0,
        "threshold": 5.5,
        "setting": (0.5, 0.3, 0.1),
        "settings": 3,
        "comparisons": len(residuals),
        "residuals": residuals,
    }
    return ClaimResult(**fields | changes)


RESULTS = (
    result("A1.transient", tuple(np.linspace(-2, 2, 40))),
    result("A2.rates_decide", (-80.0, math.inf), holds=False, z=-math.inf, exact_error=math.inf),
    result("A2.bound", (-math.inf, -300.0, 0.0)),
    result("A10.frozen", (0.0, 0.0), closed_form=math.nan),
)


@pytest.mark.parametrize("name", ["claims.pdf", "claims", "claims.HTML"])
def test_another_kind_of_file_is_refused_with_the_remedy(name, tmp_path):
    with pytest.raises(InputError, match=rf"{name}; give a file that ends in .html or .md"):
        claims_report.check_path(tmp_path / name)
    with pytest.raises(InputError):
        claims_report.write(RESULTS, 0, 10_000, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_page_stands_alone_and_has_a_row_per_claim(tmp_path):
    path = claims_report.write(RESULTS, 7, 123_456, tmp_path / "new" / "claims.html")
    assert list(path.parent.iterdir()) == [path]
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=\s*['\"](?!data:|#)", page)
    assert page.count("data:image/png;base64,") == 1
    assert "|p<sub>k</sub> − π| ≤ |r|<sup>k</sup> &amp; so on" in page
    text = unescape(page)
    for fact in ("Seed 7, 123,456 paths per setting", "msjax 0", "jax 0", "numpy 2"):
        assert fact in text
    assert "3 of 3 claims hold; 1 of 1 known misconceptions are refuted, as they should be." in text
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall("<tr>.*?</tr>", text)]
    rows = [[re.sub("<[^>]*>", "", cell) for cell in row] for row in rows if row]
    assert [row[0] for row in rows] == [r.id for r in RESULTS]
    assert rows[0][1:] == [
        "✓ holds",
        "|pk − π| ≤ |r|k & so on",
        "docs/theory.md A4",
        "2.5e-16",
        "0.250000",
        "0.249000",
        "1.0e-03",
        "-1.00",
    ]
    assert rows[1][1] == "✓ refuted, as it should be"
    sections = ["A1", "A2", "A10"]
    assert re.findall("<h2[^>]*>(.*?)</h2>", page) == ["Residuals", *sections]
    assert re.findall('href="#claims-(.*?)"', page) == sections
    assert "Failed" not in page


def test_markdown_has_the_same_cells_and_the_plot_beside_it(tmp_path):
    path = claims_report.write(RESULTS, 7, 123_456, tmp_path / "claims.md")
    text = path.read_text(encoding="utf-8")
    [plot] = re.findall(r"!\[.*\]\((.*)\)", text)
    assert (tmp_path / plot).read_bytes().startswith(b"\x89PNG")
    rows = [line for line in text.splitlines() if line.startswith("| A")]
    assert [len(re.split(r"(?<!\\)\|", row)) - 2 for row in rows] == [9] * len(RESULTS)
    assert r"\|p\_k - pi\| \<= \|r\|^k & so on" in rows[0]
    assert "| refuted, as it should be |" in rows[1]


def test_failures_are_named_with_their_setting(tmp_path):
    broken = result("A1.transient", (math.inf, 900.0), ok=False, monte_carlo_ok=False)
    page = claims_report.write([broken], 0, 10_000, tmp_path / "claims.html").read_text()
    assert "0 of 1 claims" in page
    assert '<p class="warning">Failed: A1.transient</p>' in page
    assert '<tr class="bad">' in page and "✗</span> FAILS at (0.5, 0.3, 0.1)" in page
    text = claims_report.write([broken], 0, 10_000, tmp_path / "claims.md").read_text()
    assert "**Failed: A1.transient**" in text


@pytest.fixture
def axes(monkeypatch):
    """The panels of a plot drawn: claims in two columns, the quantile plot, the key."""
    kept, panels = [], style.panels

    @contextmanager
    def kept_panels(*arguments, **settings):
        with panels(*arguments, **settings) as (figure, axes):
            kept.append(figure)
            yield figure, axes

    monkeypatch.setattr(style, "panels", kept_panels)
    claims_report.draw(RESULTS)
    [figure] = kept
    return figure.axes


def test_every_residual_is_drawn_on_its_row_and_infinite_ones_at_the_edge(axes):
    rows = axes[0]
    right = rows.get_xlim()[1]
    points = np.concatenate(
        [line.get_xydata() for line in rows.lines if line.get_marker() in (".", "<", ">")]
    )
    assert np.all((points[:, 0] < right) & (points[:, 0] > -right))
    for i, claim in enumerate(RESULTS):
        mine = np.sort(points[np.abs(points[:, 1] - i) < 0.4, 0])
        edge = 900.0  # three times the largest finite residual
        np.testing.assert_allclose(mine, np.sort(np.clip(claim.residuals, -edge, edge)))
    thresholds = [line.get_xdata()[0] for line in rows.lines if line.get_linestyle() == "--"]
    assert thresholds == [-5.5, 5.5]
    labels = [tick.get_text() for tick in rows.get_yticklabels()]
    assert labels[:3] == ["A1.transient", "A2.rates_decide (refuted)", "A2.bound (one-sided)"]
    key = " ".join(text.get_text() for text in axes[3].texts)
    assert "2 claims of equality" in key and "1 one-sided" in key and "1 known misc" in key


def test_the_quantile_plot_leaves_out_errors_bounds_and_certainties(axes):
    drawn = axes[2].lines[0].get_ydata()
    np.testing.assert_allclose(drawn, np.linspace(-2, 2, 40))


def test_a_plot_without_a_single_random_residual_is_possible():
    assert claims_report.draw([result("A10.frozen", (0.0,))]).startswith(b"\x89PNG")


def test_the_plot_is_the_same_to_the_byte():
    assert claims_report.draw(RESULTS) == claims_report.draw(RESULTS)
