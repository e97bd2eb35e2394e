"""Beliefs without labels: enumeration of hidden paths, Bayes in fractions, expectimax."""

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
from msjax.theory import belief as beliefs
from msjax.theory import chain as theory
from msjax.theory.chain import TwoStateChain

MODELS = [
    # p0, p_ic, p_ci, rho
    ("1/5", "3/10", "1/10", "4/5"),
    ("9/10", "2/5", "1/5", "1/2"),
    ("1/10", "7/10", "4/5", "3/10"),  # r = -1/2
    ("3/5", "1/4", "3/4", "9/10"),  # independent rounds
    ("7/20", "0", "0", "9/10"),  # frozen: only I->I changes
    ("3/10", "1", "1", "1/2"),  # alternating: every answer changes
    ("1", "3/10", "1/5", "1"),  # certain start; kept when wrong
    ("0", "3/10", "0", "0"),
    ("1/2", "1/5", "0", "1"),  # a change is a repair
]
EXACT = [tuple(map(Fraction, model)) for model in MODELS]
probability = st.floats(0, 1, allow_subnormal=False)
models = st.tuples(probability, probability, probability, probability)
hypothesis_settings = settings(max_examples=40, deadline=None, derandomize=True)

predict = jax.jit(beliefs.predict)
update_on_change = jax.jit(beliefs.update_on_change)
change_probability = jax.jit(beliefs.change_probability)
update_on_score = jax.jit(beliefs.update_on_score)
filter_changes = jax.jit(beliefs.filter_changes)
log_likelihood = jax.jit(beliefs.log_likelihood_of_changes)
optimal_continuation = jax.jit(beliefs.optimal_continuation, static_argnums=(3, 5))
look_ahead_differs = jax.jit(beliefs.look_ahead_differs, static_argnums=(3, 5))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def joint_distribution(model, path, changed):
    """Probability of a path of right and wrong answers together with what is seen of it."""
    p0, p_ic, p_ci, rho = model
    distribution = p0 if path[0] else 1 - p0
    for (now, then), seen in zip(itertools.pairwise(path), changed, strict=True):
        flip = p_ci if now else p_ic
        distribution *= flip if now != then else 1 - flip
        change = 1 if now != then else 0 if now else 1 - rho
        distribution *= change if seen else 1 - change
    return distribution


@pytest.mark.parametrize(("precision", "tolerance"), [(False, 1e-6), (True, 2e-15)])
def test_filter_equals_the_enumeration_of_hidden_paths(precision, tolerance):
    rounds = 4
    sequences = np.array(list(itertools.product((False, True), repeat=rounds)))
    with jax.enable_x64(precision):
        columns = np.array([[float(x) for x in model] for model in EXACT]).T[:, :, None]
        chain, rho = TwoStateChain(*columns[:3]), columns[3]
        filtered = np.asarray(filter_changes(chain, sequences, rho))
        logs = np.asarray(log_likelihood(chain, sequences, rho))
    assert filtered.shape == (len(EXACT), len(sequences), rounds + 1)
    paths = list(itertools.product((True, False), repeat=rounds + 1))
    for (i, model), (j, changed) in itertools.product(enumerate(EXACT), enumerate(sequences)):
        distributions = [joint_distribution(model, path, changed) for path in paths]
        total = sum(distributions)
        if total == 0:
            assert logs[i, j] == -np.inf
            continue
        assert logs[i, j] == pytest.approx(math.log(total), abs=10 * tolerance)
        right = sum(
            distribution
            for distribution, path in zip(distributions, paths, strict=True)
            if path[-1]
        )
        assert filtered[i, j, -1] == pytest.approx(float(right / total), abs=tolerance)
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1, rtol=10 * tolerance)
    # The beliefs on the way are those of the shorter sequence.
    with jax.enable_x64(precision):
        shorter = beliefs.filter_changes(chain, sequences[:, :2], rho)
        np.testing.assert_allclose(filtered[..., :3], shorter, atol=tolerance)


