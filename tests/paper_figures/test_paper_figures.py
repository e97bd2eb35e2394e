"""The papers' figures: what they hold, that they repeat byte by byte, and what is refused."""

import csv
import dataclasses
import json
import math

import matplotlib
import numpy as np
import pytest
from scipy import stats

from msjax.report.figures import gallery, style, table
from msjax.report.figures.sources import MissingSourceError
from msjax.texts import latex_text
from msjax.theory.voting import error_probability, votes_distribution
from msjax.verify.bench import ClaimResult
from paper_figures import published
from paper_figures.__main__ import main
from paper_figures.catalogue import CATALOGUE
from paper_figures.optscale_cells import OptscaleCells
from paper_figures.shrink import Shrink
from paper_figures.sources import PaperSources


def drawn(name, folder, **where):
    """One figure, and the rows of its CSV."""
    (artefact,) = gallery.draw_all(gallery.select(CATALOGUE, [name]), PaperSources(**where), folder)
    with (folder / f"{name}.csv").open() as file:
        return artefact, list(csv.DictReader(file))


def test_transcribed_numbers():
    cells = {cell.key: cell for cell in published.table()}
    assert len(cells) == 8 * 4 * 5
    assert cells["BoN", 8, "MATH500"][3:] == (94.8, 22135)
    assert cells["MR-Thinking", 64, "AIME24"][3:] == (70.0, 625850)
    assert cells["OptScale-t", 64, "AMC23"][3:] == (95.0, 119282)
    curves = {cell.key: cell for cell in published.curves()}
    assert len(curves) == 3 * 7 * 5
    assert curves["MR-Thinking", 2, "MATH500"][3:] == (92.0, 5417)


def test_differences_see_a_wrong_number():
    cells, curves = published.table(), {"curves": published.curves()}
    found = published.differences(cells, curves)
    # Three methods have curves: 4 budgets, 5 datasets, accuracy and tokens of each.
    assert len(found) == 3 * 4 * 5 * 2 and all(x.agrees for x in found)
    wrong = [cells[0]._replace(accuracy=cells[0].accuracy + 0.1), *cells[1:]]
    assert [x.agrees for x in published.differences(wrong, curves)].count(False) == 1


