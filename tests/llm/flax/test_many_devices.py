"""A local model over several devices of another process says what it says on one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).parents[2] / "fixtures"

PROGRAM = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
from msjax.data.messages import asked
from msjax.errors import InputError
from msjax.llm.engine import Turn
from msjax.llm.flax.engine import FlaxEngine
from msjax.llm.flax.sharding import device_mesh

def texts(folder, mesh):
    engine = FlaxEngine.load(folder, batch_size=8, max_new_tokens=5, mesh=mesh)
    long = "Words that all conversations begin with, more than thirty-two tokens of them. " * 3
    shapes, inner = set(), engine.place
    def place(cache):
        cache = inner(cache)
        shapes.add((cache.rows, len(cache.keys[0].addressable_shards[0].data)))
        return cache
    engine.place = place
    found = [[] for _ in range(7)]
    def talk(i):
        # Some leave early, so that the batch shrinks.
        for turn in range(1 if 2 < i < 6 else 2):
            said = "Sure?" if turn else long + "?" * i
            found[i].append((yield Turn(asked(said), jax.random.key(10 * i + turn))).text)
    engine.converse(map(talk, range(7)))
    return found, sorted(shapes)

alone, shapes = texts(sys.argv[1], None)
many, shards = texts(sys.argv[1], device_mesh(2, 2))
print(json.dumps(dict(same=alone == many, shapes=shapes, shards=shards)))
try:
    FlaxEngine.load(sys.argv[1], batch_size=3, mesh=device_mesh(2, 2))
except InputError as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.slow
def test_devices_do_not_change_what_is_said():
    model = str(TINY / "tiny_qwen3" / "untied")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, model], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found, refused = map(json.loads, ran.stdout.splitlines())
    shapes, shards = [[4, 4], [8, 8]], [[4, 2], [8, 4]]
    assert found == {"same": True, "shapes": shapes, "shards": shards}
    assert refused.startswith("batch_size is 3, which mesh axis data of 2 devices does not divide")


@pytest.mark.parametrize("mesh", [["0", "1"], ["64", "2"]])
def test_bad_meshes_are_named(mesh, tmp_path, capsys):
    from msjax.cli import main

    model = str(TINY / "tiny_llama" / "tied")
    options = ["--model", model, "--mesh", *mesh]
    assert main(["run", str(tmp_path / "x.jsonl"), *options]) == 2
    assert "mesh" in capsys.readouterr().err
