"""The protocol of everything that answers prompts: local model, server, replay, scripted fake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict

from msjax.generation.ledger import Usage

if TYPE_CHECKING:
    import jax

__all__ = ["REFUSED", "Completion", "Engine", "Message", "Session", "asked"]


class Message(TypedDict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


def asked(question: str) -> list[Message]:
    """A conversation that begins with one user message."""
    return [{"role": "user", "content": question}]


@dataclass(frozen=True)
class Completion:
    """One completion of one conversation.

    Attributes:
        text: the completion without its end token.
        token_logprob: mean natural log-probability per completion token, end token included,
            under the model's own distribution; NaN when unknown.
        finished: False when it was cut at the limit of new tokens.
        usage: tokens of the request.
    """

    text: str
    token_logprob: float
    finished: bool
    usage: Usage


REFUSED = Completion("", float("nan"), False, Usage(prompt=0, cached=0, completion=0))
"""What a conversation gets that is longer than the model's context: nothing was computed."""


class Session(Protocol):
    """Conversations that advance together; user and assistant take turns in each."""

    def complete(self, keys: Sequence[jax.Array | None]) -> list[Completion | None]:
        """Samples the assistant's next turn in every conversation that goes on.

        Args:
            keys: one typed key per conversation, in the order of `Engine.start`; None finishes
                that conversation for good.

        Returns:
            One completion per conversation, None for the finished ones and `REFUSED` for those
            that are longer than the model's context, in this round and in all later ones.

        Raises:
            InputError: wrong number of keys, or a key for a conversation that is finished or
                waits for a user message.
        """
        ...

    def extend(self, messages: Sequence[str | None]) -> None:
        """Appends a user message to every conversation that goes on; None appends nothing.

        Raises:
            InputError: wrong number of messages, or a message for a conversation that is finished
                or waits for a completion.
        """
        ...


class Engine(Protocol):
    """Starts conversations; how completions are sampled is settled when it is constructed."""

    @property
    def name(self) -> str:
        """The model's name, as records show it."""
        ...

    def start(self, conversations: Sequence[Sequence[Message]]) -> Session:
        """Opens conversations, each with what has been said so far; a user message comes last.

        Raises:
            InputError: a conversation that does not end with a user message.
        """
        ...
