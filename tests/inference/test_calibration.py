"""Is the posterior right? Against the integral, by simulation-based calibration, by coverage.

Every calibration test is shown to have power: a wrong posterior must fail it.
"""

import jax
import numpy as np
import pytest
import scipy.stats

from inference.diagnostics import diagnose, rank_r_hat
from inference.fit import run_nuts
from inference.models import UNIFORM, BetaPrior, Tally, exact_posterior, tally
from inference.posterior import ChainPosterior
from inference.push_forward import estimate, quantities
from simulate.claims.evidence import FALSE_ALARM

QUESTIONS, ROUNDS = 20, 4
EXACT, NUTS = 600, 100
"""Data sets drawn from the prior for the exact posterior, and how many of them NUTS gets."""
RANKED = 99


@pytest.mark.parametrize("prior", [UNIFORM, BetaPrior(2.0, 0.5)])
def test_exact_posterior_is_the_integral_over_a_grid(prior, make_counts):
    """The likelihood is multiplied up path by path, so the factorisation is tested too."""
    paths = np.array([[0, 0, 1], [1, 0, 0], [1, 1, 1], [0, 1, -1], [1, -1, -1], [1, 1, 0]])
    grid = (np.arange(80) + 0.5) / 80
    p0, p_ic, p_ci = np.meshgrid(grid, grid, grid, indexing="ij")
    density = np.ones_like(p0)
    for parameter in (p0, p_ic, p_ci):
        density *= scipy.stats.beta.pdf(parameter, *prior)
    for path in paths:
        density *= p0 if path[0] else 1 - p0
        for now, following in zip(path[:-1], path[1:], strict=True):
            if following != -1:
                leave = p_ci if now else p_ic
                density *= leave if now != following else 1 - leave
    density /= density.sum()
    exact = exact_posterior(tally([make_counts(paths)]), prior)
    for i in range(3):
        marginal = density.sum(axis=tuple({0, 1, 2} - {i}))
        mean = (marginal * grid).sum()
        sd = np.sqrt((marginal * (grid - mean) ** 2).sum())
        # The midpoint rule is second order in the 1/80 spacing; Beta(., 0.5) is rough at 1.
        assert mean == pytest.approx(exact.mean[i, 0], abs=2e-3)
        assert sd == pytest.approx(exact.sd[i, 0], abs=2e-3)


@pytest.fixture(scope="module")
def prior_data():
    """Parameters from the prior, and the tally of runs simulated from each."""
    random = np.random.default_rng(3)
    truth = random.random((3, EXACT))
    p0, p_ic, p_ci = truth
    state = random.random((QUESTIONS, EXACT)) < p0
    successes = np.array([state.sum(axis=0), np.zeros(EXACT), np.zeros(EXACT)])
    trials = np.array([np.full(EXACT, QUESTIONS), np.zeros(EXACT), np.zeros(EXACT)])
    for _ in range(ROUNDS):
        leave = random.random(state.shape) < np.where(state, p_ci, p_ic)
        for row, now in ((1, ~state), (2, state)):
            successes[row] += (leave & now).sum(axis=0)
            trials[row] += now.sum(axis=0)
        state = state ^ leave
    return truth, Tally(successes.astype(np.int32), trials.astype(np.int32))


def uniformity(truth: np.ndarray, draws: np.ndarray) -> float:
    """Smallest p-value, times three, of chi-square tests that each parameter's rank is uniform."""
    ranks = (draws < truth).sum(axis=0)
    bins = 10
    counts = [np.histogram(row, bins, (-0.5, RANKED + 0.5))[0] for row in ranks]
    return 3 * min(scipy.stats.chisquare(row).pvalue for row in counts)


def swapped(data: Tally) -> Tally:
    """A wrong model: I -> C and C -> I exchanged."""
    return Tally(data.successes[[0, 2, 1]], data.trials[[0, 2, 1]])


def doubled(data: Tally) -> Tally:
    """A wrong model, right on average but too sure: every transition counted twice."""
    return Tally(2 * data.successes, 2 * data.trials)


def test_sbc_of_the_exact_posterior_and_its_power(prior_data):
    truth, data = prior_data
    key = jax.random.key(11)
    draws = {
        wrong.__name__: exact_posterior(wrong(data)).sample(key, RANKED)
        for wrong in (Tally._make, swapped, doubled)
    }
    assert uniformity(truth, draws["_make"]) > FALSE_ALARM
    assert uniformity(truth, draws["swapped"]) < FALSE_ALARM
    assert uniformity(truth, draws["doubled"]) < FALSE_ALARM


