"""What the documentation shows as code runs: in small, in the order in which a page shows it."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import pytest
from flax import nnx

from msjax.cli import main
from msjax.data.runs import answer_ids
from msjax.data.trajectory import Trajectory
from msjax.llm.flax import Decoder, DecoderConfig, weights
from msjax.llm.judge import JUDGE
from msjax.llm.live import ended
from msjax.testing.server import MODEL, Reply, completion
from msjax.train.ttrl import arithmetic

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TINY = ROOT / "tests/fixtures/tiny_llama/tied"

# What a command is given besides, so that it takes seconds.
IN_SMALL = {
    "run": "--questions 2 --max-new-tokens 8",
    "replay": "--orders 10 --no-choose --rules fixed",
    "train": "--questions 4 --held-out 3 --samples 4 --budget 12 --n-train-rollouts 8 --block 4 "
    "--epochs 1 --max-new-tokens 4 --questions-per-step 2",
}
# All figures, and an adapted model, take a minute even so; test_doctor.py checks what that finds.
SLOW = ("msjax figures", "msjax train", "msjax doctor")


def blocks(page: Path) -> Iterator[tuple[str, ...]]:
    """The commands of each indented block."""
    text = page.read_text().replace("\\\n", " ")
    for block in re.findall(r"(?:^ {4}\S.*\n)+", text, re.MULTILINE):
        found = [" ".join(shlex.split(line, comments=True)) for line in block.splitlines()]
        if found[0].startswith(("msjax ", "make ", "python -m ")):
            yield tuple(found)


def first_shown(found: Iterator[tuple[T, Path]]) -> Iterator[tuple[T, Path]]:
    """What several pages show is run once, for the first of them."""
    return iter(dict(reversed(list(found))).items())


BLOCKS = [
    pytest.param(
        block,
        id=f"{page.stem}: {block[0]}",
        marks=[pytest.mark.study] if block[0].startswith(SLOW) else [],
    )
    for block, page in first_shown((b, page) for page in PAGES for b in blocks(page))
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The files that the documentation speaks of, and small models in the place of large ones."""
    recorded = (files("msjax") / "recorded/pilot.jsonl").read_text()
    (tmp_path / "runs.jsonl").write_text(recorded)
    hard = [line for line in recorded.splitlines() if '"arithmetic-hard"' in line]
    (tmp_path / "pilot.jsonl").write_text("".join(map(first_round, hard)))
    for study in ("simulate", "inference"):
        shutil.copytree(ROOT / study / "results", tmp_path / "artifacts", dirs_exist_ok=True)
    (tmp_path / "artifacts/pilot.jsonl").write_text(recorded)
    questions = [{"question": f"{n} + {n}?", "answer": f"#### {2 * n}"} for n in range(2)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    rows = [f"q{i // 3},{i % 3},{i % 2}\n" for i in range(90)]
    (tmp_path / "pilot.csv").write_text("question,round,correct\n" + "".join(rows))
    (tmp_path / "logs.csv").write_text("prompt,round,is_right\n" + "".join(rows))
    graded = [{"gold": "4", "completion": text} for text in ("It is 4.", "It is 5.")]
    (tmp_path / "completions.jsonl").write_text("\n".join(map(json.dumps, graded)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "find_model", lambda model: Path(model or TINY))
    config = DecoderConfig.from_dict(arithmetic.TINY_CONFIG)
    monkeypatch.setattr(arithmetic, "train_tiny", lambda **_: Decoder(config, rngs=nnx.Rngs(0)))
    return tmp_path


def first_round(line: str) -> str:
    """A run as it would be with one round: fewer models can then be told apart, and are fitted."""
    run = Trajectory.model_validate_json(line)
    settings = run.settings | {"rule": "fixed: 1", "rounds": 1}
    cut = ended(run, 1, answer_ids(run.answers)[1], by_rule=True)
    return cut.model_copy(update={"settings": settings}).model_dump_json() + "\n"


def answer_or_verdict(number: int, request: dict) -> Reply:
    """What a judge that is asked says, with its log-probability; else an answer."""
    if request["messages"][-1]["content"] != JUDGE:
        return Reply()
    return Reply(completion("Yes", logprobs={"content": [{"token": "Yes", "logprob": -0.2}]}))


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_commands_run(block, folder, serve, capsys, request) -> None:
    meant = {
        "http://localhost:8000/v1": serve(answer_or_verdict).url,
        "NAME": MODEL,
        "FOLDER": str(TINY),
        "pilot.longer-4096.jsonl": "pilot.longer-16.jsonl",  # twice --max-new-tokens
    }
    for command in block:
        program, *words = shlex.split(command)
        if program == "make":
            done = subprocess.run(["make", "-n", "-C", ROOT, *words], capture_output=True)
            assert done.returncode == 0
        elif program != "python":  # whose studies take minutes: tests/test_docs.py checks them
            if "--optscale" in words:
                meant["FOLDER"] = str(request.getfixturevalue("real_data") / "optscale")
            if words[:2] == ["train", "priors"]:  # recordings of the study, read by its model
                meant |= {word: "runs.jsonl" for word in words if word.startswith("build/study/")}
                meant |= {word: str(TINY) for word in words if word.startswith("Qwen2.5-Coder-")}
            if "new.npz" in words:  # features of questions yet to come
                shutil.copyfile("features.npz", "new.npz")
            if words[0] == "run":
                Path(words[1]).unlink(missing_ok=True)
            small = "" if words[:2] == ["train", "priors"] else IN_SMALL.get(words[0], "")
            assert main([*(meant.get(word, word) for word in words), *small.split()]) == 0
            assert capsys.readouterr().out


PYTHON = [
    pytest.param(code, id=f"{page.stem}: {code.splitlines()[0]}")
    for code, page in first_shown(
        (code, page)
        for page in PAGES
        for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    )
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # arviz_plots of matplotlib
@pytest.mark.parametrize("code", PYTHON)
def test_python_runs(code, folder, serve) -> None:
    for library in re.findall(r"^(?:from|import) ([\w.]+)", code, re.MULTILINE):
        pytest.importorskip(library)
    if "jax.distributed" in code:
        # Two processes run it in tests/simulate/test_paths.py.
        code = code.replace("jax.distributed.initialize()", "").replace("2**30", "2**20")
    code = code.replace("http://127.0.0.1:8000/v1", serve().url).replace("Qwen3-8B", MODEL)
    exec(compile(code, "example", "exec"), {})
