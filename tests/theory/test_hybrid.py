"""Selection among independent chains: votes enumerated, integrals and searches by brute force."""

import itertools
import math
from collections import Counter
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from msjax.errors import InputError
from msjax.theory import chain as theory
from msjax.theory import hybrid
from msjax.theory.chain import TwoStateChain
from msjax.theory.path_distributions import majority_accuracy

probability = st.floats(0, 1, allow_subnormal=False)
hypothesis_settings = settings(max_examples=40, deadline=None, derandomize=True)

vote = hybrid.majority_accuracy_of_chains
verify = hybrid.verifier_accuracy_of_chains


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def enumerated_vote(p, agreement, chains: int):
    """Plurality, ties to the answer seen first, over all sequences of answers."""
    total = 0
    for kinds in itertools.product(("right", "common", "other"), repeat=chains):
        answers = [i if kind == "other" else kind for i, kind in enumerate(kinds)]
        # `Counter` keeps the order of first appearance, and `max` takes the first of equals.
        votes = Counter(answers)
        if max(votes, key=votes.__getitem__) == "right":
            n = Counter(kinds)
            wrong = (1 - p) * agreement, (1 - p) * (1 - agreement)
            total += p ** n["right"] * wrong[0] ** n["common"] * wrong[1] ** n["other"]
    return total


def summed_vote(p: float, agreement: float, chains: int) -> float:
    """The double sum over right and common wrong answers, in float64."""
    right, common = np.ogrid[1 : chains + 1, 0 : chains + 1]
    singles = chains - right - common
    many = (common < right) + 0.5 * (common == right)
    few = (common < 2) / np.maximum(1 + singles + (common == 1), 1)
    distribution = stats.binom.pmf(right, chains, p) * stats.binom.pmf(
        common, chains - right, agreement
    )
    return float(np.sum(distribution * np.where(right > 1, many, few)))


def integrated_choice(p: float, distance: float, chains: int) -> float:
    """The chance that the best score is a right answer's, on a grid far finer than needed."""
    z = np.linspace(-12, 12, 20_001)
    higher = p * special.ndtr(-z) + (1 - p) * special.ndtr(-z - distance)
    none_higher = np.exp(special.xlog1py(chains - 1, -higher))
    return float(chains * p * np.trapezoid(stats.norm.pdf(z) * none_higher, z))


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 3e-7), (True, 1e-15)])
def test_vote_is_that_of_all_sequences_with_ties_to_the_first_seen(precision, tolerance):
    grid = [Fraction(i, 5) for i in (0, 1, 3, 5)]
    accuracy, agreement = (np.array([float(x) for x in grid]) for _ in range(2))
    for chains in range(1, 6):
        exact = [[float(enumerated_vote(p, a, chains)) for a in grid] for p in grid]
        with jax.enable_x64(precision):
            computed = vote(accuracy[:, None], chains, agreement[None])
        np.testing.assert_allclose(computed, exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 4e-6), (True, 3e-15)])
def test_vote_of_many_chains_is_the_double_sum(precision, tolerance):
    accuracy, agreement = np.array([0.002, 0.2, 0.35, 0.7, 1.0]), np.array([0.0, 0.3, 1.0])
    for chains in (14, 512):
        exact = [[summed_vote(p, a, chains) for a in agreement] for p in accuracy]
        with jax.enable_x64(precision):
            computed = vote(accuracy[:, None], chains, agreement[None])
        np.testing.assert_allclose(computed, exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 1e-6), (True, 2e-14)])
def test_verifier_is_the_integral(precision, tolerance):
    accuracy, distance = np.array([0, 1e-4, 0.3, 0.9, 1]), np.array([0, 0.5, 2, 7, 40, np.inf])
    for chains in (1, 2, 7, 64, 512):
        exact = [[integrated_choice(p, d, chains) for d in distance] for p in accuracy]
        with jax.enable_x64(precision):
            computed = verify(accuracy[:, None], chains, distance[None])
        np.testing.assert_allclose(computed, exact, rtol=0, atol=tolerance)
        np.testing.assert_allclose(computed[:, 0], accuracy, rtol=0, atol=tolerance)
        perfect = -np.expm1(special.xlog1py(chains, -accuracy))
        np.testing.assert_allclose(computed[:, -1], perfect, rtol=0, atol=tolerance)


def test_the_integral_over_v_is_the_same_number(x64):
    p, distance, chains = 0.3, 1.2, 9
    v = (np.arange(200_000) + 0.5) / 200_000
    below = p * v + (1 - p) * special.ndtr(special.ndtri(v) + distance)
    assert float(verify(p, chains, distance)) == pytest.approx(
        np.mean(chains * p * below ** (chains - 1)), abs=1e-9
    )


