"""`msjax <command>`: one file per command, which parses, calls the library and prints.

Each command is a frozen dataclass in a file of its own: its fields are the options, `run` does the
work and imports what is heavy. The types of the fields say what is checked before `run`
(`msjax.cli.output`); `resumes` is true of a command that goes on from what an interrupted run left.
Only the file of the command that was asked for is imported, so that `msjax --help` is instant.
"""

import _thread
import errno
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from keyword import iskeyword
from typing import Any

from msjax.errors import InputError, MissingExtraError
from msjax.texts import visible

_NARROWEST = 40
GROUPS = {
    "Decide": {
        "card": "what a pilot decides: does revising help, which rule to use, what to collect",
        "fit": "accuracy, bounds and limits of recorded runs, and how sure one can be",
        "plan": "how many questions and rounds a pilot needs",
        "replay": "stopping rules on recorded runs, compared without tuning on what is reported",
        "audit": "exact errors and votes of the rules that vote",
    },
    "Run": {
        "run": "ask a model, let it revise, stop by a rule, record every trajectory",
        "serve": "a proxy in front of a model, whose answers it revises by a rule",
        "grade": "what is read from completions, whether it is right, and why",
        "import": "recorded runs from a table or a log of another tool",
        "weights": "obtain the default local model",
        "doctor": "devices, versions and extras, and whether this machine computes right",
        "train adapt": "train a model on its own votes",
        "train priors": "learn priors from features of questions",
    },
    "Research": {
        "verify": "check every claim of the theory by simulation",
        "sensitivity": "what errors in the rates cost",
        "figures": "draw figures of results, with the numbers behind them",
        "report": "one page of a folder of results",
        "reproduce": "weights, pilot, posterior, rule, figures and report in one go",
    },
}
COMMANDS = {name: says for group in GROUPS.values() for name, says in group.items()}
_OTHER = {
    "check": "check",  # `fit` says it too
    "generate": "run",
    "adapt": "train adapt",
    "predict": "train priors",
}
"""Names that are understood and not listed, and the command that each stands for."""


def find_command(name: str) -> Any:
    """The dataclass of a command.

    Raises InputError at an unknown name; the message gives those that are near.
    """
    if name not in COMMANDS and name not in _OTHER:
        from difflib import get_close_matches

        near = [one for one in COMMANDS if one.split()[0] == name.split()[0]]
        near = near or get_close_matches(name, [*COMMANDS, *_OTHER], n=2, cutoff=0.7)
        near = list(dict.fromkeys(_OTHER.get(one, one) for one in near))
        remedy = f"did you mean {' or '.join(near)}?" if near else "see `msjax --help`"
        raise InputError(f"{name!r} is not a command; {remedy}")
    words = _OTHER.get(name, name).split()
    file = "_".join(words)
    module = import_module(f"msjax.cli.{file}_" if iskeyword(file) else f"msjax.cli.{file}")
    return getattr(module, "".join(word.capitalize() for word in words))


def overview() -> str:
    """What `msjax --help` prints: every command in one line, and how to learn more."""
    lines = ["usage: msjax COMMAND [OPTIONS]", ""]
    lines += ["Does letting a language model revise its answer help, by how much, when to stop,"]
    lines += ["and how sure can one be?"]
    for group, commands in GROUPS.items():
        lines += ["", group, *(f"  {name:<15}{says}" for name, says in commands.items())]
    lines += ["", "`msjax COMMAND --help` shows its options and an example; `msjax --version`."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0 done, 1 a check failed, 2 bad input, 70 a fault of msjax itself, 130 interrupted, 141 nobody
    reads what it prints.
    """
    from msjax.cli.streams import OutputLostError, guarded_streams, shown_messages

    try:
        with guarded_streams() as streams, shown_messages():
            return _run(list(sys.argv[1:] if arguments is None else arguments), streams)
    except OutputLostError as error:
        if error.errno == errno.EPIPE:
            return 141  # as the shell says of programs that a closed pipe ends
        with suppress(OSError):  # nor may standard error have room
            print(f"msjax: error: standard output cannot be written ({error})", file=sys.stderr)
        return 2


def _run(arguments: list[str], streams: Any) -> int:
    from msjax.cli.streams import OutputLostError

    name, *rest = arguments or [""]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        from importlib.metadata import version

        print(f"msjax {version('msjax')}")
        return 0
    if not name:
        print(overview(), file=sys.stderr)
        return 2
    if name == "train" and rest:
        name, *rest = f"train {rest[0]}", *rest[1:]
    # Only its tokenizers are used; it would advise every user to install torch.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    command = None
    try:
        import tyro

        from msjax.cli.output import check_options

        with _wide_enough():
            command = tyro.cli(find_command(name), prog=f"msjax {name}", args=rest)
        for stream in streams:
            stream.escapes = True
        check_options(command)
        with _no_interrupt_lost():
            return command.run()
    except OutputLostError:
        raise
    except (InputError, MissingExtraError, OSError) as error:
        print(f"msjax: error: {visible(str(error))}", file=sys.stderr)
        return 2
    except MemoryError as error:
        says = f" ({error})" if str(error) else ""
        print(f"msjax: error: there is not enough memory{says}; give it less", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumes = getattr(command, "resumes", False)
        then = "goes on from what is on disk" if resumes else "starts from the beginning"
        print(f"msjax: interrupted; the same command {then}", file=sys.stderr)
        return 130
    except Exception as error:
        if (reason := _no_device()) is not None:
            print(f"msjax: error: {visible(reason)}", file=sys.stderr)
            return 2
        traceback.print_exc()
        print(
            f"msjax: error: {type(error).__name__}, a fault of msjax, not of what it was given; "
            "files that were there are whole; please report the lines above",
            file=sys.stderr,
        )
        return 70


def _no_device() -> str | None:
    """Why there is none of the devices that the user chose, if that is so."""
    if "jax" not in sys.modules or not os.environ.get("JAX_PLATFORMS"):
        return None
    from msjax.devices import missing_device

    return missing_device()


@contextmanager
def _wide_enough() -> Iterator[None]:
    """Help is laid out for 40 columns or more; for fewer the layout would never end."""
    columns = os.environ.get("COLUMNS")
    if shutil.get_terminal_size().columns < _NARROWEST:
        os.environ["COLUMNS"] = str(_NARROWEST)
    try:
        yield
    finally:
        if columns is None:
            os.environ.pop("COLUMNS", None)
        else:
            os.environ["COLUMNS"] = columns


@contextmanager
def _no_interrupt_lost() -> Iterator[None]:
    """Repeat every Ctrl-C that Python drops: in destructors, and in JAX's garbage collection.

    The repetition comes a little later, when those have returned.
    """
    usual, timers = sys.unraisablehook, list[threading.Timer]()

    def repeat(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            return usual(dropped)
        timers.append(threading.Timer(0.05, _thread.interrupt_main))
        timers[-1].start()

    sys.unraisablehook = repeat
    try:
        yield
    finally:
        sys.unraisablehook = usual
        for timer in timers:
            timer.join()
