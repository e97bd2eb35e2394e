"""SmolLM2 behind `transformers serve` and in our own decoder: the same conversations."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from proxies import Running, is_healthy, smollm2_folder

from msjax.data.messages import asked
from msjax.data.trajectory import Trajectory
from msjax.errors import InputError
from msjax.llm.conversation import refine
from msjax.llm.engine import Engine, ask
from msjax.llm.flax.engine import FlaxEngine
from msjax.llm.live_rule import rule_without_pilot
from msjax.llm.serve.app import Deciding, ServeSettings
from msjax.rules.fixed import fixed_rounds
from msjax.tasks.registry import BENCHMARKS

pytestmark = pytest.mark.served

MAX_NEW_TOKENS = 24
START_UP = 180  # seconds, of which a busy machine takes a minute to import torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smollm2_folder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scratch = tmp_path_factory.mktemp("serve")
    # An empty download cache: the server lists that as its models, not the folder it serves.
    environment = os.environ | {"HF_HUB_CACHE": str(scratch), "HF_HUB_OFFLINE": "1"}
    program = "from transformers.cli.transformers import app; app()"
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with (scratch / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", program, "serve", folder.name, *options],
            cwd=folder.parent,
            env=environment | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + START_UP
        while not is_healthy(port):
            if server.poll() is not None or time.monotonic() > end:
                pytest.fail(f"the server did not start:\n{(scratch / 'log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def refined(engine: Engine) -> list[Trajectory]:
    benchmark, runs = BENCHMARKS["arithmetic-easy"], []
    engine.converse(
        refine(
            benchmark,
            question,
            fixed_rounds(1),
            model=engine.name,
            seed=0,
            rounds=1,
            settings={},
            finish=runs.append,
        )
        for question in benchmark.questions(0, 2)
    )
    return sorted(runs, key=lambda run: run.question_id)


def test_greedy_conversations_are_those_of_our_own_decoder(url: str, folder: Path) -> None:
    """Text by text and token by token, over two rounds, in float32."""
    from msjax.llm.openai_engine import OpenAIEngine

    served = OpenAIEngine(url, folder.name, max_new_tokens=MAX_NEW_TOKENS)
    theirs = refined(served)
    ours = refined(FlaxEngine.load(folder, max_new_tokens=MAX_NEW_TOKENS))
    assert [run.completions for run in theirs] == [run.completions for run in ours]
    assert [run.correct for run in theirs] == [run.correct for run in ours]
    for their_run, our_run in zip(theirs, ours, strict=True):
        for their_usage, our_usage in zip(their_run.tokens, our_run.tokens, strict=True):
            assert their_usage.prompt == our_usage.prompt
            assert their_usage.completion == our_usage.completion
            assert their_usage.cached is None  # this server reports none
        assert set(their_run.scores) == {None}  # nor log-probabilities
    assert (served.requests.sent, served.requests.retried, served.requests.refused) == (4, 0, 0)


def test_a_model_it_does_not_serve_is_refused_in_its_own_words(url: str) -> None:
    from msjax.llm.openai_engine import OpenAIEngine

    engine = OpenAIEngine(url, "another")
    with pytest.raises(InputError, match="for model 'another': .*pinned"):
        ask(engine, [asked("2 + 2")], [jax.random.key(0)])


def test_a_proxy_in_front_of_it_revises_what_an_unchanged_client_asks(
    url: str, folder: Path
) -> None:
    fixed = Deciding("fixed", rule_without_pilot("fixed", 2, "rounds", judged=False))
    there = Running(ServeSettings((url,), (fixed,), fixed, budget=2))
    try:
        wanted = {"model": folder.name, "max_tokens": MAX_NEW_TOKENS, "temperature": 0.0}
        found = there.ask(**wanted)
        alone = there.ask(**wanted, extra_body={"msjax": {"rule": "off"}})
        chunks = list(there.ask(**wanted, stream=True))
    finally:
        there.stop()
    first, second = found.msjax["tokens"]
    assert len(found.msjax["answers"]) == 2 and second["prompt"] > first["prompt"]
    assert found.usage.prompt_tokens == first["prompt"] + second["prompt"]
    assert found.usage.completion_tokens == first["completion"] + second["completion"]
    assert first["cached"] is None  # not reported
    assert alone.usage.prompt_tokens == first["prompt"]
    said = [one.choices[0].delta.content for one in chunks if one.choices]
    assert "".join(filter(None, said)) == found.choices[0].message.content
