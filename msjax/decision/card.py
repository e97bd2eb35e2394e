"""The decision card: from a pilot to what to do, each statement a label and a sentence."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.decision.policies import Choice, ParallelAlternative, choose_rule, parallel_alternative
from msjax.decision.verdict import FEWEST, SIZES, Decision, decide
from msjax.errors import InputError
from msjax.evaluate.crossfit import FOLDS
from msjax.evaluate.paired import Interval
from msjax.posterior.analysis import check_benchmark
from msjax.posterior.quantities import Estimate

USUAL = 50
"""Questions of a usual pilot."""

_VERDICTS = {
    "helps": "REVISING HELPS",
    "neutral": "REVISING CHANGES NOTHING",
    "hurts": "REVISING HURTS",
    "does not help": "REVISING DOES NOT HELP",
    "undecided": "THIS PILOT CANNOT TELL",
    "too small": "TOO SMALL A PILOT",
    "not identified": "NOT IDENTIFIED",
}


@dataclass(frozen=True)
class Card:
    """One benchmark: what is decided, the rule to use, and the parallel alternative.

    `why_not` says why no rule could be chosen, None where one was. `parallel` is None where there
    are no parallel answers of the same questions.
    """

    model: str
    decision: Decision
    choice: Choice | None
    why_not: str | None
    parallel: ParallelAlternative | None

    @property
    def title(self) -> str:
        """Which runs the card is about."""
        count = self.decision.count
        return (
            f"{count.name} ({self.model}): {_counted(count.questions, 'question')}, "
            f"up to {_rounds(count.rounds)}"
        )

    @property
    def headline(self) -> str:
        """The verdict in capitals."""
        return _VERDICTS[self.decision.verdict]


def make_cards(
    runs: Iterable[Trajectory],
    key: PRNGKeyArray,
    *,
    margin: float = 0.02,
    value: float = 1.0,
    price: float = 1e-4,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Card]:
    """One card for every benchmark and model with rounds of revision, in order of appearance.

    Parallel runs of the same benchmark and model are what revising is compared with.

    Raises:
        InputError: runs as `Runs.from_records` refuses them, prefixes of a trace, parallel
            answers of a benchmark without rounds, or margin, value or price out of range.
    """
    rounds: defaultdict[tuple[str, str], list[Trajectory]] = defaultdict(list)
    samples: defaultdict[tuple[str, str], list[Trajectory]] = defaultdict(list)
    for run in runs:
        if run.protocol == "prefix":
            raise InputError(
                f"{run.benchmark} ({run.model}): its answers come from prefixes of one reasoning "
                "trace, which are no revisions; see `msjax replay` for when to cut a trace"
            )
        (samples if run.protocol == "parallel" else rounds)[run.benchmark, run.model].append(run)
    for benchmark, model in samples.keys() - rounds.keys():
        raise InputError(
            f"{benchmark} ({model}): has parallel answers only, which say nothing of revising; "
            "give the file with its rounds of revision too"
        )
    if not rounds:
        raise InputError("runs: none given; record some with `msjax generate`")
    cards = []
    for i, (group, mine) in enumerate(rounds.items()):
        progress(group[0])
        other = samples.get(group)
        cards.append(
            _card(mine, other, jax.random.fold_in(key, i), margin=margin, value=value, price=price)
        )
    return cards


def _card(
    runs: list[Trajectory],
    samples: list[Trajectory] | None,
    key: PRNGKeyArray,
    *,
    margin: float,
    value: float,
    price: float,
) -> Card:
    decide_key, choose_key, parallel_key = jax.random.split(key, 3)
    (count,) = Runs.from_records(runs).groups
    pool, why_not = None, None
    try:
        pool = count.require_complete()
    except InputError as error:
        why_not = str(error)
    right = None if pool is None else _returned(pool)
    decision = decide(
        count,
        right,
        check_benchmark(count, key),
        decide_key,
        margin=margin,
        value=value,
        price=price,
    )
    if not count.rounds:
        why_not = "no round of revision was recorded"
    elif decision.verdict == "too small":
        why_not = f"too few questions ({count.questions}); record at least {FEWEST}"
    choice = None
    if pool is not None and why_not is None:
        choice = choose_rule(pool, choose_key, value=value, price=price)
    parallel = None
    if samples and pool is not None and choice is not None:
        parallel = parallel_alternative(pool, choice, Runs.from_records(samples), parallel_key)
    return Card(runs[0].model, decision, choice, why_not, parallel)


def _returned(pool: Runs) -> np.ndarray:
    """Whether the answer after k rounds is right; runs that ended earlier return their last."""
    last = np.minimum(np.arange(pool.samples), pool.recorded[:, None] - 1)
    return np.take_along_axis(pool.right, last, axis=1)


def statements(card: Card) -> list[tuple[str, str]]:
    """The card as labels and sentences, most important first."""
    return [
        ("verdict", _verdict(card)),
        ("use", _use(card)),
        *_expected(card),
        ("parallel samples", _parallel(card)),
        ("more rounds", _beyond(card)),
        ("assumptions", _assumptions(card)),
        ("collect", _collect(card)),
    ]


def _verdict(card: Card) -> str:
    decision, judged = card.decision, card.decision.judged
    if judged is None:
        return f"nothing can be said of what revising does: {_unidentified(card)}"
    given = "" if decision.by == "paired answers" else " (by the chain, as runs were cut short)"
    return (
        f"after {_judged_rounds(decision)} the accuracy differs by "
        f"{_estimate(judged.change, '+')} from that of the first answer, and is "
        f"{_estimate(judged.accuracy)}{given}; helps with probability {judged.helps:.2f}, neutral "
        f"{judged.neutral:.2f}, hurts {judged.hurts:.2f} (neutral: at most "
        f"{decision.margin:g} either way)"
    )


def _judged_rounds(decision: Decision) -> str:
    """After how many rounds most folds were judged, and which after another number."""
    assert decision.judged is not None
    best = decision.judged.rounds
    folds = Counter(decision.fold_rounds or [best])
    usual = max(folds, key=lambda k: (folds[k], k == best))
    others = ", ".join(f"{k} in {times}" for k, times in sorted(folds.items()) if k != usual)
    return _rounds(usual) + (f" ({others} of {folds.total()} folds)" if others else "")


def _unidentified(card: Card) -> str:
    count = card.decision.count
    if count.n_censored:
        return (
            f"{count.n_censored} of {count.questions} runs looked at the label to stop, so what "
            "revising breaks (p_ci) cannot be seen"
        )
    if not count.rounds:
        return "no round of revision was recorded"
    return "runs were cut short by a rule, and the chain that could stand in is contradicted"


def _use(card: Card) -> str:
    decision, choice = card.decision, card.choice
    if choice is None:
        if decision.rounds is not None and decision.verdict != "too small":
            return f"{_stop(decision.rounds)} (by the chain; no rule was compared: {card.why_not})"
        known = decision.judged is not None
        return f"no rule can be recommended: {card.why_not if known else _unidentified(card)}"
    if choice.rule == "fixed":
        return _stop(int(choice.setting.split()[0]))
    return f"rule {choice.rule} ({choice.setting}): {choice.says}"


def _stop(rounds: int) -> str:
    return f"{_rounds(rounds)}, then the last answer" if rounds else "the first answer, unrevised"


def _expected(card: Card) -> list[tuple[str, str]]:
    choice = card.choice
    if choice is None:
        return []
    times = Counter(choice.folds).most_common()
    picked = (
        f"{times[0][0]} in all folds"
        if len(times) == 1
        else ", ".join(f"{name} ({n} of {FOLDS} folds)" for name, n in times)
    )
    gain = f", {_interval(choice.gain, '+')} against the first answer" if choice.rounds else ""
    share = choice.saved.estimate / choice.all_tokens if choice.all_tokens else 0.0
    return [
        (
            "expect",
            f"accuracy {_interval(choice.accuracy)}{gain}, {choice.rounds:.1f} rounds per "
            f"question, on questions that had no part in the choice, which was {picked}",
        ),
        (
            "tokens saved",
            f"{_interval(choice.saved, digits=0)} of the {choice.all_tokens:,.0f} per question "
            f"that all rounds take ({share:.0%})",
        ),
    ]


def _parallel(card: Card) -> str:
    found = card.parallel
    if found is None:
        return "not identified: the runs hold no parallel answers of the same questions"
    return (
        f"the majority of {found.samples} independent answers ({found.tokens:,.0f} tokens) has "
        f"accuracy {found.accuracy:.2f}, {_interval(found.difference, '+')} against the rule, "
        f"{_counted(found.questions, 'question')}"
    )


def _beyond(card: Card) -> str:
    decision = card.decision
    chain, recorded = decision.chain, decision.count.rounds
    if chain.optimal_rounds is None:
        unseen = ", ".join(name for name, rate in chain.rates.items() if rate is None)
        return f"not identified: the runs do not show {unseen}"
    if decision.failed:
        return f"no number beyond the {recorded} recorded: the runs are not one chain"
    assert chain.limit is not None
    limit = f"the limit is {_estimate(chain.limit)}"
    if chain.optimal_rounds <= recorded:
        return f"more than the {recorded} recorded gain nothing, by the chain; {limit}"
    return (
        f"{_rounds(chain.optimal_rounds)} are best by the chain, worth {chain.gain:.3f} more per "
        f"question than those recorded; {limit}; record them before relying on it"
    )


def _assumptions(card: Card) -> str:
    decision = card.decision
    failed = ", ".join(f"{check.name} (p = {check.p_value:.3g})" for check in decision.failed)
    unchecked = ", ".join(check.name for check in decision.checks if check.contradicted is None)
    found = (
        f"one chain is contradicted: {failed}; the verdict does not rest on it"
        if failed
        else "no check contradicts one chain, which proves nothing"
    )
    return f"{found}; not checked: {unchecked}" if unchecked else found


def _collect(card: Card) -> str:
    decision, more = card.decision, card.decision.more
    if decision.verdict == "not identified":
        remedy = "without looking at labels " if decision.count.n_censored else ""
        return f"record {USUAL} questions {remedy}with 3 rounds each, none cut short"
    if more is None:
        if decision.verdict == "undecided":
            return f"record {USUAL} questions with all their rounds, none cut short"
        return "nothing more for this verdict"
    assert decision.judged is not None
    rounds = _rounds(decision.judged.rounds)
    if more.questions is None or more.tokens is None:
        return (
            f"not even {SIZES[-1]:,} more questions would decide ({more.chance:.0%} of simulated "
            "futures): "
            "the change is too close to the margin; decide by cost, or choose another --margin"
        )
    return (
        f"{more.questions:,} more questions with {rounds} (about {more.tokens:,.0f} tokens), which "
        f"would decide in {more.chance:.0%} of simulated futures"
    )


def _rounds(k: int) -> str:
    return _counted(k, "round")


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _estimate(found: Estimate, sign: str = "") -> str:
    return f"{found.mean:{sign}.2f} [{found.low:{sign}.2f}, {found.high:{sign}.2f}]"


def _interval(found: Interval, sign: str = "", digits: int = 2) -> str:
    form = f"{sign},.{digits}f"
    return f"{found.estimate:{form}} [{found.low:{form}}, {found.high:{form}}]"
