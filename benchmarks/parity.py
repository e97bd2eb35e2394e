"""Largest difference of logits between our decoder and transformers + torch, per checkpoint.

Random tokens, three rows of 77, both in float32, and each against torch in float64, which says how
much of the difference is rounding. Needs torch.

    python -m benchmarks.parity --json parity.json
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from transformers import AutoModelForCausalLM

from msjax.cli.output import write_json
from msjax.llm.flax import Decoder, empty_cache, load
from msjax.llm.flax.gguf import is_gguf
from msjax.llm.flax.weights import ensure, model_name

TINY = Path(__file__).parents[1] / "tests" / "fixtures"
ROWS, TIME = 3, 77


@dataclass(frozen=True)
class Parity:
    """Compare logits with torch.

    python -m benchmarks.parity --json parity.json
    """

    models: tuple[Path, ...] = ()
    """model folders, GGUF files; if none is given the tests' checkpoints and the default model"""
    json: Path | None = None
    """write the results here as well"""


@dataclass(frozen=True)
class Row:
    """A checkpoint, its family, largest |differences| of logits, and their standard deviation."""

    checkpoint: str
    family: str
    ours_torch: float
    ours_exact: float
    torch_exact: float
    spread: float


def compare(model: Path) -> Row:
    """Runs both on the same tokens."""
    import torch

    decoder = load(model, "float32")
    where = (model.parent, {"gguf_file": model.name}) if is_gguf(model) else (model, {})
    reference = AutoModelForCausalLM.from_pretrained(str(where[0]), dtype=torch.float32, **where[1])
    shape = (ROWS, TIME)
    tokens = np.random.default_rng(1).integers(0, decoder.config.vocab_size, shape)
    with torch.inference_mode():
        theirs = reference(torch.tensor(tokens)).logits.numpy()
        exact = reference.double()(torch.tensor(tokens)).logits.numpy()

    @nnx.jit
    def logits(decoder: Decoder, tokens: jax.Array) -> jax.Array:
        cache = empty_cache(decoder.config, *shape, decoder.dtype)
        hidden, _ = decoder(tokens, jnp.full(ROWS, TIME, jnp.int32), cache)
        return decoder.logits(hidden.reshape(hidden.shape[0], -1)).T.reshape(*shape, -1)

    ours = np.asarray(logits(decoder, jnp.asarray(tokens, jnp.int32)))
    name = "/".join(model.parts[-2:]) if model.is_relative_to(TINY) else model_name(model)

    def largest(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.abs(one - other).max())

    return Row(
        name,
        reference.config.model_type,
        ours_torch=largest(ours, theirs),
        ours_exact=largest(ours, exact),
        torch_exact=largest(theirs, exact),
        spread=float(exact.std()),
    )


def main() -> None:
    """Prints the table and writes JSON if asked to."""
    options = tyro.cli(Parity)
    models = list(options.models)
    if not models:
        models = sorted(found.parent for found in TINY.glob("tiny_*/*/config.json"))
        models.append(ensure())
    rows = [compare(model) for model in models]
    for row in rows:
        numbers = f"{row.ours_torch:.1e} | {row.ours_exact:.1e} | {row.torch_exact:.1e}"
        print(f"| {row.checkpoint} | {row.family} | {numbers} | {row.spread:.2f} |")
    if options.json is not None:
        write_json(options.json, [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
