"""Damages files by the thousand, kills commands by the hundred (`kills`), and counts what is lost.

    python -m benchmarks.faults --mutations 100000 --kills 200

Counts are kept in a file after every round, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
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
    """The content with a few bytes, fields or numbers changed, cut, doubled or moved."""
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(data) + 1)
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

    from msjax.data.columns import read_columns
    from msjax.data.importers.optscale import read_optscale
    from msjax.data.importers.reading import read
    from msjax.data.store import read_runs
    from msjax.data.trajectory import parse_trajectory
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

    pilot = (files("msjax") / "recorded" / "pilot.jsonl").read_bytes().splitlines(keepends=True)
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

    def of_folder(path: Path) -> object:
        return DecoderConfig.from_folder(path.parent)

    def reply(path: Path) -> object:
        with suppress(ValueError):  # which the engine makes a ServerError of
            return read_reply(path.read_text(errors="replace"))
        raise InputError("refused")

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
    ]


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
    except Exception as error:  # what is counted here
        name = type(error).__name__
        count.uncaught[name] = count.uncaught.get(name, 0) + 1
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
    with suppress(AttributeError):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    tyro.cli(Faults).run()