def test_sbc_of_nuts_its_agreement_and_their_power(prior_data):
    """Five data sets in every run, as many as the other fits have: it is compiled once."""
    truth, data = prior_data
    thinned, agreement, wrong_failures = [], [], 0
    for start in range(0, NUTS, 5):
        five = Tally(*(part[:, start : start + 5] for part in data))
        nuts = run_nuts(five, jax.random.key(start), draws=1000, chains=4)
        thinned.append(nuts.draws.reshape(-1, 3, 5)[:: 4000 // RANKED][:RANKED])
        found = diagnose(nuts.draws, int(nuts.stats["diverging"].sum()), exact_posterior(five))
        assert not found.failures
        agreement.append(found.agreement)
        one_more = exact_posterior(Tally(five.successes + 1, five.trials + 1))
        off = diagnose(nuts.draws, 0, one_more).failures
        wrong_failures += any("standard errors" in failure for failure in off)
    ranked = np.concatenate(thinned, axis=2)
    assert uniformity(truth[:, :NUTS], ranked) > FALSE_ALARM
    assert uniformity(truth[[0, 2, 1], :NUTS], ranked) < FALSE_ALARM
    assert wrong_failures == NUTS // 5
    # z-scores that are standard normal, not merely below their limit.
    z = np.concatenate(agreement, axis=2)
    assert np.abs(z.mean()) < 0.2 and 0.8 < z.std() < 1.2


def test_coverage_of_90_percent_intervals(prior_data):
    """Averaged over the prior, coverage is exactly nominal, for derived quantities as well."""
    truth, data = prior_data
    covered = {}
    for name, model in (("right", data), ("wrong", swapped(data))):
        p0, p_ic, p_ci = np.moveaxis(exact_posterior(model).sample(jax.random.key(2), 400), 1, 0)
        posterior = ChainPosterior(
            benchmarks=tuple(map(str, range(EXACT))),
            p0=p0,
            p_ic=p_ic,
            p_ci=p_ci,
            identified=np.ones((3, EXACT), dtype=bool),
            tokens_per_round=np.full((EXACT, ROUNDS + 1), 100.0),
            censored=np.zeros(EXACT, dtype=bool),
            contradicted=np.zeros(EXACT, dtype=bool),
        )
        derived = quantities(posterior, value=1.0, price=1e-4)
        gap = truth[1] + truth[2]
        p_2 = truth[0] * (1 - gap) ** 2 + truth[1] * (1 + 1 - gap)
        targets = {
            "p_ic": (truth[1], p_ic),
            "r": (1 - gap, derived.r),
            "pi": (truth[1] / gap, derived.pi),
            "p_2": (p_2, derived.accuracy[..., 2]),
        }
        for quantity, (value, draws) in targets.items():
            low, high = np.quantile(draws, [0.05, 0.95], axis=0)
            covered[name, quantity] = int(((low <= value) & (value <= high)).sum())
    for quantity in ("p_ic", "r", "pi", "p_2"):
        right = scipy.stats.binomtest(covered["right", quantity], EXACT, 0.9)
        assert right.pvalue > FALSE_ALARM, quantity
    assert scipy.stats.binomtest(covered["wrong", "pi"], EXACT, 0.9).pvalue < FALSE_ALARM


def test_estimate_of_whole_numbers_and_of_the_unknown():
    found = estimate(np.repeat([0.0, 1.0, 7.0], [50, 40, 10]))
    assert (found.mean, found.median, found.low, found.high) == (pytest.approx(1.1), 0, 0, 7)
    assert estimate(np.array([0.1, np.nan])) is None


def test_diagnostics_see_a_stuck_chain_and_one_that_drifts():
    random = np.random.default_rng(0)
    exact = exact_posterior(Tally(np.full((3, 1), 5, np.int32), np.full((3, 1), 9, np.int32)))
    good = random.beta(6, 5, size=(4, 1000, 3, 1))
    assert not diagnose(good, 0, exact).failures
    assert "3 divergent" in diagnose(good, 3, exact).failures[0]
    stuck = good.copy()
    stuck[0] = good[0] * 0.1 + 0.9
    assert any("R-hat" in failure for failure in diagnose(stuck, 0, exact).failures)
    drifting = np.sort(good, axis=1)
    assert any("bulk ESS" in failure for failure in diagnose(drifting, 0, exact).failures)
    wide = good.copy()
    wide[0] = np.where(good[0] < 0.5, good[0] ** 8, 1 - (1 - good[0]) ** 8)
    # Same location, other scale: only the folded half of R-hat can see it.
    assert rank_r_hat(wide - np.median(wide, axis=(0, 1))).max() > 1.01
