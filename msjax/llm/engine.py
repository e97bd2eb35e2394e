"""The protocol of everything that answers prompts: local model, server, replay, scripted fake."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import jax

from msjax.data.messages import Completion, Message, Score
from msjax.errors import InputError

__all__ = [
    "Conversation",
    "Engine",
    "Sampling",
    "Turn",
    "ask",
    "next_turn",
    "scored",
]


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from the logits.

    Attributes:
        temperature: divides the logits; 0 takes the most probable token.
        top_p: keep only the smallest set of most probable tokens that holds this much
            probability (tokens tied with the last one stay too); None or 1 keeps all.

    Raises:
        InputError: a setting outside its range.

    Reference:
        Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1 (top_p).
    """

    temperature: float = 0.0
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must lie in (0, 1]")


class Turn(NamedTuple):
    """What a conversation asks the model next.

    Attributes:
        messages: what is said, a user message last; appended to what was said before.
        key: typed key of all that is sampled in answer.
        new_conversation: whether what was said before is dropped instead.
        score: scores the completion before the conversation gets it. It may wait for another
            server: engines call it from several threads at a time.
    """

    messages: Sequence[Message]
    key: jax.Array
    new_conversation: bool = False
    score: Callable[[Completion], Score] | None = None


Conversation = Generator[Turn, Completion | None, None]
"""Asks by yielding turns, is sent a completion for each, and is over when it returns.

Between a completion and the next turn it may decide anything, so that stopping rules live here.
"""


class Engine(Protocol):
    """Carries on conversations; how completions are sampled is settled when it is constructed.

    It may have `settings`, which runs record beside their own (such as the hash of a chat
    template), and `notes`, sentences on its requests that runs say once at the end.
    """

    @property
    def name(self) -> str:
        """The model's name, as records show it."""
        ...

    def converse(self, conversations: Iterable[Conversation]) -> None:
        """Carries on all conversations until they are over.

        They are begun in the order given, as soon as there is room, and advance independently: one
        that is over makes room at once. Each completion is given its turn's `score` before it is
        sent (see `scored`). What is sampled depends on a turn's key and on what was said, on
        nothing else (beyond float rounding). A turn that is longer than the model's context is
        answered by `REFUSED`, as are all later ones of that conversation until it starts over. If
        an exception ends this, the conversations under way are closed.

        Raises:
            InputError: a turn that does not end with a user message.
        """
        ...


def ask(
    engine: Engine, conversations: Sequence[Sequence[Message]], keys: Sequence[jax.Array]
) -> list[Completion]:
    """One completion per conversation, in their order; see `Engine.converse`."""
    found: dict[int, Completion] = {}

    def one(index: int, turn: Turn) -> Conversation:
        completion = yield turn
        assert completion is not None
        found[index] = completion

    turns = [Turn(messages, key, True) for messages, key in zip(conversations, keys, strict=True)]
    engine.converse(one(index, turn) for index, turn in enumerate(turns))
    return [found[index] for index in range(len(turns))]


def next_turn(conversation: Conversation, completion: Completion | None = None) -> Turn | None:
    """What the conversation asks in answer to a completion (None begins it); None: it is over.

    Raises:
        InputError: the turn does not end with a user message.
    """
    try:
        turn = conversation.send(completion)
    except StopIteration:
        return None
    if not turn.messages or turn.messages[-1]["role"] != "user":
        raise InputError("a turn must end with a user message; put one last in its messages")
    return turn


def scored(turn: Turn, completion: Completion) -> Completion:
    """The completion with the score that its turn asks for; what was never answered has none."""
    if turn.score is None or completion.unasked:
        return completion
    return replace(completion, score=turn.score(completion))
