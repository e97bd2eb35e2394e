"""The decoder against torch, golden and live, and its ragged cache against plain runs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from msjax.llm.flax import Decoder, KVCache, empty_cache, load
from msjax.llm.flax.kv_cache import grow, take_rows

DATA = Path(__file__).parents[2] / "fixtures"
TINY = DATA / "tiny_llama"
VARIANTS = (
    "tiny_llama/tied",
    "tiny_llama/untied_llama3_bias",
    "tiny_mistral/untied",
    "tiny_qwen2/tied",
    "tiny_qwen3/untied",
    "tiny_qwen3/bfloat16_shards",
)


def few(*quick: str) -> pytest.MarkDecorator:
    """These variants, and with the slow tests the others: what does not hang on each weight."""
    slow = [pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS if v not in quick]
    return pytest.mark.parametrize("model", [*quick, *slow], indirect=True)


@nnx.jit
def forward(decoder: Decoder, tokens, fresh, cache: KVCache):
    hidden, cache = decoder(tokens, fresh, cache)
    logits = decoder.logits(hidden.reshape(hidden.shape[0], -1))
    return logits.T.reshape(*tokens.shape, -1), cache


def full(decoder: Decoder, tokens):
    rows, time = tokens.shape
    cache = empty_cache(decoder.config, rows, time, decoder.dtype)
    return forward(decoder, jnp.asarray(tokens), jnp.full((rows,), time, jnp.int32), cache)[0]


@pytest.fixture(scope="module", params=VARIANTS)
def model(request) -> tuple[Decoder, dict[str, np.ndarray], Path]:
    folder = DATA / request.param
    return load(folder, "float32"), load_file(folder / "golden.safetensors"), folder


def test_golden_logits(model) -> None:
    decoder, golden, _ = model
    np.testing.assert_allclose(full(decoder, golden["tokens"]), golden["logits"], atol=2e-4)


def test_live_torch_parity(model) -> None:
    torch = pytest.importorskip("torch", reason="live parity needs torch; golden logits cover it")
    transformers = pytest.importorskip("transformers")
    decoder, _, folder = model
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = np.random.default_rng(1).integers(0, decoder.config.vocab_size, (3, 77))
    with torch.inference_mode():
        expected = reference(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(full(decoder, tokens.astype(np.int32)), expected, atol=2e-4)


def test_bfloat16_is_close() -> None:
    golden = load_file(TINY / "tied" / "golden.safetensors")
    logits = full(load(TINY / "tied", jnp.bfloat16), golden["tokens"])
    assert logits.dtype == jnp.float32
    assert np.corrcoef(np.ravel(logits), golden["logits"].ravel())[0, 1] > 0.999


@pytest.mark.slow
@few("tiny_llama/tied", "tiny_qwen3/untied")
def test_ragged_appends_equal_one_full_run(model) -> None:
    decoder, golden, _ = model
    tokens = golden["tokens"]
    expected = np.asarray(full(decoder, tokens))
    cache = empty_cache(decoder.config, 2, 16, decoder.dtype)
    done = [0, 0]
    # padding (9 of 12) and idle rows (0) must leave no trace
    for fresh in ((12, 7), (0, 9), (4, 0), (1, 1), (12, 12)):
        if max(done) + 12 > cache.capacity:
            cache = grow(cache, cache.capacity + 16)
        chunk = np.stack([np.roll(tokens[row], -done[row])[:12] for row in range(2)])
        logits, cache = forward(decoder, jnp.asarray(chunk), np.array(fresh, np.int32), cache)
        logits = np.asarray(logits)
        for row, count in enumerate(fresh):
            np.testing.assert_allclose(
                logits[row, :count], expected[row, done[row] : done[row] + count], atol=1e-4
            )
            done[row] += count
    assert cache.lengths.tolist() == done


@few("tiny_llama/tied")
def test_taken_rows_carry_on(model) -> None:
    decoder, golden, _ = model
    tokens, order = golden["tokens"], np.array([1, 0, 1])
    cache = empty_cache(decoder.config, 2, 40, decoder.dtype)
    _, cache = forward(decoder, jnp.asarray(tokens[:, :20]), np.full(2, 20, np.int32), cache)
    swapped = take_rows(cache, jnp.asarray(order))
    chunk = jnp.asarray(tokens[order, 20:])
    logits, _ = forward(decoder, chunk, np.full(3, 20, np.int32), swapped)
    expected = golden["logits"][order, 20:]
    np.testing.assert_allclose(logits, expected, atol=2e-4)


@pytest.mark.slow
@few("tiny_llama/untied_llama3_bias", "tiny_qwen3/untied")
def test_gradients_reach_every_parameter(model) -> None:
    decoder, golden, _ = model
    graphdef, weights = nnx.split(decoder)
    tokens = jnp.asarray(golden["tokens"])

    def loss(weights):
        return jnp.square(full(nnx.merge(graphdef, weights), tokens)).mean()

    gradients = map(np.asarray, jax.tree.leaves(jax.grad(loss)(weights)))
    assert all(np.isfinite(leaf).all() and np.any(leaf != 0) for leaf in gradients)