def test_a_figure_repeats_byte_by_byte_whatever_is_set_with_embedded_fonts(tmp_path):
    first, _ = drawn("optpo_margin", tmp_path / "a")
    # Libraries and readers set styles of their own.
    with matplotlib.rc_context(
        rc={"font.family": "serif", "lines.linewidth": 4, "axes.grid": False}
    ):
        again, _ = drawn("optpo_margin", tmp_path / "b")
    assert first.files == again.files and set(first.files) == {
        f"optpo_margin{suffix}" for suffix in (".png", ".pdf", ".csv")
    }
    pdf = (tmp_path / "a" / "optpo_margin.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf


def test_a_table_is_text_whose_best_cells_are_bold(tmp_path):
    table, rows = drawn("optscale_table", tmp_path)
    assert set(table.files) == {f"optscale_table{suffix}" for suffix in (".md", ".tex", ".csv")}
    texts = [(tmp_path / f"optscale_table{suffix}").read_text() for suffix in (".md", ".tex")]
    # At N = 8 OptScale0, OptScale-t and best of N share the most right answers of MATH500.
    best = next(row for row in rows if row["method"] == "BoN, N = 8")["MATH500 (n = 500)"]
    for text, safe, bold in zip(
        texts, (str, latex_text), ("**{}**", r"\textbf{{{}}}"), strict=True
    ):
        assert all(safe(cell) in text for row in rows for cell in row.values())
        assert text.count(bold.format(safe(best))) == 3
    assert texts[0].count("|") == (len(rows) + 2) * 12
    assert texts[1].count(r"\\") == len(rows) + 1


def texts_of(figure):
    """Every text of a figure that is seen."""
    seen = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axis in figure.axes:
        seen += axis.texts
        if legend := axis.get_legend():
            seen += legend.get_texts()
        if axis.axison:
            seen += [axis.title, axis.xaxis.label, axis.yaxis.label]
            for line in (axis.xaxis, axis.yaxis):
                low, high = sorted(line.get_view_interval())
                ticks = line.get_major_ticks()
                seen += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
    return [text for text in seen if text.get_visible() and text.get_text().strip()]


def check_texts(names, folder, monkeypatch):
    """Letters of at least 7 points where the figure is as wide as a page, and all inside."""
    figures = []
    monkeypatch.setattr(style, "write_figure", lambda figure, path: figures.append(figure))
    for name in names:
        figures.clear()
        (chosen,) = gallery.select(CATALOGUE, [name])
        chosen.make(PaperSources(), folder / name)
        if not figures:
            assert chosen.suffixes == table.SUFFIXES
            continue
        figure = figures[0]
        with style.look():
            figure.set_layout_engine("constrained")
            figure.draw_without_rendering()
        scale = min(1.0, 7.2 / figure.get_figwidth())
        frame, found = figure.bbox.padded(1), texts_of(figure)
        assert len(found) > 10
        for text in found:
            box = text.get_window_extent()
            assert text.get_fontsize() * scale >= 7, (name, text)
            assert frame.containsx(box.x0) and frame.containsx(box.x1), (name, text)
            assert frame.containsy(box.y0) and frame.containsy(box.y1), (name, text)


def test_letters_are_large_and_inside(tmp_path, monkeypatch):
    check_texts(["optpo_margin"], tmp_path, monkeypatch)
    monkeypatch.setitem(style.SETTINGS, "xtick.labelsize", 6)
    with pytest.raises(AssertionError, match="optpo_margin"):
        check_texts(["optpo_margin"], tmp_path, monkeypatch)


@pytest.mark.slow
def test_letters_of_all_figures_are_large_and_inside(tmp_path, monkeypatch):
    check_texts([figure.name for figure in CATALOGUE], tmp_path, monkeypatch)


def test_a_method_looks_the_same_everywhere_and_no_two_look_alike():
    looks = [tuple(style.method(name).values()) for name in style.METHODS]
    assert len(set(looks)) == len(looks)
    assert style.method("markovscale,risk=averse")["color"] == style.METHODS["markovscale"][0]
    assert style.method("mine:Rule") == style.method("mine:Rule")


@pytest.mark.realdata
def test_every_published_number_is_that_of_the_published_files(real_data):
    theirs, files = PaperSources(optscale=real_data / "optscale").optscale()
    for cells, found in (
        (published.table(), {"table": theirs}),
        (theirs, files),
        (published.curves(), files),
    ):
        compared = published.differences(cells, found)
        assert len(compared) == 2 * len(cells) and all(x.agrees for x in compared)


@pytest.mark.slow
def test_samples_needed_against_another_library(tmp_path):
    _, rows = drawn("optscale_n_star", tmp_path)
    for row in rows[:: len(rows) // 20]:
        mu, sigma, s_min = (float(row[name]) for name in ("mu", "sigma", "s_min"))
        distribution = stats.truncnorm(-mu / sigma, (1 - mu) / sigma, mu, sigma)
        needed = math.log(1 - float(row["confidence"])) / distribution.logcdf(s_min)
        if row["samples"] != "unbounded" and needed < 1e6:
            assert abs(int(row["samples"]) - needed) <= 1 + 1e-4 * needed


@pytest.mark.slow
def test_vote_figures_against_other_formulas(tmp_path):
    _, rows = drawn("optpo_rollouts", tmp_path)
    fixed = {int(row["votes"]): row for row in rows if row["rule"] == "fixed number"}
    for votes in (5, 64):
        p = float(fixed[votes]["p_right"])
        distribution = votes_distribution(np.array([p, 1 - p]), votes + 1, votes)
        right = 1 - float(error_probability(distribution))
        assert float(fixed[votes]["accuracy"]) == pytest.approx(right, abs=1e-6)
    _, rows = drawn("optpo_margin", tmp_path)
    for row in rows:
        p, margin = float(row["p_right"]), int(row["margin"])
        exact = math.log(float(row["bayes_factor"])) / math.log(p / (1 - p))
        assert margin == max(1, math.ceil(exact - 1e-6))


def claim(name, residuals, **changes):
    """A claim as `msjax verify --json` writes it."""
    empty = {str: "", bool: True, float: 1.0, int: 1, tuple: [0.5]}
    values = {field.name: empty.get(field.type, []) for field in dataclasses.fields(ClaimResult)}
    return values | {"id": name, "threshold": 5.0, "residuals": residuals} | changes


@pytest.mark.slow
def test_own_results_shrink_without_changing_the_figure(tmp_path):
    full, small = tmp_path / "full", tmp_path / "small"
    full.mkdir()
    claims = [claim("A1.x", [0.511, -1.02, None]), claim("A2.y", [40.0], holds=False)]
    (full / "verify.json").write_text(json.dumps(claims))
    Shrink(full, small).run()
    before, rows = drawn("claims_residuals", tmp_path / "a", results=full)
    after, shrunk = drawn(
        "claims_residuals", tmp_path / "b", results=small / "simulate" / "results"
    )
    assert [row["claim"] for row in rows] == ["A1.x"] * 3 + ["A2.y"]
    assert rows[3]["verdict"] == "refuted" and float(rows[0]["z"]) == 0.511
    assert [row["verdict"] for row in rows] == [row["verdict"] for row in shrunk]
    assert float(shrunk[0]["z"]) == 0.51 and before.sources != after.sources
    theirs, ours = PaperSources(full), PaperSources()
    assert "user's" in theirs.origin("ours") and "ours" in ours.origin("x")


def test_a_folder_without_the_published_files_is_named(tmp_path):
    with pytest.raises(MissingSourceError, match="results_table.csv"):
        PaperSources(optscale=tmp_path).optscale()


@pytest.mark.realdata
def test_every_published_cell_is_found_in_the_curves(real_data):
    for method, agree, missing, points, tokens, _ in OptscaleCells(real_data / "optscale").rows():
        assert (agree, missing) == ("20 of 20", "0"), method
        assert float(points) <= 0.05 and tokens == "0"


def test_the_command_lists_every_artefact(tmp_path, capsys):
    listed = tmp_path / "figures.json"
    names = ["optscale_summary", "auditor_table"]
    assert main([*names, "--out", str(tmp_path / "out"), "--json", str(listed)]) == 0
    found = json.loads(listed.read_text())
    assert [x["name"] for x in found["artefacts"]] == names
    for artefact in found["artefacts"]:
        assert artefact["status"] == "drawn"
        for name in artefact["files"]:
            assert (tmp_path / "out" / name).stat().st_size > 0
    assert list(found["artefacts"][1]["sources"]) == ["audit.json"]
    assert any("MarkovScale" in what for what in found["not_reproducible"])
    assert "2 drawn" in capsys.readouterr().out
    assert main(["optscale_tabel"]) == 2
    assert "optscale_table" in capsys.readouterr().err


@pytest.mark.study
def test_everything_is_drawn_and_repeats(tmp_path):
    first, again = (gallery.draw_all(CATALOGUE, PaperSources(), tmp_path / name) for name in "ab")
    assert {x.status for x in first} == {"drawn"}
    assert [x.files for x in first] == [x.files for x in again]
