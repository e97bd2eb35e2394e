"""What a proxy did with a request, and labels that came later: one JSON line each.

A line is written when its request is answered, so that answers have no labels then. A label is a
line of its own, which names the request. `msjax.data.importers` puts the two together.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt

from msjax.data.trajectory import Protocol, StoredScore
from msjax.data.usage import Usage

__all__ = ["Arm", "Label", "Served"]

Arm = Literal["rule", "baseline", "shadow", "override"]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    served: Literal[1] = 1
    time: float
    """Seconds since 1970."""


class Served(_Line):
    """One request that was answered.

    Attributes:
        id: of the request; labels name it.
        arm: whether the rule decided, the baseline (held out, or after an alarm), both were watched
            while all answers were asked for, or the request named its own rule.
        rule: what decided.
        scorer: what read the answers.
        question: the text of the last user message.
        gold: the right answer, where the request said it.
        stop_reason: "failed" where a later answer could not be had.

    The other attributes are those of `Trajectory`.
    """

    id: str
    arm: Arm
    rule: str
    scorer: str
    model: str
    protocol: Protocol
    question: str
    gold: str | None = None
    answers: tuple[str | None, ...]
    scores: tuple[StoredScore | None, ...]
    verdicts: tuple[bool | None, ...]
    tokens: tuple[Usage, ...]
    completions: tuple[str, ...]
    finish: tuple[str | None, ...]
    returned: NonNegativeInt
    stop_reason: Literal["rule", "budget", "failed"]
    belief: FiniteFloat | None = None


class Label(_Line):
    """What was said later of a request: its right answer, or whether what it returned is right."""

    feedback: str
    gold: str | None = None
    correct: bool | None = None
