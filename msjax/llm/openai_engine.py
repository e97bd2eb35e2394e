"""Engine over a server that speaks OpenAI's chat protocol (vLLM, SGLang, llama.cpp, transformers).

docs/servers.md says what happens when such a server fails, refuses or answers nonsense.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
from pydantic import BaseModel

from msjax.data.messages import FAILED, REFUSED, REJECTED, Completion, Message, asked
from msjax.data.usage import Usage
from msjax.errors import InputError, ServerError
from msjax.llm.balance import UNAVAILABLE, Upstream, by_load
from msjax.llm.concurrency import to_thread, wait
from msjax.llm.engine import Conversation, Sampling, next_turn, scored
from msjax.llm.replies import Reply, error_words, is_too_long, read_reply, refused_parameters
from msjax.llm.server import FIRST_ANSWER, Server
from msjax.tasks.thoughts import closes_thought

if TYPE_CHECKING:
    import openai

__all__ = ["OpenAIEngine", "ParallelSamples", "RequestCounts"]

_REFUSING = (400, 403, 404, 422)
"""Statuses with which servers refuse a parameter of a request."""
_LEFT_OUT = {
    "logprobs": "is left out, so that answers have no scores",
    "seed": "is left out, so that the same command gives other answers",
    "top_p": "1 is left out",
    "temperature": "1 is left out",
    "max_tokens": "is sent as max_completion_tokens",
}


_REJECTED = replace(REFUSED, finish=REJECTED)
# What the server computed before it failed is in no account.
_FAILED = replace(REFUSED, finish=FAILED, usage=Usage())


@dataclass
class RequestCounts:
    """Requests of an engine so far.

    Attributes:
        sent: requests, however often each was tried.
        retried: further tries of requests that were answered in the end. Tokens that the server
            spent on a try that failed are in no account, because it does not report them.
        refused: requests refused because the conversation is longer than the model's context.
        failed: requests that failed or were refused for good though the server answers others.
        cancelled: requests given up while in flight; the tokens they had cost are unknown too.
        unbelieved: replies with an account that lacks a count or cannot be.
        closing: replies that close a thought that they did not open.
        open_ended: replies that were cut and may be such a thought from beginning to end.
    """

    sent: int = 0
    retried: int = 0
    refused: int = 0
    failed: int = 0
    cancelled: int = 0
    unbelieved: int = 0
    closing: int = 0
    open_ended: int = 0


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


@dataclass
class _Home:
    """Which server a conversation is with, whose cache knows it.

    Attributes:
        server: None while none was asked.
        moves: how often another one had to be asked instead.
    """

    server: Upstream | None = None
    moves: int = 0


_Clients = Mapping[str, "openai.AsyncOpenAI"]


class OpenAIEngine:
    """Answers prompts through a server, or several of one model, many requests at a time.

    Conversations are kept here and sent whole in every round; whether the server still has their
    beginning in its cache is its business, and shows in `Usage.cached` where it reports that.
    A server that reports no cached tokens is taken to have cached none, so that `Usage.uncached`
    is then an upper bound. Log-probabilities are the server's own, NaN where it gives none.
    Thoughts in a field of their own are no part of the answer and are not sent back. Parameters
    that the server does not take are left out where that changes no distribution (logprobs, seed,
    a temperature or top_p of 1), or sent under the other name (max_completion_tokens). Of several
    servers the least loaded is asked, a conversation stays with its server, and one that fails is
    left out for a while, and named in `notes`.

    Args:
        base_url: of the server's API, as a rule ending in /v1; or of several servers.
        model: what the server calls the model; records show this name.
        api_key: see `Server`.
        timeout: see `Server`.
        patience: see `Server`.
        concurrency: most requests in flight.
        max_new_tokens: most tokens per completion, the end token included.
        temperature: of sampling; 0 takes the most probable token.
        top_p: nucleus of sampling; None keeps every token.
        thinking: whether the server's chat template opens the thought with which a text begins, as
            those of DeepSeek-R1 and QwQ do; without its closing tag such a text is no answer. Of no
            matter where thoughts come in a field of their own.

    Attributes:
        requests: counts of the requests so far.

    Raises:
        InputError: a setting outside its range, or a model the server does not list.
        ServerError: nothing usable answers at `base_url`.
    """

    def __init__(
        self,
        base_url: str | Sequence[str],
        model: str,
        *,
        api_key: str = "none",
        concurrency: int = 32,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float | None = None,
        thinking: bool = False,
        timeout: float = 600.0,
        patience: float = 120.0,
    ):
        for setting, value in (("concurrency", concurrency), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise InputError(f"{setting} is {value}; it must be at least 1")
        self.name = model
        self.concurrency = concurrency
        self.max_new_tokens = max_new_tokens
        self.sampling = Sampling(temperature, top_p)
        self.thinking = thinking
        self.requests = RequestCounts()
        self._left_out: set[str] = set()
        self._answering: str | None = None
        self._examples: dict[str, str] = {}  # the server's words, by what they are about
        urls = [base_url] if isinstance(base_url, str) else list(base_url)
        servers = [
            Server(url, api_key=api_key, timeout=timeout, patience=patience)
            for url in dict.fromkeys(urls)
        ]
        if not servers:
            raise InputError("base_url is missing; give the URL of a server, ending in /v1")
        self._servers = {server.base_url: server for server in servers}
        self._loads = [Upstream(url) for url in self._servers]
        wait(self._check_models())

    def converse(self, conversations: Iterable[Conversation]) -> None:
        """Carries on all conversations until they are over; see `engine.Engine.converse`.

        How many tokens a turn has is known to the server alone: one that it refuses as too long is
        answered by `REFUSED`, at no tokens. A turn at which the server fails for good, or which it
        refuses for another reason, is an outcome too (`Completion.unasked`), but only if the server
        answers another question in the same words; so are later turns of that conversation.

        Raises:
            InputError: a turn that does not end with a user message, or requests that the server
                refuses whatever is asked.
            ServerError: the server failed for good; requests in flight are cancelled.
        """
        wait(self._converse(iter(conversations)))

    async def _converse(self, waiting: Iterator[Conversation]) -> None:
        slots = asyncio.Semaphore(self.concurrency)
        async with self._clients() as clients:
            tasks = [
                asyncio.create_task(self._carry_on(clients, slots, waiting))
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
        clients: _Clients,
        slots: asyncio.Semaphore,
        waiting: Iterator[Conversation],
    ) -> None:
        """One conversation after the other, until none waits any more."""
        for conversation in waiting:
            with closing(conversation):
                said: list[Message] = []
                home = _Home()
                completion: Completion | None = None
                given_up: tuple[list[Message], Completion] | None = None
                while (turn := next_turn(conversation, completion)) is not None:
                    if turn.new_conversation:
                        said, completion, home = [], None, _Home()
                    said += turn.messages
                    if given_up is not None and said == given_up[0]:
                        completion = given_up[1]  # the same again would fail again
                    if completion is None or not completion.unasked:
                        completion = await self._ask(clients, slots, said, seed_of(turn.key), home)
                        if completion.unasked:
                            given_up = list(said), completion
                        if turn.score is not None:
                            completion = await to_thread(partial(scored, turn, completion))
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
        async with self._clients() as clients:
            tasks = [
                asyncio.create_task(self._ask(clients, slots, messages, seed_of(key), _Home()))
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
        clients: _Clients,
        slots: asyncio.Semaphore,
        messages: Sequence[Message],
        seed: int,
        home: _Home,
    ) -> Completion:

        async with slots:
            self.requests.sent += 1
            try:
                reply = await self._reply(clients, messages, seed, home)
            except (InputError, ServerError) as failure:
                if not await self._answers_others(clients, messages):
                    raise
                self.requests.failed += 1
                self._examples.setdefault("failed", str(failure))
                return _REJECTED if isinstance(failure, InputError) else _FAILED
        return REFUSED if reply is None else self._completion(reply, home)

    async def _reply(
        self, clients: _Clients, messages: Sequence[Message], seed: int, home: _Home
    ) -> Reply | None:
        """What the server says in the end; None if the request is longer than the context."""
        import openai

        while True:
            request = self._request(messages, seed)
            try:
                raw, again = await self._any_server.tried(
                    partial(self._create, clients, request, home)
                )
            except asyncio.CancelledError:
                self.requests.cancelled += 1
                raise
            except openai.APIStatusError as error:
                words = error_words(error.response.text)
                if error.status_code == 400 and is_too_long(words):
                    self.requests.refused += 1
                    self._examples.setdefault("refused", self._at(home).words(words))
                    return None
                refused = self._optional(request) & refused_parameters(words, request)
                if error.status_code not in _REFUSING or not refused:
                    raise self._failure(error, home) from error
                self._left_out |= refused
            except (openai.APIError, TimeoutError) as error:
                raise self._failure(error, home) from error
            except UnicodeEncodeError as error:
                raise InputError(
                    f"a prompt holds {error.object[error.start : error.end]!r}, which no text in "
                    "UTF-8 can hold; mend the question"
                ) from error
            else:
                self.requests.retried += again + home.moves
                home.moves = 0
                try:
                    return read_reply(raw.text)
                except ValueError as error:
                    raise self._at(home).nonsense(raw.text, str(error)) from error

    async def _create(self, clients: _Clients, request: dict[str, Any], home: _Home) -> Any:
        """The reply of the first server that is available."""
        import openai

        order = by_load(self._loads, home.server)
        for number, server in enumerate(order):
            home.server = server
            server.in_flight += 1
            try:
                create = clients[server.url].chat.completions.with_raw_response.create
                raw = await asyncio.wait_for(create(**request), self._any_server.timeout)
            except (openai.APIError, TimeoutError) as error:
                if not _is_absent(error):
                    raise
                self._leave_out(server, error)
                if number + 1 == len(order):
                    raise
                home.moves += 1
            else:
                server.answered()
                return raw
            finally:
                server.in_flight -= 1
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[_Clients]:
        """A client of every server, by its URL."""
        async with AsyncExitStack() as stack:
            yield {
                url: await stack.enter_async_context(server.client())
                for url, server in self._servers.items()
            }

    @property
    def _any_server(self) -> Server:
        """For what they have in common: timeout and patience."""
        return next(iter(self._servers.values()))

    def _at(self, home: _Home) -> Server:
        return self._any_server if home.server is None else self._servers[home.server.url]

    async def _answers_others(self, clients: _Clients, messages: Sequence[Message]) -> bool:
        """Whether the server answers another question, so that a failure is that of this one."""
        import openai

        other = [*(one for one in messages if one["role"] == "system"), *asked("1 + 1")]
        if list(messages) == other:
            return False
        try:
            raw = await self._create(clients, self._request(other, 0), _Home())
            read_reply(raw.text)
        except (openai.APIError, TimeoutError, ValueError):
            return False
        return True

    def _request(self, messages: Sequence[Message], seed: int) -> dict[str, Any]:
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
        kept = {name: value for name, value in request.items() if name not in self._left_out}
        if "max_tokens" in self._left_out:
            kept["max_completion_tokens"] = self.max_new_tokens
        return kept

    def _optional(self, request: dict[str, Any]) -> set[str]:
        """Parameters of a request that may be left out: what is sampled stays the same."""
        neutral = {name for name in ("temperature", "top_p") if request.get(name) == 1}
        return neutral | ({"logprobs", "seed", "max_tokens"} & request.keys())

    def _completion(self, reply: Reply, home: _Home) -> Completion:
        if reply.model is not None:
            if self._answering not in (None, reply.model):
                raise ServerError(
                    f"{self._at(home).base_url} answered as model {self._answering!r} before and "
                    f"answers as {reply.model!r} now; a mixture of models estimates nothing, so "
                    f"ask for one model, or a server that does not replace {self.name!r}"
                )
            self._answering = reply.model
        if reply.problem:
            self.requests.unbelieved += 1
            self._examples.setdefault("usage", reply.problem)
        closing = closes_thought(reply.text)
        self.requests.closing += closing
        self.requests.open_ended += not (reply.finished or closing or reply.reasoning)
        return Completion(
            reply.text,
            reply.token_logprob,
            float("nan"),
            reply.finished,
            reply.usage,
            finish=reply.finish,
            reasoning=reply.reasoning,
            thinking=self.thinking and not reply.reasoning,
        )

    @property
    def notes(self) -> list[str]:
        """What there is to say of the requests so far, in a sentence each."""
        counts, said = self.requests, []
        if self._answering is not None and not _same_model(self.name, self._answering):
            said.append(f"model {self._answering!r} answers to requests for {self.name!r}")
        for name in sorted(self._left_out):
            said.append(f"the server does not take {name}, which {_LEFT_OUT[name]}")
        if counts.unbelieved:
            said.append(
                f"{counts.unbelieved} of {counts.sent} accounts lack a count or cannot be, the "
                f"first for: {self._examples['usage']}; what is not corrected counts as not "
                "reported, and no saving that rests on it is identified"
            )
        if counts.refused:
            said.append(
                f"{counts.refused} of {counts.sent} requests were longer than the context, as the "
                f"server says: {self._examples['refused']}; lower max_new_tokens if they are not"
            )
        if counts.closing and counts.open_ended and not self.thinking:
            said.append(
                f"{counts.closing} of {counts.sent} replies close a thought that they did not "
                f"open, so the server's chat template does; {counts.open_ended} others were cut, "
                "and what they say was read as an answer: set thinking (of commands: --thinking)"
            )
        if counts.failed:
            said.append(
                f"{counts.failed} of {counts.sent} requests failed although the server answers "
                f"others, so that their questions count as unanswered; the first: "
                f"{self._examples['failed']}"
            )
        if len(self._loads) > 1:
            said += [
                f"{one.url} failed {one.failures} times and was left out meanwhile, the first time "
                f"because of: {self._examples[one.url]}"
                for one in self._loads
                if one.failures
            ]
        if counts.retried:
            said.append(
                f"{counts.retried} further tries of {counts.sent} requests; what failed tries cost "
                "is in no account"
            )
        return said

    async def _check_models(self) -> None:
        """Leaves out servers that are not there, if another is."""
        import openai

        checks = [self._check_model(server) for server in self._servers.values()]
        found = await asyncio.gather(*checks, return_exceptions=True)
        for server, error in zip(self._loads, found, strict=True):
            if _is_absent(error):
                self._leave_out(server, error)
        nobody = not any(server.up for server in self._loads)
        for server, error in zip(self._loads, found, strict=True):
            if error is None or (_is_absent(error) and not nobody):
                continue
            if isinstance(error, openai.APIError | TimeoutError):
                raise self._failure(error, _Home(server)) from error
            raise error

    def _leave_out(self, server: Upstream, error: BaseException | None) -> None:
        server.fail(type(error).__name__)
        says = self._servers[server.url].without_secrets(str(error))
        self._examples.setdefault(server.url, says or type(error).__name__)

    async def _check_model(self, server: Server) -> None:
        async with server.client() as client:
            once = client.with_options(timeout=FIRST_ANSWER)
            raw = await asyncio.wait_for(once.models.with_raw_response.list(), FIRST_ANSWER)
        served = [model.id for model in server.parsed(_Models, raw.text).data]
        # `transformers serve` lists its download cache, where a local folder does not show.
        if served and self.name not in served:
            raise InputError(
                f"model {self.name!r} is not served at {server.base_url}; "
                f"served are {', '.join(served)}"
            )

    def _failure(
        self, error: openai.APIError | TimeoutError, home: _Home
    ) -> InputError | ServerError:
        relief = f"lower concurrency (now {self.concurrency}) or max_new_tokens"
        return self._at(home).failure(error, self.name, relief)


def _is_absent(error: object) -> bool:
    """Whether an error says that another server should be asked."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in UNAVAILABLE
    return isinstance(error, openai.APIConnectionError | TimeoutError)


def seed_of(key: jax.Array) -> int:
    """31 bits: the widest seed that every server takes."""
    return int(jax.random.bits(key)) >> 1


def _same_model(asked: str, answering: str) -> bool:
    """Whether two names are of one model, but for its publisher, version or file."""
    one, other = (name.lower().removesuffix(".gguf") for name in (asked, answering))
    short, long = sorted((one, other), key=len)
    version = r"(-\d{3}[\d-]*|[:@](latest|main))?"
    return re.fullmatch(rf"(.*/)?{re.escape(short)}{version}", long) is not None


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]
