"""Rules compared on recorded answers without choosing anything on what is reported.

Settings are chosen, and what a rule estimates is estimated, on the other folds of the questions;
intervals are those of means over questions, and of a ratio of means for the share of tokens saved.
How much better the same choice would have looked on the reported questions themselves is printed
beside it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.errors import InputError, require_value_and_cost
from msjax.evaluate.folds import FOLDS, divisions
from msjax.evaluate.means import (
    DIFFERENCES,
    SHARES,
    UNBOUNDED,
    Smoothing,
    mean_interval,
    ratio_interval,
)
from msjax.evaluate.replay import (
    Outcome,
    Replayed,
    outcome,
    questions_at_once,
    replay,
    replay_in_parts,
)
from msjax.evaluate.streams import Streams, streams
from msjax.intervals import Interval
from msjax.rules.grid import each_setting
from msjax.rules.spec import ANSWERS, VERDICTS, ChainPosterior, RuleSpec, Training, offered_by
from msjax.rules.stops import programme

__all__ = ["Evaluation", "RuleResult", "Stratum", "evaluate"]

STRATA = ("easy", "middle", "hard")


@dataclass(frozen=True)
class Stratum:
    """Questions of about the same difficulty (share of wrong answers in the pool, by labels)."""

    name: str
    questions: int
    accuracy: float
    tokens: float


@dataclass(frozen=True)
class RuleResult:
    """What a rule did on questions that had no part in choosing its setting.

    Attributes:
        name, says: the rule.
        settings: the setting chosen for each fold.
        accuracy: share of right answers returned.
        tokens: tokens per question by category of the ledger.
        uncached: tokens per question that are paid for (uncached prompt + completion + verifier).
        n_used: answers per question.
        hit_budget: share of questions in which the rule wanted more than was recorded.
        gain: accuracy less that of the baseline.
        saving: share of the baseline's uncached tokens that is saved.
        net_value: value * accuracy - price * uncached; None without a price.
        optimism: by how much net value, or accuracy without a price, would have been overstated,
            had the setting been chosen on the questions reported.
        overconfidence: mean of the rule's own P(its answer is right) less accuracy; None if it
            holds no belief.
        efficient: whether no other rule is as accurate with fewer tokens (yardsticks apart).
        strata: results by difficulty.
    """

    name: str
    says: str
    settings: tuple[str, ...]
    accuracy: Interval
    tokens: dict[str, float]
    uncached: float
    n_used: float
    hit_budget: float
    gain: Interval
    saving: Interval
    net_value: Interval | None
    optimism: float
    overconfidence: Interval | None
    efficient: bool
    strata: tuple[Stratum, ...]


@dataclass(frozen=True)
class Evaluation:
    """One pool: every rule, and yardsticks that no rule can use."""

    pool: Runs
    orders: int
    baseline: str
    rules: tuple[RuleResult, ...]
    yardsticks: tuple[RuleResult, ...]


@dataclass(frozen=True)
class _Judged:
    """Per question: results on held-out folds, and what choosing in sample would have shown."""

    name: str
    says: str
    settings: tuple[str, ...]
    outcome: Outcome
    optimism: float


def evaluate(
    pool: Runs,
    rules: Sequence[RuleSpec],
    key: PRNGKeyArray,
    *,
    orders: int = 100,
    value: float = 1.0,
    price: float | None = None,
    choose: bool = True,
    posterior: ChainPosterior | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Replay rules over a pool and compare them.

    With `choose`, the setting of every rule is the one of highest mean net value, value * accuracy
    - price * tokens, on the other four of five folds; without, it is the rule's default. Without a
    price accuracy decides, then tokens, and rules that weigh tokens take them for free. What a rule
    estimates (rates, costs) comes from the other folds in any case. Every rule is compared with
    asking for everything that was recorded: the majority of all samples, or the last of all rounds.
    Questions of one cluster stay in one fold. `posterior` is where rules take curves and rates
    from; if None the pooled model, whose posterior is known exactly.

    Raises:
        InputError: fewer than 5 questions, rounds of which there are none, value not positive, or
            price negative.
    """
    if pool.questions < FOLDS:
        raise InputError(
            f"pool {pool.name}: too few questions ({pool.questions}); give at least {FOLDS}, as "
            "settings are chosen on other questions than those reported"
        )
    if not pool.parallel and pool.samples < 2:
        raise InputError(
            f"pool {pool.name}: no round of revision was recorded; record runs with some"
        )
    require_value_and_cost(value, price=price or 0.0)
    stream_key, posterior_key = jax.random.split(key)
    met = streams(pool, stream_key, orders)
    if price and np.isnan(pool.uncached[pool.real]).any():
        raise InputError(
            f"price is {price:g}, and tokens of {pool.name} were not all reported; leave the price "
            "out, so that accuracy decides"
        )
    split = list(divisions(pool.cluster or pool.question_ids))
    if posterior is None:
        from msjax.posterior.for_rules import PosteriorForRules

        posterior = PosteriorForRules(posterior_key)
    everyone = np.ones(pool.questions, dtype=bool)
    trainings = [
        Training(pool, chosen, value, price or 0.0, posterior)
        for chosen in (everyone, *(others for others, _ in split))
    ]
    everything = _everything(pool)
    results = []
    for rule in rules:
        progress(rule.name)
        judged = _judge(rule, trainings, met, split, price, choose)
        results.append(_summarise(judged, everything, pool, value, price))
    yardsticks = [
        _summarise(one, everything, pool, value, price) for one in _yardsticks(trainings[0], met)
    ]
    front = [
        any(
            b.accuracy.estimate >= a.accuracy.estimate
            and b.uncached <= a.uncached
            and (b.accuracy.estimate > a.accuracy.estimate or b.uncached < a.uncached)
            for b in results
        )
        for a in results
    ]
    judged_rules = tuple(
        replace(result, efficient=not beaten and not np.isnan(result.uncached))
        for result, beaten in zip(results, front, strict=True)
    )
    baseline = "majority of all samples" if pool.parallel else "last of all rounds"
    return Evaluation(pool, len(met.answers), baseline, judged_rules, tuple(yardsticks))


