"""One engine in a process of its own, which answers batches of prompts and says how long it took.

`python engines.py NAME MODEL` reads a line of JSON for each batch from standard input, {"prompts",
"new_tokens"}, and writes a line with seconds and the peak memory of the process so far. It is a
file by itself, because an engine may live in an environment in which msjax is not installed.
Answers are greedy and do not end before `new_tokens`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CORES = len(os.sched_getaffinity(0))
CONTEXT = 512
"""Tokens of prompt and answer together, at most."""
MOST_ROWS = 32


class Engine(ABC):
    """An engine with a model in memory.

    Attributes:
        matmul_weights: how many weights a token is multiplied with, where that is known.
    """

    matmul_weights: int | None = None

    @abstractmethod
    def __init__(self, model: Path): ...

    @abstractmethod
    def answer(self, prompts: Sequence[str], new_tokens: int) -> int:
        """Answers all prompts together; the number of tokens generated."""


class Msjax(Engine):
    """`FlaxEngine`, weights in float32."""

    def __init__(self, model: Path):
        from dataclasses import replace

        import jax
        from flax import nnx

        from msjax.llm.flax import checkpoint
        from msjax.llm.flax.chat import load_tokenizer

        self.decoder = checkpoint.load(model)
        sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(self.decoder)) if leaf.ndim == 2]
        looked_up = self.decoder.embedding[...].size if self.decoder.head is not None else 0
        self.matmul_weights = sum(sizes) - looked_up
        self.decoder.config = replace(self.decoder.config, eos_token_ids=())
        self.tokenizer = load_tokenizer(model)

    def answer(self, prompts: Sequence[str], new_tokens: int) -> int:
        import jax

        from msjax.data.messages import asked
        from msjax.llm.engine import ask
        from msjax.llm.flax.engine import FlaxEngine

        engine = FlaxEngine(
            self.decoder,
            self.tokenizer,
            name="msjax",
            batch_size=len(prompts),
            max_new_tokens=new_tokens,
        )
        keys = list(jax.random.split(jax.random.key(0), len(prompts)))
        done = ask(engine, [asked(prompt) for prompt in prompts], keys)
        return sum(answer.usage.completion or 0 for answer in done)


class Torch(Engine):
    """`transformers` + torch `generate`, weights in float32."""

    def __init__(self, model: Path):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(CORES)
        where, kind = str(model), {}
        if model.is_file():
            where, kind = str(model.parent), {"gguf_file": model.name}
        self.model: Any = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **kind)
        self.model.generation_config.eos_token_id = None
        self.tokenizer: Any = AutoTokenizer.from_pretrained(where, padding_side="left", **kind)

    def answer(self, prompts: Sequence[str], new_tokens: int) -> int:
        inputs = self.tokenizer.apply_chat_template(
            [_chat(prompt) for prompt in prompts],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        done = self.model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
        return len(prompts) * (done.shape[1] - inputs["input_ids"].shape[1])


class LlamaCpp(Engine):
    """llama.cpp through `xllamacpp`, weights as the GGUF file has them."""

    def __init__(self, model: Path):
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(model)
        settings.n_parallel = MOST_ROWS
        settings.n_ctx = MOST_ROWS * CONTEXT
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = CORES
        self.server = xllamacpp.Server(settings)

    def answer(self, prompts: Sequence[str], new_tokens: int) -> int:
        def one(prompt: str) -> int:
            request = {
                "messages": _chat(prompt),
                "max_tokens": new_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "cache_prompt": False,
            }
            reply: Any = self.server.handle_chat_completions(request)
            return int(reply["usage"]["completion_tokens"])

        with ThreadPoolExecutor(len(prompts)) as pool:
            return sum(pool.map(one, prompts))


class Vllm(Engine):
    """vLLM on a CPU, weights in bfloat16; a folder, since it reads no GGUF file there."""

    def __init__(self, model: Path):
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # so that its memory is that of this process
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "HF_HUB_OFFLINE": "1",
        }
        from vllm import LLM

        self.model = LLM(
            str(model), dtype="bfloat16", max_model_len=CONTEXT, max_num_seqs=MOST_ROWS
        )

    def answer(self, prompts: Sequence[str], new_tokens: int) -> int:
        from vllm import SamplingParams

        how = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True)
        done = self.model.chat([_chat(prompt) for prompt in prompts], how, use_tqdm=False)
        return sum(len(answer.outputs[0].token_ids) for answer in done)


ENGINES: dict[str, type[Engine]] = {
    "msjax": Msjax,
    "torch": Torch,
    "llama.cpp": LlamaCpp,
    "vllm": Vllm,
}


def _chat(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _peak_memory() -> int:
    """Bytes that this process has held at most."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main() -> None:
    """Answers until standard input ends."""
    name, model = sys.argv[1:]
    # What libraries print goes to standard error, so that replies are alone.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = ENGINES[name](Path(model))
    print(json.dumps({"matmul_weights": engine.matmul_weights}), file=replies, flush=True)
    for line in sys.stdin:
        batch = json.loads(line)
        start = time.perf_counter()
        tokens = engine.answer(batch["prompts"], batch["new_tokens"])
        seconds = time.perf_counter() - start
        if tokens != len(batch["prompts"]) * batch["new_tokens"]:
            raise SystemExit(f"{name} generated {tokens} tokens; every answer should be whole")
        reply = {"seconds": seconds, "memory": _peak_memory()}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
