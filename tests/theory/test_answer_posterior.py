"""Which answer is right, by the order of all: enumeration in fractions, optimality, edges."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.posterior.for_rules import PosteriorForRules
from msjax.rules import find_rule
from msjax.rules.belief import SignalDistribution, belief_rule
from msjax.rules.most_probable import belief_answers, most_probable
from msjax.rules.protocol import Observation
from msjax.rules.spec import Training
from msjax.theory.answer_posterior import AnswerDistribution, answer_posterior
from msjax.theory.chain import TwoStateChain

LAWS = [
    # p0, p_ic, p_ci, rho, m
    ("2/5", "3/10", "1/5", "3/5", 3),
    ("4/5", "1/10", "3/10", "9/10", 3),  # revising hurts
    ("1/5", "7/10", "4/5", "3/10", 2),  # r = -1/2
    ("1/2", "1/5", "0", "1/2", 3),  # right answers stay
    ("1", "3/10", "1/5", "0", 3),
]
EXACT = [(*map(Fraction, distribution[:4]), distribution[4]) for distribution in LAWS]
ANSWERS = 4
compiled = jax.jit(answer_posterior)


def distribution_of(exact):
    p0, p_ic, p_ci, rho, m = map(float, exact)
    return AnswerDistribution(TwoStateChain(p0, p_ic, p_ci), rho, m)


def sequences(exact, length):
    """Every sequence of names, 0 the right one: order of first appearance, and probability."""
    p0, p_ic, p_ci, rho, m = exact
    for names in itertools.product(range(m + 1), repeat=length):
        distribution = (1 - p0) / m if names[0] else p0
        for before, now in itertools.pairwise(names):
            if before == 0:
                distribution *= p_ci / m if now else 1 - p_ci
            elif now == 0:
                distribution *= p_ic
            else:
                distribution *= (1 - p_ic) * (rho if now == before else (1 - rho) / (m - 1))
        number = {}
        order = tuple(number.setdefault(name, len(number)) for name in names)
        yield names, order, number, distribution


@pytest.mark.parametrize("exact", EXACT)
@pytest.mark.parametrize("length", [1, ANSWERS])
def test_it_is_bayes_rule_over_all_sequences_of_names(exact, length):
    total, right = {}, {}
    for _, order, number, distribution in sequences(exact, length):
        total[order] = total.get(order, 0) + distribution
        if 0 in number:
            key = order, number[0]
            right[key] = right.get(key, 0) + distribution
    assert sum(total.values()) == 1
    for order, weight in total.items():
        if weight:
            expected = [float(right.get((order, j), 0) / weight) for j in range(length)]
            found = compiled(distribution_of(exact), np.array(order))
            np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("exact", EXACT)
def test_no_way_to_choose_an_answer_is_right_more_often(exact):
    posteriors = jax.jit(jax.vmap(answer_posterior, in_axes=(None, 0)))
    found = list(sequences(exact, ANSWERS))
    best = np.argmax(posteriors(distribution_of(exact), np.array([x[1] for x in found])), axis=1)

    def most_frequent(order):
        return max(order, key=lambda j: (order.count(j), -j))

    choices = {
        "first": lambda order: 0,
        "last": lambda order: order[-1],
        "vote": most_frequent,
    }
    accuracy = sum(
        distribution
        for (_, _, n, distribution), j in zip(found, best, strict=True)
        if n.get(0) == j
    )
    for choose in choices.values():
        other = sum(
            distribution for _, order, n, distribution in found if n.get(0) == choose(order)
        )
        assert accuracy >= other - Fraction(1, 10**6)


def follow(rule, ids):
    ids = jnp.asarray(ids, jnp.int32)
    seen = Observation(ids, jnp.full(ids.shape, jnp.nan), jnp.ones(ids.shape))
    return jax.lax.scan(rule.update, rule.init(), seen)[1]


def test_no_answer_is_a_wrong_one_and_is_never_returned():
    distribution = distribution_of(EXACT[0])
    np.testing.assert_allclose(answer_posterior(distribution, jnp.array([-1, -1])), 0)
    # An answer that might have been right takes probability from the other; none does not.
    blank, other = (answer_posterior(distribution, jnp.array(ids)) for ids in ([-1, 0], [0, 1]))
    assert blank[0] > other[1]
    said = follow(most_probable(distribution, 3), [-1, -1, 0])
    assert said.answer_id.tolist() == [-1, -1, 0]
    assert said.stop.tolist() == [False, False, True]


def test_more_answers_than_the_distribution_knows_leave_nothing_for_others():
    found = answer_posterior(distribution_of(EXACT[2]), jnp.arange(5))
    assert float(found.sum()) == pytest.approx(1)


def test_the_rule_returns_the_most_probable_answer_and_its_probability():
    distribution, ids = distribution_of(EXACT[1]), [0, 1, 1, 0, 2]
    said = follow(most_probable(distribution, 5), ids)
    for k in range(5):
        posterior = answer_posterior(distribution, jnp.array(ids[: k + 1]))
        assert said.answer_id[k] == jnp.argmax(posterior)
        assert float(said.belief[k]) == pytest.approx(float(posterior.max()), rel=1e-5)


def test_while_revising_hurts_the_first_answer_is_kept_and_nothing_is_paid():
    distribution = AnswerDistribution(TwoStateChain(0.8, 0.1, 0.4), 0.5, 5.0)
    said = follow(belief_answers(distribution, np.full(3, 50.0), price=1e-5), [0, 1, 2, 3])
    assert said.stop.all() and said.answer_id.tolist() == [0, 0, 0, 0]


def test_it_agrees_with_the_belief_in_changes_as_long_as_no_answer_returns():
    chain, tokens = TwoStateChain(0.3, 0.35, 0.1), np.full(4, 60.0)
    # One of very many wrong answers never comes back by chance.
    many = follow(
        belief_answers(AnswerDistribution(chain, 0.6, 1e6), tokens, price=1e-4), [0, 1, 1, 1, 1]
    )
    changes = belief_rule(chain, tokens, SignalDistribution(keep_wrong=0.6), price=1e-4)
    kept = follow(changes, [0, 1, 1, 1, 1])
    np.testing.assert_allclose(many.belief[2:], kept.belief[2:], atol=1e-4)
    np.testing.assert_array_equal(many.stop[2:], kept.stop[2:])


@pytest.mark.slow
@pytest.mark.parametrize("exact", EXACT[:2])
def test_stopping_pays_better_than_never_or_always_revising(exact):
    """Enumerated over all sequences: the rule's worth against the most probable of k answers."""
    distribution, tokens, price = distribution_of(exact), np.full(ANSWERS - 1, 100.0), 4e-4
    found = list(sequences(exact, ANSWERS))
    ids = jnp.array([order for _, order, _, _ in found])
    chance = np.array([float(distribution) for *_, distribution in found])
    right = np.array([number.get(0, -2) for _, _, number, _ in found])

    def decisions(rule):
        return jax.jit(jax.vmap(lambda one: follow(rule, one)))(ids)

    each = decisions(most_probable(distribution, ANSWERS))
    fixed = [
        chance @ (np.asarray(each.answer_id[:, k]) == right) - price * 100 * k
        for k in range(ANSWERS)
    ]
    said = decisions(belief_answers(distribution, tokens, price=price))
    stop = np.argmax(said.stop, axis=1)
    answer = np.take_along_axis(np.asarray(said.answer_id), stop[:, None], axis=1)[:, 0]
    assert chance @ ((answer == right) - price * 100 * stop) >= max(fixed) - 1e-6


