"""Kills commands at random moments until they are through, and compares what they leave.

Every process is a fork of one that has imported everything, so that a kill costs what the command
does after its start.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import random
import socket
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

__all__ = ["Killed", "kill_all"]

_SHARES = {"run": 0.45, "serve": 0.25, "adapt": 0.2, "reproduce": 0.1}
"""Of the kills."""
_QUESTIONS = 60


@dataclass
class Killed:
    """What became of a command that was killed again and again.

    Attributes:
        kills: how often.
        finished: how often it was brought to its end.
        compared: lines or files compared with those of an undisturbed one, or with what was
            replied.
        lost, doubled, differing: of these, missing, there twice, and other.
    """

    kills: int = 0
    finished: int = 0
    compared: int = 0
    lost: int = 0
    doubled: int = 0
    differing: int = 0

    def compare(self, found: list[tuple[str, Any]], wanted: dict[str, Any]) -> None:
        """Counts named things that were found against those that should be there."""
        times = Counter(name for name, _ in found)
        self.finished += 1
        self.compared += len(wanted)
        self.lost += len(wanted.keys() - times.keys())
        self.doubled += sum(count > 1 for count in times.values())
        self.differing += sum(wanted.get(name, thing) != thing for name, thing in found)


def kill_all(kills: int, folder: Path, killed: dict[str, Killed], keep: Callable[[], None]) -> None:
    """Kills each command its share of the times; `keep` is called after every round."""
    rounds = {"run": _run, "serve": _serve, "adapt": _adapt, "reproduce": _reproduce}
    for name, share in _SHARES.items():
        count = killed.setdefault(name, Killed())
        while count.kills < round(kills * share):
            scratch = folder / f"{name}{count.finished}"
            scratch.mkdir(parents=True, exist_ok=True)
            rounds[name](scratch, random.Random(f"{name} {count.kills}"), count)
            keep()


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "benchmarks.kills",
        "msjax.llm.run",
        "msjax.llm.live",
        "msjax.llm.openai_engine",
        "msjax.llm.serve.app",
        "msjax.cli.serve",
        "msjax.cli.train_adapt",
        "msjax.cli.reproduce",
        "msjax.report.run",
        "uvicorn",
    ]
)


def _command(log: Path, tiny: bool, arguments: list[str]) -> None:
    """What a forked process does: the command, with what it prints in a file."""
    sys.stdout = sys.stderr = log.open("a", encoding="utf-8", errors="replace")
    if tiny:
        from msjax.train.ttrl import arithmetic

        arithmetic.TINY_CONFIG.update(_TINY)
    from msjax.cli import main

    os._exit(main(arguments))


def _start(folder: Path, arguments: list[str], *, tiny: bool = False) -> ForkServerProcess:
    process = _FORKS.Process(target=_command, args=(folder / "log.txt", tiny, arguments))
    process.start()
    return process


def _until_through(
    folder: Path,
    arguments: list[str],
    chance: random.Random,
    count: Killed,
    progress: Callable[[], Any],
    longest: float,
    *,
    tiny: bool = False,
) -> None:
    """Runs a command again and again, each time killed up to `longest` seconds after it went on."""
    while True:
        process, before = _start(folder, arguments, tiny=tiny), progress()
        while process.is_alive() and progress() == before:
            time.sleep(0.005)
        process.join(chance.random() * longest)
        if not process.is_alive():
            _require_done(folder, process)
            return
        process.kill()
        process.join()
        count.kills += 1


def _through(folder: Path, arguments: list[str], *, tiny: bool = False) -> None:
    process = _start(folder, arguments, tiny=tiny)
    process.join()
    _require_done(folder, process)


def _require_done(folder: Path, process: ForkServerProcess) -> None:
    if process.exitcode not in (0, 1):  # a check of numbers may fail where questions are few
        said = (folder / "log.txt").read_text()[-2000:]
        raise RuntimeError(f"status {process.exitcode}:\n{said}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _run(folder: Path, chance: random.Random, count: Killed) -> None:
    """`msjax run` at a server: its lines."""
    with _server() as url:
        options = ["--server", url, "--model", "m", "--benchmarks", "arithmetic-easy"]
        options += ["--questions", str(_QUESTIONS), "--rounds", "1", "--concurrency", "4"]
        whole, broken = folder / "whole.jsonl", folder / "broken.jsonl"
        _through(folder, ["run", str(whole), *options])
        progress = partial(_size, broken)
        _until_through(folder, ["run", str(broken), *options], chance, count, progress, 0.4)
    wanted = {run["question_id"]: run for run in _lines(whole)}
    count.compare([(run["question_id"], run) for run in _lines(broken)], wanted)


def _serve(folder: Path, chance: random.Random, count: Killed) -> None:
    """`msjax serve` under load: what was replied against the file of what was served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log, replied = folder / "served.jsonl", dict[str, str]()
    with _server() as upstream:
        options = ["serve", "--upstream", upstream, "--port", str(port), "--out", str(log)]
        for life in range(5):
            process = _start_serving(folder, options, port)
            end = time.monotonic() + chance.random()
            with ThreadPoolExecutor(8) as clients:
                asked = [
                    clients.submit(_ask, port, f"What is {life} + {n}?", end) for n in range(200)
                ]
                time.sleep(max(0.0, end - time.monotonic()))
                process.kill()
                process.join()
            replied |= dict(pair for one in asked if (pair := one.result()) is not None)
            count.kills += 1
        process = _start_serving(folder, options, port)  # which mends a torn last line
        process.terminate()
        process.join()
    found = [(line["question"], line["answers"][line["returned"]]) for line in _lines(log)]
    count.compare(found, replied)


