"""What recorded runs of one benchmark can be judged by: which are left out, and which rounds count.

Reference: docs/decisions.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from msjax.data.checks import (
    cut_by_label,
    differing_settings,
    labels_accumulate,
    names_differing_in_case,
    repeated_questions,
)
from msjax.data.runs import Runs
from msjax.decision.verdict import FEWEST
from msjax.errors import InputError
from msjax.evaluate.summary import ending_notes

__all__ = ["Pilot", "Recorded", "pilots"]

_ONE_AMONG_MANY = 0.05
"""Share of runs up to which those that cannot be used are left out without asking why."""


@dataclass(frozen=True)
class Recorded:
    """What a rule did that ended the runs itself: the answer returned, and what it cost.

    Attributes:
        right: whether the answer returned is right.
        last: position of the last answer.
    """

    right: Bool[np.ndarray, " question"]
    last: Int[np.ndarray, " question"]


@dataclass(frozen=True)
class Pilot:
    """Runs of one benchmark and model, ready to be judged, questions in the order of their names.

    Attributes:
        name, benchmark, model: of the runs.
        rounds: rounds of revision that can be judged, None if there are only samples.
        samples: independent answers, if any.
        longer: answers with a larger limit of tokens, if any.
        cluster: which of 0, 1, ... each question belongs to.
        recorded: what a rule did that ended the runs, if one did.
        hidden: why rounds that were recorded cannot be judged; None if all can.
        seen: all runs of revision, also those that cannot be judged; None if there are none.
        notes: what was left out, found and taken for granted, in sentences.
    """

    name: str
    benchmark: str
    model: str
    rounds: Runs | None
    samples: Runs | None
    longer: Runs | None
    cluster: Int[np.ndarray, " question"]
    recorded: Recorded | None
    hidden: str | None
    seen: Runs | None
    notes: tuple[str, ...]

    @property
    def runs(self) -> Runs:
        """The runs whose questions are judged."""
        found = self.rounds if self.rounds is not None else self.samples
        assert found is not None
        return found


def pilots(runs: Runs, cluster: str | None = None) -> list[Pilot]:
    """One pilot for every benchmark and model, in order of their names.

    Args:
        runs: of any number of benchmarks, models and protocols.
        cluster: field of the records whose equal values mark questions that depend on each other;
            None takes the runs' own clusters, else questions of equal text.

    Raises:
        InputError: prefixes of a reasoning trace, or a cluster field that some record lacks.
    """
    found: dict[tuple[str, str], dict[str, Runs]] = {}
    for group in runs.groups:
        if group.protocol == "prefix":
            raise InputError(
                f"{group.name}: its answers come from prefixes of one reasoning trace, which are "
                "no revisions; see `msjax replay` for when to cut a trace"
            )
        found.setdefault((group.benchmark, group.model), {})[group.protocol] = group
    return [
        _pilot(
            found[key].get("sequential"),
            found[key].get("parallel"),
            found[key].get("longer"),
            cluster,
        )
        for key in sorted(found)
    ]


def _pilot(
    rounds: Runs | None, samples: Runs | None, longer: Runs | None, field: str | None
) -> Pilot:
    source = rounds if rounds is not None else samples
    if source is None:
        assert longer is not None
        raise InputError(
            f"{longer.name}: only answers with a larger limit of tokens are there; give the runs "
            "with the usual limit too, which they are compared with"
        )
    notes: list[str] = []
    hidden, recorded, seen = None, None, None
    if samples is not None:
        if samples.repeated:
            raise InputError(
                f"{samples.name}: a question has several runs of independent samples; give all its "
                "samples in one"
            )
        samples = _sorted(samples)
    if longer is not None:
        if longer.repeated:
            raise InputError(f"{longer.name}: a question has several longer answers; give one")
        longer = _with_tokens(longer, notes)
    if rounds is not None:
        rounds = _with_tokens(_sorted(rounds), notes)
        labels = _clusters(rounds, field, notes)
        seen = rounds
        rounds, recorded, kept, hidden = _judged(rounds, notes)
        labels = [labels[i] for i in kept]
        if hidden is None and rounds.rounds == 0 and samples is None:
            hidden = "no round of revision was recorded"
    else:
        assert samples is not None
        samples = _with_tokens(samples, notes)
        labels = _clusters(samples, field, notes)
    for runs in (seen, samples, longer):
        if runs is not None:
            notes += differing_settings(runs)
            notes += ending_notes([runs.details] if runs.details else [])
    for names in names_differing_in_case((rounds or samples).question_ids):  # type: ignore[union-attr]
        notes.append(f"question ids {_listed(names)} differ only in capital letters")
    number = {name: i for i, name in enumerate(dict.fromkeys(labels))}
    return Pilot(
        source.name,
        source.benchmark,
        source.model,
        rounds,
        samples,
        longer,
        np.array([number[name] for name in labels], dtype=int),
        recorded,
        hidden,
        seen,
        tuple(notes),
    )


def _sorted(runs: Runs) -> Runs:
    """Questions in the order of their names, so that nothing depends on the order of lines."""
    names = runs.question_ids
    order = list(range(runs.questions))
    if runs.repeated:
        labels = runs.correct.tolist()
        order.sort(key=labels.__getitem__)
    order.sort(key=names.__getitem__)
    return runs.take(np.array(order))


def _with_tokens(runs: Runs, notes: list[str]) -> Runs:
    """The runs with their tokens, without any where a count that costs rest on is missing.

    No answer takes no tokens, so counts that are all 0 were not reported either. Prompts that were
    never counted are left out of all costs, which is said.
    """
    prompt = runs.tokens.get("prompt")
    if prompt is not None and np.isnan(prompt[runs.real]).all():
        rest = {name: x for name, x in runs.tokens.items() if name not in ("prompt", "cached")}
        runs = replace(runs, tokens=rest)
        if not np.isnan(runs.uncached[runs.real]).any():
            notes.append("prompt tokens are not reported and not counted")
    spent = runs.uncached[runs.real]
    if not np.isnan(spent).any() and spent.any():
        return runs
    missing = int(np.isnan(spent).sum())
    if 0 < missing < len(spent):
        notes.append(
            f"token counts of {missing} of {len(spent)} answers are missing, so no cost and no "
            "saving is identified; leave out their questions to judge costs"
        )
    return replace(runs, tokens={})


def _clusters(runs: Runs, field: str | None, notes: list[str]) -> list[str]:
    """What each question belongs to."""
    if field is not None:
        return [_value(runs, i, field) for i in range(runs.questions)]
    if runs.cluster is not None:
        return list(runs.cluster)
    if runs.repeated:
        number = len(set(runs.question_ids))
        notes.append(f"{_runs(runs.questions)} of {number} questions; those of one are one cluster")
        return list(runs.question_ids)
    texts = repeated_questions(runs)
    if texts is None:
        return list(runs.question_ids)
    notes.append(
        f"{runs.questions} questions have {texts.max() + 1} different texts; equal ones are taken "
        "as one cluster"
    )
    return [str(text) for text in texts]


def _value(runs: Runs, row: int, field: str) -> str:
    if field == "cluster" and runs.cluster is not None:
        return runs.cluster[row]
    if runs.records is not None:
        record = runs.records[row]
        for values in (record.metadata, record.settings):
            if values.get(field) is not None:
                return str(values[field])
        if field in ("question", "gold", "cluster") and getattr(record, field) is not None:
            return str(getattr(record, field))
    raise InputError(
        f"cluster: question_id {runs.question_ids[row]!r} of {runs.benchmark!r} has no field "
        f"{field!r}; name a field of `metadata` or `settings` that every record has"
    )


def _judged(
    runs: Runs, notes: list[str]
) -> tuple[Runs, Recorded | None, Int[np.ndarray, " kept"], str | None]:
    """What can be judged, what a rule did, which rows are kept, and why some cannot be judged."""
    every = np.arange(runs.questions)
    if runs.censored.any():
        kept = every[~runs.censored]
        number = int(runs.censored.sum())
        if len(kept) >= FEWEST or len(kept) >= (1 - _ONE_AMONG_MANY) * len(every):
            notes.append(f"{_runs(number)} ended by looking at the label {_is(number)} left out")
            part, recorded, rest, hidden = _judged(runs.take(kept), notes)
            return part, recorded, kept[rest], hidden
        why = f"{number} of {_runs(len(every))} looked at the label to stop"
        return runs.truncated(0), None, every, why
    looks = _stopped_by_answers(runs)
    short = runs.recorded < runs.recorded.max(initial=0)
    unsaid = short & ~looks & ~(runs.rule_stopped & _fixed(runs))
    if cut_by_label(runs, unsaid):
        number = int(unsaid.sum())
        ended = f"{_runs(number)} of {len(every)} ended early, each at its first right answer"
        if number <= _ONE_AMONG_MANY * len(every):
            notes.append(f"{ended}; {_is(number)} left out")
            kept = every[~unsaid]
            part, recorded, rest, hidden = _judged(runs.take(kept), notes)
            return part, recorded, kept[rest], hidden
        return runs.truncated(0), None, every, f"{ended}, as if the label had stopped them"
    if why := labels_accumulate(runs):
        return runs.truncated(0), None, every, why
    if looks.any():
        return _stopped(runs, looks, notes)
    if short.any():
        notes.append(
            f"{_runs(int(short.sum()))} of {len(every)} have fewer rounds than others; each number "
            "of rounds is judged on the runs that have so many, as if they had been ended without "
            "looking at answers"
        )
    return runs, None, every, None


def _stopped_by_answers(runs: Runs) -> Bool[np.ndarray, " row"]:
    """Which runs a rule cut short that looks at answers."""
    short = runs.recorded < runs.recorded.max(initial=0)
    return runs.rule_stopped & short & ~_fixed(runs)


def _fixed(runs: Runs) -> Bool[np.ndarray, " row"]:
    """Which runs were recorded with a number of rounds that was fixed beforehand."""
    rules = _rules(runs)
    fixed = {name: name is not None and name.startswith("fixed") for name in set(rules)}
    return np.fromiter(map(fixed.__getitem__, rules), bool, len(rules))


def _rules(runs: Runs) -> Sequence[str | None]:
    """Name of the rule that each run was recorded with, None where that is not said."""
    if runs.details is None:
        return [None] * runs.questions
    rules = [one.get("rule") for one in runs.details.settings]
    named = [None if name is None else str(name) for name in rules]
    return list(map(named.__getitem__, runs.details.setting.tolist()))


def _stopped(
    runs: Runs, looks: Bool[np.ndarray, " row"], notes: list[str]
) -> tuple[Runs, Recorded | None, Int[np.ndarray, " kept"], str | None]:
    every = np.arange(runs.questions)
    rules = _rules(runs)
    stopping = {rules[i] for i in every[looks]}
    apart = np.array([name not in stopping for name in rules])
    number = int(looks.sum())
    if None not in stopping and apart.sum() >= FEWEST:
        notes.append(f"{_runs(int((~apart).sum()))} recorded with a stopping rule are left out")
        part, recorded, rest, hidden = _judged(runs.take(every[apart]), notes)
        return part, recorded, every[apart][rest], hidden
    if number <= _ONE_AMONG_MANY * len(every):
        notes.append(f"{_runs(number)} that a rule stopped {_is(number)} left out")
        part, recorded, rest, hidden = _judged(runs.take(every[~looks]), notes)
        return part, recorded, every[~looks][rest], hidden
    last = runs.recorded - 1
    position = last.copy()
    if runs.details is not None:
        position = np.where(runs.details.returned < 0, last, runs.details.returned)
    fewest = int(runs.recorded[looks].min()) - 1
    why = (
        f"a rule that looks at answers stopped {number} of {_runs(len(every))} early, and what "
        "these would have answered later is not known"
    )
    return runs.truncated(fewest), Recorded(runs.right[every, position], last), every, why


def _runs(number: int) -> str:
    return f"{number} run{'s' * (number != 1)}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
