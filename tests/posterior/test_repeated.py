"""Questions that were run several times: their law, its posterior, and bounds that are points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import betaln, expit, logit
from scipy.stats import binom

import msjax
from msjax.data.runs import Runs
from msjax.decision.bounds import gating_bounds
from msjax.posterior.importance import importance_sample
from msjax.posterior.models import LogitNormal, Pooled, Repeated
from msjax.posterior.sample import condensed, padded, sample_prior, tabulate
from msjax.verify.evidence import FALSE_ALARM

LAW = {
    "p0": 0.55, "p_ic": 0.3, "p_ci": 0.15, "sd_p0": 1.3, "sd_ic": 0.9, "sd_ci": 0.7,
    "corr_p0_ic": 0.4, "corr_p0_ci": -0.3, "corr_ic_ci": -0.2,
}  # fmt: skip


def questions_of(random, law, number):
    """p0, p_ic and p_ci of questions drawn from the law."""
    sd = np.array([law[f"sd_{name}"] for name in ("p0", "ic", "ci")])
    correlation = np.eye(3)
    for (i, j), name in {(0, 1): "p0_ic", (0, 2): "p0_ci", (1, 2): "ic_ci"}.items():
        correlation[i, j] = correlation[j, i] = law[f"corr_{name}"]
    effects = random.multivariate_normal(np.zeros(3), correlation * np.outer(sd, sd), number)
    grid = np.linspace(-8, 8, 2001)
    weight = np.exp(-(grid**2) / 2) / np.exp(-(grid**2) / 2).sum()
    rates = []
    for i, name in enumerate(("p0", "p_ic", "p_ci")):
        shifts = logit(law[name]) + np.linspace(-4, 4, 4001)
        means = np.array([weight @ expit(s + sd[i] * grid) for s in shifts[::20]])
        rates.append(expit(np.interp(law[name], means, shifts[::20]) + effects[:, i]))
    return rates


def runs_of(random, law, number, repeats, rounds):
    """Runs of questions, and which question each is of."""
    p0, p_ic, p_ci = (np.repeat(x, repeats) for x in questions_of(random, law, number))
    states = [random.random(p0.shape) < p0]
    for _ in range(rounds):
        states.append(random.random(p0.shape) < np.where(states[-1], 1 - p_ci, p_ic))
    return np.stack(states, axis=1).astype(np.int8), np.repeat(np.arange(number), repeats)


def values(law):
    return {name: jnp.float32(x) for name, x in law.items()}


@pytest.mark.slow
def test_the_probability_of_all_runs_of_a_question_by_simulation():
    """Rows are right and wrong first answers, I -> C, I -> I, C -> I, C -> C."""
    rows = np.array(
        [[1, 0, 0, 0, 0, 0], [2, 2, 1, 5, 1, 5], [3, 0, 0, 0, 1, 8], [0, 4, 6, 3, 1, 2]]
    )
    p0, p_ic, p_ci = questions_of(np.random.default_rng(0), LAW, 1_000_000)
    logs = [np.log(x) for x in (p0, 1 - p0, p_ic, 1 - p_ic, p_ci, 1 - p_ci)]
    expected = [
        np.log(np.exp(sum(n * x for n, x in zip(row, logs, strict=True))).mean()) for row in rows
    ]
    found = Repeated().log_likelihood(values(LAW), jnp.asarray(rows, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_one_run_of_each_question_is_what_logit_normal_describes():
    correct, _ = runs_of(np.random.default_rng(1), LAW, 40, 1, 3)
    both = [
        model.log_likelihood(values(LAW), jnp.asarray(model.statistics(correct)))
        for model in (Repeated(np.arange(40)), LogitNormal())
    ]
    np.testing.assert_allclose(*both, atol=0.02)


@pytest.mark.slow
def test_importance_sampling_finds_a_posterior_that_is_known():
    correct, _ = runs_of(np.random.default_rng(2), LAW, 60, 1, 3)
    model = Pooled()
    found = importance_sample(
        model, *padded(*condensed(model, tabulate(model, correct))), np.random.default_rng(0), 4000
    )
    exact = model.exact(correct)
    assert found.log_evidence == pytest.approx(sum(betaln(*law) for law in exact.values()), abs=0.1)
    for name, (a, b) in exact.items():
        sd = np.sqrt(a * b / (a + b) ** 2 / (a + b + 1))
        assert abs(found.draws[name].mean() - a / (a + b)) < 0.15 * sd
        assert found.draws[name].std() == pytest.approx(sd, rel=0.1)


@pytest.mark.study
def test_runs_of_one_question_make_bounds_points_and_count_once():
    correct, question = runs_of(np.random.default_rng(3), LAW, 40, 3, 2)
    post = msjax.fit(Runs.from_arrays(correct, question_ids=question))
    assert post.models == {"repeated": 1.0} and post.leading.identified["sd_p0"]
    for bound in (post.upper, post.lower):
        assert bound.least.median == bound.most.median
    assert post.lower.most.median <= post.limit.median <= post.upper.least.median
    assert not any("NOT INDEPENDENT" in warning for warning in post.warnings)
    assert "120 runs of 40 questions" in post.summary()
    alone = msjax.fit(Runs.from_arrays(correct), model="pooled")
    wide, narrow = (np.diff([x.p0.interval().low, x.p0.interval().high]) for x in (post, alone))
    assert wide > 1.15 * narrow  # of the same labels, taken as 120 questions


@pytest.mark.study
def test_intervals_of_the_bounds_cover():
    """Laws drawn from the prior, questions from the laws."""
    random, repeats = np.random.default_rng(4), 60
    laws = sample_prior(Repeated(), jax.random.key(0), repeats)
    covered = {"upper": 0, "lower": 0, "p0": 0}
    for i in range(repeats):
        law = {name: float(x[i]) for name, x in laws.items()}
        correct, question = runs_of(random, law, 30, 3, 3)
        post = msjax.fit(Runs.from_arrays(correct, question_ids=question))
        p0, p_ic, p_ci = questions_of(random, law, 200_000)
        limit = p_ic / (p_ic + p_ci)
        truth = {
            "upper": np.maximum(p0, limit).mean(),
            "lower": np.minimum(p0, limit).mean(),
            "p0": p0.mean(),
        }
        for name, value in truth.items():
            found = getattr(post, name).interval()
            covered[name] += found.low <= value <= found.high
    least = binom.ppf(FALSE_ALARM, repeats, 0.9)
    assert all(count >= least for count in covered.values()), covered


@pytest.mark.parametrize("repeats", [1, 2, 12])
def test_sets_of_bounds_hold_the_truth_and_close_in_on_it(repeats):
    random = np.random.default_rng(5)
    correct, question = runs_of(random, LAW, 20_000, repeats, 1)
    p0, p_ic, p_ci = questions_of(random, LAW, 400_000)
    p1 = p0 * (1 - p_ci) + (1 - p0) * p_ic
    upper, lower = np.maximum(p0, p1).mean(), np.minimum(p0, p1).mean()
    found = gating_bounds(correct == 1, question)
    assert found.upper_low - 0.01 <= upper <= found.upper_high + 0.01
    assert found.lower_low - 0.01 <= lower <= found.lower_high + 0.01
    width = found.upper_high - found.upper_low
    assert width < {1: 0.3, 2: 0.2, 12: 0.1}[repeats]


def test_the_card_counts_questions_not_runs():
    correct, question = runs_of(np.random.default_rng(6), LAW, 30, 4, 2)
    card = msjax.decide(Runs.from_arrays(correct, question_ids=question))
    assert "120 runs of 30 questions" in str(card) and "30 clusters" in str(card)
    turned = np.random.default_rng(0).permutation(len(correct))
    again = msjax.decide(Runs.from_arrays(correct[turned], question_ids=question[turned]))
    assert str(again) == str(card)