POSTERIOR = PosteriorForRules(jax.random.key(0))


def learnt(names):
    """The distribution learnt from questions whose answers have these names, 0 the right one."""
    names = np.asarray(names)
    pool = Runs.from_arrays(names == 0, answers=names, tokens={"completion": np.ones(names.shape)})
    entry = find_rule("belief+most_probable", pool)
    distribution, _ = entry.parameters(
        Training(pool, np.ones(len(names), bool), 1.0, 1e-4, POSTERIOR)
    )
    return jax.tree.map(lambda x: float(x[0]), distribution)


@pytest.mark.parametrize("m", [2, 4, 9])
def test_the_distribution_is_learnt_from_labelled_questions(m):
    exact = (*EXACT[0][:4], m)
    names = [names for names, *_ in sequences(exact, ANSWERS)]
    chance = np.array([float(distribution) for *_, distribution in sequences(exact, ANSWERS)])
    random = np.random.default_rng(m)
    distribution = learnt(random.choice(names, 3000, p=chance / chance.sum()))
    # Standard errors: .01 of the rates; about a tenth of m.
    assert distribution.wrong_answers == pytest.approx(m, rel=0.3)
    rates = (
        distribution.chain.p0,
        distribution.chain.p_ic,
        distribution.chain.p_ci,
        distribution.keep_wrong,
    )
    assert rates == pytest.approx(list(map(float, exact[:4])), abs=0.05)


def test_where_no_wrong_answer_could_come_back_the_prior_stands():
    m = np.arange(2, 101)
    assert learnt([[0, 0], [1, 0], [1, 1]]).wrong_answers == pytest.approx(99 / (1 / m).sum())


@pytest.mark.parametrize(
    ("change", "answers", "message"),
    [
        ({"keep_wrong": 1.5}, [0], "keep_wrong is 1.5"),
        ({"wrong_answers": 1.0}, [0], "wrong_answers is 1.0"),
        ({"wrong_answers": np.inf}, [0], "wrong_answers is inf"),
        ({"chain": TwoStateChain(np.array([0.1, 0.2]), 0.3, 0.1)}, [0], "chain has shape"),
        ({}, [], "answers has shape"),
        ({}, [0, 2], r"answers\[1\] is 2; number answers in order"),
        ({}, [1], r"answers\[0\] is 1"),
        ({}, [0, -2], r"answers\[1\] is -2"),
    ],
)
def test_bad_input(change, answers, message):
    distribution = distribution_of(EXACT[0])._replace(**change)
    with pytest.raises(InputError, match=message):
        answer_posterior(distribution, np.array(answers, int))
