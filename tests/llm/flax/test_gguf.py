"""A GGUF file is read as the folder it was made from, and what cannot be read is refused."""

import json
from pathlib import Path

import gguf
import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from msjax.errors import InputError
from msjax.llm.flax import empty_cache, load
from msjax.llm.flax.chat import Chat, load_tokenizer
from msjax.llm.flax.config import DecoderConfig, inverse_frequencies
from msjax.llm.flax.gguf import read_gguf, write_folder

FIXTURES = Path(__file__).parents[2] / "fixtures"
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def stored_name(name: str) -> str:
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, *block, kind = name.split(".")
    return f"blk.{layer}.{NAMES['.'.join(block)]}.{kind}"


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter does: the halves of every head, row by row in turn."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def write(folder: Path, path: Path, kind=gguf.GGMLQuantizationType.F32, **changed) -> Path:
    """The model of a folder as a GGUF file; `changed` replace or add some."""
    config = json.loads((folder / "config.json").read_text())
    family = config["model_type"]
    writer = gguf.GGUFWriter(path, changed.get("architecture", family))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(changed.get("rope_dimension_count", config["head_dim"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    if "rope_scaling" in changed:
        writer.add_rope_scaling_type(changed["rope_scaling"])
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary | special, key=(vocabulary | special).get)
    writer.add_tokenizer_model(changed.get("tokenizer_model", "gpt2"))
    writer.add_tokenizer_pre(changed.get("pre", "gpt-2"))
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    described = json.loads((folder / "tokenizer_config.json").read_text())
    writer.add_chat_template(described["chat_template"])
    for name, values in (load_file(folder / "model.safetensors") | changed.get("more", {})).items():
        stored = stored_name(name) if name.startswith(("model.", "lm_head")) else name
        if family == "llama" and ".attn_q." in stored:
            values = interleave(values, config["num_attention_heads"])
        if family == "llama" and ".attn_k." in stored:
            values = interleave(values, config["num_key_value_heads"])
        fits = values.ndim == 2 and values.shape[1] % 32 == 0
        raw = kind if fits else gguf.GGMLQuantizationType.F32
        quantised = gguf.quantize(values.astype(np.float32), raw)
        writer.add_tensor(stored, quantised, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def parameters(path: Path) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(load(path, "float32")))]


@pytest.mark.parametrize("name", ["tiny_llama/tied", "tiny_qwen2/tied", "tiny_qwen3/untied"])
def test_every_family_is_read_as_its_folder(name, tmp_path) -> None:
    folder = FIXTURES / name
    path = write(folder, tmp_path / "model.gguf")
    ours, theirs = load(path, "float32"), load(folder, "float32")
    for field in ("eos_token_ids", "rope_factors"):
        object.__setattr__(ours.config, field, getattr(theirs.config, field))
    assert ours.config == theirs.config
    for one, other in zip(parameters(path), parameters(folder), strict=True):
        np.testing.assert_array_equal(one, other)


def test_llama3_stretches_its_frequencies_and_adds_biases(tmp_path) -> None:
    folder = FIXTURES / "tiny_llama/untied_llama3_bias"
    config = DecoderConfig.from_folder(folder)
    plain = DecoderConfig.from_dict(
        {**json.loads((folder / "config.json").read_text()), "rope_scaling": None}
    )
    factors = inverse_frequencies(plain) / inverse_frequencies(config)
    assert factors.max() > 2
    more = {"rope_freqs.weight": factors.astype(np.float32)}
    path = write(folder, tmp_path / "model.gguf", more=more)
    decoder = load(path, "float32")
    np.testing.assert_allclose(
        inverse_frequencies(decoder.config), inverse_frequencies(config), rtol=1e-6
    )
    for one, other in zip(parameters(path), parameters(folder), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0", "Q4_1", "F16"])
def test_blocks_are_dequantised_beside_what_they_were(kind, tmp_path, monkeypatch) -> None:
    folder = FIXTURES / "tiny_llama/tied"
    monkeypatch.setattr("msjax.llm.flax.gguf.BLOCK", 100)  # three rows and a rest
    path = write(folder, tmp_path / "model.gguf", gguf.GGMLQuantizationType[kind])
    bits = {"Q8_0": 8, "Q5_0": 5, "Q4_1": 4, "F16": 12}[kind]
    for one, other in zip(parameters(path), parameters(folder), strict=True):
        step = 2 * np.abs(other).max() / 2**bits
        assert np.abs(one - other).max() <= step


def test_the_tokenizer_and_the_chat_are_the_folders(tmp_path) -> None:
    folder = FIXTURES / "tiny_qwen2/tied"
    path = write(folder, tmp_path / "model.gguf")
    ours, theirs = load_tokenizer(path), load_tokenizer(folder)
    for text in ("what is 12 + 345?\n\n It's  the <|im_end|> sum", "à la carte 漢字"):
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    asked = [{"role": "user", "content": "1 + 1"}]
    chats = [Chat(one, "tiny", ()) for one in (ours, theirs)]
    assert chats[0].begin(asked) == chats[1].begin(asked)
    assert chats[0].settings == chats[1].settings


def test_a_folder_of_the_same_can_be_written(tmp_path) -> None:
    folder = FIXTURES / "tiny_qwen2/tied"
    path = write(folder, tmp_path / "model.gguf")
    write_folder(read_gguf(path), tmp_path / "folder")
    assert DecoderConfig.from_folder(tmp_path / "folder") == load(path).config
    text = "check your answer: 12"
    assert load_tokenizer(tmp_path / "folder").encode(text) == load_tokenizer(path).encode(text)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"architecture": "gemma3"}, "general.architecture 'gemma3'.*llama, qwen2, qwen3"),
        ({"rope_scaling": gguf.RopeScalingType.YARN}, "rope.scaling.type 'yarn'"),
        ({"rope_dimension_count": 8}, "rope.dimension_count 8 differs from the 16"),
        ({"more": {"blk.0.ffn_gate_inp.weight": np.ones((4, 32))}}, "blk.0.ffn_gate_inp.weight"),
        ({"more": {"model.layers.7.mlp.up_proj.weight": np.ones((4, 32))}}, "unexpected.*layers.7"),
        ({"more": {"model.norm.weight": np.ones(31)}}, r"norm.weight has shape \(31,\)"),
    ],
)
def test_what_is_not_implemented_is_named(changed, named, tmp_path) -> None:
    path = write(FIXTURES / "tiny_qwen2/tied", tmp_path / "model.gguf", **changed)
    with pytest.raises(InputError, match=named):
        load(path)


