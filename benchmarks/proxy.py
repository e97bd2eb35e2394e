"""What `msjax serve` adds to a request beside a plain reverse proxy, and whether it keeps memory.

A server that takes a random time for every answer, as models do, is asked directly, through a plain
reverse proxy of the same libraries, and through `msjax serve` with the rule off, by so many clients
at a time, in turns; its own time is taken off. Then requests are revised by the thousand, and the
memory of the proxy is read.

    python -m benchmarks.proxy --json proxy.json
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from msjax.cli.output import write_json

_REPLY = json.dumps(
    {
        "id": "chatcmpl-%.6f",  # the seconds that the server waited
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The answer is 4."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
    }
)


@dataclass(frozen=True)
class Proxies:
    """Measure latency and memory.

    python -m benchmarks.proxy --json proxy.json
    """

    clients: int = 64
    """requests at a time"""
    seconds: float = 0.2
    """that the server takes for an answer in the mean, each time between half and three halves"""
    requests: int = 640
    """per timed turn"""
    turns: int = 5
    """timed turns of each"""
    revised: int = 10_000
    """requests that are revised, for the memory"""
    json: Path | None = None
    """write the results here as well"""


@dataclass(frozen=True)
class Added:
    """Milliseconds more than the server asked directly: median and 95th percentile of turns."""

    median: float
    p95: float


@dataclass(frozen=True)
class Results:
    """What `measure` found.

    Attributes:
        plain, ours: what each proxy adds to a request.
        start: seconds until `msjax serve` answers.
        memory: megabytes of the proxy after a tenth of the revised requests, and after all.
        revised_per_second: revised requests, of two answers each, that it takes.
    """

    plain: Added
    ours: Added
    start: float
    memory: tuple[float, float]
    revised_per_second: float


class _Connection:
    """One client: a connection that is kept open."""

    def __init__(self, port: int, body: bytes) -> None:
        self._port = port
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body

    async def ask(self, times: int) -> list[float]:
        """Seconds of each of so many requests, one after the other, beyond the server's own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        found = []
        for _ in range(times):
            begun = time.perf_counter()
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith(b"http/1.1 200"):
                raise SystemExit(f"port {self._port} answered {head[:60]!r}")
            length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            reply = await reader.readexactly(int(length))
            taken = time.perf_counter() - begun
            found.append(taken - float(json.loads(reply)["id"].removeprefix("chatcmpl-")))
        writer.close()
        return found


def _load(port: int, clients: int, requests: int, body: bytes) -> list[float]:
    async def all_of_them() -> list[float]:
        each = [_Connection(port, body).ask(requests // clients) for _ in range(clients)]
        return [x for one in await asyncio.gather(*each) for x in one]

    return asyncio.run(all_of_them())


def serve_answers(port: int, seconds: float) -> None:
    """The server: the same answer to everything, after so many seconds in the mean."""
    chance = random.Random(0)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                wait = seconds * chance.uniform(0.5, 1.5)
                begun = time.perf_counter()
                await asyncio.sleep(wait)
                reply = (_REPLY % (time.perf_counter() - begun)).encode()
                kind = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                writer.write(kind + b"content-length: %d\r\n\r\n" % len(reply) + reply)

    async def forever() -> None:
        server = await asyncio.start_server(one, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(forever())


def serve_plain(port: int, upstream: int) -> None:
    """The peer: what a reverse proxy of these libraries is without anything else."""
    import aiohttp
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def chat(request: Request) -> Response:
        async with request.app.state.session.post(
            f"http://127.0.0.1:{upstream}/v1/chat/completions",
            data=await request.body(),
            headers={"content-type": "application/json"},
        ) as found:
            return Response(await found.read(), found.status, media_type="application/json")

    @contextlib.asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as app.state.session:
            yield

    app = Starlette(
        routes=[Route("/v1/chat/completions", chat, methods=["POST"])], lifespan=running
    )
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def _process(port: int, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens at a port, once it does."""
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait()


def _megabytes(process: subprocess.Popen[bytes]) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(options: Proxies) -> Results:
    """Ask in turns, then revise."""
    plain_body = {"model": "m", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}
    body = json.dumps(plain_body).encode()
    off = json.dumps(plain_body | {"msjax": {"rule": "off"}}).encode()
    slow, quick, plain, ours, revising = (_free_port() for _ in range(5))
    serve = ("msjax", "serve", "--upstream")
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        this = "benchmarks.proxy"
        start(_process(slow, this, "--serve-answers", str(slow), str(options.seconds)))
        start(_process(quick, this, "--serve-answers", str(quick), "0"))
        start(_process(plain, this, "--serve-plain", str(plain), str(slow)))
        begun = time.perf_counter()
        start(_process(ours, *serve, f"http://127.0.0.1:{slow}/v1", "--port", str(ours)))
        started = time.perf_counter() - begun
        revises = start(
            _process(revising, *serve, f"http://127.0.0.1:{quick}/v1", "--port", str(revising))
        )
        ways = {"direct": (slow, body), "plain": (plain, body), "ours": (ours, off)}
        turns: dict[str, list[list[float]]] = {name: [] for name in ways}
        for turn in range(options.turns + 1):
            for name, (port, sent) in ways.items():
                found = _load(port, options.clients, options.requests, sent)
                if turn:  # the first one opens connections
                    turns[name].append(found)
        memory, seconds = [], 0.0
        for share in (1, 9):
            begun = time.perf_counter()
            _load(revising, options.clients, options.revised * share // 10, body)
            seconds += time.perf_counter() - begun
            memory.append(_megabytes(revises))
    return Results(
        plain=_added(turns["plain"], turns["direct"]),
        ours=_added(turns["ours"], turns["direct"]),
        start=started,
        memory=(memory[0], memory[1]),
        revised_per_second=options.revised / seconds,
    )


def _added(proxied: list[list[float]], direct: list[list[float]]) -> Added:
    def at(share: float) -> float:
        return 1000 * statistics.median(
            statistics.quantiles(one, n=100)[int(100 * share) - 1]
            - statistics.quantiles(other, n=100)[int(100 * share) - 1]
            for one, other in zip(proxied, direct, strict=True)
        )

    return Added(at(0.5), at(0.95))


def main() -> None:
    """Measure and print; or be one of the servers."""
    if sys.argv[1:2] == ["--serve-answers"]:
        return serve_answers(int(sys.argv[2]), float(sys.argv[3]))
    if sys.argv[1:2] == ["--serve-plain"]:
        return serve_plain(int(sys.argv[2]), int(sys.argv[3]))
    options = tyro.cli(Proxies)
    found = measure(options)
    for name, added in (("a plain reverse proxy", found.plain), ("msjax serve", found.ours)):
        print(f"{name}: {added.median:.1f} ms more (median), {added.p95:.1f} (95 %)")
    print(f"starts in {found.start:.1f} s")
    print(f"memory: {found.memory[0]:.0f} MB, then {found.memory[1]:.0f} MB")
    print(f"revised: {found.revised_per_second:.0f} requests per second, of two answers each")
    if options.json is not None:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
