"""Importance weights and their Pareto shapes, also where no tail can be fitted."""

import numpy as np
import pytest

from msjax.posterior.diagnostics import HIGH_PARETO_K, pareto_smoothed

DRAWS = 4000


@pytest.fixture(scope="module")
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_the_shape_is_that_of_the_weights(random, shape):
    weight = random.uniform(size=(20, DRAWS)) ** -shape  # Pareto, of this shape
    smoothed, found = pareto_smoothed(np.log(weight))
    np.testing.assert_allclose(np.exp(smoothed).sum(axis=1), 1)
    # The fit draws shapes towards .5; one of 190 weights is off by .1 or so.
    assert found.mean() == pytest.approx(shape, abs=0.1)
    assert (np.median(found) > HIGH_PARETO_K) == (shape > HIGH_PARETO_K)


def test_smoothing_keeps_the_order_and_bounds_the_largest(random):
    log_weight = 2 * random.normal(size=(3, DRAWS)) - 700
    smoothed, _ = pareto_smoothed(log_weight)
    for row, kept in zip(log_weight, smoothed, strict=True):
        assert (np.diff(kept[np.argsort(row)]) >= -1e-12).all()
        assert kept.max() <= (row - np.logaddexp.reduce(row)).max() + 0.1


def test_weights_without_a_tail_to_fit(random):
    equal = np.full(DRAWS, -3.0)
    capped = np.minimum(random.normal(size=DRAWS), 0.5)
    alone = np.where(np.arange(DRAWS) == 7, 0.0, -2000.0)
    smoothed, shape = pareto_smoothed(np.stack([equal, capped, alone]))
    assert shape.tolist() == [0, 0, np.inf]
    np.testing.assert_allclose(np.exp(smoothed[0]), 1 / DRAWS)
    assert np.exp(smoothed[1]).max() == pytest.approx(np.exp(smoothed[1])[capped == 0.5].mean())
    assert np.exp(smoothed[2])[7] == pytest.approx(1)