def _judge(
    rule: RuleSpec,
    trainings: Sequence[Training],
    met: Streams,
    split: Sequence[tuple[Bool[np.ndarray, " question"], Int[np.ndarray, " _"]]],
    price: float | None,
    choose: bool,
) -> _Judged:
    value = trainings[0].value
    replays = _Replays(rule, met, trainings)

    def net(found: Outcome) -> Float[np.ndarray, " question"]:
        accuracy = found.accuracy[0]
        return accuracy if price is None else value * accuracy - price * found.uncached[0]

    chosen = [rule.default] * len(trainings)
    if choose and len(rule.settings) > 1:
        chosen = _best_settings(replays, trainings, price)
    fold = np.empty(len(trainings[0].chosen), dtype=int)
    for number, (_, mine) in enumerate(split, 1):
        fold[mine] = number
    inside, parts = [], []
    for some, outcomes in replays.outcomes(list(enumerate(chosen))):
        everyone = next(outcomes)
        inside.append(net(everyone))
        held_out = jax.tree.map(np.empty_like, everyone)
        for number, found in enumerate(outcomes, 1):
            mine = fold[some] == number
            for target, source in zip(
                jax.tree.leaves(held_out), jax.tree.leaves(found), strict=True
            ):
                target[0, mine] = source[0, mine]
        parts.append(held_out)
    out = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)
    settings = tuple(rule.settings[setting] for setting in chosen[1:])
    optimism = float(np.concatenate(inside).mean() - net(out).mean())
    return _Judged(rule.name, rule.says, settings, out, optimism)


def _best_settings(
    replays: "_Replays", trainings: Sequence[Training], price: float | None
) -> list[int]:
    """The setting of each training that is best on the questions it may look at."""
    value, count = trainings[0].value, len(replays.rule.settings)
    sums = np.zeros((2, len(trainings), count))
    tried = list(product(dict.fromkeys(replays.same_as), range(count)))
    for some, outcomes in replays.outcomes(tried):
        for (learnt, setting), found in zip(tried, outcomes, strict=True):
            both = np.stack([found.accuracy[0], found.uncached[0]])
            for number, training in enumerate(trainings):
                if replays.same_as[number] == learnt:
                    sums[:, number, setting] += both[:, training.chosen[some]].sum(axis=1)
    best = []
    for training, (accuracy, tokens) in zip(trainings, sums.swapaxes(0, 1), strict=True):
        questions = training.chosen.sum()
        if price is None:
            best.append(int(np.lexsort((tokens / questions, -accuracy / questions))[0]))
        else:
            best.append(int(np.argmax((value * accuracy - price * tokens) / questions)))
    return best


class _Replays:
    """A rule on all questions, with what it learnt of each training.

    All settings of all questions together would fill the memory. Where they are many, a part of
    them is replayed at a time, and again for the settings that were chosen.
    """

    def __init__(self, rule: RuleSpec, met: Streams, trainings: Sequence[Training]) -> None:
        pool = trainings[0].runs
        self.rule, self._met, self._tokens = rule, met, pool.tokens
        self._side_info = None if rule.side_info is None else rule.side_info(pool)
        different: dict[int, Any] = {}
        self.same_as: list[int] = []
        """The first training of which the rule learnt the same as of each."""
        for number, training in enumerate(trainings):
            one = rule.parameters(training)
            same = (known for known, other in different.items() if _same(other, one))
            self.same_as.append(next(same, number))
            different.setdefault(self.same_as[-1], one)
        self._first_row = {number: i * len(rule.settings) for i, number in enumerate(different)}
        self._rows = len(different) * len(rule.settings)
        self._parameters = different[0]
        if len(different) > 1:
            self._parameters = jax.tree.map(
                lambda *x: np.concatenate(list(map(np.asarray, x))), *different.values()
            )
        self._whole: Replayed | None = None
        if questions_at_once(met) == pool.questions:
            self._whole = replay(rule.make, met, self._parameters, self._side_info)

    def outcomes(
        self, wanted: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[slice, Iterator[Outcome]]]:
        """Which questions, and their outcome for each pair of a training and a setting."""
        rows = [self._first_row[self.same_as[training]] + setting for training, setting in wanted]
        parts: Iterable[tuple[slice, Streams, Replayed]]
        if self._whole is not None:
            parts = [(slice(0, len(self._met.recorded)), self._met, self._whole)]
        else:
            parameters, distinct = self._parameters, list(dict.fromkeys(rows))
            if len(distinct) < self._rows:
                parameters = jax.tree.map(
                    lambda x: np.asarray(x)[distinct], each_setting(parameters)
                )
                rows = [distinct.index(row) for row in rows]
            parts = replay_in_parts(self.rule.make, self._met, parameters, self._side_info)
        for some, met, replayed in parts:
            tokens = {name: x[some] for name, x in self._tokens.items()}
            of = partial(_of_setting, tokens, met, replayed)
            yield some, map(of, rows)


