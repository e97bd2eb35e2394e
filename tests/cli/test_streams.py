"""Commands end as they should, whatever became of standard output and standard error."""

import json
import logging
import os
import subprocess
import sys

import pytest

from msjax.cli import main
from msjax.cli.streams import shown_messages

needs_sh = pytest.mark.skipif(sys.platform == "win32", reason="redirects of a POSIX shell")
HELP, BAD = "['--help']", "['card', 'absent.jsonl']"


@pytest.mark.slow
@needs_sh
@pytest.mark.parametrize(
    ("arguments", "redirect", "status", "says"),
    [
        (HELP, ">/dev/full", 2, "No space left on device"),
        (HELP, ">/dev/full 2>/dev/full", 2, ""),
        (HELP, "| true", 141, ""),
        (BAD, "2>/dev/full", 2, ""),
        (BAD, "2>&- >&-", 2, ""),
        (BAD, ">&-", 2, "absent.jsonl: no such file"),
    ],
)
def test_a_stream_that_is_gone(arguments, redirect, status, says, tmp_path) -> None:
    script = f"import sys; from msjax.cli import main; sys.exit(main({arguments}))"
    # The reader of the pipe is gone before anything is printed.
    started = f'set -o pipefail; ("$0" -c "import time; time.sleep(.1); {script}") {redirect}'
    done = subprocess.run(
        ["bash", "-c", started, sys.executable], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == status, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr
    assert says or not done.stderr


@needs_sh
def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path) -> None:
    """What a library prints to number 2 would be written into it."""
    script = (
        "import os; from msjax.cli.streams import guarded_streams\n"
        "with guarded_streams():\n    print(os.open('data', os.O_CREAT | os.O_WRONLY))"
    )
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" 2>&- 0<&-', sys.executable, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert int(done.stdout) > 2


def test_answers_do_not_command_the_terminal(tmp_path, capsys) -> None:
    path = tmp_path / "c.jsonl"
    lines = [{"id": "\x1b]0;owned\x07", "gold": "1", "completion": "Answer: \x1b[2J\u202e1"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["grade", str(path), "--scorer", "exact"]) == 0
    printed = capsys.readouterr()
    assert r"\x1b]0;owned\x07" in printed.out
    assert not set(printed.out + printed.err) & set("\x1b\x07\u202e")


def test_every_text_can_be_printed_in_every_encoding(tmp_path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"id": "解", "gold": "1", "completion": "Answer: é"}) + "\n")
    script = f"import sys; from msjax.cli import main; sys.exit(main(['grade', {str(path)!r}]))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment)
    assert done.returncode == 0 and rb"\u89e3" in done.stdout


def test_help_ends_in_a_window_of_one_column(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "1")
    with pytest.raises(SystemExit):
        main(["card", "--help"])
    assert "Example: msjax card" in " ".join(capsys.readouterr().out.split())
    assert os.environ["COLUMNS"] == "1"


@pytest.mark.parametrize(("fault", "status"), [(KeyError, 70), (MemoryError, 2)])
def test_a_fault_of_ours_is_no_failed_check(fault, status, monkeypatch, capsys) -> None:
    from msjax.cli.grade import Grade

    def fails(_: Grade) -> int:
        raise fault("x")

    monkeypatch.setattr(Grade, "run", fails)
    assert main(["grade", "c.jsonl"]) == status
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("msjax: error:")


def test_the_library_logs_what_a_command_shows(capsys):
    """Progress where nobody watches, and warnings, are messages of the logger `msjax`."""
    log = logging.getLogger("msjax.llm.record")
    with shown_messages():
        log.info("gsm8k: 2 questions")
        log.warning("the server does not take seed")
    log.info("nobody asked")
    said = capsys.readouterr()
    assert said.err == "gsm8k: 2 questions\nwarning: the server does not take seed\n"
    assert not said.out
