"""The decision card: from recorded runs to what to do, in numbers, words and commands.

Reference: docs/decisions.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from msjax.data.checks import names_differing_in_case, require_consistent_labels
from msjax.data.runs import Runs
from msjax.decision.advice import More, questions_needed
from msjax.decision.pilot import Pilot, pilots
from msjax.decision.policies import AS_RECORDED, Policy, PolicyOutcomes, policies_of
from msjax.decision.several import ModelDifference, Pooled, model_differences, pooled_changes
from msjax.decision.verdict import FEWEST, LEVEL, Intervals, Judgement, Outcomes, Verdict, judge
from msjax.errors import InputError, require_value_and_cost
from msjax.intervals import Interval

if TYPE_CHECKING:
    from msjax.posterior.judge import JudgePosterior
    from msjax.rules.protocol import StoppingRule

__all__ = ["SCHEMA", "Card", "Decision", "PolicyRow", "Terms", "decide"]

SCHEMA = 1
"""Version of what `Card.to_dict` returns."""

Status = Literal["judged", "too few", "not identified"]


@dataclass(frozen=True)
class Terms:
    """What was asked for.

    Attributes:
        baseline: the policy in use at present.
        margin: a loss up to this counts as none (probability, or right answers per question).
        worth: of a right answer, in the unit of `price`; None if not given.
        price: of an uncached token; None if not given.
        level: probability that intervals hold, for each benchmark of a family.
        family: benchmarks judged together; with so many, `level` is .9 for all of them at once.
    """

    baseline: str
    margin: float
    worth: float | None
    price: float | None
    level: float
    family: int

    @property
    def token_price(self) -> float | None:
        """Price of a token in right answers."""
        return None if self.price is None or self.worth is None else self.price / self.worth


@dataclass(frozen=True)
class PolicyRow:
    """One policy and what it did.

    Attributes:
        policy: when to stop and which answer to return.
        questions: questions that show it.
        right: right answers among them; None where averaged over foldings or orders.
        first_right: right first answers among the same questions.
        accuracy: share right.
        gain, against: accuracy less that of the first answer, and of the baseline; None where not
            known.
        tokens: mean tokens per question by category.
        uncached, saving: mean uncached tokens, and those saved against the baseline; None where
            tokens were not reported.
        net: net value less that of the first answer, in right answers; None without a price.
        answers: mean answers asked for.
        extra_tokens: mean uncached tokens more than the first answer takes.
        eligible: whether enough questions show it to be recommended.
    """

    policy: Policy
    questions: int
    right: int | None
    first_right: float
    accuracy: Interval
    gain: Interval | None
    against: Interval | None
    tokens: dict[str, float]
    uncached: Interval | None
    saving: Interval | None
    net: Interval | None
    answers: float
    extra_tokens: float | None
    eligible: bool

    @property
    def tokens_per_right(self) -> float | None:
        """Extra tokens that buy one more right answer; None where there is none to buy."""
        if self.extra_tokens is None or self.gain is None:
            return None
        if self.extra_tokens <= 0 or self.gain.estimate <= 0:
            return None
        return self.extra_tokens / self.gain.estimate

    @property
    def break_even(self) -> Interval | None:
        """Price of a token, in right answers, below which the policy beats the first answer.

        None where it takes no more tokens than that or these are not known. An end below 0: at no
        price.
        """
        if self.extra_tokens is None or self.gain is None or self.extra_tokens <= 0:
            return None
        ends = (x / self.extra_tokens for x in (self.gain.estimate, self.gain.low, self.gain.high))
        return Interval(*ends)


@dataclass(frozen=True, repr=False)
class Decision:
    """What the runs of one benchmark and model decide.

    Attributes:
        pilot: the runs.
        terms: what was asked for.
        outcomes: what every policy did, question by question.
        judgement: estimates, intervals, choice and word.
        more: what would decide, where the runs do not.
        files: names of the files that the runs came from.
    """

    pilot: Pilot
    terms: Terms
    outcomes: PolicyOutcomes
    judgement: Judgement
    more: More | None
    files: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Decision({self.name!r}: use {self.use.name}, {self.verdict})"

    @property
    def name(self) -> str:
        """Benchmark, and the model where there are several."""
        return self.pilot.name

    @property
    def status(self) -> Status:
        """Whether there is enough to judge."""
        if self.pilot.hidden is not None and len(self.outcomes.policies) == 1:
            return "not identified"
        return "too few" if self.judgement.clusters[0] < FEWEST else "judged"

    @property
    def verdict(self) -> Verdict:
        """What the policy under `use` is, compared with `reference`."""
        return self.judgement.verdict if self.status == "judged" else "cannot tell"

    @property
    def use(self) -> Policy:
        """The policy to use."""
        return self.outcomes.policies[self.judgement.chosen]

    @property
    def reference(self) -> Policy:
        """What the word compares the policy under `use` with."""
        return self.outcomes.policies[self.judgement.reference]

    @property
    def baseline(self) -> Policy:
        """The policy in use at present."""
        return self.outcomes.policies[self.judgement.baseline]

    @property
    def rule(self) -> "StoppingRule":
        """The policy under `use` as a rule, for live questions."""
        return self.use.rule

    @cached_property
    def policies(self) -> tuple[PolicyRow, ...]:
        """Every policy compared."""
        return tuple(_row(self, j) for j in range(len(self.outcomes.policies)))

    @cached_property
    def judge(self) -> "JudgePosterior | None":
        """How often the judge accepts right and wrong answers; None where none was asked."""
        runs = self.pilot.seen if self.pilot.seen is not None else self.pilot.runs
        if not (runs.real & (runs.verdicts >= 0)).any():
            return None
        from msjax.posterior.judge import fit_judge  # not for pages without a judge

        return fit_judge(runs)

    @property
    def chosen(self) -> PolicyRow:
        """The row of the policy under `use`."""
        return self.policies[self.judgement.chosen]

    @property
    def difference(self) -> Interval:
        """The policy under `use` less the reference: accuracy, or net value with a price."""
        return Interval(*self.judgement.difference)


@dataclass(frozen=True, repr=False)
class Card:
    """What recorded runs decide, benchmark by benchmark.

    Attributes:
        decisions: one for every benchmark and model, in order of their names.
        terms: what was asked for.
        warnings: what concerns all of them.
    """

    decisions: tuple[Decision, ...]
    terms: Terms
    warnings: tuple[str, ...] = field(default=())

    @cached_property
    def pooled(self) -> tuple[Pooled, ...]:
        """The change by plain revision on every benchmark, alone and partially pooled."""
        return tuple(pooled_changes(self.decisions))

    @cached_property
    def models(self) -> tuple[ModelDifference, ...]:
        """Differences between models that answered the same questions."""
        return tuple(model_differences(self.decisions))

    @property
    def single(self) -> Decision:
        """The one decision.

        Raises InputError where there are several.
        """
        if len(self.decisions) > 1:
            names = ", ".join(one.name for one in self.decisions)
            raise InputError(f"card: holds several benchmarks ({names}); take one of `decisions`")
        return self.decisions[0]

    @property
    def rule(self) -> "StoppingRule":
        """The policy to use as a stopping rule, of a card with one benchmark."""
        return self.single.rule

    @property
    def policies(self) -> tuple[PolicyRow, ...]:
        """Every policy compared, of a card with one benchmark."""
        return self.single.policies

    @property
    def verdict(self) -> Verdict:
        """The word on the policy to use, of a card with one benchmark."""
        return self.single.verdict

    @property
    def statements(self) -> list[tuple[str, str]]:
        """Labels and sentences, most important first, of a card with one benchmark."""
        from msjax.decision.words import statements

        return statements(self.single)

    def to_dict(self) -> dict[str, Any]:
        """Everything that the card says, in JSON's types."""
        from msjax.decision.words import as_dict

        return as_dict(self)

    def __str__(self) -> str:
        from msjax.decision.words import as_text

        return as_text(self)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from msjax.decision.words import as_html

        return as_html(self)


