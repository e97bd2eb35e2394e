"""Pages in headless Chromium: what they write to the console and ask of a network, and whether they
can be read in every width, in light and dark, and without seeing them.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from html import escape, unescape
from pathlib import Path
from typing import Any

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


FRAMES = ((390, "light"), (390, "dark"), (768, "light"), (1280, "light"))
"""A phone, a tablet, a desk; in the dark a page is as wide as in the light."""
_AUDIT = Path(__file__).with_name("audit.js")


def audited(pages: Mapping[str, Path], folder: Path) -> dict[str, dict[str, Any]]:
    """What can be found fault with in pages, each in every one of `FRAMES`.

    Every `<details>` is clicked. Returns by page, width and scheme: the `faults`, one sentence each
    (too wide, text of too little contrast, pictures, headings and tables without what a reader who
    does not see them needs), and how many `texts`, `details` and `tables` were looked at.
    """
    frames = [
        f'<iframe title="{name} {width} {scheme}" width={width} height=900 '
        f'style="border:0; color-scheme:{scheme}" srcdoc="{escape(path.read_text())}"></iframe>'
        for name, path in pages.items()
        for width, scheme in FRAMES
    ]
    sheet = folder / "frames.html"
    sheet.write_text(f"{''.join(frames)}<pre></pre><script>{_AUDIT.read_text()}</script>")
    found = subprocess.run(
        [
            str(_CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            "--dump-dom",
            sheet.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (text,) = re.findall(r"<pre>({.*?})</pre>", found.stdout, flags=re.DOTALL)
    return json.loads(unescape(text))