def test_belief_is_calibrated_on_simulated_runs(x64):
    rng = np.random.default_rng(7)
    n, rounds, (p0, p_ic, p_ci, rho) = 200_000, 6, (0.5, 0.25, 0.1, 0.7)
    right = rng.uniform(size=n) < p0
    changed = np.empty((n, rounds), bool)
    for k in range(rounds):
        then = np.where(right, rng.uniform(size=n) >= p_ci, rng.uniform(size=n) < p_ic)
        changed[:, k] = (right != then) | (~right & ~then & (rng.uniform(size=n) >= rho))
        right = then
    believed = np.asarray(filter_changes(TwoStateChain(p0, p_ic, p_ci), changed, rho))[:, -1]
    # Every sequence of changes has one belief: compare it with the share that is right.
    values, which, counts = np.unique(
        np.round(believed, 12), return_inverse=True, return_counts=True
    )
    assert values.size == 2**rounds
    share = np.bincount(which, weights=right) / counts
    error = (share - values) / np.sqrt(values * (1 - values) / counts)
    assert np.abs(error).max() < 4.5
    assert (error**2).sum() == pytest.approx(values.size, abs=5 * math.sqrt(2 * values.size))


@hypothesis_settings
@given(models)
def test_the_mean_over_what_may_be_seen_is_the_prediction(model):
    b, p_ic, p_ci, rho = model
    for precision, tolerance in ((False, 1e-6), (True, 1e-15)):
        with jax.enable_x64(precision):
            chain = TwoStateChain(0.5, p_ic, p_ci)
            changed, kept = (float(update_on_change(chain, b, x, rho)) for x in (True, False))
            likely = float(change_probability(chain, b, rho))
            prediction = float(predict(chain, b))
        assert 0 <= changed <= 1 and 0 <= kept <= 1
        assert prediction == pytest.approx(p_ic + (1 - p_ic - p_ci) * b, abs=tolerance)
        assert likely * changed + (1 - likely) * kept == pytest.approx(prediction, abs=tolerance)


def test_what_cannot_be_seen_leaves_the_prediction(x64):
    alternating, frozen = TwoStateChain(0.3, 1.0, 1.0), TwoStateChain(0.3, 0.0, 0.0)
    assert float(update_on_change(alternating, 0.3, False, 0.5)) == pytest.approx(0.7)
    assert float(update_on_change(frozen, 0.3, True, 1.0)) == pytest.approx(0.3)
    seen = np.array([False, True, True])
    assert float(log_likelihood(frozen, seen, 1.0)) == -np.inf
    np.testing.assert_allclose(filter_changes(frozen, seen, 1.0), 0.3)
    # A change that only a wrong answer can make proves that the answer was wrong.
    proof = filter_changes(frozen, np.array([False, True, False]), 0.5)
    np.testing.assert_allclose(proof, [0.3, 0.3 / 0.65, 0, 0])


def test_no_revision_seen_leaves_the_start():
    chain = TwoStateChain(np.array([0.3, 0.4]), 0.2, 0.1)
    nothing = np.zeros((2, 0), bool)
    np.testing.assert_array_equal(filter_changes(chain, nothing, 0.5)[:, 0], chain.p0)
    np.testing.assert_array_equal(log_likelihood(chain, nothing, 0.5), [0, 0])


@hypothesis_settings
@given(st.fractions(0, 1), st.fractions(Fraction(1, 1000), 1000), st.floats(-3, 3))
def test_score_update_is_bayes_rule_and_ratios_add_up(b, ratio, further):
    exact = float(b * ratio / (b * ratio + 1 - b))
    for precision, tolerance in ((False, 2e-6), (True, 1e-14)):
        with jax.enable_x64(precision):
            once = float(update_on_score(float(b), math.log(ratio)))
            twice = float(update_on_score(once, further))
            both = float(update_on_score(float(b), math.log(ratio) + further))
        assert once == pytest.approx(exact, rel=tolerance, abs=tolerance)
        assert twice == pytest.approx(both, abs=tolerance)