@hypothesis_settings
@given(probability, probability, st.floats(0, 8), st.integers(1, 16))
def test_one_chain_is_itself_and_a_second_only_helps_a_verifier(p, agreement, distance, chains):
    with jax.enable_x64(True):
        for select in (partial(vote, agreement=agreement), partial(verify, discriminability=0.0)):
            assert float(select(p, 1)) == pytest.approx(p, abs=1e-14)
            assert float(select(p, 2)) == pytest.approx(p, abs=1e-14)
        fewer, more = (float(verify(p, m, distance)) for m in (chains, chains + 1))
        better = float(verify(p, chains, distance + 0.5))
    assert fewer <= more + 1e-14
    assert fewer <= better + 1e-14
    assert 0 <= fewer <= 1


@hypothesis_settings
@given(probability, probability, st.sampled_from([3, 6]))
def test_agreeing_wrong_answers_hurt_and_are_the_worst_case_of_a_trajectory(p, agreement, chains):
    with jax.enable_x64(True):
        some, all_agree = (float(vote(p, chains, a)) for a in (agreement, 1.0))
        # Rounds with p_ic = p and p_ci = 1 - p are as independent as chains.
        worst = majority_accuracy(TwoStateChain(p, p, 1 - p), chains - 1)
        win, tie = float(worst.win), float(worst.tie)
    assert 0 <= all_agree <= some + 1e-14 <= 1 + 1e-14
    assert all_agree == pytest.approx(win + tie / 2, abs=1e-14)


def test_many_chains_win_exactly_where_right_answers_outnumber_the_common_wrong_one():
    agreement = 0.4
    threshold = agreement / (1 + agreement)
    below, above = (float(vote(threshold + e, 512, agreement)) for e in (-0.1, 0.1))
    assert below < 1e-3
    assert above > 1 - 1e-3


def test_vote_slopes_are_those_of_the_enumerated_polynomial(x64):
    points = jnp.array([*itertools.product((0.0, 0.25, 0.6, 1.0), (0.0, 0.3, 1.0))])
    computed = jax.jit(jax.vmap(jax.grad(lambda x: vote(x[0], 4, x[1]))))(points)
    exact = jax.jit(jax.vmap(jax.grad(lambda x: enumerated_vote(x[0], x[1], 4))))(points)
    np.testing.assert_allclose(computed, exact, rtol=0, atol=1e-13)


