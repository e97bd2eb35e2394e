"""Files: the cache, one lock for what is written over time, one atomic write for all else.

And objects that are named on the command line, and the memory that is free.
"""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import importlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msjax.errors import InputError
from msjax.texts import csv_cell

__all__ = [
    "cache_folder",
    "load_named",
    "locked",
    "reading",
    "require_file",
    "replacing",
    "sha256_of",
    "unpacked",
    "write_bytes",
    "write_csv",
    "write_text",
]


_MOST_UNPACKED = 2**28


def cache_folder() -> Path:
    """``$MSJAX_CACHE``, or ``~/.cache/msjax``."""
    cache = os.environ.get("MSJAX_CACHE")
    return Path(cache) if cache else Path.home() / ".cache" / "msjax"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write into, which takes its place once the block ends well.

    So `path` is whole or as it was: a full disk, an exception or a kill leaves the old content. The
    name that is given has the suffix of `path`. Folders are made if need be. What `path` links to
    is replaced, not the link; a device is written to.

    Raises:
        InputError: the file cannot be written, named with the reason.
    """
    part: Path | None = None
    try:
        device = path.exists() and not (path.is_file() and not path.is_relative_to("/dev"))
        target = _resolved(path) if path.is_symlink() and not device else path
        if not device:
            target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            prefix=f".{target.stem}-",
            suffix=target.suffix,
            dir=None if device else target.parent,
        )
        part = Path(name)
        os.close(descriptor)
        yield part
        if device:
            target.write_bytes(part.read_bytes())
            return
        part.chmod(_mode(target))
        _flush(part)
        os.replace(part, target)
        _flush(target.parent)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "ymlink" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: cannot be written ({reason}), and is as it was; make room or name another "
            "file"
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _resolved(path: Path) -> Path:
    """Where a path leads to; `OSError` where links lead in a circle.

    Since Python 3.13 `Path.resolve` follows a circle as far as it goes, without a word.
    """
    target = path.resolve()
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; see `replacing`."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a text file in UTF-8, its ends of lines as given; see `replacing`."""
    write_bytes(path, content.encode())


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV, whole or not at all; see `replacing`.

    A text that a spreadsheet would take for a formula is written with an apostrophe before it.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows([csv_cell(value) for value in row] for row in rows)
    write_text(path, text.getvalue())


def require_file(path: Path) -> None:
    """Raises InputError for a pipe or a device, which may keep a reader waiting for ever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: is a pipe or a device; write what it gives to a file first")


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """What goes wrong while a file of some format is read is the file's fault, and says so.

    Libraries that read formats raise whatever a damaged file leads them to.

    Raises:
        InputError: the file is absent, cannot be read, is damaged or is something else.
    """
    try:
        require_file(path)
        yield
    except (InputError, ImportError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {remedy}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); {remedy}") from None
    except Exception as error:
        words = str(getattr(error, "strerror", None) or error).strip().splitlines()
        says = f"{type(error).__name__}: {words[0][:200]}" if words else type(error).__name__
        raise InputError(
            f"{path}: cannot be read, is damaged or is something else ({says}); {remedy}"
        ) from error


def unpacked(path: Path, remedy: str) -> bytes:
    """What gzip packed into a file, up to 256 MB.

    Raises:
        InputError: it holds more, or as `reading`.
    """
    with reading(path, remedy), gzip.open(path) as file:
        content = file.read(_MOST_UNPACKED + 1)
        if len(content) > _MOST_UNPACKED:
            raise ValueError(f"it unpacks to more than {_MOST_UNPACKED} bytes")
    return content


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a file or folder that is written over time, for one process at a time.

    The lock is on a file ``.NAME.lock`` beside it, which is removed at the end. The system lets go
    of the lock when a process dies, so a file that a kill leaves behind locks nothing.

    Raises:
        InputError: another process holds it, or no lock can be made there.
    """
    descriptor = None
    try:
        try:
            require_file(path)
            target = _resolved(path)
            lock = target.with_name(f".{target.name}.lock")
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _open_and_lock(lock)
        except InputError:
            raise
        except (OSError, RuntimeError, ValueError) as error:  # links in a circle, no such names
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: cannot be written ({reason}); name another place") from error
        if descriptor is None:
            raise InputError(
                f"{path}: another process is writing it; wait for that or name another place"
            )
        yield
    finally:
        if descriptor is not None:
            # Removed while it is held: whoever opened it meanwhile sees that it is gone.
            with suppress(OSError):
                lock.unlink()
            os.close(descriptor)


def _open_and_lock(lock: Path) -> int | None:
    """A descriptor that holds the lock, None if another process does."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        if not _try_lock(descriptor):
            os.close(descriptor)
            return None
        # Whoever held the lock before may have removed the file after it was opened here.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        os.close(descriptor)


def _mode(path: Path) -> int:
    """Permissions of the file that is replaced, else those of a new one."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _flush(path: Path) -> None:
    """What was written is on disk; a folder's entries only where the system can do that."""
    if sys.platform == "win32" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def load_named(spec: str, what: str) -> Any:
    """The object that "module:name" names; modules in the working directory are found too.

    Args:
        spec: e.g. "my_scorers:close_enough".
        what: what is wanted, for messages, e.g. "scorer".

    Raises:
        InputError: the module cannot be imported, or has no such name.
    """
    module, _, name = spec.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        raise InputError(f"{what} is {spec!r}; write module:name, such as my_module:my_{what}")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{what} is {spec!r}, but there is no module {error.name!r}; start where it is, or "
            "install it"
        ) from None
    except Exception as error:  # whatever a module of the user raises
        raise InputError(f"{what} is {spec!r}, but its module does not import: {error}") from error
    finally:
        sys.path.remove(here)
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"{what} is {spec!r}, but {module} has no {part!r}")
        found = getattr(found, part)
    return found


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def available_memory() -> int | None:
    """Bytes that programs may still take on this machine; None where that is not known."""
    if sys.platform != "linux":
        return None
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None
