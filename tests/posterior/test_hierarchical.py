"""Questions, and benchmarks, whose chains come from a common law."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from scipy.special import expit, log_expit, logit, logsumexp, softmax

import msjax.posterior.models.partial_pooling as pooling
from msjax.errors import InputError
from msjax.posterior.compare import Candidate
from msjax.posterior.fits import NotConvergedError, fit_model
from msjax.posterior.inference_data import groups
from msjax.posterior.models.chains import Pooled
from msjax.posterior.models.logit_normal import LogitNormal
from msjax.posterior.models.partial_pooling import partially_pool
from msjax.posterior.posterior import criticise
from msjax.posterior.quantities import quantities
from msjax.posterior.sample import log_likelihoods, tabulate
from msjax.verify.evidence import FALSE_ALARM

pytestmark = pytest.mark.study

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


def z_limit(comparisons):
    """Standard errors that chance alone exceeds in one of so many comparisons once in a million."""
    return scipy.stats.norm.isf(FALSE_ALARM / (2 * comparisons))


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


def test_correlations_are_those_of_p0_p_ic_p_ci_in_this_order():
    correlation = np.array([[1, 0.1, 0.2], [0.1, 1, 0.3], [0.2, 0.3, 1]])
    sites = {name: jnp.float32(0.5) for name in MODEL.parameters if not name.startswith("corr")}
    sites["root"] = jnp.asarray(np.linalg.cholesky(correlation), dtype=jnp.float32)
    found = numpyro.handlers.substitute(MODEL.prior, sites)()
    assert set(found) == set(MODEL.parameters)
    for name, value in {"corr_p0_ic": 0.1, "corr_p0_ci": 0.2, "corr_ic_ci": 0.3}.items():
        assert float(found[name]) == pytest.approx(value, abs=1e-6)


def test_runs_and_curves_agree_and_probabilities_sum_to_one():
    draws = {name: np.concatenate([one[name] for one in LAWS]) for name in MODEL.parameters}
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
    limit = z_limit(3 * 6 * len(RUNS))
    for name, rate in chains._asdict().items():
        for power in (1, 2):
            drawn = rate.reshape(len(RUNS), copies) ** power
            error = drawn.std(axis=1) / np.sqrt(copies)
            off = drawn.mean(axis=1) - posterior @ expit(getattr(brute, name)) ** power
            # Beside the sampling error that of the quadrature.
            assert (np.abs(off) < limit * error + 2e-3).all()


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
    """300 questions of 6 rounds; those that start right are repaired more and broken less."""
    truth = law(0.5, 0.4, 0.4, 1.5, 1.5, 1.5, 0.8, -0.8, -0.8)
    none = np.zeros((300, 0), dtype=np.int8)
    runs = MODEL.continue_runs(np.random.default_rng(3), truth, none, 7)[0]
    return truth, fit_model(make_counts(runs), MODEL, jax.random.key(1), draws=400, chains=4)


@pytest.mark.study
def test_a_fit_recovers_the_law_of_the_questions(fitted):
    truth, found = fitted
    limit = z_limit(len(MODEL.parameters))
    # Scales on which posteriors are about normal.
    scales = {"p": logit, "sd": np.log, "corr": np.arctanh}
    for name, draws in found.sample.flat.items():
        scale = scales["p" if name in Pooled.parameters else name.split("_")[0]]
        z = (scale(truth[name][0]) - scale(draws).mean()) / scale(draws).std()
        assert abs(z) < limit, name
    draws = found.sample.flat
    assert (draws["corr_ic_ci"] < 0).mean() > 0.95
    assert (draws["corr_p0_ic"] > 0).mean() > 0.9 and (draws["corr_p0_ci"] < 0).mean() > 0.9


@pytest.mark.study
def test_bounds_are_known_though_the_spread_of_p0_is_not(fitted):
    _, found = fitted
    assert not found.identified["sd_p0"] and found.known
    assert not np.isnan(quantities(found).limit.upper).any()


@pytest.mark.study
def test_what_the_sampler_reports_is_kept(fitted):
    """Every draw of every chain, so that energies are those of consecutive draws."""
    _, found = fitted
    post = criticise((Candidate(MODEL, found, weight=1.0),), jax.random.key(2))
    tree = groups([post])
    for group in ("sample_stats", "models/logit_normal/sample_stats"):
        assert {"energy", "diverging", "acceptance_rate", "n_steps"} < set(tree[group])
        energy = tree[group]["energy"].values
        np.testing.assert_array_equal(energy[..., 0], found.sample.stats["energy"])
    for path in ("posterior/p0", "models/logit_normal/posterior/sd_ic", "sample_stats/energy"):
        group, _, name = path.rpartition("/")
        assert tree[group][name].values.shape == (4, 400, 1)
    assert np.isfinite(tree["log_likelihood"]["correct"].values).all()


BENCHMARKS = {
    # name: p0, p_ic, p_ci, questions, rounds
    "large": (0.6, 0.2, 0.1, 4000, 4),
    "second": (0.5, 0.3, 0.08, 300, 4),
    "third": (0.55, 0.25, 0.12, 300, 4),
    "small": (0.0, 1.0, 0.0, 4, 1),
    "all right": (1.0, 0.0, 0.0, 20, 3),
}


@pytest.fixture(scope="module")
def benchmarks(make_counts, simulate):
    random = np.random.default_rng(5)
    return [make_counts(simulate(random, *x), name) for name, x in BENCHMARKS.items()]


@pytest.fixture(scope="module")
def together(benchmarks):
    return partially_pool(benchmarks, jax.random.key(0))


def monte_carlo_error(together, name):
    draws = together.sample.flat[name]
    return draws.std() / np.sqrt(together.diagnostics.bulk_ess[name])


def test_quadrature_of_a_benchmark_is_the_integral():
    """Also where what was seen is far from what the other benchmarks lead to expect."""
    z = np.linspace(-40, 40, 160_001)
    cells = [(0, 0), (0, 1), (1, 1), (0, 12), (5, 12), (100, 100), (30, 3000), (3000, 3000)]
    for (successes, trials), mu, tau in itertools.product(cells, (-4.0, 0.5), (0.01, 0.4, 2.5)):
        x = mu + tau * z
        log_density = successes * log_expit(x) + (trials - successes) * log_expit(-x) - z**2 / 2
        exact = logsumexp(log_density) + np.log((z[1] - z[0]) / np.sqrt(2 * np.pi))
        arguments = (jnp.float32(value) for value in (mu, tau, successes, trials))
        _, log_weight = pooling.benchmark_quadrature(*arguments, 1)
        assert logsumexp(log_weight) == pytest.approx(exact, abs=2e-3, rel=1e-5)


def test_the_posterior_is_that_on_a_grid(benchmarks, together):
    """p_ic: its law over benchmarks, and the rate of the smallest."""
    counts = np.array([pooling.binomials(count)[:, 1] for count in benchmarks])
    mu, tau = np.linspace(-5, 3, 65), (np.arange(64) + 0.5) / 16
    z = np.linspace(-8, 8, 1601)
    x = mu[:, None, None] + tau[:, None] * z
    log_p, log_rest = log_expit(x), log_expit(-x)
    log_posterior = scipy.stats.logistic.logpdf(mu)[:, None] + scipy.stats.halfnorm.logpdf(tau)
    for successes, trials in counts:
        log_density = successes * log_p + (trials - successes) * log_rest - z**2 / 2
        log_posterior = log_posterior + logsumexp(log_density, axis=2)
        if trials == 4:
            small = (softmax(log_density, axis=2) * expit(x)).sum(axis=2)
    posterior = softmax(log_posterior)
    exact = {"mu[p_ic]": mu[:, None], "tau[p_ic]": tau, "p_ic[small]": small}
    for name, value in exact.items():
        off = together.sample.flat[name].mean() - (posterior * value).sum()
        # Beside the sampling error that of the grid.
        assert abs(off) < z_limit(3) * monte_carlo_error(together, name) + 2e-3


def test_many_trials_speak_for_themselves(benchmarks, together):
    """The two priors differ in slope by at most |logit p - mu| / tau^2 + 1 per unit of logit p.

    That times the variance bounds, to first order, how far apart they put the posterior mean.
    """
    exact = Pooled().exact(benchmarks[0].correct)
    for name, beta in exact.items():
        draws = together.sample.flat
        log_odds = logit(draws[f"{name}[large]"])
        alone = scipy.special.digamma(beta.alpha) - scipy.special.digamma(beta.beta)
        slope = (abs(log_odds - draws[f"mu[{name}]"]) / draws[f"tau[{name}]"] ** 2).mean() + 1
        error = log_odds.std() / np.sqrt(together.diagnostics.bulk_ess[f"{name}[large]"])
        bound = log_odds.var() * slope + z_limit(3) * error
        assert bound < log_odds.std()
        assert abs(log_odds.mean() - alone) < bound


def test_few_trials_are_drawn_to_the_others(benchmarks, together):
    """Four questions, all wrong and all repaired; elsewhere about a quarter is."""
    alone = scipy.stats.beta(*Pooled().exact(benchmarks[3].correct)["p_ic"])
    rates = together.rates("p_ic")
    small, others = rates[:, 3], rates[:, :3].mean()
    assert others < small.mean() < alone.mean()
    assert others < 0.3 and alone.mean() > 0.8


def test_without_trials_a_rate_is_that_of_a_new_benchmark(together):
    assert together.benchmarks == tuple(BENCHMARKS)
    known = {"small": [True, True, False], "all right": [True, False, True]}
    for b, name in enumerate(BENCHMARKS):
        assert together.identified[:, b].tolist() == known.get(name, [True] * 3)
    draws = together.sample.flat
    effect = np.random.default_rng(1).standard_normal(len(draws["mu[p_ic]"]))
    new = expit(draws["mu[p_ic]"] + draws["tau[p_ic]"] * effect)
    # Every other draw for the one and for the other, so that they are about independent.
    assert scipy.stats.ks_2samp(draws["p_ic[all right]"][::2], new[1::2]).pvalue > FALSE_ALARM


def test_one_benchmark_of_several_is_a_fit_like_any(together):
    large = together.fit_of("large")
    assert large.diagnostics.r_hat["p_ic"] == together.diagnostics.r_hat["p_ic[large]"]
    found = quantities(large)
    p = together.rates("p_ic")[:, 0], together.rates("p_ci")[:, 0]
    assert found.limit.neutral.mean() == pytest.approx((p[0] / sum(p)).mean(), rel=0.01)
    borrowed = quantities(together.fit_of("all right"))
    assert np.isnan(borrowed.limit.neutral).all()
    with pytest.raises(InputError, match="benchmark is 'none'; choose from large"):
        together.fit_of("none")


def test_benchmarks_of_two_models_are_told_apart(benchmarks):
    second = benchmarks[1]
    other = dataclasses.replace(second, models=("other",) * len(second.models))
    assert pooling.labels_of([second, other]) == ("scripted: second", "other: second")


def test_benchmarks_that_cannot_be_pooled(benchmarks):
    with pytest.raises(InputError, match="counts has 1 benchmarks"):
        partially_pool(benchmarks[:1], jax.random.key(0))
    with pytest.raises(InputError, match="'large' occurs twice"):
        partially_pool([benchmarks[0]] * 2, jax.random.key(0))


def test_a_sampler_that_failed_is_refused(benchmarks, monkeypatch):
    def stuck(*_, draws, chains, **__):
        noise = np.random.default_rng(0).normal(0, 1e-3, (2, chains, draws, 3))
        mu, tau = np.arange(1, chains + 1)[:, None, None] / 10 + noise
        return {"mu": mu, "tau": tau}, {"diverging": np.zeros((chains, draws), dtype=bool)}

    monkeypatch.setattr(pooling, "compiled_pooling", stuck)
    with pytest.raises(NotConvergedError, match=r"large, second: .*R-hat.*more draws"):
        partially_pool(benchmarks[:2], jax.random.key(0))
