"""GGUF files: a whole model in one file, its numbers quantised block by block."""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from msjax._io import reading, write_text
from msjax.errors import InputError

if TYPE_CHECKING:
    import transformers

__all__ = ["GGUFModel", "is_gguf", "read_gguf", "write_folder"]

BLOCK = 2**24  # values read at once
_FAMILIES = ("llama", "qwen2", "qwen3")
_REMEDY = "fetch the file again (`msjax weights` lists models it can obtain)"
_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_OF_A_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_FREQUENCIES = "rope_freqs.weight"
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens
# By what a file calls its pre-tokenizer: how many digits make one piece; None is GPT-2's own split.
_DIGITS = {
    "gpt-2": None,
    "smollm": 1,
    "qwen2": 1,
    "llama-bpe": 3,
    "llama3": 3,
    "llama-v3": 3,
}


class _Listed(NamedTuple):
    """A tensor as the header lists it, the shortest dimension of its rows first."""

    name: str
    dimensions: tuple[int, ...]
    kind: int
    offset: int


class _Stored(NamedTuple):
    """Where a tensor lies in its file, and how."""

    kind: Any  # of gguf.GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    n_bytes: int
    heads: int | None  # whose rows llama.cpp has interleaved


class GGUFModel:
    """What a GGUF file says of a model, and its tensors under the names of a Hugging Face folder.

    Args:
        path: of the file.

    Attributes:
        path: as given.
        config: entries as ``config.json`` has them, for `DecoderConfig.from_dict`.

    Raises:
        InputError: a file that cannot be read or is damaged, a family that is not implemented, or
            a tensor that is not known or of a kind that cannot be read; each named.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise InputError(
                f"{path}: no such file; run `msjax weights {path.stem}` if that is a model it can "
                "obtain, or name another GGUF file or model folder"
            )
        with reading(path, f"no readable GGUF file; {_REMEDY}"):
            self._read()

    def _read(self) -> None:
        path = self.path
        self._fields, tensors = _read_header(path)
        self.family = self._fields.get("general.architecture")
        if self.family not in _FAMILIES:
            raise InputError(
                f"{path}: general.architecture {self.family!r} is not implemented; it must be one "
                f"of {', '.join(_FAMILIES)}"
            )
        self._stored = {self._name(one.name): self._described(one) for one in tensors}
        if (end := max(one.offset + one.n_bytes for one in self._stored.values())) > (
            size := path.stat().st_size
        ):
            raise InputError(f"{path}: has {size} of {end} bytes, so it is cut short; {_REMEDY}")
        self.config = self._config()

    # Tensors

    def names(self) -> set[str]:
        """Of all tensors that are weights."""
        return set(self._stored) - {_FREQUENCIES}

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor."""
        return self._stored[name].shape

    def read(self, name: str, out: Shaped[np.ndarray, "..."]) -> None:
        """Fills an array with a tensor, dequantised and converted to the array's dtype."""
        from gguf import dequantize

        tensor = self._stored[name]
        # what is quantised comes in blocks along a row, so a bias of several heads is no such thing
        rows = tensor.shape[0] if len(tensor.shape) > 1 or tensor.heads is not None else 1
        # mapped anew for each tensor, so that what was read of it is let go of
        held = np.memmap(
            self.path,
            np.uint8,
            mode="r",
            offset=tensor.offset,
            shape=(rows, tensor.n_bytes // rows),
        )
        order = np.arange(rows) if tensor.heads is None else _interleaved(rows, tensor.heads)
        filled = out.reshape(rows, -1)
        step = max(1, BLOCK // filled.shape[1])
        for start in range(0, rows, step):
            block = np.ascontiguousarray(held[order[start : start + step]])
            filled[start : start + step] = dequantize(block, tensor.kind)

    def _name(self, stored: str) -> str:
        """A tensor's name in a Hugging Face folder."""
        if stored in _WHOLE or stored == _FREQUENCIES:
            return _WHOLE.get(stored, stored)
        match stored.split("."):
            case ["blk", layer, block, ("weight" | "bias") as kind] if block in _OF_A_LAYER:
                return f"model.layers.{layer}.{_OF_A_LAYER[block]}.{kind}"
        raise InputError(
            f"{self.path}: tensor {stored} is not implemented for {self.family}; use a model "
            "without it"
        )

    def _described(self, tensor: _Listed) -> _Stored:
        from gguf import GGMLQuantizationType, dequantize
        from gguf.constants import GGML_QUANT_SIZES

        try:
            kind = GGMLQuantizationType(tensor.kind)
            values, n_bytes = GGML_QUANT_SIZES[kind]
            dequantize(np.zeros((1, n_bytes), np.uint8), kind)
        except (NotImplementedError, ValueError) as error:
            raise InputError(
                f"{self.path}: tensor {tensor.name} is of a kind that cannot be read ({error}); "
                "use a file of another quantisation, such as Q4_K_M or Q8_0"
            ) from error
        shape = tuple(reversed(tensor.dimensions))
        if not shape or 0 in shape or shape[-1] % values:
            raise InputError(
                f"{self.path}: tensor {tensor.name} has shape {shape}, whose rows are no blocks of "
                f"{values} numbers; {_REMEDY}"
            )
        heads = None
        if self.family == "llama" and tensor.name.split(".")[2:3] in (["attn_q"], ["attn_k"]):
            heads = self._whole("attention.head_count")
            if ".attn_k." in tensor.name:
                heads = self._whole("attention.head_count_kv", heads)
            if shape[0] % (2 * heads):
                raise InputError(
                    f"{self.path}: tensor {tensor.name} has {shape[0]} rows, which {heads} heads "
                    f"do not divide; {_REMEDY}"
                )
        return _Stored(kind, shape, tensor.offset, math.prod(shape) // values * n_bytes, heads)

    # Configuration

    def _field(self, name: str, default: Any = None) -> Any:
        """A field of the family."""
        return self._fields.get(f"{self.family}.{name}", default)

    def _whole(self, name: str, default: Any = None) -> int:
        value = self._field(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(
                f"{self.path}: {self.family}.{name} is {value!r}; it must be a positive whole "
                f"number; {_REMEDY}"
            )
        return value

    def _config(self) -> dict[str, Any]:
        self._refuse_unimplemented()
        heads, hidden = self._whole("attention.head_count"), self._whole("embedding_length")
        embedding = self._stored.get(_WHOLE["token_embd.weight"])
        if embedding is None:
            raise InputError(f"{self.path}: has no tensor token_embd.weight; {_REMEDY}")
        layer = "model.layers.0"
        factors = None
        if _FREQUENCIES in self._stored:
            held = np.empty(self.shape(_FREQUENCIES), np.float32)
            self.read(_FREQUENCIES, held)
            factors = [float(factor) for factor in held]
        return {
            "architectures": [f"{str(self.family).capitalize()}ForCausalLM"],
            "model_type": self.family,
            "vocab_size": embedding.shape[0],
            "hidden_size": hidden,
            "intermediate_size": self._whole("feed_forward_length"),
            "num_hidden_layers": self._whole("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._whole("attention.head_count_kv", heads),
            "head_dim": self._whole("attention.key_length", hidden // heads),
            "hidden_act": "silu",
            "max_position_embeddings": self._whole("context_length"),
            "rms_norm_eps": _decimal(self._field("attention.layer_norm_rms_epsilon", 1e-6)),
            "rope_theta": _decimal(self._field("rope.freq_base", 10000.0)),
            "rope_factors": factors,
            "attention_bias": f"{layer}.self_attn.q_proj.bias" in self._stored,
            "mlp_bias": f"{layer}.mlp.gate_proj.bias" in self._stored,
            "tie_word_embeddings": _WHOLE["output.weight"] not in self._stored,
            "bos_token_id": self._fields.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self._ends(),
            "torch_dtype": "float32",
        }

    def _refuse_unimplemented(self) -> None:
        scaling = self._field("rope.scaling.type", "none")
        if scaling != "none":
            raise InputError(
                f"{self.path}: rope.scaling.type {scaling!r} is not implemented; it must be none"
            )
        for name in ("attention.sliding_window", "expert_count"):
            if self._field(name):
                raise InputError(
                    f"{self.path}: {self.family}.{name} {self._field(name)} is not implemented; "
                    "use a model without it"
                )
        head_dim = self._field("attention.key_length")
        for name in ("rope.dimension_count", "attention.value_length"):
            width, asked = self._field(name), head_dim
            if asked is None:
                asked = self._whole("embedding_length") // self._whole("attention.head_count")
            if width not in (None, asked):
                raise InputError(
                    f"{self.path}: {self.family}.{name} {width} differs from the {asked} features "
                    "of a head, which is not implemented"
                )

    def _ends(self) -> list[int]:
        """Tokens that end an answer: those that the file names, and those known for it."""
        named = (self._fields.get(f"tokenizer.ggml.{one}_token_id") for one in ("eos", "eot"))
        tokens, kinds = self._tokens()
        known = (
            number
            for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == _CONTROL and token in _ENDS
        )
        return list(dict.fromkeys(number for number in (*named, *known) if number is not None))

    # Tokenizer

    def _tokens(self) -> tuple[Sequence[str], Sequence[int]]:
        tokens = self._fields.get("tokenizer.ggml.tokens")
        if not tokens:
            raise InputError(f"{self.path}: has no tokenizer.ggml.tokens; use a whole model's file")
        kinds = self._fields.get("tokenizer.ggml.token_type") or [1] * len(tokens)
        if len(kinds) != len(tokens):
            raise InputError(
                f"{self.path}: has {len(tokens)} tokens and {len(kinds)} kinds of them; {_REMEDY}"
            )
        return tokens, kinds

    def tokenizer(self) -> transformers.PreTrainedTokenizerBase:
        """The tokenizer of the file, with its chat template.

        Raises:
            InputError: one of a kind that is not implemented, or without merges.
        """
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
        from tokenizers import pre_tokenizers as split
        from transformers import PreTrainedTokenizerFast

        model, pre = (self._fields.get(f"tokenizer.ggml.{one}") for one in ("model", "pre"))
        if model != "gpt2" or pre not in _DIGITS:
            raise InputError(
                f"{self.path}: its tokenizer {model!r} with pre-tokenizer {pre!r} is not "
                f"implemented; it must be 'gpt2' with one of {', '.join(_DIGITS)}; a Hugging Face "
                "folder of the model brings its own"
            )
        tokens, kinds = self._tokens()
        merges = self._fields.get("tokenizer.ggml.merges")
        if not merges:
            raise InputError(f"{self.path}: has no tokenizer.ggml.merges; {_REMEDY}")
        bpe = models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ", 1)) for merge in merges],
            ignore_merges=_DIGITS[pre] == 3,
        )
        tokenizer = Tokenizer(bpe)
        if pre == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        if pre == "smollm":
            pieces = [split.Digits(individual_digits=True), split.ByteLevel(add_prefix_space=False)]
        elif _DIGITS[pre] is None:
            pieces = [split.ByteLevel(add_prefix_space=False)]
        else:
            pieces = [
                split.Split(Regex(_words(_DIGITS[pre])), behavior="isolated"),
                split.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        tokenizer.pre_tokenizer = split.Sequence(pieces)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_tokens(
            [
                AddedToken(token, normalized=False, special=kind == _CONTROL)
                for token, kind in zip(tokens, kinds, strict=True)
                if kind in (_CONTROL, _USER_DEFINED)
            ]
        )
        named = {
            name: self._fields.get(f"tokenizer.ggml.{field}_token_id")
            for name, field in (
                ("bos_token", "bos"),
                ("eos_token", "eos"),
                ("pad_token", "padding"),
                ("unk_token", "unknown"),
            )
        }
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            chat_template=self._fields.get("tokenizer.chat_template"),
            clean_up_tokenization_spaces=False,
            model_max_length=self._whole("context_length"),
            **{name: tokens[number] for name, number in named.items() if number is not None},
        )


# By the number that a file gives to a type of field.
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def _read_header(path: Path) -> tuple[dict[str, Any], list[_Listed]]:
    """Fields and tensors of a file; `gguf.GGUFReader` takes half a minute for a large vocabulary.

    Reference: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = 0

        def number(form: str) -> Any:
            nonlocal position
            (value,) = struct.unpack_from("<" + form, data, position)
            position += struct.calcsize("<" + form)
            return value

        def text() -> str:
            nonlocal position
            end = number("Q") + position
            if end > len(data):
                raise ValueError("a text goes beyond its end")
            position, start = end, position
            return data[start:end].decode()

        def value(kind: int) -> Any:
            if kind == _STRING:
                return text()
            if kind == _ARRAY:
                inner, count = number("I"), number("Q")
                return [value(inner) for _ in range(count)]
            return number(_NUMBERS[kind])

        if data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        position = 4
        if (version := number("I")) not in (2, 3):
            raise ValueError(f"version {version} is not 2 or 3")
        n_tensors, n_fields = number("Q"), number("Q")
        fields = {}
        for _ in range(n_fields):
            name = text()
            fields[name] = value(number("I"))
        listed = []
        for _ in range(n_tensors):
            name = text()
            dimensions = tuple(number("Q") for _ in range(number("I")))
            listed.append(_Listed(name, dimensions, number("I"), number("Q")))
        alignment = fields.get("general.alignment", 32)
        start = -(-position // alignment) * alignment
    if not listed:
        raise ValueError("it holds no tensor")
    return fields, [one._replace(offset=start + one.offset) for one in listed]


def is_gguf(path: Path) -> bool:
    """Whether a path names a GGUF file, by its suffix."""
    return path.suffix.lower() == ".gguf"


def read_gguf(path: Path) -> GGUFModel:
    """The model of a file; the last one read is remembered as long as the file stays as it is.

    Raises:
        InputError: see `GGUFModel`.
    """
    stat = path.stat() if path.is_file() else None
    return _read_gguf(path, stat and (stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=1)
def _read_gguf(path: Path, _: tuple[int, int] | None) -> GGUFModel:
    return GGUFModel(path)


def write_folder(model: GGUFModel, folder: Path) -> None:
    """Writes configuration and tokenizer as a Hugging Face folder has them, and no weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.json", json.dumps(model.config, indent=2) + "\n")
    model.tokenizer().save_pretrained(folder)


def _interleaved(rows: int, heads: int) -> Int[np.ndarray, " rows"]:
    """The stored row of each row: llama.cpp turns neighbours (2i, 2i + 1), we (i, i + half)."""
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def _decimal(value: Any) -> Any:
    """The shortest decimal of a float32, so 1e-05 and not 9.99999974e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _words(digits: int | None) -> str:
    """How text is split before pairs of pieces are merged."""
    number = r"\p{N}" if digits == 1 else rf"\p{{N}}{{1,{digits}}}"
    return "|".join(
        [
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",  # endings of English
            r"[^\r\n\p{L}\p{N}]?\p{L}+",  # a word, with what stands before it
            number,
            r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # signs
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ]
    )
