"""What commands share: types of options that are checked, JSON for machines, use of all cores."""

import dataclasses
import itertools
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import tyro

from msjax._io import cache_folder, write_text
from msjax.errors import InputError


def _file(option: str, path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{option} is {path}, which is a folder; name a file")
    _place(option, path)


def _folder(option: str, path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{option} is {path}, which is a file; name a folder")
    _place(option, path)


def _place(option: str, path: Path) -> None:
    if path.exists():
        return
    above = next(folder for folder in path.parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(
            f"{option} is {path}, but {above} is not a folder that can be written to; "
            "name another place"
        )


def _seed(option: str, seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise InputError(f"{option} is {seed}; give a seed from 0 to {2**32 - 1}")


if TYPE_CHECKING:
    from msjax.data.runs import Runs

OutputFile = Annotated[Path, _file]
OutputFolder = Annotated[Path, _folder]
Seed = Annotated[int, _seed]


def print_doubts(runs: "Runs") -> None:
    """Print what there is to say of runs before anything is estimated from them."""
    from msjax.evaluate.summary import doubts

    for doubt in doubts(runs):
        print(f"warning: {doubt}")


def width() -> int:
    """Columns for text: those of the terminal, or of COLUMNS, from 60 to 98."""
    return min(max(shutil.get_terminal_size((98, 24)).columns, 60), 98)


def begin(what: str) -> None:
    """Say on standard error what is begun, where nobody watches and no bar is shown."""
    if not sys.stderr.isatty():
        print(what, file=sys.stderr, flush=True)


def check_options(command: Any) -> None:
    """Refuse, before anything is computed, what the types of the command's fields rule out.

    An `OutputFile` or `OutputFolder` must be one that can be made, and no other option may name
    the same file as an `OutputFile`, which would be replaced. A `Seed` must fit in 32 bits, as JAX
    drops the rest.
    """
    types = get_type_hints(type(command), include_extras=True)
    paths = []
    for field in dataclasses.fields(command):
        value, marks = getattr(command, field.name), set(_marks(types[field.name]))
        if dataclasses.is_dataclass(value):
            check_options(value)
        positional = tyro.conf.Positional in marks
        option = field.name.upper() if positional else "--" + field.name.replace("_", "-")
        for check in marks & {_file, _folder, _seed}:
            if value is not None:
                check(option, value)
        for given in value if isinstance(value, tuple) else (value,):
            # Some texts are the name of something or a file, such as --benchmarks.
            if isinstance(given, Path) or (isinstance(given, str) and Path(given).suffix):
                paths.append((option, Path(os.path.realpath(given)), _file in marks))
    for (one, path, is_output), (other, same, other_is_output) in itertools.combinations(paths, 2):
        if path == same and (is_output or other_is_output):
            output = other if other_is_output else one
            raise InputError(f"{one} and {other} are both {path}; name another file for {output}")


def _marks(declared: Any) -> Iterator[Any]:
    """All that `Annotated` adds to a type or to its parts."""
    yield from getattr(declared, "__metadata__", ())
    for part in get_args(declared):
        yield from _marks(part)


def plain(value: Any) -> Any:
    """`value` in JSON's own types; NaN and infinities become null, arrays become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    elif hasattr(value, "tolist"):
        value = value.tolist()
    elif hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def write_json(path: Path, result: Any) -> None:
    """Write `result` as JSON, whole or not at all, creating the folder if need be."""
    write_text(path, json.dumps(plain(result), indent=2, allow_nan=False) + "\n")


def prepare_sampling() -> None:
    """Make every core a device of JAX's CPU backend, and keep compiled samplers in the cache.

    Chains then run in parallel, and a sampler is compiled once for all processes. The number of
    devices has an effect only before JAX is first used; what the user chose is left alone.
    """
    flag = "--xla_force_host_platform_device_count"
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}={os.cpu_count() or 1}".strip()
    keep_compiled()


def keep_compiled() -> None:
    """Keep what takes long to compile in the cache, for later processes; the user's own is left."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 2.0)
