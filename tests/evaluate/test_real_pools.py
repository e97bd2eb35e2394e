"""Rules on pools that others recorded; skipped where not at hand."""

import jax
import numpy as np
import pytest

from msjax.evaluate.crossfit import evaluate
from msjax.rules import find_rules
from simulate.rules_on_known_benchmarks import read_pools

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def pools(real_data):
    return {pool.name: pool for pool in read_pools(real_data)}


def test_pools_are_read_as_their_authors_count_them(pools):
    assert len(pools) == 10
    (name,) = [name for name in pools if "math100" in name]
    math = pools[name]
    assert math.correct.mean() == pytest.approx(0.910, abs=5e-4)
    assert math.scores_are_probabilities and math.answered
    (name,) = [name for name in pools if "GPQA" in name]
    assert not pools[name].parallel
    per_round = pools[name].correct.mean(axis=0)
    assert per_round == pytest.approx([0.510, 0.535, 0.535, 0.525], abs=6e-4)


def test_best_of_n_is_that_of_the_same_pool(pools):
    """All eight samples: the answer with the highest reward score, and whether any is right."""
    (name,) = [name for name in pools if "math100" in name]
    pool = pools[name]
    best = pool.right[np.arange(pool.questions), pool.scores.argmax(axis=1)].mean()
    assert best == pytest.approx(0.94)
    result = evaluate(
        pool, find_rules(pool, ("fixed+best_score",)), jax.random.key(0), orders=2, choose=False
    )
    assert result.rules[0].accuracy.estimate == pytest.approx(best)
    assert result.rules[0].saving.estimate == pytest.approx(0)
    assert result.yardsticks[0].accuracy.estimate == pytest.approx(0.96)


def test_rounds_of_gpqa_are_worth_little(pools):
    """Revising changes GPT-4o's accuracy on GPQA by less than its interval."""
    (name,) = [name for name in pools if "GPQA" in name]
    pool = pools[name]
    result = evaluate(pool, find_rules(pool, ("fixed", "until_repeated")), jax.random.key(0))
    for rule in result.rules:
        assert rule.gain.low <= 0.03 and rule.gain.high >= -0.03
