"""OptScale's rules against plain Python: both variants, both score models, every awkward pool."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from msjax.errors import InputError
from msjax.rules.optscale import PEEKS, optscale, optscale_peek_once
from msjax.rules.protocol import Observation
from msjax.theory.best_of_n import TruncatedNormal
from msjax.theory.score_fits import PRIOR_DEVIATION, RESOLUTION

BUDGET = 8
PREDICTED = TruncatedNormal(0.7, 0.15)


@functools.cache
def replay(variant, **choice):
    """One compiled replay of pools [pool, sample], thresholds traced."""

    def run(s_min, confidence, scores, ids):
        rule = variant(BUDGET, s_min=s_min, confidence=confidence, **dict(choice))

        def one(scores, ids):
            seen = Observation(ids, scores, jnp.ones_like(scores))
            return jax.lax.scan(rule.update, rule.init(), seen)[1]

        return jax.vmap(one)(scores, ids)

    return jax.jit(run)


POOLS = 12


def stops(variant, scores, ids=None, s_min=0.9, confidence=0.9, **choice):
    """Samples and answer at the stop of each pool."""
    scores = np.asarray(scores, np.float32)
    ids = np.broadcast_to(np.arange(BUDGET) if ids is None else ids, scores.shape)
    # One shape, so that each rule is compiled once.
    padded = [np.resize(x, (POOLS, BUDGET)) for x in (scores, ids.astype(np.int32))]
    decisions = replay(variant, **choice)(s_min, confidence, *padded)
    assert np.all(decisions.stop[:, BUDGET - 1])
    assert np.all(np.isnan(decisions.belief))
    at = np.argmax(np.asarray(decisions.stop), axis=1)
    answers = np.asarray(decisions.answer_id)[np.arange(POOLS), at]
    return at[: len(scores)] + 1, answers[: len(scores)]


def fitted(scores, prior=None):
    """Mean and standard deviation before truncation, by L-BFGS-B with the textbook density."""

    def loss(x):
        mu, sigma = x
        mass = special.ndtr((1 - mu) / sigma) - special.ndtr(-mu / sigma)
        value = len(scores) * (np.log(sigma) + np.log(max(mass, 1e-300)))
        value += np.sum((scores - mu) ** 2) / (2 * sigma**2)
        if prior is not None:
            value += np.sum((x - np.array(prior)) ** 2) / (2 * PRIOR_DEVIATION**2)
        return value

    start = prior or (np.mean(scores), max(np.std(scores), RESOLUTION))
    return optimize.minimize(loss, start, method="L-BFGS-B", bounds=[(-50, 50), (1e-3, 10)]).x


def distribution(mu, sigma, s):
    low, at, high = special.ndtr((np.array([0, s, 1]) - mu) / sigma)
    return (at - low) / (high - low)


def by_hand(scores, s_min, confidence, prior=None, peek=None):
    """The paper's procedure in plain Python: samples taken and the index of the answer."""
    needed = BUDGET
    for n in range(1, BUDGET + 1):
        if n == peek or (peek is None and (n >= 2 or prior)):
            failure = np.clip(distribution(*fitted(scores[:n], prior), s_min), 1e-12, 1 - 1e-12)
            needed = max(int(np.ceil(np.log(1 - confidence) / np.log(failure))), 1)
        if n >= BUDGET or (n >= needed and n >= (peek or 1)):
            return n, int(np.argmax(scores[:n]))


def by_grid(scores, s_min, confidence, peek):
    """The public code: quantiles of the maximum on a grid of 1,000 scores."""
    mu, sigma = fitted(scores[:peek])
    grid = np.linspace(0, 1, 1000)
    cdf = np.cumsum(np.exp(-((grid - mu) ** 2) / (2 * sigma**2)))
    cdf /= cdf[-1]
    for n in range(1, BUDGET + 1):
        if grid[min(np.searchsorted(cdf**n, 1 - confidence), 999)] >= s_min:
            return max(n, peek)
    return BUDGET


@functools.cache
def smooth_pools():
    """Pools whose likelihood has a maximum well inside the bounds."""
    random = np.random.default_rng(0)
    centre = random.uniform(0.5, 0.85, (POOLS, 1))
    return np.clip(centre + 0.07 * random.normal(size=(POOLS, BUDGET)), 0.02, 0.98).astype("f4")


@pytest.mark.parametrize("prior", [None, PREDICTED])
@pytest.mark.parametrize("peek", [None, 3])
def test_rules_equal_the_procedure_written_in_plain_python(prior, peek) -> None:
    pools = smooth_pools()
    variant = optscale if peek is None else optscale_peek_once
    choice = {} if prior is None else {"prior": prior}
    samples, answers = stops(variant, pools, s_min=0.8, **choice)
    expected = np.array(
        [by_hand(x, 0.8, 0.9, prior and (0.7, 0.15), peek) for x in pools.astype(float)]
    )
    # Optima are found to a few digits by either, which can move a ceiling.
    same = samples == expected[:, 0]
    assert np.mean(same) >= 0.9
    np.testing.assert_array_equal(answers[same], expected[same, 1])
    assert len(set(samples.tolist())) >= 3


def test_the_peek_equals_the_public_grid_up_to_its_steps() -> None:
    pools = smooth_pools()
    samples, _ = stops(optscale_peek_once, pools, s_min=0.8)
    expected = [by_grid(x, 0.8, 0.9, PEEKS[BUDGET]) for x in pools.astype(float)]
    assert np.abs(samples - expected).max() <= 1
    assert np.mean(samples == expected) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("score_model", ["truncated_normal", "beta"])
