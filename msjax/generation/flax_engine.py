"""Engine over a local Flax decoder: batched conversations that keep their KV cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from msjax.errors import InputError
from msjax.generation.engine import REFUSED, Completion, Message, asked
from msjax.generation.ledger import Usage
from msjax.models.cache import KVCache, empty_cache, grow, take_rows
from msjax.models.checkpoint import load
from msjax.models.decode import Sampling, decode, prefill
from msjax.models.decoder import Decoder
from msjax.models.sharding import shard_cache

__all__ = ["FlaxEngine", "FlaxSession"]

# Shapes come from these few buckets, so that rounds of similar length share compiled programs.
_CHUNKS = (256, 32)  # tokens per row of one prefill call
_CAPACITY = 256  # token slots per row come in multiples of this
_FEWEST_ROWS = 4  # fewer rows decode no faster

_grow = jax.jit(grow, static_argnames="capacity")
_take_rows = jax.jit(take_rows)
_empty_cache = jax.jit(empty_cache, static_argnums=(0, 1, 2, 3))


class FlaxEngine:
    """Answers prompts with a local decoder, many conversations per batch.

    Args:
        decoder: the model.
        tokenizer: its tokenizer, with a chat template.
        name: of the model, for records.
        batch_size: most conversations decoded together; more are run in groups.
        max_new_tokens: most tokens per completion, the end token included.
        temperature: of sampling; 0 takes the most probable token.
        top_p: nucleus of sampling; None keeps every token.
        mesh: the devices that hold the decoder's weights, if these are sharded
            (`msjax.models.sharding`); the KV cache then is as well.

    Raises:
        InputError: a setting outside its range, a tokenizer without chat template, or a batch
            that the mesh does not divide.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        batch_size: int = 32,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float | None = None,
        mesh: Mesh | None = None,
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
        if not tokenizer.chat_template:
            raise InputError(f"the tokenizer of {name} has no chat_template; use a chat model")
        self.name = name
        self.config = decoder.config
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.sampling = Sampling(temperature, top_p)
        self.tokenizer = tokenizer
        self.dtype = decoder.dtype
        self.graphdef, self.weights = nnx.split(decoder)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        batch_size: int = 32,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float | None = None,
        mesh: Mesh | None = None,
    ) -> FlaxEngine:
        """Engine for a Hugging Face folder with ``model.safetensors`` and a chat tokenizer.

        Raises:
            InputError: the folder cannot be loaded (see `checkpoint.load`), or as above.
        """
        folder = Path(folder)
        decoder = load(folder, mesh=mesh)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} has no usable tokenizer ({error}); fetch the checkpoint again"
            ) from error
        return cls(
            decoder,
            tokenizer,
            name=folder.name,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            mesh=mesh,
        )

    def start(self, conversations: Sequence[Sequence[Message]]) -> FlaxSession:
        """Opens conversations, each with what has been said so far; see `engine.Engine.start`.

        Raises:
            InputError: a conversation that does not end with a user message.
        """
        opened = []
        for index, messages in enumerate(conversations):
            if not messages or messages[-1]["role"] != "user":
                raise InputError(f"conversation {index} must end with a user message")
            conversation = _Conversation(list(messages))
            conversation.rendering = self._render(conversation.messages)
            conversation.ids = self._encode(conversation.rendering)
            conversation.refused = not self._fits(conversation.ids)
            opened.append(conversation)
        return FlaxSession(self, opened)

    def place(self, cache: KVCache) -> KVCache:
        """The cache on the devices of the mesh, if there is one."""
        return cache if self.mesh is None else shard_cache(cache, self.mesh)

    def _render(self, messages: list[Message]) -> str:
        turns = [dict[str, str](role=turn["role"], content=turn["content"]) for turn in messages]
        return str(
            self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        )

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _fits(self, ids: list[int]) -> bool:
        """Whether the context has room for these tokens and one more."""
        return len(ids) < self.config.max_position_embeddings

    def _continue(self, index: int, conversation: _Conversation, message: str) -> _Conversation:
        """The conversation with one more user message; the model's own tokens stay as they are."""
        messages = [*conversation.messages, *asked(message)]
        if conversation.refused:
            return _Conversation(messages, refused=True)
        rendering = self._render(messages)
        answer = conversation.messages[-1]["content"]
        for written in (answer, answer.strip()):  # some templates trim what they are given
            prefix = conversation.rendering + written
            if rendering.startswith(prefix):
                break
        else:
            raise InputError(
                f"the chat template of {self.name} rewrites earlier turns of conversation {index}, "
                "so its cached tokens no longer fit; use a chat_template that only appends"
            )
        added = rendering[len(prefix) :]
        if conversation.ids[-1] in self.config.eos_token_ids:
            # the model wrote the end of its turn itself
            added = added.removeprefix(str(self.tokenizer.decode([conversation.ids[-1]])))
        ids = conversation.ids + self._encode(added)
        refused = not self._fits(ids)
        return _Conversation(messages, rendering, ids, conversation.cached, refused=refused)


