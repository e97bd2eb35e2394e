"""Every figure and table by the name of its file.

`NOT_REPRODUCIBLE` lists what the papers show and nobody can draw without their authors' data.
"""

from types import ModuleType

from msjax.report.figures import table
from msjax.report.figures.gallery import Figure
from paper_figures import (
    atlas_gains,
    auditor_table,
    calibration_ranks,
    claims_residuals,
    heterogeneity_bias,
    markovscale_bounds,
    markovscale_methods,
    markovscale_rounds,
    markovscale_table,
    misspecification,
    optpo_error,
    optpo_margin,
    optpo_rollouts,
    optscale_curves,
    optscale_n_star,
    optscale_summary,
    optscale_table,
    regret_map,
    study_front,
    study_predictions,
    study_rounds,
    study_rules,
    study_table,
)
from paper_figures.sources import PaperSources

__all__ = ["CATALOGUE", "NOT_REPRODUCIBLE"]


_TABLES = (markovscale_table, study_table, optscale_table, optscale_summary, auditor_table)


def _figure(module: ModuleType) -> Figure[PaperSources]:
    name = module.__name__.rpartition(".")[2]
    if module in _TABLES:
        return Figure(name, module.SAYS, module.make, table.SUFFIXES)
    return Figure(name, module.SAYS, module.make)


CATALOGUE = [
    _figure(module)
    for module in (
        markovscale_methods,
        markovscale_rounds,
        markovscale_bounds,
        markovscale_table,
        study_front,
        study_rounds,
        study_rules,
        study_table,
        study_predictions,
        atlas_gains,
        optscale_n_star,
        optscale_curves,
        optscale_table,
        optscale_summary,
        optpo_rollouts,
        optpo_margin,
        optpo_error,
        claims_residuals,
        heterogeneity_bias,
        regret_map,
        calibration_ranks,
        misspecification,
        auditor_table,
    )
]

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
