"""Results as text tables."""

import math
from collections.abc import Sequence

from msjax.evaluate.paired import Comparison
from msjax.evaluate.summary import RunSummary
from msjax.intervals import Interval
from msjax.texts import markdown_cell


def interval(found: Interval, digits: int = 2) -> str:
    """An estimate with the ends of its interval, e.g. "0.52 [0.41, 0.62]"; NaN: not identified."""
    if math.isnan(found.estimate):
        return "not identified"
    return format(found, f".{digits}f")


def count(tokens: float | None, digits: int = 0) -> str:
    """A number of tokens; None and NaN are not reported."""
    known = tokens is not None and not math.isnan(tokens)
    return f"{tokens:,.{digits}f}" if known else "not reported"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first is left-aligned, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return "\n".join(lines)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    lines = [list(map(markdown_cell, row)) for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def summary_table(summaries: Sequence[RunSummary]) -> str:
    """Accuracy and token account per benchmark, with 90 % intervals."""
    verified = any(s.tokens.verifier != 0 for s in summaries)
    header = (
        "benchmark",
        "questions",
        "first accuracy",
        "returned accuracy",
        "answers",
        "no answer",
        "prompt",
        "cached",
        "completion tokens",
        *(["verifier"] if verified else []),
    )
    return table(
        header,
        [
            (
                s.benchmark,
                str(s.questions),
                interval(s.first_accuracy),
                interval(s.accuracy),
                f"{s.answers:.2f}",
                f"{s.unanswered:.1%}",
                count(s.tokens.prompt),
                count(s.tokens.cached),
                count(s.tokens.completion),
                *([count(s.tokens.verifier)] if verified else []),
            )
            for s in summaries
        ],
    )


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """The rule against fixed numbers of answers: uncached tokens per question, 90 % intervals."""
    header = (
        "benchmark",
        "against",
        "rule accuracy",
        "fixed accuracy",
        "accuracy gain (paired)",
        "rule tokens",
        "fixed tokens",
        "tokens saved (paired)",
    )
    return table(
        header,
        [
            (
                c.benchmark,
                f"vote of {c.k + 1}" if c.parallel else f"fixed {c.k}",
                f"{c.accuracy:.3f}",
                f"{c.fixed_accuracy:.3f}",
                interval(c.accuracy_gain, 3),
                count(c.tokens, 1),
                count(c.fixed_tokens, 1),
                interval(c.tokens_saved, 1),
            )
            for c in comparisons
        ],
    )
