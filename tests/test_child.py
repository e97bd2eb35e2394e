"""Processes that answer line by line end with the one that asks, in the midst of any request."""

import subprocess
import sys
import time

import pytest

BEATS = """
import sys, time
for line in sys.stdin:
    for number in range(600):
        open(line.strip(), "w").write(str(number))
        time.sleep(0.1)
"""
ASKS = """
import sys
from pathlib import Path
from msjax._child import Child
Child(Path(sys.argv[1])).ask(sys.argv[2], 60.0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a process there does not know its parent")
def test_a_request_ends_with_the_process_that_asked(tmp_path) -> None:
    script, beats = tmp_path / "beats.py", tmp_path / "beats"
    script.write_text(BEATS)
    asking = subprocess.Popen([sys.executable, "-c", ASKS, str(script), str(beats)])
    end = time.monotonic() + 30
    while not beats.exists() and time.monotonic() < end:
        time.sleep(0.05)
    asking.kill()
    asking.wait()
    while time.monotonic() < end:
        last = beats.read_text()
        time.sleep(1)
        if beats.read_text() == last:
            return
    pytest.fail("it goes on")
