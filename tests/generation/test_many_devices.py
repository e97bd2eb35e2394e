"""A local model over several devices of another process says what it says on one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).parents[1] / "data"

PROGRAM = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
from msjax.errors import InputError
from msjax.generation.engine import asked
from msjax.generation.flax_engine import FlaxEngine
from msjax.models.sharding import device_mesh

def texts(folder, mesh):
    engine = FlaxEngine.load(folder, batch_size=8, max_new_tokens=5, mesh=mesh)
    long = "Words that all conversations begin with, more than thirty-two tokens of them. " * 3
    session = engine.start([asked(long + "?" * i) for i in range(7)])
    keys = [jax.random.key(i) for i in range(7)]
    found = [[c.text for c in session.complete(keys)]]
    # Rows leave, so that the batch shrinks.
    session.extend(["Sure?" if i < 3 else None for i in range(7)])
    found.append([c and c.text for c in session.complete([*keys[:3], *[None] * 4])])
    rows = session._groups[0].cache
    return found, rows.rows, [len(x.addressable_shards[0].data) for x in rows.keys[:1]]

alone, rows, _ = texts(sys.argv[1], None)
many, same_rows, shard = texts(sys.argv[1], device_mesh(2, 2))
print(json.dumps(dict(same=alone == many, rows=[rows, same_rows], shard=shard)))
try:
    FlaxEngine.load(sys.argv[1], batch_size=3, mesh=device_mesh(2, 2))
except InputError as error:
    print(json.dumps(str(error)))
"""


def test_devices_do_not_change_what_is_said():
    model = str(TINY / "tiny_qwen3" / "untied")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, model], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found, refused = map(json.loads, ran.stdout.splitlines())
    assert found == {"same": True, "rows": [4, 4], "shard": [2]}
    assert refused.startswith("batch_size is 3, which mesh axis data of 2 devices does not divide")


@pytest.mark.parametrize("mesh", [["0", "1"], ["64", "2"]])
def test_bad_meshes_are_named(mesh, tmp_path, capsys):
    from msjax.cli import main

    model = str(TINY / "tiny_llama" / "tied")
    options = ["--model", model, "--mesh", *mesh]
    assert main(["generate", str(tmp_path / "x.jsonl"), *options]) == 2
    assert "mesh" in capsys.readouterr().err
