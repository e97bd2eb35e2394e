"""The same shapes, rows and contexts with transformers and torch, on torch's own device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks.accelerator.measurement import Clock, Measurement, seconds
from benchmarks.accelerator.shapes import SHAPES, each_setting, shrunk

NEW_TOKENS = 32

measurement = partial(Measurement, "peer")


def measure(clock: Clock, small: bool) -> Iterator[Measurement]:
    """Every model in turn; settings are skipped, and said to be, when their time is spent."""
    if find_spec("torch") is None:
        yield measurement("transformers + torch", says="not measured: torch is not installed")
        return
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not small:
        yield measurement(
            "transformers + torch", says="not measured: the torch that is installed has no device"
        )
        return
    for name, share in zip(SHAPES, clock.shares(len(SHAPES)), strict=True):
        yield from _model(name, share, small, device)


def _model(name: str, clock: Clock, small: bool, device: str) -> Iterator[Measurement]:
    import torch
    import transformers

    entries = shrunk(SHAPES[name]) if small else SHAPES[name]
    config = transformers.AutoConfig.for_model(**entries)
    needed = 2 * sum(_parameters(config))
    if device == "cuda" and needed > torch.cuda.mem_get_info()[0]:
        yield measurement(name, says=f"not loaded: {needed / 1e9:.1f} GB are not free")
        return
    with torch.device(device):
        model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.eval().generation_config.eos_token_id = None

    def timed(setting: str, rows: int, context: int) -> Measurement:
        try:
            step = _step(model, rows, context, 4 if small else NEW_TOKENS, device)
        except torch.OutOfMemoryError:
            return measurement(setting, says="not measured: torch has not enough memory")
        rate = rows / step
        values = {"decode_tokens_per_second": rate, "step_seconds": step, "device": device}
        return measurement(setting, values)

    yield from each_setting("peer", name, clock, small, timed)
    del model
    if device == "cuda":
        torch.cuda.empty_cache()


def _parameters(config: Any) -> list[int]:
    import torch
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    return [parameter.numel() for parameter in model.parameters()]


def _step(model: Any, rows: int, context: int, new: int, device: str) -> float:
    """Seconds of a step: of `new` steps after the first, which computes the prompt."""
    import torch

    tokens = torch.zeros((rows, context - new), dtype=torch.long, device=device)

    def generate(number: int) -> None:
        with torch.inference_mode():
            model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=number,
                min_new_tokens=number,
                do_sample=False,
                pad_token_id=0,
            )
        if device == "cuda":
            torch.cuda.synchronize()

    generate(1)
    first = seconds(lambda: generate(1), 3)
    return max(seconds(lambda: generate(new), 3) - first, 1e-9) / (new - 1)
