"""Every test: shapes and types checked at run time, silent rank promotion an error; servers."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import pytest
from jaxtyping import install_import_hook
from scripted_server import MODEL, Reply, ScriptedServer

# The hook must precede the first import of the modules it checks.
install_import_hook(
    [
        "msjax.theory",
        "msjax.data.runs",
        "msjax.rules",
        "msjax.simulation",
        "msjax.posterior",
        "msjax.evaluate",
        "msjax.decision",
        "msjax.llm.flax",
        "msjax.train",
        "msjax.verify",
    ],
    "beartype.beartype",
)
SHELL_FLAGS = os.environ.get("XLA_FLAGS")


@pytest.fixture(autouse=True)
def no_silent_rank_promotion() -> Iterator[None]:
    """Arrays of different rank must be broadcast on purpose."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Recorded runs of others, which lie beside the repository and never inside it."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("MSJAX_SHARED", beside)) / "data"
    if not folder.is_dir():
        pytest.skip(f"recorded data of others not found: no folder {folder}; set MSJAX_SHARED")
    return folder


@pytest.fixture(autouse=True)
def xla_flags_of_the_shell() -> Iterator[None]:
    """Commands add flags for their whole process, which later tests would hand to others."""
    yield
    if SHELL_FLAGS is None:
        os.environ.pop("XLA_FLAGS", None)
    else:
        os.environ["XLA_FLAGS"] = SHELL_FLAGS


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts servers of scripts, which are stopped after the test."""
    servers = []

    def start(script=lambda number, request: Reply(), served=(MODEL,)) -> ScriptedServer:
        models = Reply({"object": "list", "data": [{"id": name} for name in served]})
        servers.append(ScriptedServer(script, models))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Any]:
    """Makes sequential runs whose round k cost 100 + 10 k tokens."""
    # Not before the hook above.
    from msjax.data.trajectory import Trajectory
    from msjax.data.usage import Usage

    def make(
        correct: Sequence[Any],
        question_id: str = "q0",
        benchmark: str = "arithmetic",
        **changes: Any,
    ) -> Trajectory:
        completions = [50 + 10 * k for k in range(len(correct))]
        fields = {
            "model": "scripted",
            "benchmark": benchmark,
            "question_id": question_id,
            "answers": ("2",) * len(correct),
            "correct": tuple(map(bool, correct)),
            "tokens": tuple(Usage(prompt=50, cached=0, completion=n) for n in completions),
        }
        return Trajectory(**fields | changes)

    return make
