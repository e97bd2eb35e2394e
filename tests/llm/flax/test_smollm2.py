"""The converter's own arithmetic and its care for what is on disk; no network."""

import json
from pathlib import Path

import numpy as np
import pytest

from msjax.errors import InputError
from msjax.llm.flax import weights as smollm2


def test_undo_permutation_inverts_llama_cpp() -> None:
    heads, half, width = 3, 4, 5
    original = np.arange(heads * 2 * half * width, dtype=np.float32).reshape(-1, width)
    # llama.cpp, convert_hf_to_gguf: split the head into two halves and interleave them
    stored = original.reshape(heads, 2, half, width).swapaxes(1, 2).reshape(original.shape)
    np.testing.assert_array_equal(smollm2.undo_permutation(stored, heads), original)


def test_default_folder_follows_the_environment(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MSJAX_CACHE", str(tmp_path))
    assert smollm2.default_folder() == tmp_path / "SmolLM2-135M-Instruct"
    monkeypatch.delenv("MSJAX_CACHE")
    assert smollm2.default_folder().parent == Path.home() / ".cache" / "msjax"


@pytest.fixture
def converted(tmp_path) -> Path:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    smollm2.write_marker(tmp_path, smollm2.sha256_of(weights))
    return tmp_path


def test_intact_folder_is_left_alone(converted) -> None:
    before = (converted / "msjax.json").stat().st_mtime_ns
    assert smollm2.ensure(converted) == converted
    assert (converted / "msjax.json").stat().st_mtime_ns == before


def test_copied_folder_is_hashed_once(converted) -> None:
    weights = converted / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert smollm2.is_intact(converted)
    marker = json.loads((converted / "msjax.json").read_text())
    assert marker["mtime_ns"] == weights.stat().st_mtime_ns


@pytest.mark.parametrize("content", [b"weight", b"weighty", b""])
def test_damage_is_noticed(converted, content) -> None:
    (converted / "model.safetensors").write_bytes(content)
    assert not smollm2.is_intact(converted)


def test_a_folder_of_something_else_is_not_touched(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        smollm2.ensure(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_wrong_source_is_refused(tmp_path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"something else")
    with pytest.raises(InputError, match=smollm2.GGUF_SHA256):
        smollm2.verify(source)
