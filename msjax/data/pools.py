"""Recorded answers of one benchmark as arrays, and the orders in which a rule may meet them.

A pool is parallel (independent samples of every question, in no order of their own) or sequential
(rounds of revision). Rules are replayed over it: what they would have seen is what was recorded.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from msjax.data.answer_ids import answer_ids
from msjax.data.store import Trajectory
from msjax.errors import InputError

__all__ = [
    "CATEGORIES",
    "OF_THE_PLACE",
    "Pool",
    "Streams",
    "by_first_appearance",
    "pools_of",
    "ragged",
    "streams",
]

CATEGORIES = ("prompt", "cached", "completion", "verifier")
"""What tokens are accounted as: uncached prompt, prompt read from the KV cache, completion, and
what another model read to score the answer."""
OF_THE_PLACE = ("prompt", "cached")
"""Categories that belong to the place at which an answer is asked for, not to the answer: the first
sample of a question computes the prompt, whichever sample it is, and the others read it."""


@dataclass(frozen=True)
class Pool:
    """Every recorded answer of one benchmark.

    Attributes:
        name: the benchmark, with its model where there are several.
        parallel: whether the answers of a question are independent samples.
        question_ids: names of the questions.
        answers: canonical answers, numbered per question in order of first appearance; -1 for no
            answer and for what was not recorded.
        correct: whether the answer is right.
        scores: verifier scores; NaN where there is none.
        tokens: tokens of every answer by category; of `CATEGORIES` any may be absent.
        recorded: number of answers of every question.
        unit: what `tokens` counts, if not tokens.

    Raises InputError for a pool without questions or answers, arrays of different shapes, and
    tokens that are negative or not finite.
    """

    name: str
    parallel: bool
    question_ids: tuple[str, ...]
    answers: Int[np.ndarray, "question sample"]
    correct: Bool[np.ndarray, "_ _"]
    scores: Float[np.ndarray, "_ _"]
    tokens: dict[str, Float[np.ndarray, "_ _"]]
    recorded: Int[np.ndarray, " question"]
    unit: str = "tokens"

    def __post_init__(self) -> None:
        shape = self.answers.shape
        if 0 in shape or (self.recorded < 1).any():
            raise InputError(f"pool {self.name}: empty; every question needs an answer")
        arrays = {"correct": self.correct, "scores": self.scores, **self.tokens}
        for name, array in arrays.items():
            if array.shape != shape:
                raise InputError(
                    f"pool {self.name}: {name} has shape {array.shape}, answers have {shape}"
                )
        for name, array in self.tokens.items():
            if not np.isfinite(array).all() or (array < 0).any():
                raise InputError(f"pool {self.name}: tokens ({name}) must be finite and >= 0")

    @property
    def questions(self) -> int:
        """Number of questions."""
        return len(self.question_ids)

    @property
    def samples(self) -> int:
        """Most answers recorded of a question."""
        return self.answers.shape[1]

    @property
    def scored(self) -> bool:
        """Whether every recorded answer has a score."""
        return not np.isnan(self.scores[self.real]).any()

    @property
    def scores_are_probabilities(self) -> bool:
        """Whether every recorded answer has a score, and all lie in [0, 1]."""
        real = self.scores[self.real]
        return bool(((real >= 0) & (real <= 1)).all())

    @property
    def answered(self) -> bool:
        """Whether answers are known at all, not only whether they are right."""
        return bool((self.answers[self.real] >= 0).any())

    @property
    def computed(self) -> Float[np.ndarray, "question sample"]:
        """Tokens that had to be processed, all but the cached, in the order recorded."""
        found = (x for name, x in self.tokens.items() if name != "cached")
        return sum(found, start=np.zeros(self.answers.shape))

    @property
    def computed_of_places(self) -> Float[np.ndarray, "question place"]:
        """The part of `computed` that stays where it is when samples come in another order."""
        return self.tokens.get("prompt", np.zeros(self.answers.shape))

    @property
    def difficulty(self) -> Float[np.ndarray, " question"]:
        """Share of wrong answers of every question, by the labels."""
        return 1 - (self.correct & self.real).sum(axis=1) / self.recorded

    @property
    def real(self) -> Bool[np.ndarray, "question sample"]:
        """Which places hold an answer that was recorded."""
        return np.arange(self.samples) < self.recorded[:, None]


def pools_of(runs: Iterable[Trajectory]) -> tuple[Pool, ...]:
    """One pool per benchmark and model, in the order in which they first appear.

    Raises:
        InputError: no runs, a question twice, two protocols in one benchmark, or a run that a rule
            or its label stopped before others, so that what it would have shown is unknown.
    """
    groups: defaultdict[tuple[str, str], dict[str, Trajectory]] = defaultdict(dict)
    for run in runs:
        where = f"question_id {run.question_id!r} of {run.benchmark!r}"
        group = groups[run.benchmark, run.model]
        if run.question_id in group:
            raise InputError(f"{where}: occurs twice; one run per question and model is allowed")
        first = next(iter(group.values()), run)
        if run.protocol != first.protocol:
            raise InputError(f"{where}: protocol is {run.protocol!r}, not {first.protocol!r}")
        group[run.question_id] = run
    if not groups:
        raise InputError("runs: none given; record some with `msjax generate`")
    several = len({model for _, model in groups}) > 1
    for group in groups.values():
        longest = max(len(run.answers) for run in group.values())
        for run in group.values():
            cut = run.stop_reason == "rule" and len(run.answers) < longest
            if run.censored or cut:
                raise InputError(
                    f"question_id {run.question_id!r} of {run.benchmark!r}: was stopped by "
                    f"{'its label' if run.censored else 'a rule'}, so a rule that would have gone "
                    "on cannot be replayed; record runs with all their rounds or samples"
                )
    return tuple(
        _pool(f"{benchmark} ({model})" if several else benchmark, list(group.values()))
        for (benchmark, model), group in groups.items()
    )


def _pool(name: str, runs: Sequence[Trajectory]) -> Pool:
    usage = {
        "prompt": [[u.prompt - u.cached for u in run.tokens] for run in runs],
        "cached": [[u.cached for u in run.tokens] for run in runs],
        "completion": [[u.completion for u in run.tokens] for run in runs],
        "verifier": [[u.verifier for u in run.tokens] for run in runs],
    }
    return Pool(
        name=name,
        parallel=runs[0].protocol == "parallel",
        question_ids=tuple(run.question_id for run in runs),
        answers=ragged([answer_ids(run.answers) for run in runs], -1).astype(np.int32),
        correct=ragged([run.correct for run in runs], 0).astype(bool),
        scores=ragged(
            [[np.nan if s is None else s for s in run.scores] for run in runs], np.nan
        ).astype(np.float32),
        tokens={name: ragged(rows, 0).astype(np.float32) for name, rows in usage.items()},
        recorded=np.array([len(run.answers) for run in runs]),
    )


def ragged(rows: Sequence[Sequence[Any]], fill: float | int) -> Float[np.ndarray, "row column"]:
    """Rows of different length as one array."""
    found = np.full((len(rows), max(map(len, rows))), fill, dtype=float)
    for line, row in zip(found, rows, strict=True):
        line[: len(row)] = row
    return found


def by_first_appearance(
    answers: Int[np.ndarray, "question sample"],
) -> Int[np.ndarray, "question sample"]:
    """Answers numbered per question in the order in which they first appear."""
    earliest = (answers[:, :, None] == answers[:, None, :]).argmax(axis=2)
    number = np.cumsum(earliest == np.arange(answers.shape[1]), axis=1) - 1
    return np.take_along_axis(number, earliest, axis=1)


class Streams(NamedTuple):
    """What a rule meets: every question in every order.

    Attributes:
        sample: which recorded answer comes at each place.
        answers: answers numbered in the order in which this stream shows them; -1 for none.
        scores: as in the pool.
        tokens: computed tokens.
        right: whether answer number i of the stream is right.
        recorded: answers of each question.
    """

    sample: Int[Array, "order question place"]
    answers: Int[Array, "order question place"]
    scores: Float[Array, "order question place"]
    tokens: Float[Array, "order question place"]
    right: Bool[Array, "order question place"]
    recorded: Int[Array, " question"]


def streams(pool: Pool, key: PRNGKeyArray, orders: int) -> Streams:
    """Random orders of a parallel pool; the one order there is of a sequential one.

    Raises InputError for orders < 1.
    """
    if orders < 1:
        raise InputError(f"orders is {orders}; give the number of orders to average over, >= 1")
    if not pool.parallel:
        orders = 1
    return _streams(
        jnp.asarray(pool.answers, jnp.int32),
        jnp.asarray(pool.scores, jnp.float32),
        jnp.asarray(pool.computed_of_places, jnp.float32),
        jnp.asarray(pool.computed - pool.computed_of_places, jnp.float32),
        jnp.asarray(pool.correct),
        jnp.asarray(pool.recorded, jnp.int32),
        key,
        orders=orders,
        shuffle=pool.parallel,
    )


@partial(jax.jit, static_argnames=("orders", "shuffle"))
def _streams(
    answers: Array,
    scores: Array,
    of_place: Array,
    of_sample: Array,
    correct: Array,
    recorded: Array,
    key: PRNGKeyArray,
    *,
    orders: int,
    shuffle: bool,
) -> Streams:
    places = jnp.arange(answers.shape[1])

    def one(
        key: PRNGKeyArray,
        answers: Array,
        scores: Array,
        of_place: Array,
        of_sample: Array,
        correct: Array,
        n: Array,
    ) -> tuple[Array, ...]:
        if shuffle:
            # What was not recorded stays behind what was.
            sample = jnp.argsort(jnp.where(places < n, jax.random.uniform(key, places.shape), 2.0))
        else:
            sample = places
        sample = sample.astype(jnp.int32)
        now = jnp.where(places < n, answers[sample], -1)
        earliest = jnp.argmax(now[:, None] == now[None, :], axis=1)
        new = (earliest == places) & (now >= 0)
        number = jnp.cumsum(new) - 1
        renumbered = jnp.where(now >= 0, number[earliest], -1).astype(jnp.int32)
        shown = jnp.where(new, number, len(places))
        right = jnp.zeros(len(places), bool).at[shown].set(correct[sample], mode="drop")
        return sample, renumbered, scores[sample], of_place + of_sample[sample], right

    def in_order(key: PRNGKeyArray) -> tuple[Array, ...]:
        keys = jax.random.split(key, len(answers))
        return jax.vmap(one)(keys, answers, scores, of_place, of_sample, correct, recorded)

    sample, numbered, s, used, right = jax.lax.map(in_order, jax.random.split(key, orders))
    return Streams(sample, numbered, s, used, right, recorded)