@pytest.mark.parametrize("precision", [False, True])
def test_score_update_at_certainty_and_at_infinite_ratios(precision):
    inf = math.inf
    with jax.enable_x64(precision):
        for ratio in (-inf, -3000.0, -1.0, 0.0, 2.0, 3000.0, inf):
            assert float(update_on_score(0.0, ratio)) == 0
            assert float(update_on_score(1.0, ratio)) == 1
        assert [float(update_on_score(0.25, x)) for x in (-inf, 0.0, inf)] == [0, 0.25, 1]
        slope = jax.vmap(jax.grad(update_on_score, argnums=(0, 1)))
        b, ratio = jnp.array([0.0, 0.0, 1.0, 1.0, 0.25]), jnp.array([-1.0, 2.0, -1.0, 2.0, 0.0])
        # d b'/db = e^l at b = 0 and e^-l at b = 1; d b'/dl = b' (1 - b').
        expected = np.array([np.exp([-1.0, 2.0, 1.0, -2.0, 0.0]), [0, 0, 0, 0, 0.1875]])
        np.testing.assert_allclose(slope(b, ratio), expected, rtol=1e-6, atol=1e-6)
        certain = slope(jnp.array([0.0, 1.0, 0.5, 0.5]), jnp.array([inf, -inf, inf, -inf]))
        assert np.isfinite(certain).all()


def test_score_of_a_normal_verifier_gives_the_logistic_posterior(x64):
    # f_C = N(1, 1), f_I = N(-1, 1): log ratio 2 s, so the posterior is a logistic curve in s.
    s = np.linspace(-4, 4, 17)
    ratio = -((s - 1) ** 2) / 2 + (s + 1) ** 2 / 2
    computed = update_on_score(0.3, ratio)
    np.testing.assert_allclose(computed, 1 / (1 + (0.7 / 0.3) * np.exp(-2 * s)), rtol=1e-13)


@pytest.mark.parametrize("precision", [False, True])
def test_one_step_rule_agrees_with_the_threshold_and_with_optimal_rounds(precision):
    tenths = np.arange(11) / 10
    b, p_ic, p_ci, cost = (
        x.ravel() for x in np.meshgrid(tenths, tenths, tenths, [0.0, 0.03, 0.1, 0.25])
    )
    with jax.enable_x64(precision):
        chain = TwoStateChain(b, p_ic, p_ci)
        pays = np.asarray(beliefs.worth_continuing(chain, chain.p0, 2.0, 2 * cost))
        np.testing.assert_array_equal(pays, theory.optimal_rounds(chain, 2.0, 2 * cost) > 0)
        threshold = np.asarray(beliefs.continue_threshold(chain, 2.0, 2 * cost))
    exact = [
        Fraction(str(w)) * (1 - Fraction(str(x))) - Fraction(str(y)) * Fraction(str(x))
        > Fraction(str(c))
        for x, w, y, c in zip(b, p_ic, p_ci, cost, strict=True)
    ]
    np.testing.assert_array_equal(pays, exact)
    clear = np.abs(b - threshold) > 1e-5
    np.testing.assert_array_equal(pays[clear], (b < threshold)[clear])
    frozen = p_ic + p_ci == 0
    assert np.all(threshold[frozen] == -np.inf)
    pi = p_ic[~frozen] / (p_ic + p_ci)[~frozen]
    assert np.all(threshold[~frozen] <= pi + 1e-6)


def expectimax(model, b, value, cost, horizon, seeing: bool):
    """V_h(b) by all sequences of observations, in the arithmetic of its arguments."""
    if horizon == 0:
        return value * b
    _, p_ic, p_ci, rho = model
    right, repaired = b * (1 - p_ci), (1 - b) * p_ic
    stay_wrong = (1 - b) * (1 - p_ic)
    if seeing:
        outcomes = [
            (repaired, repaired + b * p_ci + stay_wrong * (1 - rho)),
            (right, right + stay_wrong * rho),
        ]
    else:
        outcomes = [(right + repaired, 1)]
    later = sum(
        distribution * expectimax(model, now / distribution, value, cost, horizon - 1, seeing)
        for now, distribution in outcomes
        if distribution
    )
    return max(value * b, later - cost)


