"""Sampling against the distribution it claims to follow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from msjax.errors import InputError
from msjax.llm.engine import Sampling
from msjax.llm.flax.decode import sample

DRAWS = 8192
FALSE_ALARM = 1e-6
VOCABULARY = 700  # not a multiple of the block, and more than two of them


def draw(sampling: Sampling):
    logits = 2.0 * jax.random.normal(jax.random.key(0), (VOCABULARY,))
    columns = jnp.broadcast_to(logits[:, None], (VOCABULARY, DRAWS))
    keys = jax.random.split(jax.random.key(1), DRAWS)
    tokens, logprobs = jax.jit(sample, static_argnums=2)(columns, keys, sampling)
    return np.asarray(logits, np.float64), np.asarray(tokens), np.asarray(logprobs)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def chi_square_p_value(tokens: np.ndarray, probability: np.ndarray) -> float:
    counts = np.bincount(tokens, minlength=VOCABULARY)
    expected = DRAWS * probability
    common = expected >= 5
    observed = [*counts[common], counts[~common].sum()]
    wanted = [*expected[common], expected[~common].sum()]
    if wanted[-1] == 0:
        observed, wanted = observed[:-1], wanted[:-1]
    return stats.chisquare(observed, wanted).pvalue


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_temperature_follows_softmax(temperature) -> None:
    logits, tokens, logprobs = draw(Sampling(temperature))
    assert chi_square_p_value(tokens, softmax(logits / temperature)) > FALSE_ALARM
    np.testing.assert_allclose(logprobs, np.log(softmax(logits))[tokens], atol=1e-4)


def test_top_p_is_the_smallest_set() -> None:
    logits, tokens, _ = draw(Sampling(1.0, top_p=0.6))
    probability = softmax(logits)
    order = np.argsort(-probability)
    size = np.searchsorted(np.cumsum(probability[order]), 0.6) + 1
    nucleus = np.zeros(VOCABULARY)
    nucleus[order[:size]] = probability[order[:size]]
    assert set(tokens) <= set(order[:size])
    assert chi_square_p_value(tokens, nucleus / nucleus.sum()) > FALSE_ALARM


def test_greedy_is_argmax() -> None:
    logits, tokens, _ = draw(Sampling(0.0))
    assert set(tokens) == {int(logits.argmax())}


@pytest.mark.parametrize("vocabulary", [7, 256, 1000])
def test_greedy_takes_the_first_of_the_greatest(vocabulary) -> None:
    logits = np.random.default_rng(0).integers(0, 4, (vocabulary, 64)).astype(np.float32)
    tokens, _ = sample(jnp.asarray(logits), jax.random.split(jax.random.key(0), 64), Sampling(0.0))
    np.testing.assert_array_equal(tokens, logits.argmax(axis=0))


@pytest.mark.parametrize("settings", [(-1.0, None), (float("nan"), None), (1.0, 0.0), (1.0, 1.1)])
def test_settings_outside_their_range(settings) -> None:
    with pytest.raises(InputError, match=r"temperature|top_p"):
        Sampling(*settings)
