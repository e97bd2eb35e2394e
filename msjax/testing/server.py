"""A server that answers what a script says, for tests of what is sent and of every fault."""

import json
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["DROP", "MODEL", "USAGE", "Reply", "ScriptedServer", "completion"]

MODEL = "small-model"
USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}


def completion(
    text: str | None = "It is 4.", finish: str = "stop", usage: dict = USAGE, **choice: Any
) -> dict:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": finish, **choice}]
    head = {"id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": MODEL}
    return {**head, "choices": choices, "usage": usage}


@dataclass
class Reply:
    """What the server does with one request: `missing` bytes of the body are never sent, and
    `drip` seconds pass between its bytes.
    """

    body: dict | bytes = field(default_factory=completion)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    missing: int = 0
    drip: float = 0.0


DROP = Reply(b"", missing=1)  # closes the connection before the body


class ScriptedServer(ThreadingHTTPServer):
    """Answers chat completion number 0, 1, ... with ``script(number, request)``.

    None, from a script or as the list of models, holds the request until the client gives it up.
    """

    def __init__(self, script: Callable[[int, dict], Reply | None], models: Reply | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.models = script, models
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.lock = threading.Lock()
        self.asked: list[dict] = []
        self.keys: set[str] = set()
        self.given_up = self.open = self.most_open = 0
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_GET(self) -> None:
        assert self.path == "/v1/models"
        self.give(self.server.models)

    def do_POST(self) -> None:
        assert self.path in ("/v1/chat/completions", "/pooling")
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            number = len(server.asked)
            server.asked.append(request)
            server.keys.add((self.headers["authorization"] or "").removeprefix("Bearer "))
            server.open += 1
            server.most_open = max(server.most_open, server.open)
        reply = server.script(number, request)
        with server.lock:
            server.open -= 1
        self.give(reply)

    def give(self, reply: Reply | None) -> None:
        if reply is None:
            readable, _, _ = select.select([self.connection], [], [], 10)
            if readable and self.connection.recv(1) == b"":
                with self.server.lock:
                    self.server.given_up += 1
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body) + reply.missing))
        self.end_headers()
        if not reply.drip:
            self.wfile.write(body)
            return
        with suppress(ConnectionError):
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(reply.drip)

    def log_message(self, *_: Any) -> None:
        pass
