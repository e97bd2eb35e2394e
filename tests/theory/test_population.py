"""Benchmarks as mixtures: enumeration in fractions, exact moments, identities, gradients."""

import itertools
import math
from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msjax.errors import InputError
from msjax.theory import chain as theory
from msjax.theory import population as mixture
from msjax.theory.chain import Regime, TwoStateChain
from msjax.theory.population import Population

QUESTIONS = [
    # p0, p_ic, p_ci, weight
    ("1/5", "3/10", "1/10", "1/4"),
    ("9/10", "2/5", "1/5", "1/8"),  # harmful
    ("3/5", "3/10", "1/5", "1/16"),  # neutral
    ("1/10", "7/10", "4/5", "1/16"),  # r = -1/2
    ("7/20", "0", "0", "1/8"),  # frozen
    ("3/10", "1", "1", "1/16"),  # alternating
    ("0", "1/4", "3/4", "1/16"),  # independent rounds
    ("1", "3/10", "1/5", "1/4"),
]
EXACT = [tuple(map(Fraction, question)) for question in QUESTIONS]
LAWS = {"p0": (2.0, 1.0), "p_ic": (0.5, 3.0), "p_ci": (0.3, 6.0)}
probability = st.floats(0, 1, allow_subnormal=False)
benchmarks = st.lists(st.tuples(probability, probability, probability), min_size=8, max_size=8)
hypothesis_settings = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def population_of(questions) -> Population:
    """From rows of p0, p_ic, p_ci and, unless they weigh the same, a weight."""
    p0, p_ic, p_ci, *weights = np.array([[float(x) for x in q] for q in questions]).T
    return Population(TwoStateChain(p0, p_ic, p_ci), *weights)


mean_accuracy_curve = jax.jit(mixture.mean_accuracy_curve, static_argnums=1)
pooled_rates = jax.jit(mixture.pooled_rates)
pooled_chain = jax.jit(mixture.pooled_chain)
accuracy_curve = jax.jit(theory.accuracy_curve, static_argnums=1)


@jax.jit
def everything(population: Population, k) -> dict:
    return {
        "accuracy": mixture.mean_accuracy_after(population, k),
        "limit": mixture.limit_accuracy(population),
        "rates": mixture.pooled_rates(population, k),
        "bounds": mixture.bounds(population),
        "bounds after": mixture.bounds_after(population, k),
        "gated": mixture.gated_accuracy_after(population, k),
        "gain": mixture.population_first_gain(population),
        "regime": mixture.population_regime(population),
    }


def path_distribution(p0, p_ic, p_ci, path):
    """Probability of a path of right (True) and wrong answers."""
    distribution = p0 if path[0] else 1 - p0
    for now, then in itertools.pairwise(path):
        flip = p_ci if now else p_ic
        distribution *= flip if now != then else 1 - flip
    return distribution


def test_curve_and_pooled_rates_equal_the_enumeration_of_all_paths(x64):
    rounds = 6
    accuracy = [Fraction(0)] * (rounds + 1)
    repaired, wrong, broken, right = ([Fraction(0)] * rounds for _ in range(4))
    for p0, p_ic, p_ci, weight in EXACT:
        for path in itertools.product((True, False), repeat=rounds + 1):
            distribution = weight * path_distribution(p0, p_ic, p_ci, path)
            for k, state in enumerate(path):
                accuracy[k] += distribution if state else 0
            for k, (now, then) in enumerate(itertools.pairwise(path)):
                right[k] += distribution if now else 0
                wrong[k] += 0 if now else distribution
                broken[k] += distribution if now and not then else 0
                repaired[k] += distribution if then and not now else 0
    population = population_of(EXACT)
    expected = [float(a) for a in accuracy]
    curve = mean_accuracy_curve(population, rounds)
    np.testing.assert_allclose(curve, expected, rtol=0, atol=4e-16)
    for k in range(rounds):
        result = everything(population, k)
        assert float(result["accuracy"]) == pytest.approx(expected[k], abs=4e-16)
        assert float(result["rates"].p_ic) == pytest.approx(float(repaired[k] / wrong[k]), 1e-14)
        assert float(result["rates"].p_ci) == pytest.approx(float(broken[k] / right[k]), 1e-14)