@pytest.mark.slow
@pytest.mark.parametrize("seeing", [True, False])
def test_dynamic_programme_bounds_expectimax_closely_from_above(x64, seeing):
    horizon, size, value, cost = 4, 41, Fraction(5, 2), Fraction(1, 10)
    for model in EXACT:
        chain = TwoStateChain(*(float(x) for x in model[:3]))
        rho = float(model[3]) if seeing else None
        coarse, fine = (
            optimal_continuation(chain, float(value), float(cost), horizon, rho, grid)
            for grid in (size, 40 * (size - 1) + 1)
        )
        assert coarse.value_to_go.shape == coarse.continues.shape == (horizon + 1, size)
        for i in range(0, size, 5):
            b = Fraction(i, size - 1)
            assert float(coarse.beliefs[i]) == pytest.approx(float(b), abs=1e-15)
            for h in range(horizon + 1):
                exact = expectimax(model, b, value, cost, h, seeing)
                rough, close = float(coarse.value_to_go[h, i]), float(fine.value_to_go[h, 40 * i])
                assert float(exact) - 1e-12 <= close <= rough + 1e-12
                assert close == pytest.approx(float(exact), abs=2e-5 if seeing else 1e-14)
                assert rough == pytest.approx(float(exact), abs=1e-2 if seeing else 1e-14)
                if abs(exact - value * b) > 0.02:
                    assert bool(coarse.continues[h, i])
                elif exact == value * b and rough < value * b + 1e-14:
                    assert not bool(coarse.continues[h, i])


def random_problems(n: int, seed: int):
    """Chains of every regime, some on decimals where ties are exact, and costs, some of them 0."""
    rng = np.random.default_rng(seed)
    p_ic, p_ci, rho = rng.uniform(size=(3, n))
    decimal = rng.uniform(size=n) < 0.3
    p_ic, p_ci = (np.where(decimal, np.round(x, 1), x) for x in (p_ic, p_ci))
    cost = p_ic * 10 ** rng.uniform(-3, 0, n)
    cost = np.where(rng.uniform(size=n) < 0.1, 0, np.where(decimal, np.round(cost, 2), cost))
    return TwoStateChain(0.5, p_ic, p_ci), cost, rho


@pytest.mark.slow
@pytest.mark.parametrize("precision", [False, True])
def test_looking_further_ahead_never_pays_when_nothing_is_seen(precision):
    with jax.enable_x64(precision):
        chain, cost, _ = random_problems(500, seed=11)
        assert np.mean(theory.eigenvalue(chain) < 0) > 0.3
        differs = jax.jit(jax.vmap(lambda c, x: beliefs.look_ahead_differs(c, 1.0, x, 12)))
        assert not np.any(differs(chain, cost))


def test_looking_further_ahead_can_pay_when_changes_are_seen(x64):
    # A kept answer is then likely right and a changed one often wrong: a revision that does not
    # pay for itself tells whether the next one will.
    model, cost, horizon = (
        (None, Fraction(1, 2), Fraction(1, 10), Fraction(1, 5)),
        Fraction(1, 10),
        3,
    )
    chain = TwoStateChain(0.5, 0.5, 0.1)
    differs = np.asarray(look_ahead_differs(chain, 1.0, 0.1, horizon, 0.2, 101))
    assert differs.shape == (horizon + 1, 101)
    assert not differs[:2].any()
    assert differs[2:].any(axis=1).all()
    for h, i in np.argwhere(differs)[::3]:
        b = Fraction(int(i), 100)
        # Not an artefact of the grid: stopping and one revision are worth less, exactly.
        assert not beliefs.worth_continuing(chain, float(b), 1.0, float(cost))
        assert expectimax(model, b, 1, cost, int(h), True) > max(
            expectimax(model, b, 1, cost, 1, True), b
        )


