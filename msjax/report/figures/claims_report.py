"""The report of `msjax verify`: every claim with its numbers, and a plot of all residuals."""

from __future__ import annotations

import io
import math
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from msjax._io import write_bytes, write_text
from msjax.errors import InputError
from msjax.report import page
from msjax.report.figures import style
from msjax.report.figures.sources import Sources
from msjax.report.formulas import as_html
from msjax.verify.bench import ClaimResult, outcome
from msjax.verify.evidence import FALSE_ALARM

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_path", "draw", "from_json", "make", "tables", "write"]

_TITLE = "The claims of the theory against exact arithmetic and simulation"
_CAPTION = "Residuals of all Monte Carlo comparisons, claim by claim, and against normal quantiles"
_HEADER = (
    "claim",
    "verdict",
    "statement",
    "reference",
    "exact error",
    "closed form",
    "Monte Carlo",
    "std error",
    "z",
)
_SENTENCES = (1, 2, 3)
_ALIGNMENT = ["---" if i in (0, *_SENTENCES) else "---:" for i in range(len(_HEADER))]
_ROW_HEIGHT, _BELOW = 0.15, 2.3
"""Inches per claim, and below the claims."""
_COLUMN = 14
"""Claims up to which one column of them is enough."""
_BOUND = "#009e73"
_READING = (
    "Exact error: the largest difference between closed form and exact value, relative to "
    "max(1, |exact|). Closed form, Monte Carlo, std error and z = (Monte Carlo - closed form) / "
    "std error are those of the worst of a claim's comparisons. Where the closed form is a bound, "
    "a large z on its allowed side counts for it. The quantile plot has the comparisons that leave "
    "something to chance, of the claims of equality; those that look at the same paths are "
    "correlated."
)


def check_path(path: Path) -> None:
    """Refuse a file of a kind that `write` cannot write.

    Raises:
        InputError: the suffix is neither .html nor .md.
    """
    if path.suffix not in (".html", ".md"):
        raise InputError(f"report is {path}; give a file that ends in .html or .md")


def write(results: Sequence[ClaimResult], seed: int, n_chains: int, path: Path) -> Path:
    """Write the report and return its path.

    An .html page contains its plot; an .md file has it beside itself, as `<name>_residuals.png`.

    Args:
        results: the verdicts, in the order of docs/theory.md.
        seed: random seed of the run.
        n_chains: paths simulated per setting.
        path: file to write; its folder is made if need be.

    Raises:
        InputError: see `check_path`.
    """
    check_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = _facts(results, seed, n_chains)
    failed = [result.id for result in results if not result.ok]
    plot = draw(results)
    if path.suffix == ".html":
        text = page.render(
            "verify.html.j2",
            title="msjax verify",
            title_line=_TITLE,
            facts=facts,
            failed=failed,
            plot=page.image(plot, _CAPTION, _READING),
            claims=tables(results),
        )
    else:
        beside = path.with_name(f"{path.stem}_residuals.png")
        write_bytes(beside, plot)
        text = _markdown(results, facts, failed, beside.name)
    write_text(path, text)
    return path


def draw(results: Sequence[ClaimResult]) -> bytes:
    """The residuals z of every Monte Carlo comparison as a PNG.

    One row per claim, with the |z| at which a normal estimate would fail; below, the finite
    residuals of claims of equality against normal quantiles.
    """
    with _residuals(results) as figure:
        drawn = io.BytesIO()
        figure.savefig(drawn, metadata={"Software": None})
    return drawn.getvalue()


def make(sources: Sources, stem: Path) -> None:
    """The same as a figure with its numbers, from saved results."""
    results = from_json(sources.json("verify.json"))
    rows = [
        {"claim": result.id, "verdict": _verdict(result).partition(",")[0], "z": z}
        for result in results
        for z in result.residuals
    ]
    with _residuals(results) as figure:
        style.save(figure, stem, rows, sources.origin("simulated paths"))


def from_json(claims: Sequence[dict[str, Any]]) -> list[ClaimResult]:
    """Saved results, which know no infinities: these come back as NaN."""
    return [
        ClaimResult(
            **{name: math.nan if value is None else value for name, value in claim.items()}
            | {
                "setting": tuple(claim["setting"]),
                "residuals": tuple(math.nan if z is None else z for z in claim["residuals"]),
            }
        )
        for claim in claims
    ]