def exact_limit(p0, p_ic, p_ci):
    return p_ic / (p_ic + p_ci) if p_ic + p_ci else p0


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 2e-7), (True, 3e-16)])
def test_limit_bounds_and_gain_equal_rational_arithmetic(precision, tolerance):
    ends = [(p0, exact_limit(p0, p_ic, p_ci), w) for p0, p_ic, p_ci, w in EXACT]
    exact = {
        "upper": sum(w * max(p0, end) for p0, end, w in ends),
        "neutral": sum(w * end for _, end, w in ends),
        "lower": sum(w * min(p0, end) for p0, end, w in ends),
    }
    gain = sum(w * ((1 - p0) * p_ic - p0 * p_ci) for p0, p_ic, p_ci, w in EXACT)
    with jax.enable_x64(precision):
        result = everything(population_of(EXACT), 0)
    for name, value in exact.items():
        computed = float(getattr(result["bounds"], name))
        assert computed == pytest.approx(float(value), abs=tolerance)
    assert float(result["limit"]) == pytest.approx(float(exact["neutral"]), abs=tolerance)
    assert float(result["gain"]) == pytest.approx(float(gain), abs=tolerance)


def beta_moments(a, b, count: int) -> list[Fraction]:
    """E[x^0], ..., E[x^count] of Beta(a, b)."""
    moments = [Fraction(1)]
    for i in range(count):
        moments.append(moments[-1] * (Fraction(a) + i) / (Fraction(a) + Fraction(b) + i))
    return moments


def exact_beta_curve(distributions, rounds: int) -> list[Fraction]:
    """E[p_k] = E[p0] E[r^k] + E[p_ic r^0] + ... + E[p_ic r^(k-1)], r^k expanded."""
    start = beta_moments(*distributions["p0"], 1)[1]
    repair, break_ = (beta_moments(*distributions[name], rounds + 1) for name in ("p_ic", "p_ci"))

    def mean(power: int, k: int) -> Fraction:
        """E[p_ic^power (1 - p_ic - p_ci)^k]."""
        return sum(
            (-1) ** (i + j) * math.comb(k, i) * math.comb(k - i, j) * repair[i + power] * break_[j]
            for i in range(k + 1)
            for j in range(k + 1 - i)
        )

    repaired = itertools.accumulate((mean(1, j) for j in range(rounds)), initial=Fraction(0))
    return [start * mean(0, k) + total for k, total in enumerate(repaired)]


@pytest.mark.parametrize(
    "distributions", [LAWS, {"p0": (1.0, 3.0), "p_ic": (2.5, 0.75), "p_ci": (1.0, 1.0)}]
)
@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_quadrature_is_exact_up_to_its_degree_and_not_beyond(x64, distributions, nodes):
    population = mixture.beta_population(**distributions, nodes=nodes)
    assert population.chains.shape == (nodes**3,)
    exact = [float(a) for a in exact_beta_curve(distributions, 2 * nodes)]
    curve = np.asarray(mean_accuracy_curve(population, 2 * nodes))
    np.testing.assert_allclose(curve[:-1], exact[:-1], rtol=0, atol=1e-15)
    assert abs(curve[-1] - exact[-1]) > 1e-9


def test_pooled_rates_of_beta_distributions_are_exact_to_the_same_degree(x64):
    nodes = 4
    rates = pooled_rates(mixture.beta_population(**LAWS, nodes=nodes), np.arange(7))
    many = pooled_rates(mixture.beta_population(**LAWS, nodes=12), np.arange(7))
    chex.assert_trees_all_close(rates, many, rtol=1e-12)
    # Before any round nothing is selected yet, so the rates are the means of their distributions.
    assert [float(rate[0]) for rate in rates] == pytest.approx([0.5 / 3.5, 0.3 / 6.3], rel=1e-13)


