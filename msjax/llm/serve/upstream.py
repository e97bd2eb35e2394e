"""The servers behind the proxy: the least loaded one is asked, one that fails is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp

from msjax.errors import InputError
from msjax.llm.balance import UNAVAILABLE, Upstream, by_load
from msjax.llm.server import HIDDEN, MOST_BYTES

__all__ = ["Answered", "DownError", "Upstreams"]

CONNECT = 10.0
"""Seconds a server may take to accept a connection."""
_LONG = 8  # shorter keys are words, such as EMPTY, for servers that ask for none
MOST_STREAMED = 16 * MOST_BYTES
"""Bytes of a stream that are passed on; of it nothing is held here."""


class DownError(Exception):
    """No server answered; the message names each with its reason."""

    def __init__(self, message: str, status: int = 502) -> None:
        super().__init__(message)
        self.status = status


class Answered(NamedTuple):
    """A reply as it came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Upstreams:
    """Several servers of the same models.

    Requests go to no other host: redirects are not followed and proxies named in the environment
    are not used.

    Args:
        urls: of their APIs, as a rule ending in /v1.
        timeout: seconds an answer may take.
        concurrency: most requests under way, to all together.
        secret: a key that clients do not have, which replies must not show; None for none.

    Raises:
        InputError: no URL, one that is none, or that holds a password.
    """

    def __init__(
        self, urls: Sequence[str], *, timeout: float, concurrency: int, secret: str | None = None
    ) -> None:
        if not urls:
            raise InputError("upstream is missing; give the URL of a server, ending in /v1")
        for url in urls:
            host = url.partition("://")[2].partition("/")[0]
            if not url.startswith(("http://", "https://")) or not host:
                raise InputError(f"upstream is {url!r}; it must begin with http:// or https://")
            if "@" in host:
                raise InputError("upstream holds a password; give it as a key instead")
        self.servers = [Upstream(url.rstrip("/")) for url in urls]
        self._timeout = timeout
        self._secret = secret if secret and len(secret) >= _LONG else None
        self._slots = asyncio.Semaphore(concurrency)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Holds the connections."""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=min(self._timeout, CONNECT), sock_read=self._timeout
            ),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        ) as self._session:
            yield

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        last: Upstream | None = None,
    ) -> tuple[Answered, Upstream]:
        """The reply of the first server that gives one.

        Raises:
            DownError: none did.
        """
        async with self.stream(method, path, body, headers, last) as (response, server):
            content = self.shown(b"".join([x async for x in self.pieces(response, server)]))
            return Answered(response.status, list(response.headers.items()), content), server

    def shown(self, content: bytes) -> bytes:
        """A reply without the secret, which a server may repeat when it refuses a request."""
        return content.replace(self._secret.encode(), HIDDEN.encode()) if self._secret else content

    async def pieces(
        self, response: aiohttp.ClientResponse, server: Upstream, most: int = MOST_BYTES
    ) -> AsyncIterator[bytes]:
        """The body of a reply as it comes, within the timeout and up to `most` bytes.

        Raises:
            DownError: it broke off, took too long or is longer.
        """
        size, end = 0, asyncio.get_running_loop().time() + self._timeout

        async def piece() -> bytes:
            async with asyncio.timeout_at(end):
                return await response.content.readany()

        try:
            while found := await piece():
                size += len(found)
                if size > most:
                    raise DownError(
                        f"{server.url}: its reply has more than {most} bytes, and was not read "
                        "further"
                    )
                yield found
        except (aiohttp.ClientError, TimeoutError) as error:
            server.fail(_reason(error))
            status = 504 if isinstance(error, TimeoutError) else 502
            raise DownError(f"{server.url}: {server.reason} as it answered", status) from None

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        last: Upstream | None = None,
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Upstream]]:
        """The beginning of the reply of the first server that gives one; its body is still to come.

        A server that cannot be reached, or that says that it is not available, is left out for a
        while and the next one is asked. Closing this gives the request up.

        Raises:
            DownError: none answered.
        """
        tried: list[str] = []
        slow = False
        order = by_load(self.servers, last)
        async with self._slots:
            # A connection that was kept open may have been closed by a lone server: it is tried
            # once more.
            for number, server in enumerate(order if len(order) > 1 else order * 2):
                server.in_flight += 1
                try:
                    try:
                        response = await self._session.request(
                            method,
                            server.url + path,
                            data=body,
                            headers=headers,
                            allow_redirects=False,
                        )
                    except (aiohttp.ClientError, TimeoutError) as error:
                        server.fail(_reason(error))
                        slow = isinstance(error, aiohttp.SocketTimeoutError)
                        tried.append(f"{server.url}: {server.reason}")
                        if slow:  # the next try would take as long
                            break
                        continue
                    try:
                        if 300 <= response.status < 400:
                            server.fail(f"redirects elsewhere (status {response.status})")
                            tried.append(f"{server.url}: {server.reason}")
                            continue
                        if response.headers.get("content-encoding", "identity") != "identity":
                            server.fail("compresses its replies, though it is asked not to")
                            tried.append(f"{server.url}: {server.reason}")
                            continue
                        if response.status in UNAVAILABLE:
                            server.fail(f"status {response.status}")
                            if number + 1 < len(order):
                                continue
                        else:
                            server.answered()
                        yield response, server
                        return
                    finally:
                        response.close()
                finally:
                    server.in_flight -= 1
        raise DownError("; ".join(dict.fromkeys(tried)), 504 if slow else 502)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}{f' ({error})' if str(error) else ''}"
