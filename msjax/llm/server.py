"""How a server that speaks OpenAI's protocol is reached, and what its failures mean.

docs/servers.md says what happens when such a server fails, refuses or answers nonsense.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import random
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ValidationError

from msjax.errors import InputError, ServerError, require_extra
from msjax.llm.concurrency import in_thread
from msjax.llm.replies import error_status, error_words, is_too_long

if TYPE_CHECKING:
    import ssl

    import openai

__all__ = ["FIRST_ANSWER", "HIDDEN", "MOST_BYTES", "SHOWN", "Server"]

_Shape = TypeVar("_Shape", bound=BaseModel)
_T = TypeVar("_T")
FIRST_ANSWER = 10.0
"""Seconds a server may take to accept a connection or to list its models."""
SHOWN = 300
"""Characters of an answer that error messages show."""
MOST_BYTES = 2**25
"""Bytes of a reply, decompressed, that are read."""
_TOO_LARGE = 413
"""Status of a request, or of a reply to it, that is too large."""
_SHORT = 4
"""Characters up to which a key is none: servers that ask for none are given a word."""
HIDDEN = "(secret)"
"""What stands in place of a key."""
_KEY = "api_key (of commands: OPENAI_API_KEY, REWARD_API_KEY or JUDGE_API_KEY in the environment)"


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that are trusted, read once: that takes longer than many a request."""
    import httpx2

    return httpx2.create_ssl_context()


