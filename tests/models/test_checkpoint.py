"""Checkpoints that do not fit are refused, and the message says what is wrong."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from msjax.errors import InputError
from msjax.models import load

TINY = Path(__file__).parents[1] / "data" / "tiny_llama" / "tied"


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


def test_wrong_shape_is_named(folder) -> None:
    def cut(tensors: dict) -> None:
        name = "model.layers.1.self_attn.k_proj.weight"
        tensors[name] = np.ascontiguousarray(tensors[name][:-1])

    rewrite(folder, cut)
    with pytest.raises(InputError, match=r"k_proj\.weight has shape \(31, 32\).*\(32, 32\)"):
        load(folder)


def test_stored_copy_of_the_tied_head_is_accepted(folder) -> None:
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
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
