"""The command: parts in turn, each within its share of the time, and their report."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.accelerator.report import tables
from msjax.cli.output import write_json
from msjax.errors import InputError, MissingExtraError, require_extra
from msjax.verify.machine import packages

ROOT = Path(__file__).parents[2]
SHARES = {"parity": 0.25, "decoding": 0.4, "peer": 0.15, "simulators": 0.2}
"""Of the time; what a part leaves over goes to the later ones."""


@dataclass(frozen=True)
class Accelerator:
    """Check what this machine's devices compute, and measure how fast.

    Exit status: 1 if a check failed or a part broke off, 2 for bad input.

    python -m benchmarks.accelerator --minutes 8
    """

    minutes: float = 8.0
    """what all of it may take"""
    json: Path = Path("accelerator.json")
    """where the results are written, after each of them"""
    small: bool = False
    """shrink everything, to see that it works; always so where JAX computes on a CPU"""


def check(options: Accelerator) -> None:
    """Refuses what cannot be run.

    Raises:
        InputError: naming the option.
        MissingExtraError: the decoder cannot run.
    """
    require_extra("local", "flax", "transformers")
    if not (math.isfinite(options.minutes) and options.minutes > 0):
        raise InputError(f"--minutes is {options.minutes}; give a positive number, such as 8")
    folder = options.json.absolute().parent
    if options.json.is_dir() or not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"--json is {options.json}; name a file in a folder that can be written")


def run(options: Accelerator) -> int:
    """Runs all parts; returns the exit status."""
    start = time.monotonic()
    found: list[dict[str, Any]] = []
    outcome: dict[str, str] = {}
    report = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "minutes": options.minutes,
        "versions": packages(),
        "system": platform.platform(),
        "load_before": os.getloadavg(),
        "parts": outcome,
        "measurements": found,
    }
    small, share = options.small, 0.0
    for name in SHARES:
        share += SHARES[name]
        end = start + 60 * options.minutes * share
        outcome[name] = "under way"
        command = [name, str(max(end - time.monotonic(), 0.0))]
        for item in _lines(command + ["--small"] * small, end):
            if isinstance(item, str):
                outcome[name] = item
            else:
                found.append(item)
                small |= item["values"].get("platform") == "cpu"
                print(_told(item), flush=True)
            write_json(options.json, report | {"small": small})
        print(f"{name}: {outcome[name]}, {time.monotonic() - start:.0f} s after the start")
    print(tables(found))
    print(f"results: {options.json}" + (" (everything shrunk)" if small else ""))
    wrong = faults(found, outcome)
    if wrong:
        print(f"FAILED: {', '.join(wrong)}")
    return int(bool(wrong))


def faults(found: Sequence[dict[str, Any]], outcome: dict[str, str]) -> list[str]:
    """Checks that failed, and parts that broke off; one that was cut by the clock is no fault."""
    failed = [item["name"] for item in found if item["passed"] is False]
    return failed + [name for name, how in outcome.items() if how.startswith("broke off")]


def _lines(arguments: Sequence[str], end: float) -> Iterator[dict[str, Any] | str]:
    """The measurements of a part as they come, and in the end how it ended."""
    command = [sys.executable, "-m", "benchmarks.accelerator.part", *arguments]
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        lines: queue.Queue[str | None] = queue.Queue()

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        line: str | None = ""
        try:
            # A program that compiles cannot be asked to stop.
            while (line := lines.get(timeout=max(end - time.monotonic(), 0.001))) is not None:
                with suppress(json.JSONDecodeError):  # what libraries print
                    yield json.loads(line)
        except queue.Empty:
            yield "cut at the end of its time"
            return
        finally:
            with suppress(subprocess.TimeoutExpired):  # its output ends a little before it does
                process.wait(timeout=10 if line is None else 0)
            process.kill()
            process.wait()
            listener.join()
            assert process.stdout is not None
            process.stdout.close()
        if process.returncode == 0:
            yield "whole"
            return
        errors.seek(0)
        last = errors.read().strip().splitlines() or [f"exit status {process.returncode}"]
        yield f"broke off: {last[-1]}"


def _told(item: dict[str, Any]) -> str:
    verdict = {True: "ok", False: "WRONG", None: ""}[item["passed"]]
    values = ", ".join(f"{name} {_short(value)}" for name, value in item["values"].items())
    said = "; ".join(text for text in (verdict, values, item["says"]) if text)
    return f"{item['part']}: {item['name']}: {said}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Parses, runs, and says in a sentence what is wrong with the input."""
    options = tyro.cli(Accelerator, prog="python -m benchmarks.accelerator")
    try:
        check(options)
        return run(options)
    except (InputError, MissingExtraError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; {options.json} holds what was measured", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
