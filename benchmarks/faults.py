"""Damages files by the thousand, kills commands by the hundred (`kills`), and counts what is lost.

    python -m benchmarks.faults --mutations 100000 --kills 200

Counts are kept in a file after every round, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import atexit
import gzip
import http.client
import json
import os
import random
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

import tyro

from benchmarks.kills import Killed, kill_all
from msjax._io import write_text
from msjax.errors import InputError

_ROUND = 500
"""Mutations of one reader between two writings of the counts."""
_SLOW = 10.0
"""Seconds after which a reader counts as hanging."""


@dataclass
class Reading:
    """What became of the mutated inputs of one reader.

    Attributes:
        tried, accepted, refused: how many.
        changed: accepted although a hash guards the content.
        uncaught: other exceptions, by type.
        hung: readings that took longer than ten seconds.
        slowest: seconds of the slowest one.
    """

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    changed: int = 0
    uncaught: dict[str, int] = field(default_factory=dict)
    hung: int = 0
    slowest: float = 0.0


@dataclass(frozen=True)
class Reader:
    """A reader, what it reads undamaged, and whether a hash guards that.

    Attributes:
        name: of the file that is mutated.
        whole: its content.
        read: called with its path.
        sealed: whether a hash guards it.
    """

    name: str
    whole: bytes
    read: Callable[[Path], object]
    sealed: bool = False


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """The content with a few bytes, fields or numbers changed, cut, doubled or moved.

    Half of that is done in the first 4 kB, where formats say what follows.
    """
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(min(len(data), chance.choice((len(data), 4096))) + 1)
        kind = chance.randrange(8)
        if kind == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del data[at : at + chance.choice((1, 4, 64))]
        elif kind == 2:
            data[at:at] = chance.choice(_WORDS)
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            other = chance.randrange(len(data) + 1)
            data[at:at] = data[other : other + 64]
        elif kind == 5:
            data[at : at + 8] = struct.pack("<Q", chance.choice((0, 1, 2**31, 2**40, 2**64 - 1)))
        else:
            # A value of another kind in place of one of JSON.
            parts = bytes(data).split(b":")
            k = chance.randrange(len(parts))
            end = next((i for i, c in enumerate(parts[k]) if c in b",}\n"), len(parts[k]))
            parts[k] = b" " + chance.choice(_WORDS) + parts[k][end:] if k else parts[k]
            data = bytearray(b":".join(parts))
        if not data:
            break
    return bytes(data)


_WORDS = (
    b"null", b"true", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'""', b'"\\ud800"', b"[" * 200,
    b"9" * 400, b"0.5", b'"x"', b"\xff\xfe", b"\x00", b'{"a": [1]}', b"=", b",", b"\n", b'"',
)  # fmt: skip


def readers(folder: Path) -> list[Reader]:
    """Every reader of files and replies, with something small that it accepts."""
    from importlib.resources import files

    from safetensors import safe_open

    from inference.study.plan import PLAN, read_plan
    from msjax.data.columns import read_columns
    from msjax.data.importers.optscale import read_optscale
    from msjax.data.importers.reading import read
    from msjax.data.importers.tables import write_parquet
    from msjax.data.store import read_compressed, read_runs
    from msjax.data.trajectory import parse_trajectory
    from msjax.llm.flax.chat import Chat, load_tokenizer
    from msjax.llm.flax.checkpoint import load as load_checkpoint
    from msjax.llm.flax.config import DecoderConfig
    from msjax.llm.flax.gguf import GGUFModel
    from msjax.llm.replies import read_reply
    from msjax.posterior.store import load
    from msjax.report.figures.sources import Sources
    from msjax.tasks.files import load_benchmark
    from msjax.tasks.prompts import find_template
    from msjax.testing.server import completion
    from msjax.train.priors.features import read_features
    from msjax.train.priors.predictor import load as load_predictor

    packaged = files("msjax") / "recorded" / "pilot.jsonl"
    pilot = packaged.read_bytes().splitlines(keepends=True)
    tiny = Path(__file__).parents[1] / "tests" / "fixtures" / "tiny_llama" / "tied"
    table = (
        b"question_id,round,correct,answer,tokens\na,0,1,4,10\na,1,0,5,12\nb,0,0,,9\nb,1,1,4,8\n"
    )
    row = '{"question": "a", "round": %d, "correct": %d}'
    rows = f"[{row % (0, 1)}, {row % (1, 0)}]".encode()
    pool = [{"score": {"completions": [["\\boxed{4}", "5"]], "completion_tokens": [[3, 4]],
                       "scores": [[0.5, 0.25]]}}]  # fmt: skip
    prompts = folder / "prompts.json"
    prompts.write_text('[{"answer": "4"}]')
    template = b'first_prompt = "{question}"\nrevise_prompt = "Again: {question}"\n'
    posterior, features, predictor = _made(folder)
    shutil.copytree(tiny, folder / "mutated" / "index")
    stored = folder / "mutated" / "index" / "model.safetensors"
    stored.rename(stored.with_name("model-1.safetensors"))
    with safe_open(stored.with_name("model-1.safetensors"), framework="numpy") as file:
        weights = dict.fromkeys(file.keys(), "model-1.safetensors")
    index = json.dumps({"weight_map": weights}).encode()
    for name in ("tokenizer", "chat", "weights"):
        shutil.copytree(tiny, folder / "mutated" / name)
    write_parquet(folder / "a.parquet", read_runs(Path(str(packaged)))[:3])

    def of_folder(path: Path) -> object:
        return DecoderConfig.from_folder(path.parent)

    def reply(path: Path) -> object:
        with suppress(ValueError):  # which the engine makes a ServerError of
            return read_reply(path.read_text(errors="replace"))
        raise InputError("refused")

    def chat(path: Path) -> object:
        return Chat(load_tokenizer(path.parent), path.parent.name, (2,))

    def results(path: Path) -> object:
        return Sources(path.parent).json("audit.json")

    return [
        Reader("line.jsonl", pilot[0], lambda x: parse_trajectory("line", x.read_bytes())),
        Reader("columns.jsonl", b"".join(pilot[:3]), read_columns),
        Reader("runs.jsonl", b"".join(pilot[:3]), read_runs),
        Reader("table.csv", table, read),
        Reader("rows.json", rows, read),
        Reader("rows.jsonl", rows[1:-1].replace(b"}, {", b"}\n{") + b"\n", read),
        Reader("optscale.json", json.dumps(pool).encode(), lambda x: read_optscale(x, prompts)),
        Reader("questions.jsonl", b'{"question": "1 + 1?", "answer": "2"}\n' * 2, load_benchmark),
        Reader("template.toml", template, find_template),
        Reader("config/config.json", (tiny / "config.json").read_bytes(), of_folder),
        Reader("index/model.safetensors.index.json", index, lambda x: load_checkpoint(x.parent)),
        Reader("model.gguf", _gguf(folder / "a.gguf"), GGUFModel),
        Reader("reply.json", json.dumps(completion()).encode(), reply),
        Reader("audit.json", b'[{"rule": "asc", "settings": {"seed": 0}}]', results),
        Reader("features.npz", features, read_features),
        Reader("posterior.nc", posterior, load, sealed=True),
        Reader("predictor.safetensors", predictor, load_predictor, sealed=True),
        Reader("recorded.jsonl.gz", gzip.compress(b"".join(pilot[:3])), read_compressed),
        Reader("answers.parquet", (folder / "a.parquet").read_bytes(), read),
        Reader("served.jsonl", _SERVED, read),
        Reader("samples.jsonl", _LM_EVAL, read),
        Reader("plan.toml", PLAN.read_bytes(), read_plan),
        Reader("weights/model.safetensors", (tiny / "model.safetensors").read_bytes(),
               lambda x: load_checkpoint(x.parent)),
        Reader("tokenizer/tokenizer.json", (tiny / "tokenizer.json").read_bytes(), chat),
        Reader("chat/tokenizer_config.json", (tiny / "tokenizer_config.json").read_bytes(), chat),
        Reader("chat_template.jinja", _TEMPLATE, _rendered),
        Reader("resumed.jsonl", b"".join(pilot[:3]), _unless_changed(_resumed)),
        Reader("proxy_log.jsonl", _SERVED, _unless_changed(_served_again)),
        Reader("log.jsonl", _STEPS, _unless_changed(_steps)),
        Reader("request.json", _REQUEST, _Proxy(folder).answer),
        *_inspect_logs(folder),
    ]  # fmt: skip


_SERVED = (
    b'{"served":1,"time":1.5,"id":"a","arm":"rule","rule":"fixed","scorer":"math","model":"m",'
    b'"protocol":"sequential","question":"1 + 1?","gold":"2","answers":["3","2"],'
    b'"scores":[null,0.5],"verdicts":[true,null],"tokens":[{"prompt":4,"cached":0,"completion":2},'
    b'{"prompt":9,"cached":4,"completion":2}],"completions":["3","2"],"finish":["stop",null],'
    b'"returned":1,"stop_reason":"rule","belief":null}\n'
    b'{"served":1,"time":2.5,"feedback":"a","gold":"2","correct":null}\n'
)
_LM_EVAL = (
    b'{"doc_id": 0, "doc": {"question": "1 + 1?"}, "target": "#### 2", "resps": [["It is 2."]], '
    b'"filtered_resps": ["2"], "filter": "none", "metrics": ["exact_match"], "exact_match": 1.0}\n'
    b'{"doc_id": 1, "doc": {"question": "1 + 2?"}, "target": "3", "resps": [["It is 2."]], '
    b'"filtered_resps": ["2"], "filter": "none", "metrics": ["exact_match"], "exact_match": 0.0}\n'
)
_TEMPLATE = (
    b"{% for message in messages %}{% if message['role'] == 'system' %}{{ bos_token }}"
    b"{% elif loop.index0 % 2 == 1 and message.content is none %}{{ raise_exception('none') }}"
    b"{% endif %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    b"{% endfor %}{% set n = namespace(x=0) %}{% for i in range(9) %}{% set n.x = n.x + i %}"
    b"{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_STEPS = (
    b'{"settings": {"seed": 0}}\n'
    b'{"held_out": {"when": "before", "questions": ["a"], "samples": 2, "right": [0.5], '
    b'"vote_right": [true]}}\n'
    b'{"step": {"step": 0, "epoch": 0, "questions": ["a"], "rollouts": [4], "labels": ["2"], '
    b'"label_right": [true], "reward": 0.75, "uniform": 0, "learnt": 1, "kl": 0.0, "loss": 0.1, '
    b'"gradient": 0.2}}\n'
)
_REQUEST = (
    b'{"model": "small-model", "messages": [{"role": "system", "content": "Answer."}, '
    b'{"role": "user", "content": [{"type": "text", "text": "1 + 1?"}]}], "temperature": 0.5, '
    b'"seed": 3, "stream": false, "stream_options": {"include_usage": true}, '
    b'"msjax": {"rule": "until_repeated", "max_answers": 3, "gold": "2"}}'
)


def _unless_changed(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """The same, where a file that is refused must stay as it is."""

    def checked(path: Path) -> object:
        before = path.read_bytes()
        try:
            return read(path)
        except InputError:
            assert path.read_bytes() == before, "refused, and yet changed"
            raise

    return checked


def _resumed(path: Path) -> None:
    from msjax.data.store import resume

    settings = {
        "rule": "fixed: 3", "rounds": 3, "seed": 0, "temperature": 0.7, "max_new_tokens": 16,
    }  # fmt: skip
    with resume(path, model="SmolLM2-135M-Instruct", settings=settings):
        pass


def _steps(path: Path) -> None:
    from msjax.train.ttrl.run_log import open_run_log

    with open_run_log(path, {"seed": 0}):
        pass


def _served_again(path: Path) -> None:
    from msjax.llm.serve.log import open_log

    async def opened() -> None:
        async with open_log(path):
            pass

    asyncio.run(opened())


def _rendered(path: Path) -> str:
    from msjax.data.messages import Message
    from msjax.llm.flax.chat import DATE
    from msjax.llm.flax.templates import TemplateError, render

    messages: list[Message] = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
    ]
    try:
        template = path.read_bytes().decode("utf-8", "replace")
        return render(template, messages, {"bos_token": "<|im_start|>"}, DATE)
    except TemplateError as error:
        raise InputError(str(error)) from None


class _Proxy:
    """The proxy in front of a server of scripts, asked with whatever a file holds."""

    def __init__(self, folder: Path) -> None:
        import threading

        import uvicorn

        from msjax.llm.live_rule import rule_without_pilot
        from msjax.llm.serve.app import Deciding, ServeSettings, make_app
        from msjax.testing.server import Reply, ScriptedServer

        rule = Deciding("until_repeated", rule_without_pilot("until_repeated", 3, "rounds"))
        self._upstream = ScriptedServer(lambda number, request: Reply(), None)
        settings = ServeSettings(
            (self._upstream.url,), (rule,), rule, 3, log=folder / "served.jsonl"
        )
        app = make_app(settings)
        config = uvicorn.Config(app, port=0, log_level="critical", access_log=False)
        (socket,) = sockets = [config.bind_socket()]
        socket.listen()
        self._port = socket.getsockname()[1]
        self._server = uvicorn.Server(config)
        work = {"sockets": sockets}
        threading.Thread(target=self._server.run, kwargs=work, daemon=True).start()
        atexit.register(self._upstream.stop)

    def answer(self, path: Path) -> bytes:
        """The reply; a fault of the proxy is one of status 500."""
        asking = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            headers = {"content-type": "application/json"}
            asking.request("POST", "/v1/chat/completions", path.read_bytes(), headers)
            reply = asking.getresponse()
            content = reply.read()
        finally:
            asking.close()
        if reply.status == 500:
            raise RuntimeError(content)
        if reply.status != 200:
            raise InputError(f"status {reply.status}")
        return content


def _inspect_logs(folder: Path) -> list[Reader]:
    """Logs of inspect_ai in both of its formats, where that is installed."""
    if find_spec("inspect_ai") is None:
        return []
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import match

    from msjax.data.importers.reading import read

    def output(*_: object) -> ModelOutput:
        said = ModelOutput.from_content("mockllm/model", "2")
        said.usage = ModelUsage(input_tokens=5, output_tokens=1)  # else they would be counted
        return said

    questions = MemoryDataset([Sample(input=f"{i} + 1?", target="2", id=i) for i in (1, 2)])
    found = []
    for form in ("json", "eval"):
        (log,) = eval(
            Task(dataset=questions, scorer=match(), name="sums"),
            model=get_model("mockllm/model", custom_outputs=output),
            log_dir=str(folder / form),
            log_format=form,
            display="none",
        )
        found.append(Reader(f"log.{form}", Path(log.location).read_bytes(), read))
    return found


def _gguf(path: Path) -> bytes:
    """A small model's file with the tensor that no model lacks."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_context_length, 64),
        (writer.add_embedding_length, 8),
        (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 16),
        (writer.add_head_count, 2),
        (writer.add_head_count_kv, 1),
    ):
        add(value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["a", "b", "<|im_end|>"])
    writer.add_token_types([1, 1, 3])
    writer.add_tensor("token_embd.weight", np.zeros((3, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def _made(folder: Path) -> tuple[bytes, bytes, bytes]:
    """A posterior, features and a predictor."""
    import numpy as np

    import msjax
    from msjax.posterior.store import save
    from msjax.train.priors.features import FeatureTable, write_features
    from msjax.train.priors.predictor import Settings, train
    from msjax.train.priors.predictor import save as save_predictor
    from msjax.train.priors.targets import TARGETS, ChainData

    random_ = np.random.default_rng(0)
    labels = random_.random((30, 3)) < 0.5
    save(folder / "a.nc", [msjax.fit(msjax.Runs.from_arrays(labels), model="pooled")])
    names = tuple(f"made/{i}" for i in range(100))
    table = FeatureTable("made", names, random_.normal(size=(100, 2)).astype(np.float32))
    write_features(folder / "a.npz", table)
    yes = random_.integers(0, 2, (100, 3))
    settings = Settings(epochs=2)
    found = train(TARGETS["chain"], ChainData(yes, 1 - yes), names, table, settings=settings)
    save_predictor(folder / "a.safetensors", found)
    contents = [(folder / name).read_bytes() for name in ("a.nc", "a.npz", "a.safetensors")]
    return contents[0], contents[1], contents[2]


def mutate(reader: Reader, path: Path, seed: int | None, count: Reading) -> None:
    """Reads one more mutated input; without a seed, what is not mutated."""
    data = reader.whole
    if seed is not None:
        data = mutated(data, random.Random(f"{reader.name} {seed}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    count.tried += 1
    begun = time.perf_counter()
    try:
        reader.read(path)
    except InputError:
        count.refused += 1
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # what is counted here, panics of other languages too
        name = type(error).__name__
        count.uncaught[name] = count.uncaught.get(name, 0) + 1
        print(f"{reader.name}, mutation {seed}: {name} ({str(error)[:200]})", flush=True)
    else:
        count.accepted += 1
        count.changed += reader.sealed and data != reader.whole
    seconds = time.perf_counter() - begun
    count.slowest = max(count.slowest, round(seconds, 3))
    count.hung += seconds > _SLOW


@dataclass(frozen=True)
class Faults:
    """Count what faults do."""

    mutations: int = 100_000
    """mutated inputs, over all readers"""
    kills: int = 200
    """kills, over all commands"""
    out: Path = Path("faults.json")
    """where counts are kept"""

    def run(self) -> None:
        """Mutate, kill, write, print."""
        state = json.loads(self.out.read_text()) if self.out.exists() else {}
        read = {name: Reading(**x) for name, x in state.get("mutated", {}).items()}
        killed = {name: Killed(**x) for name, x in state.get("killed", {}).items()}

        def keep() -> None:
            counts = {
                "mutated": {name: asdict(x) for name, x in read.items()},
                "killed": {name: asdict(x) for name, x in killed.items()},
            }
            write_text(self.out, json.dumps(counts, indent=1) + "\n")

        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            every = readers(folder) if self.mutations else []
            for reader in every:  # what is damaged must be readable before
                undamaged = Reading()
                mutate(reader, folder / "mutated" / reader.name, None, undamaged)
                assert undamaged.accepted, reader.name
            while sum(x.tried for x in read.values()) < self.mutations:
                reader = min(every, key=lambda x: read.setdefault(x.name, Reading()).tried)
                for _ in range(_ROUND):
                    count = read[reader.name]
                    mutate(reader, folder / "mutated" / reader.name, count.tried, count)
                keep()
            kill_all(self.kills, folder, killed, keep)
        print(table(read, killed))


def table(read: dict[str, Reading], killed: dict[str, Killed]) -> str:
    """The counts as two tables."""
    from msjax.cli.tables import markdown

    rows = [
        [
            name.split("/")[-1],
            f"{x.tried:,}",
            f"{x.refused:,}",
            f"{x.accepted:,}",
            str(x.changed),
            str(sum(x.uncaught.values())),
            str(x.hung),
            f"{x.slowest:.2f}",
        ]
        for name, x in read.items()
    ]
    header = ["reader", "mutated", "refused", "accepted", "accepted against a hash"]
    first = markdown([*header, "uncaught", "over 10 s", "slowest (s)"], rows)
    second = markdown(
        [
            "command",
            "kills",
            "brought to an end",
            "lines compared",
            "lost",
            "counted twice",
            "other than undisturbed",
        ],
        [[name, *(f"{count:,}" for count in vars(x).values())] for name, x in killed.items()],
    )
    return f"{first}\n\n{second}"


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    tyro.cli(Faults).run()
