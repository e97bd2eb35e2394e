"""llama.cpp and vLLM with a small model behind the engine and the proxy: what real servers do.

llama.cpp comes with `xllamacpp`. vLLM has an environment of its own: name its executable in
MSJAX_VLLM, and `make test ARGS='-m served'`.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
import openai
import pytest
from proxies import Running, eventually, is_healthy, smollm2_folder

import msjax
from msjax.data.messages import asked
from msjax.errors import ServerError
from msjax.llm.engine import ask
from msjax.llm.flax.weights import ensure
from msjax.llm.live_rule import rule_without_pilot
from msjax.llm.openai_engine import OpenAIEngine
from msjax.llm.scores import find_score
from msjax.llm.serve.app import Deciding, ServeSettings
from msjax.rules.fixed import fixed_rounds

LLAMA_CPP = """
import sys, time, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.model_alias = sys.argv[1], {"smollm2"}
settings.port, settings.n_parallel, settings.n_ctx = int(sys.argv[2]), 4, 2048
settings.cpuparams.n_threads, settings.warmup = 1, False
server = xllamacpp.Server(settings)
time.sleep(3600)
"""
VLLM = "--dtype float32 --enforce-eager --max-model-len 2048 --enable-prompt-tokens-details "
VLLM += "--block-size 32 --generation-config vllm"
BLOCK = 32
"""Tokens that are cached together, or not at all."""
START_UP = 180
"""Seconds, of which vLLM takes a minute."""


class Server:
    """A server in processes of its own, which may be killed and started again."""

    def __init__(self, command: list[str], **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.command = [one.replace("PORT", str(self.port)) for one in command]
        self.environment = os.environ | environment
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + START_UP
        while not is_healthy(self.port):
            assert self.process.poll() is None and time.monotonic() < end, self.command
            time.sleep(0.1)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(
    scope="module", params=["llama.cpp", pytest.param("vLLM", marks=pytest.mark.served)]
)
def server(request, tmp_path_factory) -> Iterator[Server]:
    if request.param == "llama.cpp":
        pytest.importorskip("xllamacpp")
        there = Server([sys.executable, "-c", LLAMA_CPP, str(ensure()), "PORT"])
    else:
        if "MSJAX_VLLM" not in os.environ:
            pytest.skip("vLLM is not named; set MSJAX_VLLM to its executable")
        folder = smollm2_folder(tmp_path_factory.mktemp("models"))
        there = Server(
            [os.environ["MSJAX_VLLM"], "serve", str(folder), *VLLM.split()]
            + ["--served-model-name", "smollm2", "--port", "PORT"],
            VLLM_CPU_KVCACHE_SPACE="1",
            HF_HUB_OFFLINE="1",
        )
    yield there
    there.kill()


def engine(server: Server, **settings) -> OpenAIEngine:
    known = {"max_new_tokens": 16, "temperature": 0.0, "concurrency": 4, "patience": 0.0}
    return OpenAIEngine(server.url, "smollm2", **known | settings)


def test_rounds_report_their_tokens_what_was_cached_and_probabilities(server):
    runs = msjax.run(msjax.find_task("arithmetic-easy"), engine(server), rounds=1, questions=3)
    for run in runs.records:
        first, second = run.tokens
        assert 0 < first.completion <= 16 and second.prompt > first.prompt + first.completion
        assert second.cached >= first.prompt - first.prompt % BLOCK
        assert all(score <= 0 for score in run.scores)


def test_samples_are_given_up_when_a_rule_stops(server):
    there = engine(server, temperature=1.0, max_new_tokens=40)
    begun = time.monotonic()
    story = asked("Tell a very long story about numbers.")
    keys = list(jax.random.split(jax.random.key(0), 4))
    found = there.sample_until(story, keys, lambda seen: len(seen) == 1)
    assert len(found.seen) == 1 and found.cancelled + len(found.surplus) == 3
    one = time.monotonic() - begun
    ask(engine(server, max_new_tokens=1), [asked("2 + 2?")], keys[:1])
    assert time.monotonic() - begun < 2 * one + 5  # the slots are free again


def test_a_conversation_beyond_the_context_is_an_outcome(server):
    (found,) = ask(engine(server), [asked("number " * 3000)], [jax.random.key(0)])
    assert not found.finished and found.text == ""


def proxy(server: Server, rule: str, budget: int, **settings) -> Running:
    parallel = settings.get("parallel", False)
    only = Deciding(rule, rule_without_pilot(rule, budget, "samples" if parallel else "rounds"))
    return Running(ServeSettings((server.url,), (only,), only, budget, **settings))


def test_the_proxy_revises_and_streams(server):
    there = proxy(server, "fixed", 3, score=find_score("confidence"), logprobs=True)
    try:
        found = there.ask(model="smollm2", max_tokens=16, temperature=0)
        ledger = found.msjax
        assert len(ledger["answers"]) == 3 and all(0 < x <= 1 for x in ledger["scores"])
        assert found.usage.prompt_tokens == sum(one["prompt"] for one in ledger["tokens"])
        before = ledger["tokens"][1]["prompt"]
        assert ledger["tokens"][2]["cached"] >= before - before % BLOCK
        chunks = list(there.ask(model="smollm2", max_tokens=16, temperature=0, stream=True))
        assert chunks[0].choices[0].delta.content == found.choices[0].message.content
        off = there.ask(
            model="smollm2", max_tokens=8, stream=True, extra_body={"msjax": {"rule": "off"}}
        )
        assert len(list(off)) > 2
        with pytest.raises(openai.BadRequestError, match="context"):
            there.ask([{"role": "user", "content": "number " * 3000}], model="smollm2")
    finally:
        there.stop()


def test_a_server_that_is_killed_and_started_again_in_mid_run(server, tmp_path):
    """What was answered is on disk, the same call goes on from there; the proxy goes on itself."""
    task, out = msjax.find_task("arithmetic-easy"), tmp_path / "runs.jsonl"
    there = proxy(server, "fixed", 1)
    try:
        assert there.ask(model="smollm2", max_tokens=4).choices[0].message.content
        known = {"rule": fixed_rounds(1), "rounds": 1, "out": out}
        msjax.run(task, engine(server), questions=2, **known)
        server.kill()
        with pytest.raises(ServerError):
            msjax.run(task, engine(server), questions=4, **known)
        with pytest.raises(openai.InternalServerError, match="upstream failed"):
            there.ask(model="smollm2", max_tokens=4)
        server.start()
        runs = msjax.run(task, engine(server), questions=4, **known)
        assert runs.questions == 4 and len(out.read_text().splitlines()) == 4
        assert np.isfinite(runs.uncached).all()
        assert eventually(lambda: there.ask(model="smollm2", max_tokens=4).msjax["answers"])
    finally:
        there.stop()
