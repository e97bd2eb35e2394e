"""Eight devices of another process: what is computed does not depend on how many there are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from msjax.errors import InputError
from msjax.llm.flax.sharding import device_mesh

PREAMBLE = """
import json, re, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
import jax.numpy as jnp
import numpy as np
from flax import nnx
from msjax.errors import InputError
from msjax.llm.flax import Decoder, DecoderConfig, empty_cache, load
from msjax.llm.engine import Sampling
from msjax.llm.flax.decode import decode, prefill
from msjax.llm.flax.sharding import device_mesh, shard_cache, shard_decoder

# all that any family has: biases, head norms, grouped queries
entries = {
    "model_type": "qwen3", "attention_bias": True, "vocab_size": 320, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 16, "max_position_embeddings": 64,
}
"""

PARITY = """
decoder = Decoder(DecoderConfig.from_dict(entries), rngs=nnx.Rngs(0))
graphdef, state = nnx.split(decoder)
leaves, tree = jax.tree.flatten(state)
noise = jax.random.split(jax.random.key(1), len(leaves))
leaves = [x + 0.1 * jax.random.normal(key, x.shape) for x, key in zip(leaves, noise)]
decoder = nnx.merge(graphdef, jax.tree.unflatten(tree, leaves))
smallest = min(x.size for x in leaves if x.ndim == 2)
tokens = jax.random.randint(jax.random.key(2), (4, 12), 0, 320)
fresh = jnp.array([12, 7, 9, 12])

@nnx.jit
def logits(decoder, tokens, fresh, cache):
    hidden, _ = decoder(tokens, fresh, cache)
    return decoder.logits(hidden.reshape(hidden.shape[0], -1)).reshape(-1, *tokens.shape)

def run(decoder, place):
    cache = place(empty_cache(decoder.config, 4, 32, decoder.dtype))
    seen = np.asarray(logits(decoder, tokens, fresh, cache))
    graphdef, weights = nnx.split(decoder)
    cache = prefill(graphdef, weights, tokens, fresh, cache)
    keys = jax.random.split(jax.random.key(3), 4)
    arrays = (weights, tokens[:, -1], jnp.full(4, 16), keys, cache)
    settings = dict(sampling=Sampling(), end_tokens=(), max_new=16)
    program = decode.lower(graphdef, *arrays, **settings).compile()
    exchange = r"\\w+\\[([\\d,]*)\\]\\S* (?:all|collective|reduce-scatter)[-\\w]*\\("
    moved = re.findall(exchange, program.as_text())
    done = program(*arrays)
    columns = np.arange(12)[None, None, :] < np.asarray(fresh)[None, :, None]
    return dict(
        logits=np.where(columns, seen, 0.0),
        tokens=np.asarray(done.tokens).tolist(),
        keys=done.cache.keys[0].sharding.shard_shape(done.cache.keys[0].shape),
        qkv=weights.layers[0].attention.qkv.weight[...].addressable_shards[0].data.shape,
        moved=max((int(np.prod([int(n) for n in m.split(",") if n])) for m in moved), default=0),
    )

alone = run(decoder, lambda cache: cache)
for data, model in ((2, 2), (1, 8)):
    mesh = device_mesh(data, model)
    result = run(shard_decoder(decoder, mesh), lambda cache: shard_cache(cache, mesh))
    print(json.dumps(dict(
        mesh=(data, model),
        error=float(np.abs(result["logits"] - alone["logits"]).max()),
        scale=float(np.abs(alone["logits"]).max()),
        same_tokens=result["tokens"] == alone["tokens"],
        keys=result["keys"], qkv=result["qkv"],
        moved=result["moved"], smallest=smallest,
    )))
"""

LOADED = """
mesh = device_mesh(2, 2)
placed, then_placed = load(sys.argv[1], mesh=mesh), shard_decoder(load(sys.argv[1]), mesh)
for one, other in zip(*(jax.tree.leaves(nnx.state(d)) for d in (placed, then_placed))):
    np.testing.assert_array_equal(one, other)
    assert one.sharding == other.sharding
print("equal")
"""

REFUSED = """
def message(entries, *mesh):
    try:
        config = DecoderConfig.from_dict(entries)
        decoder = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))
        shard_decoder(decoder, device_mesh(*mesh))
    except InputError as error:
        return str(error)
for change, model in (
    ({"num_attention_heads": 12, "num_key_value_heads": 4}, 8), ({"num_key_value_heads": 2}, 4),
    ({"intermediate_size": 98}, 4), ({"vocab_size": 321}, 2),
):
    print(message({**entries, **change}, 1, model))
for rows, mesh in ((3, (2, 1)), (4, (1, 6))):
    try:
        cache = empty_cache(DecoderConfig.from_dict(entries), rows, 8, "float32")
        shard_cache(cache, device_mesh(*mesh))
    except InputError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def printed() -> list[list[str]]:
    """What each part printed; one process imports and compiles for all."""
    script = 'print("next part")\n'.join((PREAMBLE, PARITY, LOADED, REFUSED))
    folder = Path(__file__).parents[2] / "fixtures" / "tiny_qwen3" / "untied"
    command = [sys.executable, "-W", "error", "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [part.splitlines() for part in done.stdout.split("next part\n")[1:]]


@pytest.mark.slow
def test_logits_and_greedy_tokens_are_those_of_one_device(printed) -> None:
    results = [json.loads(line) for line in printed[0]]
    assert [result["mesh"] for result in results] == [[2, 2], [1, 8]]
    for result in results:
        data, model = result["mesh"]
        assert result["error"] < 1e-5 * result["scale"], result
        assert result["same_tokens"], result
        assert result["qkv"] == [512 // model, 64]
        assert result["keys"] == [4 // data, 8 // model, 16, 32]
        # what devices exchange while decoding are activations
        assert 0 < result["moved"] < result["smallest"], result


@pytest.mark.slow
def test_loading_onto_a_mesh_equals_placing_afterwards(printed) -> None:
    assert printed[1] == ["equal"]


@pytest.mark.slow
def test_what_the_mesh_does_not_divide_is_named(printed) -> None:
    messages = printed[2]
    named = (
        "model of 8 devices does not divide num_attention_heads 12",
        "model of 4 devices does not divide num_key_value_heads 2",
        "model of 4 devices does not divide intermediate_size 98",
        "model of 2 devices does not divide vocab_size 321",
        "data of 2 devices does not divide rows 3",
        "model of 6 devices does not divide num_key_value_heads 8",
    )
    for message, part in zip(messages, named, strict=True):
        assert part in message
        assert "choose a size that divides it" in message


@pytest.mark.parametrize(
    ("data", "model", "message"),
    [(0, 1, "mesh axis data is 0"), (1, -1, "mesh axis model is -1"), (64, 2, "needs 128 devices")],
)
def test_meshes_that_cannot_be(data, model, message) -> None:
    with pytest.raises(InputError, match=message):
        device_mesh(data, model)
