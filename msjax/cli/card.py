"""`msjax card`: from a pilot to one page that says what to do."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from msjax.cli.output import OutputFile, Seed, prepare_sampling
from msjax.errors import require_extra

if TYPE_CHECKING:
    from msjax.decision.card import Card as DecisionCard

_WIDTH, _LABEL = 98, 18


@dataclass(frozen=True)
class Card:
    """Say what a pilot decides: does revising help, which rule to use, and what to collect.

    The verdict compares the answers before and after revising, question by question, and assumes no
    chain. How many rounds to judge and which rule to use are chosen on other questions than those
    that the numbers are of. Intervals are 90 %.

    Example: msjax card pilot.jsonl --html card.html
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """JSON Lines files written by `msjax generate`: rounds of revision, and parallel answers of the
    same questions if they are to be compared."""
    margin: float = 0.02
    """Change of the accuracy up to which revising counts as neutral."""
    value: float = 1.0
    """Worth of a correct answer, in any unit."""
    price: float = 1e-4
    """Price of one token in the unit of --value."""
    html: OutputFile | None = None
    """Write the card as a self-contained page."""
    json: OutputFile | None = None
    """Write everything that is printed here as JSON."""
    seed: Seed = 0
    """Seed of all random draws."""

    def run(self) -> int:
        """Read, decide, print, write; 0 when done."""
        if self.html:
            require_extra("report", "matplotlib")
        prepare_sampling()
        import jax
        from tqdm import tqdm

        from msjax.cli.output import write_json
        from msjax.data.store import read_runs
        from msjax.decision.card import make_cards

        runs = [run for path in self.runs for run in read_runs(path)]
        with tqdm(desc="card", unit="benchmark", disable=None) as bar:

            def show(name: str) -> None:
                bar.set_postfix_str(name)
                bar.update()

            cards = make_cards(
                runs,
                jax.random.key(self.seed),
                margin=self.margin,
                value=self.value,
                price=self.price,
                progress=show,
            )
        for card in cards:
            print(_text(card))
        terms = (
            f"A right answer is worth {self.value:g}, a token costs {self.price:g}; intervals are "
            f"90 %; seed {self.seed}."
        )
        print(terms)
        if self.json:
            options = {x: getattr(self, x) for x in ("margin", "value", "price", "seed")}
            write_json(self.json, {**options, "cards": [as_dict(card) for card in cards]})
        if self.html:
            from msjax.report.card import write

            print(f"page: {write(cards, terms, self.html)}")
        return 0


def as_dict(card: "DecisionCard") -> dict[str, Any]:
    """Everything that a card says, in JSON's types."""
    from msjax.cli.output import plain
    from msjax.decision.card import statements

    decision, choice = card.decision, card.choice
    count = decision.count
    facts = {
        "benchmark": count.name,
        "model": card.model,
        "questions": count.questions,
        "rounds_recorded": count.rounds,
        "censored": count.n_censored,
        "verdict": decision.verdict,
        "judged": decision.judged and _named(decision.judged),
        "fold_rounds": decision.fold_rounds,
        "by": decision.by,
        "best_rounds": decision.rounds,
        "changes": [_named(change) for change in decision.changes],
        "choice": choice
        and {name: x for name, x in vars(choice).items() if name not in ("right", "spent")},
        "why_no_choice": card.why_not,
        "parallel": card.parallel,
        "chain": _named(decision.chain),
        "chain_trusted": decision.trusts_chain,
        "checks": decision.checks,
        "failed_checks": [check.name for check in decision.failed],
        "more": decision.more,
        "statements": dict(statements(card)),
    }
    return {name: plain(value) for name, value in facts.items()}


def _named(found: Any) -> Any:
    """The fields of dataclasses and named tuples as dictionaries, however deep."""
    if hasattr(found, "_asdict"):
        return found._asdict()
    if hasattr(found, "__dataclass_fields__"):
        return {name: _named(value) for name, value in vars(found).items()}
    if isinstance(found, dict):
        return {name: _named(value) for name, value in found.items()}
    return [_named(value) for value in found] if isinstance(found, tuple) else found


def _text(card: "DecisionCard") -> str:
    from msjax.decision.card import statements

    lines = [f"\n{card.title}", f"\n  {card.headline}\n"]
    for label, sentence in statements(card):
        lines.append(
            textwrap.fill(
                sentence,
                _WIDTH,
                initial_indent=f"  {label:<{_LABEL}}",
                subsequent_indent=" " * (_LABEL + 2),
            )
        )
    return "\n".join(lines) + "\n"
