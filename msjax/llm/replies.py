"""What a reply of a server says: text, thoughts, why it ended, what it cost.

Servers that speak OpenAI's protocol differ in all of these. What they write differently is read as
the same here, and what cannot be is not believed; docs/servers.md lists it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from msjax.data.messages import FINISHED
from msjax.data.usage import MOST_TOKENS, Usage, believed
from msjax.tasks.characters import writable

__all__ = [
    "Reply",
    "error_status",
    "error_words",
    "is_too_long",
    "read_reply",
    "read_usage",
    "refused_parameters",
]

_WORDS = 4000
"""Characters of an error that are looked at."""

_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|size|window|limit|overflow)|context the overflows"
    r"|max(?:imum)?[ _-](?:model|prompt|input|sequence|seq|total)[ _-]?(?:len(?:gth)?|tokens)"
    r"|maximum (?:number of (?:input )?tokens|allowed length|sequence)"
    r"|(?:prompt|inputs?|conversation|question)\b[^.\n]{0,60}"
    r"(?:too (?:long|large)|is longer than|exceed\w*\b[^.\n]{0,40}\b(?:length|tokens|limit))"
    r"|(?:request|payload|body)(?: entity| body)? too large|tokens_limit_reached"
    r"|(?:inputs?|prompt)`? must have less than|inputs?`? tokens \+ `?max_new_tokens"
    r"|reduce the length of|too many (?:input |prompt )?tokens|model token limit"
    r"|token count[^.\n]{0,40} exceed|exceed[^.\n]{0,40} token count|range of input length"
    r"|session_len|max_num_tokens|max_tokens must be at least 1, got -|string too long"
    r"|input_length_error|larger than the model input length|provided prompt length"
    r"|token limit exceeded|above_max_length|input token count is|submitted was too long"
    r"|length of input_ids|\bn_ctx\b|context shift is disabled|tokens but only \d+ are available",
    re.IGNORECASE,
)
_NOT_LENGTH = re.compile(r"per (?:minute|day|hour)|\b[tr]p[md]\b|rate.?limit|quota", re.IGNORECASE)
_UNKNOWN_NAME = re.compile(
    r"unsupported|not supported|does not support|unrecognized|unknown|not permitted|unexpected"
    r"|max_completion_tokens",
    re.IGNORECASE,
)
_STATUS_OF_WORDS = (
    (re.compile(r"rate.?limit|too many requests|quota|throttl", re.IGNORECASE), 429),
    (re.compile(r"authenticat|unauthori[sz]ed|api.?key", re.IGNORECASE), 401),
    (re.compile(r"permission|forbidden", re.IGNORECASE), 403),
    (re.compile(r"not.?found|does not exist", re.IGNORECASE), 404),
    (re.compile(r"overload|unavailable|timed? ?out|server.?error|internal", re.IGNORECASE), 503),
    (re.compile(r"invalid|bad.?request|validation|unsupported", re.IGNORECASE), 400),
)


@dataclass(frozen=True)
class Reply:
    """A reply, as far as it is read.

    Attributes:
        text: of the answer, without thoughts.
        reasoning: thoughts that came in a field of their own; "" for none.
        finish: why it ended, in the server's words; None if it does not say.
        token_logprob: mean natural log-probability per token; NaN if one is unknown or none can be.
        usage: the account, None where it is not reported or cannot be.
        problem: what could not be believed of the account, "" for nothing.
        model: that answered, None if the server does not say.
    """

    text: str
    reasoning: str
    finish: str | None
    token_logprob: float
    usage: Usage
    problem: str
    model: str | None

    @property
    def finished(self) -> bool:
        """Whether the model ended its answer itself."""
        return self.finish is not None and self.finish.lower() in FINISHED


def read_json(body: str) -> dict[str, Any]:
    """A JSON object; raises ValueError for anything else."""
    try:
        found = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def read_reply(body: str) -> Reply:
    """What a chat completion says.

    Raises:
        ValueError: it is none.
    """
    found = read_json(body)
    choice = _choice(found.get("choices"))
    message = choice.get("message")
    if not isinstance(message, dict):
        if not isinstance(choice.get("text"), str):
            raise ValueError("its choice has no message")
        message = {"content": choice["text"]}
    text, thoughts = _content(message.get("content"))
    named = (message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))
    reasoning = next((x for x in named if isinstance(x, str) and x), "") or thoughts
    details = message.get("reasoning_details") or message.get("thinking_blocks")
    if not reasoning and isinstance(details, list):
        reasoning = "".join(_texts(part) for part in details)
    finish, model = choice.get("finish_reason"), found.get("model")
    usage, problem = read_usage(found.get("usage"), said=bool(text or reasoning))
    return Reply(
        text=writable(text),
        reasoning=writable(reasoning),
        finish=writable(finish) if isinstance(finish, str) and finish else None,
        token_logprob=_mean_logprob(choice.get("logprobs")),
        usage=usage,
        problem=problem,
        model=model if isinstance(model, str) and model else None,
    )


def _choice(choices: Any) -> dict[str, Any]:
    """The choice of index 0, or of the lowest."""
    found = [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
    if not found:
        raise ValueError("it has no choices")

    def index(one: dict[str, Any]) -> int:
        number = one.get("index")
        return number if isinstance(number, int) and number >= 0 else 0

    return min(found, key=index)


def _content(content: Any) -> tuple[str, str]:
    """Text and thoughts of a message's content, which may come in parts."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    parts = [content] if isinstance(content, dict) else content
    if not isinstance(parts, list):
        raise ValueError(f"its content is {type(content).__name__}, not text")
    text, thoughts = "", ""
    for part in parts:
        kind = "text" if isinstance(part, str) else str(_get(part, "type", "text"))
        if "text" in kind and "summary" not in kind:
            text += _texts(part)
        elif re.search("think|reason|thought", kind):
            thoughts += _texts(part)
    return text, thoughts


