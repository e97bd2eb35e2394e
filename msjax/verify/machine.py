"""What this machine is, and whether it computes what other machines compute."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from msjax.devices import memory
from msjax.simulation.paths import simulate_counts
from msjax.theory.chain import TwoStateChain

if TYPE_CHECKING:
    from msjax.llm.flax.decoder import Decoder

__all__ = ["Check", "check_decoder", "check_simulator", "devices", "extras", "packages"]

# Collections, tools of developers, and cuda, of which the devices tell.
_NOT_LISTED = {"all", "bench", "cuda", "dev", "docs", "notebooks", "parity"}
_COUNTS = (49930, 60059, 65871, 69567, 71765, 73079)
_TOKENS = (15, 15, 15, 49, 49, 49)
_LOGPROB = -15.8906
_FLOAT32, _BFLOAT16 = 1e-3, 0.2


@dataclass(frozen=True)
class Check:
    """A small computation whose result is known.

    Attributes:
        name: what is computed.
        passed: whether the result is the known one; None if it could not be computed.
        says: what was found, in a sentence.
    """

    name: str
    passed: bool | None
    says: str


def packages() -> dict[str, str]:
    """Versions of Python and of what computes here, by name."""
    found = {"Python": platform.python_version()}
    for name in ("msjax", "jax", "jaxlib", "numpyro", "flax", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def extras() -> dict[str, bool]:
    """Whether all that each optional extra brings is installed."""
    brings: dict[str, set[str]] = {}
    for entry in distribution("msjax").requires or []:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", entry)
        name = re.match(r"[\w.-]+", entry)
        if extra is not None and name is not None and extra[1] not in _NOT_LISTED:
            brings.setdefault(extra[1], set()).add(name[0])
    # Extras that include others do so by name, and these are listed themselves.
    return {
        extra: all(_installed(name) for name in sorted(names - {"msjax"}))
        for extra, names in sorted(brings.items())
    }


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def devices() -> tuple[list[str], list[str]]:
    """The devices that JAX uses, each with its kind and memory; and what is wrong with that."""
    found = []
    for device in jax.devices():
        limit = None if device.platform == "cpu" else memory(device)
        room = "" if limit is None else f", {limit / 2**30:.1f} GiB of memory"
        found.append(f"{device.platform}:{device.id} ({device.device_kind}{room})")
    driver = Path("/proc/driver/nvidia/version").exists()
    if driver and jax.default_backend() == "cpu":
        return found, [
            "an NVIDIA driver is loaded but JAX computes on the CPU; install the extra `cuda`, "
            "and see that JAX_PLATFORMS is not set"
        ]
    return found, []


def check_simulator() -> Check:
    """100,000 simulated paths, whose counts are integers that no device may change.

    Reference: docs/theory.md A1.
    """
    chain = TwoStateChain(jnp.float32(0.5), jnp.float32(0.3), jnp.float32(0.1))
    counts = tuple(simulate_counts(jax.random.key(0), chain, 100_000, 5).tolist())
    says = f"right after each round in {counts} of 100,000 paths"
    if counts != _COUNTS:
        says += f", where other machines have {_COUNTS}"
    return Check("simulator", counts == _COUNTS, says)


def check_decoder() -> Check:
    """The compiled generation loop on a small decoder with known weights, in two precisions."""
    if any(find_spec(name) is None for name in ("flax", "transformers")):
        return Check("decoder", None, "not computed: `pip install 'msjax[local]'` brings it")
    # By default some devices round the factors of a product of float32.
    with jax.default_matmul_precision("highest"):
        tokens, likelihood = _greedy(jnp.float32)
    narrow_tokens, narrow = _greedy(jnp.bfloat16)
    apart, narrow_apart = abs(likelihood - _LOGPROB), abs(narrow - _LOGPROB)
    passed = tokens == narrow_tokens == _TOKENS and apart < _FLOAT32 and narrow_apart < _BFLOAT16
    says = (
        f"greedy tokens {tokens}, log-probability within {apart:.1g} (at most {_FLOAT32}); in "
        f"bfloat16 {narrow_tokens}, within {narrow_apart:.1g} (at most {_BFLOAT16})"
    )
    if not passed:
        says += f"; other machines have {_TOKENS}"
    return Check("decoder", passed, says)


def _greedy(dtype: DTypeLike) -> tuple[tuple[int, ...], float]:
    """Greedy tokens after a known prompt, and their log-probability."""
    from flax import nnx

    from msjax.llm.flax.decode import Sampling, decode, prefill
    from msjax.llm.flax.kv_cache import empty_cache

    decoder = _decoder(dtype)
    graphdef, weights = nnx.split(decoder)
    prompt, number = [1, 5, 9, 3], len(_TOKENS)
    cache = empty_cache(decoder.config, 1, len(prompt) + number, dtype)
    fresh = jnp.array([len(prompt) - 1])
    cache = prefill(graphdef, weights, jnp.array([prompt[:-1]]), fresh, cache)
    found = decode(
        graphdef,
        weights,
        jnp.array(prompt[-1:]),
        jnp.array([number]),
        jax.random.split(jax.random.key(0), 1),
        cache,
        sampling=Sampling(temperature=0.0),
        end_tokens=(decoder.config.vocab_size,),
        max_new=number,
    )
    return tuple(found.tokens[0].tolist()), float(found.logprobs[0])


def _decoder(dtype: DTypeLike) -> Decoder:
    from flax import nnx

    from msjax.llm.flax.config import DecoderConfig
    from msjax.llm.flax.decoder import Decoder

    entries = {
        "model_type": "qwen2",
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "eos_token_id": 2,
    }
    decoder = Decoder(DecoderConfig.from_dict(entries), dtype=dtype, rngs=nnx.Rngs(0))
    graphdef, weights = nnx.split(decoder)
    random = np.random.RandomState(0)  # whose numbers no version of NumPy changes
    leaves, shape = jax.tree.flatten(weights)
    drawn = [jnp.asarray(0.3 * random.standard_normal(leaf.shape), dtype) for leaf in leaves]
    return nnx.merge(graphdef, jax.tree.unflatten(shape, drawn))
