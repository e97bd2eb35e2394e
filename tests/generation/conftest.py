"""Servers of scripts, stopped after the test."""

from collections.abc import Callable, Iterator

import pytest
from scripted_server import MODEL, Reply, ScriptedServer


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    servers = []

    def start(script=lambda number, request: Reply(), served=(MODEL,)) -> ScriptedServer:
        models = Reply({"object": "list", "data": [{"id": name} for name in served]})
        servers.append(ScriptedServer(script, models))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