def test_verifier_slopes_are_those_of_the_closed_form_for_two_chains(x64):
    def two(x):
        return x[0] ** 2 + 2 * x[0] * (1 - x[0]) * jax.scipy.special.ndtr(x[1] / math.sqrt(2))

    points = jnp.array([*itertools.product((0.0, 0.3, 1.0), (0.0, 1.0, 5.0, np.inf))])
    computed = jax.jit(jax.vmap(jax.value_and_grad(lambda x: verify(x[0], 2, x[1]))))(points)
    exact = jax.jit(jax.vmap(jax.value_and_grad(two)))(points)
    np.testing.assert_allclose(computed[0], exact[0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(computed[1], exact[1], rtol=0, atol=1e-13)


def test_verifier_slopes_of_many_chains_match_finite_differences(x64):
    points = jnp.array([(0.1, 0.5), (0.4, 2.0), (0.9, 1.0)])
    evaluate = jax.jit(jax.vmap(lambda x: verify(x[0], 100, x[1])))
    computed = jax.jit(jax.vmap(jax.grad(lambda x: verify(x[0], 100, x[1]))))(points)
    for i in range(2):
        shift = jnp.zeros_like(points).at[:, i].set(1e-5)
        expected = (evaluate(points + shift) - evaluate(points - shift)) / 2e-5
        np.testing.assert_allclose(computed[:, i], expected, rtol=1e-6, atol=1e-8)


def test_tokens_of_the_hybrid():
    tokens = hybrid.hybrid_tokens(np.array([[1], [3]]), np.arange(3), 100, 40.5)
    np.testing.assert_allclose(tokens, [[100, 140.5, 181], [300, 421.5, 543]])
    assert float(hybrid.hybrid_tokens(512, 512, 5_000_000, 5_000_000)) == pytest.approx(1.31328e12)


def searched(curve, budget, first, per_round, select):
    """The best (accuracy, tokens, chains, rounds) one by one: highest accuracy, then cheapest."""
    found = []
    for chains in range(1, int(budget / first) + 1):
        for rounds in range(int((budget / chains - first) / per_round) + 1):
            tokens = chains * (first + rounds * per_round)
            found.append((select(curve[rounds], chains=chains), tokens, chains, rounds))
    best = max(reached for reached, *_ in found)
    return min((x for x in found if x[0] >= best - 1e-12), key=lambda x: x[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "oracle"),
    [
        (partial(vote, agreement=0.3), partial(summed_vote, agreement=0.3)),
        (partial(verify, discriminability=1.0), partial(integrated_choice, distance=1.0)),
    ],
    ids=["vote", "verifier"],
)
def test_best_split_is_the_best_of_all(x64, ours, oracle):
    points = [(0.2, 0.3, 0.1), (0.6, 0.3, 0.2), (0.9, 0.4, 0.2), (0.1, 0.7, 0.8), (0.3, 0.0, 0.0)]
    chain = TwoStateChain(*(np.array([p[i] for p in points]) for i in range(3)))
    curves = np.asarray(theory.accuracy_curve(chain, 20))
    for budget, first, per_round in ((12, 1, 1), (30, 4, 1.5)):
        split = hybrid.best_split(chain, budget, first, per_round, ours)
        assert {x.shape for x in split} == {(5,)}
        for i, curve in enumerate(curves):
            reached, tokens, *best = searched(curve, budget, first, per_round, oracle)
            assert [int(split.chains[i]), int(split.rounds[i])] == best
            assert float(split.accuracy[i]) == pytest.approx(reached, abs=1e-13)
            assert float(split.tokens[i]) == tokens


@pytest.mark.parametrize("precision", [False, True])
def test_best_split_spends_nothing_without_gain(precision):
    # Frozen, neutral and alternating.
    points = [(0.3, 0.0, 0.0), (0.6, 0.3, 0.2), (0.3, 1.0, 1.0)]
    with jax.enable_x64(precision):
        chain = TwoStateChain(*(np.array([p[i] for p in points]) for i in range(3)))
        blind = hybrid.best_split(chain, 16, 1, 1, partial(verify, discriminability=0.0))
        np.testing.assert_array_equal(blind.chains, [1, 1, 1])
        np.testing.assert_array_equal(blind.rounds, [0, 0, 1])
        np.testing.assert_array_equal(blind.tokens, [1, 1, 2])
        # A second answer could only tie with the first.
        pair = hybrid.best_split(chain, 2, 1, 2, partial(vote, agreement=1.0))
        np.testing.assert_array_equal(pair.chains, [1, 1, 1])


def test_best_split_pays_in_decimal_costs_and_up_to_the_limit():
    good = partial(verify, discriminability=9.0)
    assert 3 * 0.1 > 0.3
    decimal = hybrid.best_split(TwoStateChain(0.3, 0.0, 0.0), 0.3, 0.1, 0.1, good)
    assert int(decimal.chains) == 3
    slow = TwoStateChain(0.0, 0.001, 0.0)
    limit = hybrid.best_split(slow, 100 + 512, 100, 1, lambda p, chains: p)
    assert (int(limit.chains), int(limit.rounds)) == (1, 512)


CHAIN = TwoStateChain(0.2, 0.1, 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vote(1.5, 3, 0.1), r"accuracy is 1\.5; .*\[0, 1\]"),
        (lambda: vote(0.5, 3, np.array([0.1, math.nan])), r"agreement\[1\] is nan"),
        (lambda: vote(0.5, 0, 0.1), "chains is 0; .*1 to 512"),
        (lambda: vote(0.5, 513, 0.1), "chains is 513; .*1 to 512"),
        (lambda: verify(-0.5, 3, 0.1), r"accuracy is -0\.5"),
        (lambda: verify(0.5, 3, -1.0), r"discriminability is -1\.0; .*>= 0"),
        (lambda: verify(0.5, 0, 1.0), "chains is 0"),
        (lambda: hybrid.hybrid_tokens(0, 1, 1, 1), "chains is 0"),
        (lambda: hybrid.hybrid_tokens(1, -1, 1, 1), "rounds is -1"),
        (lambda: hybrid.hybrid_tokens(1, 1, 0, 1), "first_tokens is 0; .*> 0"),
        (lambda: hybrid.hybrid_tokens(1, 1, 1, math.inf), "round_tokens is inf"),
        (lambda: hybrid.best_split(CHAIN, math.nan, 1, 1, vote), "budget is nan"),
        (lambda: hybrid.best_split(CHAIN, 10, -1, 1, vote), "first_tokens is -1"),
        (lambda: hybrid.best_split(CHAIN, 10, 20, 1, vote), "budget is 10; one answer costs 20"),
        (lambda: hybrid.best_split(CHAIN, 600, 1, 2, vote), "budget is 600; .*at most 512 "),
        (lambda: hybrid.best_split(CHAIN, 600, 50, 1, vote), "budget is 600; .*at most 562 "),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
