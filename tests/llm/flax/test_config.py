"""What `DecoderConfig` reads, and what it refuses by name."""

import json

import numpy as np
import pytest

from msjax.errors import InputError
from msjax.llm.flax.config import DecoderConfig, inverse_frequencies

ENTRIES = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_both_generations_of_rope_entries_read_the_same() -> None:
    four = DecoderConfig.from_dict({**ENTRIES, "rope_theta": 5e5, "rope_scaling": LLAMA3})
    five = DecoderConfig.from_dict({**ENTRIES, "rope_parameters": {**LLAMA3, "rope_theta": 5e5}})
    assert four == five
    assert five.rope_theta == 5e5
    assert five.rope_scaling is not None


def test_entries_of_both_generations_that_agree_are_read() -> None:
    five = {"rope_parameters": {**LLAMA3, "rope_theta": 5e5}}
    old = {name: value for name, value in LLAMA3.items() if name != "rope_type"}
    both = {**ENTRIES, **five, "rope_theta": 5e5, "rope_scaling": {**old, "type": "llama3"}}
    assert DecoderConfig.from_dict(both) == DecoderConfig.from_dict({**ENTRIES, **five})


def test_defaults_are_those_of_transformers() -> None:
    config = DecoderConfig.from_dict(ENTRIES)
    assert (config.num_key_value_heads, config.head_dim) == (4, 8)
    assert (config.rope_theta, config.rms_norm_eps) == (10000.0, 1e-6)
    assert config.rope_scaling is None
    assert config.eos_token_ids == ()


@pytest.mark.parametrize(
    ("family", "entries", "qkv_bias", "out_bias", "qk_norm"),
    [
        ("llama", {}, False, False, False),
        ("llama", {"attention_bias": True}, True, True, False),
        ("mistral", {"attention_bias": True}, False, False, False),
        ("qwen2", {"attention_bias": True}, True, False, False),
        ("qwen3", {}, False, False, True),
        ("qwen3", {"attention_bias": True}, True, True, True),
    ],
)
def test_what_a_family_implies(family, entries, qkv_bias, out_bias, qk_norm) -> None:
    shape = {"num_key_value_heads": 2, "sliding_window": None}
    config = DecoderConfig.from_dict({**ENTRIES, **shape, **entries, "model_type": family})
    assert (config.qkv_bias, config.out_bias, config.qk_norm) == (qkv_bias, out_bias, qk_norm)
    assert config.head_dim == (128 if family == "qwen3" else 8)


def test_silence_means_what_transformers_assumes() -> None:
    transformers = pytest.importorskip("transformers")
    many_heads = {**ENTRIES, "num_attention_heads": 32, "hidden_size": 64, "sliding_window": None}
    for family in ("llama", "mistral", "qwen2", "qwen3"):
        entries = {**many_heads, "model_type": family}
        ours = DecoderConfig.from_dict(entries)
        theirs = transformers.AutoConfig.for_model(**entries)
        head_dim = getattr(theirs, "head_dim", theirs.hidden_size // theirs.num_attention_heads)
        assert (ours.num_key_value_heads, ours.head_dim) == (theirs.num_key_value_heads, head_dim)
        assert (ours.rms_norm_eps, ours.tie_word_embeddings) == (
            theirs.rms_norm_eps,
            theirs.tie_word_embeddings,
        )


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_a_window_that_is_not_used_is_accepted(family) -> None:
    entries = {"model_type": family, "num_key_value_heads": 2, "sliding_window": 4096}
    DecoderConfig.from_dict({**ENTRIES, **entries, "use_sliding_window": False})


def test_generation_config_gives_the_end_tokens(tmp_path) -> None:
    (tmp_path / "config.json").write_text(str({**ENTRIES, "eos_token_id": 2}).replace("'", '"'))
    assert DecoderConfig.from_folder(tmp_path).eos_token_ids == (2,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    assert DecoderConfig.from_folder(tmp_path).eos_token_ids == (3, 4)


@pytest.mark.parametrize("eos", ["<end>", {"content": "<end>", "lstrip": False}, "<other>", None])
def test_the_tokenizer_gives_the_end_token_where_the_configuration_does_not(tmp_path, eos) -> None:
    tokens = {"added_tokens": [{"id": 3, "content": "<pad>"}, {"id": 7, "content": "<end>"}]}
    (tmp_path / "config.json").write_text(json.dumps({**ENTRIES, "eos_token_id": None}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
    assert DecoderConfig.from_folder(tmp_path).eos_token_ids == ()
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokens))
    expected = () if eos in ("<other>", None) else (7,)
    assert DecoderConfig.from_folder(tmp_path).eos_token_ids == expected


def test_llama3_keeps_short_and_stretches_long_wavelengths() -> None:
    plain = inverse_frequencies(DecoderConfig.from_dict({**ENTRIES, "head_dim": 64}))
    rope = {**LLAMA3, "rope_theta": 10000.0}
    scaled = inverse_frequencies(
        DecoderConfig.from_dict({**ENTRIES, "head_dim": 64, "rope_parameters": rope})
    )
    turns = 8192 * plain / (2 * np.pi)
    assert plain.dtype == np.float64
    np.testing.assert_array_equal(scaled[turns > 4], plain[turns > 4])
    np.testing.assert_allclose(scaled[turns < 1], plain[turns < 1] / 8)
    assert np.all(np.diff(scaled) < 0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba'"),
        ({"model_type": None}, "model_type None"),
        ({"model_type": "qwen2_moe"}, "model_type 'qwen2_moe'"),
        ({"model_type": "gemma"}, "model_type 'gemma'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"sliding_window": 4096}, "sliding_window 4096"),
        ({"model_type": "mistral", "sliding_window": 4096}, "sliding_window 4096"),
        ({"model_type": "mistral"}, "sliding_window 4096"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window True"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "use_sliding_window True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type 'linear'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type 'yarn'"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "['full_attention']"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"rope_scaling": {**LLAMA3, "high_freq_factor": 1.0}}, "high_freq_factor"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "factor is None"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"hidden_size": 30}, "hidden_size 30"),
        ({"head_dim": 7}, "head_dim 7"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"eos_token_id": 100}, "eos_token_id is 100; it must be a token id below vocab_size 100"),
        ({"eos_token_id": [True]}, "eos_token_id is [True]"),
        ({"rope_scaling": "linear"}, "rope_scaling is 'linear'"),
        ({"rope_scaling": ["llama3"]}, "rope_scaling is ['llama3']"),
        ({"rope_parameters": 8.0}, "rope_parameters is 8.0"),
        ({"rope_scaling": {**LLAMA3, "type": "linear"}}, "type 'linear' and rope_type 'llama3'"),
        (
            {"rope_parameters": {"rope_theta": 1e6}, "rope_theta": 1e4},
            "rope_theta is 1000000.0 among",
        ),
        ({"rope_parameters": {"rope_type": "default"}, "rope_scaling": LLAMA3}, "differ"),
        ({"rope_parameters": {**LLAMA3, "factor": 2.0}, "rope_scaling": LLAMA3}, "differ"),
        ({"layer_types": 3}, "layer_types 3"),
        ({"layer_types": [{}]}, "layer_types [{}]"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'"),
    ],
)
def test_refused_by_name(change, named) -> None:
    with pytest.raises(InputError) as caught:
        DecoderConfig.from_dict({**ENTRIES, **change})
    assert named in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_unreadable_config(tmp_path, content) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        DecoderConfig.from_folder(tmp_path)
