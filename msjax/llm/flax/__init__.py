"""Decoders: configuration, weights, forward pass, KV cache, and the default model."""

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
