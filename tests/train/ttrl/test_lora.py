"""Adapters on the tiny checkpoint: what they change, what they cannot, and their gradients."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from msjax.errors import InputError
from msjax.llm.flax import empty_cache, load
from msjax.train.ttrl.export import copy_folder, write_weights
from msjax.train.ttrl.lora import Adapter, adapted, new_adapters

FOLDER = Path(__file__).parents[2] / "fixtures" / "tiny_llama" / "tied"


@pytest.fixture(scope="module")
def decoder():
    return nnx.split(load(FOLDER))


@partial(jax.jit, static_argnums=0)
def hidden_states(graphdef, weights):
    run = nnx.merge(graphdef, weights)
    tokens = jnp.arange(6, dtype=jnp.int32)[None]
    return run(tokens, jnp.array([6], jnp.int32), empty_cache(run.config, 1, 6, run.dtype))[0]


def test_new_adapters_change_nothing(decoder) -> None:
    graphdef, weights = decoder
    adapters = new_adapters(jax.random.key(0), weights, 2)
    layers = nnx.merge(graphdef, weights).config.num_hidden_layers
    assert len(adapters) == 4 * layers
    before = hidden_states(graphdef, weights)
    after = hidden_states(graphdef, adapted(weights, adapters, 2.0))
    np.testing.assert_array_equal(before, after)


def test_adapted_matrices_are_the_sum_by_hand(decoder) -> None:
    _, weights = decoder
    adapters = new_adapters(jax.random.key(0), weights, 3)
    name = "layers.1.mlp.down.weight"
    up = jax.random.normal(jax.random.key(1), adapters[name].up.shape)
    changed = adapted(weights, {**adapters, name: adapters[name]._replace(up=up)}, 0.5)
    before, after = (dict(nnx.to_flat_state(one)) for one in (weights, changed))
    for path, leaf in before.items():
        difference = np.asarray(after[path][...] - leaf[...])
        if path == ("layers", 1, "mlp", "down", "weight"):
            by_hand = 0.5 * np.asarray(up, float) @ np.asarray(adapters[name].down, float)
            np.testing.assert_allclose(difference, by_hand, atol=1e-5)
            assert np.linalg.matrix_rank(difference, tol=1e-4) == 3
        else:
            assert not difference.any()


@pytest.mark.slow
def test_gradients_project_those_of_the_matrices(decoder) -> None:
    """dL/d up = scale G down^T and dL/d down = scale up^T G, where G is dL/dW."""
    graphdef, weights = decoder
    adapters = jax.tree.map(lambda leaf: leaf + 0.01, new_adapters(jax.random.key(0), weights, 2))

    def loss(whole):
        return jnp.sum(hidden_states(graphdef, whole) ** 3)

    by_adapter = jax.jit(jax.grad(lambda some: loss(adapted(weights, some, 2.0))))(adapters)
    by_matrix = jax.jit(jax.grad(loss))(adapted(weights, adapters, 2.0))
    matrices = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(by_matrix)}
    for name, (down, up) in adapters.items():
        gradient = matrices[name][...]
        scale = float(jnp.abs(gradient).max())
        np.testing.assert_allclose(by_adapter[name].up, 2.0 * gradient @ down.T, atol=1e-4 * scale)
        np.testing.assert_allclose(by_adapter[name].down, 2.0 * up.T @ gradient, atol=1e-4 * scale)


@pytest.mark.parametrize("rank", [0, 10_000])
def test_ranks_outside_their_range_are_named(decoder, rank) -> None:
    with pytest.raises(InputError, match=f"rank is {rank}"):
        new_adapters(jax.random.key(0), decoder[1], rank)


def test_adapters_of_another_decoder_are_named(decoder) -> None:
    _, weights = decoder
    wrong = Adapter(jnp.zeros((1, 3)), jnp.zeros((5, 1)))
    with pytest.raises(InputError, match="no matrix"):
        adapted(weights, {"layers.9.mlp.down.weight": wrong}, 1.0)
    with pytest.raises(InputError, match="is 5 x 3"):
        adapted(weights, {"layers.0.mlp.down.weight": wrong}, 1.0)


def test_written_weights_are_read_back(decoder, tmp_path) -> None:
    graphdef, weights = decoder
    adapters = new_adapters(jax.random.key(0), weights, 2)
    changed = adapted(weights, jax.tree.map(lambda leaf: leaf + 0.01, adapters), 1.0)
    copy_folder(FOLDER, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    write_weights(tmp_path, changed, nnx.merge(graphdef, weights).config)
    _, read = nnx.split(load(tmp_path))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), changed, read))
