"""What is said to a model, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypedDict

from msjax.data.usage import Usage

__all__ = [
    "CUT",
    "FAILED",
    "FINISHED",
    "KNOWN",
    "REFUSED",
    "REJECTED",
    "TOO_LONG",
    "UNASKED",
    "Completion",
    "Message",
    "Score",
    "asked",
]


class Message(TypedDict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


def asked(question: str) -> list[Message]:
    """A conversation that begins with one user message."""
    return [{"role": "user", "content": question}]


class Score(NamedTuple):
    """A score of an answer, and its cost.

    Attributes:
        value: larger is better; NaN if there is none.
        tokens: that a verifier read for it; None if that is not reported.
    """

    value: float
    tokens: int | None = 0


@dataclass(frozen=True)
class Completion:
    """One completion of one conversation.

    Attributes:
        text: the completion without its end token.
        token_logprob: mean natural log-probability per completion token, end token included,
            under the model's own distribution; NaN when unknown.
        entropy: mean entropy in nats of the model's own distribution over the next token, over the
            same tokens; NaN when unknown.
        finished: False when it was cut at the limit of new tokens.
        usage: tokens of the request.
        score: by the turn's own `score`, if it has one.
        finish: why it ended, in the engine's words (stop, length, content_filter, ...); None if
            that is not said.
        reasoning: thoughts that came apart from the text; no answer is read from them.
        thinking: whether the prompt ended inside a thought, so that the text begins with one.
        log_odds: of yes against no (nats) where the text says the last of these words; NaN when
            unknown.
    """

    text: str
    token_logprob: float
    entropy: float
    finished: bool
    usage: Usage
    score: Score = Score(float("nan"))
    finish: str | None = None
    reasoning: str = ""
    thinking: bool = False
    log_odds: float = float("nan")

    @property
    def unasked(self) -> bool:
        """Whether the model never answered, so that this stands for no completion."""
        return self.finish in UNASKED


TOO_LONG = "longer_than_context"
"""Why `REFUSED` ended."""
REJECTED = "refused_by_server"
"""Why a completion is none of which the server would not hear."""
FAILED = "failed_at_server"
"""Why a completion is none at which the server failed every time."""
REFUSED = Completion(
    "",
    float("nan"),
    float("nan"),
    False,
    Usage(prompt=0, cached=0, completion=0),
    finish=TOO_LONG,
)
"""What a conversation gets that is longer than the model's context: nothing was computed."""
FINISHED = {
    "stop",
    "eos",
    "eos_token",
    "end_turn",
    "stop_sequence",
    "stop_token",
    "stop_str",
    "complete",
    "completed",
}
"""Reasons that say that the model ended its answer itself, in lower case."""
CUT = {"length", "max_tokens", "max_length", "max_output_tokens", "model_length", "token_limit"}
"""Reasons that say that it was cut at the limit of new tokens."""
UNASKED = {TOO_LONG, REJECTED, FAILED}
"""Reasons of msjax's own: there is no completion."""
KNOWN = FINISHED | CUT | UNASKED | {"content_filter", "tool_calls", "function_call"}
"""Reasons whose meaning is known; all but `FINISHED` count as cut off."""
