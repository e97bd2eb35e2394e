"""`msjax card`: from recorded runs to one page that says what to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from msjax.cli.output import OutputFile, width
from msjax.cli.prices import Prices
from msjax.errors import InputError, require_uncertain

if TYPE_CHECKING:
    from msjax.decision.card import Decision
    from msjax.decision.guarantee import GuaranteedPolicy


_SURE = 0.1


@dataclass(frozen=True)
class Card(Prices):
    """Say what recorded runs decide: what to do, how sure that is, and what to record next.

    Policies (when to stop, which answer to return) are compared on the same questions: the first
    answer, every number of rounds, votes, best scores, stopping at a repeated answer, and a rule
    that learns from the labels of other questions. Without a price accuracy decides, then tokens.
    Intervals are 90 % and pay for the choice; nothing depends on a seed or on the order of lines.

    Example: msjax card pilot.jsonl --html card.html

    Example: msjax card --demo
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """JSON Lines files of recorded runs: rounds of revision, independent samples, or both."""
    demo: bool = False
    """Take the runs that come with msjax: a small model on arithmetic."""
    baseline: str = "all"
    """What you do at present: first, all (all rounds or samples recorded), or a policy's name."""
    margin: float = 0.02
    """Loss of accuracy up to which a policy is no worse."""
    no_worse: float | None = None
    """Also name the cheapest policy whose accuracy is not below the baseline's by more than this,
    with the probability --sure of being wrong."""
    sure: float | None = None
    """Greatest probability with which that sentence, or any of several, is wrong; 0.1 if not
    given."""
    cluster: str | None = None
    """Field of the records whose equal values mark questions that depend on each other; default:
    what the records call cluster, else equal texts."""
    fail_unless: Literal["better", "no-worse"] | None = None
    """Exit with status 1 unless every benchmark's policy to use is so, for use in CI."""
    html: OutputFile | None = None
    """Write the card as a self-contained page."""
    json: OutputFile | None = None
    """Write everything that is printed here, and every policy, as JSON."""

    def run(self) -> int:
        """Read, decide, print, write; 1 if a word that was asked for does not hold, else 0."""
        from msjax.data.importers.reading import read
        from msjax.decision.card import decide
        from msjax.decision.words import as_text

        worth, price = self.worth_and_price()
        self._check_guarantee()
        paths = self._paths()
        if self.html:
            from msjax.report.card import write  # what is not installed is said first
        card = decide(
            read(*paths),
            baseline=self.baseline,
            margin=self.margin,
            worth=None if price is None else worth,
            price=price,
            cluster=self.cluster,
            files=[str(path) for path in paths],
        )
        print(as_text(card, width()), end="")
        result = card.to_dict()
        guaranteed = self._guarantees(card.decisions)
        if guaranteed:
            result["guarantees"] = {name: one.to_dict() for name, one in guaranteed.items()}
        if self.json:
            from msjax.cli.output import write_json

            write_json(self.json, result)
        if self.html:
            sentences = {name: str(one) for name, one in guaranteed.items()}
            print(f"page: {write(card, self.html, sentences)}")
        enough = {"better": ("better",), "no-worse": ("better", "no worse")}
        wanted = enough.get(self.fail_unless or "")
        return int(wanted is not None and any(x.verdict not in wanted for x in card.decisions))

    def _check_guarantee(self) -> None:
        if self.sure is not None and self.no_worse is None:
            raise InputError(
                "--sure is given without --no-worse; say what loss of accuracy is accepted"
            )
        for option, value in (("--no-worse", self.no_worse), ("--sure", self.sure)):
            if value is not None:
                require_uncertain(option, value)

    def _guarantees(self, decisions: "Sequence[Decision]") -> "dict[str, GuaranteedPolicy]":
        """What is guaranteed for each benchmark, printed too; empty if that was not asked for."""
        if self.no_worse is None:
            return {}
        from msjax.decision.guarantee import guaranteed_policy

        found = {}
        for one in decisions:
            found[one.name] = guaranteed_policy(
                one.outcomes,
                one.judgement.baseline,
                eps=self.no_worse,
                delta=(_SURE if self.sure is None else self.sure) / len(decisions),
                cluster=one.pilot.cluster.tolist(),
            )
            print(f"guarantee, {one.name}: {found[one.name]}")
        return found

    def _paths(self) -> tuple[Path, ...]:
        if self.demo and self.runs:
            raise InputError("--demo takes the runs that come with msjax; name no files with it")
        if self.demo:
            return (Path(str(files("msjax") / "recorded" / "pilot.jsonl")),)
        if not self.runs:
            raise InputError("RUNS is empty; name files of recorded runs, or try --demo")
        return self.runs
