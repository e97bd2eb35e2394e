"""Figure: methods against the upper, neutral and lower bound of every benchmark.

Reference: MarkovScale (arXiv 2602.01120), Fig. 3 (bounds by interpretation, docs/theory.md B2).
"""

from pathlib import Path
from typing import Any

from msjax.report.figures import style
from msjax.report.figures.sources import MODEL_RUNS, Sources
from msjax.texts import figure_text

__all__ = ["SAYS", "make"]

SAYS = "MarkovScale Fig. 3: methods against upper, neutral and lower bounds"

_METHODS = (
    "fixed",
    "fixed+majority",
    "until_repeated",
    "markovscale",
    "belief+most_probable",
)


def make(sources: Sources, stem: Path) -> None:
    """One panel per benchmark: sets of bounds above, methods below, with 90 % intervals."""
    fit, replay = sources.json("fit.json"), sources.json("replay.json")
    shared = [name for name in fit["benchmarks"] if name in replay["pools"]]
    rows: list[dict[str, Any]] = []
    said: list[str] = []
    with style.panels(len(shared), 3.0, 3.6) as (figure, axes):
        for axis, name in zip(axes, shared, strict=True):
            found, pool = fit["benchmarks"][name], replay["pools"][name]
            mine = _bounds(name, found) + _methods(name, pool)
            for place, row in enumerate(mine):
                _point(axis, place, row)
            rows += mine
            axis.set_yticks(range(len(mine)), [row["what"] for row in mine])
            axis.axhline(len(style.BOUNDS) - 0.5, color=style.OBSERVED, lw=0.6)
            axis.set_xlim(0, 1)
            axis.set_xlabel("accuracy (90 % intervals)")
            axis.set_title(figure_text(name))
            said.append(
                f"{name}: {found['questions']} questions, "
                + ("in the limit" if _has_limit(found) else f"k = {found['bounds']['rounds']}")
                + f"; methods: {pool['questions']}"
            )
        axes[0].invert_yaxis()
        note = "Above the line: bounds by the posterior of the pilot; below: methods, replayed.\n"
        note += "Bounds of " + ".\n".join(figure_text(one) for one in said) + "."
        style.save(figure, stem, rows, sources.origin(MODEL_RUNS), note)


def _bounds(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the sets that the runs allow: both ends, and the interval that holds both."""
    bounds = _chosen(found)
    ends = {
        "upper": ("upper", "upper_most"),
        "neutral": ("neutral", "neutral"),
        "lower": ("lower_most", "lower"),
    }
    return [
        _row(name, f"{bound} bound", *(bounds[end] for end in ends[bound]))
        for bound in style.BOUNDS
    ]


def _has_limit(found: dict[str, Any]) -> bool:
    return found["bounds"]["limit"]["neutral"] is not None


def _chosen(found: dict[str, Any]) -> dict[str, Any]:
    """The bounds in the limit, or after the rounds recorded where the model has no limit."""
    bounds = found["bounds"]
    return bounds["limit"] if _has_limit(found) else bounds["after"][bounds["rounds"]]


def _methods(name: str, pool: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        _row(name, method, of_rule, of_rule)
        for method in _METHODS
        if (rule := pool["rules"].get(method)) and (of_rule := rule["accuracy"])
    ]


def _row(
    name: str, what: str, least: dict[str, float] | None, most: dict[str, float] | None
) -> dict[str, Any]:
    """A set of which both ends are estimates, with the ends of its interval; or a point."""
    row: dict[str, Any] = {"benchmark": name, "what": what}
    numbers = ("accuracy", "accuracy_most", "low", "high")
    if least is None or most is None:
        return row | dict.fromkeys(numbers)
    middle = [end.get("estimate", end.get("median")) for end in (least, most)]
    return row | dict(zip(numbers, (*middle, least["low"], most["high"]), strict=True))


def _point(axis: Any, place: int, row: dict[str, Any]) -> None:
    if row["accuracy"] is None:
        axis.text(0.5, place, "not identified", ha="center", va="center", fontsize=7)
        return
    ends = [row["accuracy"], row["accuracy_most"]]
    bound = style.BOUNDS.get(row["what"].removesuffix(" bound"))
    look = style.method(row["what"])
    marker, colour = bound[:2] if bound else (look["marker"], look["color"])
    axis.plot([row["low"], row["high"]], [place, place], color=colour, lw=1)
    if ends[0] != ends[1]:
        axis.plot(ends, [place, place], color=colour, lw=4, solid_capstyle="butt")
    axis.plot(ends, [place, place], marker, color=colour, ms=5)
