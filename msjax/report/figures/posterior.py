"""Figures of a fit: limits and bounds, curves, predictive checks; and of its calibration.

They read what `msjax fit --json` wrote (`report`), whose intervals are 90 % credible, and the ranks
of a simulation-based calibration. What is not identified is null there and said in words here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from msjax.errors import InputError
from msjax.report.figures import style
from msjax.texts import figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "calibration_panels",
    "curve_bands",
    "ecdf_band",
    "forest",
    "grid",
    "predictive_panels",
]

_UNKNOWN = "not identified"

_ROUNDS = "refinement rounds k"
_STATISTICS: dict[str, tuple[str, str, Any]] = {
    # name: title, label of the entries, and their names or the first of their numbers
    "accuracy": ("accuracy", _ROUNDS, 0),
    "solved": ("solved so far", _ROUNDS, 0),
    "p_ic per round": ("P(I \N{RIGHTWARDS ARROW} C)", "refinement round", 1),
    "p_ci per round": ("P(C \N{RIGHTWARDS ARROW} I)", "refinement round", 1),
    "second order": ("P(next right)", "last two states", ("II", "CI", "IC", "CC")),
    "flips per question": ("changes per question", "changes of state", ("0", "1", "2", "3+")),
    "changed per round": ("answers changed", "refinement round", 1),
    "changes per question": ("changes per question", "changes of answer", ("0", "1", "2", "3+")),
    "never right": ("questions never right", "", ("",)),
    "always right": ("questions always right", "", ("",)),
}
_COLUMNS = 4
_BAND = 0.99
BAND_SIMULATIONS = 10_000
_SEED = 0


def forest(report: Mapping[str, Any]) -> Figure:
    """Limits of all benchmarks, one row each: bounds with 90 % intervals and observed accuracies.

    Reference: docs/theory.md B2.
    """
    benchmarks = report["benchmarks"]
    with style.panels(1, 6.2, 1.1 + 0.55 * len(benchmarks)) as (figure, (axis,)):
        for row, found in enumerate(benchmarks.values()):
            if row % 2:
                axis.axhspan(row - 0.5, row + 0.5, color="#f2f2f2", lw=0, zorder=0)
            for place, (name, (marker, colour, says)) in enumerate(style.BOUNDS.items()):
                point = found["bounds"]["limit"][name]
                if point:
                    _errorbar(axis, point, row - 0.3 + 0.2 * place, marker, colour, says)
            if found["bounds"]["limit"]["neutral"] is None:
                across = axis.get_yaxis_transform()
                axis.text(0.99, row, f"limit {_UNKNOWN}", transform=across, ha="right", va="center")
            seen = found["observed"]["accuracy"]
            for accuracy, face, label in (
                (seen[0], "white", "observed, first answer"),
                (seen[-1], style.OBSERVED, "observed, last round"),
            ):
                if accuracy is not None:
                    axis.plot(
                        accuracy, row + 0.3, "s", ms=4, mfc=face, color=style.OBSERVED, label=label
                    )
        axis.set_yticks(
            range(len(benchmarks)),
            [f"{figure_text(name)}\n{_size(found)}" for name, found in benchmarks.items()],
        )
        axis.set_ylim(len(benchmarks) - 0.5, -0.5)
        axis.set_xlim(0, 1)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("accuracy (probability): limits with 90 % intervals, and observed")
        _legend(figure, axis)
        return figure


def curve_bands(report: Mapping[str, Any], benchmark: str) -> Figure:
    """Accuracy by round of one benchmark: posterior, bounds, limit, and what was observed.

    Raises InputError when the report has no such benchmark.

    Reference: docs/theory.md B2; Wilson (1927), for the intervals of observed accuracies.
    """
    found = _find(report, benchmark)
    after, limit = found["bounds"]["after"], found["bounds"]["limit"]
    rounds, horizon = found["bounds"]["rounds"], len(after) - 1
    with style.panels(1, 5.2, 4.0) as (figure, (axis,)):
        unknown = []
        for place, (name, (marker, colour, says)) in enumerate(style.BOUNDS.items()):
            low, median, high = _columns([point[name] for point in after])
            line = "-" if name == "neutral" else "--"  # one often covers the other
            axis.plot(range(horizon + 1), median, line, color=colour, label=says)
            axis.fill_between(range(horizon + 1), low, high, color=colour, alpha=0.2, lw=0)
            if limit[name]:
                x = horizon + 1 + 0.2 * place
                _errorbar(axis, limit[name], x, marker, colour, None, upright=True)
        if np.isnan(_columns([point["neutral"] for point in after])).any():
            unknown.append("later rounds")
        if limit["neutral"] is None:
            unknown.append("limit")
        if unknown:
            text = f"{' and '.join(unknown)} {_UNKNOWN}"
            axis.text(0.98, 0.02, text, transform=axis.transAxes, ha="right", va="bottom")
        low, _, high = _columns(found["prior_predictive"]["accuracy"])
        for edge, label in ((low, "prior predictive"), (high, None)):
            axis.plot(range(horizon + 1), edge, ":", color="#777777", lw=1, label=label)
        _draw_observed(axis, found["observed"])
        if horizon > rounds:
            axis.axvspan(rounds + 0.5, horizon + 0.5, color="#f2f2f2", lw=0, zorder=0)
            axis.annotate(
                "not observed",
                (rounds + 0.6, 0.99),
                xycoords=("data", "axes fraction"),
                va="top",
                fontsize=7,
                color="#555555",
            )
        ticks = list(range(0, horizon + 1, max(1, horizon // 10)))
        axis.set_xticks([*ticks, horizon + 1.2], [*map(str, ticks), "limit"])
        axis.set_xlim(-0.4, horizon + 1.7)
        axis.set_xlabel(_ROUNDS)
        axis.set_ylabel("accuracy (probability)\nbars and bands: 90 % intervals")
        axis.set_title(f"{figure_text(benchmark)} ({_size(found)})", fontsize=8)
        _legend(figure, axis)
        return figure


def predictive_panels(report: Mapping[str, Any], benchmark: str) -> Figure:
    """One panel per posterior predictive check of one benchmark: observed against predicted.

    Raises InputError when the report has no such benchmark.

    Reference: docs/theory.md F3.
    """
    found = _find(report, benchmark)
    checks = found["ppc"]
    with grid(-(-len(checks) // _COLUMNS), _COLUMNS, 2.2, 2.2) as (figure, axes):
        for axis, check in zip(axes.flat, checks, strict=False):
            _predictive_panel(axis, check)
            axis.set_ylim(-0.06, 1.06)
        for axis in axes.flat[len(checks) :]:
            axis.remove()
        for axis in axes[:, 0]:
            axis.set_ylabel("share (probability)")
        figure.suptitle(
            f"{figure_text(benchmark)} ({_size(found)}): "
            "do replicated runs look like the real ones?"
        )
        _legend(figure, axes.flat[0], columns=3, place="outside lower center")
        return figure


def calibration_panels(result: Mapping[str, Any]) -> Figure:
    """Rank histograms and ECDF differences of a simulation-based calibration.

    Bands hold 99 % of uniform ranks: bin by bin (binomial) in histograms, whole curves in ECDFs.

    Args:
        result: `model`; `simulations`; `draws` L, so that ranks are 0..L; and by parameter `ranks`,
            the counts of ranks in bins of equal size.

    Raises InputError when the counts of a parameter do not sum to the simulations.

    Reference: docs/theory.md F6; Talts et al. (2018), Validating Bayesian inference algorithms with
    simulation-based calibration; Sailynoja, Buerkner & Vehtari (2022), Graphical test for discrete
    uniformity.
    """
    ranks, simulations, draws = result["ranks"], result["simulations"], result["draws"]
    for name, counts in ranks.items():
        if sum(counts) != simulations:
            raise InputError(
                f"ranks of {name} sum to {sum(counts)}; give one rank for each of the "
                f"{simulations} simulations"
            )
    blocks = -(-len(ranks) // _COLUMNS)
    columns = -(-len(ranks) // blocks)
    bands: dict[int, Float[np.ndarray, "2 edge"]] = {}
    with grid(2 * blocks, columns, 2.2, 1.9) as (figure, axes):
        for i, (name, counts) in enumerate(ranks.items()):
            row, column = divmod(i, columns)
            bins = len(counts)
            if bins not in bands:
                bands[bins] = ecdf_band(simulations, bins)
            _histogram(axes[2 * row, column], name, counts, draws)
            _ecdf_difference(axes[2 * row + 1, column], counts, bands[bins])
        for i in range(len(ranks), columns * blocks):
            row, column = divmod(i, columns)
            axes[2 * row, column].remove()
            axes[2 * row + 1, column].remove()
        for row in range(blocks):
            axes[2 * row, 0].set_ylabel("simulations")
            axes[2 * row + 1, 0].set_ylabel("ECDF less uniform\n(probability)")
        figure.suptitle(
            f"{figure_text(result['model'])}: {simulations} simulations, {draws} draws each"
        )
        _legend(figure, *axes[:2, 0], place="outside lower center")
        return figure


@contextmanager
def grid(
    rows: int, columns: int, width: float, height: float, share: bool = False
) -> Iterator[tuple[Figure, Any]]:
    """Rows of panels, `width` by `height` inches each, in the common style; `share`: their axes."""
    with style.panels(1, width * columns, 1.0 + height * rows) as (figure, _):
        figure.clear()
        yield figure, figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)


def _find(report: Mapping[str, Any], benchmark: str) -> Mapping[str, Any]:
    if benchmark not in report["benchmarks"]:
        known = ", ".join(report["benchmarks"])
        raise InputError(f"benchmark is {benchmark!r}; choose from {known}")
    found: Mapping[str, Any] = report["benchmarks"][benchmark]
    return found


def _size(found: Mapping[str, Any]) -> str:
    return f"{figure_text(found['model'])}, n = {found['observed']['questions'][0]}"


def _columns(points: Sequence[Mapping[str, float] | None]) -> Float[np.ndarray, "3 k"]:
    """Low, median and high of every point, NaN where there is none."""
    return np.array(
        [[np.nan if p is None else p[part] for p in points] for part in ("low", "median", "high")]
    )


def _errorbar(
    axis: Axes,
    point: Mapping[str, float],
    place: float,
    marker: str,
    colour: str,
    label: str | None,
    upright: bool = False,
) -> None:
    """Median and interval of one number, along x or upright."""
    error = [[point["median"] - point["low"]], [point["high"] - point["median"]]]
    x, y = (place, point["median"]) if upright else (point["median"], place)
    errors: Any = {"yerr" if upright else "xerr": error}
    axis.errorbar(x, y, fmt=marker, ms=4, capsize=2, lw=1.2, color=colour, label=label, **errors)


def _draw_observed(axis: Axes, observed: Mapping[str, Sequence[Any]]) -> None:
    """Observed accuracy of every round that some run reached, with Wilson intervals."""
    seen = [
        (k, accuracy, scipy.stats.binomtest(round(accuracy * n), n).proportion_ci(0.9, "wilson"))
        for k, (accuracy, n) in enumerate(
            zip(observed["accuracy"], observed["questions"], strict=True)
        )
        if n and accuracy is not None
    ]
    rounds, accuracies, intervals = zip(*seen, strict=True)
    axis.errorbar(
        rounds,
        accuracies,
        yerr=[
            [a - i.low for a, i in zip(accuracies, intervals, strict=True)],
            [i.high - a for a, i in zip(accuracies, intervals, strict=True)],
        ],
        fmt="s",
        ms=3.5,
        capsize=2,
        lw=1,
        color=style.OBSERVED,
        label="observed (Wilson)",
    )


def _predictive_panel(axis: Axes, check: Mapping[str, Any]) -> None:
    title, label, entries = _STATISTICS[check["statistic"]]
    observed, low, median, high = (
        np.array(check[part], dtype=float) for part in ("observed", "low", "median", "high")
    )
    places = np.arange(len(observed)) + (entries if isinstance(entries, int) else 0)
    axis.use_sticky_edges = False  # bars would touch the lower edge
    axis.bar(
        places,
        high - low,
        bottom=low,
        width=0.6,
        color=style.MODEL,
        alpha=0.3,
        lw=0,
        label="predicted, 90 % interval",
    )
    axis.hlines(
        median, places - 0.3, places + 0.3, color=style.MODEL, lw=1.5, label="predicted, median"
    )
    axis.plot(places, observed, "o", ms=4, color=style.OBSERVED, label="observed")
    if isinstance(entries, int):
        axis.set_xticks(places[:: max(1, -(-len(places) // 6))])
    else:
        axis.set_xticks(places, entries)
    margin = 0.8 if len(places) > 1 else 2.5
    axis.set_xlim(places[0] - margin, places[-1] + margin)
    axis.set_xlabel(label)
    verdict, colour = (" (surprising)", style.RULE) if check["surprising"] else ("", style.OBSERVED)
    axis.set_title(f"{title}\np = {check['p_value']:.2g}{verdict}", fontsize=8, color=colour)


def _histogram(axis: Axes, name: str, counts: Sequence[int], draws: int) -> None:
    bins, simulations = len(counts), sum(counts)
    edges = np.linspace(0, draws + 1, bins + 1)
    tails = (1 - _BAND) / 2, (1 + _BAND) / 2
    low, high = scipy.stats.binom.ppf(tails, simulations, 1 / bins)
    axis.axhspan(low, high, color="#999999", alpha=0.35, lw=0, label="99 % of uniform bins")
    axis.axhline(simulations / bins, color=style.OBSERVED, lw=0.8)
    axis.stairs(counts, edges, color=style.MODEL, lw=1.2, label="ranks of the truth")
    axis.set_ylim(0)
    axis.set_xlabel("rank among draws")
    axis.set_title(name, fontsize=8)


def _ecdf_difference(axis: Axes, counts: Sequence[int], band: Float[np.ndarray, "2 edge"]) -> None:
    """Share of ranks below each edge of the bins less that of uniform ranks."""
    edges = np.linspace(0, 1, len(counts) + 1)
    difference = np.cumsum([0, *counts]) / sum(counts) - edges
    axis.fill_between(
        edges, *band, color="#999999", alpha=0.35, lw=0, label="99 % of whole uniform curves"
    )
    axis.axhline(0, color=style.OBSERVED, lw=0.8)
    axis.plot(edges, difference, color=style.MODEL, lw=1.2, label="ECDF of the ranks")
    axis.set_xlabel("rank / (draws + 1)")


def ecdf_band(simulations: int, bins: int) -> Float[np.ndarray, "2 edge"]:
    """Band that holds the ECDF of uniform ranks, less the uniform, as a whole with 99 %.

    Every edge gets the same tail probability, which is the 1 % quantile, by simulation, of the
    least tail probability on an ECDF.
    """
    edges = np.linspace(0, 1, bins + 1)
    inner = edges[1:-1]
    counts = np.arange(simulations + 1)[:, None]
    tail = np.minimum(
        scipy.stats.binom.cdf(counts, simulations, inner),
        scipy.stats.binom.sf(counts - 1, simulations, inner),
    )
    random = np.random.default_rng(_SEED)
    drawn = random.multinomial(simulations, np.full(bins, 1 / bins), BAND_SIMULATIONS)
    below = np.cumsum(drawn, axis=1)[:, :-1]
    least = tail[below, np.arange(bins - 1)].min(axis=1)
    inside = tail >= np.quantile(least, 1 - _BAND, method="lower")
    low = np.concatenate([[0], inside.argmax(axis=0), [simulations]])
    high = np.concatenate([[0], simulations - inside[::-1].argmax(axis=0), [simulations]])
    return np.stack([low, high]) / simulations - edges


def _legend(
    figure: Figure, *axes: Axes, columns: int = 2, place: Any = "outside upper center"
) -> None:
    """One legend beside the panels, with every label once, what was observed last."""
    labelled: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        found = dict(zip(labels, handles, strict=True))
        labelled |= dict(sorted(found.items(), key=lambda item: "observed" in item[0]))
    figure.legend(labelled.values(), list(labelled), loc=place, ncols=columns, fontsize=7)
