"""Scores of answers that cost nothing: what the model's own probabilities say."""

import math
from collections.abc import Callable

from msjax.errors import InputError
from msjax.generation.engine import Completion

__all__ = ["SCORES", "Scorer", "find_score"]

Scorer = Callable[[Completion], float]
"""A score of a completion, NaN if there is none. Whatever it costs is to be in its `usage`."""


def token_logprob(completion: Completion) -> float:
    """Mean natural log-probability per token, <= 0."""
    return completion.token_logprob


def confidence(completion: Completion) -> float:
    """Geometric mean of the tokens' probabilities, in [0, 1], as rules that see scores need."""
    return math.exp(completion.token_logprob)


SCORES: dict[str, Scorer] = {"token_logprob": token_logprob, "confidence": confidence}
"""Scores by name. NaN where the engine gives no probabilities."""


def find_score(name: str) -> Scorer:
    """The score of that name; raises InputError, naming those there are, when there is none."""
    if name not in SCORES:
        raise InputError(f"score is {name!r}; choose from {', '.join(SCORES)}")
    return SCORES[name]
