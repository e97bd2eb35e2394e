"""Is the posterior right? Against the integral, by simulation-based calibration, by coverage.

Every calibration test is shown to have power: a wrong posterior must fail it.
"""

import jax
import numpy as np
import pytest
import scipy.stats

from msjax.posterior.calibration import (
    LIKELIHOOD,
    RANKED,
    nuts_draws,
    rank_statistics,
    simulate_runs,
    uniformity,
)
from msjax.posterior.diagnostics import diagnose
from msjax.posterior.models import find_model
from msjax.posterior.models.chains import Pooled
from msjax.posterior.models.model import BetaDistribution
from msjax.posterior.quantities import estimate
from msjax.posterior.sample import Sample, sample_prior
from msjax.verify.evidence import FALSE_ALARM

MANY, FEW = 200, 50
"""Simulations where the posterior has a closed form, and by NUTS."""
SIZE = {"questions": 30, "rounds": 4}
LARGE = {"questions": 100, "rounds": 6}


class Exchanged(Pooled):
    """A bug: I -> C counts as C -> I and the reverse."""

    def exact(self, correct):
        laws = super().exact(correct)
        return laws | {"p_ic": laws["p_ci"], "p_ci": laws["p_ic"]}


class TooSure(Pooled):
    """A bug: every answer counts twice."""

    def exact(self, correct):
        return super().exact(np.concatenate([correct, correct]))


class Skewed(Pooled):
    """A wrong prior: Beta(5, 1) for p_ic in place of the uniform law."""

    def exact(self, correct):
        laws = super().exact(correct)
        return laws | {"p_ic": BetaDistribution(laws["p_ic"].alpha + 4, laws["p_ic"].beta)}


class Blind(Pooled):
    """A bug that no parameter's rank can show: the posterior is the prior."""

    def exact(self, correct):
        return super().exact(np.full_like(correct, -1))


def least(ranks) -> float:
    """Smallest p-value of all quantities, times their number."""
    return min(ranks.p_values.values()) * len(ranks.ranks)


def test_exact_posterior_is_the_integral_over_a_grid():
    """The likelihood is multiplied up path by path, so the factorisation is tested too."""
    paths = np.array(
        [[0, 0, 1], [1, 0, 0], [1, 1, 1], [0, 1, -1], [1, -1, -1], [1, 1, 0]], dtype=np.int8
    )
    grid = (np.arange(80) + 0.5) / 80
    p0, p_ic, p_ci = np.meshgrid(grid, grid, grid, indexing="ij")
    density = np.ones_like(p0)
    for path in paths:
        density *= p0 if path[0] else 1 - p0
        for now, following in zip(path[:-1], path[1:], strict=True):
            if following != -1:
                leave = p_ci if now else p_ic
                density *= leave if now != following else 1 - leave
    density /= density.sum()
    for i, law in enumerate(Pooled().exact(paths).values()):
        marginal = density.sum(axis=tuple({0, 1, 2} - {i}))
        mean = (marginal * grid).sum()
        exact = scipy.stats.beta(*law)
        # The midpoint rule is second order in the 1/80 spacing.
        assert mean == pytest.approx(exact.mean(), abs=1e-3)
        assert np.sqrt((marginal * (grid - mean) ** 2).sum()) == pytest.approx(
            exact.std(), abs=1e-3
        )


def test_uniformity_is_an_exact_test():
    """Against all pairs of ranks, one by one."""
    share = np.arange(1, RANKED + 1) / (RANKED + 1)
    counts = np.arange(3)[:, None]
    tail = np.minimum(
        scipy.stats.binom.cdf(counts, 2, share), scipy.stats.binom.sf(counts - 1, 2, share)
    )
    pairs = np.stack(np.divmod(np.arange((RANKED + 1) ** 2), RANKED + 1), axis=1)
    below = (pairs[:, :, None] < np.arange(1, RANKED + 1)).sum(axis=1)
    statistic = tail[below, np.arange(RANKED)].min(axis=1)
    for i in (0, 50, 99, 2424, 4999, 5050, 8217, 9999):
        expected = (statistic <= statistic[i] * (1 + 1e-9)).mean()
        assert uniformity(pairs[i]) == pytest.approx(expected)


@pytest.fixture(scope="module")
def right():
    """The pooled chain fitted to runs of pooled chains."""
    return rank_statistics(Pooled(), jax.random.key(11), simulations=MANY, **SIZE)


