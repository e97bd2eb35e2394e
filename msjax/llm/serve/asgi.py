"""Bodies, replies and clients that go away: what requests have in common."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable
from typing import Any

from starlette.types import Receive, Scope, Send

__all__ = ["RefusedError", "Reply", "header", "read_body", "until_gone"]

_HOP_BY_HOP = {
    "connection",
    "content-encoding",
    "content-length",
    "date",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "server",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_OWN = {"accept-encoding", "authorization", "cookie", "forwarded", "host", "x-real-ip"}


class RefusedError(Exception):
    """A request that is not answered; it becomes an error as OpenAI writes them."""

    def __init__(self, status: int, message: str, *, code: str = "", headers: Any = ()) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, list(headers)

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        kind = "invalid_request_error" if self.status < 500 else "upstream_error"
        return {"error": {"message": str(self), "type": kind, "code": self.code or None}}


class Reply:
    """Sends one reply, whole or piece by piece."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Status and headers."""
        self.begun = True
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def more(self, body: bytes) -> None:
        """A piece of the body."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        """The last piece."""
        await self._send({"type": "http.response.body", "body": body})

    async def whole(
        self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """All at once."""
        await self.begin(status, [*headers, ("content-length", str(len(body)))])
        await self.end(body)

    async def json(self, status: int, value: Any, headers: Iterable[tuple[str, str]] = ()) -> None:
        """A JSON value."""
        kind = ("content-type", "application/json")
        await self.whole(status, json.dumps(value).encode(), [kind, *headers])

    async def event(self, value: Any) -> None:
        """A server-sent event."""
        text = value if isinstance(value, str) else json.dumps(value)
        await self.more(f"data: {text}\n\n".encode())


def header(scope: Scope, name: str) -> str:
    """A header of a request, "" if it has none."""
    raw = name.encode()
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == raw), "")


def passed_on(headers: Iterable[tuple[str, str]], *, reply: bool = False) -> list[tuple[str, str]]:
    """Headers that concern those at both ends: not the connection, not who is whose client."""
    dropped = _HOP_BY_HOP if reply else _HOP_BY_HOP | _OWN
    return [
        (name.lower(), value)
        for name, value in headers
        if name.lower() not in dropped
        and not (not reply and name.lower().startswith("x-forwarded"))
    ]


async def read_body(receive: Receive, most: int) -> bytes:
    """The body of a request.

    Raises RefusedError for more than `most` bytes, and ConnectionError where the client went away.
    """
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client is gone")
        size += len(message.get("body", b""))
        if size > most:
            raise RefusedError(413, f"the body has more than {most:,} bytes; send less")
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def until_gone(work: Coroutine[Any, Any, None], receive: Receive) -> bool:
    """Do it, or give it up if the client goes away before; returns whether it was done."""
    doing = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await doing
            return True
        return False
    finally:
        for task in (doing, gone):
            task.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
