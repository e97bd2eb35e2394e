"""A model that answers what its key says, for tests of what is asked of it."""

import itertools

import jax

from msjax.data.messages import Completion
from msjax.data.usage import Usage
from msjax.llm.engine import next_turn, scored
from msjax.llm.record import RunPlan


class ScriptedEngine:
    """Answers a random number that depends on the key alone; can be told to break."""

    name = "scripted"

    def __init__(self, break_after: int | None = None, batch_size: int = 2) -> None:
        self.asked = 0
        self.batch_size = batch_size
        self.break_after = break_after
        self.conversations: list[list[str]] = []

    def converse(self, conversations) -> None:
        waiting, live = iter(conversations), []
        while True:
            live += [self.begin(c) for c in itertools.islice(waiting, self.batch_size - len(live))]
            if not live:
                return
            live = [one for one in live if self.goes_on(*one)]

    def begin(self, conversation):
        self.conversations.append([])
        return conversation, self.conversations[-1], [next_turn(conversation)]

    def goes_on(self, conversation, text, turns) -> bool:
        """Answers one turn; whether there is another."""
        turn = turns[-1]
        text += [message["content"] for message in turn.messages]
        if self.asked == self.break_after:
            raise KeyboardInterrupt
        self.asked += 1
        answer = f"It is {int(jax.random.randint(turn.key, (), 0, 10))}."
        text.append(answer)
        usage = Usage(prompt=10 * len(text), cached=10 * (len(text) - 2), completion=4)
        completion = self.said(Completion(answer, -0.25, 0.5, True, usage, finish="stop"))
        completion = scored(turn, completion)
        turns.append(next_turn(conversation, completion))
        return turns[-1] is not None

    def said(self, completion: Completion) -> Completion:
        """What it answers."""
        return completion


def talk(engine, talks):
    """The completions that each talk, a list of turns, was answered with."""
    heard = [[] for _ in talks]

    def one(turns, completions):
        for turn in turns:
            completions.append((yield turn))

    engine.converse(itertools.starmap(one, zip(talks, heard, strict=True)))
    return heard


def plan(**changes) -> RunPlan:
    fields = {
        "model": "scripted",
        "start": 0,
        "count": 5,
        "rounds": 2,
        "seed": 4,
        "settings": {"rule": "fixed: 2", "seed": 4},
    }
    return RunPlan(**fields | changes)