@pytest.mark.slow
def test_sbc_of_the_closed_form(right):
    names = {"p0", "p_ic", "p_ci", LIKELIHOOD, "p_K", "p_2K", "limit"}
    assert right.ranks.keys() == names
    assert least(right) > FALSE_ALARM
    for quantity in ("p_K", "p_2K", "limit"):
        for level in (0.5, 0.9):
            inside = round(right.covered(quantity, level).share * MANY)
            assert scipy.stats.binomtest(inside, MANY, level).pvalue > FALSE_ALARM


@pytest.mark.parametrize(
    "bug",
    [
        Exchanged(),
        *(pytest.param(b, marks=pytest.mark.study) for b in (TooSure(), Skewed(), Blind())),
    ],
)
def test_sbc_finds_bugs(bug):
    wrong = rank_statistics(Pooled(), jax.random.key(11), simulations=MANY, fitted=bug, **SIZE)
    assert least(wrong) < FALSE_ALARM
    if isinstance(bug, Blind):
        assert wrong.p_values[LIKELIHOOD] < FALSE_ALARM
        assert min(wrong.p_values[name] for name in bug.parameters) > FALSE_ALARM


@pytest.mark.study
def test_the_pooled_chain_is_too_sure_of_questions_that_differ():
    wrong = rank_statistics(
        find_model("heterogeneous"),
        jax.random.key(3),
        simulations=MANY,
        fitted=Pooled(),
        **LARGE,
    )
    assert (wrong.model, wrong.fitted) == ("heterogeneous", "pooled")
    assert wrong.p_values["p0"] > FALSE_ALARM
    assert wrong.p_values["p_ic"] < FALSE_ALARM and wrong.p_values["p_ci"] < FALSE_ALARM
    found = wrong.covered("limit", 0.9)
    inside = round(found.share * MANY)
    assert scipy.stats.binomtest(inside, MANY, 0.9, "less").pvalue < FALSE_ALARM
    assert found.low < found.share < found.high < 0.9
    assert wrong.widths["limit"] < 0.1


@pytest.mark.study
def test_nuts_draws_the_exact_posterior():
    """Distribution functions of the exact posterior make its draws uniform, set by set.

    Means over a set's draws are independent from set to set, whatever the draws' correlation.
    """
    model = Pooled()
    prior_key, key = jax.random.split(jax.random.key(5))
    truth = sample_prior(model, prior_key, FEW)
    runs = simulate_runs(model, truth, **SIZE, random=np.random.default_rng(0))
    draws = nuts_draws(model, runs, key)

    def least_p(one_more: int) -> float:
        found = []
        for name, values in draws.items():
            laws = [model.exact(correct)[name] for correct in runs]
            uniform = np.stack(
                [
                    scipy.stats.beta.cdf(row, alpha + one_more, beta)
                    for row, (alpha, beta) in zip(values, laws, strict=True)
                ]
            )
            for moment, mean in ((uniform, 1 / 2), ((uniform - 0.5) ** 2, 1 / 12)):
                found.append(scipy.stats.ttest_1samp(moment.mean(axis=1), mean).pvalue)
        return min(found) * len(found)

    assert least_p(0) > FALSE_ALARM
    assert least_p(1) < FALSE_ALARM


@pytest.mark.study
def test_sbc_of_nuts():
    found = rank_statistics(
        find_model("mover_stayer_beta"), jax.random.key(7), simulations=FEW, **SIZE
    )
    assert least(found) > FALSE_ALARM
    assert found.ranks.keys() >= {"icc_ic", "settled_right", LIKELIHOOD}


def test_estimate_of_whole_numbers_and_of_the_unknown():
    found = estimate(np.repeat([0.0, 1.0, 7.0], [50, 40, 10]))
    assert (found.estimate, found.low, found.high) == (0, 0, 7)
    assert not estimate(np.array([0.1, np.nan])).identified


def test_diagnostics_see_a_stuck_chain_and_one_that_drifts():
    random = np.random.default_rng(0)
    good = random.beta(6, 5, size=(4, 1000))

    def failures(draws, divergent=0):
        stats = {"diverging": np.arange(draws.size).reshape(draws.shape) < divergent}
        return diagnose(Sample({"p0": draws}, stats)).failures

    assert not failures(good)
    assert "3 divergent" in failures(good, 3)[0]
    stuck = good.copy()
    stuck[0] = good[0] * 0.1 + 0.9
    assert any("R-hat" in failure for failure in failures(stuck))
    assert any("bulk ESS" in failure for failure in failures(np.sort(good, axis=1)))
    wide = good.copy()
    wide[0] = np.where(good[0] < 0.5, good[0] ** 8, 1 - (1 - good[0]) ** 8)
    # Same location, other scale: only the folded half of R-hat can see it.
    assert any("R-hat" in failure for failure in failures(wide))