def test_the_best_rule_continues_wherever_the_one_step_rule_does(x64):
    chain, cost, rho = random_problems(300, seed=12)

    def compare(c, x, keep):
        best = beliefs.optimal_continuation(c, 1.0, x, 6, keep, 101)
        myopic = beliefs.worth_continuing(c, best.beliefs, 1.0, x)
        differs = beliefs.look_ahead_differs(c, 1.0, x, 6, keep, 101)
        return best, myopic, differs

    best, myopic, differs = jax.jit(jax.vmap(compare))(chain, cost, rho)
    continues = np.asarray(best.continues)
    assert not np.any(np.asarray(myopic)[:, None] & ~continues[:, 1:])
    np.testing.assert_array_equal(differs[:, 1:], continues[:, 1:] != np.asarray(myopic)[:, None])
    assert not np.any(differs[:, :2])
    assert 0.01 < np.mean(differs) < 0.3
    # More revisions left are never worth less, and every V_h is convex.
    values = np.asarray(best.value_to_go)
    assert np.all(np.diff(values, axis=1) >= -1e-14)
    assert np.all(np.diff(values, n=2, axis=2) >= -1e-13)
    hopeless = jax.vmap(lambda c, keep: beliefs.look_ahead_differs(c, 1.0, c.p_ic, 6, keep, 101))
    assert not np.any(jax.jit(hopeless)(chain, rho))


