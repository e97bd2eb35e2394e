"""Rules on benchmarks of known distribution: simulator, yardstick, and plans from small pilots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from msjax.errors import InputError
from msjax.evaluate.replay import outcome, replay
from msjax.evaluate.simulated import (
    POPULATIONS,
    best_worth_seeing_changes,
    judge_rules,
    plan_from_pilots,
    simulate_pool,
)
from msjax.evaluate.streams import streams
from msjax.posterior.for_rules import PosteriorForRules
from msjax.rules import find_rule, find_rules
from msjax.rules.belief import SignalDistribution, belief_programme
from msjax.rules.spec import Training
from msjax.theory.belief import optimal_continuation
from msjax.theory.chain import TwoStateChain, accuracy_curve
from msjax.theory.judge import Judge, until_accepted
from msjax.verify.evidence import FALSE_ALARM

CHAIN = TwoStateChain(0.5, 0.3, 0.08)
ROUNDS, PRICE = 4, 2e-4
HOMOGENEOUS = POPULATIONS[0]
POSTERIOR = PosteriorForRules(jax.random.key(0))


def z_limit(comparisons):
    """Largest |z| that so many sound comparisons reach but for a false alarm."""
    return scipy.stats.norm.isf(FALSE_ALARM / (2 * comparisons))


def test_a_simulated_chain_has_its_rates_and_its_kept_answers():
    pool = simulate_pool(HOMOGENEOUS, np.random.default_rng(0), 20_000, ROUNDS)
    training = Training(pool, np.ones(20_000, dtype=bool), 1.0, PRICE, POSTERIOR)
    entry = find_rule("belief", pool)
    learnt = entry.parameters(training)
    limit = z_limit(4)
    known = zip((*learnt["chain"], learnt["keep_wrong"]), (0.5, 0.3, 0.08, 0.7), strict=True)
    for draws, truth in known:
        assert abs(draws.mean() - truth) < limit * np.asarray(draws).std()
    np.testing.assert_allclose(learnt["costs"][0], 100 * PRICE, rtol=1e-6)
    right = pool.right.mean(axis=0)
    spread = np.sqrt(right * (1 - right) / 20_000)
    assert (abs(right - accuracy_curve(CHAIN, ROUNDS)) < limit * spread).all()


@pytest.mark.parametrize("population", POPULATIONS, ids=lambda p: p.name)
def test_answers_follow_the_states(population):
    pool = simulate_pool(population, np.random.default_rng(1), 500, 6)
    same = pool.answers[:, :, None] == pool.answers[:, None, :]
    right = pool.right[:, :, None], pool.right[:, None, :]
    # The right answer is one answer, and no wrong one is the same as it.
    assert same[right[0] & right[1]].all() and not same[right[0] ^ right[1]].any()
    newest = np.maximum.accumulate(pool.answers, axis=1)
    assert (pool.answers[:, 0] == 0).all() and (np.diff(newest, axis=1) <= 1).all()
    assert pool.scores_are_probabilities


@pytest.mark.slow
def test_the_yardstick_is_the_optimum_of_one_chain():
    """The tree of what may be seen, against the programme on beliefs, and that rule when run."""
    solved = optimal_continuation(CHAIN, 1.0, 100 * PRICE, ROUNDS, keep_wrong=0.7)
    optimum = float(np.interp(0.5, solved.beliefs, solved.value_to_go[ROUNDS])) - 100 * PRICE
    random = np.random.default_rng(2)
    found = best_worth_seeing_changes(HOMOGENEOUS, random, ROUNDS, 1.0, PRICE)
    noise = 0.5 / np.sqrt(200_000)
    assert abs(found - optimum) < z_limit(2) * noise + 1e-3
    pool = simulate_pool(HOMOGENEOUS, random, 20_000, ROUNDS)
    met = streams(pool, jax.random.key(0), 1)

    def best(chain, _):
        cost = jnp.full(ROUNDS, 100.0)
        return belief_programme(chain, cost, SignalDistribution(keep_wrong=0.7), price=PRICE)

    one = jax.tree.map(lambda x: x[None], CHAIN)
    ran = outcome(pool.tokens, met, replay(best, met, one))
    worth = (ran.accuracy - PRICE * ran.uncached).mean()
    assert abs(worth - optimum) < z_limit(2) * 0.5 / np.sqrt(20_000) + 1e-3


@pytest.mark.slow
def test_no_rule_beats_the_yardstick():
    pool = simulate_pool(HOMOGENEOUS, np.random.default_rng(3), 10, ROUNDS)
    found = judge_rules(
        HOMOGENEOUS,
        find_rules(pool, ("fixed", "markovscale", "belief")),
        jax.random.key(0),
        pilot=100,
        pilots=2,
        questions=2000,
        rounds=ROUNDS,
        price=PRICE,
    )
    noise = z_limit(3) * 0.5 / np.sqrt(2000)
    assert min(rule.regret for rule in found) > -noise
    by_name = {rule.rule: rule for rule in found}
    assert by_name["belief"].worth > by_name["fixed"].worth


@pytest.mark.slow
def test_a_score_that_tells_is_worth_looking_at():
    """A rule that sees it is worth more than one that sees changes, and both believe what is so."""
    noisy, questions = POPULATIONS[4], 3000
    names = ("belief", "belief,scores=only", "markovscale,scores=yes")
    pool = simulate_pool(noisy, np.random.default_rng(3), 10, ROUNDS)
    found = judge_rules(
        noisy,
        find_rules(pool, names),
        jax.random.key(0),
        pilot=4000,
        pilots=1,
        questions=questions,
        rounds=ROUNDS,
        price=PRICE,
    )
    changes, scores, first_score = found
    noise = z_limit(4) * 0.5 / np.sqrt(questions)
    assert scores.worth > changes.worth + noise
    # The pilot is large, so what is left is the noise of the questions judged, and its own.
    assert max(abs(changes.overconfidence), abs(scores.overconfidence)) < 2 * noise
    assert scores.worth > first_score.worth + noise


def test_rules_that_see_verdicts_do_what_the_theory_of_loops_says():
    judge, rounds, questions = Judge(0.8, 0.1), 3, 3000
    chain = TwoStateChain(0.3, 0.2, 0.3)

    def states(random, number, rounds):
        right = random.random((number, 1)) < 0.3
        for _ in range(rounds):
            flips = random.random(number) < np.where(right[:, -1], 0.3, 0.2)
            right = np.column_stack([right, right[:, -1] ^ flips])
        return right

    judged = HOMOGENEOUS._replace(states=states, judge=judge)
    names = ("fixed", "until_accepted", "belief+best_score,verdicts=only")
    pool = simulate_pool(judged, np.random.default_rng(3), 10, rounds)
    fixed, until, believing = judge_rules(
        judged,
        find_rules(pool, names),
        jax.random.key(0),
        pilot=2000,
        pilots=1,
        questions=questions,
        rounds=rounds,
    )
    predicted, noise = until_accepted(chain, judge, rounds), z_limit(4) * 0.5 / np.sqrt(questions)
    assert abs(until.accuracy - predicted.accuracy) < noise
    calls_noise = z_limit(4) * rounds / 2 / np.sqrt(questions)
    assert abs(until.tokens / 100 - predicted.judge_calls) < calls_noise
    # Whoever keeps what was believed most loses nothing by going on.
    assert believing.accuracy > until.accuracy - noise and until.accuracy > fixed.accuracy + noise


@pytest.mark.slow
def test_averaging_over_the_posterior_pays_when_little_is_known():
    """In posterior expectation it never loses; the advantage fades as the pilot grows."""
    random = np.random.default_rng(4)
    chains = TwoStateChain(*random.random((3, 80)).astype(np.float32))
    small, large = (plan_from_pilots(chains, jax.random.key(1), questions=n) for n in (20, 1000))
    assert small.expected_advantage > large.expected_advantage >= 0
    assert abs(large.advantage) < 1e-3
    noise = z_limit(1) * small.advantage_error
    assert abs(small.advantage - small.expected_advantage) < noise
    assert small.risky <= 0.1


def test_bad_input():
    random = np.random.default_rng(0)
    with pytest.raises(InputError, match="rounds is 0"):
        simulate_pool(HOMOGENEOUS, random, 5, 0)
    with pytest.raises(InputError, match="questions is 0"):
        simulate_pool(HOMOGENEOUS, random, 0, 5)
    with pytest.raises(InputError, match="rounds is 40"):
        best_worth_seeing_changes(HOMOGENEOUS, random, 40, 1.0, PRICE)