@dataclass
class _Conversation:
    messages: list[Message]
    rendering: str = ""  # of the messages, without the assistant's turn if that came last
    ids: list[int] = field(default_factory=list)
    cached: int = 0  # how many of the ids are in the KV cache: all but the last after a completion
    finished: bool = False
    refused: bool = False  # longer than the context

    @property
    def awaits_completion(self) -> bool:
        return not self.finished and self.messages[-1]["role"] == "user"


@dataclass
class _Group:
    """Conversations that share one cache; ``rows[i]`` is the conversation of row i, None: free."""

    rows: list[int | None]
    cache: KVCache | None = None


class FlaxSession:
    """Conversations on one `FlaxEngine`; see `engine.Session`."""

    def __init__(self, engine: FlaxEngine, conversations: list[_Conversation]):
        self._engine = engine
        self._conversations = conversations
        indices = list(range(len(conversations)))
        size = engine.batch_size
        self._groups = [_Group(list(indices[i : i + size])) for i in range(0, len(indices), size)]

    def complete(self, keys: Sequence[jax.Array | None]) -> list[Completion | None]:
        """Samples the assistant's next turn; see `engine.Session.complete`."""
        self._check_count("keys", len(keys))
        for index, (key, conversation) in enumerate(zip(keys, self._conversations, strict=True)):
            if key is not None and not conversation.awaits_completion:
                state = "finished" if conversation.finished else "waiting for a user message"
                raise InputError(f"conversation {index} is {state}; give it the key None")
            conversation.finished = key is None
        results: list[Completion | None] = [None] * len(keys)
        for index, conversation in enumerate(self._conversations):
            if conversation.refused and not conversation.finished:
                conversation.messages.append({"role": "assistant", "content": REFUSED.text})
                results[index] = REFUSED
        for group in self._groups:
            if self._prepare(group):
                self._complete_group(group, keys, results)
        return results

    def extend(self, messages: Sequence[str | None]) -> None:
        """Appends a user message where one is given; see `engine.Session.extend`."""
        self._check_count("messages", len(messages))
        extended = {}
        for index, message in enumerate(messages):
            conversation = self._conversations[index]
            if message is None:
                continue
            if conversation.finished or conversation.awaits_completion:
                state = "finished" if conversation.finished else "waiting for a completion"
                raise InputError(f"conversation {index} is {state}; give it the message None")
            extended[index] = self._engine._continue(index, conversation, message)
        for index, conversation in extended.items():
            self._conversations[index] = conversation

    def _check_count(self, field: str, count: int) -> None:
        if count != len(self._conversations):
            raise InputError(
                f"{field} has {count} entries, the session {len(self._conversations)} conversations"
            )

    def _prepare(self, group: _Group) -> bool:
        """Frees finished rows and makes room for new tokens; False when no row is left."""
        engine = self._engine
        live = [
            (row, index)
            for row, index in enumerate(group.rows)
            if index is not None
            and not self._conversations[index].finished
            and not self._conversations[index].refused
        ]
        if not live:
            group.rows, group.cache = [], None
            return False
        longest = max(len(self._conversations[index].ids) for _, index in live)
        context = engine.config.max_position_embeddings
        capacity = _round_up(min(longest + engine.max_new_tokens, context), _CAPACITY)
        rows = _row_bucket(len(live), engine.batch_size, engine.row_multiple)
        if group.cache is None or rows < group.cache.rows:
            spare = rows - len(live)
            if group.cache is not None:
                source = [row for row, _ in live] + [0] * spare
                group.cache = engine.place(_take_rows(group.cache, np.asarray(source, np.int32)))
            group.rows = [index for _, index in live] + [None] * spare
        else:
            kept = dict(live)
            group.rows = [kept.get(row) for row in range(len(group.rows))]
        if group.cache is None:
            group.cache = engine.place(_empty_cache(engine.config, rows, capacity, engine.dtype))
        elif capacity > group.cache.capacity:
            group.cache = engine.place(_grow(group.cache, capacity=capacity))
        return True

    def _complete_group(
        self,
        group: _Group,
        keys: Sequence[jax.Array | None],
        results: list[Completion | None],
    ) -> None:
        engine, rows = self._engine, len(group.rows)
        limits, pending = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        row_keys = [jax.random.key(0)] * rows
        live = [(row, index) for row, index in enumerate(group.rows) if index is not None]
        for row, index in live:
            ids, key = self._conversations[index].ids, keys[index]
            assert key is not None
            room = engine.config.max_position_embeddings - len(ids)
            limits[row], pending[row] = min(engine.max_new_tokens, room), ids[-1]
            row_keys[row] = key
        done = decode(
            engine.graphdef,
            engine.weights,
            pending,
            limits,
            jnp.stack(row_keys),
            self._prefilled(group, live),
            sampling=engine.sampling,
            end_tokens=engine.config.eos_token_ids,
            max_new=engine.max_new_tokens,
        )
        group.cache = done.cache
        tokens, counts, logprobs, ended = jax.device_get(done[:4])
        for row, index in live:
            conversation, count = self._conversations[index], int(counts[row])
            usage = Usage(
                prompt=len(conversation.ids), cached=conversation.cached, completion=count
            )
            fresh = tokens[row, :count].tolist()
            text = str(
                engine.tokenizer.decode(
                    fresh[:-1] if ended[row] else fresh,
                    skip_special_tokens=True,
                    clean_up_tokenization_spaces=False,
                )
            )
            conversation.ids += fresh
            conversation.cached = len(conversation.ids) - 1
            conversation.messages.append({"role": "assistant", "content": text})
            results[index] = Completion(text, float(logprobs[row]) / count, bool(ended[row]), usage)

    def _prefilled(self, group: _Group, live: list[tuple[int, int]]) -> KVCache:
        """The cache with every token but the last of every conversation in it.

        What a fresh group begins with in common, such as a system prompt or worked examples, is
        computed for one row and copied to the others. The accounts do not show that, so that they
        do not depend on who shares a batch.
        """
        engine, cache, rows = self._engine, group.cache, len(group.rows)
        assert cache is not None
        group.cache = None  # its buffers are about to be donated
        conversations = [self._conversations[index] for _, index in live]
        new: list[list[int]] = [[] for _ in range(rows)]
        for (row, _), conversation in zip(live, conversations, strict=True):
            new[row] = conversation.ids[conversation.cached : -1]
        if len(live) > 1 and not any(conversation.cached for conversation in conversations):
            shared = len(os.path.commonprefix([new[row] for row, _ in live]))
            if shared >= _CHUNKS[-1]:
                single = _empty_cache(engine.config, 1, cache.capacity, engine.dtype)
                single = self._append([new[live[0][0]][:shared]], single)
                cache = engine.place(_take_rows(single, np.zeros(rows, np.int32)))
                new = [ids[shared:] for ids in new]
        return self._append(new, cache)

    def _append(self, new: list[list[int]], cache: KVCache) -> KVCache:
        """The cache with new tokens appended to its rows, chunk by chunk."""
        engine, start, longest = self._engine, 0, max(map(len, new))
        while start < longest:
            time = _CHUNKS[0] if longest - start >= _CHUNKS[0] else _CHUNKS[1]
            tokens, fresh = np.zeros((len(new), time), np.int32), np.zeros(len(new), np.int32)
            for row, ids in enumerate(new):
                chunk = ids[start : start + time]
                tokens[row, : len(chunk)], fresh[row] = chunk, len(chunk)
            cache = prefill(engine.graphdef, engine.weights, tokens, fresh, cache)
            start += time
        return cache


def _row_bucket(count: int, batch_size: int, multiple: int) -> int:
    """Smallest of batch_size, batch_size / 2, ... that holds ``count`` rows, a multiple of that."""
    rows = batch_size
    while rows // 2 >= max(count, _FEWEST_ROWS) and rows // 2 % multiple == 0:
        rows //= 2
    return rows


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
