"""A table as text that papers and pages take: Markdown and LaTeX, and its cells as CSV."""

from collections.abc import Sequence
from pathlib import Path

from msjax._io import write_csv, write_text
from msjax.texts import latex_text, markdown_cell

__all__ = ["SUFFIXES", "write"]

SUFFIXES = (".md", ".tex", ".csv")


def write(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    stem: Path,
    source: str,
    note: str = "",
    best: Sequence[tuple[int, int]] = (),
) -> Path:
    """Write `stem`.md, .tex (for booktabs) and .csv; returns the path of the first.

    Args:
        header: names of the columns.
        rows: cells; the first column is flush left, the others right.
        stem: where to write, without suffix.
        source: whose numbers these are.
        note: how to read the table.
        best: row and column of the cells that are set in bold, which `note` has to explain.
    """
    below = [*([note] if note else []), f"Source: {source}"]
    columns = len(header)
    lines = [list(map(markdown_cell, header)), [":---", *["---:"] * (columns - 1)]]
    lines += [
        [
            f"**{markdown_cell(x)}**" if (i, j) in best else markdown_cell(x)
            for j, x in enumerate(row)
        ]
        for i, row in enumerate(rows)
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    write_text(stem.with_suffix(".md"), "\n\n".join([table, *map(markdown_cell, below)]) + "\n")

    cells = [
        [
            rf"\textbf{{{latex_text(x)}}}" if (i, j) in best else latex_text(x)
            for j, x in enumerate(row)
        ]
        for i, row in enumerate(rows)
    ]
    latex = [
        rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}",
        r"\toprule",
        " & ".join(map(latex_text, header)) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in cells),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip{{\footnotesize {latex_text(x)}}}" for x in below),
    ]
    write_text(stem.with_suffix(".tex"), "\n".join(latex) + "\n")
    write_csv(stem.with_suffix(".csv"), [_unique(header), *rows])
    return stem.with_suffix(".md")


def _unique(header: Sequence[str]) -> list[str]:
    """Column names; a name that occurs again gets its number."""
    seen: dict[str, int] = {}
    names = []
    for name in header:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return names
