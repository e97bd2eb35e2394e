"""Questions, and benchmarks, whose chains come from a common law."""

import functools
import itertools

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
from scipy.special import expit, log_expit, logit, logsumexp

from inference.fit import fit
from inference.models.chains import Pooled
from inference.models.logit_normal import LogitNormal
from inference.push_forward import quantities
from inference.sample import log_likelihoods, sample_prior, tabulate
from simulate.claims.evidence import FALSE_ALARM

MODEL = LogitNormal()
PATHS = np.array(list(itertools.product((0, 1), repeat=4)), dtype=np.int8)

RUNS = np.array(
    [
        [1] * 11,
        [0] * 11,
        [0] * 6 + [1] * 5,
        [1, 0] * 5 + [1],
        [0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1],
        [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1],
        [1] + [-1] * 10,
    ],
    dtype=np.int8,
)


def law(p0, p_ic, p_ci, sd_p0, sd_ic, sd_ci, corr_p0_ic, corr_p0_ci, corr_ic_ci):
    """One draw of the parameters."""
    values = (p0, p_ic, p_ci, sd_p0, sd_ic, sd_ci, corr_p0_ic, corr_p0_ci, corr_ic_ci)
    return {name: np.array([x]) for name, x in zip(MODEL.parameters, values, strict=True)}


LAWS = [
    law(0.6, 0.2, 0.1, 0.3, 0.3, 0.3, 0.5, 0.0, 0.0),
    law(0.7, 0.3, 0.05, 2.0, 1.5, 1.5, 0.6, -0.7, -0.5),
    law(0.3, 0.5, 0.4, 2.5, 2.5, 2.5, -0.5, 0.9, -0.2),
    law(0.5, 0.1, 0.2, 1.0, 2.5, 2.5, 0.7, 0.8, 0.95),
]


class BruteForce:
    """Every expectation over questions in float64, by a three-dimensional grid."""

    def __init__(self, draw):
        p = {name: float(x[0]) for name, x in draw.items()}
        axis = 0.25 * np.arange(-26, 27)
        z = np.stack([x.ravel() for x in np.meshgrid(axis, axis, axis, indexing="ij")])
        self.log_weight = -(z**2).sum(axis=0) / 2
        self.log_weight -= logsumexp(self.log_weight)
        a, b, c = p["corr_ic_ci"], p["corr_p0_ic"], p["corr_p0_ci"]
        effects = np.linalg.cholesky([[1, a, b], [a, 1, c], [b, c, 1]]) @ z
        self.p_ic, self.p_ci, self.p0 = (
            self.mu(p[mean], p[sd]) + p[sd] * x
            for mean, sd, x in zip(
                ("p_ic", "p_ci", "p0"), ("sd_ic", "sd_ci", "sd_p0"), effects, strict=True
            )
        )

    @staticmethod
    def mu(mean, sd):
        z = np.linspace(-9, 9, 2001)
        weight = scipy.stats.norm.pdf(z) / scipy.stats.norm.pdf(z).sum()
        return scipy.optimize.brentq(lambda mu: weight @ expit(mu + sd * z) - mean, -30, 30)

    def joint(self, runs):
        """Log of weight times P(run), [run, node]."""
        terms = [log_expit(s * x) for x in (self.p0, self.p_ic, self.p_ci) for s in (1, -1)]
        return MODEL.statistics(runs).astype(float) @ np.stack(terms) + self.log_weight


@pytest.fixture(scope="module")
def brute_force():
    return functools.cache(lambda i: BruteForce(LAWS[i]))


@pytest.mark.parametrize("i", range(len(LAWS)))
def test_likelihood_is_the_integral_over_questions(brute_force, i):
    exact = logsumexp(brute_force(i).joint(RUNS), axis=1)
    table = tabulate(MODEL, RUNS)
    found = log_likelihoods(MODEL, table, LAWS[i])[0, table.row]
    likely = exact > np.log(1e-5)
    assert likely.sum() >= 4
    np.testing.assert_allclose(found[likely], exact[likely], atol=0.01)


def test_without_spread_it_is_the_pooled_chain():
    draw = law(0.6, 0.2, 0.1, 1e-3, 1e-3, 1e-3, 0.5, -0.4, 0.3)
    own, pooled = tabulate(MODEL, RUNS), tabulate(Pooled(), RUNS)
    rates = {name: draw[name] for name in Pooled.parameters}
    np.testing.assert_allclose(
        log_likelihoods(MODEL, own, draw)[0, own.row],
        log_likelihoods(Pooled(), pooled, rates)[0, pooled.row],
        atol=1e-4,
    )


@pytest.fixture(scope="module")
def prior_draws():
    return sample_prior(MODEL, jax.random.key(0), 1000)


def test_the_prior_is_what_it_says(prior_draws):
    """Under LKJ(2) each of three correlations is 2 Beta(2.5, 2.5) - 1."""
    expected = {"p": scipy.stats.uniform(), "sd": scipy.stats.halfnorm(scale=1.5)}
    expected["corr"] = scipy.stats.beta(2.5, 2.5, loc=-1, scale=2)
    for name, values in prior_draws.items():
        kind = "p" if name in ("p0", "p_ic", "p_ci") else name.split("_")[0]
        assert scipy.stats.kstest(values, expected[kind].cdf).pvalue > FALSE_ALARM, name


