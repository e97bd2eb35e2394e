"""A table as a figure, so that it comes as PDF and PNG like everything else."""

from collections.abc import Sequence
from pathlib import Path

from msjax.report.figures import style
from msjax.texts import figure_text

__all__ = ["draw"]

_CHARACTER, _LINE = 0.075, 0.2
"""Inches per character and per row."""


def draw(
    header: Sequence[str], rows: Sequence[Sequence[str]], stem: Path, source: str, note: str = ""
) -> Path:
    """Columns as wide as their widest cell, the first one flush left; returns the PNG's path."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) + 2 for i in range(len(header))]
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    height = _LINE * (len(lines) + 1 + note.count("\n") + bool(note)) + 0.3
    with style.panels(1, _CHARACTER * ends[-1], height) as (figure, (axis,)):
        axis.axis("off")
        axis.set_xlim(0, ends[-1])
        axis.set_ylim(len(lines) + 0.5 + bool(note) + note.count("\n"), -0.5)
        for number, line in enumerate(lines):
            for i, cell in enumerate(line):
                axis.text(
                    0 if i == 0 else ends[i] - 1,
                    number,
                    figure_text(cell),
                    ha="left" if i == 0 else "right",
                    va="center",
                    fontsize=8,
                    family="DejaVu Sans Mono",
                    weight="bold" if number == 0 else "normal",
                    in_layout=False,
                )
        for y, width in ((-0.5, 1.2), (0.5, 0.6), (len(lines) - 0.5, 1.2)):
            axis.axhline(y, color=style.OBSERVED, lw=width)
        if note:
            axis.text(0, len(lines), note, va="top", fontsize=7, in_layout=False)
        named = [dict(zip(_unique(header), row, strict=True)) for row in rows]
        return style.save(figure, stem, named, source)


def _unique(header: Sequence[str]) -> list[str]:
    """Column names; a name that occurs again gets its number."""
    seen: dict[str, int] = {}
    names = []
    for name in header:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return names
