"""The figures that `msjax figures` draws of a user's own results, by name."""

from msjax.report.figures import accuracy_per_round, auditor, claims_report, replay, table
from msjax.report.figures.gallery import Figure
from msjax.report.figures.sources import Sources

CATALOGUE: list[Figure[Sources]] = [
    Figure(
        "accuracy_per_round",
        "accuracy per round, posterior band and limit (pilot.jsonl, fit.json)",
        accuracy_per_round.make,
    ),
    Figure("rules", "accuracy against tokens of all rules (replay.json)", replay.make),
    Figure(
        "auditor_table",
        "exact errors of rules that vote (audit.json)",
        auditor.make,
        table.SUFFIXES,
    ),
    Figure(
        "claims_residuals",
        "every claim of the theory, simulated (verify.json)",
        claims_report.make,
    ),
]
