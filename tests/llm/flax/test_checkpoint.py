"""Checkpoints that do not fit are refused, and the message says what is wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from msjax.errors import InputError
from msjax.llm.flax import load

TINY = Path(__file__).parents[2] / "fixtures" / "tiny_llama" / "tied"


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def weights_of(folder: Path) -> list[np.ndarray]:
    from flax import nnx

    return jax.tree.leaves(nnx.state(load(folder, "float32")))


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("platform", "says"),
    [
        (
            "cpu",
            "GB are free; end other programs, or take a smaller model (at most 2.5e-05 billion",
        ),
        (
            "gpu",
            "GB of the device are free; end other programs, or take a smaller model, or spread",
        ),
    ],
)
def test_too_little_memory_is_said_with_what_would_fit(platform, says, monkeypatch) -> None:
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform=platform)])
    monkeypatch.setattr("msjax.llm.flax.checkpoint.free_memory", lambda device: 50_000)
    with pytest.raises(InputError, match="of memory as bfloat16") as refused:
        load(TINY, "bfloat16")
    assert says in str(refused.value)
    assert (platform == "gpu") == ("a mesh of 2 devices along its model axis" in str(refused.value))


def test_shards_equal_the_whole(folder) -> None:
    whole = weights_of(folder)
    tensors = load_file(folder / "model.safetensors")
    shards: dict[str, dict] = {"a.safetensors": {}, "b.safetensors": {}}
    weight_map = {name: sorted(shards)[i % 2] for i, name in enumerate(tensors)}
    for name, shard in weight_map.items():
        shards[shard][name] = tensors[name]
    for shard, part in shards.items():
        save_file(part, folder / shard)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    for ours, theirs in zip(weights_of(folder), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    (folder / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"b\.safetensors.*msjax weights"):
        load(folder)
    index.write_text("{}")
    with pytest.raises(InputError, match="weight_map"):
        load(folder)


def test_bfloat16_files_load(folder) -> None:
    def narrow(tensors: dict) -> None:
        for name in tensors:
            tensors[name] = tensors[name].astype(ml_dtypes.bfloat16)

    whole = weights_of(folder)
    rewrite(folder, narrow)
    for ours, theirs in zip(weights_of(folder), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_missing_and_unexpected_are_listed(folder) -> None:
    def rename(tensors: dict) -> None:
        tensors["model.layers.0.extra"] = tensors.pop("model.layers.1.mlp.up_proj.weight")

    rewrite(folder, rename)
    with pytest.raises(InputError) as caught:
        load(folder)
    assert "missing [model.layers.1.mlp.up_proj.weight]" in str(caught.value)
    assert "unexpected [model.layers.0.extra]" in str(caught.value)


def test_a_configuration_with_more_layers_than_the_file_lays_out_none(folder) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 10**9}))
    with pytest.raises(InputError, match=r"num_hidden_layers is 1000000000, but .* tensors"):
        load(folder)


def test_wrong_shape_is_named(folder) -> None:
    def cut(tensors: dict) -> None:
        name = "model.layers.1.self_attn.k_proj.weight"
        tensors[name] = np.ascontiguousarray(tensors[name][:-1])

    rewrite(folder, cut)
    with pytest.raises(InputError, match=r"k_proj\.weight has shape \(31, 32\).*\(32, 32\)"):
        load(folder)


def test_quantized_weights_are_named(folder) -> None:
    def quantize(tensors: dict) -> None:
        name = "model.layers.1.mlp.up_proj.weight"
        tensors[name] = (100 * tensors[name]).astype(np.int8)

    rewrite(folder, quantize)
    with pytest.raises(InputError, match=r"up_proj\.weight has dtype I8.*F32"):
        load(folder)


def test_tensors_larger_than_a_block_are_read_whole(folder, monkeypatch) -> None:
    whole = weights_of(folder)
    monkeypatch.setattr("msjax.llm.flax.checkpoint.BLOCK", 100)  # three rows and a rest
    for ours, theirs in zip(weights_of(folder), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


LOAD = """
import re, sys
from pathlib import Path
import jax
from flax import nnx
from msjax.llm.flax import load

def memory(field):
    return 1024 * int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

jax.numpy.zeros(1).block_until_ready()
before = memory("VmRSS")
weights = nnx.state(load(sys.argv[1], sys.argv[2]))
print((memory("VmHWM") - before) / sum(leaf.nbytes for leaf in jax.tree.leaves(weights)))
"""


@pytest.mark.study
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_loading_holds_the_weights_once(tmp_path, stored, dtype) -> None:
    entries = {
        "model_type": "qwen2",
        "vocab_size": 100_000,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(entries))
    layer = {
        "input_layernorm.weight": (1024,),
        "post_attention_layernorm.weight": (1024,),
        "self_attn.q_proj.weight": (1024, 1024),
        "self_attn.q_proj.bias": (1024,),
        "self_attn.k_proj.weight": (256, 1024),
        "self_attn.k_proj.bias": (256,),
        "self_attn.v_proj.weight": (256, 1024),
        "self_attn.v_proj.bias": (256,),
        "self_attn.o_proj.weight": (1024, 1024),
        "mlp.gate_proj.weight": (4096, 1024),
        "mlp.up_proj.weight": (4096, 1024),
        "mlp.down_proj.weight": (1024, 4096),
    }
    shapes = {"model.embed_tokens.weight": (100_000, 1024), "model.norm.weight": (1024,)} | {
        f"model.layers.{i}.{name}": shape for i in range(16) for name, shape in layer.items()
    }
    tensors = {name: np.full(shape, 0.01, stored) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    command = [sys.executable, "-c", LOAD, str(tmp_path), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (tmp_path / "model.safetensors").unlink()
    assert float(done.stdout) < 1.2


def test_stored_copy_of_the_tied_head_is_accepted(folder) -> None:
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
    load(folder)


def test_a_stored_head_that_differs_from_the_embedding_is_used(folder) -> None:
    rewrite(folder, lambda t: t.update({"lm_head.weight": -t["model.embed_tokens.weight"]}))
    decoder = load(folder, "float32")
    np.testing.assert_array_equal(decoder.head.weight[...], -decoder.embedding[...])
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["lm_head.weight"][:-1]}))
    with pytest.raises(InputError, match=r"tensor lm_head\.weight has shape"):
        load(folder)


def test_truncated_weights(folder) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"cannot read.*msjax weights"):
        load(folder)


def test_absent_weights(folder, tmp_path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors.*msjax weights"):
        load(folder)
    with pytest.raises(InputError, match=r"config\.json.*msjax weights"):
        load(tmp_path / "nowhere")
