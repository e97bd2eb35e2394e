"""Rules compared on recorded answers without choosing anything on what is reported.

Settings are chosen, and what a rule estimates is estimated, on the other folds of the questions;
intervals come from resampling questions, the same ones for all rules. How much better the same
choice would have looked on the reported questions themselves is printed beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.errors import InputError, require_value_and_cost
from msjax.evaluate.paired import Interval
from msjax.evaluate.replay import Outcome, Replayed, outcome, replay
from msjax.evaluate.streams import Streams, streams
from msjax.rules.round_rules import programme
from msjax.rules.spec import Entry, Training

__all__ = ["Evaluation", "RuleResult", "Stratum", "evaluate"]

FOLDS = 5
RESAMPLES = 2000
LEVEL = 0.9
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
        computed: tokens per question that had to be processed (uncached prompt + completion).
        asked: answers per question.
        exhausted: share of questions in which the rule wanted more than was recorded.
        gain: accuracy less that of the baseline.
        saving: share of the baseline's computed tokens that is saved.
        net_value: value * accuracy - price * computed.
        optimism: by how much net value would have been overstated, had the setting been chosen on
            the questions reported.
        accuracy_optimism: by how much accuracy would have been, had the setting with the best
            accuracy (ties: fewest tokens) been chosen on the questions reported, compared with
            choosing it so on the other folds.
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
    computed: float
    asked: float
    exhausted: float
    gain: Interval
    saving: Interval
    net_value: Interval
    optimism: float
    accuracy_optimism: float
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
    accuracy_optimism: float


def evaluate(
    pool: Runs,
    entries: Sequence[Entry],
    key: PRNGKeyArray,
    *,
    orders: int = 100,
    value: float = 1.0,
    price: float = 1e-4,
    choose: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Replay rules over a pool and compare them.

    With `choose`, the setting of every rule is the one of highest mean net value on the other four
    of five folds; without, it is the rule's default. What a rule estimates (rates, costs) comes
    from the other folds in either case. Every rule is compared with asking for everything that was
    recorded: the majority of all samples, or the last of all rounds.

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
    require_value_and_cost(value, price=price)
    stream_key, fold_key, resample_key = jax.random.split(key, 3)
    met = streams(pool, stream_key, orders)
    fold = np.asarray(jax.random.permutation(fold_key, np.arange(pool.questions) % FOLDS))
    judged = []
    for entry in entries:
        progress(entry.name)
        judged.append(_judge(entry, pool, met, fold, value, price, choose))
    random = np.random.default_rng(np.asarray(jax.random.bits(resample_key, (4,))))
    weight = random.multinomial(
        pool.questions, np.full(pool.questions, 1 / pool.questions), RESAMPLES
    )
    everything = _everything(pool)
    results = [_summarise(one, everything, pool, weight, value, price) for one in judged]
    yardsticks = [
        _summarise(one, everything, pool, weight, value, price)
        for one in _yardsticks(pool, met, value, price)
    ]
    front = [
        any(
            b.accuracy.estimate >= a.accuracy.estimate
            and b.computed <= a.computed
            and (b.accuracy.estimate > a.accuracy.estimate or b.computed < a.computed)
            for b in results
        )
        for a in results
    ]
    rules = tuple(
        replace(result, efficient=not beaten) for result, beaten in zip(results, front, strict=True)
    )
    baseline = "majority of all samples" if pool.parallel else "last of all rounds"
    return Evaluation(pool, len(met.answers), baseline, rules, tuple(yardsticks))


def _judge(
    entry: Entry,
    pool: Runs,
    met: Streams,
    fold: Int[np.ndarray, " question"],
    value: float,
    price: float,
    choose: bool,
) -> _Judged:
    told = None if entry.told is None else entry.told(pool)
    everyone = np.ones(pool.questions, dtype=bool)
    others = [fold != number for number in range(FOLDS)]
    whole, *left_out = _outcomes(
        entry,
        pool,
        met,
        [entry.parameters(Training(pool, x, value, price)) for x in (everyone, *others)],
        told,
    )

    def best(found: Outcome, chosen: Bool[np.ndarray, " question"], by_accuracy: bool) -> int:
        accuracy = found.accuracy[:, chosen].mean(axis=1)
        tokens = found.computed[:, chosen].mean(axis=1)
        if by_accuracy:
            return int(np.lexsort((tokens, -accuracy))[0])
        return int(np.argmax(value * accuracy - price * tokens)) if choose else entry.default

    picked = {True: np.empty(pool.questions, int), False: np.empty(pool.questions, int)}
    held: list[tuple[np.ndarray, Outcome]] = []
    settings = []
    for other, found in zip(others, left_out, strict=True):
        mine = ~other
        held.append((mine, found))
        chosen = best(found, other, False)
        picked[False][mine], picked[True][mine] = chosen, best(found, other, True)
        settings.append(entry.settings[chosen])

    def gathered(setting: Int[np.ndarray, " question"]) -> Outcome:
        empty = jax.tree.map(lambda x: np.empty((1, x.shape[1])), whole)
        for mine, found in held:
            for target, source in zip(jax.tree.leaves(empty), jax.tree.leaves(found), strict=True):
                target[0, mine] = source[setting[mine], np.flatnonzero(mine)]
        return empty

    out = gathered(picked[False])
    accurate = gathered(picked[True])
    net = value * whole.accuracy - price * whole.computed
    inside = best(whole, everyone, False)
    outside = (value * out.accuracy - price * out.computed).mean()
    return _Judged(
        entry.name,
        entry.says,
        tuple(settings),
        out,
        float(net[inside].mean() - outside),
        float(whole.accuracy[best(whole, everyone, True)].mean() - accurate.accuracy.mean()),
    )


def _outcomes(
    entry: Entry, pool: Runs, met: Streams, parameters: Sequence[Any], told: Any
) -> list[Outcome]:
    """Outcomes of several sets of parameters, equal ones replayed once and all of them together."""
    different: list[Any] = []
    which = []
    for one in parameters:
        same = next((i for i, known in enumerate(different) if _same(known, one)), len(different))
        different += [one] if same == len(different) else []
        which.append(same)
    if len(different) == 1:
        return [outcome(pool, met, replay(entry.make, met, different[0], told))] * len(which)
    joined = jax.tree.map(lambda *x: np.concatenate(list(map(np.asarray, x))), *different)
    found = outcome(pool, met, replay(entry.make, met, joined, told))
    size = len(entry.settings)
    return [jax.tree.map(lambda x, start=i * size: x[start : start + size], found) for i in which]


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


def _yardsticks(pool: Runs, met: Streams, value: float, price: float) -> list[_Judged]:
    """What no rule can do, as it looks at labels of the questions it is judged on."""
    question = np.arange(pool.questions)[:, None]
    right = (pool.right & pool.real)[question, np.asarray(met.sample)]
    ever = right.any(axis=2)
    asked = np.where(ever, right.argmax(axis=2) + 1, pool.recorded)
    exhausted, belief = np.zeros_like(ever), np.full(ever.shape, np.nan)
    found = outcome(pool, met, Replayed(asked[None], ever[None], exhausted[None], belief[None]))
    says = "stops at the first right answer, which takes the labels"
    yardsticks = [_Judged("oracle", says, ("labels",), found, 0.0, 0.0)]
    if not pool.parallel and pool.answered and pool.samples > 1:
        best = programme(pool)
        everyone = Training(pool, np.ones(pool.questions, dtype=bool), value, price)
        known = outcome(pool, met, replay(best.make, met, best.parameters(everyone)))
        yardsticks.append(_Judged(best.name, best.says, best.settings, known, 0.0, 0.0))
    return yardsticks


def _summarise(
    one: _Judged,
    everything: Outcome,
    pool: Runs,
    weight: Int[np.ndarray, "resample question"],
    value: float,
    price: float,
) -> RuleResult:
    found = one.outcome
    accuracy, computed = found.accuracy[0], found.computed[0]
    base, spent = everything.accuracy[0], everything.computed[0]
    n = pool.questions

    def interval(values: Float[np.ndarray, " question"]) -> Interval:
        return _interval(float(values.mean()), weight @ values / n)

    believed = found.belief[0]
    saved = 1 - (weight @ computed) / np.maximum(weight @ spent, 1e-300)
    strata = []
    order = np.argsort(pool.difficulty, kind="stable")
    for name, mine in zip(STRATA, np.array_split(order, len(STRATA)), strict=True):
        strata.append(
            Stratum(name, len(mine), float(accuracy[mine].mean()), float(computed[mine].mean()))
        )
    return RuleResult(
        name=one.name,
        says=one.says,
        settings=one.settings,
        accuracy=interval(accuracy),
        tokens={name: float(x.mean()) for name, x in found.tokens.items()},
        computed=float(computed.mean()),
        asked=float(found.asked.mean()),
        exhausted=float(found.exhausted.mean()),
        gain=interval(accuracy - base),
        saving=_interval(float(1 - computed.sum() / max(spent.sum(), 1e-300)), saved),
        net_value=interval(value * accuracy - price * computed),
        optimism=one.optimism,
        accuracy_optimism=one.accuracy_optimism,
        overconfidence=None if np.isnan(believed).any() else interval(believed - accuracy),
        efficient=False,
        strata=tuple(strata),
    )


def _interval(estimate: float, resampled: Float[np.ndarray, " resample"]) -> Interval:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(estimate, float(low), float(high))
