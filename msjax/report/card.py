"""The decision card as a self-contained page: what to do, commands, policies, pictures, reasons.

Every word and number is that of `msjax.decision.words`, as on the terminal and in JSON.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msjax._io import write_text
from msjax.decision.card import Card, Decision
from msjax.decision.words import (
    INTERVALS,
    ChangedQuestion,
    changed_questions,
    commands,
    headline,
    shown_rows,
    side_by_side,
    statements,
    title,
    whole_table,
)
from msjax.report import page, pictures

__all__ = ["parts", "write"]

_MOST = 50
"""Changed questions of one kind that a page holds."""


def write(card: Card, path: Path, guarantees: Mapping[str, str] | None = None) -> Path:
    """Write one page with every decision of the card and return its path.

    Args:
        card: as `msjax.decision.card.decide` returns it.
        path: file to write; its folder is made if need be.
        guarantees: sentences by the name of the decision, where guarantees were asked for.
    """
    write_text(path, page.render("card.html.j2", title="msjax card", card=parts(card, guarantees)))
    return path


def parts(card: Card, guarantees: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What pages show of a card, by the names that their templates use."""
    return {
        "warnings": card.warnings,
        "decisions": [_values(one, (guarantees or {}).get(one.name)) for one in card.decisions],
        "together": side_by_side(card),
        "forest": pictures.forest(card),
        "pooled": bool(card.pooled),
        "models": bool(card.models),
        "intervals": INTERVALS,
    }


def _values(decision: Decision, guarantee: str | None) -> dict[str, Any]:
    shown = shown_rows(decision)
    others = [row for row in decision.policies if row not in shown]
    return {
        "name": decision.name,
        "title": title(decision),
        "headline": headline(decision),
        "verdict": decision.verdict,
        "commands": commands(decision),
        "table": whole_table(decision, shown),
        "use": decision.use.name,
        "present": decision.baseline.name,
        "others": whole_table(decision, others) if others else None,
        "frontier": pictures.frontier(decision, shown),
        "tokens_known": all(row.uncached is not None for row in shown),
        "changes": pictures.changes(decision),
        "questions": sorted({min(counts := [row.questions for row in shown]), max(counts)}),
        "statements": statements(decision),
        "guarantee": guarantee,
        "changed": _changed(changed_questions(decision)),
    }


def _changed(found: list[ChangedQuestion]) -> list[dict[str, Any]]:
    """Changed questions by how they ended, of each kind the first ones."""
    kinds = {
        "Repaired: wrong at first, right at last": (False, True),
        "Broken: right at first, wrong at last": (True, False),
        "There and back: right at first and at last": (True, True),
        "There and back: wrong at first and at last": (False, False),
    }
    groups = []
    for name, ends in kinds.items():
        own = [one for one in found if (one.right[0], one.right[-1]) == ends]
        if own:
            groups.append({"name": name, "count": len(own), "questions": own[:_MOST]})
    return groups
