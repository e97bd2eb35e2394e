"""Rules by name, as `msjax replay` compares them: what each may vary, needs and is told.

An entry has a grid of settings. Nothing here chooses one: that is done on other questions than
those that are reported (`msjax.evaluation`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from msjax.chain import TwoStateChain, accuracy_curve
from msjax.errors import InputError
from msjax.pools import Pool
from msjax.stopping import baselines, optpo, optscale, votes
from msjax.stopping.belief import SignalLaw, belief_programme, belief_rule
from msjax.stopping.markovscale import (
    RoundPlan,
    plan_rounds,
    posterior_rounds,
    without_gate,
    without_optimal_rounds,
)
from msjax.stopping.protocol import StoppingRule, restopped

__all__ = ["Entry", "Training", "at_most", "entries", "programme", "rule_names"]

DRAWS = 1000
"""Posterior draws that a posterior-aware rule averages over."""


class Training(NamedTuple):
    """Labelled questions from which a rule may learn: not those it is judged on.

    Attributes:
        pool: recorded answers.
        chosen: which of its questions may be looked at.
        value: worth of a correct answer.
        price: cost of one token.
    """

    pool: Pool
    chosen: Bool[np.ndarray, " question"]
    value: float
    price: float


@dataclass(frozen=True)
class Entry:
    """A rule with a grid of settings.

    Attributes:
        name: what users type.
        says: the rule in one sentence.
        make: the rule, from one setting's parameters and from what it is told of the question.
        settings: the settings in words.
        parameters: their parameters, first axis the setting; may look at `Training`.
        default: the setting used where none is chosen.
        needs: of "answers", "scores" and "probabilities" (scores in [0, 1]), what it needs.
        told: what it is told of every question beforehand, if anything.
    """

    name: str
    says: str
    make: Callable[[Any, Any], StoppingRule]
    settings: tuple[str, ...]
    parameters: Callable[[Training], Any]
    default: int
    needs: frozenset[str]
    told: Callable[[Pool], Shaped[np.ndarray, "question ..."]] | None = None


def at_most(rule: StoppingRule, answers: Int[Array, ""] | int) -> StoppingRule:
    """The rule, stopped at the latest after so many answers."""
    return restopped(rule, lambda asked, stop: stop | (asked >= answers))


def programme(pool: Pool) -> Entry:
    """The best rule of those that see which answers changed, if the benchmark were one chain.

    It is told the rates of the very questions it is judged on: a yardstick for sequential pools.
    """
    return _programme(pool.samples)


@cache
def _programme(budget: int) -> Entry:
    def known(train: Training) -> Any:
        chain = jax.tree.map(lambda x: x.mean(keepdims=True), _chain_draws(train))
        rho = jnp.asarray(_keep_wrong_draws(train).mean(keepdims=True), jnp.float32)
        cost = jnp.asarray(_tokens(train) * train.price / train.value, jnp.float32)
        return chain, rho, cost[None]

    def make(parameters: Any, _: Any) -> StoppingRule:
        chain, rho, cost = parameters
        return belief_programme(chain, cost, SignalLaw(keep_wrong=rho), price=1.0)

    return Entry(
        "programme",
        "dynamic programme of one chain whose rates it is told",
        make,
        ("rates of all questions",),
        known,
        0,
        ANSWERS,
    )


def rule_names() -> tuple[str, ...]:
    """Every name that `entries` may return."""
    return (*(e.name for e in _parallel(64)), *(e.name for e in _sequential(8)))


def entries(pool: Pool, names: tuple[str, ...] = ()) -> tuple[Entry, ...]:
    """The rules that this pool allows, or those of them that are named.

    Raises InputError for a name that is not known, and for a named rule that the pool does not
    allow: made for samples or for rounds only, or in need of scores or answers that are missing.
    """
    offered = _parallel(pool.samples) if pool.parallel else _sequential(pool.samples)
    known = {entry.name: entry for entry in offered}
    has = {
        need
        for need, there in (
            ("answers", pool.answered),
            ("scores", pool.scored),
            ("probabilities", pool.scores_are_probabilities),
        )
        if there
    }
    for name in names:
        if name not in rule_names():
            raise InputError(f"rules: {name!r} is unknown; known are {', '.join(rule_names())}")
        if name not in known:
            kind = "parallel" if pool.parallel else "sequential"
            raise InputError(f"rules: {name!r} does not apply to {pool.name}, which is {kind}")
        missing = known[name].needs - has
        if missing:
            raise InputError(
                f"rules: {name!r} needs {_NEEDS[min(missing)]}, which {pool.name} does not have"
            )
    return tuple(
        entry
        for entry in offered
        if (entry.name in names if names else True) and entry.needs <= has
    )


ANSWERS, SCORES = frozenset({"answers"}), frozenset({"scores"})
PROBABILITIES = frozenset({"probabilities"})
_NEEDS = {
    "answers": "answers",
    "scores": "a score for every answer",
    "probabilities": "a score in [0, 1] for every answer",
}


def _fixed(values: Any) -> Callable[[Training], Any]:
    array = np.asarray(values)
    return lambda _: array


@cache
def _parallel(budget: int) -> tuple[Entry, ...]:
    sizes = sorted({n for n in (1, 2, 3, 4, 5, 8, 10, 16, 20, 32, 40, 64) if n < budget} | {budget})
    last = len(sizes) - 1
    thresholds = (0.8, 0.9, 0.95, 0.975, 0.99)
    margins = tuple(range(1, 9))
    grid = [(s, c) for s in (0.5, 0.7, 0.8, 0.9, 0.95, 0.99) for c in (0.01, 0.05, 0.1, 0.5)]
    s_min_and_confidence = tuple(f"s_min {s:g}, confidence {c:g}" for s, c in grid)
    peek = optscale.PEEKS.get(budget, max(1, budget // 3))

    def told_difficulty(pool: Pool) -> np.ndarray:
        """Thirds of the questions by mean score of all samples: easy, medium, hard."""
        mean = np.nanmean(pool.scores, axis=1)
        cuts = np.quantile(mean, [1 / 3, 2 / 3])
        return np.asarray(2 - np.searchsorted(cuts, mean), dtype=np.int32)

    return (
        Entry(
            "self_consistency",
            "a fixed number of samples, the answer given most often",
            lambda n, _: at_most(baselines.self_consistency(budget), n),
            tuple(f"{n} samples" for n in sizes),
            _fixed(sizes),
            last,
            ANSWERS,
        ),
        Entry(
            "best_of_n",
            "a fixed number of samples, the answer with the highest score",
            lambda n, _: at_most(baselines.best_score(budget), n),
            tuple(f"{n} samples" for n in sizes),
            _fixed(sizes),
            last,
            SCORES,
        ),
        Entry(
            "asc",
            "until the leader beats the runner-up with this Beta posterior",
            lambda threshold, _: votes.asc(budget, threshold),
            tuple(f"threshold {t:g}" for t in thresholds),
            _fixed(thresholds),
            thresholds.index(0.95),
            ANSWERS,
        ),
        Entry(
            "esc",
            "until all five answers of a window agree",
            lambda _parameter, _: votes.esc(budget),
            ("window 5",),
            _fixed([5]),
            0,
            ANSWERS,
        ),
        Entry(
            "consol",
            "ConSol's sequential probability ratio test, a lead of 3",
            lambda _parameter, _: votes.consol(budget),
            ("public constants",),
            _fixed([3]),
            0,
            ANSWERS,
        ),
        Entry(
            "vote_margin",
            "until the leader is so many votes ahead; OptPO with equal wrong rates",
            lambda margin, _: votes.vote_margin(budget, margin),
            tuple(f"margin {m}" for m in margins),
            _fixed(margins),
            margins.index(3),
            ANSWERS,
        ),
        Entry(
            "optpo",
            "until the Bayes factor of leader against runner-up is reached, vote rates estimated",
            lambda p, _: optpo.optpo(budget, p[0], p[1], p[2]),
            tuple(f"Bayes factor {t:g}" for t in (4, 20, 100)),
            _vote_rates,
            1,
            ANSWERS,
        ),
        Entry(
            "certificate",
            "until two e-processes certify the leader",
            lambda delta, _: votes.certificate(budget, delta),
            tuple(f"delta {d:g}" for d in (0.05, 0.1, 0.2)),
            _fixed([0.05, 0.1, 0.2]),
            1,
            ANSWERS,
        ),
        Entry(
            "dsc",
            "told which questions are hard by the scores of all samples, which is free information",
            lambda threshold, difficulty: votes.dsc(budget, difficulty, threshold),
            tuple(f"threshold {t:g}" for t in thresholds),
            _fixed(thresholds),
            thresholds.index(0.95),
            ANSWERS | SCORES,
            told_difficulty,
        ),
        Entry(
            "optscale",
            "OptScale0, fitted again after every sample as the paper says",
            lambda p, _: optscale.optscale(budget, s_min=p[0], confidence=p[1]),
            s_min_and_confidence,
            _fixed(grid),
            grid.index((0.9, 0.1)),
            PROBABILITIES,
        ),
        Entry(
            "optscale_peek_once",
            "OptScale0, fitted once as the public code does",
            lambda p, _: optscale.optscale_peek_once(
                budget, s_min=p[0], confidence=p[1], peek=peek
            ),
            s_min_and_confidence,
            _fixed(grid),
            grid.index((0.9, 0.1)),
            PROBABILITIES,
        ),
    )


@cache
def _sequential(budget: int) -> tuple[Entry, ...]:
    horizon = max(budget - 1, 1)
    rounds = tuple(range(budget))
    confidences = (0.5, 0.8, 0.9, 0.95)
    signal_names = ("gain of what is seen",)

    def plan(
        train: Training, accuracy: Array | np.ndarray, confidence: float | None = None
    ) -> RoundPlan:
        cost = _tokens(train)
        return plan_rounds(
            accuracy, cost, value=train.value, price=train.price, confidence=confidence
        )

    def one(plan: RoundPlan) -> RoundPlan:
        return jax.tree.map(lambda x: x[None], plan)

    def by_posterior(train: Training) -> RoundPlan:
        return one(plan(train, accuracy_curve(_chain_draws(train), horizon)))

    def by_mean(train: Training) -> RoundPlan:
        mean = jax.tree.map(lambda x: x.mean(keepdims=True), _chain_draws(train))
        return one(plan(train, accuracy_curve(mean, horizon)))

    def by_curve(train: Training) -> RoundPlan:
        return one(plan(train, train.pool.correct[train.chosen].mean(axis=0, keepdims=True)))

    def surely(train: Training) -> RoundPlan:
        curve = accuracy_curve(_chain_draws(train), horizon)
        found = [plan(train, curve, confidence) for confidence in confidences]
        return jax.tree.map(lambda *x: jnp.stack(x), *found)

    def signals(train: Training) -> Any:
        chain = _chain_draws(train)
        draws = (chain.p0, chain.p_ic, chain.p_ci, _keep_wrong_draws(train))
        cost = jnp.asarray(_tokens(train) * train.price)
        return jax.tree.map(lambda x: x[None], (*draws, cost, jnp.float32(train.value)))

    def by_changes(p: Any, _: Any) -> StoppingRule:
        p0, p_ic, p_ci, rho, cost, value = p
        chain = TwoStateChain(p0, p_ic, p_ci)
        # Costs are in units of value, so that the worth of an answer may be traced.
        return belief_rule(chain, cost / value, SignalLaw(keep_wrong=rho), price=1.0)

    planned = {
        "posterior": ("E[p_k] over posterior draws of the chain (risk-neutral)", by_posterior),
        "plug_in": ("p_k at the posterior mean of the chain", by_mean),
        "empirical_curve": ("the curve of the other questions, no Markov assumption", by_curve),
    }
    follow = {
        name: Entry(
            name,
            f"MarkovScale's gate and N*, by {how}",
            lambda plan, _: posterior_rounds(plan),
            ("posterior draws",) if name == "posterior" else ("estimates",),
            fit,
            0,
            frozenset(),
        )
        for name, (how, fit) in planned.items()
    }
    return (
        Entry(
            "fixed",
            "a fixed number of rounds, the last answer",
            lambda k, _: at_most(baselines.fixed_rounds(horizon), k + 1),
            tuple(f"{k} rounds" for k in rounds),
            _fixed(rounds),
            len(rounds) - 1,
            frozenset(),
        ),
        Entry(
            "vote",
            "a fixed number of rounds, the answer given most often",
            lambda k, _: at_most(baselines.self_consistency(budget), k + 1),
            tuple(f"{k} rounds" for k in rounds),
            _fixed(rounds),
            len(rounds) - 1,
            ANSWERS,
        ),
        Entry(
            "until_repeated",
            "until the same answer has come so many times in a row",
            lambda times, _: baselines.until_repeated(budget, times),
            tuple(f"{m} times" for m in (2, 3, 4)),
            _fixed([2, 3, 4]),
            0,
            ANSWERS,
        ),
        *follow.values(),
        Entry(
            "risk_averse",
            "MarkovScale, going on only if the gain is larger than the cost with this probability",
            lambda plan, _: posterior_rounds(plan),
            tuple(f"probability {c:g}" for c in confidences),
            surely,
            confidences.index(0.9),
            frozenset(),
        ),
        Entry(
            "posterior_without_gate",
            "the posterior rule, never stopping at the first answer",
            lambda plan, _: without_gate(posterior_rounds(plan)),
            ("posterior draws",),
            by_posterior,
            0,
            frozenset(),
        ),
        Entry(
            "posterior_without_n_star",
            "the posterior rule's gate, then all rounds",
            lambda plan, _: without_optimal_rounds(posterior_rounds(plan), horizon),
            ("posterior draws",),
            by_posterior,
            0,
            frozenset(),
        ),
        Entry(
            "belief_changes",
            "belief in each question's answer from whether revisions change it",
            by_changes,
            signal_names,
            signals,
            0,
            ANSWERS,
        ),
    )


def _tokens(train: Training) -> Float[np.ndarray, " rounds"]:
    """Mean computed tokens of rounds 1..K."""
    return train.pool.computed[train.chosen].mean(axis=0)[1:]


def _transitions(train: Training) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    pool = train.pool
    there = pool.real[:, 1:] & train.chosen[:, None]
    before, after = pool.correct[:, :-1], pool.correct[:, 1:]
    kept = pool.answers[:, :-1] == pool.answers[:, 1:]
    return there, before, after, kept


def _chain_draws(train: Training) -> TwoStateChain:
    """Posterior draws of one chain for all questions, uniform priors."""
    there, before, after, _ = _transitions(train)
    first = train.pool.correct[train.chosen, 0]
    cases = (
        (first.sum(), (~first).sum()),
        ((there & ~before & after).sum(), (there & ~before & ~after).sum()),
        ((there & before & ~after).sum(), (there & before & after).sum()),
    )
    random = np.random.default_rng(0)
    return TwoStateChain(*(random.beta(1 + yes, 1 + no, DRAWS) for yes, no in cases))


def _keep_wrong_draws(train: Training) -> Float[np.ndarray, " draw"]:
    there, before, after, kept = _transitions(train)
    wrong = there & ~before & ~after
    random = np.random.default_rng(1)
    return random.beta(1 + (wrong & kept).sum(), 1 + (wrong & ~kept).sum(), DRAWS)


def _vote_rates(train: Training) -> Float[np.ndarray, "setting 3"]:
    """P(a vote is right), P(it falls on the commonest wrong answer), Bayes factor wanted."""
    pool = train.pool
    there = pool.real & train.chosen[:, None]
    right = (pool.correct & there).sum() / there.sum()
    commonest = [
        np.bincount(ids[keep]).max(initial=0)
        for ids, keep in zip(pool.answers, there & ~pool.correct & (pool.answers >= 0), strict=True)
    ]
    wrong = np.sum(commonest) / there.sum()
    p_right, p_wrong = np.clip([right, wrong], 0.01, 0.99)
    return np.array([[p_right, p_wrong, factor] for factor in (4.0, 20.0, 100.0)])
