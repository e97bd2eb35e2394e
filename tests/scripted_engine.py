"""A model that answers what its key says, for tests of what is asked of it."""

import jax

from msjax.generation.engine import Completion
from msjax.generation.ledger import Usage
from msjax.generation.run import RunPlan


class ScriptedEngine:
    """Answers a random number that depends on the key alone; can be told to break."""

    name = "scripted"

    def __init__(self, break_after: int | None = None) -> None:
        self.asked = 0
        self.break_after = break_after
        self.conversations: list[list[str]] = []

    def start(self, conversations):
        return ScriptedSession(self, conversations)


class ScriptedSession:
    def __init__(self, engine: ScriptedEngine, conversations) -> None:
        self.engine = engine
        self.texts = [[message["content"] for message in c] for c in conversations]
        engine.conversations += self.texts

    def complete(self, keys):
        found = []
        for text, key in zip(self.texts, keys, strict=True):
            if key is None:
                found.append(None)
                continue
            if self.engine.asked == self.engine.break_after:
                raise KeyboardInterrupt
            self.engine.asked += 1
            answer = f"It is {int(jax.random.randint(key, (), 0, 10))}."
            text.append(answer)
            usage = Usage(prompt=10 * len(text), cached=10 * (len(text) - 2), completion=4)
            found.append(Completion(answer, -0.25, True, usage))
        return found

    def extend(self, messages):
        for text, message in zip(self.texts, messages, strict=True):
            if message is not None:
                text.append(message)


def plan(**changes) -> RunPlan:
    fields = {
        "model": "scripted",
        "start": 0,
        "count": 5,
        "rounds": 2,
        "seed": 4,
        "batch_size": 2,
        "settings": {"rule": "fixed: 2", "seed": 4},
    }
    return RunPlan(**fields | changes)