def decide(
    runs: Any,
    baseline: str = "all",
    margin: float = 0.02,
    worth: float | None = None,
    price: float | None = None,
    cluster: str | None = None,
    files: Sequence[str] = (),
) -> Card:
    """Compare every policy that recorded runs can judge, recommend one, and say how sure that is.

    Args:
        runs: rounds of revision, independent samples, or both, of any number of benchmarks: `Runs`,
            or what `Runs.from_arrays` takes.
        baseline: the policy in use at present: "first", "all" (all rounds or samples recorded), or
            the name of another policy.
        margin: a loss of accuracy up to this counts as none (probability).
        worth: of a right answer, in any unit of money.
        price: of an uncached token in the same unit. With both, net value decides; without,
            accuracy does, and prices at which the tokens pay are shown.
        cluster: field of the records whose equal values mark questions that depend on each other.
        files: names of the files the runs came from, for the commands that are shown.

    Raises:
        InputError: margin outside [0, 1), worth not above 0, price below 0, a price without a
            worth, a baseline that was not recorded, a cluster field that is missing, or runs that
            contradict themselves.

    Reference: docs/decisions.md.
    """
    _require("margin", margin, 0 <= margin < 1, "give a probability in [0, 1)")
    require_value_and_cost(worth, named="worth", price=price)
    runs = Runs.of(runs)
    require_consistent_labels(runs)
    found = pilots(runs, cluster)
    level = LEVEL ** (1 / len(found))
    terms = Terms(baseline, margin, worth, price, level, len(found))
    names = (("benchmarks", runs.benchmarks), ("models", runs.models))
    warnings = [
        f"{what} {', '.join(map(repr, group))} differ only in capital letters and are judged "
        "apart; give them one name if they are one"
        for what, each in names
        for group in names_differing_in_case(each)
    ]
    decisions = tuple(_decide(pilot, terms, tuple(files)) for pilot in found)
    return Card(decisions, terms, tuple(warnings))