def _shown(url: str) -> str:
    """A URL without user and password."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def _secrets(url: str, api_key: str) -> tuple[str, ...]:
    """What no message and no record may show, the longest first: the key, user and password.

    A server that repeats a request shows them as its headers and as JSON have them, too.
    """
    found = {api_key} if len(api_key) > _SHORT else set()
    parts = urlsplit(url)
    if parts.password is not None:
        both = unquote(f"{parts.username}:{parts.password}")
        found |= {parts.password, unquote(parts.password), both}
        found.add(base64.b64encode(both.encode()).decode())
    found |= {json.dumps(secret)[1:-1] for secret in found}
    return tuple(sorted(filter(None, found), key=len, reverse=True))


def _set_status(response: Any) -> None:
    status = response.status_code
    if status == 200:
        response.status_code = error_status(response.text) or 200
    elif status in (413, 422) or status >= 500:
        response.status_code = 400 if is_too_long(error_words(response.text)) else status


class Server:
    """A server's address and patience with it.

    A reply of status 200 that holds an error has the status of that error. Connection errors,
    timeouts, 408, 409, 429 and 5xx are tried again while patience lasts: after what the server's
    Retry-After says, else after 0.5 s, 1 s, ... up to 8 s, less a random quarter.

    Args:
        base_url: of the server's API.
        api_key: for servers that ask for one; white space around it is dropped.
        timeout: seconds an answer may take, from its request to its last byte.
        patience: seconds after its first failure in which a request is tried again.

    Raises:
        InputError: a setting outside its range.
    """

    def __init__(self, base_url: str, *, api_key: str, timeout: float, patience: float):
        require_extra("serve", "openai")
        import openai

        if not base_url.startswith(("http://", "https://")):
            raise InputError(f"base_url is {base_url!r}; it must begin with http:// or https://")
        api_key = api_key.strip() or "none"
        if not (api_key.isascii() and api_key.isprintable()):
            raise InputError(f"{_KEY} is not printable ASCII; give the key as it was issued")
        if not timeout > 0:
            raise InputError(f"timeout is {timeout}; it must be more than 0 seconds")
        if not patience >= 0:
            raise InputError(f"patience is {patience}; it must be 0 seconds or more")
        self.base_url = _shown(base_url)
        self._secrets = _secrets(base_url, api_key)
        self.timeout = timeout
        self.patience = patience
        self._settings: dict[str, Any] = {
            "base_url": base_url,
            "api_key": api_key,
            "timeout": openai.Timeout(timeout, connect=min(timeout, FIRST_ANSWER)),
            "max_retries": 0,
        }

    def client(self) -> openai.AsyncOpenAI:
        """A client for many requests at a time."""
        import openai

        hooks = {"response": [self._read_later]}
        http = openai.DefaultAsyncHttpxClient(event_hooks=hooks, verify=_trusted())
        return openai.AsyncOpenAI(**self._settings, http_client=http)

    def waiting_client(self) -> openai.OpenAI:
        """A client for one request after the other."""
        import openai

        http = openai.DefaultHttpxClient(event_hooks={"response": [self._read]}, verify=_trusted())
        return openai.OpenAI(**self._settings, http_client=http)

    def _read(self, response: Any) -> None:
        content = bytearray()
        for part in response.iter_bytes():
            content += part
            if len(content) > MOST_BYTES:
                response.close()
                break
        self._accept(response, bytes(content))

    async def _read_later(self, response: Any) -> None:
        content = bytearray()
        async for part in response.aiter_bytes():
            content += part
            if len(content) > MOST_BYTES:
                await response.aclose()
                break
        self._accept(response, bytes(content))

    def _accept(self, response: Any, content: bytes) -> None:
        """Makes this the content of a reply, and gives an error its status.

        One in a reply of status 200 gets its own, a request that is too long 400, whatever the
        server says, so that it is not tried again; a reply that is too large is an error, too.
        """
        if len(content) > MOST_BYTES:
            response.status_code = _TOO_LARGE
            says = f"its reply has more than {MOST_BYTES} bytes, and was not read further"
            content = json.dumps({"error": {"message": says}}).encode()
        for secret in self._secrets:
            content = content.replace(secret.encode(), HIDDEN.encode())
        response._content = content
        _set_status(response)

    async def tried(self, call: Callable[[], Awaitable[_T]]) -> tuple[_T, int]:
        """What a request comes to, tried again while patience lasts, and its number of retries.

        Raises:
            APIError, TimeoutError: what came of the last try.
        """
        tries = _Tries(self.patience)
        while True:
            try:
                return await asyncio.wait_for(call(), self.timeout), tries.again
            except Exception as error:
                wait = tries.wait_after(error)
            await asyncio.sleep(wait)

    def tried_in_thread(self, call: Callable[[], _T]) -> _T:
        """As `tried`, for a call that blocks; one that takes too long is left behind."""
        tries = _Tries(self.patience)
        while True:
            try:
                return in_thread(call).result(self.timeout)
            except Exception as error:
                wait = tries.wait_after(error)
            time.sleep(wait)

    def parsed(self, shape: type[_Shape], body: str) -> _Shape:
        """An answer in the shape that is expected; ServerError if it has another."""
        try:
            return shape.model_validate_json(body)
        except ValidationError as error:
            raise self.nonsense(body, error.errors()[0]["msg"]) from error

    def nonsense(self, body: str, reason: str) -> ServerError:
        """What to tell the user of a reply that is not the protocol, for this reason."""
        return ServerError(
            f"{self.base_url} answered {self.words(body)}, which is not OpenAI's protocol "
            f"({reason}); correct base_url"
        )

    def words(self, body: str) -> str:
        """The beginning of a reply as errors show it."""
        return repr(body[:SHOWN])

    def without_secrets(self, text: str) -> str:
        """A text without key, user and password."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def failure(
        self, error: openai.APIError | TimeoutError, model: str, relief: str
    ) -> InputError | ServerError:
        """What to tell the user of an error that is still there after all retries.

        Args:
            error: the last one.
            model: whom the request was for.
            relief: what would make requests lighter.
        """
        import openai

        if isinstance(error, openai.APITimeoutError | TimeoutError):
            return ServerError(
                f"{self.base_url} did not answer in time ({FIRST_ANSWER:g} seconds to connect or "
                f"to list its models, timeout = {self.timeout:g} seconds per answer); raise "
                f"timeout or {relief}"
            )
        if isinstance(error, openai.APIStatusError):
            body = error.response.text
            shown = body if len(body) <= SHOWN else error_words(body)
            words = f"{error.status_code} {self.words(shown)}"
            if error.status_code in (408, 409, 429) or error.status_code >= 500:
                return ServerError(
                    f"{self.base_url} failed: {words}; wait until it is ready, {relief}, or raise "
                    f"patience (now {self.patience:g} seconds)"
                )
            wrong = f"base_url, which as a rule ends in /v1, the model or the {_KEY}"
            lighter = f"{relief}, or " if error.status_code == _TOO_LARGE else ""
            return InputError(
                f"{self.base_url} refused a request for model {model!r}: {words}; {lighter}correct "
                f"{wrong}"
            )
        cause = self.without_secrets(str(error.__cause__ or error))
        return ServerError(
            f"no server answers at {self.base_url} ({cause}); start it there "
            f"or correct base_url; one that comes back later needs patience (now {self.patience:g} "
            "seconds)"
        )


class _Tries:
    """The tries of one request.

    Args:
        patience: seconds after the first failure in which it is tried again.

    Attributes:
        again: how often it was tried again.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._until: float | None = None
        self.again = 0

    def wait_after(self, error: Exception) -> float:
        """Seconds until the next try; the error itself, raised, if there is to be none."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._patience
        left = self._until - now
        asked = _retry_after(error)
        if not _passes(error) or left <= 0 or (asked or 0) > left:
            raise error
        backoff = min(0.5 * 2.0**self.again, 8.0) * (1 - random.random() / 4)
        self.again += 1
        return min(backoff, left) if asked is None else asked


def _passes(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | TimeoutError)


def _retry_after(error: Exception) -> float | None:
    """Seconds after which the server wants to be asked again; None if it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        said = str(headers.get(name))
        with suppress(ValueError):
            seconds = float(said) / unit
            return max(seconds, 0.0) if math.isfinite(seconds) else None
        with suppress(TypeError, ValueError):  # TypeError: a date without a zone
            return max((parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds(), 0.0)
    return None
