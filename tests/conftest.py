"""Every test: shapes and types checked, no silent rank promotion, quick compiling; servers."""

import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

BUILD = Path(__file__).parents[1] / "build"

# Tests compile more than they compute, so XLA optimises little, and the processes of one suite
# share what they compiled. JAX reads these when it is imported; what the shell sets wins.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib") < "0.11":  # later ones end a process that sets it
    QUICK += " --xla_cpu_use_fusion_emitters=false"
for variable, value in {
    "XLA_FLAGS": QUICK,
    "JAX_COMPILATION_CACHE_DIR": str(BUILD / "compiled-for-tests"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",  # nobody reads the programs
}.items():
    os.environ.setdefault(variable, value)

# Where Python is told to keep no bytecode, every process would compile all that it imports, which
# takes longer than running it: it is kept out of sight instead.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(BUILD / "bytecode-for-tests")
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": sys.pycache_prefix}

gc.disable()  # until everything is imported, which leaves nothing to be collected

if os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0":
    # Processes that begin together would compile the same bytecode: this one begins elsewhere.
    for package in ("openai", "hypothesis", "flax.nnx"):
        importlib.import_module(package)

import jax  # noqa: E402
import pytest  # noqa: E402
import typechecks  # noqa: E402

# Before the first import of the modules that are checked.
typechecks.check(
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
)


def pytest_collection_finish() -> None:
    """What is imported by now stays, and what tests trace is looked at for garbage now and then."""
    gc.freeze()
    gc.set_threshold(50_000)
    gc.enable()


MEMORY = 0.95e9
"""Bytes a process may hold at the end of a file of tests without dropping compiled programs."""
SHELL_FLAGS = os.environ.get("XLA_FLAGS")


@pytest.fixture(autouse=True)
def no_silent_rank_promotion() -> Iterator[None]:
    """Arrays of different rank must be broadcast on purpose."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    """What a process compiled is dropped before it fills a machine on which others test too."""
    yield
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if sys.platform == "linux" else 0
    if pages * os.sysconf("SC_PAGE_SIZE") > MEMORY:
        jax.clear_caches()


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
def serve() -> Iterator[Callable[..., Any]]:
    """Starts servers of scripts, which are stopped after the test."""
    from msjax.testing.server import MODEL, Reply, ScriptedServer

    servers = []

    def start(script=lambda number, request: Reply(), served=(MODEL,)) -> ScriptedServer:
        models = Reply({"object": "list", "data": [{"id": name} for name in served]})
        servers.append(ScriptedServer(script, models))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def compiling_nothing() -> Callable[[], AbstractContextManager[None]]:
    """A context in which no program may be lowered, to be compiled or loaded from disk."""

    @contextmanager
    def watch() -> Iterator[None]:
        lowered = []

        def listen(event: str, *_: Any, **details: Any) -> None:
            if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
                lowered.append(details.get("fun_name", "a program"))

        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)
        assert not lowered

    return watch


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Any]:
    """See `msjax.testing.make_run`; imported after the hook above."""
    from msjax.testing import make_run

    return make_run
