"""Shapes of models that many know, and settings that both decoders are measured in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.accelerator.measurement import Clock, Measurement

ROWS = (1, 32, 256)
CONTEXTS = (512, 4096)

SHAPES: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": {
        "model_type": "llama",
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1_536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8_192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
    },
    "Qwen2.5-1.5B": {
        "model_type": "qwen2",
        "vocab_size": 151_936,
        "hidden_size": 1_536,
        "intermediate_size": 8_960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
    },
    "Llama-3.1-8B": {
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 4_096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": False,
    },
}
"""Entries of config.json."""

_SMALLER = {
    "vocab_size": 1_024,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def shrunk(entries: dict[str, Any]) -> dict[str, Any]:
    """The same family and constants with two thin layers."""
    return {**entries, **_SMALLER}


def each_setting(
    part: str,
    model: str,
    clock: Clock,
    small: bool,
    timed: Callable[[str, int, int], Measurement],
) -> Iterator[Measurement]:
    """What `timed` says of every setting, by its name, rows and context, while there is time.

    Contexts from short to long, in each from few rows to many and one row last. A setting is left
    out, and said to be, where less time is left than the slowest one took. Both decoders give
    theirs the same names.
    """
    contexts, numbers = ((64,), (1, 4)) if small else (CONTEXTS, ROWS)
    slowest = 0.0
    for context in contexts:
        for rows in sorted(numbers, key=lambda rows: (rows == 1, rows)):
            of = f"{rows} row{'s' * (rows > 1)}, context {context}"
            setting, before = f"{model}{' shrunk' if small else ''}, {of}", clock.left
            if before < slowest:
                yield Measurement(part, setting, says="not measured: its time was spent")
                continue
            yield timed(setting, rows, context)
            slowest = max(slowest, before - clock.left)
