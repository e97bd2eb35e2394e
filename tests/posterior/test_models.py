"""The models of labelled runs: likelihood, simulation and curves say the same."""

import itertools

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from msjax.errors import InputError
from msjax.posterior.models import CANDIDATES, MODELS, find_model
from msjax.posterior.models.model import ChainMixture
from msjax.posterior.sample import log_likelihoods, sample_prior, tabulate
from msjax.verify.evidence import FALSE_ALARM

PATHS = np.array(list(itertools.product((0, 1), repeat=4)), dtype=np.int8)
SIMULATED = 200_000


def parameters_of(model, seed=5, draws=6):
    return sample_prior(model, jax.random.key(seed), draws)


def probabilities(model, draws, paths):
    """P(path | draw), [draw, path]."""
    table = tabulate(model, paths)
    return np.exp(log_likelihoods(model, table, draws))[:, table.row]


@pytest.fixture(params=CANDIDATES, ids=lambda model: model.name)
def model(request):
    return request.param


def test_the_paths_of_a_law_have_probability_one(model):
    total = probabilities(model, parameters_of(model), PATHS).sum(axis=1)
    np.testing.assert_allclose(total, 1, rtol=3e-6)


def test_a_run_that_ended_is_the_sum_over_what_could_have_followed(model):
    draws = parameters_of(model)
    cut = np.where(np.arange(4) < 3, PATHS, -1).astype(np.int8)
    followed = probabilities(model, draws, PATHS).reshape(6, 8, 2).sum(axis=2)
    np.testing.assert_allclose(probabilities(model, draws, cut)[:, ::2], followed, rtol=1e-5)


def test_accuracy_curves_are_those_of_the_likelihood(model):
    draws = parameters_of(model)
    curves = model.curves(draws, 3)
    np.testing.assert_allclose(curves.weight.sum(axis=1), 1, rtol=1e-6)
    accuracy = (curves.weight[..., None] * curves.accuracy).sum(axis=1)
    exact = probabilities(model, draws, PATHS) @ PATHS
    # Twenty quantiles stand for a Beta law.
    np.testing.assert_allclose(accuracy, exact, atol=2e-3 if "icc_ic" in draws else 1e-5)


def test_simulated_runs_follow_the_likelihood(model):
    draws = {name: values[:1] for name, values in parameters_of(model, seed=1).items()}
    new = np.zeros((SIMULATED, 0), dtype=np.int8)
    states = model.continue_runs(np.random.default_rng(2), draws, new, 4)[0]
    seen = np.bincount(states @ (8, 4, 2, 1), minlength=16)
    expected = probabilities(model, draws, PATHS)[0]
    assert_frequencies(seen, expected)