@pytest.mark.parametrize("distribution", [(0.001, 5.0), (600.0, 600.0), (1e4, 3e4), (5.0, 1e5)])
def test_quadrature_of_extreme_distributions_has_their_moments(x64, distribution):
    nodes = 12
    chains = mixture.beta_population(distribution, (1.0, 1.0), (1.0, 1.0), nodes).chains
    weights = np.asarray(
        mixture.beta_population(distribution, (1.0, 1.0), (1.0, 1.0), nodes).weights
    )
    for power, moment in enumerate(beta_moments(*distribution, 2 * nodes - 1)):
        computed = float(weights @ np.asarray(chains.p0) ** power)
        assert computed == pytest.approx(float(moment), rel=1e-10)


def test_pooling_the_first_round_overestimates_the_limit_of_a_mixture(x64):
    fine = mixture.beta_population(**LAWS, nodes=64)
    assert float(mixture.limit_accuracy(fine)) == pytest.approx(0.695, abs=5e-4)
    assert float(mixture.bounds(fine).upper) == pytest.approx(0.846, abs=5e-4)
    population = mixture.beta_population(**LAWS, nodes=20)
    pooled = pooled_chain(population)
    assert float(theory.stationary_accuracy(pooled)) == pytest.approx(0.75, abs=1e-12)
    curve = np.asarray(mean_accuracy_curve(population, 39))
    # The one chain only ever rises; the mixture rises, peaks flatly and falls.
    assert curve.argmax() == 12
    assert curve.max() == pytest.approx(0.70167, abs=1e-5)
    assert curve.max() - curve[[9, 16]].min() < 3e-4
    assert np.all(np.diff(curve[:13]) > 0)
    assert np.all(np.diff(curve[12:]) < 0)
    rates = pooled_rates(population, np.arange(39))
    assert np.all(np.diff(rates.p_ic) < 0)
    assert np.all(np.diff(rates.p_ci) < 0)
    # Renaming right to wrong turns an overestimate into an underestimate: no bias has a fixed sign.
    mirrored = mixture.beta_population((1.0, 2.0), LAWS["p_ci"], LAWS["p_ic"], nodes=20)
    pooled = pooled_chain(mirrored)
    assert (
        float(theory.stationary_accuracy(pooled)) < float(mixture.limit_accuracy(mirrored)) - 0.05
    )


def test_pooled_chain_has_the_first_two_accuracies_of_the_population(x64):
    population = population_of(EXACT)
    curve = mean_accuracy_curve(population, 8)
    pooled = accuracy_curve(pooled_chain(population), 8)
    np.testing.assert_allclose(pooled[:2], curve[:2], atol=1e-15)
    assert np.abs(np.asarray(pooled - curve))[2:].max() > 0.01


@jax.jit
def of_one_chain(chain: TwoStateChain, k) -> dict:
    pi = theory.stationary_accuracy(chain)
    return {
        "accuracy": theory.accuracy_after(chain, k),
        "limit": jnp.where(jnp.isnan(pi), chain.p0, pi),
        "gain": theory.marginal_gain(chain, 0),
        "regime": theory.regime(chain),
    }


@hypothesis_settings
@given(st.tuples(probability, probability, probability), st.integers(0, 30))
def test_equal_questions_are_one_chain(point, k):
    for precision in (False, True):
        with jax.enable_x64(precision):
            single = of_one_chain(TwoStateChain(*point), k)
            result = everything(population_of([(*point, w) for w in np.arange(1, 9) / 36]), k)
        tolerance = 4 * float(jnp.finfo(single["accuracy"].dtype).eps)
        for name, value in single.items():
            assert float(result[name]) == pytest.approx(float(value), abs=tolerance)
        for rate, exact in zip(result["rates"], point[1:], strict=True):
            assert np.isnan(rate) or float(rate) == pytest.approx(exact, abs=tolerance)


