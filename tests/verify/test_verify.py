"""The bench itself: tails that are tails, selection by name, verdicts with what a report needs."""

import math

import jax
import numpy as np
import pytest
from scipy import stats

from msjax.errors import InputError
from msjax.verify import CLAIMS
from msjax.verify import claim as claims
from msjax.verify.bench import gather, judge, select
from msjax.verify.claim import MIN_CHAINS, Laboratory
from msjax.verify.evidence import FALSE_ALARM, of_counts, of_means


def test_the_registry():
    ids = [claim.id for claim in CLAIMS]
    assert len(ids) == len(set(ids)) >= 35
    assert [claim.id for claim in CLAIMS if not claim.holds][0] == "A2.rates_decide"
    assert all(claim.statement and claim.reference and claim.settings for claim in CLAIMS)


def test_selection_by_section_and_id():
    assert [c.id for c in select(CLAIMS, "A2")] == ["A2.regime", "A2.rates_decide"]
    assert [c.id for c in select(CLAIMS, None, ["A4.rate"])] == ["A4.rate"]
    with pytest.raises(InputError, match=r"'A4.rates', which does not exist; did you mean A4.rate"):
        select(CLAIMS, None, ["A4.rates"])
    with pytest.raises(InputError, match="section is 'A99'; choose one of A1, A2"):
        select(CLAIMS, "A99")


def test_results_carry_what_a_report_needs():
    claims = select(CLAIMS, "A10")
    results = judge(list(gather(claims, Laboratory(jax.random.key(3), MIN_CHAINS))))
    assert [result.id for result in results] == [claim.id for claim in claims]
    assert all(result.ok and math.isfinite(result.z) for result in results)
    total = sum(result.comparisons for result in results)
    assert total == sum(len(result.residuals) for result in results)
    assert results[0].threshold == pytest.approx(stats.norm.isf(FALSE_ALARM / total / 2))


def test_a_claim_sees_the_same_data_whichever_others_are_checked():
    def z(section, ids):
        claims = select(CLAIMS, section, ids)
        found = judge(list(gather(claims, Laboratory(jax.random.key(4), MIN_CHAINS))))
        return next(result.z for result in found if result.id == "A5.marginal_gain")

    assert z("A5", ()) == z(None, ["A1.transient", "A5.marginal_gain"])


def test_binomial_tails_are_exact():
    counts, n, p = np.array([0, 3, 40]), 1000, np.array([0.001, 0.02, 0.02])
    tail = of_counts(counts, n, p).tail
    low, high = stats.binom.cdf(counts, n, p), stats.binom.sf(counts - 1, n, p)
    np.testing.assert_allclose(tail, np.minimum(1, 2 * np.minimum(low, high)))
    certain = of_counts(np.array([1000, 999]), n, np.array([1.0, 1.0]))
    assert certain.tail.tolist() == [1, 0]
    assert certain.z.tolist() == [0, -math.inf]
    assert of_counts(np.array([1000]), n, np.array([1.0001])).tail.tolist() == [0]


def test_bernstein_bound_covers_the_tail_it_bounds():
    # Mean of X - Y for independent Bernoulli X and Y: its distribution is known exactly.
    n, p = 400, 0.03
    up = stats.binom.pmf(np.arange(n + 1), n, p)
    distribution = np.convolve(up, up[::-1])
    mean = np.arange(-n, n + 1) / n
    evidence = of_means(mean, np.zeros_like(mean), np.full_like(mean, 2 * p * (1 - p) / n), 2 / n)
    at_least_as_far = np.array([distribution[np.abs(mean) >= abs(m) - 1e-12].sum() for m in mean])
    assert np.all(evidence.tail >= at_least_as_far - 1e-12)


def test_too_few_chains_are_refused():
    with pytest.raises(InputError, match="chains is 10; give at least"):
        Laboratory(jax.random.key(0), 10)


def test_claims_gathered_together_find_what_each_finds_alone():
    """Threads share a laboratory, whose experiments depend on their names alone."""
    chosen = select(CLAIMS, "A4")
    together = list(gather(chosen, Laboratory(jax.random.key(5), MIN_CHAINS)))
    assert [found.claim.id for found in together] == [claim.id for claim in chosen]
    for found in together:
        (alone,) = gather([found.claim], Laboratory(jax.random.key(5), MIN_CHAINS))
        np.testing.assert_array_equal(found.closed_form, alone.closed_form)
        np.testing.assert_array_equal(found.evidence.estimate, alone.evidence.estimate)


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    known = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr(claims, "QUICK_OPTIONS", known)
    claims.quick_options.cache_clear()
    assert claims.quick_options() == known
    claims.quick_options.cache_clear()
    monkeypatch.setattr(claims, "QUICK_OPTIONS", {"xla_no_such_option": 1})
    assert claims.quick_options() == {}
    assert claims.compiled(lambda x: x + 1)(1) == 2
    claims.quick_options.cache_clear()
