"""Rules that follow a belief: against enumeration, Monte Carlo, and the rules they contain."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from msjax.errors import InputError
from msjax.rules.belief import ScoreDistributions, SignalDistribution, belief_programme, belief_rule
from msjax.rules.markovscale import plan_rounds, posterior_rounds
from msjax.rules.protocol import Observation
from msjax.simulation.enumeration import all_paths, path_distribution
from msjax.theory.belief import filter_changes, optimal_continuation
from msjax.theory.chain import TwoStateChain, accuracy_curve
from msjax.theory.judge import Judge, filter_verdicts
from msjax.theory.score_fits import BetaScores

CHAIN = TwoStateChain(0.4, 0.35, 0.1)
TOKENS = np.array([60.0, 80.0, 70.0, 100.0])
SCORES = ScoreDistributions(
    right=BetaScores(jnp.array(4.0), jnp.array(2.0)),
    wrong=BetaScores(jnp.array(2.0), jnp.array(3.0)),
)


def observe(ids, scores=None, verdicts=None):
    """Observations of one question from answer ids, scores and verdicts."""
    ids = np.asarray(ids, np.int32)
    scores = np.full(ids.shape, np.nan) if scores is None else np.asarray(scores)
    judged = None if verdicts is None else jnp.asarray(verdicts, jnp.int32)
    fields = (ids, scores.astype(np.float32), np.ones(ids.shape, np.float32))
    return Observation(*map(jnp.asarray, fields), judged)


def follow(rule, seen):
    """Decisions after every observation of one question."""
    return jax.lax.scan(lambda state, one: rule.update(state, one), rule.init(), seen)[1]


def value_of_stopping(rule, chain, rho, price):
    """Expected net value over all runs in which only changes are seen, by enumeration."""
    total = 0.0
    spent = np.concatenate([[0], np.cumsum(TOKENS)]) * price
    states = itertools.product((0, 1), repeat=len(TOKENS) + 1)
    p0, p_ic, p_ci = (float(x) for x in (chain.p0, chain.p_ic, chain.p_ci))
    for path in states:
        for kept_wrong in itertools.product((0, 1), repeat=len(TOKENS)):
            chance = p0 if path[0] else 1 - p0
            ids, fresh = [0], 1
            for k, (before, now) in enumerate(itertools.pairwise(path)):
                move = p_ci if before else p_ic
                chance *= move if before != now else 1 - move
                keep = before == now == 1 or (before == now == 0 and kept_wrong[k])
                if before == now == 0:
                    chance *= rho if kept_wrong[k] else 1 - rho
                elif kept_wrong[k]:
                    chance = 0.0  # only one of the two branches counts where nothing is drawn
                ids.append(ids[-1] if keep else fresh)
                fresh += not keep
            if chance:
                stop = int(np.argmax(np.asarray(DECIDE[rule](observe(ids)).stop)))
                total += chance * (path[stop] - spent[stop])
    return total


DECIDE = {}


def register(name, rule):
    DECIDE[name] = jax.jit(lambda seen: follow(rule, seen))
    return name


def test_without_signals_it_is_the_plan_of_the_chain():
    for price in (0.0, 1e-4, 5e-4, 3e-3):
        blind = belief_rule(CHAIN, TOKENS, price=price)
        plan = plan_rounds(accuracy_curve(CHAIN, 4)[None], TOKENS, price=price)
        expected = follow(posterior_rounds(plan), observe([0, 0, 1, 1, 2]))
        found = follow(blind, observe([0, 0, 1, 1, 2]))
        assert np.argmax(found.stop) == np.argmax(expected.stop) == plan.optimal_rounds
        np.testing.assert_allclose(found.belief, expected.belief, atol=1e-6)


def test_beliefs_are_those_of_the_filter():
    rule = belief_rule(CHAIN, TOKENS, SignalDistribution(keep_wrong=0.7), price=1e-4)
    found = follow(rule, observe([0, 1, 1, 1, 2]))
    expected = filter_changes(CHAIN, jnp.array([True, False, False, True]), 0.7)
    np.testing.assert_allclose(found.belief, expected, rtol=1e-5)


def test_scores_move_the_belief_by_bayes_rule():
    rule = belief_rule(CHAIN, TOKENS, SignalDistribution(scores=SCORES), price=1e-4)
    found = follow(rule, observe([0, 1], [0.8, jnp.nan]))
    f = [
        scipy.stats.beta.pdf(0.8, *map(float, distribution))
        for distribution in (SCORES.wrong, SCORES.right)
    ]
    first = 0.4 * f[1] / (0.4 * f[1] + 0.6 * f[0])
    assert found.belief[0] == pytest.approx(first, rel=1e-4)
    assert found.belief[1] == pytest.approx(first * 0.9 + (1 - first) * 0.35, rel=1e-4)


def test_verdicts_and_scores_that_are_only_0_or_1_move_it_alike():
    judge, verdicts = Judge(0.7, 0.2), np.array([0, 1, 0, -1, 1])
    ids, scores = np.arange(5), np.where(verdicts < 0, np.nan, verdicts)
    seen = observe(ids, scores, verdicts)
    expected = filter_verdicts(CHAIN, judge, verdicts).beliefs
    for signals in (SignalDistribution(verdicts=judge), SignalDistribution(scores=judge)):
        found = follow(belief_rule(CHAIN, TOKENS, signals, price=1e-4), seen)
        np.testing.assert_allclose(found.belief, expected, rtol=1e-5)


def value_by_verdicts(rule, judge, price):
    """Expected net value over all runs in which only verdicts are seen, by enumeration."""
    answers = len(TOKENS) + 1
    spent = np.concatenate([[0], np.cumsum(TOKENS)]) * price
    p0, p_ic, p_ci = (float(x) for x in (CHAIN.p0, CHAIN.p_ic, CHAIN.p_ci))
    decide = jax.jit(jax.vmap(lambda v: follow(rule, observe(np.arange(answers), None, v)).stop))
    verdicts, paths = all_paths(answers), all_paths(answers)
    stop = np.asarray(decide(jnp.asarray(verdicts, jnp.int32))).argmax(axis=1)
    accepts = np.where(paths, *judge)[:, None]
    shown = np.prod(np.where(verdicts[None], accepts, 1 - accepts), axis=2)
    chance = path_distribution(p0, p_ic, p_ci, answers)[:, None] * shown
    return float(np.sum(chance * (paths[:, stop] - spent[stop])))


def test_the_programme_that_sees_verdicts_is_the_best_rule_and_worth_more_than_a_blind_one():
    judge, price = (0.8, 0.1), 2e-3
    signals = SignalDistribution(verdicts=Judge(*judge))
    best, sees, blind = (
        value_by_verdicts(rule, judge, price)
        for rule in (
            belief_programme(CHAIN, TOKENS, signals, price=price),
            belief_rule(CHAIN, TOKENS, signals, price=price),
            belief_rule(CHAIN, TOKENS, price=price),
        )
    )
    assert best >= sees - 1e-4 and sees > blind + 0.01


def test_draws_are_weighted_by_what_the_question_showed():
    draws = TwoStateChain(jnp.array([0.4, 0.4]), jnp.array([0.9, 0.1]), jnp.array([0.0, 0.3]))
    found = follow(
        belief_rule(draws, TOKENS, SignalDistribution(keep_wrong=0.5), price=1e-4), observe([0, 1])
    )
    # P(changed) is .6 (.9 + .1 .5) and .6 (.1 + .9 .5) + .4 .3; P(changed and right) .54 and .06.
    changed = np.array([0.6 * 0.95, 0.6 * 0.55 + 0.12])
    assert found.belief[1] == pytest.approx(0.6 / changed.sum(), rel=1e-5)


@pytest.mark.parametrize("price", [2e-4, 1e-3, 2e-3])
def test_no_rule_that_sees_changes_beats_the_programme(price):
    distribution = SignalDistribution(keep_wrong=0.6)
    best = register("best", belief_programme(CHAIN, TOKENS, distribution, price=price))
    sees = register("sees", belief_rule(CHAIN, TOKENS, distribution, price=price))
    blind = register("blind", belief_rule(CHAIN, TOKENS, price=price))
    values = [value_of_stopping(rule, CHAIN, 0.6, price) for rule in (best, sees, blind)]
    assert values[0] >= values[1] - 1e-4
    assert values[1] >= values[2] - 1e-6


def test_the_programme_is_that_of_equal_costs():
    distribution, price = SignalDistribution(keep_wrong=0.6), 1e-3
    solved = optimal_continuation(CHAIN, 1.0, 50 * price, 4, keep_wrong=0.6)
    value = float(np.interp(0.4, solved.beliefs, solved.value_to_go[4]))
    global TOKENS
    kept, TOKENS = TOKENS, np.full(4, 50.0)
    try:
        best = register("equal", belief_programme(CHAIN, TOKENS, distribution, price=price))
        assert value_of_stopping(best, CHAIN, 0.6, price) == pytest.approx(value, abs=1e-3)
    finally:
        TOKENS = kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signals": SignalDistribution(keep_wrong=1.5)}, "keep_wrong is 1.5"),
        (
            {
                "signals": SignalDistribution(
                    scores=SCORES._replace(wrong=BetaScores(jnp.array(2.0), jnp.array(0.0)))
                )
            },
            "scores.wrong.b is 0.0",
        ),
        ({"signals": SignalDistribution(verdicts=Judge(0.5, 1.5))}, "accept_wrong is 1.5"),
        ({"price": -1.0}, "price is -1.0"),
        ({"value": 0.0}, "value is 0.0"),
        ({"tokens_per_round": np.array([1.0, np.nan])}, r"tokens_per_round\[1\] is nan"),
        ({"tokens_per_round": np.array([])}, "rounds 1..K"),
    ],
)
def test_bad_input(changes, message):
    given = {"chain": CHAIN, "tokens_per_round": TOKENS, "price": 1e-4} | changes
    for make in (belief_rule, belief_programme):
        with pytest.raises(InputError, match=message):
            make(**given)
