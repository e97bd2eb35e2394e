"""Tokens per second of `FlaxEngine` and of other engines on a CPU, and their share of the roofline.

Every engine is a process of its own (`benchmarks/engines.py`), all answer the same prompts greedily
with as many threads as the process has cores and the same number of new tokens (end tokens do not
end). They run in turn, and every prompt is new, so that no answer is read from a cache. A batch
with one new token tells the time to read the prompts; what a longer one takes more is decoding.

    python -m benchmarks.decode --engines msjax torch --batch-sizes 8 32 --json decode.json

vLLM wants an environment of its own, and the model as a folder:

    python -m benchmarks.decode --engines msjax vllm --vllm-python vllm/bin/python --folder model/
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from benchmarks.accelerator.measurement import seconds
from benchmarks.engines import MOST_ROWS
from msjax.cli.output import write_json
from msjax.errors import InputError
from msjax.llm.flax.weights import ensure, find_model

ENGINES = Path(__file__).with_name("engines.py")
Name = Literal["msjax", "torch", "llama.cpp", "vllm"]
WAYS = (
    "sells {a} boxes of apples in the morning and {b} in the afternoon. Each box holds {c} apples",
    "drives {a} km to work on {b} days of the week and {c} km to her sister on Sundays",
    "reads {a} pages a day for {b} days, then {c} pages a day until the end of the month",
    "plants {a} rows of {b} trees, of which {c} do not grow, and plants these again next year",
)


@dataclass(frozen=True)
class Decode:
    """Compare our decoding speed with that of other engines.

    python -m benchmarks.decode --engines msjax torch --batch-sizes 8 32 --json decode.json
    """

    model: Path | None = None
    """GGUF file, model folder, or a model of `msjax weights`; the default one if not given"""
    engines: tuple[Name, ...] = ("msjax", "torch")
    """which to run, in this order in every turn"""
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    """conversations decoded together"""
    new_tokens: int = 64
    """tokens per completion"""
    turns: int = 3
    """how often each engine answers each batch"""
    folder: Path | None = None
    """the same model as a Hugging Face folder, for vllm"""
    vllm_python: Path | None = None
    """the interpreter that has vllm"""
    json: Path | None = None
    """write the results here as well"""


@dataclass(frozen=True)
class Row:
    """One engine at one batch size: medians over the turns, and the turns of all.

    Attributes:
        decode: tokens generated per second after the first ones.
        prefill: prompts read per second.
        whole: tokens generated per second of all, prompts included.
        ratios: tokens per second of msjax as multiples of this engine's, turn by turn.
        of_roofline: `decode` as a share of the `roofline`, where the number of weights is known.
        memory: bytes that the process held at most so far.
    """

    engine: str
    rows: int
    decode: float
    prefill: float
    whole: float
    ratios: list[float]
    of_roofline: float | None
    memory: int


class Worker:
    """An engine's process."""

    def __init__(self, name: str, python: Path, model: Path):
        self.name = name
        self._process = subprocess.Popen(
            [str(python), str(ENGINES), name, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.matmul_weights: int | None = self._reply()["matmul_weights"]

    def answer(self, prompts: list[str], new_tokens: int) -> dict[str, Any]:
        """Seconds and memory."""
        assert self._process.stdin is not None
        request = {"prompts": prompts, "new_tokens": new_tokens}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise InputError(f"engine {self.name} ended; what it said is above")
        return json.loads(line)

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


def prompts(rows: int, seed: int) -> list[str]:
    """Word problems of about 100 tokens with numbers at random, as long for every seed.

    Other lengths would compile anew in the midst of what is timed.
    """
    draw = random.Random(seed)

    def story(name: str, way: int) -> str:
        a, b, c = (draw.randint(10, 99) for _ in range(3))
        return f"{name} {WAYS[way % len(WAYS)].format(a=a, b=b, c=c)}."

    return [
        f"{story('Ana', row)} {story('Ben', row + 1)} {story('Chloe', row + 2)} Whose number is "
        "the largest, counting all that is told, and by how much is it larger than the others? "
        "Reason step by step in plain English and give the final answer in the last line."
        for row in range(rows)
    ]


def compare(options: Decode, reached: dict[str, float]) -> list[Row]:
    """Times all engines on every batch size; `reached` is of `machine`."""
    model = find_model(options.model) if options.model else ensure()
    workers = [_start(name, options, model) for name in options.engines]
    results = []
    try:
        for rows in options.batch_sizes:
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in options.engines}
            memory = {}
            for turn in range(options.turns + 1):  # the first one compiles and warms up
                for worker in workers:
                    read = worker.answer(prompts(rows, 2 * turn), 1)
                    whole = worker.answer(prompts(rows, 2 * turn + 1), options.new_tokens)
                    memory[worker.name] = whole["memory"]
                    if turn:
                        taken[worker.name].append((read["seconds"], whole["seconds"]))
            ours = taken.get("msjax", [])
            for worker in workers:
                mine = taken[worker.name]
                speed = statistics.median(
                    rows * (options.new_tokens - 1) / (all_ - read) for read, all_ in mine
                )
                weights = worker.matmul_weights
                row = Row(
                    worker.name,
                    rows,
                    decode=speed,
                    prefill=statistics.median(rows / read for read, _ in mine),
                    whole=statistics.median(rows * options.new_tokens / all_ for _, all_ in mine),
                    ratios=[their[1] / our[1] for our, their in zip(ours, mine, strict=False)],
                    of_roofline=weights and speed / roofline(weights, rows, reached),
                    memory=memory[worker.name],
                )
                results.append(row)
    finally:
        for worker in workers:
            worker.end()
    return results


def _start(name: Name, options: Decode, model: Path) -> Worker:
    if name != "vllm":
        return Worker(name, Path(sys.executable), model)
    if options.vllm_python is None or options.folder is None:
        raise InputError("engines: vllm needs --vllm-python and --folder")
    return Worker(name, options.vllm_python, options.folder)


def machine() -> dict[str, float]:
    """What XLA reaches here: GB/s of a matrix read by one vector, GFLOP/s of a product, float32."""
    product = jax.jit(jnp.matmul)

    def taken(left: jax.Array, right: jax.Array) -> float:
        product(left, right).block_until_ready()
        return seconds(lambda: product(left, right).block_until_ready(), 9)

    matrix, square = jnp.ones((16384, 8192)), jnp.ones((3072, 3072))
    return {
        "gigabytes_per_second": matrix.nbytes / taken(matrix, jnp.ones((8192, 1))) / 1e9,
        "gigaflops": 2 * 3072**3 / taken(square, square) / 1e9,
    }


def roofline(weights: int, rows: int, reached: dict[str, float]) -> float:
    """Tokens per second at most: float32 weights are read once, and multiplied with every row."""
    seconds_reading = 4 * weights / (1e9 * reached["gigabytes_per_second"])
    seconds_multiplying = 2 * weights * rows / (1e9 * reached["gigaflops"])
    return rows / max(seconds_reading, seconds_multiplying)


def main() -> None:
    """Prints the table; exit status 2 for what cannot be compared."""
    try:
        run(tyro.cli(Decode))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(options: Decode) -> None:
    """Prints the table and writes JSON if asked to."""
    if min(options.batch_sizes) < 1 or max(options.batch_sizes) > MOST_ROWS:
        raise InputError(f"batch_sizes are {options.batch_sizes}; give 1 to {MOST_ROWS}")
    if options.turns < 1 or options.new_tokens < 2:
        raise InputError(
            f"turns is {options.turns} and new_tokens {options.new_tokens}; give at least 1 and 2"
        )
    reached = machine()
    rows, load = compare(options, reached), os.getloadavg()[0]
    print(
        f"tokens/s and prompts/s, medians of {options.turns} turns, load {load:.1f}; XLA reads "
        f"{reached['gigabytes_per_second']:.0f} GB/s, multiplies {reached['gigaflops']:.0f} GFLOP/s"
    )
    print("rows engine     decode  prefill    whole  msjax / it (range)  memory  of the roofline")
    for row in rows:
        ratio, share = "", "" if row.of_roofline is None else f"{row.of_roofline:.2f}"
        if row.ratios:
            low, middle, high = min(row.ratios), statistics.median(row.ratios), max(row.ratios)
            ratio = f"{middle:.2f} ({low:.2f}-{high:.2f})"
        print(
            f"{row.rows:4d} {row.engine:10} {row.decode:6.1f} {row.prefill:8.1f} {row.whole:8.1f}  "
            f"{ratio:>18}  {row.memory / 1e9:.1f} GB  {share}"
        )
    if options.json is not None:
        results = {"load": load, "machine": reached, "rows": [asdict(row) for row in rows]}
        write_json(options.json, results)


if __name__ == "__main__":
    main()