def _of_setting(
    tokens: dict[str, Float[np.ndarray, "question answer"]],
    met: Streams,
    replayed: Replayed,
    row: int,
) -> Outcome:
    """Of one setting at a time, for the same reason."""
    return outcome(tokens, met, Replayed(*(x[row, None] for x in replayed)))


def _same(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


def _everything(pool: Runs) -> Outcome:
    """The baseline: all that was recorded, majority or last answer."""
    real = pool.real
    if pool.parallel and pool.answered:
        right = np.empty(pool.questions)
        for q in range(pool.questions):
            ids = pool.answers[q, real[q]]
            votes = np.bincount(ids[ids >= 0], minlength=1)
            # Ties go to the answer seen first, which differs from order to order.
            leaders = np.flatnonzero((votes == votes.max()) & (votes > 0))
            each = [pool.right[q, np.flatnonzero(pool.answers[q] == i)[0]] for i in leaders]
            right[q] = np.mean(each) if each else 0.0
    elif pool.parallel:
        right = pool.right.sum(axis=1) / pool.recorded
    else:
        right = pool.right[np.arange(pool.questions), pool.recorded - 1].astype(float)
    return Outcome(
        right[None],
        {name: np.where(real, x, 0).sum(axis=1)[None] for name, x in pool.tokens.items()},
        pool.recorded[None].astype(float),
        np.zeros((1, pool.questions)),
        np.full((1, pool.questions), np.nan),
    )


def _yardsticks(everyone: Training, met: Streams) -> list[_Judged]:
    """What no rule can do, as it looks at labels of the questions it is judged on."""
    pool = everyone.runs
    question = np.arange(pool.questions)[:, None]
    right = (pool.right & pool.real)[question, np.asarray(met.sample)]
    ever = right.any(axis=2)
    n_used = np.where(ever, right.argmax(axis=2) + 1, pool.recorded)
    hit_budget, belief = np.zeros_like(ever), np.full(ever.shape, np.nan)
    found = outcome(
        pool.tokens, met, Replayed(n_used[None], ever[None], hit_budget[None], belief[None])
    )
    says = "stops at the first right answer, which takes the labels"
    yardsticks = [_Judged("oracle", says, ("labels",), found, 0.0)]
    if not pool.parallel and offered_by(pool) & (ANSWERS | VERDICTS) and pool.samples > 1:
        best = programme(pool)
        known = outcome(pool.tokens, met, replay(best.make, met, best.parameters(everyone)))
        yardsticks.append(_Judged(best.name, best.says, best.settings, known, 0.0))
    return yardsticks


def _summarise(
    one: _Judged,
    everything: Outcome,
    pool: Runs,
    value: float,
    price: float | None,
) -> RuleResult:
    found = one.outcome
    accuracy, uncached = found.accuracy[0], found.uncached[0]
    base, spent = everything.accuracy[0], everything.uncached[0]
    cluster = None
    if pool.cluster is not None:
        cluster = np.unique(pool.cluster, return_inverse=True)[1]

    def interval(values: Float[np.ndarray, " question"], smoothing: Smoothing) -> Interval:
        return mean_interval(values, smoothing, cluster=cluster)

    believed = found.belief[0]
    strata = []
    order = np.argsort(pool.difficulty, kind="stable")
    for name, mine in zip(STRATA, np.array_split(order, len(STRATA)), strict=True):
        strata.append(
            Stratum(name, len(mine), float(accuracy[mine].mean()), float(uncached[mine].mean()))
        )
    return RuleResult(
        name=one.name,
        says=one.says,
        settings=one.settings,
        accuracy=interval(accuracy, SHARES),
        tokens={name: float(x.mean()) for name, x in found.tokens.items()},
        uncached=float(uncached.mean()),
        n_used=float(found.n_used.mean()),
        hit_budget=float(found.hit_budget.mean()),
        gain=interval(accuracy - base, DIFFERENCES),
        saving=ratio_interval(spent - uncached, spent, cluster=cluster),
        net_value=None
        if price is None
        else interval(value * accuracy - price * uncached, UNBOUNDED),
        optimism=one.optimism,
        overconfidence=None
        if np.isnan(believed).any()
        else interval(believed - accuracy, DIFFERENCES),
        efficient=False,
        strata=tuple(strata),
    )