@contextmanager
def _residuals(results: Sequence[ClaimResult]) -> Iterator[Figure]:
    """Claims in two columns of rows, and below them the normal Q-Q plot beside how to read both."""
    first = -(-len(results) // 2) if len(results) > _COLUMN else len(results)
    columns = [results[:first], results[first:]]
    tall = _ROW_HEIGHT * first + 0.9
    with style.panels(1, style.WIDEST, tall + _BELOW) as (figure, _):
        figure.clear()
        heights = {"height_ratios": (tall, _BELOW)}
        axes = figure.subplots(2, 2, squeeze=False, gridspec_kw=heights)
        edge = 3 * max(results[0].threshold, *(np.abs(_finite(x)).max(initial=0) for x in results))
        for axis, column in zip(axes[0], columns, strict=True):
            if column:
                _strips(axis, column, edge, first)
            else:
                axis.axis("off")
        _quantile_plot(axes[1, 0], results)
        _key(axes[1, 1], results)
        yield figure


def _strips(axis: Axes, results: Sequence[ClaimResult], edge: float, rows: int) -> None:
    """One row of residuals per claim, linear up to the threshold and logarithmic beyond."""
    threshold = results[0].threshold
    for row, result in enumerate(results):
        z = np.asarray(result.residuals)
        colour = _colour(result)
        # Successive multiples of the golden ratio spread evenly, whatever their number.
        heights = row + 0.6 * (np.arange(z.size) * 0.618034 % 1 - 0.5)
        inside = np.isfinite(z)
        axis.plot(z[inside], heights[inside], ".", ms=2.5, mew=0, color=colour)
        for side, marker in ((-np.inf, "<"), (np.inf, ">")):
            here = z == side
            axis.plot(np.sign(z[here]) * edge, heights[here], marker, ms=4, mew=0, color=colour)
    for line in (-threshold, threshold):
        axis.axvline(line, color=style.OBSERVED, ls="--", lw=0.8)
    axis.set_xscale("symlog", linthresh=threshold, linscale=2)
    decades = [10**j for j in range(1, 20, 2) if threshold < 10**j < edge]
    axis.set_xticks([*(-decade for decade in reversed(decades)), 0, *decades])
    axis.set_xlim(-1.15 * edge, 1.15 * edge)
    axis.set_ylim(rows - 0.5, -0.5)
    axis.set_yticks(range(len(results)), [_label(result) for result in results], fontsize=7)
    for tick, result in zip(axis.get_yticklabels(), results, strict=True):
        if not result.ok or not result.holds or one_sided(result):
            tick.set_color(_colour(result))
    axis.set_xlabel("z: standard errors between\nMonte Carlo and closed form")


def _colour(result: ClaimResult) -> str:
    if not (result.holds and result.ok):
        return style.RULE
    return _BOUND if one_sided(result) else style.MODEL


def _key(axis: Axes, results: Sequence[ClaimResult]) -> None:
    """What the colours mean, and how many claims there are of each."""
    sided = sum(one_sided(result) for result in results)
    refuted = sum(not result.holds for result in results)
    failed = sum(not result.ok for result in results)
    lines = [
        (f"{len(results) - sided - refuted} claims of equality", style.MODEL),
        (f"{sided} one-sided claims: their points may lie", _BOUND),
        ("at any distance on the allowed side", _BOUND),
        (f"{refuted} known misconceptions, to be refuted", style.RULE),
        (f"{failed} claims fail", style.RULE if failed else style.OBSERVED),
        (f"dashed: |z| = {results[0].threshold:.2f}; linear inside, logarithmic", style.OBSERVED),
        ("beyond; arrows at the edge are infinite", style.OBSERVED),
    ]
    axis.axis("off")
    for i, (words, colour) in enumerate(lines):
        axis.text(-0.6, 0.95 - 0.13 * i, words, color=colour, fontsize=7, transform=axis.transAxes)


def one_sided(result: ClaimResult) -> bool:
    """Whether the claim sets a bound: only then does it stand with estimates far from it."""
    beyond = bool(np.any(np.abs(_finite(result)) > result.threshold))
    infinite = bool(np.any(np.isinf(np.asarray(result.residuals, float))))
    return result.holds and result.monte_carlo_ok and (beyond or infinite)


def _quantile_plot(axis: Axes, results: Sequence[ClaimResult]) -> None:
    """Normal Q-Q plot of the residuals that leave something to chance."""
    z = np.sort(np.concatenate([np.empty(0), *_two_sided(results)]))
    expected = stats.norm.ppf((np.arange(z.size) + 0.5) / z.size)
    axis.plot(expected, z, ".", ms=3, mew=0, color=style.MODEL)
    axis.axline((0, 0), slope=1, color=style.OBSERVED, lw=0.8)
    axis.set_xlabel("normal quantile")
    axis.set_ylabel("z (standard errors)")
    axis.set_title(f"{z.size:,} residuals of claims of equality")


def _two_sided(results: Sequence[ClaimResult]) -> Iterator[Float[np.ndarray, "m"]]:
    """Residuals claim by claim, without those of bounds and of comparisons left to no chance."""
    for result in results:
        z = _finite(result)
        if result.holds and not one_sided(result):
            yield z[z != 0]


def _finite(result: ClaimResult) -> Float[np.ndarray, "m"]:
    z = np.asarray(result.residuals, float)
    return z[np.isfinite(z)]


def _label(result: ClaimResult) -> str:
    """Name of a claim's row, with its verdict where that is not that it holds."""
    verdict = _verdict(result).partition(",")[0]
    if result.ok and one_sided(result):
        return f"{result.id} (one-sided)"
    return result.id if verdict == "holds" else f"{result.id} ({verdict})"


def _verdict(result: ClaimResult) -> str:
    if not result.ok:
        return "FAILS"
    return "holds" if result.holds else "refuted, as it should be"


def _facts(results: Sequence[ClaimResult], seed: int, n_chains: int) -> list[str]:
    """What was run, and how it came out: one sentence each."""
    exact = sum(result.exact_values for result in results)
    simulated = sum(result.comparisons for result in results)
    versions = ", ".join(f"{name} {version(name)}" for name in ("msjax", "jax", "numpy"))
    return [
        f"{outcome(results)}.",
        f"{exact:,} exact values and {simulated:,} Monte Carlo comparisons; correct claims raise "
        f"any alarm in this run with probability at most {FALSE_ALARM:g}, which allows a normal "
        f"estimate |z| up to {results[0].threshold:.2f}.",
        f"Seed {seed}, {n_chains:,} paths per setting. {versions}, "
        f"Python {platform.python_version()}.",
    ]


def _sections(
    results: Sequence[ClaimResult],
) -> Iterator[tuple[str, list[tuple[ClaimResult, list[str]]]]]:
    """The claims of each section, and the cells of their rows."""
    for section, members in groupby(results, key=lambda result: result.section):
        yield section, [(result, _cells(result)) for result in members]


def _cells(result: ClaimResult) -> list[str]:
    verdict = _verdict(result)
    if not result.ok:
        verdict += f" at {result.setting}"
    return [
        result.id,
        verdict,
        result.statement,
        result.reference,
        f"{result.exact_error:.1e}",
        f"{result.closed_form:.6f}",
        f"{result.estimate:.6f}",
        f"{result.standard_error:.1e}",
        f"{result.z:+.2f}",
    ]


def tables(results: Sequence[ClaimResult]) -> dict[str, Any]:
    """The claims as tables of a page, section by section, and how they came out."""
    return {
        "outcome": outcome(results),
        "header": _HEADER,
        "sentences": _SENTENCES,
        "sections": [
            {
                "name": section,
                "rows": [
                    [cells[0], _state(result, cells[1]), as_html(cells[2]), *cells[3:]]
                    for result, cells in rows
                ],
            }
            for section, rows in _sections(results)
        ],
    }


def _state(result: ClaimResult, words: str) -> page.State:
    return page.State("good" if result.ok else "bad", words)


def _markdown(
    results: Sequence[ClaimResult], facts: Sequence[str], failed: Sequence[str], plot: str
) -> str:
    parts = [f"# {_TITLE}", *map(_plain, facts)]
    if failed:
        parts.append(f"**Failed: {', '.join(failed)}**")
    parts += [f"![{_CAPTION}]({plot})", _plain(_READING)]
    for section, rows in _sections(results):
        cells = [_HEADER, _ALIGNMENT, *(map(_plain, row) for _, row in rows)]
        parts += [f"## {section}", "\n".join(f"| {' | '.join(row)} |" for row in cells)]
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Text without what Markdown would take for markup."""
    for mark in "\\|*_<[`":
        text = text.replace(mark, "\\" + mark)
    return text
