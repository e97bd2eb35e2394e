"""The proxy: a client changes its base URL, and answers are revised or sampled by a rule.

docs/serving.md says what becomes of every kind of request.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
import random
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from msjax.data.messages import Completion, Message, Score
from msjax.data.served import Arm, Label, Served
from msjax.data.usage import Usage, total, uncached_tokens
from msjax.errors import InputError, ServerError
from msjax.llm.answers import Answers, jitted
from msjax.llm.balance import Upstream
from msjax.llm.judge import JUDGE, read_verdict
from msjax.llm.live_rule import LiveRule
from msjax.llm.replies import error_status, error_words, read_reply
from msjax.llm.revise import REVISE, Revised, UnansweredError, deliberate, last_text
from msjax.llm.scores import Scorer as AnswerScorer
from msjax.llm.serve.asgi import (
    RefusedError,
    Reply,
    header,
    passed_on,
    read_body,
    until_gone,
)
from msjax.llm.serve.effects import Difference, RunningMean, negated
from msjax.llm.serve.log import ServedLog, open_log
from msjax.llm.serve.metrics import Metrics
from msjax.llm.serve.upstream import MOST_STREAMED, Answered, DownError, Upstreams
from msjax.rules.fixed import fixed_rounds
from msjax.rules.protocol import StoppingRule
from msjax.tasks.benchmark import Question
from msjax.tasks.characters import writable_value
from msjax.tasks.math_equal import Comparison
from msjax.tasks.prompts import Template
from msjax.tasks.scorers import Scorer, find_scorer

if TYPE_CHECKING:
    from msjax.llm.drift import AnswerMonitor

__all__ = ["Deciding", "Proxy", "ServeSettings", "make_app"]

LOG = logging.getLogger(__name__)

_ALIVE = 10.0
"""Seconds between signs of life on a stream whose answer is not known yet."""
_REMEMBERED = 100_000
"""Requests whose labels may still come."""
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_CHAT = "/v1/chat/completions"
_NO_REVISION = ("tools", "functions", "audio", "modalities", "prediction")


class Deciding(NamedTuple):
    """A rule by the name that requests give it.

    Attributes:
        name: as it was named at the start.
        live: the rule.
    """

    name: str
    live: LiveRule


@dataclass(frozen=True)
class ServeSettings:
    """What a proxy does.

    Attributes:
        upstreams: URLs of servers of the same models.
        rules: the first one decides; requests may name any of them. With none, requests that name
            none are passed on.
        baseline: what requests are given that are held out, or after an alarm.
        budget: the most answers to one request.
        parallel: whether answers are independent samples.
        template: how a revision is asked for.
        scorer: reads answers.
        score: of each answer, None for none; and whether it waits for another server.
        score_waits: whether scoring waits for another server.
        logprobs: whether scores need the log-probabilities of upstream.
        thinking: whether the chat template of upstream opens the thought with which a text begins.
        judge: name of the model that is asked whether an answer is right; "" for the one that gave
            it; None for no judge.
        ahead: samples in flight at a time, for one request.
        holdout: share of requests that the baseline is given.
        shadow: whether all answers are asked for and the baseline is returned, while it is counted
            what the rule would have done.
        monitor: follows what answers show, None for nothing.
        log: file of what was served, None for none.
        key: that clients must give, None for none.
        upstream_key: that upstream is given where clients give one of ours.
        loopback: whether only requests that name this machine as host are answered.
        concurrency: most requests to upstream at a time.
        timeout: seconds one answer of upstream may take.
        most_bytes: of a request's body.
        seed: of what is held out; None for a new one.
    """

    upstreams: tuple[str, ...]
    rules: tuple[Deciding, ...]
    baseline: Deciding
    budget: int
    parallel: bool = False
    template: Template = REVISE
    scorer: Scorer = field(default_factory=lambda: find_scorer("math"))
    score: AnswerScorer | None = None
    score_waits: bool = False
    logprobs: bool = False
    thinking: bool = False
    judge: str | None = None
    ahead: int = 1
    holdout: float = 0.0
    shadow: bool = False
    monitor: AnswerMonitor | None = None
    log: Path | None = None
    key: str | None = None
    upstream_key: str | None = None
    loopback: bool = True
    concurrency: int = 256
    timeout: float = 600.0
    most_bytes: int = 16 * 2**20
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("ahead", self.ahead),
            ("concurrency", self.concurrency),
            ("most_bytes", self.most_bytes),
            ("budget", self.budget),
        ):
            if value < 1:
                raise InputError(f"{name} is {value}; give at least 1")
        if not 0 <= self.holdout < 1:
            raise InputError(f"holdout is {self.holdout}; give a share in [0, 1)")
        if self.holdout and self.shadow:
            raise InputError(
                "holdout is given with shadow, where every request is given the baseline; drop one"
            )
        if not self.timeout > 0:
            raise InputError(f"timeout is {self.timeout}; it must be more than 0 seconds")
        for key in (self.key, self.upstream_key):
            if key is not None and not (key and key.isascii() and key.isprintable()):
                raise InputError("a key is not printable ASCII; give it as it was issued")


@dataclass(frozen=True)
class _Raw(Completion):
    """A completion with the whole reply that it was read from."""

    reply: Mapping[str, Any] = field(default_factory=dict)


class _UpstreamError(UnansweredError):
    """Upstream refused; its words are the client's to read."""

    def __init__(self, reply: Answered) -> None:
        super().__init__()
        self.reply = reply