def test_runs_and_curves_agree_and_probabilities_sum_to_one(prior_draws):
    draws = {name: x[:6] for name, x in prior_draws.items()}
    table = tabulate(MODEL, PATHS)
    probability = np.exp(log_likelihoods(MODEL, table, draws))[:, table.row]
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=3e-6)
    curves = MODEL.curves(draws, 3)
    accuracy = (curves.weight[..., None] * curves.accuracy).sum(axis=1)
    np.testing.assert_allclose(accuracy, probability @ PATHS, atol=1e-5)
    np.testing.assert_allclose(accuracy[:, 0], draws["p0"], atol=1e-3)


@pytest.mark.parametrize("i", range(len(LAWS)))
def test_bounds_over_kinds_are_those_over_all_questions(brute_force, i):
    """A kind has the mean p0 of its rates, so the grid is summed over its last axis first."""
    brute = brute_force(i)
    weight = np.exp(brute.log_weight).reshape(-1, 53)
    share = weight.sum(axis=1)
    p0 = (weight * expit(brute.p0).reshape(-1, 53)).sum(axis=1) / share
    p_ic, p_ci = (expit(x[::53]) for x in (brute.p_ic, brute.p_ci))
    limit = p_ic / (p_ic + p_ci)
    curves = MODEL.curves(LAWS[i], 1)
    for function in (np.maximum, np.minimum, np.multiply):
        found = (curves.weight * function(curves.accuracy[..., 0], curves.limit)).sum()
        assert found == pytest.approx(share @ function(p0, limit), abs=1e-3)


@pytest.mark.parametrize("i", range(1, len(LAWS)))
def test_chains_of_questions_follow_bayes(brute_force, i):
    """Means and mean squares of the three rates given a run, against the grid."""
    copies = 20_000
    brute = brute_force(i)
    joint = brute.joint(RUNS)
    posterior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    statistics = np.repeat(MODEL.statistics(RUNS), copies, axis=0)
    chains = MODEL.question_chains(np.random.default_rng(0), LAWS[i], statistics)
    z_limit = scipy.stats.norm.isf(FALSE_ALARM / (2 * 3 * 6 * len(RUNS)))
    for name, rate in chains._asdict().items():
        for power in (1, 2):
            drawn = rate.reshape(len(RUNS), copies) ** power
            error = drawn.std(axis=1) / np.sqrt(copies)
            off = drawn.mean(axis=1) - posterior @ expit(getattr(brute, name)) ** power
            # Beside the sampling error that of the quadrature.
            assert (np.abs(off) < z_limit * error + 2e-3).all()


def test_runs_go_on_as_the_likelihood_says():
    draw = LAWS[1]
    table = tabulate(MODEL, PATHS)
    probability = np.exp(log_likelihoods(MODEL, table, draw))[0, table.row].reshape(4, 4)
    begun = np.repeat(PATHS[::4, :2], 50_000, axis=0)
    states = MODEL.continue_runs(np.random.default_rng(1), draw, begun, 2)[0]
    went_on = (states[:, 2:] @ (2, 1)).reshape(4, -1)
    for codes, law in zip(went_on, probability, strict=True):
        for code, p in enumerate(law / law.sum()):
            seen = int((codes == code).sum())
            assert scipy.stats.binomtest(seen, len(codes), p).pvalue > FALSE_ALARM / 16


def test_what_runs_bear_on():
    def unknown(*runs):
        found = MODEL.identified(np.array(runs, dtype=np.int8))
        return {name for name, known in found.items() if not known}

    correlations = {"corr_p0_ic", "corr_p0_ci", "corr_ic_ci"}
    assert unknown([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]) == {"sd_p0"}
    assert unknown([0, 1], [1, 0]) == {"sd_p0", "sd_ic", "sd_ci"} | correlations
    assert unknown([1, 1, 1], [1, 1, 1]) == {"sd_p0", "p_ic", "sd_ic"} | correlations
    assert unknown([0, 0, 0], [1, 1, 1]) == {"sd_p0"} | correlations


@pytest.fixture(scope="module")
def fitted(make_counts):
    """300 questions of 6 rounds; good questions are repaired more and broken less."""
    truth = law(0.6, 0.3, 0.15, 1.5, 1.5, 1.5, 0.8, -0.8, -0.8)
    runs = MODEL.continue_runs(
        np.random.default_rng(3), truth, np.zeros((300, 0), dtype=np.int8), 7
    )[0]
    return truth, fit(make_counts(runs), MODEL, jax.random.key(1))


def test_a_fit_recovers_the_law_of_the_questions(fitted):
    truth, found = fitted
    z_limit = scipy.stats.norm.isf(FALSE_ALARM / (2 * len(MODEL.parameters)))
    for name, draws in found.sample.flat.items():
        # Spread and correlations on scales on which posteriors are about normal.
        scale = {"p": logit, "sd": np.log, "corr": np.arctanh}[
            "p" if name in ("p0", "p_ic", "p_ci") else name.split("_")[0]
        ]
        z = (scale(truth[name][0]) - scale(draws).mean()) / scale(draws).std()
        assert abs(z) < z_limit, name
    flat = found.sample.flat
    assert (flat["corr_p0_ic"] > 0).mean() > 0.99 and (flat["corr_ic_ci"] < 0).mean() > 0.99
    assert found.known and not found.identified["sd_p0"]
    assert not np.isnan(quantities(found, value=1.0, price=0.0).limit.upper).any()
