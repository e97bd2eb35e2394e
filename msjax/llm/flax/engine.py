"""Engine over a local Flax decoder: batched conversations that keep their KV cache."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from flax import nnx
from jax.sharding import Mesh

from msjax.errors import InputError
from msjax.llm.engine import Conversation, Sampling
from msjax.llm.flax.chat import Chat, load_tokenizer
from msjax.llm.flax.checkpoint import load
from msjax.llm.flax.decoder import Decoder
from msjax.llm.flax.kv_cache import KVCache
from msjax.llm.flax.scheduler import Batch
from msjax.llm.flax.sharding import shard_cache
from msjax.llm.flax.weights import find_model, model_name

if TYPE_CHECKING:
    import transformers

__all__ = ["FlaxEngine"]


class FlaxEngine:
    """Answers prompts with a local decoder, many conversations per batch.

    Args:
        decoder: the model.
        tokenizer: its tokenizer, with a chat template.
        name: of the model, for records.
        batch_size: most conversations decoded together; more wait for a row to become free.
        max_new_tokens: most tokens per completion, the end token included.
        temperature: of sampling; 0 takes the most probable token.
        top_p: nucleus of sampling; None keeps every token.
        mesh: the devices that hold the decoder's weights, if these are sharded
            (`msjax.llm.flax.sharding`); the KV cache then is as well.
        log_odds: whether completions carry the log-odds of yes against no, for a model that judges.

    Raises:
        InputError: a setting outside its range, a tokenizer without chat template, or a batch
            that the mesh does not divide.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: transformers.PreTrainedTokenizerBase,
        *,
        name: str,
        batch_size: int = 32,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float | None = None,
        mesh: Mesh | None = None,
        log_odds: bool = False,
    ):
        for setting, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise InputError(f"{setting} is {value}; it must be at least 1")
        self.mesh = mesh
        self.row_multiple = 1 if mesh is None else mesh.shape["data"]
        if batch_size % self.row_multiple:
            raise InputError(
                f"batch_size is {batch_size}, which mesh axis data of {self.row_multiple} devices "
                "does not divide; choose a multiple of it"
            )
        self.name = name
        self.config = decoder.config
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.sampling = Sampling(temperature, top_p)
        self.tokenizer = tokenizer
        self.chat = Chat(tokenizer, name, decoder.config.eos_token_ids)
        self.settings = self.chat.settings
        self.dtype = decoder.dtype
        self.yes_no = self.chat.yes_no if log_odds else None
        self.graphdef, self.weights = nnx.split(decoder)

    @classmethod
    def load(
        cls,
        model: Path | str,
        *,
        batch_size: int = 32,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float | None = None,
        mesh: Mesh | None = None,
        log_odds: bool = False,
    ) -> FlaxEngine:
        """Engine for a model on this machine, with a chat template.

        Args:
            model: a Hugging Face folder with ``model.safetensors``, a GGUF file, or the name of a
                model that `msjax weights` obtained. Its last part names the engine.

        Raises:
            InputError: the model cannot be loaded (see `checkpoint.load`), or as above.
        """
        path = find_model(model)
        decoder = load(path, mesh=mesh)
        return cls(
            decoder,
            load_tokenizer(path),
            name=model_name(path),
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            mesh=mesh,
            log_odds=log_odds,
        )

    def converse(self, conversations: Iterable[Conversation]) -> None:
        """Carries on all conversations until they are over; see `engine.Engine.converse`.

        Raises:
            InputError: a turn that does not end with a user message, or a chat template that
                rewrites earlier turns.
        """
        Batch(self, conversations).run()

    def place(self, cache: KVCache) -> KVCache:
        """The cache on the devices of the mesh, if there is one."""
        return cache if self.mesh is None else shard_cache(cache, self.mesh)