@pytest.mark.parametrize("variant", [optscale, optscale_peek_once])
def test_what_is_rarely_exceeded_takes_many_samples(variant, score_model) -> None:
    pool = np.tile([0.5, 0.6, 0.55, 0.45], (1, 2)).astype("f4")
    least = 3 if variant is optscale_peek_once else 2
    # F(s_min) near 1: N* is large. F(s_min) near 0: N* is 1.
    assert stops(variant, pool, s_min=0.95, score_model=score_model)[0] == BUDGET
    assert stops(variant, pool, s_min=0.05, score_model=score_model)[0] == least


def test_two_scores_are_the_least_without_a_prior_and_one_with_it() -> None:
    pool = np.full((1, BUDGET), 0.95, np.float32)
    assert stops(optscale, pool, s_min=0.5)[0] == 2
    assert stops(optscale, pool, s_min=0.5, prior=PREDICTED)[0] == 1
    assert stops(optscale, pool, s_min=0.96)[0] == BUDGET


def test_no_score_counts_towards_the_budget_alone() -> None:
    nan = np.nan
    scored = np.array([[0.95, 0.94, 0.96, 0.95, 0.9, 0.9, 0.9, 0.9]], np.float32)
    gaps = np.array([[nan, 0.95, nan, nan, 0.94, 0.96, 0.9, 0.9]], np.float32)
    assert stops(optscale, scored, s_min=0.5)[0] == 2
    samples, answers = stops(optscale, gaps, s_min=0.5)
    assert (samples, answers) == (5, 1)
    samples, answers = stops(optscale, np.full((1, BUDGET), nan, np.float32))
    assert (samples, answers) == (BUDGET, -1)
    # Two of the first three are missing: nothing is known, so all is sampled.
    assert stops(optscale_peek_once, gaps, s_min=0.5)[0] == BUDGET


def test_ties_go_to_the_earliest_and_what_is_no_answer_never_wins() -> None:
    scores = np.array([[0.3, 0.6, 0.6, 0.9, np.nan, 0.2, 0.1, 0.1]], np.float32)
    samples, answers = stops(optscale, scores, [[4, 5, 6, -1, 7, 4, 4, 4]], s_min=1.0)
    assert (samples, answers) == (BUDGET, 5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.sampled_from([0.0, 0.5, 1.0, np.nan]), st.floats(0, 1, width=32)),
        min_size=BUDGET,
        max_size=BUDGET,
    ),
    st.sampled_from([0.0, 0.3, 0.9, 1.0]),
)
def test_any_scores_stop_within_the_budget_with_the_best_so_far(scores, s_min) -> None:
    pool = np.array([scores], np.float32)
    choices = ({}, {"score_model": "beta"}, {"prior": PREDICTED})
    for variant in (optscale, optscale_peek_once):
        for choice in choices:
            (samples,), (answer,) = stops(variant, pool, s_min=s_min, **choice)
            assert 1 <= samples <= BUDGET
            seen = pool[0, :samples]
            assert answer == (-1 if np.isnan(seen).all() else np.nanargmax(seen))


def test_one_question_at_a_time_equals_the_batch() -> None:
    pools = smooth_pools()
    rule = optscale(BUDGET, s_min=0.8, confidence=0.9)
    batched, answers = stops(optscale, pools, s_min=0.8)
    update = jax.jit(rule.update)
    for pool, samples, answer in zip(pools[:4], batched, answers, strict=False):
        state, size = rule.init(), []
        for n, score in enumerate(pool):
            seen = Observation(jnp.int32(n), jnp.float32(score), jnp.float32(1))
            state, decision = update(state, seen)
            size.append([x.shape for x in jax.tree.leaves(state)])
            if decision.stop:
                break
        assert (n + 1, int(decision.answer_id)) == (samples, answer)
        assert all(shapes == [()] * 11 for shapes in size)


@pytest.mark.study
def test_thresholds_can_be_mapped_over() -> None:
    pools, ids = smooth_pools(), np.tile(np.arange(BUDGET, dtype=np.int32), (POOLS, 1))
    thresholds = jnp.array([0.6, 0.8, 0.95])
    run = functools.partial(replay(optscale), scores=jnp.asarray(pools), ids=jnp.asarray(ids))
    mapped = jax.vmap(lambda s: run(s, 0.9))(thresholds).stop
    for stop, s_min in zip(mapped, thresholds, strict=True):
        samples, _ = stops(optscale, pools, s_min=s_min)
        np.testing.assert_array_equal(np.argmax(stop, axis=1) + 1, samples)


GOOD = {"budget": 8, "s_min": 0.9, "confidence": 0.9}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"s_min": 1.1}, "s_min is 1.1"),
        ({"s_min": float("nan")}, "s_min is nan"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"confidence": 0.0}, "confidence is 0.0"),
        ({"score_model": "beta", "prior": PREDICTED}, "prior given"),
    ],
)
def test_unusable_settings_are_named(wrong, message) -> None:
    with pytest.raises(InputError, match=message):
        optscale(**GOOD | wrong)
    with pytest.raises(InputError, match=message):
        optscale_peek_once(**GOOD | wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": 0, "peek": 1}, "budget = 0"),
        ({"budget": 9}, "give one for budget = 9"),
        ({"peek": 9}, "peek = 9"),
        ({"peek": 0}, "0"),
    ],
)
def test_peeks_are_checked(wrong, message) -> None:
    with pytest.raises(InputError, match=message):
        optscale_peek_once(**GOOD | wrong)
