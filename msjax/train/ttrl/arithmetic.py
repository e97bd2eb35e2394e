"""A decoder small enough to train from scratch in a minute: sums of two two-digit numbers.

It learns "35 + 13" -> "48" from worked sums and is stopped while it is right about half the time.
Its folder is a Hugging Face folder like any other; its tokenizer reads digits and signs and passes
over everything else, so that it can be asked in the words of any prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PyTree
from tqdm import tqdm

from msjax._io import reading, write_text
from msjax.errors import InputError, require_uncertain
from msjax.llm.flax.config import DecoderConfig
from msjax.llm.flax.decoder import Decoder
from msjax.llm.flax.kv_cache import empty_cache
from msjax.tasks.prompts import Template
from msjax.tasks.registry import BENCHMARKS, Task
from msjax.train.ttrl.export import write_weights

__all__ = ["RESERVED", "tiny_benchmark", "train_tiny", "write_tiny"]

RESERVED = 4096
"""Questions 0 .. RESERVED - 1 of arithmetic-hard are never trained on with their answers."""

VOCABULARY = ("<end>", *"0123456789+-=")
TOKEN_IDS = {token: index for index, token in enumerate(VOCABULARY)}
_PROMPT = len("35+13=")
_LENGTH = _PROMPT + len("-44") + 1
_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'user' %}={% else %}<end>{% endif %}{% endfor %}"
)
TINY_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "eos_token_id": TOKEN_IDS["<end>"],
}
_BATCH = 128
_LEARNING_RATE = 5e-3
_WARM_UP = 50
_MOST_STEPS = 5000
_MEMORY = 0.95  # of the running mean of the accuracy, per step


def tiny_benchmark() -> Task:
    """arithmetic-hard, asked without words and without worked examples."""
    return BENCHMARKS["arithmetic-hard"].asked_with(Template("{question}", "{question}"))


def write_tiny(folder: Path, *, seed: int, accuracy: float = 0.5) -> Path:
    """Trains the tiny decoder into a folder, unless one trained alike is there.

    Args:
        folder: a new or empty folder, or one that this function wrote.
        seed: of initial weights and batches.
        accuracy: see `train_tiny`.

    Raises:
        InputError: the folder holds something else, or as `train_tiny`.
    """
    marker = {"trained": "msjax tiny arithmetic", "seed": seed, "accuracy": accuracy}
    described = folder / "training.json"
    if described.is_file():
        with reading(described, "name a new folder"):
            found = json.loads(described.read_text(encoding="utf-8"))
        if found == marker:
            return folder
        raise InputError(f"{folder} was trained with {found}, not {marker}; name a new folder")
    decoder = train_tiny(seed=seed, accuracy=accuracy)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", TINY_CONFIG)
    write_tokenizer(folder)
    write_weights(folder, nnx.state(decoder), decoder.config)
    _write_json(described, marker)  # last: says that all the rest is there
    return folder


def train_tiny(*, seed: int, accuracy: float = 0.5) -> Decoder:
    """Next-token training on worked sums until a sampled answer is right with this probability.

    Sums are drawn with replacement from all 16,200 a + b and a - b of two-digit numbers but the
    `RESERVED` ones. The probability of the right answers of a batch is seen before the batch is
    learnt from; training ends when its running mean reaches ``accuracy``.

    Args:
        seed: of initial weights and batches.
        accuracy: where to stop, in (0, 1).

    Raises:
        InputError: an accuracy outside (0, 1), or one that 5,000 batches do not reach.
    """
    require_uncertain("accuracy", accuracy)
    decoder = Decoder(DecoderConfig.from_dict(TINY_CONFIG), rngs=nnx.Rngs(seed))
    graphdef, weights = nnx.split(decoder)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(optax.linear_schedule(0.0, _LEARNING_RATE, _WARM_UP), weight_decay=0.01),
    )
    opt_state = optimiser.init(weights)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(
        weights: PyTree[Array], opt_state: PyTree[Array], tokens: Int[Array, "batch time"]
    ) -> tuple[PyTree[Array], PyTree[Array], Float[Array, ""]]:
        (_, right), gradient = jax.value_and_grad(_loss, has_aux=True)(weights, graphdef, tokens)
        updates, opt_state = optimiser.update(gradient, opt_state, weights)
        return optax.apply_updates(weights, updates), opt_state, right

    sums = worked_sums()
    random = np.random.default_rng(seed)
    reached = 0.0
    with tqdm(total=_MOST_STEPS, unit="step", desc="tiny decoder", disable=None) as bar:
        while reached < accuracy:
            if bar.n == _MOST_STEPS:
                raise InputError(
                    f"accuracy is {accuracy}, and {_MOST_STEPS} steps reached {reached:.2f}; "
                    "lower it"
                )
            batch = sums[random.integers(len(sums), size=_BATCH)]
            weights, opt_state, right = step(weights, opt_state, batch)
            reached = _MEMORY * reached + (1 - _MEMORY) * float(right)
            bar.set_postfix_str(f"accuracy {reached:.2f}", refresh=False)
            bar.update()
    return nnx.merge(graphdef, weights)


def _loss(
    weights: PyTree[Array], graphdef: nnx.GraphDef, tokens: Int[Array, "batch time"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean cross-entropy of the answers' tokens, and mean probability of the whole answers."""
    decoder = nnx.merge(graphdef, weights)
    batch, time = tokens.shape
    cache = empty_cache(decoder.config, batch, time - 1, decoder.dtype)
    hidden, _ = decoder(tokens[:, :-1], jnp.full(batch, time - 1, jnp.int32), cache)
    logits = decoder.logits(hidden.reshape(hidden.shape[0], -1)).T.reshape(batch, time - 1, -1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    answers = in_answer(tokens)
    losses = jnp.where(answers, losses, 0)
    return jnp.sum(losses) / jnp.sum(answers), jnp.mean(jnp.exp(-jnp.sum(losses, axis=1)))


def in_answer(tokens: Int[Array, "batch time"]) -> Bool[Array, "batch predicted"]:
    """Which predicted tokens belong to an answer, its end token included."""
    unfinished = tokens[:, :-1] != TOKEN_IDS["<end>"]
    return unfinished & (jnp.arange(1, tokens.shape[1]) >= _PROMPT)[None, :]


def worked_sums() -> Int[np.ndarray, "sums time"]:
    """Tokens of every sum and its result but those that are reserved, end tokens at the end."""
    reserved = {question.text for question in BENCHMARKS["arithmetic-hard"].questions(0, RESERVED)}
    return np.array(list(_encoded(reserved)), np.int32)


def _encoded(reserved: set[str]) -> Iterator[list[int]]:
    for a in range(10, 100):
        for b in range(10, 100):
            for sign, result in (("+", a + b), ("-", a - b)):
                if f"{a} {sign} {b}" not in reserved:
                    ids = [TOKEN_IDS[character] for character in f"{a}{sign}{b}={result}"]
                    yield ids + [TOKEN_IDS["<end>"]] * (_LENGTH - len(ids))


def write_tokenizer(folder: Path) -> None:
    """Write the tokenizer of the tiny decoder, a token a character, with its chat template."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
    )

    tokenizer = Tokenizer(models.WordLevel(dict(TOKEN_IDS), unk_token="<end>"))
    tokenizer.normalizer = normalizers.Replace(Regex("[^0-9+=-]"), "")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken("<end>", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<end>",
        "clean_up_tokenization_spaces": False,
        "chat_template": _TEMPLATE,
    }
    _write_json(folder / "tokenizer_config.json", described)


def _write_json(path: Path, entries: dict[str, object]) -> None:
    write_text(path, json.dumps(entries, indent=2) + "\n")
