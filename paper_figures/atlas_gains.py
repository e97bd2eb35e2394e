"""Figure: what asking again gained in every public recording that no oracle stopped.

Revisions that nothing cut short come first, then loops that ended when a judge accepted.

Reference: docs/results.md, "Recorded trajectories".
"""

from pathlib import Path

from msjax.report.figures import style
from msjax.texts import figure_text
from paper_figures.sources import PaperSources

__all__ = ["SAYS", "make"]

SAYS = "what revisions and loops with a judge gained over the first answer, in public recordings"


def make(sources: PaperSources, stem: Path) -> None:
    """A row per recording: the gain, and beside it how often a round fixes and damages."""
    gains = sources.json("gains.json")
    found = gains["revisions"] | gains["loops"]
    places = range(len(found))
    with style.panels(2, width=3.3, height=0.6 + 0.25 * len(found), ratios=(3, 2)) as (
        figure,
        (gain, rates),
    ):
        for place, x in zip(places, found.values(), strict=True):
            ends = [x["gain"]["low"], x["gain"]["high"]]
            gain.plot(ends, [place, place], color=style.MODEL, lw=1.5)
            gain.plot(x["gain"]["estimate"], place, "o", color=style.MODEL, ms=4)
            for number, (rate, up) in enumerate((("fix", -0.15), ("damage", 0.15))):
                if x[rate] is None:
                    continue
                look = style.series(number + 1)
                ends = [x[rate]["low"], x[rate]["high"]]
                rates.plot(ends, [place + up] * 2, color=look["color"], lw=1.5)
                label = rate if place == 0 else None
                rates.plot(x[rate]["estimate"], place + up, ls="", ms=4, label=label, **look)
        gain.axvline(0, color=style.OBSERVED, lw=0.8)
        for axis in (gain, rates):
            axis.axhline(len(gains["revisions"]) - 0.5, color=style.OBSERVED, lw=0.5, ls=":")
        names = [
            f"{figure_text(name.partition(': ')[2])}: {x['first']:.2f} to {x['last']:.2f}"
            for name, x in found.items()
        ]
        gain.set_yticks(places, names, fontsize=7)
        rates.tick_params(labelleft=False)
        for axis in (gain, rates):
            axis.set_ylim(len(found) - 0.5, -0.5)
        gain.set_xlabel("gain in accuracy, last answer over first")
        rates.set_xlabel("changed per round")
        rates.set_xlim(left=0)
        figure.legend(loc="outside upper right", ncols=2)
        rows = [
            {
                "recording": name,
                "questions": x["clusters"],
                "runs": x["questions"],
                "rounds": x["rounds"],
                "first": x["first"],
                "last": x["last"],
                "ever_right": x["ever_right"],
                **{f"gain_{end}": x["gain"][end] for end in ("estimate", "low", "high")},
                **{f"fix_{end}": x["fix"][end] for end in ("estimate", "low", "high")},
                **{
                    f"damage_{end}": x["damage"] and x["damage"][end]
                    for end in ("estimate", "low", "high")
                },
            }
            for name, x in found.items()
        ]
        note = (
            "above the dotted line revisions, below it loops that ended when a judge accepted; "
            "90 % intervals by question;\nthose of the gains hold for all recordings of one kind "
            "at once; no damage is shown where nothing right was revised"
        )
        style.save(figure, stem, rows, "recordings of others, see docs/results.md", note)
