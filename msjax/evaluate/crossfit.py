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
from msjax.evaluate.replay import Outcome, Replayed, outcome, replay
from msjax.evaluate.streams import Streams, streams
from msjax.intervals import Interval
from msjax.rules.spec import ChainPosterior, RuleSpec, Training
from msjax.rules.stops import programme

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
        uncached: tokens per question that are paid for (uncached prompt + completion + verifier).
        n_used: answers per question.
        hit_budget: share of questions in which the rule wanted more than was recorded.
        gain: accuracy less that of the baseline.
        saving: share of the baseline's uncached tokens that is saved.
        net_value: value * accuracy - price * uncached.
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
    uncached: float
    n_used: float
    hit_budget: float
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
    rules: Sequence[RuleSpec],
    key: PRNGKeyArray,
    *,
    orders: int = 100,
    value: float = 1.0,
    price: float = 1e-4,
    choose: bool = True,
    posterior: ChainPosterior | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Replay rules over a pool and compare them.

    With `choose`, the setting of every rule is the one of highest mean net value on the other four
    of five folds; without, it is the rule's default. What a rule estimates (rates, costs) comes
    from the other folds in either case. Every rule is compared with asking for everything that was
    recorded: the majority of all samples, or the last of all rounds. `posterior` is where rules
    take curves and rates from; if None the pooled model, whose posterior is known exactly.

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
    posterior_key = jax.random.fold_in(key, 3)
    met = streams(pool, stream_key, orders)
    fold = np.asarray(jax.random.permutation(fold_key, np.arange(pool.questions) % FOLDS))
    judged = []
    if posterior is None:
        from msjax.posterior.for_rules import PosteriorForRules

        posterior = PosteriorForRules(posterior_key)
    everyone = np.ones(pool.questions, dtype=bool)
    trainings = [
        Training(pool, chosen, value, price, posterior)
        for chosen in (everyone, *(fold != number for number in range(FOLDS)))
    ]
    for rule in rules:
        progress(rule.name)
        judged.append(_judge(rule, trainings, met, fold, choose))
    random = np.random.default_rng(np.asarray(jax.random.bits(resample_key, (4,))))
    weight = random.multinomial(
        pool.questions, np.full(pool.questions, 1 / pool.questions), RESAMPLES
    )
    everything = _everything(pool)
    results = [_summarise(one, everything, pool, weight, value, price) for one in judged]
    yardsticks = [
        _summarise(one, everything, pool, weight, value, price)
        for one in _yardsticks(trainings[0], met)
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
        replace(result, efficient=not beaten) for result, beaten in zip(results, front, strict=True)
    )
    baseline = "majority of all samples" if pool.parallel else "last of all rounds"
    return Evaluation(pool, len(met.answers), baseline, judged_rules, tuple(yardsticks))


def _judge(
    rule: RuleSpec,
    trainings: Sequence[Training],
    met: Streams,
    fold: Int[np.ndarray, " question"],
    choose: bool,
) -> _Judged:
    everyone, *others = (training.chosen for training in trainings)
    pool, value, price = trainings[0].runs, trainings[0].value, trainings[0].price
    whole, *left_out = _outcomes(rule, pool, met, [rule.parameters(one) for one in trainings])

    def best(found: Outcome, chosen: Bool[np.ndarray, " question"], by_accuracy: bool) -> int:
        accuracy = found.accuracy[:, chosen].mean(axis=1)
        tokens = found.uncached[:, chosen].mean(axis=1)
        if by_accuracy:
            return int(np.lexsort((tokens, -accuracy))[0])
        return int(np.argmax(value * accuracy - price * tokens)) if choose else rule.default

    picked = {True: np.empty(pool.questions, int), False: np.empty(pool.questions, int)}
    held: list[tuple[np.ndarray, Outcome]] = []
    settings = []
    for other, found in zip(others, left_out, strict=True):
        mine = ~other
        held.append((mine, found))
        chosen = best(found, other, False)
        picked[False][mine], picked[True][mine] = chosen, best(found, other, True)
        settings.append(rule.settings[chosen])

    def gathered(setting: Int[np.ndarray, " question"]) -> Outcome:
        empty = jax.tree.map(lambda x: np.empty((1, x.shape[1])), whole)
        for mine, found in held:
            for target, source in zip(jax.tree.leaves(empty), jax.tree.leaves(found), strict=True):
                target[0, mine] = source[setting[mine], np.flatnonzero(mine)]
        return empty

    out = gathered(picked[False])
    accurate = gathered(picked[True])
    net = value * whole.accuracy - price * whole.uncached
    inside = best(whole, everyone, False)
    outside = (value * out.accuracy - price * out.uncached).mean()
    return _Judged(
        rule.name,
        rule.says,
        tuple(settings),
        out,
        float(net[inside].mean() - outside),
        float(whole.accuracy[best(whole, everyone, True)].mean() - accurate.accuracy.mean()),
    )