def _texts(part: Any) -> str:
    """All text in a part of a message."""
    if isinstance(part, str):
        return part
    if isinstance(part, list):
        return "".join(map(_texts, part))
    names = ("text", "value", "content", "thinking", "reasoning", "summary")
    return next((_texts(part[x]) for x in names if _get(part, x, None)), "")


def _get(part: Any, name: str, default: Any) -> Any:
    return part.get(name, default) if isinstance(part, Mapping) else default


def _mean_logprob(logprobs: Any) -> float:
    tokens = _get(logprobs, "content", None)
    if isinstance(tokens, list):
        values = [_get(token, "logprob", None) for token in tokens]
    else:
        values = _get(logprobs, "token_logprobs", None) or []
    if not isinstance(values, Sequence) or not values:
        return math.nan
    # A little above 0 is rounding.
    good = (isinstance(x, int | float) and not isinstance(x, bool) and x <= 1e-3 for x in values)
    mean = fmean(values) if all(good) else math.nan
    return min(mean, 0.0) if math.isfinite(mean) else math.nan


def read_usage(usage: Any, *, said: bool) -> tuple[Usage, str]:
    """The account of a reply, and what of it could not be believed ("" for nothing).

    Where thoughts are counted apart from the completion, they are added to it. A count that cannot
    be, and does not follow from the others, is not reported.

    Args:
        usage: the field of the reply.
        said: whether the reply holds any text.
    """
    if not isinstance(usage, Mapping):
        return Usage(), "no usage is reported"
    prompt = _first_count(usage, "prompt_tokens", "input_tokens")
    completion = _first_count(usage, "completion_tokens", "output_tokens")
    total = _count(usage.get("total_tokens")) or None
    cached = _cached(usage)
    thoughts = _details(usage, "reasoning_tokens", "completion_tokens", "output_tokens") or 0
    prompt = prompt or None  # of 0 tokens there is none
    if completion == 0 and said:
        completion = None
    problem = ""
    if prompt is not None and completion is not None:
        if total is not None and total > prompt + completion:
            # Thoughts counted apart, or a prompt without what was read from the cache.
            apart = cached is not None and cached > prompt and total == prompt + completion + cached
            if apart and cached is not None:
                prompt += cached
            else:
                completion = total - prompt
        elif thoughts > completion:
            completion += thoughts
        elif total is not None and total < prompt + completion:
            problem = f"total_tokens {total} is below {prompt} + {completion}"
            prompt = completion = None
    elif total is not None and prompt is not None and total > prompt:
        completion = total - prompt
    elif total is not None and completion is not None and total > completion and not thoughts:
        prompt = total - completion
    if prompt is None or (completion is None and not problem):
        missing = [
            name
            for name, count in (("prompt_tokens", prompt), ("completion_tokens", completion))
            if count is None
        ]
        problem = problem or f"{' and '.join(missing)} not reported, or what cannot be"
    if prompt is None:
        cached = None
    elif cached is not None and cached > prompt:
        problem = problem or f"cached_tokens {cached} of a prompt of {prompt}"
        cached = prompt
    usage_ = Usage(prompt=prompt, cached=cached, completion=completion)
    return believed(usage_, answered=said), problem


