"""What a recorded run amounts to: accuracy and tokens per benchmark."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from msjax.data.checks import differing_settings, hidden_by_labels, names_differing_in_case
from msjax.data.details import Details
from msjax.data.messages import CUT, KNOWN
from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage, total
from msjax.intervals import Interval


@dataclass(frozen=True)
class RunSummary:
    """One benchmark of a recorded run.

    Attributes:
        benchmark: its name.
        questions: how many.
        first_accuracy: share right of the first answers.
        accuracy: share right of the answers returned.
        answers: per question, the first included.
        unanswered: share of all answers in which no number was found.
        tokens: account of the whole run, in tokens.
        finish: number of answers by why they ended, in the servers' words; "" where that was not
            recorded.
    """

    benchmark: str
    questions: int
    first_accuracy: Interval
    accuracy: Interval
    answers: float
    unanswered: float
    tokens: Usage
    finish: dict[str, int]


def proportion(right: int, questions: int, level: float = 0.9) -> Interval:
    """Share right with its Jeffreys interval: quantiles of Beta(right + 1/2, wrong + 1/2),
    widened to 0 or 1 when none or all are right.

    Reference: Brown, Cai & DasGupta (2001), Statistical Science 16, 101-133.
    """
    wrong = questions - right
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    low, high = special.betaincinv(right + 0.5, wrong + 0.5, ends)
    return Interval(right / questions, float(low) if right else 0.0, float(high) if wrong else 1.0)


def accuracy_per_round(runs: Sequence[Trajectory]) -> list[Interval]:
    """Observed accuracy at round 0, 1, ... over the runs that reached it."""
    longest = max(run.revisions for run in runs)
    reached = [[run.correct[k] for run in runs if run.revisions >= k] for k in range(longest + 1)]
    return [proportion(sum(right), len(right)) for right in reached]


def summarise(runs: Sequence[Trajectory]) -> list[RunSummary]:
    """One summary per benchmark, in order of first appearance."""
    summaries = []
    for name in dict.fromkeys(run.benchmark for run in runs):
        mine = [run for run in runs if run.benchmark == name]
        answers = [answer for run in mine for answer in run.answers]
        summaries.append(
            RunSummary(
                benchmark=name,
                questions=len(mine),
                first_accuracy=proportion(sum(run.correct[0] for run in mine), len(mine)),
                accuracy=proportion(sum(run.right for run in mine), len(mine)),
                answers=len(answers) / len(mine),
                unanswered=answers.count(None) / len(answers),
                tokens=total(usage for run in mine for usage in run.tokens),
                finish=dict(Counter(reason or "" for run in mine for reason in run.finish)),
            )
        )
    return summaries


FEW = 0.03
"""Share of answers that may be cut at the limit without a word."""


def doubts(runs: Runs) -> list[str]:
    """What there is to say of runs before anything is estimated from them, in a sentence each.

    Names of benchmarks and models that differ in capital letters only, settings that differ among
    runs that are estimated together, runs that their labels seem to have stopped, and answers that
    did not end well.
    """
    names = (("benchmarks", runs.benchmarks), ("models", runs.models))
    alike = [
        f"{what} {', '.join(map(repr, group))} differ only in capital letters and are taken apart; "
        "give them one name if they are one"
        for what, each in names
        for group in names_differing_in_case(each)
    ]
    hidden = [f"{group.name}: {why}" for group in runs.groups if (why := hidden_by_labels(group))]
    return [
        *alike,
        *differing_settings(runs),
        *hidden,
        *ending_notes([runs.details] if runs.details else []),
    ]


def ending_notes(details: Sequence[Details]) -> list[str]:
    """What there is to say of how answers ended, in a sentence each; none if they ended well."""
    ends = _endings(details)
    notes = [
        f"{count} of {sum(ends.values())} answers ended with {reason!r}, which is no reason that "
        "msjax knows; they count as cut off"
        for reason, count in ends.items()
        if reason.lower() not in KNOWN
    ]
    return [*notes, cut] if (cut := cut_note(details)) else notes


def cut_note(details: Sequence[Details]) -> str:
    """How many answers were cut at the limit of new tokens, if more than a few were; else ""."""
    ends, blank = _endings(details), _endings(details, blank=True)
    total = sum(ends.values())
    cut, empty = (
        sum(count for reason, count in counts.items() if reason.lower() in CUT)
        for counts in (ends, blank)
    )
    if cut <= FEW * total:
        return ""
    inside = f", {empty} of them before any text, inside their thoughts" if empty else ""
    return (
        f"{cut} of {total} answers ({cut / total:.0%}) were cut at the limit "
        f"of new tokens{inside}; more of the same tells nothing, so raise max_new_tokens"
    )


def _endings(details: Sequence[Details], *, blank: bool = False) -> Counter[str]:
    """How many answers ended for each reason that was recorded; of the blank ones only."""
    found: Counter[str] = Counter()
    for one in details:
        numbers = one.reason[one.blank] if blank else one.reason
        counts = np.bincount(numbers[numbers >= 0], minlength=len(one.reasons))
        found.update({reason: int(n) for reason, n in zip(one.reasons, counts, strict=True) if n})
    return found
