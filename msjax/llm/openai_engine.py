"""Engine over a server that speaks OpenAI's chat protocol (vLLM, SGLang, llama.cpp, transformers).

docs/reliability.md says what happens when such a server fails, refuses or answers nonsense.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import jax
from pydantic import BaseModel, Field, ValidationError

from msjax.data.messages import REFUSED, Completion, Message
from msjax.data.usage import Usage
from msjax.errors import InputError, ServerError
from msjax.llm.concurrency import beside, wait
from msjax.llm.engine import Conversation, Sampling, next_turn, scored
from msjax.llm.server import FIRST_ANSWER, Server, openai

__all__ = ["OpenAIEngine", "ParallelSamples", "RequestCounts"]

_TOO_LONG = re.compile(r"context[ _](length|size|window)|maximum model length", re.IGNORECASE)


@dataclass
class RequestCounts:
    """Requests of an engine so far.

    Attributes:
        sent: requests, however often each was tried.
        retried: further tries of requests that were answered in the end. Tokens that the server
            spent on a try that failed are in no account, because it does not report them.
        refused: requests refused because the conversation is longer than the model's context.
        cancelled: requests given up while in flight; the tokens they had cost are unknown too.
    """

    sent: int = 0
    retried: int = 0
    refused: int = 0
    cancelled: int = 0


@dataclass(frozen=True)
class ParallelSamples:
    """Completions of one conversation, sampled in parallel until a rule stopped.

    Attributes:
        seen: what the rule decided on, in the order of the keys.
        surplus: completions that had arrived when it stopped but were not its turn yet; they cost
            tokens and are no part of the decision.
        cancelled: requests in flight that were given up; their tokens are unknown.
    """

    seen: tuple[Completion, ...]
    surplus: tuple[Completion, ...]
    cancelled: int


class OpenAIEngine:
    """Answers prompts through a server, many requests at a time.

    Conversations are kept here and sent whole in every round; whether the server still has their
    beginning in its cache is its business, and shows in `Usage.cached` where it reports that.
    A server that reports no cached tokens is taken to have cached none, so that `Usage.computed`
    is then an upper bound. Log-probabilities are the server's own, NaN where it gives none.

    Args:
        base_url: of the server's API, as a rule ending in /v1.
        model: what the server calls the model; records show this name.
        api_key, timeout, max_retries: see `Server`.
        concurrency: most requests in flight.
        max_new_tokens: most tokens per completion, the end token included.
        temperature: of sampling; 0 takes the most probable token.
        top_p: nucleus of sampling; None keeps every token.

    Attributes:
        requests: counts of the requests so far.

    Raises:
        InputError: a setting outside its range, or a model the server does not list.
        ServerError: nothing usable answers at `base_url`.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "none",
        concurrency: int = 32,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float | None = None,
        timeout: float = 600.0,
        max_retries: int = 5,
    ):
        for setting, value in (("concurrency", concurrency), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise InputError(f"{setting} is {value}; it must be at least 1")
        self.name = model
        self.concurrency = concurrency
        self.max_new_tokens = max_new_tokens
        self.sampling = Sampling(temperature, top_p)
        self.requests = RequestCounts()
        self._server = Server(base_url, api_key=api_key, timeout=timeout, max_retries=max_retries)
        wait(self._check_model())

    def converse(self, conversations: Iterable[Conversation]) -> None:
        """Carries on all conversations until they are over; see `engine.Engine.converse`.

        How many tokens a turn has is known to the server alone: one that it refuses as too long is
        answered by `REFUSED`, at no tokens.

        Raises:
            InputError: a turn that does not end with a user message, or a request that the server
                refuses.
            ServerError: a request failed for good; those in flight are cancelled.
        """
        wait(self._converse(iter(conversations)))

    async def _converse(self, waiting: Iterator[Conversation]) -> None:
        slots = asyncio.Semaphore(self.concurrency)
        async with self._server.client() as client:
            tasks = [
                asyncio.create_task(self._carry_on(client, slots, waiting))
                for _ in range(self.concurrency)
            ]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_on(
        self,
        client: openai.AsyncOpenAI,
        slots: asyncio.Semaphore,
        waiting: Iterator[Conversation],
    ) -> None:
        """One conversation after the other, until none waits any more."""
        for conversation in waiting:
            with closing(conversation):
                said: list[Message] = []
                completion: Completion | None = None
                while (turn := next_turn(conversation, completion)) is not None:
                    if turn.afresh:
                        said, completion = [], None
                    said += turn.messages
                    if completion is not REFUSED:
                        completion = await self._ask(client, slots, said, _seed(turn.key))
                        if turn.score is not None:
                            completion = await beside(partial(scored, turn, completion))
                    said.append({"role": "assistant", "content": completion.text})

    def sample_until(
        self,
        conversation: Sequence[Message],
        keys: Sequence[jax.Array],
        stop: Callable[[Sequence[Completion]], bool],
    ) -> ParallelSamples:
        """Samples one answer per key in parallel and cancels the rest once a rule stops.

        The rule sees answers in the order of the keys, not of arrival: it decides as if they had
        been sampled one after the other, whereas short answers would otherwise come first and
        count for more than they should. An answer that is late delays the decision. One that does
        not fit the model's context is `REFUSED`.

        Args:
            conversation: what was said so far; a user message comes last.
            keys: typed, one per sample; `concurrency` of them are in flight at a time.
            stop: whether to stop, given the completions so far; called after each.

        Raises:
            InputError: the conversation does not end with a user message, or the server refuses a
                request.
            ServerError: a request failed for good.
        """
        if not conversation or conversation[-1]["role"] != "user":
            raise InputError("conversation must end with a user message")
        before = self.requests.cancelled
        seen, surplus = wait(self._collect([conversation] * len(keys), keys, stop))
        return ParallelSamples(seen, surplus, self.requests.cancelled - before)

    async def _collect(
        self,
        conversations: Sequence[Sequence[Message]],
        keys: Sequence[jax.Array],
        stop: Callable[[Sequence[Completion]], bool],
    ) -> tuple[tuple[Completion, ...], tuple[Completion, ...]]:
        """Completions in order until `stop`, and those that had arrived out of their turn."""
        slots = asyncio.Semaphore(self.concurrency)
        seen: list[Completion] = []
        async with self._server.client() as client:
            tasks = [
                asyncio.create_task(self._ask(client, slots, messages, _seed(key)))
                for messages, key in zip(conversations, keys, strict=True)
            ]
            try:
                for task in tasks:
                    seen.append(await task)
                    if stop(seen):
                        break
            finally:
                for task in tasks:
                    task.cancel()
                others = await asyncio.gather(*tasks[len(seen) :], return_exceptions=True)
        return tuple(seen), tuple(found for found in others if isinstance(found, Completion))

    async def _ask(
        self,
        client: openai.AsyncOpenAI,
        slots: asyncio.Semaphore,
        messages: Sequence[Message],
        seed: int,
    ) -> Completion:
        request: dict[str, Any] = {
            "model": self.name,
            "messages": messages,
            "max_tokens": self.max_new_tokens,
            "temperature": self.sampling.temperature,
            # What is not said is the server's to choose, and llama.cpp's is not to keep all.
            "top_p": 1.0 if self.sampling.top_p is None else self.sampling.top_p,
            "seed": seed,
            "logprobs": True,
        }
        async with slots:
            self.requests.sent += 1
            try:
                raw = await client.chat.completions.with_raw_response.create(**request)
            except asyncio.CancelledError:
                self.requests.cancelled += 1
                raise
            except openai.BadRequestError as error:
                if not _TOO_LONG.search(error.response.text):
                    raise self._failure(error) from error
                self.requests.refused += 1
                return REFUSED
            except openai.APIError as error:
                raise self._failure(error) from error
            self.requests.retried += raw.retries_taken
            return self._completion(raw.text)

    def _completion(self, body: str) -> Completion:
        reply = self._server.parsed(_Reply, body)
        choice, reported = reply.choices[0], reply.usage
        if reported is None:
            raise ServerError(
                f"{self._server.base_url} reports no usage, so that the cost of its answers is "
                "unknown; use a server that fills the field usage"
            )
        details = reported.prompt_tokens_details
        try:
            usage = Usage(
                prompt=reported.prompt_tokens,
                cached=(details and details.cached_tokens) or 0,
                completion=reported.completion_tokens,
            )
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ServerError(
                f"{self._server.base_url} reports a usage that cannot be ({reason}); use another "
                "version of the server"
            ) from error
        tokens = (choice.logprobs and choice.logprobs.content) or []
        logprob = fmean(token.logprob for token in tokens) if tokens else float("nan")
        return Completion(
            choice.message.content or "",
            logprob,
            float("nan"),
            choice.finish_reason == "stop",
            usage,
        )

    async def _check_model(self) -> None:
        try:
            async with self._server.client() as client:
                once = client.with_options(max_retries=0, timeout=FIRST_ANSWER)
                raw = await once.models.with_raw_response.list()
        except openai.APIError as error:
            raise self._failure(error) from error
        served = [model.id for model in self._server.parsed(_Models, raw.text).data]
        # `transformers serve` lists its download cache, where a local folder does not show.
        if served and self.name not in served:
            raise InputError(
                f"model {self.name!r} is not served at {self._server.base_url}; "
                f"served are {', '.join(served)}"
            )

    def _failure(self, error: openai.APIError) -> InputError | ServerError:
        relief = f"lower concurrency (now {self.concurrency}) or max_new_tokens"
        return self._server.failure(error, self.name, relief)


def _seed(key: jax.Array) -> int:
    """31 bits: the widest seed that every server takes."""
    return int(jax.random.bits(key)) >> 1


class _Message(BaseModel):
    content: str | None = None


class _TokenLogprob(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    content: list[_TokenLogprob] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class _ReportedUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _PromptDetails | None = None


class _Reply(BaseModel):
    """What is read of a chat completion; servers differ in the rest."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _ReportedUsage | None = None


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]