def _first_count(usage: Mapping[str, Any], *names: str) -> int | None:
    return next((x for x in (_count(usage.get(name)) for name in names) if x is not None), None)


def _details(usage: Mapping[str, Any], name: str, *fields: str) -> int | None:
    """A count from the details of a field, or from beside it."""
    inner = (_count(_get(usage.get(f"{field}_details"), name, None)) for field in fields)
    return next((x for x in (*inner, _count(usage.get(name))) if x is not None), None)


def _cached(usage: Mapping[str, Any]) -> int | None:
    found = _details(usage, "cached_tokens", "prompt_tokens", "input_tokens")
    if found is None:
        found = _first_count(
            usage, "prompt_cache_hit_tokens", "num_cached_tokens", "cache_read_tokens"
        )
    if found is None:
        found = _count(_get(usage.get("input_token_details"), "cache_read", None))
    return found


def _count(value: Any) -> int | None:
    """A number of tokens that can be; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    sensible = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if sensible else None


def error_status(body: str) -> int | None:
    """The status that a reply of status 200 should have had; None if it is no error."""
    try:
        found = read_json(body)
    except ValueError:
        return None
    choices = found.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    error = found.get("error") or (found.get("object") == "error" and found)
    if not error and _get(found.get("base_resp"), "status_code", 0):
        error = found["base_resp"]
    if not error and choice is not None:
        ended = str(_get(choice, "finish_reason", "")).lower() == "error"
        error = _get(choice, "error", None) or ended
    if not error:
        return None
    names = ("code", "status", "status_code", "http_code")
    for number in (_get(one, name, None) for one in (error, found) for name in names):
        if str(number).isdecimal() and 400 <= int(number) < 600:
            return int(number)
    words = error_words(body)
    if is_too_long(words):
        return 400
    return next((status for pattern, status in _STATUS_OF_WORDS if pattern.search(words)), 500)


def error_words(body: str) -> str:
    """What a reply says of an error, without what it repeats of the request."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return body[:_WORDS]
    said: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                if name not in ("input", "ctx", "url", "headers", "request", "body"):
                    collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)
        elif isinstance(value, str):
            said.append(value)

    with suppress(RecursionError):
        collect(found.get("error") or found if isinstance(found, dict) else found)
    return "\n".join(said)[:_WORDS]


def is_too_long(words: str) -> bool:
    """Whether an error says that a request is longer than the model's context."""
    return bool(_TOO_LONG.search(words)) and not _NOT_LENGTH.search(words)


def refused_parameters(words: str, names: Collection[str]) -> set[str]:
    """Which of these parameters of a request an error names."""
    patterns = {name: name.replace("logprobs", r"log[ _-]?probs?") for name in names}
    found = {
        name
        for name, pattern in patterns.items()
        if re.search(rf"(?<![a-z_]){pattern}(?![a-z_])", words, re.IGNORECASE)
    }
    if "max_tokens" in found and not _UNKNOWN_NAME.search(words):
        found.remove("max_tokens")  # its value is refused, not its name
    return found