@pytest.mark.slow
def test_gradients_are_those_of_the_forward_algorithm(x64):
    sequences = np.array([[False, False, True], [True, False, False]])

    def forward(x, changed):
        """P(right now and seen), P(wrong now and seen), never normalised."""
        p0, p_ic, p_ci, rho = x
        right, wrong = p0, 1 - p0
        for change in changed:
            if_changed = wrong * p_ic, right * p_ci + wrong * (1 - p_ic) * (1 - rho)
            if_kept = right * (1 - p_ci), wrong * (1 - p_ic) * rho
            right, wrong = (
                jnp.where(change, *pair) for pair in zip(if_changed, if_kept, strict=True)
            )
        return right, wrong

    def ours(x, changed):
        chain = TwoStateChain(*x[:3])
        belief = beliefs.filter_changes(chain, changed, x[3])[-1]
        return jnp.stack([belief, beliefs.log_likelihood_of_changes(chain, changed, x[3])])

    def oracle(x, changed):
        right, wrong = forward(x, changed)
        return jnp.stack([right / (right + wrong), jnp.log(right + wrong)])

    x = jnp.array([[float(m) for m in model] for model in EXACT])
    for changed in sequences:
        jacobians = (jax.vmap(jax.jacobian(f), in_axes=(0, None)) for f in (ours, oracle))
        computed, expected = (np.asarray(jax.jit(f)(x, changed)) for f in jacobians)
        assert np.isfinite(computed).all()
        possible = sum(forward(x.T, changed)) > 0
        assert 5 <= possible.sum() < len(EXACT)
        np.testing.assert_allclose(computed[possible], expected[possible], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_gradients_of_the_dynamic_programme_match_finite_differences(x64):
    def value_to_go(x):
        chain = TwoStateChain(0.5, x[0], x[1])
        return beliefs.optimal_continuation(chain, x[2], x[3], 3, x[4], 23).value_to_go[3, 1:-1:4]

    x = jnp.array([0.31, 0.12, 1.3, 0.04, 0.63])
    computed = jax.jit(jax.jacobian(value_to_go))(x)
    evaluate = jax.jit(value_to_go)
    for i in range(5):
        shift = jnp.zeros(5).at[i].set(1e-6)
        expected = (evaluate(x + shift) - evaluate(x - shift)) / 2e-6
        np.testing.assert_allclose(computed[:, i], expected, atol=1e-7)


@pytest.mark.slow
def test_shapes_broadcast_and_transformations_agree():
    chain = TwoStateChain(np.array([0.1, 0.5]), 0.4, np.array([[0.0], [0.6], [1.0]]))
    b, rho = np.array([0.3, 0.9]), 0.7
    changed = np.array([[True, False, True], [False, False, True]])
    assert beliefs.filter_changes(chain, changed, rho).shape == (3, 2, 4)
    assert beliefs.filter_changes(chain, changed[0], np.full((5, 1, 1), 0.5)).shape == (5, 3, 2, 4)
    assert beliefs.log_likelihood_of_changes(TwoStateChain(0.1, 0.4, 0.6), changed, rho).shape == (
        2,
    )

    def everything(c, b, changed):
        return {
            "predict": beliefs.predict(c, b),
            "threshold": beliefs.continue_threshold(c, 2.0, 0.1),
            "worth": beliefs.worth_continuing(c, b, 2.0, 0.1),
            "score": beliefs.update_on_score(b, 0.3),
            "probability": beliefs.change_probability(c, b, rho),
            "change": beliefs.update_on_change(c, b, changed[..., 0], rho),
            "filter": beliefs.filter_changes(c, changed, rho),
            "likelihood": beliefs.log_likelihood_of_changes(c, changed, rho),
        }

    whole = jax.jit(everything)(chain, b, changed)
    assert whole["change"].shape == whole["likelihood"].shape == (3, 2)
    twice = jax.jit(jax.vmap(jax.vmap(everything), in_axes=(0, None, None)))
    mapped = twice(chain, b, changed)
    chex.assert_trees_all_close(mapped["filter"], whole["filter"], rtol=1e-6)
    mapped["score"] = mapped["score"][0]
    chex.assert_trees_all_close(mapped, whole, rtol=1e-6)
    assert beliefs.predict(jax.tree.map(lambda x: x.astype(jnp.bfloat16), chain), b).dtype == (
        jnp.bfloat16
    )


CHAIN = TwoStateChain(0.2, 0.1, 0.1)
SEEN = np.array([True, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: beliefs.predict(CHAIN, 1.5), r"belief is 1\.5; .*\[0, 1\]"),
        (lambda: beliefs.predict(CHAIN, np.array([0.5, math.nan])), r"belief\[1\] is nan"),
        (lambda: beliefs.continue_threshold(CHAIN, 0.0, 1.0), r"value is 0\.0"),
        (lambda: beliefs.worth_continuing(CHAIN, 0.5, 1.0, -1.0), r"cost is -1\.0"),
        (lambda: beliefs.worth_continuing(CHAIN, -0.5, 1.0, 1.0), r"belief is -0\.5"),
        (lambda: beliefs.update_on_score(0.5, math.nan), "log_likelihood_ratio is nan"),
        (lambda: beliefs.update_on_score(2.0, 0.0), r"belief is 2\.0"),
        (lambda: beliefs.change_probability(CHAIN, 0.5, 1.1), r"keep_wrong is 1\.1"),
        (lambda: beliefs.update_on_change(CHAIN, math.nan, True, 0.5), "belief is nan"),
        (lambda: beliefs.filter_changes(CHAIN, SEEN, -0.1), r"keep_wrong is -0\.1"),
        (lambda: beliefs.filter_changes(CHAIN, np.bool_(True), 0.1), "changed is a scalar"),
        (
            lambda: beliefs.filter_changes(
                TwoStateChain(np.full(3, 0.2), 0.1, 0.1), np.zeros((2, 4), bool), 0.5
            ),
            r"\(3,\), \(\), \(2,\)\) do not broadcast",
        ),
        (
            lambda: beliefs.optimal_continuation(TwoStateChain(SEEN * 0.5, 0.1, 0.1), 1.0, 0.1, 2),
            r"chain has shape \(2,\)",
        ),
        (lambda: beliefs.optimal_continuation(CHAIN, -1.0, 0.1, 2), r"value is -1\.0"),
        (lambda: beliefs.optimal_continuation(CHAIN, 1.0, 0.1, -2), "horizon is -2"),
        (lambda: beliefs.optimal_continuation(CHAIN, 1.0, 0.1, 2, 3.0), r"keep_wrong is 3\.0"),
        (
            lambda: beliefs.optimal_continuation(CHAIN, 1.0, 0.1, 2, grid_size=1),
            "grid_size is 1",
        ),
        (lambda: beliefs.look_ahead_differs(CHAIN, 1.0, math.inf, 2), "cost is inf"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