@pytest.mark.parametrize("precision", [False, True])
def test_pooled_rates_stay_accurate_where_a_state_dies_out(precision):
    # Without breaks the wrong answers left are ever more those with the lower p_ic.
    with jax.enable_x64(precision):
        population = population_of([(0.5, 0.5, 0.0), (0.5, 0.25, 0.0)])
        rates = pooled_rates(population, np.array([0, 1, 10, 60, 150]))
        for i, k in enumerate((0, 1, 10, 60, 150)):
            wrong = [Fraction(1, 2) ** k, Fraction(3, 4) ** k]
            exact = (wrong[0] / 2 + wrong[1] / 4) / sum(wrong)
            assert float(rates.p_ic[i]) == pytest.approx(float(exact), rel=1e-5)
        np.testing.assert_array_equal(rates.p_ci, np.zeros(5))


def test_pooled_rates_of_an_empty_state_are_nan(x64):
    certain = population_of([(1.0, 0.3, 0.2), (1.0, 0.6, 0.0)])
    rates = pooled_rates(certain, np.array([0, 1]))
    np.testing.assert_array_equal(np.isnan(rates.p_ic), [True, False])
    np.testing.assert_allclose(rates.p_ci[0], 0.1)
    repaired = population_of([(0.0, 1.0, 0.4), (0.0, 1.0, 0.8)])
    rates = pooled_rates(repaired, np.array([0, 1]))
    np.testing.assert_array_equal(np.isnan(rates.p_ic), [False, True])
    np.testing.assert_array_equal(np.isnan(rates.p_ci), [True, False])


@hypothesis_settings
@given(benchmarks, st.integers(0, 30))
def test_bounds_are_ordered_add_up_and_the_upper_one_is_gating(points, k):
    start = np.mean([p0 for p0, _, _ in points])
    for precision, tolerance in ((False, 1e-6), (True, 1e-14)):
        with jax.enable_x64(precision):
            result = everything(population_of([(*p, 0.125) for p in points]), k)
        after, limit = result["bounds after"], result["bounds"]
        assert float(result["gated"]) == pytest.approx(float(after.upper), abs=tolerance)
        assert float(result["accuracy"]) == pytest.approx(float(after.neutral), abs=tolerance)
        assert float(result["limit"]) == pytest.approx(float(limit.neutral), abs=tolerance)
        for upper, neutral, lower in (map(float, after), map(float, limit)):
            assert lower - tolerance <= min(start, neutral)
            assert max(start, neutral) <= upper + tolerance
            assert upper + lower == pytest.approx(start + neutral, abs=tolerance)


def test_bounds_after_many_rounds_are_the_bounds(x64):
    rng = np.random.default_rng(0)
    population = Population(TwoStateChain(*rng.uniform(0.05, 0.9, size=(3, 8))))
    result = everything(population, 2000)
    chex.assert_trees_all_close(result["bounds after"], result["bounds"], atol=1e-14)
    assert float(result["gated"]) == pytest.approx(float(result["bounds"].upper), abs=1e-14)


def test_a_benchmark_can_gain_at_first_and_lose_in_the_end(x64):
    # Quick repairs of one question, slow decay of the other.
    result = everything(population_of([(0.5, 0.4, 0.2, 0.125), (0.9, 0.0, 0.01, 0.125)] * 4), 0)
    assert result["regime"] == Regime.BENEFICIAL
    assert float(result["limit"]) < float(result["accuracy"])
    result = everything(population_of([(0.5, 0.2, 0.4, 0.125), (0.1, 0.01, 0.0, 0.125)] * 4), 0)
    assert result["regime"] == Regime.HARMFUL
    assert float(result["limit"]) > float(result["accuracy"])


