"""Files that are replaced whole or not at all, and locks."""

import errno
import os
import signal
import subprocess
import sys

import pytest

import msjax
from msjax import _io
from msjax._io import locked, reading, replacing, write_bytes, write_text
from msjax.data.store import run_lines
from msjax.errors import InputError


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path) -> None:
    path = tmp_path / "new" / "page.html"
    write_text(path, "une page \u00e9crite\r\n")
    assert path.read_bytes().decode() == "une page \u00e9crite\r\n"
    path.chmod(0o600)
    write_bytes(path, b"again")
    assert path.read_bytes() == b"again"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, step) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_io.os, step, full)
    with pytest.raises(InputError, match=r"result.json: cannot be written \(No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_or_a_kill_leaves_what_was_there(tmp_path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as part:
        part.write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == [path]
    program = (
        "import os, pathlib, signal, sys\n"
        "from msjax._io import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as part:\n"
        "    part.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_what_a_link_points_to_is_replaced_and_a_device_is_written_to(tmp_path) -> None:
    path, link = tmp_path / "there.csv", tmp_path / "link.csv"
    path.write_text("old")
    link.symlink_to(path)
    write_text(link, "new")
    assert link.is_symlink() and path.read_text() == "new"
    write_text(_io.Path(os.devnull), "nothing")
    assert not _io.Path(os.devnull).is_file()
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(InputError, match="circle: cannot be written"):
        write_text(circle, "new")


def test_a_place_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="page.html: cannot be written"):
        write_text(tmp_path / "file" / "page.html", "new")
    with pytest.raises(InputError, match="run: cannot be written"), locked(tmp_path / "file/run"):
        pass


def test_a_pipe_is_refused_and_not_waited_for(tmp_path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.jsonl")
    with pytest.raises(InputError, match="pipe.jsonl: is a pipe or a device"), locked(pipe):
        pass
    with pytest.raises(InputError, match="pipe.jsonl: is a pipe or a device"), reading(pipe, ""):
        pytest.fail("it was to be read")
    for read in (msjax.read, lambda path: list(run_lines(path))):
        with pytest.raises(InputError, match="pipe.jsonl: is a pipe or a device"):
            read(pipe)


def test_links_in_a_circle_are_no_place_to_write(tmp_path) -> None:
    circle = tmp_path / "circle.jsonl"
    circle.symlink_to(circle)
    with pytest.raises(InputError, match="circle.jsonl: cannot be written"), locked(circle):
        pass


def test_one_process_at_a_time_holds_a_lock(tmp_path) -> None:
    folder = tmp_path / "run"
    program = (
        "import pathlib, sys, time\n"
        "from msjax._io import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="run: another process is writing it"), locked(folder):
            pass
        holder.kill()
    with locked(folder), pytest.raises(InputError, match="another process"), locked(folder):
        pass
    assert list(tmp_path.iterdir()) == []