def test_runs_go_on_as_the_likelihood_says_given_what_they_showed(model):
    """The conditional law of two more rounds, for every first half at once."""
    draws = {name: values[:1] for name, values in parameters_of(model, seed=3).items()}
    expected = probabilities(model, draws, PATHS)[0].reshape(4, 4)
    for i, first in enumerate(PATHS[::4, :2]):
        begun = np.tile(first, (SIMULATED // 4, 1))
        states = model.continue_runs(np.random.default_rng(i), draws, begun, 2)[0]
        assert (states[:, :2] == first).all()
        seen = np.bincount(states[:, 2:] @ (2, 1), minlength=4)
        assert_frequencies(seen, expected[i] / expected[i].sum())


def assert_frequencies(seen, expected):
    """Each count is binomial; exact two-sided tails, Bonferroni over the cells."""
    total = seen.sum()
    tails = np.minimum(
        scipy.stats.binom.cdf(seen, total, expected),
        scipy.stats.binom.sf(seen - 1, total, expected),
    )
    assert tails.min() > FALSE_ALARM / 2 / len(seen), (seen / total, expected)


def test_the_limit_is_where_the_curve_goes(model):
    draws = parameters_of(model)
    curves = model.curves(draws, 3000)
    if curves.limit is None:
        assert "drift" in model.name
        return
    # A question with rates near 0 or 2 is not there yet; few have them.
    near = np.abs(curves.accuracy[..., -1] - curves.limit) < 1e-3
    assert (curves.weight * near).sum() / curves.weight.sum() > 0.9


def test_beta_binomial_against_scipy():
    """Five visits to a state: the order of successes does not matter, their number does."""
    model = find_model("heterogeneous")
    draws = {"p0": 0.4, "p_ic": 0.3, "p_ci": 0.1, "icc_ic": 0.25, "icc_ci": 0.1}
    draws = {name: np.array([value]) for name, value in draws.items()}
    path = np.array([[0, 0, 1, 0, 1, 1, 1, 0]], dtype=np.int8)  # I: 2 left of 3, C: 2 left of 4
    total = {"ic": (1 - 0.25) / 0.25, "ci": (1 - 0.1) / 0.1}
    wrong = scipy.stats.betabinom(3, 0.3 * total["ic"], 0.7 * total["ic"]).pmf(2) / 3
    right = scipy.stats.betabinom(4, 0.1 * total["ci"], 0.9 * total["ci"]).pmf(2) / 6
    np.testing.assert_allclose(
        probabilities(model, draws, path), [[0.6 * wrong * right]], rtol=1e-5
    )


def test_without_spread_and_settled_questions_all_are_the_pooled_chain():
    pooled = parameters_of(find_model("pooled"))
    expected = probabilities(find_model("pooled"), pooled, PATHS)
    for name in ("heterogeneous", "mover_stayer_beta", "drifting_mover_stayer"):
        model = find_model(name)
        zero = dict.fromkeys(model.parameters, np.zeros(6))
        np.testing.assert_allclose(probabilities(model, zero | pooled, PATHS), expected, rtol=1e-5)


def test_settled_questions_by_hand():
    model = find_model("mover_stayer")
    draws = {"p0": 0.6, "p_ic": 0.5, "p_ci": 0.2, "settled_right": 0.3, "settled_wrong": 0.4}
    draws = {name: np.array([value]) for name, value in draws.items()}
    paths = np.array([[1, 1, 1], [0, 0, 0], [0, 1, 1], [1, -1, -1]], dtype=np.int8)
    expected = [0.6 * (0.3 + 0.7 * 0.64), 0.4 * (0.4 + 0.6 * 0.25), 0.4 * 0.6 * 0.5 * 0.8, 0.6]
    np.testing.assert_allclose(probabilities(model, draws, paths)[0], expected, rtol=1e-5)


def test_drift_by_hand():
    model = find_model("drifting")
    draws = {"p0": 0.6, "p_ic": 0.5, "p_ci": 0.2, "drift_ic": -1.0, "drift_ci": 0.5}
    draws = {name: np.array([value]) for name, value in draws.items()}
    second_ic = scipy.special.expit(-1.0)
    third_ci = scipy.special.expit(np.log(0.2 / 0.8) + 1.0)
    path = np.array([[0, 0, 1, 0]], dtype=np.int8)
    expected = 0.4 * 0.5 * second_ic * third_ci
    np.testing.assert_allclose(probabilities(model, draws, path), [[expected]], rtol=1e-5)


def test_exact_posteriors_count():
    runs = np.array([[0, 0, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1]], dtype=np.int8)
    pooled = find_model("pooled").exact(runs)
    assert pooled == {"p0": (3, 2), "p_ic": (3, 3), "p_ci": (4, 3)}
    second = find_model("second_order").exact(runs)
    assert second["p0"] == (3, 2)
    assert second["p_ic"] == (1, 2) and second["p_ci"] == (2, 2)
    assert second["p_ic_after_i"] == (2, 1) and second["p_ic_after_c"] == (2, 2)
    assert second["p_ci_after_i"] == (2, 2) and second["p_ci_after_c"] == (2, 1)


CASES = {
    # runs: parameters that they say nothing of
    "all right": (np.ones((5, 4)), {"p_ic", "settled_wrong", "icc_ic", "drift_ic"}),
    "all wrong": (np.zeros((5, 4)), {"p_ci", "settled_right", "icc_ci", "drift_ci"}),
    "one round": (
        np.array([[0, 1], [1, 0], [0, 0]]),
        {"settled_right", "settled_wrong", "icc_ic", "icc_ci", "drift_ic", "drift_ci"},
    ),
    "censored": (
        np.array([[1, -1, -1], [0, 1, -1], [0, 0, 0]]),
        {"p_ci", "settled_right", "icc_ci", "drift_ci"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_runs_do_not_show_is_not_identified(case):
    runs, unknown = CASES[case]
    for model in CANDIDATES:
        if model.name == "second_order":
            continue
        found = {name for name, ok in model.identified(runs.astype(np.int8)).items() if not ok}
        assert found == unknown & set(model.parameters), model.name


def test_questions_are_known_by_their_own_runs():
    """Settled or not, and rates drawn to what the question did, against closed forms."""
    model = find_model("mover_stayer")
    draws = {"p0": 0.6, "p_ic": 0.5, "p_ci": 0.2, "settled_right": 0.3, "settled_wrong": 0.4}
    draws = {name: np.full(20_000, value) for name, value in draws.items()}
    runs = np.array([[1, 1, 1], [0, 1, 1]], dtype=np.int8)
    chains = model.question_chains(np.random.default_rng(0), draws, model.statistics(runs))
    settled = (chains.p_ic == 0) & (chains.p_ci == 0)
    expected = 0.3 / (0.3 + 0.7 * 0.64)
    error = np.sqrt(expected * (1 - expected) / 20_000)
    z = scipy.stats.norm.isf(FALSE_ALARM / 2)
    assert abs(settled[:, 0].mean() - expected) < z * error
    assert not settled[:, 1].any()

    model = find_model("heterogeneous")
    draws = {"p0": 0.6, "p_ic": 0.3, "p_ci": 0.2, "icc_ic": 0.5, "icc_ci": 0.5}
    draws = {name: np.full(20_000, value) for name, value in draws.items()}
    runs = np.array([[0, 0, 0, 1]], dtype=np.int8)
    rate = model.question_chains(np.random.default_rng(1), draws, model.statistics(runs)).p_ic
    # Beta(.3 + 1, .7 + 2): one success in three trials on a prior worth one.
    law = scipy.stats.beta(1.3, 2.7)
    assert abs(rate.mean() - law.mean()) < z * law.std() / np.sqrt(20_000)


def test_names():
    assert list(MODELS)[: len(CANDIDATES)] == [model.name for model in CANDIDATES]
    with pytest.raises(InputError, match=r"'poold'; choose from pooled, hetero"):
        find_model("poold")
    assert all(isinstance(find_model(n), ChainMixture) for n in ("pooled", "mover_stayer"))
