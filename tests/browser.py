"""Pages in headless Chromium: what they write to the console and ask of a network."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

_CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(_CHROMIUM is None, reason="needs chromium (Debian's package)")


def opened(path: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Lines of the console, and the addresses that the page asks for; its picture in `folder`."""
    log = folder / "net.json"
    found = subprocess.run(
        [
            str(_CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={log}",
            f"--screenshot={folder / 'page.png'}",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    parameters = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # The browser's own requests have no page as their origin.
    asked = [
        x["url"] for x in parameters if "url" in x and x.get("initiator") in ("null", "file://")
    ]
    return console, asked
