"""`msjax <command>`: the composition root, where msjax, simulate, inference and figures meet.

Each command is a frozen dataclass in a file of its own: its fields are the options, `run` does the
work and imports what is heavy, so that `msjax --help` stays instant. The types of the fields say
what is checked before `run` (`msjax.cli.output`); `resumes` is true of a command that goes on from
what an interrupted run left.
"""

import _thread
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import tyro

from msjax.cli.adapt import Adapt
from msjax.cli.audit import Audit
from msjax.cli.card import Card
from msjax.cli.check import Check
from msjax.cli.figures import Figures
from msjax.cli.fit import Fit
from msjax.cli.generate import Generate
from msjax.cli.output import check_options
from msjax.cli.plan import Plan
from msjax.cli.predict import Predict
from msjax.cli.replay import Replay
from msjax.cli.report import Report
from msjax.cli.reproduce import Reproduce
from msjax.cli.sensitivity import Sensitivity
from msjax.cli.verify import Verify
from msjax.cli.weights import Weights
from msjax.errors import InputError

_subcommand = tyro.conf.subcommand
Command = (
    Annotated[Weights, _subcommand("weights")]
    | Annotated[Generate, _subcommand("generate")]
    | Annotated[Card, _subcommand("card")]
    | Annotated[Fit, _subcommand("fit")]
    | Annotated[Check, _subcommand("check")]
    | Annotated[Plan, _subcommand("plan")]
    | Annotated[Predict, _subcommand("predict")]
    | Annotated[Replay, _subcommand("replay")]
    | Annotated[Verify, _subcommand("verify")]
    | Annotated[Adapt, _subcommand("adapt")]
    | Annotated[Audit, _subcommand("audit")]
    | Annotated[Sensitivity, _subcommand("sensitivity")]
    | Annotated[Report, _subcommand("report")]
    | Annotated[Figures, _subcommand("figures")]
    | Annotated[Reproduce, _subcommand("reproduce")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit status 0 done, 1 a check failed, 2 bad input, 130 interrupted."""
    # Only its tokenizers are used; it would advise every user to install torch.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    command = None
    try:
        command = tyro.cli(
            Command,
            prog="msjax",
            description="Does letting a language model revise its answer help, by how much, "
            "when to stop, and how sure can one be?",
            args=arguments,
        )
        check_options(command)
        with _no_interrupt_lost():
            return command.run()
    except (InputError, OSError) as error:
        print(f"msjax: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumes = getattr(command, "resumes", False)
        then = "goes on from what is on disk" if resumes else "starts from the beginning"
        print(f"msjax: interrupted; the same command {then}", file=sys.stderr)
        return 130


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
