"""The card's page in a real browser: nothing on its console, nothing asked of a network."""

import json
import shutil
import subprocess

import jax
import pytest
from test_card import runs

from inference.card import make_cards
from paper_figures import card as page

CHROMIUM = shutil.which("chromium")


def opened(path, folder):
    """What a page writes to the console, and the addresses that it asks for itself."""
    log = folder / "net.json"
    found = subprocess.run(
        [
            CHROMIUM,
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


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian's package)")
def test_page_opens_without_errors_or_requests(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('x')</script>")
    console, asked = opened(bad, tmp_path)
    assert len(console) == 1 and asked == ["http://127.0.0.1:9/x.png"]
    patterns = ["0111"] * 20 + ["1011"] * 12 + ["0000"] * 8
    path = page.write(make_cards(runs(patterns), jax.random.key(0)), "", tmp_path / "card.html")
    assert opened(path, tmp_path) == ([], [])
    assert (tmp_path / "page.png").stat().st_size > 10_000
