"""From recorded runs to what the two-state chain needs: who was right at which round."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Int8

from msjax.data.store import Trajectory, read_runs
from msjax.errors import InputError

MISSING = -1
"""Marks an answer that was never given, because the run had ended."""


@dataclass(frozen=True)
class BenchmarkCounts:
    """One benchmark's labelled rounds and the counts that are sufficient for a two-state chain.

    `correct[q, k]` is 1 when answer k of question q was right, 0 when it was wrong and -1 when the
    run had ended by then. `changed[q, k]` is 1 when revision k + 1 of question q gave another
    answer than the one before, 0 when it kept it; None where answers are not known.
    `tokens_per_round[k]` is the mean number of computed tokens (uncached prompt + completion) of
    round k over the runs that reached it. `censored` counts the runs that were stopped by looking
    at the label. `revises` is False where rounds are not revisions of an answer, but answers
    elicited from prefixes of one reasoning trace.

    Runs may differ in length: a stopping rule that never looks at labels ends runs ignorably for a
    Markov chain, because the next state depends on the present one alone, whatever made the run go
    on. A run stopped at success by looking at the label shows I -> C but never what follows C, so
    P(C -> I) is not identified as soon as a benchmark holds a censored run, and P(I -> C) is that
    of the questions still wrong, which get harder with the round.

    Raises InputError for values other than 1, 0, -1, a question without a first answer, an answer
    after a run's end, or token means that do not match the rounds.

    Reference: docs/theory.md A1; Anderson & Goodman (1957), Statistical inference about Markov
    chains.
    """

    model: str
    benchmark: str
    correct: Int8[np.ndarray, "question answer"]
    tokens_per_round: Float[np.ndarray, " _"]
    censored: int = 0
    changed: Int8[np.ndarray, "question round"] | None = None
    revises: bool = True

    def __post_init__(self) -> None:
        where = f"benchmark {self.benchmark!r}"
        if self.correct.size == 0:
            raise InputError(f"{where}: correct is empty; give at least one question")
        strange = np.setdiff1d(self.correct, (MISSING, 0, 1))
        if strange.size:
            raise InputError(
                f"{where}: correct holds {strange[0]}; use 1 (right), 0 (wrong), -1 (run over)"
            )
        reached = self.correct != MISSING
        if not reached[:, 0].all() or (reached[:, 1:] & ~reached[:, :-1]).any():
            question = int(np.argmax(~reached[:, 0] | (np.diff(reached.astype(int)) > 0).any(1)))
            raise InputError(
                f"{where}: question {question} has an answer after a missing one; "
                "a run is one unbroken sequence from its first answer"
            )
        if self.tokens_per_round.shape != (self.correct.shape[1],):
            raise InputError(
                f"{where}: tokens_per_round has {self.tokens_per_round.size} entries for "
                f"{self.correct.shape[1]} answers; give the mean of every round"
            )
        if not np.isfinite(self.tokens_per_round).all() or (self.tokens_per_round < 0).any():
            raise InputError(
                f"{where}: tokens_per_round is {self.tokens_per_round}; "
                "means of token counts are finite and not negative"
            )

    @property
    def questions(self) -> int:
        """Number of questions."""
        return self.correct.shape[0]

    @property
    def rounds(self) -> int:
        """Refinement rounds after the first answer, in the longest run."""
        return self.correct.shape[1] - 1

    def seen_as(self, sees: str) -> Int8[np.ndarray, "question _"]:
        """The data of a model: `observable` for labels, `changed` for changes of the answer.

        Raises InputError when changes are asked for and answers are not known.
        """
        if sees == "labels":
            return self.observable
        if self.changed is None or not self.changed.size:
            raise InputError(
                f"benchmark {self.benchmark!r}: changed is not known; a label-free model needs "
                "runs with at least one revision and their answers"
            )
        return self.changed

    @property
    def observable(self) -> Int8[np.ndarray, "question answer"]:
        """`correct` as a likelihood may use it: where the label stops runs, nothing after success.

        Only the runs that escaped censoring show what follows a right answer, and they are not a
        fair sample of the questions.
        """
        if not self.censored:
            return self.correct
        solved = np.logical_or.accumulate(self.correct == 1, axis=1)
        after = np.pad(solved[:, :-1], ((0, 0), (1, 0)))
        return np.where(after, np.int8(MISSING), self.correct)

    @property
    def first_right(self) -> int:
        """Questions whose first answer was right."""
        return int((self.correct[:, 0] == 1).sum())

    @property
    def transitions(self) -> Int[np.ndarray, "round 2 2"]:
        """Observed transitions, indexed [round, from, to] with 0 = I (incorrect), 1 = C."""
        before, after = self.correct[:, :-1], self.correct[:, 1:]
        counted = [[((before == i) & (after == j)).sum(axis=0) for j in (0, 1)] for i in (0, 1)]
        return np.moveaxis(np.array(counted, dtype=np.int64).reshape(2, 2, self.rounds), 2, 0)


def first_rounds(count: BenchmarkCounts, rounds: int) -> BenchmarkCounts:
    """The same runs as if they had ended after `rounds` rounds."""
    answers = rounds + 1
    return replace(
        count,
        correct=count.correct[:, :answers],
        tokens_per_round=count.tokens_per_round[:answers],
        changed=None if count.changed is None else count.changed[:, :rounds],
    )


def count_runs(runs: Iterable[Trajectory]) -> tuple[BenchmarkCounts, ...]:
    """Counts of every benchmark among `runs`, in the order in which benchmarks first appear.

    Where runs come from several models, every model's runs of a benchmark are a benchmark of their
    own, named "benchmark (model)".

    Raises InputError when there are no runs, when a run is parallel (independent samples have no
    transitions), when a benchmark has runs of two protocols, or when a model answered a question
    twice.
    """
    groups: defaultdict[tuple[str, str], dict[str, Trajectory]] = defaultdict(dict)
    for run in runs:
        where = f"question_id {run.question_id!r} of {run.benchmark!r}"
        if run.protocol == "parallel":
            raise InputError(
                f"{where}: protocol is {run.protocol!r}, but a chain describes rounds of revision; "
                "fit sequential runs only, in a file of their own"
            )
        group = groups[run.benchmark, run.model]
        if run.question_id in group:
            raise InputError(f"{where}: occurs twice; one run per question and model is allowed")
        first = next(iter(group.values()), run)
        if run.protocol != first.protocol:
            raise InputError(
                f"{where}: protocol is {run.protocol!r}, but {first.protocol!r} in question_id "
                f"{first.question_id!r}; give each protocol a benchmark name of its own"
            )
        group[run.question_id] = run
    if not groups:
        raise InputError("runs: none given; record some with `msjax generate`")
    several = len({model for _, model in groups}) > 1
    return tuple(
        _count(f"{benchmark} ({model})" if several else benchmark, list(group.values()))
        for (benchmark, model), group in groups.items()
    )


def read_counts(paths: Sequence[Path]) -> tuple[BenchmarkCounts, ...]:
    """Counts from JSON Lines files, pooled by benchmark name.

    Raises InputError as `msjax.data.store.read_runs` and `count_runs` do.
    """
    return count_runs(run for path in paths for run in read_runs(path))


def _count(benchmark: str, runs: list[Trajectory]) -> BenchmarkCounts:
    answers = max(len(run.correct) for run in runs)
    correct = np.full((len(runs), answers), MISSING, dtype=np.int8)
    changed = np.full((len(runs), answers - 1), MISSING, dtype=np.int8)
    tokens = np.full((len(runs), answers), np.nan)
    for row, run in enumerate(runs):
        correct[row, : len(run.correct)] = run.correct
        changed[row, : run.revisions] = [
            now != before for before, now in itertools.pairwise(run.answers)
        ]
        tokens[row, : len(run.tokens)] = [usage.computed for usage in run.tokens]
    return BenchmarkCounts(
        model=runs[0].model,
        benchmark=benchmark,
        correct=correct,
        tokens_per_round=np.nanmean(tokens, axis=0),
        censored=sum(run.censored for run in runs),
        changed=changed,
        revises=runs[0].protocol == "sequential",
    )
