"""Continuous batching: conversations hold the rows of one KV cache and leave it on their own."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from msjax.data.messages import REFUSED, Completion
from msjax.data.usage import Usage
from msjax.llm.concurrency import all_of
from msjax.llm.engine import Conversation, Turn, next_turn, scored
from msjax.llm.flax.chat import Transcript
from msjax.llm.flax.decode import decode, prefill, prefill_rows
from msjax.llm.flax.kv_cache import KVCache, copy_rows, grow, take_rows
from msjax.llm.flax.sharding import empty_cache_on

if TYPE_CHECKING:
    from msjax.llm.flax.engine import FlaxEngine

__all__ = ["Batch"]

# Shapes come from these few buckets, so that turns of similar length share compiled programs.
_CHUNKS = (256, 32)  # tokens per row of one prefill call
_CAPACITY = 128  # token slots per row come in multiples of this
_FEWEST_ROWS = 4  # fewer rows decode no faster
_STEP = 4  # numbers of rows that are copied or prefilled together are powers of this
_FILLED = 0.75  # of the rows of a prefill call, as a CPU computes padding as slowly as tokens
_SHARED = 32  # tokens worth copying from another row

_grow = jax.jit(grow, static_argnames="capacity")
_take_rows = jax.jit(take_rows)
_copy_rows = jax.jit(copy_rows, donate_argnums=0)


@dataclass
class _Dialogue:
    """A conversation that holds a row."""

    conversation: Conversation
    turn: Turn
    transcript: Transcript
    limit: int  # most tokens of this turn's completion
    reused: int = 0  # tokens of the prompt that its own earlier turns had computed
    drawn: list[int] = field(default_factory=list)  # of this turn's completion
    logprob: float = 0.0
    entropy: float = 0.0
    log_odds: float = math.nan

    @property
    def ids(self) -> list[int]:
        """All tokens so far; the last is the one that is not in the cache."""
        return [*self.transcript.ids, *self.drawn]


class Batch:
    """Conversations on one `FlaxEngine`, as many at a time as its batch has rows.

    A row that is free keeps what it holds until it is needed: whatever a turn has in common with
    any row (its own past, a system prompt, another sample of the same question) is not computed
    again. What a turn reports as cached is its own past alone, so that accounts do not depend on
    who shares a batch.
    """

    def __init__(self, engine: FlaxEngine, conversations: Iterable[Conversation]):
        self._engine = engine
        self._waiting: Iterator[Conversation] | None = iter(conversations)
        self._under_way: set[Conversation] = set()
        self._rows: list[_Dialogue | None] = []
        self._held: list[list[int]] = []  # tokens in the cache, row by row
        self._cache: KVCache | None = None

    def run(self) -> None:
        """Carries on all conversations until they are over."""
        try:
            while self._seat():
                self._compute_prompts()
                self._draw()
        finally:
            for conversation in self._under_way:
                conversation.close()

    def _live(self) -> list[tuple[int, _Dialogue]]:
        return [(row, one) for row, one in enumerate(self._rows) if one is not None]

    def _seat(self) -> bool:
        """Gives free rows to waiting conversations; False when none is left."""
        engine, live = self._engine, self._live()
        newcomers: list[_Dialogue] = []
        while len(live) + len(newcomers) < engine.batch_size:
            newcomer = self._next_waiting()
            if newcomer is None:
                break
            newcomers.append(newcomer)
        if not live and not newcomers:
            return False
        rows = _row_bucket(len(live) + len(newcomers), engine.batch_size, engine.row_multiple)
        everyone = [*(dialogue for _, dialogue in live), *newcomers]
        longest = max(len(one.transcript.ids) + one.limit for one in everyone)
        self._make_room(rows, _round_up(longest, _CAPACITY))
        free = (row for row, one in enumerate(self._rows) if one is None)
        for row, newcomer in zip(free, newcomers, strict=False):
            self._rows[row] = newcomer
        return True

    def _next_waiting(self) -> _Dialogue | None:
        """The first conversation that waits and has something to ask."""
        while self._waiting is not None:
            conversation = next(self._waiting, None)
            if conversation is None:
                self._waiting = None
                break
            self._under_way.add(conversation)
            dialogue = self._carry_on(conversation, next_turn(conversation), None)
            if dialogue is not None:
                return dialogue
        return None

    def _carry_on(
        self, conversation: Conversation, turn: Turn | None, past: Transcript | None
    ) -> _Dialogue | None:
        """The conversation with its next turn, refused as often as that is too long; None: over."""
        chat, context = self._engine.chat, self._engine.config.max_position_embeddings
        refused = False
        while turn is not None:
            if turn.new_conversation or (past is None and not refused):
                begun = chat.begin(turn.messages, alone=turn.new_conversation)
                transcript: Transcript | None = begun
            elif past is None:
                transcript = None
            else:
                transcript = chat.go_on(past, turn.messages)
            if transcript is not None and len(transcript.ids) < context:
                room = context - len(transcript.ids)
                limit = min(self._engine.max_new_tokens, room)
                return _Dialogue(conversation, turn, transcript, limit)
            past, refused = None, True
            turn = next_turn(conversation, REFUSED)
        self._under_way.discard(conversation)
        return None

    def _make_room(self, rows: int, capacity: int) -> None:
        """A cache of so many rows, fewer than before at most, and at least so many slots."""
        engine = self._engine
        if self._cache is None:
            empty = empty_cache_on(engine.mesh)(engine.config, rows, capacity, engine.dtype)
            self._cache = engine.place(empty)
            self._rows, self._held = [None] * rows, [[] for _ in range(rows)]
        if rows < self._cache.rows:
            live = [row for row, _ in self._live()]
            kept = (live + [row for row, one in enumerate(self._rows) if one is None])[:rows]
            self._cache = engine.place(_take_rows(self._cache, np.asarray(kept, np.int32)))
            self._rows = [self._rows[row] for row in kept]
            self._held = [self._held[row] for row in kept]
        if capacity > self._cache.capacity:
            self._cache = engine.place(_grow(self._cache, capacity=capacity))

    def _compute_prompts(self) -> None:
        """Puts every token but the last of each new turn into the cache."""
        todo = {
            row: one.ids[:-1]
            for row, one in self._live()
            if not one.drawn and self._held[row] != one.ids[:-1]
        }
        # What turns have in common is computed for the first of them and copied to the others.
        order = sorted(todo, key=lambda row: todo[row])
        followers = [
            row
            for before, row in zip(order, order[1:], strict=False)
            if _common(todo[before], todo[row]) >= self.reusable(row, todo[row])[1] + _SHARED
        ]
        for some in ([row for row in order if row not in followers], followers):
            if some:
                self._append(self._begin({row: todo[row] for row in some}))

    def reusable(self, row: int, ids: list[int]) -> tuple[int, int]:
        """The row that holds the beginning of these tokens, and how many of them: as a rule its
        own.
        """
        own = _common(self._held[row], ids)
        if own and own == len(self._held[row]):
            return row, own
        best = max(range(len(self._held)), key=lambda other: _common(self._held[other], ids))
        most = _common(self._held[best], ids)
        return (best, most) if most >= own + _SHARED else (row, own)

    def _begin(self, wanted: dict[int, list[int]]) -> dict[int, list[int]]:
        """Makes rows hold as much of these tokens as any row does; returns those still to come."""
        sources = {row: self.reusable(row, ids) for row, ids in wanted.items()}
        copies = [(source, row) for row, (source, _) in sources.items() if source != row]
        cache, rows = self._take_cache(), len(self._rows)
        if copies:
            padding = [(rows, rows)] * (_call_size(len(copies), rows, filled=0.0) - len(copies))
            cache = _copy_rows(cache, *np.array([*copies, *padding], np.int32).T)
        for row, (_, kept) in sources.items():
            self._held[row] = wanted[row][:kept]
        lengths = np.array([len(ids) for ids in self._held], np.int32)
        self._cache = self._engine.place(cache._replace(lengths=jnp.asarray(lengths)))
        return {row: ids[len(self._held[row]) :] for row, ids in wanted.items()}

    def _append(self, new: dict[int, list[int]]) -> None:
        """Computes these tokens: chunk by chunk, the rows with the most of them first."""
        engine, rows = self._engine, len(self._rows)
        while left := sorted((row for row in new if new[row]), key=lambda row: -len(new[row])):
            time = _CHUNKS[0] if len(new[left[0]]) >= _CHUNKS[0] else _CHUNKS[1]
            ready = [row for row in left if time == _CHUNKS[1] or len(new[row]) >= time]
            size = _call_size(len(ready), rows, filled=_FILLED)
            some = ready[:size]
            tokens, fresh = np.zeros((size, time), np.int32), np.zeros(size, np.int32)
            for place, row in zip(some if size == rows else range(size), some, strict=False):
                chunk, new[row] = new[row][:time], new[row][time:]
                tokens[place, : len(chunk)], fresh[place] = chunk, len(chunk)
                self._held[row] = self._held[row] + chunk
            cache = self._take_cache()
            if size == rows:
                cache = prefill(engine.graphdef, engine.weights, tokens, fresh, cache)
            else:
                targets = np.array([*some, *[rows] * (size - len(some))], np.int32)
                cache = prefill_rows(engine.graphdef, engine.weights, tokens, fresh, cache, targets)
            self._cache = engine.place(cache)

    def _take_cache(self) -> KVCache:
        """The cache, whose buffers are about to be donated."""
        cache, self._cache = self._cache, None
        assert cache is not None
        return cache

    def _draw(self) -> None:
        """Draws tokens until some turns are answered, and hears what is asked next."""
        engine, rows, live = self._engine, len(self._rows), self._live()
        limits, pending, drawn = (np.zeros(rows, np.int32) for _ in range(3))
        keys = [live[0][1].turn.key] * rows
        for row, one in live:
            limits[row], pending[row] = one.limit - len(one.drawn), one.ids[-1]
            drawn[row], keys[row] = len(one.drawn), one.turn.key
        done = decode(
            engine.graphdef,
            engine.weights,
            pending,
            limits,
            jnp.stack(keys),
            self._take_cache(),
            drawn,
            # Rows that wait for company cost a little, prompts computed one by one cost more.
            max(1, len(live) // 8),
            sampling=engine.sampling,
            end_tokens=engine.chat.end_tokens,
            max_new=engine.max_new_tokens,
            yes_no=engine.yes_no,
        )
        self._cache = done.cache
        tokens, counts, logprobs, entropies, ended, log_odds = jax.device_get(done[:6])
        answered, scores = {}, {}
        for row, one in live:
            one.drawn += tokens[row, : counts[row]].tolist()
            one.logprob += float(logprobs[row])
            one.entropy += float(entropies[row])
            if not np.isnan(log_odds[row]):
                one.log_odds = float(log_odds[row])
            self._held[row] = one.ids[:-1]
            if ended[row] or len(one.drawn) == one.limit:
                transcript, said = self._answer(one, bool(ended[row]))
                answered[row] = one, transcript
                scores[row] = partial(scored, one.turn, said)
        for row, said in all_of(scores):
            self._rows[row] = self._hand_over(*answered[row], said)

    def _answer(self, one: _Dialogue, ended: bool) -> tuple[Transcript, Completion]:
        """What was said, the completion included."""
        count = len(one.drawn)
        transcript = self._engine.chat.answered(one.transcript, one.drawn)
        usage = Usage(prompt=len(one.transcript.ids), cached=one.reused, completion=count)
        text = transcript.messages[-1]["content"]
        said = Completion(
            text,
            one.logprob / count,
            one.entropy / count,
            ended,
            usage,
            finish="stop" if ended else "length",
            thinking=self._engine.chat.thinking,
            log_odds=one.log_odds,
        )
        return transcript, said

    def _hand_over(
        self, one: _Dialogue, transcript: Transcript, completion: Completion
    ) -> _Dialogue | None:
        """The conversation with what it asks after a completion; None if it is over."""
        turn = next_turn(one.conversation, completion)
        following = self._carry_on(one.conversation, turn, transcript)
        if following is not None:
            computed, asked = list(transcript.ids[:-1]), list(following.transcript.ids[:-1])
            following.reused = _common(computed, asked)
        return following


def _common(one: list[int], other: list[int]) -> int:
    """Tokens that both begin with."""
    return len(os.path.commonprefix([one, other]))


def _row_bucket(count: int, batch_size: int, multiple: int) -> int:
    """Smallest of batch_size, batch_size / 2, ... that holds ``count`` rows, a multiple of that."""
    rows = batch_size
    while rows // 2 >= max(count, _FEWEST_ROWS) and rows // 2 % multiple == 0:
        rows //= 2
    return rows


def _call_size(count: int, rows: int, *, filled: float) -> int:
    """Rows of the next call for ``count`` rows: the fewest that hold all, if that many are filled.

    Otherwise as many as can be filled. Sizes are the powers of `_STEP` and all rows.
    """
    fewer = size = 1
    while size < count:
        fewer, size = size, min(size * _STEP, rows)
    return size if count >= filled * size else fewer


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
