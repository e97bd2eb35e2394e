"""Decoders: configuration, weights, forward pass, KV cache, and the default model."""

from msjax.errors import require_extra

require_extra("local", "flax", "gguf", "jinja2", "safetensors", "tokenizers", "transformers")

from msjax.llm.flax.checkpoint import load
from msjax.llm.flax.config import DecoderConfig, Llama3Scaling
from msjax.llm.flax.decoder import Decoder
from msjax.llm.flax.kv_cache import KVCache, empty_cache

__all__ = [
    "Decoder",
    "DecoderConfig",
    "KVCache",
    "Llama3Scaling",
    "empty_cache",
    "load",
]
