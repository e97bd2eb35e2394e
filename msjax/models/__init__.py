"""Decoders: configuration, weights, forward pass, KV cache, and the default model."""

from msjax.models.cache import KVCache, empty_cache
from msjax.models.checkpoint import load
from msjax.models.config import DecoderConfig, Llama3Scaling
from msjax.models.decoder import Decoder

__all__ = [
    "Decoder",
    "DecoderConfig",
    "KVCache",
    "Llama3Scaling",
    "empty_cache",
    "load",
]
