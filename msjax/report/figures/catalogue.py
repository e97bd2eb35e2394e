"""Every figure and table by name: what it shows, and what makes it.

`NOT_REPRODUCIBLE` lists what the papers show and nobody can draw without their authors' data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from msjax.errors import InputError
from msjax.report.figures import (
    accuracy_per_round,
    auditor,
    calibration,
    claims_report,
    heterogeneity,
    markovscale_bounds,
    markovscale_table,
    optpo,
    optscale_curves,
    optscale_n_star,
    optscale_table,
    regret,
    replay,
)
from msjax.report.figures.published import Difference
from msjax.report.figures.sources import MODEL_RUNS, Sources

__all__ = ["CATALOGUE", "NOT_REPRODUCIBLE", "Entry", "select"]

_ACCEPTABLE_REGRET = 0.01


@dataclass(frozen=True)
class Entry:
    """One figure or table.

    Attributes:
        name: what users type, and the name of its files.
        says: what it shows.
        make: draws it from the sources to a path without suffix; returns numbers that stand for the
            same thing as published ones, if there are any.
    """

    name: str
    says: str
    make: Callable[[Sources, Path], list[Difference] | None]


def _per_round(sources: Sources, stem: Path) -> None:
    fit = sources.json("fit.json")
    accuracy_per_round.draw(sources.runs("pilot.jsonl"), fit, stem, sources.origin(MODEL_RUNS))


def _heterogeneity(sources: Sources, stem: Path) -> None:
    origin = sources.origin("closed form and quadrature, no sampling")
    heterogeneity.draw(sources.json("heterogeneity.json"), stem, origin)


def _regret(sources: Sources, stem: Path) -> None:
    origin = sources.origin("closed form; pilots simulated")
    regret.draw(sources.json("regret.json"), _ACCEPTABLE_REGRET, stem, origin)


CATALOGUE = {
    entry.name: entry
    for entry in (
        Entry(
            "markovscale_methods",
            "MarkovScale Fig. 1: accuracy against tokens of all methods",
            replay.make,
        ),
        Entry(
            "markovscale_rounds",
            "MarkovScale Fig. 2: accuracy per round, estimated chain, posterior band, limit",
            _per_round,
        ),
        Entry(
            "markovscale_bounds",
            "MarkovScale Fig. 3: methods against upper, neutral and lower bounds",
            markovscale_bounds.make,
        ),
        Entry(
            "markovscale_table",
            "MarkovScale Table 1: methods by benchmarks",
            markovscale_table.make,
        ),
        Entry("optscale_n_star", "OptScale: samples needed, N*", optscale_n_star.make),
        Entry("optscale_curves", "OptScale: accuracy against tokens", optscale_curves.make),
        Entry("optscale_table", "OptScale: the table at N = 8, 16, 32, 64", optscale_table.make),
        Entry("optscale_summary", "OptScale: QwQ-32B at N = 60", optscale_table.make_summary),
        Entry("optpo_rollouts", "OptPO: votes against accuracy", optpo.make_rollouts),
        Entry("optpo_margin", "OptPO: the rule is a lead in votes", optpo.make_margin),
        Entry("optpo_error", "OptPO: error and expected votes of a lead", optpo.make_error),
        Entry("claims_residuals", "every claim of the theory, simulated", claims_report.make),
        Entry("heterogeneity_bias", "one chain for questions that differ", _heterogeneity),
        Entry("regret_map", "worth lost by errors in the rates, and by small pilots", _regret),
        Entry("calibration_ranks", "simulation-based calibration", calibration.make_ranks),
        Entry(
            "misspecification",
            "what intervals cover when the model is wrong",
            calibration.make_misspecification,
        ),
        Entry("auditor_table", "exact errors of rules that vote", auditor.make),
    )
}

NOT_REPRODUCIBLE = {
    "MarkovScale Fig. 1 to 3 and Table 1 with the authors' numbers": (
        "neither its completions nor its table cells are public; the figures of these names show "
        "the same quantities for the runs given"
    ),
    "OptScale's cells from completions": (
        "its 64 completions per question are not public; cells are held against its curves"
    ),
    "OptScale, Llama-3.1-8B": "no number of it could be read in a public source",
    "OptPO's training curves": "neither its rollouts nor its settings are public",
}


def select(names: Sequence[str]) -> list[Entry]:
    """The figures named, all of them if none is.

    Raises:
        InputError: an unknown name; the message gives those that are near.
    """
    for name in names:
        if name not in CATALOGUE:
            near = get_close_matches(name, CATALOGUE, n=3, cutoff=0.4) or list(CATALOGUE)
            raise InputError(f"figure {name!r} is unknown; did you mean {', '.join(near)}?")
    return [CATALOGUE[name] for name in dict.fromkeys(names or CATALOGUE)]
