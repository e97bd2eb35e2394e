"""Engine over a server that speaks OpenAI's chat protocol (vLLM, SGLang, llama.cpp, transformers).

docs/reliability.md says what happens when such a server fails, refuses or answers nonsense.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeVar

import jax
from pydantic import BaseModel, Field, ValidationError

from msjax.errors import InputError, ServerError
from msjax.generation.engine import REFUSED, Completion, Message, asked
from msjax.generation.ledger import Usage
from msjax.models.decode import Sampling

try:
    import openai
except ImportError as missing:
    raise InputError(
        "served models need the package openai; pip install 'msjax[served]'"
    ) from missing

__all__ = ["OpenAIEngine", "OpenAISession", "ParallelSamples", "RequestCounts"]

_T = TypeVar("_T")
_Shape = TypeVar("_Shape", bound=BaseModel)
_FIRST_ANSWER = 10.0  # seconds a server may take to accept a connection or to list its models
_SHOWN = 300  # characters of an answer that error messages show
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

    Connection errors, timeouts, 408, 409, 429 and 5xx are tried again: after what the server's
    Retry-After says (up to two minutes), else after 0.5 s, 1 s, ... up to 8 s, less a random
    quarter.

    Args:
        base_url: of the server's API, as a rule ending in /v1.
        model: what the server calls the model; records show this name.
        api_key: for servers that ask for one.
        concurrency: most requests in flight.
        max_new_tokens: most tokens per completion, the end token included.
        temperature: of sampling; 0 takes the most probable token.
        top_p: nucleus of sampling; None keeps every token.
        timeout: seconds a completion may take, once its request is sent.
        max_retries: most further tries of one request.

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
        if not base_url.startswith(("http://", "https://")):
            raise InputError(f"base_url is {base_url!r}; it must begin with http:// or https://")
        for setting, value, least in (
            ("concurrency", concurrency, 1),
            ("max_new_tokens", max_new_tokens, 1),
            ("max_retries", max_retries, 0),
        ):
            if value < least:
                raise InputError(f"{setting} is {value}; it must be at least {least}")
        if not timeout > 0:
            raise InputError(f"timeout is {timeout}; it must be more than 0 seconds")
        self.name = model
        self.base_url = base_url
        self.concurrency = concurrency
        self.max_new_tokens = max_new_tokens
        self.sampling = Sampling(temperature, top_p)
        self.timeout = timeout
        self.max_retries = max_retries
        self.requests = RequestCounts()
        self._api_key = api_key
        _wait(self._check_model())

    def start(self, conversations: Sequence[Sequence[Message]]) -> OpenAISession:
        """Opens conversations; see `engine.Engine.start`.

        How many tokens a conversation has is known to the server alone. One that is longer than
        the model's context is answered by the empty, unfinished completion at no tokens, in this
        round and in all later ones, and the others go on.

        Raises:
            InputError: a conversation that does not end with a user message.
        """
        for index, messages in enumerate(conversations):
            _check_asks(f"conversation {index}", messages)
        return OpenAISession(self, [_Conversation(list(messages)) for messages in conversations])

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
        not fit the model's context is empty and unfinished, as in `start`.

        Args:
            conversation: what was said so far; a user message comes last.
            keys: typed, one per sample; `concurrency` of them are in flight at a time.
            stop: whether to stop, given the completions so far; called after each.

        Raises:
            InputError: the conversation does not end with a user message, or the server refuses a
                request.
            ServerError: a request failed for good.
        """
        _check_asks("conversation", conversation)
        before = self.requests.cancelled
        seen, surplus = _wait(self._collect([conversation] * len(keys), keys, stop))
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
        async with self._client() as client:
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
            "seed": seed,
            "logprobs": True,
        }
        if self.sampling.top_p is not None:
            request["top_p"] = self.sampling.top_p
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
        reply = self._parsed(_Reply, body)
        choice, reported = reply.choices[0], reply.usage
        if reported is None:
            raise ServerError(
                f"{self.base_url} reports no usage, so that the cost of its answers is unknown; "
                "use a server that fills the field usage"
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
                f"{self.base_url} reports a usage that cannot be ({reason}); use another version "
                "of the server"
            ) from error
        tokens = (choice.logprobs and choice.logprobs.content) or []
        logprob = fmean(token.logprob for token in tokens) if tokens else float("nan")
        return Completion(
            choice.message.content or "", logprob, choice.finish_reason == "stop", usage
        )

    async def _check_model(self) -> None:
        try:
            async with self._client() as client:
                once = client.with_options(max_retries=0, timeout=_FIRST_ANSWER)
                raw = await once.models.with_raw_response.list()
        except openai.APIError as error:
            raise self._failure(error) from error
        served = [model.id for model in self._parsed(_Models, raw.text).data]
        # `transformers serve` lists its download cache, where a local folder does not show.
        if served and self.name not in served:
            raise InputError(
                f"model {self.name!r} is not served at {self.base_url}; "
                f"served are {', '.join(served)}"
            )

    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._api_key,
            timeout=openai.Timeout(self.timeout, connect=min(self.timeout, _FIRST_ANSWER)),
            max_retries=self.max_retries,
        )

    def _parsed(self, shape: type[_Shape], body: str) -> _Shape:
        try:
            return shape.model_validate_json(body)
        except ValidationError as error:
            raise ServerError(
                f"{self.base_url} answered {body[:_SHOWN]!r}, which is not OpenAI's chat protocol "
                f"({error.errors()[0]['msg']}); correct base_url, which as a rule ends in /v1"
            ) from error

    def _failure(self, error: openai.APIError) -> InputError | ServerError:
        """What to tell the user of an error that is still there after all retries."""
        if isinstance(error, openai.APITimeoutError):
            return ServerError(
                f"{self.base_url} did not answer in time ({_FIRST_ANSWER:g} seconds to connect or "
                f"to list its models, timeout = {self.timeout:g} seconds per completion); raise "
                f"timeout, lower concurrency (now {self.concurrency}) or lower max_new_tokens"
            )
        if isinstance(error, openai.APIStatusError):
            words = f"{error.status_code} {error.response.text[:_SHOWN]!r}"
            if error.status_code in (408, 409, 429) or error.status_code >= 500:
                return ServerError(
                    f"{self.base_url} failed: {words}; wait until it is ready, lower concurrency "
                    f"(now {self.concurrency}) or raise max_retries (now {self.max_retries})"
                )
            return InputError(
                f"{self.base_url} refused a request for model {self.name!r}: {words}; correct "
                "base_url, which as a rule ends in /v1, the model or the api_key"
            )
        return ServerError(
            f"no server answers at {self.base_url} ({error.__cause__ or error}); start it there "
            "or correct base_url"
        )


