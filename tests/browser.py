"""Pages in headless Chromium: what they write to the console and ask of a network, and how wide
they are.
"""

import json
import re
import shutil
import subprocess
from html import escape, unescape
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


def measured(path: Path, width: int, folder: Path) -> dict[str, int]:
    """Sizes of a page in a frame of this width, with everything opened that can be.

    Returns: the frame's width `seen`; the page's width `wide`, and `wide_open` once every
        `<details>` was clicked; how many of these there are, and how many are `opened` by that;
        how many tables in them can be seen `before` and are `shown` after.
    """
    frame = folder / "frame.html"
    frame.write_text(
        f"<iframe width={width} height=900 style='border:0' srcdoc=\"{escape(path.read_text())}\">"
        """</iframe><pre></pre><script>
        addEventListener("load", () => {
          const page = document.querySelector("iframe").contentDocument;
          const root = page.documentElement, all = [...page.querySelectorAll("details")];
          const tables = () => [...page.querySelectorAll("details table")].filter(
            (x) => x.checkVisibility());
          const wide = root.scrollWidth, before = tables().length;
          all.forEach((x) => x.querySelector("summary").click());
          document.querySelector("pre").textContent = JSON.stringify({
            seen: root.clientWidth, wide, wide_open: root.scrollWidth, details: all.length,
            opened: all.filter((x) => x.open).length, before, shown: tables().length});
        });
        </script>"""
    )
    found = subprocess.run(
        [
            str(_CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (text,) = re.findall(r"<pre>({.*?})</pre>", found.stdout)
    return json.loads(unescape(text))