def _start_serving(folder: Path, options: list[str], port: int) -> ForkServerProcess:
    process = _start(folder, options)
    while process.is_alive() and not _healthy(port):
        time.sleep(0.02)
    return process


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1):
            return True
    except OSError:
        return False


def _ask(port: int, question: str, end: float) -> tuple[str, str] | None:
    """The question and the answer replied, None where there was no whole reply."""
    if time.monotonic() > end:
        return None
    body = {"model": "m", "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            said = json.load(reply)["choices"][0]["message"]["content"]
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return question, str(said).removeprefix("It is ").rstrip(".")


_TINY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
_SIZES = (
    "--questions 4 --held-out 3 --samples 4 --budget 12 --n-train-rollouts 8 --block 4 --epochs 2"
)


def _adapt(folder: Path, chance: random.Random, count: Killed) -> None:
    """`msjax train adapt` of a tiny decoder: the lines of its log, and its model."""
    from flax import nnx

    from msjax.llm.flax import Decoder, DecoderConfig
    from msjax.train.ttrl import arithmetic

    arithmetic.TINY_CONFIG.update(_TINY)
    config = DecoderConfig.from_dict(arithmetic.TINY_CONFIG)
    untrained = Decoder(config, rngs=nnx.Rngs(0))
    arithmetic.train_tiny, trained = (lambda **_: untrained), arithmetic.train_tiny
    start = arithmetic.write_tiny(folder / "start", seed=0)
    arithmetic.train_tiny = trained
    options = f"--tiny --model {start} {_SIZES} --questions-per-step 2 --max-new-tokens 1".split()
    whole, broken = folder / "whole", folder / "broken"
    _through(folder, ["train", "adapt", str(whole), *options], tiny=True)
    progress = partial(_size, broken / "log.jsonl")
    command = ["train", "adapt", str(broken), *options]
    _until_through(folder, command, chance, count, progress, 2.0, tiny=True)

    def parts(out: Path) -> list[tuple[str, Any]]:
        lines = [json.dumps(line, sort_keys=True) for line in _lines(out / "log.jsonl")]
        names = [_name(json.loads(line), number) for number, line in enumerate(lines)]
        model = [(path.name, path.read_bytes()) for path in sorted((out / "model").iterdir())]
        return [*zip(names, lines, strict=True), *model]

    count.compare(parts(broken), dict(parts(whole)))


def _name(line: dict[str, Any], number: int) -> str:
    """What a line of a log of adaptation is about; there is one step of every number."""
    ((kind, what),) = line.items()
    return f"step {what['step']}" if kind == "step" else f"{kind}, line {number}"


def _reproduce(folder: Path, chance: random.Random, count: Killed) -> None:
    """`msjax reproduce` from recorded answers: every file but those that say how long it took."""
    options = ["--recorded", "--small"]
    whole, broken = folder / "whole", folder / "broken"
    _through(folder, ["reproduce", "--out", str(whole), *options])
    for _ in range(5):
        process = _start(folder, ["reproduce", "--out", str(broken), *options])
        process.join(1.0 + 20.0 * chance.random())
        if not process.is_alive():
            break
        process.kill()
        process.join()
        count.kills += 1
    _through(folder, ["reproduce", "--out", str(broken), *options])

    def parts(out: Path) -> list[tuple[str, Any]]:
        files = sorted(path for path in out.rglob("*") if path.is_file())
        return [
            (str(path.relative_to(out)), path.read_bytes().replace(str(out).encode(), b""))
            for path in files
        ]

    count.compare(parts(broken), dict(parts(whole)))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@contextmanager
def _server() -> Iterator[str]:
    """A server that answers by the question alone, after a while; its URL."""
    from msjax.testing.server import Reply, ScriptedServer, completion

    def answer(_: int, request: dict[str, Any]) -> Reply:
        time.sleep(0.05)
        text = request["messages"][-1]["content"]
        return Reply(completion(f"It is {sum(text.encode()) + request.get('seed', 0) % 7}."))

    models = Reply({"object": "list", "data": [{"id": "m", "object": "model"}]})
    server = ScriptedServer(answer, models)
    try:
        yield server.url
    finally:
        server.stop()