@dataclass
class _Conversation:
    messages: list[Message]
    turn: Completion | None = None  # the assistant's latest
    finished: bool = False

    @property
    def awaits_completion(self) -> bool:
        return not self.finished and self.messages[-1]["role"] == "user"

    @property
    def refused(self) -> bool:
        return self.turn is REFUSED


class OpenAISession:
    """Conversations on one `OpenAIEngine`; see `engine.Session`."""

    def __init__(self, engine: OpenAIEngine, conversations: list[_Conversation]):
        self._engine = engine
        self._conversations = conversations

    def complete(self, keys: Sequence[jax.Array | None]) -> list[Completion | None]:
        """Samples the assistant's next turn; see `engine.Session.complete`.

        Raises:
            InputError: wrong number of keys, a key for a conversation that is finished or waits
                for a user message, or a request that the server refuses.
            ServerError: a request failed for good; the others of this round are cancelled.
        """
        self._check_count("keys", len(keys))
        for index, (key, conversation) in enumerate(zip(keys, self._conversations, strict=True)):
            if key is not None and not conversation.awaits_completion:
                raise InputError(
                    f"key {index} is for a conversation that is finished or waits for a user "
                    "message; make it None"
                )
            conversation.finished = key is None
        going = [
            (conversation, key)
            for conversation, key in zip(self._conversations, keys, strict=True)
            if key is not None and not conversation.refused
        ]
        conversations = [conversation.messages for conversation, _ in going]
        found, _ = _wait(
            self._engine._collect(conversations, [key for _, key in going], lambda seen: False)
        )
        for (conversation, _), completion in zip(going, found, strict=True):
            conversation.turn = completion
        turns = [None if c.finished else c.turn for c in self._conversations]
        for conversation, turn in zip(self._conversations, turns, strict=True):
            if turn is not None:
                conversation.messages.append({"role": "assistant", "content": turn.text})
        return turns

    def extend(self, messages: Sequence[str | None]) -> None:
        """Appends a user message where one is given; see `engine.Session.extend`.

        Raises:
            InputError: wrong number of messages, or a message for a conversation that is finished
                or waits for a completion.
        """
        self._check_count("messages", len(messages))
        pairs = list(zip(self._conversations, messages, strict=True))
        for index, (conversation, message) in enumerate(pairs):
            if message is not None and (conversation.finished or conversation.awaits_completion):
                raise InputError(
                    f"message {index} is for a conversation that is finished or waits for a "
                    "completion; make it None"
                )
        for conversation, message in pairs:
            if message is not None:
                conversation.messages += asked(message)

    def _check_count(self, field: str, count: int) -> None:
        if count != len(self._conversations):
            raise InputError(
                f"{field} has {count} entries; give one for each of the "
                f"{len(self._conversations)} conversations"
            )


def _check_asks(name: str, messages: Sequence[Message]) -> None:
    if not messages or messages[-1]["role"] != "user":
        raise InputError(f"{name} must end with a user message")


def _seed(key: jax.Array) -> int:
    """31 bits: the widest seed that every server takes."""
    return int(jax.random.bits(key)) >> 1


def _wait(work: Coroutine[Any, Any, _T]) -> _T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    # In a notebook this thread already runs a loop, and a loop cannot be entered twice.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


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
