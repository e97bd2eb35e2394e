"""The process in which the code of one answer is run with its tests; see `unit_tests`.

It reads one JSON object from its input: code, tests, seconds, bytes of memory, and a token. Only if
all tests have run to their end it writes the token and the word "passed", otherwise why not. It is
run as a script and imports nothing of this package.
"""

import json
import os
import resource
import sys
from typing import Any, NoReturn

_FILES = 64
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_REFUSED = (
    *("socket.", "subprocess.", "shutil.", "pty.", "ftplib.", "smtplib.", "urllib.", "http."),
    *("sqlite3.", "resource.setrlimit", "resource.prlimit"),
    *("os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.startfile"),
    *("os.kill", "signal.pthread_kill", "os.remove", "os.rename", "os.rmdir", "os.mkdir"),
    *("os.chmod", "os.chown", "os.chflags", "os.link", "os.symlink", "os.truncate", "os.utime"),
    *("os.setxattr", "os.removexattr", "os.lockf", "ctypes.dlsym", "ctypes.call_function"),
)
_READABLE = (
    *{os.path.realpath(x) for x in (sys.prefix, sys.base_prefix, os.path.dirname(os.__file__))},
    *("/usr/lib", "/usr/share/zoneinfo", "/etc/localtime", "/dev/null", "/dev/urandom"),
)
_READS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "glob.glob")


def _hold(seconds: int, memory: int) -> None:
    """Bounds what follows: processor time, memory, files, processes, network."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _FILES),
    ):
        resource.setrlimit(what, (most, most))
    if sys.platform == "linux":
        import ctypes

        # A network of its own, without any way out, where the system lets users have one.
        ctypes.CDLL(None).unshare(_NEWUSER | _NEWNET)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    import _posixsubprocess

    _posixsubprocess.fork_exec = _refuse
    for module in (os, sys.modules["posix"]):
        for name in ("mkfifo", "mknod"):  # which nothing is told of
            setattr(module, name, _refuse)
    sys.addaudithook(_watch)


def _refuse(*_: Any) -> NoReturn:
    raise PermissionError("not allowed in unit tests")


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = arguments
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & writes:
            _refuse()
        _read(path)
    elif event in _READS:
        _read(arguments[0])
    elif event == "ctypes.dlopen" and arguments[0] is not None:
        _refuse()
    elif event.startswith(_REFUSED):
        _refuse()


def _read(path: Any) -> None:
    """Nothing but Python and its libraries is read."""
    if isinstance(path, int):
        return
    real = os.path.realpath("." if path is None else path)
    name = real.decode(errors="replace") if isinstance(real, bytes) else real
    if not any(name == one or name.startswith(one + os.sep) for one in _READABLE):
        _refuse()


def _why(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, PermissionError):
        return "not allowed"
    return "failed"


def serve() -> None:
    """Runs what is asked, and says how it ended."""
    request = json.load(sys.stdin)
    replies = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    token = request.pop("token")
    _hold(request["seconds"], request["memory"])
    names: dict[str, Any] = {"__name__": "answer"}
    said = "passed"
    try:
        exec(compile(request["code"], "answer", "exec"), names)
        exec(compile(request["tests"], "tests", "exec"), names)
    except BaseException as error:  # whatever code may raise, SystemExit too
        said = _why(error)
    os.write(replies, f"{token} {said}".encode())
    os._exit(0)


if __name__ == "__main__":
    serve()
