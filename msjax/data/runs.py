"""Recorded runs as arrays: the one form in which they are fitted, replayed and judged."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from msjax.data.details import Details, ragged, require_once, wider
from msjax.data.trajectory import Protocol, Trajectory
from msjax.data.usage import believed
from msjax.errors import InputError

__all__ = [
    "CATEGORIES",
    "MISSING",
    "OF_THE_POSITION",
    "Runs",
    "answer_ids",
    "by_first_appearance",
    "ragged",
]

MISSING = -1
"""Stands for a label, an answer or a verdict that was not recorded."""
CATEGORIES = ("prompt", "cached", "completion", "verifier", "total")
"""What tokens are accounted as: uncached prompt, prompt read from the KV cache, completion, what
another model read to score the answer; and all but the cached where they are not told apart."""
OF_THE_POSITION = ("prompt", "cached")
"""Categories that belong to the position at which an answer is asked for, not to the answer: the
first sample of a question computes the prompt, whichever sample it is, and the others read it."""

_LABELS = {"C": 1, "I": 0, "c": 1, "i": 0}


@dataclass(frozen=True, repr=False)
class Runs:
    """Trajectories as arrays, one row each; column k holds round k, or sample k.

    Made by `Runs.from_arrays` or `Runs.from_records`. `groups` tells benchmarks, models and
    protocols apart once; whatever is about a single one (`name`, `rounds`, ...) refuses several.

    A run that a stopping rule ended without looking at its label ends ignorably for a Markov
    chain, because the next state depends on the present one alone. A run that was stopped at
    success by looking at the label (`censored`) shows I -> C but never what follows C, so P(C -> I)
    is not identified as soon as a benchmark holds one.

    Attributes:
        question_ids: names of the questions.
        correct: 1 for a right answer, 0 for a wrong one, -1 for none recorded.
        answers: answers numbered per row in order of first appearance; -1 for no answer, and where
            none was recorded.
        scores: verifier scores; NaN where there is none.
        verdicts: 1 where a judge accepted the answer, 0 where it did not, -1 where it was
            not asked.
        tokens: tokens of every answer by category, of `CATEGORIES`; NaN where not reported, 0 where
            no answer was recorded.
        benchmarks, models, protocols: one of each per row.
        censored: whether the run was stopped by looking at the label.
        rule_stopped: whether a stopping rule ended the run.
        cluster: rows of one cluster are not independent; None where all are.
        unit: what `tokens` counts, if not tokens.
        records: the trajectories that the rows were made of, if any; those of files stay there.
        details: what the trajectories say that the arrays do not, in columns.
        label: what a single group is called; its benchmark if None.

    Raises InputError for no rows, rows without a first answer, an answer after a missing one,
    labels other than 1, 0, -1, arrays of different shapes, and tokens below 0 or infinite.

    Reference: docs/theory.md A1; Anderson & Goodman (1957), Statistical inference about Markov
    chains.
    """

    question_ids: tuple[str, ...]
    correct: Int8[np.ndarray, "row answer"]
    answers: Int[np.ndarray, "_ _"]
    scores: Float[np.ndarray, "_ _"]
    verdicts: Int8[np.ndarray, "_ _"]
    tokens: dict[str, Float[np.ndarray, "_ _"]]
    benchmarks: tuple[str, ...]
    models: tuple[str, ...]
    protocols: tuple[str, ...]
    censored: Bool[np.ndarray, " _"]
    rule_stopped: Bool[np.ndarray, " _"]
    cluster: tuple[str, ...] | None = None
    unit: str = "tokens"
    records: Sequence[Trajectory] | None = field(default=None, repr=False)
    details: Details | None = field(default=None, repr=False)
    label: str | None = None

    def __post_init__(self) -> None:
        if self.correct.size == 0:
            raise InputError("correct is empty; give at least one question with one answer")
        strange = np.setdiff1d(self.correct, (MISSING, 0, 1))
        if strange.size:
            raise InputError(
                f"correct holds {strange[0]}; use 1 (right), 0 (wrong), -1 (not recorded)"
            )
        reached = self.real
        broken = ~reached[:, 0] | (reached[:, 1:] & ~reached[:, :-1]).any(axis=1)
        if broken.any():
            raise InputError(
                f"correct: question {self.question_ids[int(np.argmax(broken))]!r} has an answer "
                "after a missing one; a run is one unbroken sequence from its first answer"
            )
        arrays = {"answers": self.answers, "scores": self.scores, "verdicts": self.verdicts}
        arrays |= {f"tokens ({name})": x for name, x in self.tokens.items()}
        for name, array in arrays.items():
            if array.shape != self.correct.shape:
                raise InputError(
                    f"{name} has shape {array.shape} but correct has {self.correct.shape}; "
                    "give one entry for each answer"
                )
        if np.isinf(self.scores).any():
            raise InputError(
                "scores must be finite in single precision, or NaN where there is none"
            )
        for name, array in self.tokens.items():
            if np.isinf(array).any() or (array < 0).any():
                raise InputError(f"tokens ({name}) must be finite and >= 0, or NaN (not reported)")
        rows = len(self.correct)
        for name in ("question_ids", "benchmarks", "models", "protocols", "censored", "cluster"):
            found = getattr(self, name)
            if found is not None and len(found) != rows:
                raise InputError(f"{name} has {len(found)} entries for {rows} questions")

    def __repr__(self) -> str:
        names = ", ".join(map(repr, dict.fromkeys(self.benchmarks)))
        models = ", ".join(map(repr, dict.fromkeys(self.models)))
        counts = f"{self.questions} questions of {names} by {models}"
        shares = f"{self.right[:, 0].mean():.3f} of first answers right"
        return f"Runs({counts}, at most {self.samples} answers each, {shares})"

    # Making

    @classmethod
    def of(cls, runs: Any) -> "Runs":
        """`runs` as they are if they are `Runs`, and otherwise made by `from_arrays`.

        Raises InputError as that does, and for the name of a file.
        """
        if isinstance(runs, cls):
            return runs
        if isinstance(runs, str | os.PathLike):
            raise InputError(f"runs is the name of a file, {runs}; give msjax.read({str(runs)!r})")
        return cls.from_arrays(runs)

    @classmethod
    def from_arrays(
        cls,
        correct: Any,
        *,
        answers: Any = None,
        tokens: Any = None,
        scores: Any = None,
        verdicts: Any = None,
        question_ids: Iterable[Any] | None = None,
        cluster: Iterable[Any] | None = None,
        benchmark: str | Sequence[str] = "benchmark",
        model: str | Sequence[str] = "model",
        protocol: str = "sequential",
        censored: Any = False,
        unit: str = "tokens",
    ) -> "Runs":
        """Runs from lists, NumPy or JAX arrays, or pandas objects; only `correct` is needed.

        Args:
            correct: [question, answer] labels: 1 / 0, booleans, or "C" / "I"; rows may differ in
                length, or end in None or -1. A single list is one answer per question.
            answers: [question, answer] what was answered, any text or number; None for no answer.
            tokens: [question, answer] tokens that are paid for, or a mapping from category (see
                `CATEGORIES`) to such arrays; NaN or None where not reported.
            scores: [question, answer] verifier scores; NaN or None where there is none.
            verdicts: [question, answer] whether a judge accepted the answer: as labels, and None or
                NaN where it was not asked.
            question_ids: names of the questions; their positions if None.
            cluster: one label per question; questions of one cluster are not independent.
            benchmark: one for all, or one per question.
            model: one for all, or one per question.
            protocol: "sequential" (rounds), "parallel" (samples), "prefix" or "longer".
            censored: whether runs were stopped by looking at the label; one, or one per question.
            unit: what `tokens` counts.

        Raises InputError for labels of another kind, arrays whose lengths differ from that of
        `correct`, and an unknown protocol.
        """
        if protocol not in get_args(Protocol):
            raise InputError(
                f"protocol is {protocol!r}; use one of {', '.join(get_args(Protocol))}"
            )
        states = _states("correct", correct)
        lengths = (states != MISSING).sum(axis=1)
        rows = len(states)

        def numbers(name: str, values: Any) -> Float[np.ndarray, "row answer"]:
            found = _numbers(name, values)
            with np.errstate(over="ignore"):  # what becomes infinite is refused
                return _fitted(name, found, states, lengths, np.nan).astype(np.float32)

        empty = np.full(states.shape, np.nan, dtype=np.float32)
        by_category = tokens if isinstance(tokens, Mapping) else {"total": tokens}
        unknown = [name for name in by_category if name not in CATEGORIES]
        if unknown:
            raise InputError(f"tokens: {unknown[0]!r} is unknown; use {', '.join(CATEGORIES)}")
        none = np.full(states.shape, MISSING)
        ids, said = none, none
        if answers is not None:
            ids = _fitted("answers", _ids(answers), states, lengths, MISSING)
        if verdicts is not None:
            said = _fitted("verdicts", _states("verdicts", verdicts), states, lengths, MISSING)
        return cls(
            question_ids=_names("question_ids", question_ids, rows),
            correct=states,
            answers=ids.astype(np.int32),
            scores=empty if scores is None else numbers("scores", scores),
            verdicts=said.astype(np.int8),
            tokens={
                name: np.where(states == MISSING, np.float32(0), numbers(f"tokens ({name})", x))
                for name, x in by_category.items()
                if x is not None
            },
            benchmarks=_repeated("benchmark", benchmark, rows),
            models=_repeated("model", model, rows),
            protocols=(protocol,) * rows,
            censored=np.broadcast_to(np.asarray(censored, bool), (rows,)).copy(),
            rule_stopped=np.zeros(rows, dtype=bool),
            cluster=None if cluster is None else _names("cluster", cluster, rows),
            unit=unit,
        )

    @classmethod
    def from_records(cls, records: Iterable[Trajectory]) -> "Runs":
        """Runs from trajectories, in their order.

        Raises InputError when there are none, or a run of a question occurs twice.
        """
        runs = tuple(records)
        if not runs:
            raise InputError("runs: none given; record some with `msjax run`")
        details = Details.of(runs)
        require_once(details.identity, runs)
        accounts = [
            [
                believed(usage, answered=bool(text) or answer is not None or right)
                for usage, text, answer, right in zip(
                    run.tokens, run.completions, run.answers, run.correct, strict=True
                )
            ]
            for run in runs
        ]

        def tokens(name: str) -> Float[np.ndarray, "row answer"]:
            # An account with a total alone has nothing to add to the other categories.
            apart = name != "total"
            counts = [
                [0 if (usage.total is None) != apart else getattr(usage, name) for usage in row]
                for row in accounts
            ]
            rows = [[np.nan if n is None else n for n in row] for row in counts]
            return ragged(rows, 0).astype(np.float32)

        categories = {
            "prompt": tokens("uncached_prompt"),
            "cached": tokens("cached"),
            "completion": tokens("completion"),
            "verifier": tokens("verifier"),
        }
        if any(usage.total is not None for row in accounts for usage in row):
            categories["total"] = tokens("total")

        clusters = [run.cluster for run in runs]
        return cls(
            question_ids=tuple(run.question_id for run in runs),
            correct=ragged([run.correct for run in runs], MISSING).astype(np.int8),
            answers=ragged([answer_ids(run.answers) for run in runs], MISSING).astype(np.int32),
            scores=ragged(
                [[np.nan if s is None else s for s in run.scores] for run in runs], np.nan
            ).astype(np.float32),
            verdicts=ragged(
                [[MISSING if v is None else v for v in run.verdicts] for run in runs], MISSING
            ).astype(np.int8),
            tokens=categories,
            benchmarks=tuple(run.benchmark for run in runs),
            models=tuple(run.model for run in runs),
            protocols=tuple(run.protocol for run in runs),
            censored=np.array([run.censored for run in runs]),
            rule_stopped=np.array([run.stop_reason == "rule" for run in runs]),
            cluster=None
            if all(c is None for c in clusters)
            else tuple(
                f"question {run.question_id}" if c is None else c
                for c, run in zip(clusters, runs, strict=True)
            ),
            records=runs,
            details=details,
        )

    @classmethod
    def joined(cls, parts: Sequence["Runs"]) -> "Runs":
        """The rows of several runs as one, in their order.

        Raises InputError when a run of a question occurs twice.
        """
        first = parts[0]
        if len(parts) == 1:
            return first
        width = max(part.samples for part in parts)

        def column(name: str, fill: float) -> np.ndarray:
            return np.concatenate([wider(getattr(part, name), width, fill) for part in parts])

        def texts(name: str) -> tuple[str, ...]:
            return tuple(chain.from_iterable(getattr(part, name) for part in parts))

        real = column("real", 0)
        tokens = {}
        for name in (x for x in CATEGORIES if any(x in part.tokens for part in parts)):
            none = [np.zeros(part.correct.shape, np.float32) for part in parts]
            every = [part.tokens.get(name, zero) for part, zero in zip(parts, none, strict=True)]
            tokens[name] = np.concatenate([wider(x, width, 0) for x in every])
            tokens[name][~real] = 0
        clusters = None
        if any(part.cluster is not None for part in parts):
            clusters = tuple(
                chain.from_iterable(
                    part.cluster or (f"question {name}" for name in part.question_ids)
                    for part in parts
                )
            )
        details = [part.details for part in parts if part.details is not None]
        records = [part.records for part in parts if part.records is not None]
        found = cls(
            question_ids=texts("question_ids"),
            correct=column("correct", MISSING),
            answers=column("answers", MISSING),
            scores=column("scores", np.nan),
            verdicts=column("verdicts", MISSING),
            tokens=tokens,
            benchmarks=texts("benchmarks"),
            models=texts("models"),
            protocols=texts("protocols"),
            censored=np.concatenate([part.censored for part in parts]),
            rule_stopped=np.concatenate([part.rule_stopped for part in parts]),
            cluster=clusters,
            unit=first.unit,
            records=Chained.of(records) if len(records) == len(parts) else None,
            details=Details.joined(details) if len(details) == len(parts) else None,
        )
        if found.details is not None and found.records is not None:
            require_once(found.details.identity, found.records)
        return found

    def stored(self, records: Sequence[Trajectory]) -> "Runs":
        """These runs with the records they were made of.

        Raises InputError when a run of a question occurs twice.
        """
        if self.details is not None:
            require_once(self.details.identity, records)
        return replace(self, records=records)

    # Benchmarks, models and protocols

    @cached_property
    def groups(self) -> tuple["Runs", ...]:
        """One for each benchmark, model and protocol, in order of first appearance.

        Where runs come from several models a group is called "benchmark (model)"; samples of a
        benchmark that has rounds too are called "benchmark, parallel".
        """
        keys = list(zip(self.benchmarks, self.models, self.protocols, strict=True))
        known = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        number = np.fromiter(map(known.__getitem__, keys), int, self.questions)
        # One sort instead of one look at every row for each of many groups.
        starts = np.cumsum(np.bincount(number, minlength=len(known)))[:-1]
        rows = np.split(np.argsort(number, kind="stable"), starts)
        several = len(set(self.models)) > 1
        first: dict[tuple[str, str], str] = {}
        found = []
        for (benchmark, model, protocol), own in zip(known, rows, strict=True):
            label = f"{benchmark} ({model})" if several else benchmark
            if protocol != first.setdefault((benchmark, model), protocol):
                label = f"{label}, {protocol}"
            found.append(replace(self.take(own), label=self.label or label))
        return tuple(found)

    def _single(self, values: tuple[str, ...], what: str) -> str:
        first = values[0]
        if values.count(first) < len(values):
            names = ", ".join(dict.fromkeys(values))
            raise InputError(f"runs hold several {what} ({names}); take one of `runs.groups`")
        return first

    @property
    def benchmark(self) -> str:
        """The one benchmark."""
        return self._single(self.benchmarks, "benchmarks")

    @property
    def model(self) -> str:
        """The one model that answered."""
        return self._single(self.models, "models")

    @property
    def protocol(self) -> str:
        """How answers follow each other: "sequential", "parallel", "prefix" or "longer"."""
        return self._single(self.protocols, "protocols")

    @property
    def name(self) -> str:
        """What to call these runs: the benchmark, with the model where there are several."""
        return self.label or self.benchmark

    @property
    def parallel(self) -> bool:
        """Whether the answers of a question are independent samples."""
        return self.protocol == "parallel"

    @property
    def revises(self) -> bool:
        """Whether rounds are revisions, not answers elicited from prefixes of one trace."""
        return self.protocol == "sequential"

    @cached_property
    def question_numbers(self) -> Int[np.ndarray, " row"]:
        """Which of the questions 0, 1, ... each row is of, in order of first appearance."""
        number = {name: i for i, name in enumerate(dict.fromkeys(self.question_ids))}
        return np.fromiter(map(number.__getitem__, self.question_ids), int, self.questions)

    @property
    def repeated(self) -> bool:
        """Whether some question was run several times."""
        return len(set(self.question_ids)) < self.questions

    # Parts

    def take(self, rows: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " row"]) -> "Runs":
        """Some rows, with as many columns as the longest of them has."""
        rows = np.arange(self.questions)[rows]
        columns = int(self.recorded[rows].max(initial=0))
        if len(rows) == self.questions and (np.diff(rows) == 1).all():
            return self if columns == self.samples else self._first(columns)

        every = rows.tolist()

        def some(values: tuple) -> tuple:
            return tuple(map(values.__getitem__, every))

        return replace(
            self._first(columns),
            question_ids=some(self.question_ids),
            correct=self.correct[rows, :columns],
            answers=self.answers[rows, :columns],
            scores=self.scores[rows, :columns],
            verdicts=self.verdicts[rows, :columns],
            tokens={name: x[rows, :columns] for name, x in self.tokens.items()},
            benchmarks=some(self.benchmarks),
            models=some(self.models),
            protocols=some(self.protocols),
            censored=self.censored[rows],
            rule_stopped=self.rule_stopped[rows],
            cluster=self.cluster and some(self.cluster),
            records=self.records and taken(self.records, rows),
            details=self.details and self.details.take(rows, columns),
        )

    def truncated(self, rounds: int) -> "Runs":
        """The same runs as if they had ended after `rounds` rounds."""
        return replace(self._first(rounds + 1), records=None, details=None)

    def _first(self, columns: int) -> "Runs":
        return replace(
            self,
            correct=self.correct[:, :columns],
            answers=self.answers[:, :columns],
            scores=self.scores[:, :columns],
            verdicts=self.verdicts[:, :columns],
            tokens={name: x[:, :columns] for name, x in self.tokens.items()},
            details=self.details and self.details.take(slice(None), columns),
        )

    # What can be asked of them

    def require_rounds(self) -> "Runs":
        """These runs, if they are rounds of revision.

        Raises InputError for parallel samples, which have no transitions.
        """
        if self.protocol == "longer":
            raise InputError(
                f"{self.name}: protocol is 'longer', but a chain describes rounds of revision; "
                "compare longer answers with others by `msjax card`"
            )
        if self.parallel:
            raise InputError(
                f"{self.name}: protocol is 'parallel', but a chain describes rounds of revision; "
                "fit sequential runs only, in a file of their own"
            )
        return self

    def require_complete(self) -> "Runs":
        """These runs, if a stopping rule can be replayed over them.

        Raises InputError where a rule or its label stopped a run before others, so that what it
        would have shown is unknown.
        """
        cut = self.censored | (self.rule_stopped & (self.recorded < self.samples))
        if cut.any():
            row = int(np.argmax(cut))
            raise InputError(
                f"question_id {self.question_ids[row]!r} of {self.benchmarks[row]!r}: was stopped "
                f"by {'its label' if self.censored[row] else 'a rule'}, so a rule that would have "
                "gone on cannot be replayed; record runs with all their rounds or samples"
            )
        return self

    # Numbers

    @property
    def questions(self) -> int:
        """Number of rows."""
        return self.correct.shape[0]

    @property
    def samples(self) -> int:
        """Most answers recorded of a question."""
        return self.correct.shape[1]

    @property
    def rounds(self) -> int:
        """Rounds of revision after the first answer, in the longest run."""
        return self.correct.shape[1] - 1

    @property
    def real(self) -> Bool[np.ndarray, "row answer"]:
        """Which entries hold an answer that was recorded."""
        return self.correct != MISSING

    @property
    def right(self) -> Bool[np.ndarray, "row answer"]:
        """Whether each answer is right; False where none was recorded."""
        return self.correct == 1

    @property
    def recorded(self) -> Int[np.ndarray, " row"]:
        """Number of answers of every run."""
        return self.real.sum(axis=1)

    @property
    def n_censored(self) -> int:
        """Runs that were stopped by looking at the label."""
        return int(self.censored.sum())

    @property
    def first_right(self) -> int:
        """Questions whose first answer was right."""
        return int(self.right[:, 0].sum())

    @property
    def difficulty(self) -> Float[np.ndarray, " row"]:
        """Share of wrong answers of every run, by the labels."""
        return 1 - self.right.sum(axis=1) / self.recorded

    @property
    def scored(self) -> bool:
        """Whether every recorded answer has a score."""
        return not np.isnan(self.scores[self.real]).any()

    @property
    def scores_are_probabilities(self) -> bool:
        """Whether every recorded answer has a score, and all lie in [0, 1]."""
        real = self.scores[self.real]
        return bool(((real >= 0) & (real <= 1)).all())

    def with_confidences(self) -> "Runs":
        """Scores that are mean log-probabilities of tokens as their exponentials, in [0, 1].

        Where an answer has no score or a positive one, all stay as they are.
        """
        if self.scores_are_probabilities or not (self.scores[self.real] <= 0).all():
            return self
        return replace(self, scores=np.exp(self.scores))

    @property
    def answered(self) -> bool:
        """Whether answers are known at all, not only whether they are right."""
        return bool((self.answers[self.real] >= 0).any())

    @property
    def uncached(self) -> Float[np.ndarray, "row answer"]:
        """Tokens that had to be processed, all but the cached; NaN where they were not reported."""
        found = [x for name, x in self.tokens.items() if name != "cached"]
        return sum(found, start=np.where(self.real & (not found), np.nan, 0.0))

    @property
    def position_tokens(self) -> Float[np.ndarray, "row position"]:
        """The part of `uncached` that stays where it is when samples come in another order."""
        return self.tokens.get("prompt", np.zeros(self.correct.shape))

    @property
    def tokens_per_round(self) -> Float[np.ndarray, " answer"]:
        """Mean uncached tokens of every round over the runs that reached it and report them."""
        known = self.real & ~np.isnan(self.uncached)
        number = known.sum(axis=0)
        total = np.where(known, self.uncached, 0).sum(axis=0)
        return np.where(number > 0, total / np.maximum(number, 1), np.nan)

    @property
    def observable(self) -> Int8[np.ndarray, "row answer"]:
        """`correct` as a likelihood may use it: where the label stops runs, nothing after success.

        Only the runs that escaped censoring show what follows a right answer, and they are not a
        fair sample of the questions.
        """
        if not self.censored.any():
            return self.correct
        solved = np.logical_or.accumulate(self.right, axis=1)
        after = np.pad(solved[:, :-1], ((0, 0), (1, 0)))
        return np.where(after, np.int8(MISSING), self.correct)

    @property
    def changed(self) -> Int8[np.ndarray, "row round"] | None:
        """1 where a revision gave another answer than the one before, 0 where it kept it, -1 where
        there was none; None where answers are not known.
        """
        if not self.answered:
            return None
        changed = (self.answers[:, 1:] != self.answers[:, :-1]).astype(np.int8)
        return np.where(self.real[:, 1:], changed, np.int8(MISSING))

    def seen_as(self, sees: str) -> Int8[np.ndarray, "row _"]:
        """The data of a model: `observable` for "labels", `changed` for changes of the answer.

        Raises InputError when changes are asked for and answers are not known.
        """
        if sees == "labels":
            return self.observable
        if self.changed is None or not self.changed.size:
            raise InputError(
                f"benchmark {self.name!r}: changes are not known; a label-free model needs runs "
                "with at least one revision and their answers"
            )
        return self.changed

    @property
    def transitions(self) -> Int[np.ndarray, "round 2 2"]:
        """Observed transitions, indexed [round, from, to] with 0 = I (incorrect), 1 = C."""
        before, after = self.correct[:, :-1], self.correct[:, 1:]
        counted = [[((before == i) & (after == j)).sum(axis=0) for j in (0, 1)] for i in (0, 1)]
        return np.moveaxis(np.array(counted, dtype=np.int64).reshape(2, 2, self.rounds), 2, 0)


def taken(records: Sequence[Trajectory], rows: Int[np.ndarray, " chosen"]) -> Sequence[Trajectory]:
    """Some of the records, in this order; those that are not read yet stay so."""
    if isinstance(records, tuple):
        return tuple(map(records.__getitem__, rows.tolist()))
    return Chosen(records, rows)


class Chosen(Sequence[Trajectory]):
    """Some of a sequence's records, looked up when they are asked for."""

    def __init__(self, records: Sequence[Trajectory], rows: Int[np.ndarray, " chosen"]) -> None:
        self._records, self._rows = records, rows
        if isinstance(records, Chosen):
            self._records, self._rows = records._records, records._rows[rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Chosen(self._records, self._rows[i])
        return self._records[int(self._rows[i])]


class Chained(Sequence[Trajectory]):
    """Several sequences one after the other."""

    def __init__(self, parts: Sequence[Sequence[Trajectory]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    @classmethod
    def of(cls, parts: Sequence[Sequence[Trajectory]]) -> Sequence[Trajectory]:
        """All of these; a tuple if all are."""
        if all(isinstance(part, tuple) for part in parts):
            return tuple(chain.from_iterable(parts))
        return cls(parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Chosen(self, np.arange(len(self))[i])
        i = range(len(self))[i]
        part = int(np.searchsorted(self._ends, i, side="right"))
        return self._parts[part][i - (int(self._ends[part - 1]) if part else 0)]


def answer_ids(answers: Sequence[str | None]) -> list[int]:
    """Answers numbered in order of first appearance; -1 for no answer."""
    known: dict[str, int] = {}
    return [-1 if answer is None else known.setdefault(answer, len(known)) for answer in answers]


def by_first_appearance(
    answers: Int[np.ndarray, "question sample"],
) -> Int[np.ndarray, "question sample"]:
    """Answers numbered per question in the order in which they first appear."""
    earliest = (answers[:, :, None] == answers[:, None, :]).argmax(axis=2)
    number = np.cumsum(earliest == np.arange(answers.shape[1]), axis=1) - 1
    return np.take_along_axis(number, earliest, axis=1)


def _array(values: Any) -> np.ndarray | None:
    """Numbers or booleans in a rectangle as an array [row, answer]; None if they are not."""
    found = values.to_numpy() if hasattr(values, "to_numpy") else values
    if not hasattr(found, "__array__"):
        return None
    found = np.asarray(found)
    if found.ndim not in (1, 2) or found.dtype.kind not in "biuf":
        return None
    return found[:, None] if found.ndim == 1 else found


def _rows(name: str, values: Any) -> list[list[Any]]:
    """Any array-like as rows; a single list is one answer per question."""
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        raise InputError(
            f"{name} is {type(values).__name__}; give one row per question, a list of lists say"
        )
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in values]
    found = [list(row) if isinstance(row, (list, tuple)) else [row] for row in rows]
    if not found or not max(map(len, found)):
        raise InputError(f"{name} is empty; give at least one question with one answer")
    return found


def _states(name: str, values: Any) -> Int8[np.ndarray, "row answer"]:
    array = _array(values)
    if array is not None and array.size and np.isin(array, (0, 1, MISSING)).all():
        return array.astype(np.int8)
    rows = _rows(name, values)
    known = [[_label(x, q, k, name) for k, x in enumerate(row)] for q, row in enumerate(rows)]
    return ragged(known, MISSING).astype(np.int8)


def _label(value: Any, row: int, column: int, name: str) -> int:
    unknown = name == "verdicts" and isinstance(value, float) and np.isnan(value)
    if isinstance(value, str):
        value = _LABELS.get(value.strip(), value)
    elif value is None or unknown:
        return MISSING
    if isinstance(value, (bool, int, float)) and value in (0, 1, MISSING):
        return int(value)
    raise InputError(
        f'{name}[{row}, {column}] is {value!r}; use 1 / 0, True / False, or "C" / "I" '
        "(None where nothing was recorded)"
    )


def _numbers(name: str, values: Any) -> Float[np.ndarray, "row answer"] | list[list[float]]:
    array = _array(values)
    if array is not None:
        return array.astype(float)
    return [[_number(name, q, x) for x in row] for q, row in enumerate(_rows(name, values))]


def _number(name: str, row: int, value: Any) -> float:
    try:
        return float("nan") if value is None else float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name}[{row}] holds {value!r}; give numbers") from None


def _ids(answers: Any) -> Int[np.ndarray, "row answer"] | list[list[int]]:
    array = _array(answers)
    if array is not None and array.dtype.kind in "biu":
        return by_first_appearance(array.astype(np.int64))
    return [answer_ids([_text(x) for x in row]) for row in _rows("answers", answers)]


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return str(value)


def _fitted(
    name: str,
    found: Any,
    states: Int8[np.ndarray, "row answer"],
    lengths: Int[np.ndarray, " row"],
    fill: float | int,
) -> np.ndarray:
    """`found` in the shape of `states`, `fill` where no answer was recorded."""
    if len(found) != len(states):
        raise InputError(f"{name} has {len(found)} rows for {len(states)} questions")
    if not (isinstance(found, np.ndarray) and found.shape == states.shape):
        for q, (row, length) in enumerate(zip(found, lengths, strict=True)):
            if len(row) not in (length, states.shape[1]):
                raise InputError(
                    f"{name}[{q}] has {len(row)} entries but correct[{q}] has {length}; "
                    "give one for each answer"
                )
        found = ragged(list(found), fill)
    return np.where(states == MISSING, fill, found)


def _names(name: str, values: Iterable[Any] | None, rows: int) -> tuple[str, ...]:
    if values is None:
        return tuple(map(str, range(rows)))
    found = tuple(str(value) for value in values)
    if len(found) != rows:
        raise InputError(f"{name} has {len(found)} entries for {rows} questions")
    return found


def _repeated(name: str, value: str | Sequence[str], rows: int) -> tuple[str, ...]:
    return (value,) * rows if isinstance(value, str) else _names(name, value, rows)
