"""The decision card as a self-contained page: what to do, commands, policies, reasons."""

from html import escape
from pathlib import Path

from msjax._io import write_text
from msjax.decision.card import Card, Decision
from msjax.decision.words import commands, headline, statements, table_of, title
from msjax.report import page

__all__ = ["write"]


def write(card: Card, path: Path) -> Path:
    """Write one page with every decision of the card and return its path.

    Args:
        card: as `msjax.decision.card.decide` returns it.
        path: file to write; its folder is made if need be.
    """
    body = ["<h1>What to do</h1>"]
    body += [f"<p class=warning>{escape(warning)}</p>" for warning in card.warnings]
    for decision in card.decisions:
        body += _decision(decision)
    write_text(path, page.frame("msjax card", body))
    return path


def _decision(decision: Decision) -> list[str]:
    header, *rows = table_of(decision)
    said = "".join(
        f"<tr><th class=text>{escape(label)}</th><td class=text>{escape(sentence)}</td></tr>"
        for label, sentence in statements(decision)
    )
    told = (f"<p>{escape(what)}: <code>{escape(x)}</code></p>" for what, x in commands(decision))
    return [
        f"<h2>{escape(title(decision))}</h2>",
        f"<p style='font-size:1.4em'><b>{escape(headline(decision))}</b></p>",
        *told,
        page.table(header, rows, text=(0, 1)),
        f"<table><tbody>{said}</tbody></table>",
    ]
