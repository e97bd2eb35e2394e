"""Scores of answers by a reward model behind vLLM's pooling interface."""

from __future__ import annotations

from functools import partial
from statistics import fmean

from pydantic import BaseModel, Field, FiniteFloat, PositiveInt

from msjax.data.messages import Completion, Score
from msjax.errors import ServerError
from msjax.llm.server import Server
from msjax.tasks.benchmark import Question

__all__ = ["RewardModel"]


class RewardModel:
    """Scores an answer by a reward model; call it with question and completion.

    An outcome reward model gives one number per answer, in whatever unit it was trained for. A
    process reward model gives the probabilities of every step being wrong and right; the score is
    the mean over steps of the latter, as OptScale scores its samples (its reference code, bon.py).
    The model sees the question, as one user message, and the completion.

    Args:
        base_url: where `/pooling` is, as a rule without /v1.
        model: what the server calls the model.
        api_key: see `Server`.
        timeout: see `Server`.
        patience: see `Server`.

    Raises:
        InputError: a setting outside its range; on scoring, a request that the server refuses.
        ServerError: on scoring, a request that failed for good, or an answer that is no score.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "none",
        timeout: float = 600.0,
        patience: float = 120.0,
    ):
        self.model = model
        self._server = Server(base_url, api_key=api_key, timeout=timeout, patience=patience)
        self._client = self._server.waiting_client()

    def __call__(self, question: Question, completion: Completion) -> Score:
        """The score, and the tokens that the reward model read (None if it reports none)."""
        import openai

        messages = [
            {"role": "user", "content": question.text},
            {"role": "assistant", "content": completion.text},
        ]
        try:
            answer = self._server.tried_in_thread(
                partial(
                    self._client.post,
                    "/pooling",
                    body={"model": self.model, "messages": messages},
                    cast_to=openai.HttpxBinaryResponseContent,
                )
            )
        except (openai.APIError, TimeoutError) as error:
            relief = "lower concurrency or batch_size"
            raise self._server.failure(error, self.model, relief) from error
        reply = self._server.parsed(_Reply, answer.text)
        tokens = None if reply.usage is None else reply.usage.prompt_tokens
        return Score(self._value(reply.data[0].data), tokens)

    def _value(self, found: list[float] | list[list[float]]) -> float:
        steps = [row for row in found if isinstance(row, list)]
        if not steps and len(found) == 1:
            return float(found[0])  # type: ignore[arg-type]
        if steps and all(len(row) == 2 for row in steps):
            return fmean(row[1] for row in steps)
        raise ServerError(
            f"{self._server.base_url} answered for {self.model!r} with {len(found)} numbers or "
            "rows, which is neither one reward nor two probabilities per step; serve a reward model"
        )


class _Pooled(BaseModel):
    data: list[FiniteFloat] | list[list[FiniteFloat]] = Field(min_length=1)


class _Usage(BaseModel):
    prompt_tokens: PositiveInt | None = None


class _Reply(BaseModel):
    data: list[_Pooled] = Field(min_length=1)
    usage: _Usage | None = None
