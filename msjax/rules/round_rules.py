"""Rules for rounds of revision, by name, and what they learn from labelled questions."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from msjax.data.runs import Runs
from msjax.rules import fixed
from msjax.rules.belief import ScoreLaws, SignalLaw, belief_programme, belief_rule
from msjax.rules.markovscale import (
    RoundPlan,
    plan_rounds,
    posterior_rounds,
    question_rounds,
    without_gate,
    without_optimal_rounds,
)
from msjax.rules.most_probable import belief_answers, most_probable
from msjax.rules.protocol import StoppingRule
from msjax.rules.spec import ANSWERS, PROBABILITIES, SCORES, Entry, Training, at_most, constant
from msjax.theory.answer_posterior import AnswerLaw
from msjax.theory.chain import TwoStateChain, accuracy_curve
from msjax.theory.score_fits import BetaScores, fit_beta, score_statistics

__all__ = ["programme", "round_rules"]

DRAWS = 1000
"""Posterior draws that a posterior-aware rule averages over."""


def programme(pool: Runs) -> Entry:
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


@cache
def round_rules(budget: int) -> tuple[Entry, ...]:
    """Every rule for a first answer and at most `budget` - 1 revisions."""
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
        return one(plan(train, train.pool.right[train.chosen].mean(axis=0, keepdims=True)))

    def surely(train: Training) -> RoundPlan:
        curve = accuracy_curve(_chain_draws(train), horizon)
        found = [plan(train, curve, confidence) for confidence in confidences]
        return jax.tree.map(lambda *x: jnp.stack(x), *found)

    def signals(train: Training) -> Any:
        chain = _chain_draws(train)
        draws = (chain.p0, chain.p_ic, chain.p_ci, _keep_wrong_draws(train))
        cost = jnp.asarray(_tokens(train) * train.price)
        return jax.tree.map(lambda x: x[None], (*draws, cost, jnp.float32(train.value)))

    def signals_and_scores(train: Training) -> Any:
        return (*signals(train), jax.tree.map(lambda x: x[None], _score_laws(train)))

    def believe(
        p: Any, keep_wrong: Array | None = None, scores: ScoreLaws | None = None
    ) -> StoppingRule:
        p0, p_ic, p_ci, _, cost, value, *_ = p
        signals = SignalLaw(keep_wrong, scores)
        # Costs are in units of value, so that the worth of an answer may be traced.
        return belief_rule(TwoStateChain(p0, p_ic, p_ci), cost / value, signals, price=1.0)

    def answer_law(train: Training) -> AnswerLaw:
        mean = jax.tree.map(lambda x: x.mean(dtype=jnp.float32), _chain_draws(train))
        keep_wrong = jnp.float32(_keep_wrong_draws(train).mean())
        return AnswerLaw(mean, keep_wrong, jnp.float32(_wrong_answers(train)))

    def law_and_rounds(train: Training) -> Any:
        law = jax.tree.map(lambda x: jnp.broadcast_to(x, len(rounds)), answer_law(train))
        return law, jnp.array(rounds)

    def law_and_costs(train: Training) -> Any:
        cost = jnp.asarray(_tokens(train) * train.price / train.value, jnp.float32)
        return jax.tree.map(lambda x: x[None], (answer_law(train), cost))

    def mean_rates(train: Training) -> Any:
        mean = jax.tree.map(lambda x: x.mean(keepdims=True), _chain_draws(train))
        cost = jnp.asarray(_tokens(train) * train.price / train.value, jnp.float32)
        return mean, cost[None]

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

    def after(rule: StoppingRule) -> Callable[[Any, Any], StoppingRule]:
        return lambda k, _: at_most(rule, k + 1)

    returns = {
        "fixed": ("the last answer", fixed.fixed_rounds(horizon), frozenset()),
        "vote": ("the answer given most often", fixed.self_consistency(budget), ANSWERS),
        "highest_score": (
            "the answer with the highest score",
            fixed.best_score(budget),
            SCORES,
        ),
    }
    after_rounds = (
        Entry(
            name,
            f"a fixed number of rounds, {which}",
            after(rule),
            tuple(f"{k} rounds" for k in rounds),
            constant(rounds),
            len(rounds) - 1,
            needs,
        )
        for name, (which, rule, needs) in returns.items()
    )
    return (
        *after_rounds,
        Entry(
            "until_repeated",
            "until the same answer has come so many times in a row",
            lambda times, _: fixed.until_repeated(budget, times),
            tuple(f"{m} times" for m in (2, 3, 4)),
            constant([2, 3, 4]),
            0,
            ANSWERS,
        ),
        Entry(
            "most_probable",
            "a fixed number of rounds, the answer most probably right given the order of all",
            lambda p, _: at_most(most_probable(p[0], budget), p[1] + 1),
            tuple(f"{k} rounds" for k in rounds),
            law_and_rounds,
            len(rounds) - 1,
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
            "posterior_vote",
            "the posterior rule's number of rounds, the answer given most often",
            lambda plan, _: fixed.answer_by(posterior_rounds(plan), "vote", budget),
            ("posterior draws",),
            by_posterior,
            0,
            ANSWERS,
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
            lambda p, _: believe(p, p[3]),
            signal_names,
            signals,
            0,
            ANSWERS,
        ),
        Entry(
            "belief_answers",
            "belief in every answer from the order of all, returning the most probable one",
            lambda p, _: belief_answers(p[0], p[1], price=1.0),
            ("estimates",),
            law_and_costs,
            0,
            ANSWERS,
        ),
        Entry(
            "belief_scores",
            "belief in each question's answer from its scores, Beta laws of right and wrong ones",
            lambda p, _: believe(p, scores=p[6]),
            signal_names,
            signals_and_scores,
            0,
            PROBABILITIES,
        ),
        Entry(
            "belief_changes_scores",
            "belief in each question's answer from scores and from whether revisions change it",
            lambda p, _: believe(p, p[3], p[6]),
            signal_names,
            signals_and_scores,
            0,
            ANSWERS | PROBABILITIES,
        ),
        Entry(
            "question_rounds",
            "MarkovScale0, gate and N* of each question by the score of its first answer",
            lambda p, _: question_rounds(p[0], p[1], price=1.0),
            ("estimates",),
            mean_rates,
            0,
            PROBABILITIES,
        ),
    )


def _tokens(train: Training) -> Float[np.ndarray, " rounds"]:
    """Mean computed tokens of rounds 1..K."""
    return train.pool.uncached[train.chosen].mean(axis=0)[1:]


def _transitions(train: Training) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    pool = train.pool
    there = pool.real[:, 1:] & train.chosen[:, None]
    before, after = pool.right[:, :-1], pool.right[:, 1:]
    kept = pool.answers[:, :-1] == pool.answers[:, 1:]
    return there, before, after, kept


def _chain_draws(train: Training) -> TwoStateChain:
    """Posterior draws of one chain for all questions, uniform priors."""
    there, before, after, _ = _transitions(train)
    first = train.pool.right[train.chosen, 0]
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


def _wrong_answers(train: Training) -> float:
    """How many wrong answers a question effectively has: posterior mean over 2 to 100, prior 1 / m.

    Of m equally likely wrong answers, of which s were given before, a fresh wrong one repeats one
    of those with probability s / m; the one before it, if wrong, counts neither in s nor in m.
    """
    pool = train.pool
    there = pool.real & train.chosen[:, None]
    wrong, answers = there & ~pool.right, pool.answers
    m = np.arange(2, 101)
    log_weight = -np.log(m)
    given = np.zeros(len(answers), int)
    for k in range(answers.shape[1]):
        earlier = wrong[:, :k] & (answers[:, :k] == answers[:, k, None])
        if k:
            replaced = wrong[:, k] & wrong[:, k - 1] & (answers[:, k] != answers[:, k - 1])
            fresh = replaced | (wrong[:, k] & pool.right[:, k - 1])
            left = m - replaced[fresh, None]
            chance = np.minimum((given - replaced)[fresh, None] / left, 1)
            seen = earlier.any(axis=1)[fresh, None]
            with np.errstate(divide="ignore"):
                log_weight = log_weight + np.log(np.where(seen, chance, 1 - chance)).sum(axis=0)
        given += wrong[:, k] & ~earlier.any(axis=1)
    weight = np.exp(log_weight - log_weight.max())
    return float(weight @ m / weight.sum())


def _score_laws(train: Training) -> ScoreLaws:
    """Beta laws of the scores of right and of wrong answers; both flat where either is unknown."""
    pool = train.pool
    there = pool.real & train.chosen[:, None]
    fits = [
        fit_beta(
            score_statistics(np.where(there & (pool.right == right), pool.scores, np.nan).ravel())
        )
        for right in (True, False)
    ]
    if any(bool(fit.degenerate) for fit in fits):
        flat = BetaScores(jnp.float32(1), jnp.float32(1))
        return ScoreLaws(flat, flat)
    return ScoreLaws(*(fit.law for fit in fits))
