"""What a decoder is made of, read from a Hugging Face ``config.json``."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from msjax.errors import InputError

__all__ = ["DecoderConfig", "Llama3Scaling", "inverse_frequencies"]


_GREATEST = 1e300

# Per model_type, what transformers takes an entry to be where config.json is silent about it and
# Llama's default would be wrong.
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
}


@dataclass(frozen=True)
class Llama3Scaling:
    """Stretch of the rotary frequencies that Llama 3.1 introduced (rope_type ``llama3``).

    Attributes:
        factor: how many times the long wavelengths are stretched.
        low_freq_factor: wavelengths above ``original_max_position_embeddings / low_freq_factor``
            are stretched in full.
        high_freq_factor: wavelengths below ``original_max_position_embeddings /
            high_freq_factor`` are kept; those in between are interpolated.
        original_max_position_embeddings: context length of pre-training, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class DecoderConfig:
    """Shape and constants of a decoder of the Llama, Mistral, Qwen2 or Qwen3 family.

    The fields have the names of ``config.json``, but for those that a family implies:
    ``qkv_bias`` and ``out_bias`` say which projections of attention add a bias (Qwen2: only those
    of query, key and value), ``qk_norm`` whether each head of query and key is normed before it
    is rotated (Qwen3). ``eos_token_ids`` are the tokens that end a completion: those of
    ``generation_config.json`` where the folder has one, as `transformers` reads them, else those
    of ``config.json``, else the tokenizer's ``eos_token``; none if there is no such either.
    ``rope_factors`` divide the rotary frequencies pair by pair, as GGUF files store a stretch.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Llama3Scaling | None
    tie_word_embeddings: bool
    qkv_bias: bool
    out_bias: bool
    qk_norm: bool
    mlp_bias: bool
    eos_token_ids: tuple[int, ...]
    rope_factors: tuple[float, ...] | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> DecoderConfig:
        """Reads ``config.json`` (and ``generation_config.json``, for its end tokens).

        Raises:
            InputError: no readable ``config.json``, or a model this package does not implement.
        """
        entries = _read_json(folder / "config.json")
        generation = folder / "generation_config.json"
        if generation.is_file():
            eos = _read_json(generation).get("eos_token_id")
            entries = entries if eos is None else {**entries, "eos_token_id": eos}
        if entries.get("eos_token_id") in (None, []):
            entries = {**entries, "eos_token_id": _end_of_tokenizer(folder)}
        return cls.from_dict(entries)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> DecoderConfig:
        """Reads the entries of a ``config.json`` written by transformers 4 or 5.

        Raises:
            InputError: an entry is missing, has no sensible value, or asks for something this
                package does not implement (named in the message).
        """
        family = _family(entries)
        entries = {**_FAMILIES[family], **entries}
        _refuse_unimplemented(entries)
        rope = _rope_entries(entries)
        hidden = _positive(entries, "hidden_size")
        heads = _positive(entries, "num_attention_heads")
        kv_heads = _positive(entries, "num_key_value_heads", default=heads)
        if heads % kv_heads:
            raise InputError(
                f"num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}; "
                "correct config.json"
            )
        if not entries.get("head_dim") and hidden % heads:
            raise InputError(
                f"num_attention_heads {heads} does not divide hidden_size {hidden}; "
                "give head_dim in config.json"
            )
        head_dim = _positive(entries, "head_dim", default=hidden // heads)
        if head_dim % 2:
            raise InputError(f"head_dim {head_dim} is odd; rotary embedding turns pairs")
        # Mistral and Qwen2 leave the entry unread
        attention_bias = family in ("llama", "qwen3") and _flag(entries, "attention_bias")
        vocab_size = _positive(entries, "vocab_size")
        return cls(
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=_positive(entries, "intermediate_size"),
            num_hidden_layers=_positive(entries, "num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            max_position_embeddings=_positive(entries, "max_position_embeddings"),
            rms_norm_eps=_positive_real(entries, "rms_norm_eps", default=1e-6),
            rope_theta=_positive_real(rope, "rope_theta", default=10000.0),
            rope_scaling=_rope_scaling(rope),
            tie_word_embeddings=_flag(entries, "tie_word_embeddings"),
            qkv_bias=family == "qwen2" or attention_bias,
            out_bias=attention_bias,
            qk_norm=family == "qwen3",
            mlp_bias=family == "llama" and _flag(entries, "mlp_bias"),
            eos_token_ids=_token_ids(entries.get("eos_token_id"), vocab_size),
            rope_factors=_rope_factors(entries.get("rope_factors"), head_dim),
        )


def inverse_frequencies(config: DecoderConfig) -> Float[np.ndarray, " half_head_dim"]:
    """Angular frequencies of the rotary embedding, in radians per position, in float64.

    Pair i of a head turns by ``theta ** (-2 i / head_dim)`` per position; with llama3 scaling a
    wavelength w > original / low_freq_factor is divided by ``factor``, one below original /
    high_freq_factor is kept, and between them the two are mixed by ``(original / w - low) /
    (high - low)``.

    Reference:
        Su et al. 2021, RoFormer, section 3.2.2; Llama 3.1 model card (frequency scaling).
    """
    pairs = np.arange(0, config.head_dim, 2, dtype=np.float64)
    frequencies = config.rope_theta ** (-pairs / config.head_dim)
    if config.rope_factors is not None:
        frequencies = frequencies / np.array(config.rope_factors)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)
    return kept * frequencies + (1.0 - kept) * frequencies / scaling.factor


def _family(entries: Mapping[str, Any]) -> str:
    family = entries.get("model_type")
    if not isinstance(family, str) or family not in _FAMILIES:
        raise InputError(
            f"model_type {family!r} is not implemented; it must be one of {sorted(_FAMILIES)}"
        )
    return family


def _refuse_unimplemented(entries: Mapping[str, Any]) -> None:
    activation = entries.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise InputError(f"hidden_act {activation!r} is not implemented; it must be 'silu'")
    # the Qwen families turn the window on with an entry of its own and name its width regardless
    window = (
        "use_sliding_window" if entries["model_type"] in ("qwen2", "qwen3") else "sliding_window"
    )
    for field in (window, "quantization_config"):
        if entries.get(field):
            raise InputError(
                f"{field} {entries[field]!r} is not implemented; use a checkpoint whose "
                "config.json has null or false there"
            )
    layers = entries.get("layer_types") or []
    if not isinstance(layers, list) or any(layer != "full_attention" for layer in layers):
        raise InputError(
            f"layer_types {reprlib.repr(layers)} are not implemented; only full_attention is"
        )


def _rope_entries(entries: Mapping[str, Any]) -> dict[str, Any]:
    """One dictionary for `rope_parameters` (transformers 5) and rope_theta + rope_scaling (4)."""
    five, four = (_rope_entry(entries, name) for name in ("rope_parameters", "rope_scaling"))
    if five and four and _without_theta(five) != _without_theta(four):
        raise InputError(
            f"rope_parameters {five} and rope_scaling {four} differ; leave one of them in "
            "config.json, the one the model was trained with"
        )
    rope = five or four
    per_layer = sorted(name for name, value in rope.items() if isinstance(value, Mapping))
    if per_layer:
        raise InputError(
            f"rope_parameters for {per_layer} are not implemented; all layers must share them"
        )
    thetas = [x for x in (rope.get("rope_theta"), entries.get("rope_theta")) if x is not None]
    if len(thetas) == 2 and thetas[0] != thetas[1]:
        raise InputError(
            f"rope_theta is {thetas[0]!r} among the rope entries and {thetas[1]!r} beside them; "
            "leave one of them in config.json, the one the model was trained with"
        )
    if thetas:
        rope["rope_theta"] = thetas[0]
    partial = rope.get("partial_rotary_factor", entries.get("partial_rotary_factor"))
    if partial not in (None, 1.0):
        raise InputError(f"partial_rotary_factor {partial!r} is not implemented; it must be 1")
    return rope


def _rope_entry(entries: Mapping[str, Any], name: str) -> dict[str, Any]:
    entry = entries.get(name)
    if entry is None:
        return {}
    if not isinstance(entry, Mapping):
        raise InputError(f"{name} is {entry!r}; config.json must give an object or null there")
    if "type" in entry and entry.get("rope_type", entry["type"]) != entry["type"]:
        raise InputError(
            f"{name} has type {entry['type']!r} and rope_type {entry['rope_type']!r}; leave one of "
            "them in config.json"
        )
    return dict(entry)


def _without_theta(rope: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: x for name, x in rope.items() if name not in ("rope_theta", "type")}
    return {"rope_type": rope.get("type", "default"), **kept}


def _rope_scaling(rope: Mapping[str, Any]) -> Llama3Scaling | None:
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type == "default":
        return None
    if rope_type != "llama3":
        raise InputError(
            f"rope_type {rope_type!r} is not implemented; it must be 'default' or 'llama3'"
        )
    scaling = Llama3Scaling(
        factor=_positive_real(rope, "factor"),
        low_freq_factor=_positive_real(rope, "low_freq_factor"),
        high_freq_factor=_positive_real(rope, "high_freq_factor"),
        original_max_position_embeddings=_positive(rope, "original_max_position_embeddings"),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise InputError(
            f"high_freq_factor {scaling.high_freq_factor} must exceed low_freq_factor "
            f"{scaling.low_freq_factor}; correct the rope entries of config.json"
        )
    return scaling


def _rope_factors(value: Any, head_dim: int) -> tuple[float, ...] | None:
    if value is None:
        return None
    if len(value) != head_dim // 2 or not all(0 < factor < math.inf for factor in value):
        raise InputError(
            f"rope_factors {reprlib.repr(value)} do not stretch the {head_dim // 2} pairs of a "
            "head; give one positive number for each"
        )
    return tuple(value)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read {path} ({error.strerror}); give a model folder, or run `msjax weights` "
            "for a model it can obtain"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(entries, dict):
        raise InputError(f"{path} holds no JSON object; fetch the checkpoint again")
    return entries


def _positive(entries: Mapping[str, Any], field: str, default: int | None = None) -> int:
    value = entries.get(field)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{field} is {value!r}; config.json must give a positive whole number")
    return value


def _positive_real(entries: Mapping[str, Any], field: str, default: float | None = None) -> float:
    value = entries.get(field)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _GREATEST:
        raise InputError(
            f"{field} is {reprlib.repr(value)}; config.json must give a positive number"
        )
    return float(value)


def _flag(entries: Mapping[str, Any], field: str) -> bool:
    value = entries.get(field)
    if value not in (None, True, False):
        raise InputError(f"{field} is {value!r}; config.json must give true or false")
    return bool(value)


def _token_ids(value: Any, vocab_size: int) -> tuple[int, ...]:
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    if not all(type(token) is int and 0 <= token < vocab_size for token in ids):
        raise InputError(
            f"eos_token_id is {value!r}; it must be a token id below vocab_size {vocab_size}, or a "
            "list of them"
        )
    return tuple(ids)


def _end_of_tokenizer(folder: Path) -> int | None:
    """The id of the tokenizer's ``eos_token``, None if it has none."""
    described, tokens = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if not (described.is_file() and tokens.is_file()):
        return None
    eos = _read_json(described).get("eos_token")
    name = eos.get("content") if isinstance(eos, Mapping) else eos
    added = _read_json(tokens).get("added_tokens")
    known = [token for token in added if isinstance(token, Mapping)] if added else []
    ids = [token.get("id") for token in known if token.get("content") == name]
    return next((token for token in ids if isinstance(token, int)), None)
