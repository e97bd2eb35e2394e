"""The decision card as a page: verdict, what to do, and the curves behind it."""

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from msjax._io import write_text
from msjax.decision.card import Card, statements
from msjax.decision.verdict import Decision
from msjax.evaluate.summary import proportion
from msjax.report import page
from msjax.report.figures import style

__all__ = ["write"]

_TITLE = "Does revising help?"
_SHARES = (
    ("helps", style.MODEL, "white"),
    ("neutral", "#bbbbbb", "black"),
    ("hurts", style.RULE, "white"),
)
_LABELS = {
    "verdict": "What revising does",
    "use": "What to do",
    "expect": "What to expect of it",
    "tokens saved": "Tokens saved",
    "parallel samples": "Asking several times instead",
    "more rounds": "More rounds than were recorded",
    "assumptions": "Is it one chain?",
    "collect": "What to record next",
}
_READING = (
    "A round asks the model to look at its answer again and to revise it. Left: the share of right "
    "answers as recorded, and what one chain (a fixed chance to repair a wrong answer and a fixed "
    "chance to break a right one) makes of it; broken where the checks contradict such a chain. "
    "Right: the accuracy after so many rounds less that of the first answer; within the grey band "
    "a change counts as none. A right answer that a revision breaks weighs as much as a wrong one "
    "that it repairs. All intervals are 90 %."
)


def write(cards: Sequence[Card], terms: str, path: Path) -> Path:
    """Write one self-contained page with every card and return its path.

    Args:
        cards: as `msjax.decision.card.make_cards` returns them.
        terms: value, price and seed in words.
        path: file to write; its folder is made if need be.
    """
    body = [f"<h1>{_TITLE}</h1>"]
    for card in cards:
        body += [f"<h2>{escape(card.title)}</h2>", _headline(card), _bar(card.decision)]
        body.append(_statements(card))
        if card.decision.changes:
            caption = f"{card.title}: accuracy per round, and its change against the first answer"
            body.append(page.image(_draw(card.decision), caption))
        if failed := [(check.name, check.sentence) for check in card.decision.failed]:
            body.append(page.table(("check that fails", "what was found"), failed, text=(1,)))
    body.append(f"<p class='note'>{escape(_READING)} {escape(terms)}</p>")
    write_text(path, page.frame("msjax card", body))
    return path


def _headline(card: Card) -> str:
    return f"<p style='font-size:1.6em;margin:.2em 0'><b>{escape(card.headline)}</b></p>"


def _bar(decision: Decision) -> str:
    """The three probabilities as one bar."""
    judged = decision.judged
    if judged is None:
        return ""
    parts = []
    for name, colour, ink in _SHARES:
        share = getattr(judged, name)
        text = f"{name} {share:.0%}"
        inside = text if share > 0.15 else ""
        parts.append(
            f"<span title='{text}' style='width:{100 * share:.1f}%;background:{colour};"
            f"color:{ink};overflow:hidden;text-align:center'>{inside}</span>"
        )
    return (
        "<div style='display:flex;height:1.7em;line-height:1.7em;max-width:40em;font-size:13px'>"
        f"{''.join(parts)}</div>"
    )


def _statements(card: Card) -> str:
    rows = [
        f"<tr><th style='text-align:left;white-space:nowrap;vertical-align:top'>{_LABELS[label]}"
        f"</th><td class=text>{escape(sentence[0].upper() + sentence[1:])}.</td></tr>"
        for label, sentence in statements(card)
    ]
    return f"<table style='font-size:15px'><tbody>{''.join(rows)}</tbody></table>"


def _draw(decision: Decision) -> bytes:
    with style.panels(2, 3.6, 3.1, share_y=False) as (figure, (accuracy, change)):
        _accuracy(accuracy, decision)
        _change(change, decision)
        drawn = io.BytesIO()
        figure.savefig(drawn, metadata={"Software": None})
    return drawn.getvalue()


def _accuracy(axis: Axes, decision: Decision) -> None:
    count = decision.count
    if decision.chain.accuracy:
        curve = decision.chain.accuracy[: count.rounds + 1]
        trusted = decision.trusts_chain
        rounds = range(len(curve))
        axis.fill_between(
            rounds,
            [point.low for point in curve],
            [point.high for point in curve],
            color=style.MODEL,
            alpha=0.2,
            lw=0,
        )
        axis.plot(
            rounds,
            [point.mean for point in curve],
            color=style.MODEL,
            ls="-" if trusted else "--",
            label="one chain" if trusted else "one chain (contradicted)",
        )
    reached = (count.correct >= 0).sum(axis=0)
    right = (count.correct == 1).sum(axis=0)
    seen = [proportion(int(r), int(n)) for r, n in zip(right, reached, strict=True)]
    estimates = np.array([point.estimate for point in seen])
    ends = np.array([[point.low for point in seen], [point.high for point in seen]])
    axis.errorbar(
        range(len(seen)),
        estimates,
        yerr=np.abs(ends - estimates),
        fmt="o",
        ms=4,
        capsize=2,
        color=style.OBSERVED,
        label=f"recorded (n = {count.questions})",
    )
    axis.set_ylim(0, 1)
    axis.set_xticks(range(len(seen)))
    axis.set_xlabel("rounds of revision")
    axis.set_ylabel("accuracy")
    axis.legend(fontsize=7, loc="best")


def _change(axis: Axes, decision: Decision) -> None:
    changes = decision.changes
    middle = np.array([found.change.mean for found in changes])
    ends = np.array([[found.change.low for found in changes], [f.change.high for f in changes]])
    axis.axhspan(-decision.margin, decision.margin, color="#bbbbbb", alpha=0.5, lw=0)
    axis.axhline(0, color=style.OBSERVED, lw=0.8)
    rounds = [found.rounds for found in changes]
    axis.errorbar(
        rounds, middle, yerr=np.abs(ends - middle), fmt="D", ms=4, capsize=2, color=style.RULE
    )
    reach = 1.15 * max(float(np.abs(ends).max()), decision.margin)
    axis.set_ylim(-reach, reach)
    axis.set_xlim(0.4, len(changes) + 0.6)
    axis.set_xticks(rounds)
    axis.set_xlabel("rounds of revision")
    axis.set_ylabel("change of accuracy")