def _require(name: str, value: float, holds: bool, remedy: str) -> None:
    if not holds:
        raise InputError(f"{name} is {value}; {remedy}")


def _decide(pilot: Pilot, terms: Terms, files: tuple[str, ...]) -> Decision:
    recorded = None
    if pilot.recorded is not None and pilot.seen is not None:
        recorded = (pilot.seen, pilot.recorded.last, pilot.recorded.right)
    outcomes = policies_of(
        pilot.rounds,
        pilot.samples,
        longer=pilot.longer,
        token_price=terms.token_price or 0.0,
        groups=[str(number) for number in pilot.cluster] if _clustered(pilot) else None,
        recorded=recorded,
    )
    base = _baseline(pilot, outcomes.policies, terms.baseline)
    uncached = outcomes.uncached
    if terms.token_price is not None and np.isnan(uncached[:, 0]).all():
        raise InputError(
            f"price is {terms.price:g}, but {pilot.name} reports no tokens; leave the price out, "
            "or record tokens"
        )
    judgement = judge(
        Outcomes(
            outcomes.right,
            uncached,
            pilot.cluster,
            base,
            outcomes.asked if np.isnan(uncached).all() else None,
        ),
        margin=terms.margin,
        token_price=terms.token_price,
        level=terms.level,
    )
    decision = Decision(pilot, terms, outcomes, judgement, None, files)
    if decision.status == "judged" and decision.verdict == "cannot tell":
        more = questions_needed(judgement, terms.margin, terms.level)
        decision = Decision(pilot, terms, outcomes, judgement, more, files)
    return decision


def _clustered(pilot: Pilot) -> bool:
    return len(set(pilot.cluster.tolist())) < len(pilot.cluster)


def _baseline(pilot: Pilot, policies: Sequence[Policy], name: str) -> int:
    """Position of the policy in use at present."""
    names = [policy.name for policy in policies]
    if name == "all":
        if AS_RECORDED in names:
            return names.index(AS_RECORDED)
        if pilot.rounds is not None:
            return pilot.rounds.rounds
        majorities = [j for j, one in enumerate(policies) if one.returns == "majority"]
        return majorities[-1] if majorities else len(names) - 1
    if name in names:
        return names.index(name)
    raise InputError(
        f"baseline is {name!r}, which was not recorded for {pilot.name}; use all, "
        f"{', '.join(names)}"
    )


def _row(decision: Decision, j: int) -> PolicyRow:
    found, outcomes = decision.judgement, decision.outcomes
    right = outcomes.right[:, j]
    known = ~np.isnan(right)
    count = np.nansum(right)
    whole = bool((np.mod(right[known], 1) == 0).all())
    extra = outcomes.uncached[:, j] - outcomes.uncached[:, 0]
    priced = decision.terms.token_price is not None
    accuracy = _interval(found.accuracy, j)
    assert accuracy is not None
    return PolicyRow(
        outcomes.policies[j],
        int(known.sum()),
        round(count) if whole else None,
        float(np.nansum(outcomes.right[known, 0])),
        accuracy,
        _interval(found.gain, j),
        _interval(found.against, j),
        {name: _mean(values[:, j]) for name, values in outcomes.tokens.items()},
        _interval(found.tokens, j),
        _interval(found.saving, j),
        _interval(found.net_gain, j) if priced else None,
        _mean(outcomes.asked[:, j]),
        None if np.isnan(extra).all() else _mean(extra),
        bool(found.eligible[j]),
    )


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


def _interval(found: Intervals, j: int) -> Interval | None:
    """None where the quantity is not known."""
    if np.isnan(found.estimate[j]):
        return None
    return Interval(float(found.estimate[j]), float(found.low[j]), float(found.high[j]))
