"""Texts of unknown origin do no harm where they are written."""

import csv
import re

import pytest

from msjax._io import write_csv
from msjax.report.figures import style
from msjax.texts import csv_cell, figure_text, file_names, latex_text, markdown_cell, visible

NASTY = "R&D 100% #1 \\input{/etc/passwd} $x^2$ {~_|<>[]"


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert visible("a\x1b[2Jb\x07\x9b1m\u202e\ud800") == r"a\x1b[2Jb\x07\x9b1m\u202e\ud800"
    assert visible("naïve 解\tone\ntwo") == "naïve 解\tone\ntwo"


def test_latex_prints_every_sign_and_runs_no_command() -> None:
    written = latex_text(NASTY + "\n[1ex]")
    signs = r"\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar)\{\}"
    bare = re.sub(rf"{signs}|\\[{{}}$&#%_]|\{{\[\}}|\{{\]\}}", "", written)
    assert not set(bare) & set("\\{}$&#%_^~<>|[]\n")
    assert latex_text("GSM8K") == "GSM8K"


def test_a_spreadsheet_takes_no_text_for_a_formula(tmp_path) -> None:
    hidden = ("\t=1", " =1", "\n=1", "\ufeff=1", "\u200b+1")
    for text in ("=1+1", "+cmd", "-cmd|' /C calc'!A0", "@SUM(1)", "\uff1d1", *hidden):
        assert csv_cell(text) == f"'{text}"
    for harmless in ("-1", "+2.5e3", "a=b", "", 3, None):
        assert csv_cell(harmless) == harmless
    write_csv(tmp_path / "t.csv", [["=name"], ["=HYPERLINK(1)"]])
    written = (tmp_path / "t.csv").read_text().splitlines()
    assert list(csv.reader(written)) == [["'=name"], ["'=HYPERLINK(1)"]]


def test_markdown_keeps_its_columns_and_holds_no_html() -> None:
    assert markdown_cell("a|b\n<img src=x>\\") == r"a\|b &lt;img src=x>" + "\\\\"


def test_no_two_names_share_a_file_and_none_leaves_its_folder() -> None:
    names = [
        "a/b",
        "a:b",
        "A_b",
        "v1.2",
        "v1.3",
        "../../etc/passwd",
        "",
        ".",
        "x" * 300,
        "caf\u00e9",
    ]
    found = file_names([*names, "caf\u00e9", "cafe\u0301", file_names(names)["a/b"]])
    stems = [stem.casefold() for stem in found.values()]
    assert len(set(stems)) == len(found) == len(names) + 2
    assert all(re.fullmatch(r"[\w-]{1,60}", stem) for stem in found.values())
    assert file_names(["arithmetic-easy"]) == {"arithmetic-easy": "arithmetic-easy"}


@pytest.mark.parametrize("name", ["cost in $", "$x^2$ and $\\frac{$", "\x1b[31m 解 \\$"])
def test_names_are_no_formulas_in_figures(name, tmp_path) -> None:
    from matplotlib.cbook import is_math_text

    with style.panels(1) as (figure, (axis,)):
        axis.set_title(figure_text(name))
        style.save(figure, tmp_path / "t", [{"name": name}], name)
    assert (tmp_path / "t.png").stat().st_size > 1000
    assert not is_math_text(figure_text(name))
