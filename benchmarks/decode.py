"""Tokens per second of `FlaxEngine` against `transformers` + torch `generate`, side by side.

Both answer the same prompts greedily, in float32, with a KV cache, as many threads as the process
has cores and the same number of new tokens (end tokens are switched off). Each pair runs one
completion of ours, then one of torch; compilation and warm-up are excluded, prefill is included.

    python -m benchmarks.decode --batch-sizes 8 32 --json decode.json
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro

from msjax.data.messages import asked
from msjax.llm.engine import ask
from msjax.llm.flax import checkpoint
from msjax.llm.flax.chat import load_tokenizer
from msjax.llm.flax.engine import FlaxEngine
from msjax.llm.flax.gguf import is_gguf
from msjax.llm.flax.weights import ensure, find_model

QUESTIONS = (
    "Why is the sky blue?",
    "What is 17 + 25? Think step by step.",
    "Name three rivers of Europe and say where each of them ends.",
    "A train leaves at nine and travels 120 km in two hours. How fast does it go on average?",
)


@dataclass(frozen=True)
class Decode:
    """Compare our decoding speed with torch.

    python -m benchmarks.decode --batch-sizes 8 32 --json decode.json
    """

    model: Path | None = None
    """model folder, GGUF file, or a model of `msjax weights`; the default one if not given"""
    batch_sizes: tuple[int, ...] = (8, 32)
    """conversations decoded together"""
    new_tokens: int = 64
    """tokens per completion"""
    pairs: int = 5
    """timed pairs of runs per batch size"""
    json: Path | None = None
    """write the results here as well"""


@dataclass(frozen=True)
class Row:
    """Results at one batch size: tokens per second (median) and ours / torch per pair."""

    batch_size: int
    ours: float
    torch: float
    ratio: float
    ratios: list[float]


def compare(options: Decode) -> list[Row]:
    """Times both on every batch size."""
    model = find_model(options.model) if options.model else ensure()
    ours = _Ours(model, options.new_tokens)
    theirs = _Torch(model, options.new_tokens)
    rows = []
    for batch_size in options.batch_sizes:
        prompts = [QUESTIONS[i % len(QUESTIONS)] for i in range(batch_size)]
        for contender in (ours, theirs):
            contender.seconds(prompts)
        times = [(ours.seconds(prompts), theirs.seconds(prompts)) for _ in range(options.pairs)]
        tokens = batch_size * options.new_tokens
        ratios = [their / our for our, their in times]
        rows.append(
            Row(
                batch_size,
                ours=tokens / statistics.median(our for our, _ in times),
                torch=tokens / statistics.median(their for _, their in times),
                ratio=statistics.median(ratios),
                ratios=ratios,
            )
        )
    return rows


class _Ours:
    def __init__(self, model: Path, new_tokens: int):
        self.new_tokens = new_tokens
        self.decoder = checkpoint.load(model, "float32")
        self.decoder.config = replace(self.decoder.config, eos_token_ids=())
        self.tokenizer = load_tokenizer(model)

    def seconds(self, prompts: list[str]) -> float:
        engine = FlaxEngine(
            self.decoder,
            self.tokenizer,
            name="ours",
            batch_size=len(prompts),
            max_new_tokens=self.new_tokens,
        )
        keys = list(jax.random.split(jax.random.key(0), len(prompts)))
        start = time.perf_counter()
        done = ask(engine, [asked(prompt) for prompt in prompts], keys)
        elapsed = time.perf_counter() - start
        assert all(answer.usage.completion == self.new_tokens for answer in done)
        return elapsed


class _Torch:
    def __init__(self, model: Path, new_tokens: int):
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.new_tokens = new_tokens
        where = (model.parent, {"gguf_file": model.name}) if is_gguf(model) else (model, {})
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            str(where[0]), dtype=torch.float32, **where[1]
        )
        self.model.generation_config.eos_token_id = None
        self.tokenizer = load_tokenizer(model)
        self.tokenizer.padding_side = "left"

    def seconds(self, prompts: list[str]) -> float:
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        inputs: Any = self.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        start = time.perf_counter()
        done = self.model.generate(**inputs, max_new_tokens=self.new_tokens, do_sample=False)
        elapsed = time.perf_counter() - start
        assert done.shape[1] - inputs["input_ids"].shape[1] == self.new_tokens
        return elapsed


def main() -> None:
    """Prints the table and writes JSON if asked to."""
    options = tyro.cli(Decode)
    rows = compare(options)
    load = os.getloadavg()[0]
    print(f"{'batch':>5} {'ours':>9} {'torch':>9} {'ratio':>6}  tokens/s, load {load:.1f}")
    for row in rows:
        spread = f"{min(row.ratios):.2f}-{max(row.ratios):.2f}"
        print(f"{row.batch_size:5d} {row.ours:9.1f} {row.torch:9.1f} {row.ratio:6.2f}  ({spread})")
    if options.json is not None:
        from msjax.cli.output import write_json

        write_json(options.json, {"load": load, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
