"""One look for every figure, and how a figure is saved."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msjax._io import replacing, write_csv
from msjax.texts import figure_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OBSERVED, MODEL, RULE = "#000000", "#0072b2", "#d55e00"  # Okabe-Ito: safe for colour blindness
COLOURS = (MODEL, RULE, "#009e73", "#cc79a7", "#56b4e9", "#e69f00", OBSERVED, "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
"""What tells series apart where colours cannot: in grey, and for who does not see them."""

SETTINGS: Any = {
    "axes.grid": True,
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "pdf.fonttype": 42,
}


@contextmanager
def panels(
    count: int,
    width: float = 2.9,
    height: float = 3.1,
    ratios: Sequence[float] | None = None,
    share_y: bool = True,
) -> Iterator[tuple[Figure, Sequence[Any]]]:
    """A row of `count` panels in the common style.

    Panels are `width` by `height` inches on average, their widths in the given ratios.
    """
    # Imported late, and without pyplot, which would choose how a notebook shows its own figures.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(rc=SETTINGS):
        figure = Figure(figsize=(0.6 + width * count, height))
        yield (
            figure,
            figure.subplots(1, count, squeeze=False, sharey=share_y, width_ratios=ratios)[0],
        )


def look(number: int) -> dict[str, Any]:
    """Colour and marker of the series with this number; 72 of them differ."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def save(
    figure: Figure, stem: Path, rows: Sequence[dict[str, Any]], source: str | None = None
) -> Path:
    """Write `stem`.png, .pdf, and the numbers behind the figure as .csv; returns the PNG's path.

    The source is said in small print below the panels. Files depend on nothing but the figure.
    """
    import matplotlib

    stem.parent.mkdir(parents=True, exist_ok=True)
    png = stem.with_suffix(".png")
    with matplotlib.rc_context(rc=SETTINGS):
        if source is not None:
            said = f"Source: {figure_text(source)}"
            figure.supxlabel(said, x=0.01, ha="left", fontsize=6, color="#555555")
        write_figure(figure, png)
        # The second file has the same layout, which takes longer than drawing.
        figure.set_layout_engine("none")
        write_figure(figure, stem.with_suffix(".pdf"))
    header = list(rows[0])
    write_csv(stem.with_suffix(".csv"), [header, *([row[x] for x in header] for row in rows)])
    return png


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as .png or .pdf, whole or not at all, without the time and the software."""
    stamp = "CreationDate" if path.suffix == ".pdf" else "Software"
    with replacing(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands there
        figure.savefig(part, metadata={stamp: None})