@hypothesis_settings
@given(benchmarks)
def test_regime_is_the_sign_of_the_first_gain(points):
    with jax.enable_x64(True):
        population = population_of([(*p, 0.125) for p in points])
        first, none = everything(population, 1), everything(population, 0)
    gain, sign = float(first["gain"]), int(first["regime"])
    assert gain == pytest.approx(float(first["accuracy"] - none["accuracy"]), abs=1e-15)
    assert gain * sign > 0 if sign else abs(gain) < 1e-14


@pytest.mark.parametrize("precision", [False, True])
def test_regime_of_gains_that_cancel_is_neutral(precision):
    # .4 * .3 - .6 * .1 = .06 and .1 * .3 - .9 * .1 = -.06.
    regime = jax.jit(mixture.population_regime)
    with jax.enable_x64(precision):
        pairs = [(0.6, 0.3, 0.1), (0.9, 0.3, 0.1)] * 1000
        assert regime(population_of(pairs)) == Regime.NEUTRAL
        assert regime(population_of([(0.6, 0.4, 0.1), *pairs[1:]])) == Regime.BENEFICIAL
        assert regime(population_of([(0.6, 0.2, 0.1), *pairs[1:]])) == Regime.HARMFUL


@pytest.mark.slow
def test_samples_follow_the_beta_distributions_and_the_key():
    key = jax.random.key(3)
    sample = mixture.sample_beta_population(key, **LAWS, questions=20_000)
    assert sample.chains.shape == (20_000,)
    again = mixture.sample_beta_population(key, **LAWS, questions=20_000)
    chex.assert_trees_all_equal(sample, again)
    draws = np.array([sample.chains.p0, sample.chains.p_ic, sample.chains.p_ci], float)
    for (a, b), x in zip(LAWS.values(), draws, strict=True):
        mean, variance = a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))
        assert x.mean() == pytest.approx(mean, abs=5 * math.sqrt(variance / x.size))
        assert x.var() == pytest.approx(variance, rel=0.1)
    assert np.abs(np.corrcoef(draws) - np.eye(3)).max() < 0.04
    # Independent of the quadrature: a mean of 20,000 numbers in [0, 1] is within .018 at 5 sigma.
    grid = mixture.bounds(mixture.beta_population(**LAWS, nodes=20))
    chex.assert_trees_all_close(mixture.bounds(sample), grid, atol=0.018)


@pytest.mark.slow
def test_gradients_match_finite_differences(x64):
    points = jnp.array(
        [
            [0.3, 0.6, 0.15, 0.5, 0.2, 0.9, 0.35, 0.7],
            [0.2, 0.1, 0.7, 0.6, 0.01, 0.3, 0.95, 0.05],
            [0.1, 0.3, 0.8, 0.4, 0.02, 0.5, 0.9, 0.15],
            [0.1, 0.2, 0.15, 0.15, 0.1, 0.05, 0.2, 0.05],
        ]
    )

    def flat(x):
        result = everything(Population(TwoStateChain(*x[:3]), x[3]), 4)
        del result["regime"]
        return jnp.stack(jax.tree.leaves(result))

    computed, step = jax.jit(jax.jacobian(flat))(points), 1e-5
    evaluate = jax.jit(flat)
    # Perturbed weights do not sum to one: a mean is then the weighted sum all the same.
    for place in itertools.product(range(4), range(8)):
        shift = jnp.zeros_like(points).at[place].set(step)
        expected = (evaluate(points + shift) - evaluate(points - shift)) / (2 * step)
        np.testing.assert_allclose(computed[:, *place], expected, rtol=1e-6, atol=1e-8)


