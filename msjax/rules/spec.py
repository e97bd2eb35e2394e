"""What a catalogue holds of a rule: its name, its settings, what it needs and what it learns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from msjax.data.runs import Runs
from msjax.rules.protocol import StoppingRule, restopped

__all__ = [
    "ANSWERS",
    "NEEDS",
    "PROBABILITIES",
    "SCORES",
    "Entry",
    "Training",
    "at_most",
    "constant",
    "offered_by",
]

ANSWERS, SCORES = frozenset({"answers"}), frozenset({"scores"})
PROBABILITIES = frozenset({"probabilities"})
NEEDS = {
    "answers": "answers",
    "scores": "a score for every answer",
    "probabilities": "a score in [0, 1] for every answer",
}
"""What each need is in words."""


def offered_by(pool: Runs) -> frozenset[str]:
    """Which needs the pool meets."""
    met = (pool.answered, pool.scored, pool.scores_are_probabilities)
    return frozenset(need for need, there in zip(NEEDS, met, strict=True) if there)


class Training(NamedTuple):
    """Labelled questions from which a rule may learn: not those it is judged on.

    Attributes:
        pool: recorded answers.
        chosen: which of its questions may be looked at.
        value: worth of a correct answer.
        price: cost of one token.
    """

    pool: Runs
    chosen: Bool[np.ndarray, " question"]
    value: float
    price: float


@dataclass(frozen=True)
class Entry:
    """A rule with a grid of settings.

    Attributes:
        name: what users type.
        says: the rule in one sentence.
        make: the rule, from one setting's parameters and from what it is told of the question.
        settings: the settings in words.
        parameters: their parameters, first axis the setting, or a `Grid`, which is not
            learnt; may look at `Training`.
        default: the setting used where none is chosen.
        needs: of "answers", "scores" and "probabilities" (scores in [0, 1]), what it needs.
        told: what it is told of every question beforehand, if anything.
    """

    name: str
    says: str
    make: Callable[[Any, Any], StoppingRule]
    settings: tuple[str, ...]
    parameters: Callable[[Training], Any]
    default: int
    needs: frozenset[str]
    told: Callable[[Runs], Shaped[np.ndarray, "question ..."]] | None = None


def at_most(rule: StoppingRule, answers: Int[Array, ""] | int) -> StoppingRule:
    """The rule, stopped at the latest after so many answers."""
    return restopped(rule, lambda asked, stop: stop | (asked >= answers))


def constant(values: Any) -> Callable[[Training], Any]:
    """Parameters that nothing is learnt for."""
    array = np.asarray(values)
    return lambda _: array