@pytest.mark.parametrize(
    "changed", [{"tokenizer_model": "llama"}, {"pre": "tekken"}], ids=["model", "pre"]
)
def test_a_tokenizer_of_another_kind_is_refused(changed, tmp_path) -> None:
    path = write(FIXTURES / "tiny_qwen2/tied", tmp_path / "model.gguf", **changed)
    with pytest.raises(InputError, match=f"{next(iter(changed.values()))}.*Hugging Face folder"):
        load_tokenizer(path)


def test_a_kind_of_numbers_that_cannot_be_read_is_named(tmp_path) -> None:
    path = write(FIXTURES / "tiny_qwen2/tied", tmp_path / "model.gguf")
    content = bytearray(path.read_bytes())
    place = content.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 8
    content[place : place + 4] = int(gguf.GGMLQuantizationType.I32).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InputError, match="output_norm.weight is of a kind.*I32"):
        load(path)


def test_damaged_files_are_refused(tmp_path) -> None:
    path = write(FIXTURES / "tiny_qwen2/tied", tmp_path / "model.gguf")
    content = path.read_bytes()
    for size, named in ((len(content) - 1, "cut short"), (500, "no readable GGUF"), (0, "no read")):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match=named):
            load(path)
    path.write_bytes(b"PK" + content[2:])
    with pytest.raises(InputError, match="does not begin with GGUF"):
        load(path)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "absent.gguf")


def test_too_little_memory_is_said_before_anything_is_read(tmp_path, monkeypatch) -> None:
    path = write(FIXTURES / "tiny_qwen2/tied", tmp_path / "model.gguf")
    monkeypatch.setattr("msjax.llm.flax.checkpoint.free_memory", lambda device: 1000)
    monkeypatch.setattr("msjax.llm.flax.gguf.GGUFModel.read", None)
    with pytest.raises(
        InputError, match=r"needs 0.000\d+ GB of memory as float32.* parameters fit"
    ):
        load(path)


def test_logits_are_those_of_transformers_reading_the_same_file(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    kind = gguf.GGMLQuantizationType.Q8_0
    path = write(FIXTURES / "tiny_llama/tied", tmp_path / "model.gguf", kind)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32
    ).eval()
    decoder = load(path, "float32")
    tokens = np.random.default_rng(0).integers(0, decoder.config.vocab_size, (2, 12))
    cache = empty_cache(decoder.config, 2, 12, decoder.dtype)
    hidden, _ = decoder(jax.numpy.asarray(tokens, "int32"), jax.numpy.full(2, 12, "int32"), cache)
    ours = decoder.logits(hidden.reshape(hidden.shape[0], -1)).T.reshape(2, 12, -1)
    with torch.inference_mode():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(np.asarray(ours), expected, atol=2e-5)