@dataclass
class _Asked:
    """A request that a rule decides on."""

    id: str
    body: dict[str, Any]
    headers: dict[str, str]
    deciding: Deciding
    arm: Arm
    budget: int
    gold: str | None
    held_out: bool = False
    """Whether chance gave it to the baseline, or to the rule: only such requests are compared."""
    at_random: bool = False


class _Remembered(NamedTuple):
    """What a label that comes later is compared with."""

    arm: Arm
    at_random: bool
    answer: str | None


class Proxy:
    """Everything that requests share.

    Args:
        settings: what it does.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.upstreams = Upstreams(
            settings.upstreams,
            timeout=settings.timeout,
            concurrency=settings.concurrency,
            secret=settings.upstream_key,
        )
        self._rules = {one.name: one for one in settings.rules}
        self._log: ServedLog | None = None
        self._random = random.Random(settings.seed)
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._under_way = 0
        self._saving = Difference(settings.holdout) if settings.holdout else None
        self._gain = Difference(settings.holdout) if settings.holdout else None
        self._shadow_saving = RunningMean()
        self._question = Question("", "", "", "", lambda answer: Comparison(False, ""))
        self._watch()
        for one in (*settings.rules, settings.baseline):
            _compile(one.live.rule)

    # Routes

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/chat/completions."""
        reply = Reply(send)
        try:
            self._admit(scope)
            content = await read_body(receive, self.settings.most_bytes)
            if self._under_way >= 16 * self.settings.concurrency:
                raise RefusedError(
                    503,
                    f"{self._under_way} requests are under way; try again later",
                    headers=[("retry-after", "1")],
                )
            self._under_way += 1
            try:
                if not await until_gone(self._chat(scope, content, reply), receive):
                    self.metrics.requests.labels("client gone").inc()
                    self.metrics.given_up.labels("client gone").inc()
            finally:
                self._under_way -= 1
        except RefusedError as error:
            self.metrics.requests.labels("refused").inc()
            await reply.json(error.status, error.body, error.headers)
        except ConnectionError:
            self.metrics.requests.labels("client gone").inc()

    async def _chat(self, scope: Scope, content: bytes, reply: Reply) -> None:
        try:
            body = _object(content)
            options = _options(body)
            asked = self._asked(scope, body, options)
            if not isinstance(asked, _Asked):
                plain = _json(body) if options else content
                await self._pass("POST", "/chat/completions", plain, scope, reply, asked)
            elif body.get("stream"):
                await self._stream(asked, reply)
            else:
                found, extra = await self._decide(asked)
                await reply.json(200, _merged(found, asked, extra), [("x-msjax-id", asked.id)])
        except _UpstreamError as error:
            self.metrics.requests.labels("upstream refused").inc()
            upstream = error.reply
            await reply.whole(
                upstream.status, upstream.body, passed_on(upstream.headers, reply=True)
            )
        except DownError as error:
            self.metrics.requests.labels("upstream down").inc()
            if reply.begun:
                raise ConnectionError from error  # what was sent cannot be taken back
            raise RefusedError(error.status, f"upstream failed: {error}") from None

    async def models(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /v1/models, as upstream has it."""
        reply = Reply(send)
        try:
            self._admit(scope)
            await self._pass("GET", "/models", None, scope, reply, "")
        except RefusedError as error:
            await reply.json(error.status, error.body)
        except DownError as error:
            body = RefusedError(error.status, f"upstream failed: {error}").body
            await reply.json(error.status, body)

    async def show_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /metrics, in the text format of Prometheus."""
        kind = ("content-type", "text/plain; version=0.0.4; charset=utf-8")
        await Reply(send).whole(200, self.metrics.text(), [kind])

    async def health(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET /healthz: 200 while a server of upstream is up, 503 otherwise."""
        servers = [
            {
                "url": one.url,
                "up": one.up,
                "in_flight": one.in_flight,
                "failures": one.failures,
                **({"reason": one.reason} if one.reason else {}),
            }
            for one in self.upstreams.servers
        ]
        settings = self.settings
        value = {
            "rule": settings.rules[0].name if settings.rules else "off",
            "baseline": settings.baseline.name,
            "fallen_back": self.fallen_back,
            "upstreams": servers,
            **({"log": self._log.problem} if self._log and self._log.problem else {}),
        }
        await Reply(send).json(200 if any(one["up"] for one in servers) else 503, value)

    async def feedback(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /feedback: a label of a request that was answered."""
        reply = Reply(send)
        try:
            self._admit(scope)
            body = _object(await read_body(receive, 2**20))
            await reply.json(200, {"correct": self._label(body)})
        except RefusedError as error:
            await reply.json(error.status, error.body)
        except ConnectionError:
            pass

    @property
    def fallen_back(self) -> bool:
        """Whether an alarm has rung, since which the baseline decides."""
        return bool(self.settings.monitor and self.settings.monitor.alarms)

    # Deciding what a request gets

    def _admit(self, scope: Scope) -> None:
        """Raises RefusedError for a request without the key, or that a web page may have sent."""
        settings = self.settings
        if settings.loopback:
            host = header(scope, "host")
            if host.rpartition(":")[0] not in _LOOPBACK and host not in _LOOPBACK:
                raise RefusedError(403, f"host is {host!r}; name 127.0.0.1 or localhost")
        if scope["method"] == "POST":
            kind = header(scope, "content-type").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise RefusedError(415, f"content-type is {kind!r}; send application/json")
        if settings.key is not None:
            given = header(scope, "authorization").removeprefix("Bearer ").strip()
            if not hmac.compare_digest(given.encode(), settings.key.encode()):
                raise RefusedError(
                    401, "the key of this proxy is missing or wrong", code="invalid_api_key"
                )

    def _asked(self, scope: Scope, body: dict[str, Any], options: dict[str, Any]) -> _Asked | str:
        """The request and what decides on it, or why it is passed on untouched."""
        settings = self.settings
        rule, most = options.get("rule"), options.get("max_answers")
        if rule == "off" or (rule is None and not settings.rules):
            return "rule off"
        for name in _NO_REVISION:
            if body.get(name):
                return name
        if body.get("n") not in (None, 1):
            return "n"
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not _is_user(messages[-1]):
            return "no user message last"
        if settings.parallel and body.get("temperature") == 0:
            return "temperature 0"
        if rule is not None and rule not in self._rules:
            raise RefusedError(
                400, f"msjax.rule is {rule!r}; this proxy has {', '.join(self._rules)}, off"
            )
        deciding, arm, chance = self._rules[rule or settings.rules[0].name], "rule", False
        budget = settings.budget if most is None else min(most, settings.budget)
        if rule is not None or most is not None:
            arm = "override"
        elif settings.shadow:
            arm = "shadow"
        elif self.fallen_back:
            arm, deciding = "baseline", settings.baseline
            self.metrics.fallbacks.inc()
        elif settings.holdout:
            chance = True
            if self._random.random() < settings.holdout:
                arm, deciding = "baseline", settings.baseline
        return _Asked(
            id=uuid.uuid4().hex,
            body=body,
            headers=self._headers(scope),
            deciding=deciding,
            arm=arm,  # type: ignore[arg-type]
            budget=budget,
            gold=options.get("gold"),
            held_out=chance and arm == "baseline",
            at_random=chance,
        )

    def _headers(self, scope: Scope) -> dict[str, str]:
        """Headers for upstream: the client's own key, or ours where it gave one of this proxy."""
        raw = ((k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"])
        headers = dict(passed_on(raw)) | {"accept-encoding": "identity"}
        if self.settings.key is None:
            key = header(scope, "authorization")
        else:
            upstream_key = self.settings.upstream_key
            key = f"Bearer {upstream_key}" if upstream_key else ""
        return headers | ({"authorization": key} if key else {})

    # Asking upstream

    async def _decide(self, asked: _Asked) -> tuple[Revised, dict[str, Any]]:
        """The answers under the rule, written down and counted, and what to say of them besides."""
        settings, arm = self.settings, asked.arm
        shadow = arm == "shadow"
        home: list[Upstream | None] = [None]
        request = {k: v for k, v in asked.body.items() if k not in ("stream", "stream_options")}
        if settings.logprobs:
            request["logprobs"] = True

        async def ask(messages: list[Message], number: int) -> _Raw:
            body = request | {"messages": messages}
            if settings.parallel and isinstance(request.get("seed"), int):
                body["seed"] = request["seed"] + number
            return await self._ask(body, asked.headers, home, number)

        async def judge(messages: list[Message], text: str) -> tuple[bool | None, Usage]:
            said = [*messages, {"role": "assistant", "content": text}, _user(JUDGE)]
            body = {"model": settings.judge or request.get("model"), "messages": said}
            try:
                found = await self._ask(body, asked.headers, home, 1)
            except UnansweredError:
                return None, Usage()
            return read_verdict(found.text), found.usage

        def score(question: str, completion: Completion) -> Any:
            assert settings.score is not None
            try:
                return settings.score(replace(self._question, text=question), completion)
            except (InputError, ServerError):  # of a reward model that is not there
                self.metrics.unscored.inc()
                return Score(math.nan, None)

        rule = _everything(asked.budget) if shadow else asked.deciding.live.rule
        found = await deliberate(
            ask,
            asked.body["messages"],
            jitted(rule),
            budget=asked.budget,
            template=settings.template,
            scorer=settings.scorer,
            parallel=settings.parallel,
            score=None if settings.score is None else score,
            waits=settings.score_waits,
            judge=None if settings.judge is None else judge,
            ahead=settings.ahead,
        )
        extra: dict[str, Any] = {}
        if shadow:
            found, extra = self._watched(found, asked)
        self._count(found, asked)
        return found, extra

    async def _ask(
        self,
        body: dict[str, Any],
        headers: Mapping[str, str],
        home: list[Upstream | None],
        number: int,
    ) -> _Raw:
        """One answer; home is the server that knows the conversation."""
        try:
            reply, home[0] = await self.upstreams.send(
                "POST", "/chat/completions", _json(body), headers, home[0]
            )
        except DownError as error:
            if number:
                raise UnansweredError from error
            raise
        text = reply.body.decode("utf-8", "replace")
        status = reply.status if reply.status != 200 else error_status(text) or 200
        if status != 200:
            raise _UpstreamError(reply._replace(status=status))
        try:
            read = read_reply(text)
        except ValueError as error:
            raise DownError(f"its reply is not OpenAI's protocol ({error})") from None
        return _Raw(
            read.text,
            read.token_logprob,
            math.nan,
            read.finished,
            read.usage,
            finish=read.finish,
            reasoning=read.reasoning,
            thinking=self.settings.thinking and not read.reasoning,
            reply=json.loads(text),
        )

    async def _pass(
        self, method: str, path: str, body: bytes | None, scope: Scope, reply: Reply, why: str
    ) -> None:
        """Pass a request on, and its reply back as it comes."""
        async with self.upstreams.stream(method, path, body, self._headers(scope)) as answering:
            found, server = answering
            headers = passed_on(found.headers.items(), reply=True)
            if why:
                headers.append(("x-msjax", f"passed on untouched: {why}"))
                self.metrics.requests.labels(f"passed on: {why}").inc()
            if "event-stream" not in found.headers.get("content-type", ""):
                content = b"".join([x async for x in self.upstreams.pieces(found, server)])
                await reply.whole(found.status, self.upstreams.shown(content), headers)
                return
            await reply.begin(found.status, headers)
            piece = b"\n\n"
            try:
                async for piece in self.upstreams.pieces(found, server, MOST_STREAMED):
                    await reply.more(self.upstreams.shown(piece))
            except DownError as error:
                if not piece.endswith((b"\n\n", b"\r\n\r\n")):
                    raise  # an event was cut short, to which nothing can be added
                self.metrics.requests.labels("upstream failed in a stream").inc()
                await reply.event(_stream_error(error))
            await reply.end()

    async def _stream(self, asked: _Asked, reply: Reply) -> None:
        """The chosen answer as a stream: it begins when the rule has stopped, not before."""
        working = asyncio.create_task(self._decide(asked))
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=_ALIVE)
                if not working.done():
                    if not reply.begun:
                        await reply.begin(200, _event_headers(asked))
                    await reply.more(b": the answer is not known yet\n\n")
            try:
                found, extra = await working
            except (_UpstreamError, DownError) as error:
                if not reply.begun:
                    raise
                self.metrics.requests.labels("upstream failed in a stream").inc()
                await reply.event(_stream_error(error))
                await reply.end()
                return
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        if not reply.begun:
            await reply.begin(200, _event_headers(asked))
        for chunk in _chunks(_merged(found, asked, extra), asked.body):
            await reply.event(chunk)
        await reply.event("[DONE]")
        await reply.end()

    # Counting

    def _watched(self, found: Revised, asked: _Asked) -> tuple[Revised, dict[str, Any]]:
        """The baseline's part of all answers, and what the rule would have done."""
        would = _cut(found, asked.deciding.live.rule, asked.budget)
        given = _cut(found, self.settings.baseline.live.rule, asked.budget)
        spent = [uncached_tokens(one.usages) for one in (given, would)]
        if not any(map(math.isnan, spent)):
            self._shadow_saving.add(spent[0] - spent[1])
        self.metrics.answers.labels("would be").observe(len(would.answers))
        shadow = {
            "answers": len(would.answers),
            "returned": would.returned,
            "same_answer": would.answer == given.answer,
            "saved_tokens": None if any(map(math.isnan, spent)) else spent[0] - spent[1],
        }
        # All answers were asked for and paid; what is returned is the baseline's.
        text, answer, returned = given.text, given.answer, given.returned
        return replace(found, text=text, answer=answer, returned=returned), {"shadow": shadow}

    def _count(self, found: Revised, asked: _Asked) -> None:
        metrics, arm, settings = self.metrics, asked.arm, self.settings
        metrics.requests.labels(f"answered by {arm}").inc()
        metrics.answers.labels(arm).observe(len(found.answers))
        if found.cancelled:
            metrics.given_up.labels("rule stopped").inc(found.cancelled)
        usage = found.usage
        for category, count in usage.model_dump().items():
            if count:
                metrics.tokens.labels(arm, category).inc(count)
        spent = uncached_tokens([*found.usages, *(one.usage for one in found.surplus)])
        if math.isnan(spent):
            metrics.unreported.inc()
        elif self._saving is not None and asked.at_random:
            self._saving.add(spent, baseline=asked.held_out)
        if settings.monitor is not None and arm in ("rule", "baseline", "shadow"):
            fair = arm != "rule" or not settings.rules[0].live.looks
            for drift in settings.monitor.add(found.answers, changes=fair):
                LOG.warning(
                    f"share of {drift.rate} was {drift.pilot:.2f} in the pilot and is "
                    f"{drift.live:.2f} after {drift.questions} requests (by chance: at most "
                    f"{drift.p_value:.1g}); from now on the baseline decides"
                )
        self._remembered[asked.id] = _Remembered(arm, asked.at_random, found.answer)
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        if self._log is not None:
            self._log.append(_line(found, asked, settings))
        if asked.gold is not None:
            self._compare(self._remembered.pop(asked.id), gold=asked.gold)

    def _label(self, body: dict[str, Any]) -> bool:
        """Take a label; returns whether what was returned is right."""
        wrong = set(body) - {"id", "correct", "gold"}
        identity, gold, correct = body.get("id"), body.get("gold"), body.get("correct")
        if wrong or not isinstance(identity, str) or (gold is None) == (correct is None):
            raise RefusedError(400, "send id, and either gold (a text) or correct (true or false)")
        if not isinstance(gold, str | None) or not isinstance(correct, bool | None):
            raise RefusedError(400, "gold is a text, correct is true or false")
        if gold is not None:
            self._target(gold)
        remembered = self._remembered.pop(identity, None)
        if remembered is None:
            raise RefusedError(
                404,
                f"id {identity!r} is unknown, has a label already, or is older than the last "
                f"{_REMEMBERED:,} requests",
            )
        if self._log is not None:
            self._log.append(Label(time=time.time(), feedback=identity, gold=gold, correct=correct))
        return self._compare(remembered, gold=gold, correct=correct)

    def _compare(
        self, remembered: _Remembered, *, gold: str | None = None, correct: bool | None = None
    ) -> bool:
        if gold is not None:
            correct = self.settings.scorer.grade(self._target(gold), remembered.answer).equal
        right = bool(correct)
        self.metrics.labels.labels(remembered.arm, str(right).lower()).inc()
        if self._gain is not None and remembered.at_random:
            self._gain.add(float(right), baseline=remembered.arm == "baseline")
        return right

    def _target(self, gold: str) -> str:
        try:
            return self.settings.scorer.target(gold)
        except InputError as error:
            raise RefusedError(400, f"gold: {error}") from None

    def _watch(self) -> None:
        """What is looked up when metrics are asked for."""
        metrics, settings = self.metrics, self.settings
        metrics.watch("msjax_in_flight", "Requests under way", lambda: self._under_way)
        metrics.watch("msjax_fallen_back", "Whether an alarm rang", lambda: self.fallen_back)
        metrics.watch(
            "msjax_unwritten",
            "Lines of the log that were lost",
            lambda: self._log.lost if self._log else 0,
        )
        for one in self.upstreams.servers:
            for name, says, value in (
                ("msjax_upstream_up", "Whether a server is asked", lambda one=one: one.up),
                ("msjax_upstream_in_flight", "Requests at a server", lambda one=one: one.in_flight),
                ("msjax_upstream_failures", "Failures of a server", lambda one=one: one.failures),
            ):
                metrics.watch(name, says, value, upstream=one.url)
        saving, gain = self._saving, self._gain
        if saving is not None and gain is not None:
            metrics.watch_interval(
                "msjax_saving_tokens",
                "Uncached tokens saved per request against the baseline, 90 % at all times",
                lambda: None if (x := saving.interval()) is None else negated(x),
            )
            metrics.watch_interval(
                "msjax_gain",
                "Accuracy less the baseline's, of requests with labels, 90 % at all times",
                gain.interval,
            )
        if settings.shadow:
            metrics.watch_interval(
                "msjax_shadow_saving_tokens",
                "Uncached tokens per request that the rule would have saved, 90 % at all times",
                self._shadow_saving.interval,
            )

    @asynccontextmanager
    async def running(self, _: Starlette) -> AsyncIterator[None]:
        """Opens the log; closes it and the connections once all requests are answered."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.upstreams.open())
            if self.settings.log is not None:
                self._log = await stack.enter_async_context(open_log(self.settings.log))
            yield


def make_app(settings: ServeSettings) -> Starlette:
    """The proxy as an ASGI application."""
    proxy = Proxy(settings)
    routes = [
        Route(_CHAT, _endpoint(proxy.chat), methods=["POST"]),
        Route("/v1/models", _endpoint(proxy.models), methods=["GET"]),
        Route("/feedback", _endpoint(proxy.feedback), methods=["POST"]),
        Route("/metrics", _endpoint(proxy.show_metrics), methods=["GET"]),
        Route("/healthz", _endpoint(proxy.health), methods=["GET"]),
    ]
    return Starlette(routes=routes, lifespan=proxy.running)


def _endpoint(serve: Any) -> Any:
    """An ASGI application; Starlette takes plain functions for something else."""

    class Endpoint:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await serve(scope, receive, send)

    return Endpoint()


def _everything(budget: int) -> StoppingRule:
    return fixed_rounds(budget - 1)


def _cut(found: Revised, rule: StoppingRule, budget: int) -> Revised:
    """The answers up to where the rule stops, and what it returns of them."""
    so_far = Answers(jitted(rule), budget)
    for completion, answer, verdict in zip(
        found.completions, found.answers, found.verdicts, strict=True
    ):
        so_far.add(completion, answer, verdict)
        if so_far.over:
            break
    n, chosen = len(so_far.answers), so_far.returned
    return replace(
        found,
        text=found.completions[chosen].text,
        answer=found.answers[chosen],
        returned=chosen,
        answers=found.answers[:n],
        usages=found.usages[:n],
    )


def _compile(rule: StoppingRule) -> None:
    """So that no request waits for it."""
    Answers(jitted(rule), 1).add(Completion("", math.nan, math.nan, True, Usage()), None)


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
        if b"\\u" in content:
            found = writable_value(found)  # what the log and upstream can hold
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise RefusedError(400, "the body is no JSON object")
    return found


def _options(body: dict[str, Any]) -> dict[str, Any]:
    """What the request says to this proxy, taken out of it."""
    options = body.pop("msjax", None)
    if options is None:
        return {}
    known = {"rule": str, "max_answers": int, "gold": str}
    if not isinstance(options, dict) or set(options) - set(known):
        raise RefusedError(400, f"msjax may hold {', '.join(known)}")
    for name, value in options.items():
        if not isinstance(value, known[name]) or isinstance(value, bool):
            raise RefusedError(400, f"msjax.{name} is {value!r}; give {known[name].__name__}")
    if options.get("max_answers", 1) < 1:
        raise RefusedError(400, "msjax.max_answers is below 1")
    return options


def _is_user(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "user"


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _merged(found: Revised, asked: _Asked, extra: dict[str, Any]) -> dict[str, Any]:
    """The chosen reply, with the account of all and what was done."""
    chosen = found.completions[found.returned]
    assert isinstance(chosen, _Raw)
    reply = dict(chosen.reply)
    if not asked.body.get("logprobs"):
        reply["choices"] = [
            {k: v for k, v in choice.items() if k != "logprobs"} for choice in reply["choices"]
        ]
    usage = total(
        [*(one.usage for one in found.completions), *(one.usage for one in found.surplus)]
    )
    reply["usage"] = _usage(usage)
    reply["msjax"] = {
        "id": asked.id,
        "rule": asked.deciding.name,
        "arm": asked.arm,
        "answers": list(found.answers),
        "returned": found.returned,
        "stop_reason": found.stop_reason,
        "belief": found.belief,
        "scores": list(found.scores),
        "verdicts": list(found.verdicts),
        "tokens": [one.model_dump() for one in found.usages],
        "surplus": len(found.surplus),
        "cancelled": found.cancelled,
        **extra,
    }
    return reply


def _usage(usage: Usage) -> dict[str, Any] | None:
    """As OpenAI writes it; None where a count is not reported."""
    if usage.prompt is None or usage.completion is None:
        return None
    found: dict[str, Any] = {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    }
    if usage.cached is not None:
        found["prompt_tokens_details"] = {"cached_tokens": usage.cached}
    return found


def _event_headers(asked: _Asked) -> list[tuple[str, str]]:
    return [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("x-msjax-id", asked.id),
    ]


def _chunks(reply: dict[str, Any], body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A whole reply as the chunks of a stream."""
    head = {
        "id": reply.get("id") or f"chatcmpl-{reply['msjax']['id']}",
        "object": "chat.completion.chunk",
        "created": reply.get("created") or int(time.time()),
        "model": reply.get("model") or body.get("model"),
    }
    choice = reply["choices"][0]
    delta = {k: v for k, v in choice["message"].items() if v is not None}
    first = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": None}
    if choice.get("logprobs"):
        first["logprobs"] = choice["logprobs"]
    last = {"index": 0, "delta": {}, "finish_reason": choice.get("finish_reason")}
    chunks = [
        {**head, "choices": [first]},
        {**head, "choices": [last], "msjax": reply["msjax"]},
    ]
    options = body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        chunks.append({**head, "choices": [], "usage": reply["usage"]})
    return chunks


def _stream_error(error: Exception) -> dict[str, Any]:
    if isinstance(error, _UpstreamError):
        words = error_words(error.reply.body.decode("utf-8", "replace"))
        return RefusedError(error.reply.status, words).body
    return RefusedError(502, f"upstream failed: {error}").body


def _line(found: Revised, asked: _Asked, settings: ServeSettings) -> Served:
    return Served(
        time=time.time(),
        id=asked.id,
        arm=asked.arm,
        rule=asked.deciding.name,
        scorer=settings.scorer.name,
        model=str(asked.body.get("model") or "model"),
        protocol="parallel" if settings.parallel else "sequential",
        question=last_text(asked.body["messages"]),
        gold=asked.gold,
        answers=found.answers,
        scores=found.scores,
        verdicts=found.verdicts,
        tokens=found.usages,
        completions=tuple(one.text for one in found.completions),
        finish=tuple(one.finish for one in found.completions),
        returned=found.returned,
        stop_reason=found.stop_reason,
        belief=found.belief,
    )
