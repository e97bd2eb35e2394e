"""Rules over recorded answers, against a plain loop; and their comparison without tuning."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom

from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.evaluate.crossfit import evaluate
from msjax.evaluate.means import ratio_interval
from msjax.evaluate.replay import outcome, replay
from msjax.evaluate.streams import Streams, streams
from msjax.posterior.for_rules import PosteriorForRules
from msjax.rules.fixed import fixed_rounds
from msjax.rules.grid import Grid
from msjax.rules.protocol import Observation
from msjax.rules.registry import find_rule, find_rules, rule_names
from msjax.rules.spec import Training, at_most
from msjax.rules.votes import vote_margin
from msjax.verify.evidence import FALSE_ALARM

QUESTIONS, SAMPLES = 30, 6
POSTERIOR = PosteriorForRules(jax.random.key(0))


def make_pool(seed=0, parallel=True, questions=QUESTIONS, **changes):
    """Votes of which .6 are right, on three answers; scores a little higher for right ones."""
    random = np.random.default_rng(seed)
    right = random.random((questions, SAMPLES)) < random.beta(3, 2, questions)[:, None]
    texts = np.where(right, 0, random.integers(1, 4, right.shape))
    fields = {
        "correct": right,
        "protocol": "parallel" if parallel else "sequential",
        "benchmark": "made",
        "answers": texts,
        "scores": np.clip(random.normal(0.4 + 0.2 * right, 0.2), 0, 1),
        "tokens": {
            "prompt": np.full(right.shape, 5.0),
            "cached": np.full(right.shape, 2.0),
            "completion": random.integers(50, 150, right.shape).astype(float),
        },
    }
    recorded = changes.pop("recorded", None)
    fields |= changes
    if recorded is not None:
        over = np.arange(SAMPLES) >= np.asarray(recorded)[:, None]
        fields["correct"] = np.where(over, -1, fields["correct"])
    return Runs.from_arrays(**fields)


def margin_rule(margin, _):
    return vote_margin(SAMPLES, margin)


def test_replay_is_a_loop_over_the_rule():
    pool = make_pool()
    met = streams(pool, jax.random.key(0), 3)
    found = replay(margin_rule, met, np.array([1, 2, 3]))
    result = outcome(pool.tokens, met, found)
    spent = np.zeros((3, 3, QUESTIONS))
    for p, margin in enumerate((1, 2, 3)):
        rule = vote_margin(SAMPLES, margin)
        update = jax.jit(rule.update)
        for order in range(3):
            for q in range(0, QUESTIONS, 7):
                state = rule.init()
                for place in range(SAMPLES):
                    seen = Observation(met.answers[order, q, place], jnp.float32(0), jnp.float32(0))
                    state, decision = update(state, seen)
                    if decision.stop:
                        break
                assert found.n_used[p, order, q] == place + 1
                sample = int(
                    met.sample[order, q, list(met.answers[order, q]).index(decision.answer_id)]
                )
                assert found.right[p, order, q] == pool.right[q, sample]
                used = np.asarray(met.sample[order, q, : place + 1])
                spent[p, order, q] = pool.tokens["completion"][q, used].sum()
    checked = np.arange(0, QUESTIONS, 7)
    np.testing.assert_allclose(
        result.tokens["completion"][:, checked], spent.mean(axis=1)[:, checked]
    )
    np.testing.assert_allclose(result.tokens["cached"], 2 * result.n_used)
    assert (result.uncached > result.tokens["completion"]).all()


def test_a_second_replay_compiles_nothing(compiling_nothing):
    met = streams(make_pool(), jax.random.key(0), 3)
    replay(margin_rule, met, np.array([1, 2, 3]))
    with compiling_nothing():
        replay(margin_rule, met, np.array([2, 4, 5]))


def test_more_questions_than_are_run_at_once_are_judged_like_few():
    few = streams(make_pool(), jax.random.key(0), 1)
    copies = 2**18 // QUESTIONS + 2
    many = Streams(*(np.tile(x, copies if x.ndim == 1 else (1, copies, 1)) for x in few))
    margins = np.array([1, 3])
    for ours, theirs in zip(
        replay(margin_rule, many, margins), replay(margin_rule, few, margins), strict=True
    ):
        np.testing.assert_array_equal(ours, np.tile(theirs, copies))


@pytest.mark.slow
def test_more_questions_than_are_replayed_at_once_are_judged_in_the_same_way():
    random = np.random.default_rng(5)
    right = random.random((2**18 + 1000, 3)) < (0.5, 0.7, 0.6)
    pool = Runs.from_arrays(
        right, answers=np.where(right, 0, 1), tokens=random.integers(50, 150, right.shape)
    )
    rule = find_rule("fixed", pool)
    (found,) = evaluate(pool, [rule], jax.random.key(0), posterior=POSTERIOR).rules
    assert found.settings == ("rounds=1",) * 5
    assert found.optimism == 0
    assert found.accuracy.estimate == pytest.approx(right[:, 1].mean(), rel=1e-12)
    assert found.uncached == pytest.approx(pool.uncached[:, :2].sum(axis=1).mean(), rel=1e-12)
    order = np.argsort(pool.difficulty, kind="stable")
    for stratum, mine in zip(found.strata, np.array_split(order, 3), strict=True):
        assert stratum.accuracy == pytest.approx(right[mine, 1].mean(), rel=1e-12)


@pytest.mark.slow
def test_a_grid_is_all_combinations_one_by_one():
    pool = make_pool()
    met = streams(pool, jax.random.key(0), 3)
    entry = find_rule("optscale", pool)
    grid = Grid((np.array([0.5, 0.7], np.float32), np.array([0.1, 0.5, 0.9], np.float32)))
    together = replay(entry.make, met, grid)
    flat = replay(entry.make, met, grid.flat())
    for found, expected in zip(together, flat, strict=True):
        np.testing.assert_array_equal(found, expected)
    for i, pair in enumerate((s, c) for s in (0.5, 0.7) for c in (0.1, 0.5, 0.9)):
        alone = replay(entry.make, met, tuple(np.float32([x]) for x in pair))
        np.testing.assert_array_equal(alone.n_used[0], together.n_used[i])


def test_rules_that_want_more_than_was_recorded_are_counted():
    pool = make_pool(recorded=np.array([2] * 10 + [SAMPLES] * 20))
    met = streams(pool, jax.random.key(0), 2)
    found = replay(lambda k, _: at_most(fixed_rounds(SAMPLES), k), met, np.array([4]))
    assert found.hit_budget[0, :, :10].all() and not found.hit_budget[0, :, 10:].any()
    assert (found.n_used[0, :, :10] == 2).all() and (found.n_used[0, :, 10:] == 4).all()


FEW = {
    True: ("fixed+majority", "fixed+best_score", "dsc"),
    False: ("fixed", "markovscale,without=n_star", "belief"),
}


@pytest.mark.parametrize("names", [FEW, pytest.param(None, marks=pytest.mark.study)])
def test_rules_run_and_results_are_consistent(names):
    for parallel in (True, False):
        pool = make_pool(parallel=parallel)
        offered = find_rules(pool, names[parallel] if names else (), every=True)
        result = evaluate(pool, offered, jax.random.key(1), orders=3)
        assert [rule.name for rule in result.rules] == [entry.name for entry in offered]
        oracle = result.yardsticks[0]
        for rule in result.rules:
            assert rule.accuracy.low <= rule.accuracy.estimate <= rule.accuracy.high
            assert rule.accuracy.estimate <= oracle.accuracy.estimate
            assert 1 <= rule.n_used <= SAMPLES
            assert rule.uncached == pytest.approx(rule.tokens["prompt"] + rule.tokens["completion"])
            assert sum(s.questions for s in rule.strata) == QUESTIONS
        assert any(rule.efficient for rule in result.rules)
    whole = next(r for r in result.rules if r.name == "markovscale,without=n_star")
    assert whole.saving.estimate >= 0


def test_the_baseline_saves_nothing():
    pool = make_pool(parallel=False)
    entry = find_rule("fixed", pool)
    result = evaluate(pool, [entry], jax.random.key(0), choose=False)
    (rule,) = result.rules
    assert rule.saving.estimate == pytest.approx(0) and rule.gain.estimate == pytest.approx(0)
    assert rule.optimism == pytest.approx(0)


@pytest.mark.slow
def test_choosing_where_one_reports_looks_better_than_it_is():
    """With pure noise every setting is worth the same, so what choosing finds is optimism."""
    found = []
    for seed in range(8):
        random = np.random.default_rng(seed)
        pool = make_pool(seed, parallel=False, questions=20)
        pool.right[:] = random.random(pool.right.shape) < 0.5
        entry = find_rule("fixed", pool)
        (rule,) = evaluate(pool, [entry], jax.random.key(seed), price=0.0).rules
        found.append((rule.optimism, rule.accuracy.estimate))
    optimism, accuracy = np.array(found).T
    assert optimism.mean() > 0.05
    assert abs(accuracy.mean() - 0.5) < 6 * 0.5 / np.sqrt(8 * 20)


def test_without_a_price_accuracy_decides_and_then_tokens():
    correct = np.zeros((20, SAMPLES), bool)
    correct[:, 2:] = True
    pool = make_pool(parallel=False, questions=20, correct=correct, answers=None)
    (rule,) = evaluate(pool, [find_rule("fixed", pool)], jax.random.key(0)).rules
    assert set(rule.settings) == {"rounds=2"} and rule.accuracy.estimate == 1
    assert rule.net_value is None
    dear = evaluate(pool, [find_rule("fixed", pool)], jax.random.key(0), price=1.0).rules[0]
    assert set(dear.settings) == {"rounds=0"} and dear.net_value.estimate < 0


def test_rounds_are_judged_alike_in_any_order():
    pool = make_pool(parallel=False)
    offered = [find_rule(name, pool) for name in ("fixed", "until_repeated", "markovscale")]
    first = evaluate(pool, offered, jax.random.key(0), price=1e-4).rules
    turned = pool.take(np.random.default_rng(0).permutation(QUESTIONS))
    again = evaluate(turned, offered, jax.random.key(0), price=1e-4).rules
    for one, other in zip(first, again, strict=True):
        assert (one.settings, one.name) == (other.settings, other.name)
        for name in ("accuracy", "gain", "saving", "net_value"):
            ends = [vars(getattr(x, name)).values() for x in (one, other)]
            assert list(ends[0]) == pytest.approx(list(ends[1]))


def test_what_rests_on_tokens_that_nobody_reported_is_not_identified():
    tokens = {"completion": np.full((QUESTIONS, SAMPLES), 80.0)}
    tokens["completion"][3, 1] = np.nan
    pool = make_pool(parallel=False, tokens=tokens)
    offered = [find_rule("fixed", pool)]
    (rule,) = evaluate(pool, offered, jax.random.key(0), choose=False).rules
    assert not rule.saving.identified and np.isnan(rule.uncached) and not rule.efficient
    assert rule.gain.identified
    with pytest.raises(InputError, match="price is 0.1, and tokens of made were not all reported"):
        evaluate(pool, offered, jax.random.key(0), price=0.1)
    silent = make_pool(parallel=False, tokens={"completion": np.full((QUESTIONS, SAMPLES), np.nan)})
    offered = [find_rule(name, silent) for name in ("fixed", "belief")]
    found = evaluate(silent, offered, jax.random.key(0), choose=False)
    results = (*found.rules, *found.yardsticks)
    assert not any(one.saving.identified for one in results) and len(results) == 4


@pytest.mark.slow
def test_the_yardstick_of_judged_rounds_is_the_best_that_sees_verdicts():
    """Every path and every verdict, as often as their probability says: means are expectations."""
    p0, p_ic, p_ci, judge, rounds, cost = 0.25, 0.5, 0.25, np.array([0.25, 0.75]), 2, 0.06
    paths = np.array(list(itertools.product((0, 1), repeat=rounds + 1)))
    moves = np.array([[1 - p_ic, p_ic], [p_ci, 1 - p_ci]])
    likely = np.where(paths[:, 0], p0, 1 - p0) * moves[paths[:, :-1], paths[:, 1:]].prod(axis=1)
    accept = judge[paths][:, None]
    shown = np.where(paths[None] == 1, accept, 1 - accept).prod(axis=2)
    often = np.rint(likely[:, None] * shown * 4096).astype(int)
    assert often.sum() == 4096 and often.min() > 0
    path, seen = (np.repeat(x, often.ravel()) for x in np.indices(often.shape).reshape(2, -1))
    pool = Runs.from_arrays(
        paths[path], verdicts=paths[seen], tokens={"completion": np.full((4096, rounds + 1), 100.0)}
    )

    def judged(wrong, right, left):
        return sum(
            best(wrong * on_wrong, right * on_right, left)
            for on_wrong, on_right in (judge, 1 - judge)
        )

    def best(wrong, right, left):
        go_on = judged(*np.array([wrong, right]) @ moves, left - 1) if left else -np.inf
        return max(right, go_on - cost * (wrong + right))

    rules = [find_rule(name, pool) for name in ("fixed", "until_accepted", "belief,verdicts=only")]
    options = {"price": cost / 100, "posterior": POSTERIOR}
    found = evaluate(pool, rules, jax.random.key(0), **options)
    # What the first answer costs, nobody can save.
    nets = [one.net_value.estimate + cost for one in (*found.rules, found.yardsticks[1])]
    assert nets[-1] == pytest.approx(judged(1 - p0, p0, rounds), abs=1e-3)
    fixed, until_accepted, believed = nets[:-1]
    assert max(fixed, until_accepted) + 0.05 < nets[-1] and believed <= nets[-1] + 1e-6


def test_the_interval_of_a_share_of_tokens_covers():
    random, n, repeats = np.random.default_rng(0), 60, 1000
    covered = 0
    for _ in range(repeats):
        base = random.gamma(3.0, 100.0, n)
        saved = base * random.beta(2.0, 3.0, n)
        found = ratio_interval(saved, base)
        covered += found.low <= 0.4 <= found.high
    low, high = binom.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], repeats, 0.9)
    assert low - 0.02 * repeats <= covered <= high + 0.02 * repeats


def test_estimates_come_from_other_questions():
    pool = make_pool(parallel=False)
    entry = find_rule("markovscale", pool)
    half = np.arange(QUESTIONS) < 15
    plan = entry.parameters(Training(pool, half, 1.0, 1e-4, POSTERIOR))
    changed = make_pool(parallel=False)
    changed.correct[~half] ^= True
    again = entry.parameters(Training(changed, half, 1.0, 1e-4, POSTERIOR))
    np.testing.assert_array_equal(plan.accuracy, again.accuracy)


@pytest.mark.parametrize(
    ("pool", "name", "message"),
    [
        (make_pool(), "ascc", "'ascc' is unknown; known are fixed, until_repeated"),
        (make_pool(), "belief", "is for rounds, and made has samples"),
        (make_pool(), "fixed", r"by the order of rounds.*write fixed\+majority"),
        (
            make_pool(scores=np.full((QUESTIONS, SAMPLES), np.nan, np.float32)),
            "fixed+best_score",
            "needs a score for every answer",
        ),
        (
            make_pool(scores=np.full((QUESTIONS, SAMPLES), 3.0, np.float32)),
            "optscale",
            r"needs a score in \[0, 1\]",
        ),
    ],
)
def test_rules_that_a_pool_does_not_allow(pool, name, message):
    with pytest.raises(InputError, match=message):
        find_rule(name, pool)


def test_bad_input():
    pool = make_pool()
    offered = [find_rule("esc", pool)]
    with pytest.raises(InputError, match="at least 5"):
        small = make_pool(questions=4)
        evaluate(small, [find_rule("esc", small)], jax.random.key(0))
    with pytest.raises(InputError, match="pool made: no round of revision was recorded"):
        only = {name: getattr(pool, name)[:, :1] for name in ("answers", "correct", "scores")}
        first = make_pool(parallel=False, tokens={}, **only)
        evaluate(first, offered, jax.random.key(0))
    for name, given in (("value", 0.0), ("price", -1.0)):
        with pytest.raises(InputError, match=f"{name} is {given}"):
            evaluate(pool, offered, jax.random.key(0), **{name: given})
    assert len(set(rule_names())) == len(rule_names())
