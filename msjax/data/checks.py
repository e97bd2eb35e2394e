"""Whether runs are what they say: labels that contradict each other, runs cut by a label."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Int

from msjax.data.runs import Runs
from msjax.errors import InputError

__all__ = [
    "cut_by_label",
    "differing_settings",
    "hidden_by_labels",
    "labels_accumulate",
    "names_differing_in_case",
    "repeated_questions",
    "require_consistent_labels",
]

_SELDOM = 0.01
_FEW_CUT, _FEW_REPAIRS, _FEW_AT_RISK = 3, 5, 50


def require_consistent_labels(runs: Runs) -> None:
    """Raise InputError at the first run in which equal answers have unequal labels."""
    for first in range(runs.correct.shape[1]):
        same = (runs.answers[:, first + 1 :] == runs.answers[:, [first]]) & runs.real[
            :, first + 1 :
        ]
        other = runs.correct[:, first + 1 :] != runs.correct[:, [first]]
        bad = same & other & (runs.answers[:, [first]] >= 0)
        if bad.any():
            row, later = np.argwhere(bad)[0]
            what = "samples" if runs.protocols[row] == "parallel" else "rounds"
            answer = ""
            if runs.records is not None:
                answer = f" ({runs.records[row].answers[first]!r})"
            raise InputError(
                f"line {row + 1} (question_id {runs.question_ids[row]!r} of "
                f"{runs.benchmarks[row]!r}): {what} {first} and {first + 1 + later} give the same "
                f"answer{answer} but only one is marked correct; mend the labels"
            )


def cut_by_label(runs: Runs, cut: Bool[np.ndarray, " row"]) -> bool:
    """Whether runs that ended early look as if their labels had ended them.

    They do if there are three or more, each ends at its first right answer, and either no right
    answer of any run was revised, or runs that end for other reasons would end so with probability
    below .01.

    Args:
        runs: of one group.
        cut: which runs ended before others, not known to be stopped by a rule.
    """
    if cut.sum() < _FEW_CUT:
        return False
    last = np.maximum(runs.recorded - 1, 0)
    rights = runs.right.sum(axis=1)
    ends_right = runs.right[np.arange(runs.questions), last] & (rights == 1)
    revised = (runs.right[:, :-1] & runs.real[:, 1:]).any()
    share = np.clip(runs.right.sum() / runs.real.sum(), 0.5, 1.0)
    return bool(ends_right[cut].all() and (not revised or share ** cut.sum() < _SELDOM))


def labels_accumulate(runs: Runs) -> str:
    """Why labels look as if they said "right by now" instead of "right now"; "" if they do not.

    They do if no right answer is ever followed by a wrong one although five or more were repaired,
    and either answers change while they stay right, in half of all cases or more, or answers are
    not known and fifty or more right ones were revised.
    """
    before, after = runs.right[:, :-1], runs.right[:, 1:]
    revised = runs.real[:, 1:] & before
    if (revised & ~after).any() or (runs.real[:, 1:] & ~before & after).sum() < _FEW_REPAIRS:
        return ""
    if not runs.answered:
        found = revised.sum() >= _FEW_AT_RISK
        why = (
            'no right answer ever becomes wrong, as if `correct` said "right by now"; give the '
            "answers too if that is not so"
        )
    else:
        changed = runs.answers[:, 1:] != runs.answers[:, :-1]
        found = (revised & changed).sum() >= max(_FEW_CUT, revised.sum() / 2)
        why = (
            "no right answer ever becomes wrong although answers change, as if `correct` said "
            '"right by now"'
        )
    return why if found else ""


def hidden_by_labels(runs: Runs) -> str:
    """What labels hide of rounds of revision, though the runs do not say so; "" for nothing.

    Args:
        runs: of one group.
    """
    if runs.protocol != "sequential" or runs.censored.any():
        return ""
    early = (runs.recorded < runs.samples) & ~runs.rule_stopped
    if cut_by_label(runs, early):
        return (
            f"{int(early.sum())} runs of {runs.questions} ended early, each at its first right "
            "answer, as if the label had stopped them"
        )
    return labels_accumulate(runs)


def repeated_questions(runs: Runs) -> Int[np.ndarray, " row"] | None:
    """Which of 0, 1, ... each question is by its text; None where no text occurs twice.

    One text for all questions stands for none.
    """
    if runs.details is None or not runs.details.text.all():
        return None
    _, first, text = np.unique(runs.details.text, return_index=True, return_inverse=True)
    if len(first) in (1, runs.questions):
        return None
    return np.argsort(np.argsort(first))[text]


_MAY_DIFFER = ("rule", "rounds", "seed")


def differing_settings(runs: Runs) -> list[str]:
    """Settings that differ among runs that are estimated together, in a sentence each.

    Rules, numbers of rounds and seeds may differ. A setting that was not recorded is passed over.
    """
    found = []
    for group in runs.groups:
        values: dict[str, Counter[str]] = {}
        for settings, runs_of_them in group.details.settings_there if group.details else ():
            for name, value in settings.items():
                if name not in _MAY_DIFFER:
                    values.setdefault(name, Counter())[str(value)] += runs_of_them
        for name, counts in values.items():
            if len(counts) > 1:
                each = " and ".join(f"{value} in {n}" for value, n in counts.most_common(3))
                found.append(
                    f"{group.name}: {name} is {each} of its runs, which are taken as one; give "
                    "runs of different settings apart"
                )
    return found


def names_differing_in_case(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Names that are the same but for capital letters."""
    known = set(names)
    if len(set(map(str.casefold, known))) == len(known):
        return []
    unique = sorted(known, key=lambda name: (name.casefold(), name))
    groups = [tuple(group) for _, group in groupby(unique, key=str.casefold)]
    return [group for group in groups if len(group) > 1]
