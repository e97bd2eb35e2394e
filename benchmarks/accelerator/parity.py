"""Whether the device computes what a CPU does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from safetensors.numpy import load_file

from benchmarks.accelerator.measurement import Clock, Measurement
from msjax.data.messages import asked
from msjax.devices import memory
from msjax.llm.engine import ask
from msjax.llm.flax import Decoder, checkpoint, empty_cache
from msjax.llm.flax.chat import load_tokenizer
from msjax.llm.flax.decode import Sampling, decode, prefill
from msjax.llm.flax.engine import FlaxEngine
from msjax.llm.flax.sharding import device_mesh, shard_cache
from msjax.llm.flax.weights import DEFAULT, model_file
from msjax.simulation.functionals import longest_streak
from msjax.simulation.paths import simulate_counts, simulate_histogram, simulate_joint_counts
from msjax.theory.chain import TwoStateChain
from msjax.verify import CLAIMS
from msjax.verify.bench import gather, judge, outcome, select
from msjax.verify.claim import MIN_CHAINS, Laboratory
from msjax.verify.machine import check_decoder, check_simulator, devices

TINY = Path(__file__).parents[2] / "tests" / "fixtures"
ERROR = {"float32": 2e-4, "bfloat16": 0.1}
"""Largest difference from a stored logit; the logits have a standard deviation of .37 to .61."""
CORRELATION = {"float32": 1 - 1e-6, "bfloat16": 0.9999}

QUESTIONS = ("Why is the sky blue?", "What is 17 + 25? Think step by step.")
ANSWERS = (
    "The answer to this question lies in the intricate dance of light and color. The sky appears "
    "blue because of a phenomenon known",
    "17 + 25 = 32 + 25 = 57\n\nThe answer is:",
)
"""Of SmolLM2 on a CPU, greedy, 24 tokens, float32."""

measurement = partial(Measurement, "parity")


def measure(clock: Clock, small: bool) -> Iterator[Measurement]:
    """All checks, the quick ones first; on a CPU few claims of the theory are checked."""
    yield _devices()
    # On many devices a product of float32 is rounded to fewer digits unless one asks for all.
    with jax.default_matmul_precision("highest"):
        for folder in sorted(found.parent for found in TINY.glob("tiny_*/*/config.json")):
            for dtype in ERROR:
                yield _logits(folder, dtype)
        yield from _sharded()
    yield from _paths()
    for found in (check_simulator(), check_decoder()):
        yield measurement(f"msjax doctor: {found.name}", passed=found.passed, says=found.says)
    yield _greedy()
    yield _claims(clock, small or jax.default_backend() == "cpu")


def _devices() -> Measurement:
    found, doubts = devices()
    first = jax.devices()[0]
    values = {
        "platform": first.platform,
        "kind": first.device_kind,
        "devices": len(found),
        "memory_bytes": memory(first),
    }
    return measurement("devices", values, says="; ".join(doubts))


def _logits(folder: Path, dtype: str) -> Measurement:
    golden = load_file(folder / "golden.safetensors")
    ours = _forward(checkpoint.load(folder, dtype), golden["tokens"])
    error = float(np.abs(ours - golden["logits"]).max())
    alike = float(np.corrcoef(ours.ravel(), golden["logits"].ravel())[0, 1])
    return measurement(
        f"logits of {folder.parent.name}/{folder.name}, {dtype}",
        {"largest_error": error, "allowed": ERROR[dtype], "correlation": alike},
        passed=error <= ERROR[dtype] and alike >= CORRELATION[dtype],
    )


@nnx.jit
def _states(decoder: Decoder, tokens: jax.Array) -> jax.Array:
    rows, time = tokens.shape
    cache = empty_cache(decoder.config, rows, time, decoder.dtype)
    hidden, _ = decoder(tokens, jnp.full((rows,), time, jnp.int32), cache)
    return decoder.logits(hidden.reshape(hidden.shape[0], -1)).T.reshape(rows, time, -1)


def _forward(decoder: Decoder, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(_states(decoder, jnp.asarray(tokens, jnp.int32)))


def _sharded() -> Iterator[Measurement]:
    """Logits and greedy tokens of a decoder over (data x model) meshes, and on one device."""
    number = len(jax.devices())
    if number < 2:
        yield measurement("sharded decoder", says="not checked: there is one device")
        return
    folder = TINY / "tiny_qwen3" / "untied"
    tokens = load_file(folder / "golden.safetensors")["tokens"]
    alone = _generated(folder, tokens, None)
    for shape in ((1, 2), (2, 1), *([(2, 2)] if number >= 4 else [])):
        logits, drawn = _generated(folder, tokens, device_mesh(*shape))
        error = float(np.abs(logits - alone[0]).max())
        same = bool(np.array_equal(drawn, alone[1]))
        yield measurement(
            f"decoder over {shape[0]} x {shape[1]} devices (data x model), beside one",
            {"largest_error": error, "allowed": ERROR["float32"], "same_greedy_tokens": same},
            passed=error <= ERROR["float32"] and same,
        )


def _generated(
    folder: Path, tokens: np.ndarray, mesh: Mesh | None
) -> tuple[np.ndarray, np.ndarray]:
    decoder = checkpoint.load(folder, "float32", mesh)
    rows, time = tokens.shape
    graphdef, weights = nnx.split(decoder)
    cache = empty_cache(decoder.config, rows, time + 16, decoder.dtype)
    if mesh is not None:
        cache = shard_cache(cache, mesh)
    fresh = jnp.full((rows,), time - 1, jnp.int32)
    cache = prefill(graphdef, weights, jnp.asarray(tokens[:, :-1], jnp.int32), fresh, cache)
    drawn = decode(
        graphdef,
        weights,
        jnp.asarray(tokens[:, -1], jnp.int32),
        jnp.full(rows, 16, jnp.int32),
        jax.random.split(jax.random.key(0), rows),
        cache,
        sampling=Sampling(temperature=0.0),
        end_tokens=(),
        max_new=16,
    )
    return _forward(decoder, tokens), np.asarray(drawn.tokens)


def _paths() -> Iterator[Measurement]:
    """Counts of simulated paths, which are integers that no device may change."""
    n, rounds = 300_001, 8
    alike = TwoStateChain(jnp.float32(0.3), jnp.float32(0.3), jnp.float32(0.1))
    spread = jnp.linspace(0.0, 1.0, n, dtype=jnp.float32)
    key = jax.random.key(7)
    streaks = partial(simulate_histogram, functional=longest_streak(rounds))
    for name, simulated, chain in (
        ("counts", simulate_counts, alike),
        ("counts, a chain per path", simulate_counts, TwoStateChain(spread, spread, spread)),
        ("joint counts", simulate_joint_counts, alike),
        ("longest streaks", streaks, alike),
    ):
        host = np.asarray(simulated(key, chain, n, rounds, devices=jax.devices("cpu")[:1]))
        here = np.asarray(simulated(key, chain, n, rounds, devices=jax.devices()))
        differ = int((host != here).sum())
        yield measurement(
            f"simulated {name}: all devices beside one CPU",
            {"paths": n, "entries": host.size, "entries_that_differ": differ},
            passed=differ == 0,
        )


def _greedy() -> Measurement:
    """What a real model answers, beside what it answered on a CPU."""
    name, path = f"greedy answers of {DEFAULT}, float32", model_file()
    if not path.is_file():
        return measurement(name, says="not checked: `msjax weights` obtains the model")
    with jax.default_matmul_precision("highest"):
        engine = FlaxEngine(
            checkpoint.load(path, "float32"),
            load_tokenizer(path),
            name=DEFAULT,
            batch_size=len(QUESTIONS),
            max_new_tokens=24,
        )
        keys = list(jax.random.split(jax.random.key(0), len(QUESTIONS)))
        said = tuple(one.text for one in ask(engine, [asked(text) for text in QUESTIONS], keys))
    return measurement(
        name,
        {"answers": list(said)},
        passed=said == ANSWERS,
        says="" if said == ANSWERS else f"on a CPU they are {ANSWERS}",
    )


def _claims(clock: Clock, small: bool) -> Measurement:
    """The theory against simulation on the device: as many claims as there is time for."""
    claims = select(CLAIMS, "A1" if small else None)
    paths = MIN_CHAINS if small else 1_000_000
    found, longest = [], 0.0
    findings = gather(claims, Laboratory(jax.random.key(0), paths))
    while clock.left > longest:
        before = clock.left
        one = next(findings, None)
        if one is None:
            break
        found.append(one)
        longest = max(longest, before - clock.left)
    if not found:
        return measurement("claims of the theory", says="not checked: no time was left")
    results = judge(found)
    wrong = [result.id for result in results if not result.ok]
    return measurement(
        "claims of the theory" + (", section A1 alone" if small else ""),
        {"claims": len(claims), "checked": len(found), "paths": paths, "fail": wrong},
        passed=not wrong,
        says=outcome(results),
    )
