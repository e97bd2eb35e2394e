"""Table: what the auditor says of every rule that votes.

Reference: docs/stopping.md; docs/theory.md E4, E6.
"""

from pathlib import Path

from msjax.report.figures import table
from msjax.report.figures.sources import Sources

__all__ = ["make"]


def make(sources: Sources, stem: Path) -> None:
    """One row per rule: exact errors, votes, and whether a claimed error is kept."""
    found = sources.json("audit.json")
    horizons = list(found[0]["null"])
    header = ["rule", "wrong", "undecided", "votes", "95 %", "in effect", "claims"]
    header += [*(f"null {t}" for t in horizons), "kept"]
    rows = []
    for one in found:
        margin, claimed = one["equivalent_margin"], one["claimed_error"]
        rows.append(
            [
                one["rule"],
                f"{one['error']:.4f}",
                f"{one['undecided']:.4f}",
                f"{one['expected_votes']:.2f}",
                f"{one['p95_votes']}",
                "no lead" if margin is None else f"lead of {margin}",
                "nothing" if claimed is None else f"{claimed:.3g}",
                *(f"{one['null'][t]:.4f}" for t in horizons),
                "" if claimed is None else ("yes" if one["anytime_valid"] else "NO"),
            ]
        )
    rates = ", ".join(f"{rate:g}" for rate in found[0]["rates"])
    note = (
        f"Independent votes with probabilities {rates} (right first), budget {found[0]['budget']}; "
        "all numbers exact. null t: probability of declaring within t votes between two equally "
        "likely answers."
    )
    table.write(header, rows, stem, sources.origin("exact recursion"), note)
