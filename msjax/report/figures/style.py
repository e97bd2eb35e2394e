"""One look for every figure, and how a figure is saved.

A method keeps its colour and marker in every figure (`method`), a figure is no wider than a page
(`WIDEST`), and so no letter is smaller than `SMALLEST` where it is printed.
"""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msjax._io import replacing, write_csv
from msjax.texts import figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OBSERVED, MODEL, RULE = "#000000", "#0072b2", "#d55e00"  # Okabe-Ito: safe for colour blindness
COLOURS = (MODEL, RULE, "#009e73", "#cc79a7", "#56b4e9", "#e69f00", OBSERVED, "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
"""What tells series apart where colours cannot: in grey, and for who does not see them."""


WIDEST, SMALLEST = 7.2, 7.0
"""Width of a page, in inches, and the least size of letters on it, in points."""
_NARROWEST = 2.1
"""Inches that a panel needs."""

METHODS: dict[str, tuple[str, str]] = {
    # rule, as in the registry: colour, marker
    "fixed": (OBSERVED, "o"),
    "fixed+majority": ("#009e73", "s"),
    "fixed+best_score": (RULE, "^"),
    "fixed+most_probable": ("#cc79a7", "D"),
    "until_repeated": ("#56b4e9", "v"),
    "until_accepted": ("#56b4e9", "p"),
    "markovscale": (MODEL, "P"),
    "belief": ("#e69f00", "X"),
    "belief+most_probable": ("#e69f00", "d"),
    "optscale": (MODEL, "h"),
    "optscale,trained": ("#7f3c8d", "*"),
    "optpo": (MODEL, "H"),
    "vote_margin": (RULE, "<"),
    "asc": ("#56b4e9", ">"),
    "esc": ("#cc79a7", "<"),
    "dsc": ("#e69f00", "8"),
    "consol": ("#e69f00", ">"),
    "certificate": ("#cc79a7", "h"),
    "oracle": ("#595959", "*"),
    "programme": ("#595959", "8"),
}
"""One look for a method in all figures."""

BOUNDS = {
    # bound: marker, colour, what is refined
    "upper": ("^", "#009e73", "upper: refine only what gains"),
    "neutral": ("o", MODEL, "neutral: refine all"),
    "lower": ("v", "#cc79a7", "lower: refine only what loses"),
}

SETTINGS: Any = {
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "figure.labelsize": 8,
    "figure.titlesize": 9,
    "font.size": 8,
    "grid.alpha": 0.3,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.title_fontsize": 7,
    "pdf.fonttype": 42,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}


def look() -> AbstractContextManager[None]:
    """`SETTINGS` over matplotlib's defaults, whatever style the reader or a library has set."""
    from matplotlib.style import context

    return context(SETTINGS, after_reset=True)


@contextmanager
def panels(
    count: int,
    width: float = 2.9,
    height: float = 3.1,
    ratios: Sequence[float] | None = None,
    share_x: bool = False,
    share_y: bool = True,
    columns: int | None = None,
) -> Iterator[tuple[Figure, Sequence[Any]]]:
    """`count` panels in the common style, side by side, in rows where a page has no room for that.

    Panels are `width` by `height` inches, their widths in the given ratios, or as much narrower as
    the page asks for; `columns` of them stand side by side, as many as have room if None.
    """
    # Imported late, and without pyplot, which would choose how a notebook shows its own figures.
    from matplotlib.figure import Figure

    if columns is None:
        most = max(1, int((WIDEST - 0.6) / _NARROWEST))
        # Rows of two rather than one panel left over.
        columns = count if ratios or count <= most else 2 if count == most + 1 else most
    rows = -(-count // columns)
    with look():
        figure = Figure(figsize=(min(0.6 + width * columns, WIDEST), height * rows))
        axes = figure.subplots(
            rows, columns, squeeze=False, sharex=share_x, sharey=share_y, width_ratios=ratios
        ).ravel()
        for axis in axes[count:]:
            axis.remove()
        yield figure, list(axes[:count])


def series(number: int) -> dict[str, Any]:
    """Colour and marker of the series with this number, where it is no method; 72 differ."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def method(name: str) -> dict[str, Any]:
    """Colour and marker of a method, the same in every figure.

    A variant, such as "markovscale,risk=averse", has the colour of its method. What is not in
    `METHODS` gets a look of its own from its name.
    """
    if name in METHODS:
        colour, marker = METHODS[name]
        return {"color": colour, "marker": marker}
    number = zlib.crc32(name.encode())
    base = METHODS.get(name.partition(",")[0])
    colour = base[0] if base else COLOURS[number % len(COLOURS)]
    return {"color": colour, "marker": MARKERS[number // len(COLOURS) % len(MARKERS)]}


def formula(text: str) -> str:
    """A harmless text in which p0, p_ic and p_ci are set as formulas."""
    return re.sub(r"\bp_?(0|ic|ci)\b", r"$p_{\1}$", figure_text(text))


def label_points(axis: Axes, points: Sequence[tuple[float, float, float, float, str, str]]) -> None:
    """Write a name beside every point, where it covers the fewest other names and intervals.

    Args:
        axis: with its scales and limits as they are going to be.
        points: x, y, the ends of its interval, name, colour.
    """
    figure = axis.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # only then is the place of the axis known
    pixel = figure.dpi / 72
    frame = axis.get_window_extent()
    # Boxes as left, bottom, right, top: the intervals with their markers, then the names.
    taken = []
    for x, _, low, high, _, _ in points:
        (across, bottom), (_, top) = axis.transData.transform([(x, low), (x, high)])
        half = 4 * pixel
        taken.append((across - half, bottom, across + half, top))
    texts = [
        axis.annotate(
            name, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=7, color=colour
        )
        for x, y, _, _, name, colour in points
    ]
    names: dict[int, tuple[float, ...]] = {}
    # The first to be placed does not know where the others will be, so each has a second turn.
    for number in [*range(len(points))] * 2:
        (x, y, low, high, _, _), text = points[number], texts[number]
        across, middle = axis.transData.transform((x, y))
        size = text.get_window_extent()
        (_, bottom), (_, top) = axis.transData.transform([(x, low), (x, high)])
        ways = [
            (left, middle + up * size.height)
            for up in (-0.5, 0.5, -1.5, 1.5, -2.5, 2.5, -3.5, 3.5, -4.5)
            for left in (across + 6 * pixel, across - 6 * pixel - size.width)
        ]
        ways += [
            (across - size.width / 2, top + 2),
            (across - size.width / 2, bottom - size.height - 2),
        ]
        others = [*taken, *(box for other, box in names.items() if other != number)]

        def covered(
            way: tuple[float, float], size: Any = size, others: list[tuple[float, ...]] = others
        ) -> int:
            box = (way[0], way[1], way[0] + size.width, way[1] + size.height)
            outside = (frame.x0, frame.y0, frame.x1, frame.y1)
            beyond = size.width * size.height - _overlap(box, outside)
            # Whole pixels: of places that cover nothing the first is taken, not the luckiest sum.
            return round(5 * beyond + sum(_overlap(box, other) for other in others))

        left, below = min(ways, key=covered)
        text.set_position(((left - across) / pixel, (below - middle) / pixel))
        names[number] = (left, below, left + size.width, below + size.height)


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(up, 0.0)


def save(
    figure: Figure,
    stem: Path,
    rows: Sequence[dict[str, Any]],
    source: str | None = None,
    note: str | None = None,
) -> Path:
    """Write `stem`.png, .pdf, and the numbers behind the figure as .csv; returns the PNG's path.

    A note on how to read it and the source are said in small print below the panels. Files depend
    on nothing but the figure.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    png = stem.with_suffix(".png")
    with look():
        place_small_print(figure, source, note)
        write_figure(figure, png)
        # The second file has the same layout, which takes longer than drawing.
        figure.set_layout_engine("none")
        write_figure(figure, stem.with_suffix(".pdf"))
    header = list(rows[0])
    write_csv(stem.with_suffix(".csv"), [header, *([row[x] for x in header] for row in rows)])
    return png


def place_small_print(figure: Figure, source: str | None, note: str | None = None) -> None:
    """Write the note and the source below the panels, before names are placed inside them."""
    said = [note] if note else []
    if source is not None:
        said.append(f"Source: {figure_text(source)}")
    if said:
        text = "\n".join(said)
        figure.supxlabel(text, x=0.01, ha="left", fontsize=SMALLEST, color="#555555")


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as .png or .pdf, whole or not at all, without the time and the software."""
    stamp = "CreationDate" if path.suffix == ".pdf" else "Software"
    with replacing(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands there
        figure.savefig(part, metadata={stamp: None})
