"""Figure: what rounds 0 and 1 said of the last round, before it was recorded.

Reference: MarkovScale (arXiv 2602.01120), Fig. 2, as predictions on recordings of this project.
"""

from pathlib import Path
from typing import Any

from msjax.report.figures import style
from msjax.texts import figure_text
from paper_figures.sources import PaperSources

__all__ = ["SAYS", "make"]

SAYS = "registered predictions of the study: the last round, from rounds 0 and 1"


def make(sources: PaperSources, stem: Path) -> None:
    """One panel per batch that was predicted and then recorded; bars are 90 % intervals."""
    rows = []
    batches = sources.predictions()
    with style.panels(len(batches), width=2.6, height=2.8) as (figure, axes):
        for axis, (name, said, seen) in zip(axes, batches, strict=True):
            models = list(said["models"])
            accuracy = seen["accuracy_later"][-1]
            axis.axvline(accuracy, color=style.OBSERVED, lw=1)
            axis.axvline(said["accuracy_seen"][-1], color=style.OBSERVED, lw=1, ls=":")
            for place, model in enumerate(models):
                band = said["models"][model]["accuracy"][-1]
                axis.plot([band["low"], band["high"]], [place, place], color=style.MODEL, lw=2)
                axis.plot(band["median"], place, "o", color=style.MODEL, ms=4)
                rows.append(_row(name, model, band, accuracy, seen["scores"]))
            axis.set_yticks(range(len(models)), [figure_text(x.replace("_", " ")) for x in models])
            axis.set_ylim(len(models) - 0.5, -0.5)
            model, benchmark, way, questions = name
            n = len(said["question_ids"])
            where = f"questions {questions} (n = {n})"
            axis.set_title(figure_text(f"{model}\n{benchmark}, {way}\n{where}"))
            axis.set_xlabel(f"accuracy after {said['rounds_predicted'][-1]} rounds")
            axis.set_xlim(-0.03, 1)
        note = "bars: 90 % intervals; solid line: what came; dotted: accuracy of round 1"
        style.save(figure, stem, rows, "ours, registered and scored by inference/study", note)


def _row(
    name: tuple[str, ...],
    model: str,
    band: dict[str, float],
    accuracy: float,
    scores: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    return {
        "model": name[0],
        "benchmark": name[1],
        "strategy": name[2],
        "questions": name[3],
        "predicted_by": model,
        **band,
        "observed": accuracy,
        "inside": scores[model]["inside"][-1],
        "log_score": scores[model]["log_score"],
        "log_score_of_no_change": scores["unchanged"]["log_score"],
    }
