"""A proxy at work, for tests of what clients get from it, and what stands behind it."""

import importlib.util
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import openai
import pytest
import uvicorn

from msjax.llm.serve.app import ServeSettings, make_app
from msjax.testing.server import MODEL

ASKED = [{"role": "user", "content": "What is 2 + 3?"}]


class Running:
    """A proxy at work: its settings, a client of it and its metrics."""

    def __init__(self, settings: ServeSettings) -> None:
        config = uvicorn.Config(make_app(settings), port=0, log_level="warning", access_log=False)
        self.server = uvicorn.Server(config)
        sockets = [config.bind_socket()]
        sockets[0].listen()  # so that a client that is quicker than the thread waits
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": sockets})
        self.thread.start()
        self.client = openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="client-key", max_retries=0, timeout=20
        )

    def ask(self, messages=ASKED, model=MODEL, **more):
        return self.client.chat.completions.create(model=model, messages=messages, **more)

    def get(self, path: str) -> str:
        return self.send("GET", path)[1]

    def send(self, method, path, body=None, **headers) -> tuple[int, str]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", self.get("/metrics"), re.MULTILINE)
        return float(value)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.client.close()


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def is_healthy(port: int) -> bool:
    """Whether a server says that it is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def smollm2_folder(parent: Path) -> Path:
    """SmolLM2 as a folder, for servers that read no GGUF files."""
    for package in ("torch", "accelerate", "fastapi"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; pip install torch 'transformers[serving]'")
    from transformers import AutoModelForCausalLM

    from msjax.llm.flax.chat import load_tokenizer
    from msjax.llm.flax.weights import ensure

    path = ensure()
    folder = parent / path.stem
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype="float32")
    # It is read as plain numbers, but would be refused as a quantized model.
    read.hf_quantizer = None
    read.config.__dict__.pop("quantization_config", None)
    read.save_pretrained(folder)
    load_tokenizer(path).save_pretrained(folder)
    return folder
