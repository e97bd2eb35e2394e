"""Scores of answers: what the model's own probabilities say, or what another model says."""

import math
from collections.abc import Callable

from msjax.data.messages import Completion, Score
from msjax.errors import InputError
from msjax.tasks.benchmark import Question

__all__ = ["SCORES", "Scorer", "find_score"]


Scorer = Callable[[Question, Completion], Score]
"""Scores a completion; may be called from several threads at a time."""


def token_logprob(_: Question, completion: Completion) -> Score:
    """Mean natural log-probability per token, <= 0."""
    return Score(completion.token_logprob)


def confidence(_: Question, completion: Completion) -> Score:
    """Geometric mean of the tokens' probabilities, in [0, 1], as rules that see scores need."""
    return Score(math.exp(completion.token_logprob))


def certainty(_: Question, completion: Completion) -> Score:
    """Mean entropy of the next token's distribution in nats, negated, <= 0: larger is surer."""
    return Score(-completion.entropy)


SCORES: dict[str, Scorer] = {
    "token_logprob": token_logprob,
    "confidence": confidence,
    "certainty": certainty,
}
"""Scores by name. NaN where the engine gives no probabilities."""


def find_score(name: str) -> Scorer:
    """The score of that name; raises InputError, naming those there are, when there is none."""
    if name not in SCORES:
        raise InputError(
            f"score is {name!r}; choose from {', '.join(SCORES)}, or reward with a reward model"
        )
    return SCORES[name]