def test_gradients_on_the_boundary_are_finite_and_those_of_the_polynomial(x64):
    points = jnp.array([[0.5, 1.0, 0.0, 0.3], [0.0, 0.3, 1.0, 0.6], [0.0, 0.2, 1.0, 0.4]])

    def by_recursion(x):
        accuracy = x[0]
        for _ in range(3):
            accuracy = accuracy * (1 - x[2]) + (1 - accuracy) * x[1]
        return jnp.mean(accuracy)

    def by_recursion_rate(x):
        accuracy = x[0]
        for _ in range(3):
            accuracy = accuracy * (1 - x[2]) + (1 - accuracy) * x[1]
        return jnp.sum((1 - accuracy) * x[1]) / jnp.sum(1 - accuracy)

    def of(function):
        return lambda x: function(Population(TwoStateChain(*x)))

    accuracy = of(lambda population: mixture.mean_accuracy_after(population, 3))
    rate = of(lambda population: mixture.pooled_rates(population, 3).p_ic)
    gradient = jax.jit(lambda x: [jax.grad(f)(x) for f in (accuracy, rate)])
    oracle = jax.jit(lambda x: [jax.grad(f)(x) for f in (by_recursion, by_recursion_rate)])
    chex.assert_trees_all_close(gradient(points), oracle(points), atol=1e-14)
    others = (
        mixture.limit_accuracy,
        lambda population: mixture.bounds(population).upper,
        lambda population: mixture.gated_accuracy_after(population, 2),
        lambda population: mixture.pooled_rates(population, 0).p_ic,
    )
    finite = jax.jit(lambda x: [jnp.isfinite(jax.grad(of(f))(x)).all() for f in others])
    assert all(finite(points))


@pytest.mark.slow
def test_population_is_a_pytree_and_transformations_agree():
    population, rounds = population_of(EXACT), np.array([[0, 3], [4, 9]])
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(population)]
    assert paths == [".chains.p0", ".chains.p_ic", ".chains.p_ci", ".weights"]
    once = everything(population, rounds)
    for shaped in ("accuracy", "rates", "bounds after", "gated"):
        assert all(leaf.shape == (2, 2) for leaf in jax.tree.leaves(once[shaped]))
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), population)
    mapped = jax.vmap(everything, in_axes=(0, None))(two, rounds)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[1], mapped), once, rtol=1e-6)
    chain = pooled_chain(population)
    chex.assert_trees_all_close(chain, mixture.pooled_chain(population), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Population(TwoStateChain(0.2, 0.1, 0.1)), r"chains has shape \(\)"),
        (lambda: Population(TwoStateChain(*np.zeros((3, 0)))), r"chains has shape \(0,\)"),
        (lambda: Population(TwoStateChain(np.ones(2), 0.1, 0.1), np.ones(3)), "one weight per"),
        (
            lambda: Population(TwoStateChain(np.ones(2), 0.1, 0.1), np.array([1.5, -0.5])),
            r"weights\[0\] is 1\.5",
        ),
        (
            lambda: Population(TwoStateChain(np.ones(2), 0.1, 0.1), np.array([0.5, math.nan])),
            r"weights\[1\] is nan",
        ),
        (
            lambda: Population(TwoStateChain(np.ones(2), 0.1, 0.1), np.array([0.5, 0.25])),
            r"sum of weights is 0\.75; divide weights by their sum",
        ),
        (lambda: mixture.beta_population((0.0, 1.0), (1.0, 1.0), (1.0, 1.0)), r"p0\[0\] is 0\.0"),
        (
            lambda: mixture.beta_population((1.0, 1.0), (1.0, math.inf), (1.0, 1.0)),
            r"p_ic\[1\] is inf",
        ),
        (
            lambda: mixture.beta_population((1.0, 1.0), (1.0, 1.0), (1.0, 1.0), nodes=0),
            "nodes is 0",
        ),
        (
            lambda: mixture.sample_beta_population(jax.random.key(0), **LAWS, questions=0),
            "questions is 0",
        ),
        (
            lambda: mixture.mean_accuracy_after(Population(TwoStateChain(*np.ones((3, 2)))), -1),
            "k is -1",
        ),
        (
            lambda: mixture.pooled_chain(population_of([(1.0, 0.3, 0.2)])),
            "pooled p_ic is nan; no question starts wrong",
        ),
        (
            lambda: mixture.pooled_chain(population_of([(0.0, 0.3, 0.2)])),
            "pooled p_ci is nan; no question starts right",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
