"""A model that answers what a script says, for tests of what is asked of it."""

import itertools
from collections.abc import Callable, Iterable, Sequence

import jax

from msjax.data.messages import Completion
from msjax.data.usage import Usage
from msjax.llm.engine import Conversation, Turn, next_turn, scored

__all__ = ["ScriptedEngine", "random_digit"]

Reply = Callable[[Sequence[str], jax.Array], str]
"""What is answered to all that was said so far, given the turn's key."""


def random_digit(_: Sequence[str], key: jax.Array) -> str:
    """A number that depends on the key alone."""
    return f"It is {int(jax.random.randint(key, (), 0, 10))}."


class ScriptedEngine:
    """An `Engine` without a model: every completion is what `reply` says.

    Args:
        reply: from the texts said so far and the turn's key to the completion.
        batch_size: conversations carried on together.
        break_after: raises KeyboardInterrupt in place of this completion, counted from 0.
        name: of the model, for records.

    Attributes:
        asked: completions given.
        conversations: all that was said, one list of texts for each conversation.
    """

    def __init__(
        self,
        reply: Reply = random_digit,
        *,
        batch_size: int = 2,
        break_after: int | None = None,
        name: str = "scripted",
    ) -> None:
        self.name, self.reply = name, reply
        self.batch_size, self.break_after = batch_size, break_after
        self.asked = 0
        self.conversations: list[list[str]] = []

    def converse(self, conversations: Iterable[Conversation]) -> None:
        """Carries on all conversations until they are over; see `Engine.converse`."""
        waiting, live = iter(conversations), list[_Live]()
        while True:
            for conversation in itertools.islice(waiting, self.batch_size - len(live)):
                self.conversations.append([])
                turn = next_turn(conversation)
                live.append((conversation, self.conversations[-1], turn))
            if not live:
                return
            live = [self._answered(*one) for one in live]
            live = [one for one in live if one[2] is not None]

    def _answered(self, conversation: Conversation, said: list[str], turn: Turn | None) -> "_Live":
        if turn is None:
            return conversation, said, None
        said += [message["content"] for message in turn.messages]
        if self.asked == self.break_after:
            raise KeyboardInterrupt
        self.asked += 1
        answer = self.reply(said, turn.key)
        said.append(answer)
        usage = Usage(prompt=10 * len(said), cached=10 * (len(said) - 2), completion=4)
        completion = self.said(Completion(answer, -0.25, 0.5, True, usage, finish="stop"))
        return conversation, said, next_turn(conversation, scored(turn, completion))

    def said(self, completion: Completion) -> Completion:
        """What it answers; override it for completions that were cut, or accounts that lack."""
        return completion


_Live = tuple[Conversation, list[str], Turn | None]