def _outcomes(rule: RuleSpec, pool: Runs, met: Streams, parameters: Sequence[Any]) -> list[Outcome]:
    """Outcomes of several sets of parameters, equal ones replayed once and all of them together."""
    side_info = None if rule.side_info is None else rule.side_info(pool)
    different: list[Any] = []
    which = []
    for one in parameters:
        same = next((i for i, known in enumerate(different) if _same(known, one)), len(different))
        different += [one] if same == len(different) else []
        which.append(same)
    if len(different) == 1:
        return [outcome(pool, met, replay(rule.make, met, different[0], side_info))] * len(which)
    joined = jax.tree.map(lambda *x: np.concatenate(list(map(np.asarray, x))), *different)
    found = outcome(pool, met, replay(rule.make, met, joined, side_info))
    size = len(rule.settings)
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


def _yardsticks(everyone: Training, met: Streams) -> list[_Judged]:
    """What no rule can do, as it looks at labels of the questions it is judged on."""
    pool = everyone.runs
    question = np.arange(pool.questions)[:, None]
    right = (pool.right & pool.real)[question, np.asarray(met.sample)]
    ever = right.any(axis=2)
    n_used = np.where(ever, right.argmax(axis=2) + 1, pool.recorded)
    hit_budget, belief = np.zeros_like(ever), np.full(ever.shape, np.nan)
    found = outcome(pool, met, Replayed(n_used[None], ever[None], hit_budget[None], belief[None]))
    says = "stops at the first right answer, which takes the labels"
    yardsticks = [_Judged("oracle", says, ("labels",), found, 0.0, 0.0)]
    if not pool.parallel and pool.answered and pool.samples > 1:
        best = programme(pool)
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
    accuracy, uncached = found.accuracy[0], found.uncached[0]
    base, spent = everything.accuracy[0], everything.uncached[0]
    n = pool.questions

    def interval(values: Float[np.ndarray, " question"]) -> Interval:
        return _interval(float(values.mean()), weight @ values / n)

    believed = found.belief[0]
    saved = 1 - (weight @ uncached) / np.maximum(weight @ spent, 1e-300)
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
        accuracy=interval(accuracy),
        tokens={name: float(x.mean()) for name, x in found.tokens.items()},
        uncached=float(uncached.mean()),
        n_used=float(found.n_used.mean()),
        hit_budget=float(found.hit_budget.mean()),
        gain=interval(accuracy - base),
        saving=_interval(float(1 - uncached.sum() / max(spent.sum(), 1e-300)), saved),
        net_value=interval(value * accuracy - price * uncached),
        optimism=one.optimism,
        accuracy_optimism=one.accuracy_optimism,
        overconfidence=None if np.isnan(believed).any() else interval(believed - accuracy),
        efficient=False,
        strata=tuple(strata),
    )


def _interval(estimate: float, resampled: Float[np.ndarray, " resample"]) -> Interval:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(estimate, float(low), float(high))
