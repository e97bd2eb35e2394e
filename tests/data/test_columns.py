"""Files read straight into columns hold what their records say, and refuse what these refuse."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import msjax
from msjax.data import column_cache, column_process, columns
from msjax.data.columns import read_columns
from msjax.data.runs import Runs
from msjax.data.store import read_runs
from msjax.data.trajectory import parse_trajectory
from msjax.errors import InputError

PLAIN = {"question_id": "a", "correct": [True, False, True], "answers": ["1", "2", "1"]}
LINES = [
    PLAIN,
    {"question_id": "b", "correct": [False], "cluster": "x", "repeat": 3, "returned": 0},
    PLAIN
    | {
        "question_id": "c",
        "benchmark": "sums",
        "model": "other",
        "protocol": "parallel",
        "scores": [0.5, None, 0.25],
        "verdicts": [True, None, False],
        "tokens": [7, None, {"prompt": 5, "cached": 2, "completion": 0, "verifier": None}],
        "completions": ["one", "", "two"],
        "finish": ["stop", None, "length"],
        "settings": {"score": "confidence", "temperature": 0.5},
        "metadata": {"nested": [{"a": 1}, {"a": {"b": None}}]},
        "question": "1 + 1?",
        "gold": 'a ":" quotation " : ',
        "key": "0/sums/c",
    },
    PLAIN | {"question_id": "d", "answers": [None, None, "3"], "tokens": [{"prompt": 0}] * 3},
    PLAIN | {"question_id": "e", "stop_reason": "rule", "censored": True, "key": "k"},
    PLAIN | {"question_id": "f", "tokens": [{"total": 0, "prompt": 1}, {"total": 4}, {}]},
]


def write(path: Path, lines: list[dict], **how) -> Path:
    path.write_text("".join(json.dumps(line, **how) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("block", [1, 2, 100])
@pytest.mark.parametrize("how", [{}, {"indent": None, "separators": (" ,  ", "\t: ")}])
def test_columns_are_those_of_the_records(tmp_path, block, how) -> None:
    path = write(tmp_path / "runs.jsonl", LINES, **how)
    ours, theirs = read_columns(path, block), Runs.from_records(read_runs(path))
    assert tuple(ours.records) == theirs.records
    for name in ("question_ids", "benchmarks", "models", "protocols", "cluster"):
        assert getattr(ours, name) == getattr(theirs, name)
    for one, other in ((ours, theirs), (ours.details, theirs.details)):
        for name, value in vars(one).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(other, name), name)
                assert value.dtype == getattr(other, name).dtype, name
    assert ours.tokens.keys() == theirs.tokens.keys()
    for name, value in ours.tokens.items():
        np.testing.assert_array_equal(value, theirs.tokens[name], name)
    assert ours.details.settings == theirs.details.settings
    assert ours.details.reasons == theirs.details.reasons
    last = ours.take(np.array([5, 2]))
    assert [run.question_id for run in last.records] == ["f", "c"]


REFUSED = {
    "a field twice": ('{"question_id": "a", "correct": [true], "correct": [false]}', "'correct'"),
    "a setting twice": (
        '{"question_id": "a", "correct": [true], "settings": {"seed": 1, "seed" : 2}}',
        "'seed' occurs twice",
    ),
    "a field within": (
        '{"question_id": "a", "correct": [true], "metadata": {"x": [{"y": 1, "y": 2}]}}',
        "'y' occurs twice",
    ),
    "NaN": ('{"question_id": "a", "correct": [true], "settings": {"temperature": NaN}}', "NaN"),
    "infinity": (
        '{"question_id": "a", "correct": [true], "metadata": {"x": -Infinity}}',
        "-Infinity is no number",
    ),
    "cached": (
        '{"question_id": "a", "correct": [true], "tokens": [{"prompt": 1, "cached": 2}]}',
        "exceed prompt",
    ),
    "score": (
        '{"question_id": "a", "correct": [true], "scores": [5], "settings": {"score": null}}',
        "scores.0 is 5",
    ),
    "lengths": ('{"question_id": "a", "correct": [true], "answers": ["1", "2"]}', "2 entries"),
    "no label": ('{"question_id": "a", "correct": []}', "correct is empty"),
    "returned": ('{"question_id": "a", "correct": [true], "returned": 1}', "returned is 1"),
    "label": ('{"question_id": "a", "correct": [1]}', "correct.0 is 1"),
    "truth": ('{"question_id": "a", "correct": [true], "tokens": [{"prompt": true}]}', "prompt"),
    "large score": (
        '{"question_id": "a", "correct": [true], "scores": [1e39]}',
        "scores.0 is 1e+39",
    ),
    "unknown": ('{"question_id": "a", "correct": [true], "extra": 1}', "unknown field extra"),
}


@pytest.mark.parametrize(("line", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_record_refuses_is_refused_with_its_line(tmp_path, line, message) -> None:
    path = write(tmp_path / "runs.jsonl", [PLAIN | {"question_id": "first"}])
    path.write_text(path.read_text() + line + "\n")
    for read in (msjax.read, lambda path: parse_trajectory(f"{path}, line 2", line.encode())):
        with pytest.raises(InputError, match=f"line 2: .*{re.escape(message)}"):
            read(path)


def test_columns_of_large_files_are_kept_until_the_file_changes(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MSJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(column_cache, "LEAST", 0)
    path = write(tmp_path / "runs.jsonl", LINES)
    first = read_columns(path)
    (file,) = (tmp_path / "cache" / "columns").iterdir()
    monkeypatch.setattr(columns, "run_lines", None)  # what is kept is not read again
    again = read_columns(path)
    for one, other in ((first, again), (first.details, again.details)):
        for name, value in vars(one).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(other, name), name)
            elif name not in ("records", "details", "tokens"):
                assert value == getattr(other, name), name
    assert tuple(first.records) == tuple(again.records)
    monkeypatch.undo()
    monkeypatch.setenv("MSJAX_CACHE", str(tmp_path / "cache"))
    write(path, LINES[:2])
    assert read_columns(path).questions == 2
    write(path, LINES)
    file.write_bytes(file.read_bytes()[:999])  # damaged
    assert read_columns(path).questions == len(LINES)


def test_a_folder_or_a_pattern_is_one_set_of_runs(tmp_path) -> None:
    for number in (1, 0):
        write(tmp_path / f"part{number}.jsonl", [PLAIN | {"question_id": str(number)}])
    (tmp_path / "notes.txt").write_text("no runs")
    for source in (tmp_path, str(tmp_path / "part*.jsonl")):
        assert msjax.read(source).question_ids == ("0", "1")
    with pytest.raises(InputError, match="'1' of 'benchmark': occurs twice"):
        msjax.read(tmp_path, tmp_path / "part1.jsonl")


def test_the_documented_sums_over_files_are_those_of_all_runs(tmp_path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (code,) = re.findall(r"```python\n(# sums_over_files.py\n.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) <= 30
    (tmp_path / "sums_over_files.py").write_text(code)
    (tmp_path / "runs").mkdir()
    random = np.random.default_rng(0)
    for part in range(4):
        labels = random.random((25, 3)) < 0.5
        lines = [
            {"question_id": f"{part}-{i}", "correct": row} for i, row in enumerate(labels.tolist())
        ]
        write(tmp_path / "runs" / f"{part}.jsonl", lines)
    done = subprocess.run(
        [sys.executable, "sums_over_files.py", "runs"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(msjax.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    whole = msjax.read(tmp_path / "runs")
    repaired, broken = whole.transitions.sum(axis=0)[[0, 1], [1, 0]]
    wrong, right = whole.transitions.sum(axis=(0, 2))
    shown = f"100 runs: P(I -> C) {repaired / wrong:.3f}, P(C -> I) {broken / right:.3f}"
    assert done.stdout.strip() == shown


@pytest.fixture
def on_several_processors(monkeypatch):
    """Files of every size are read by two processes."""
    monkeypatch.setattr(columns, "LEAST", 0)
    monkeypatch.setattr(columns, "processors", lambda: 2)


def test_processes_read_what_one_reads(tmp_path, on_several_processors) -> None:
    path = write(tmp_path / "runs.jsonl", LINES)
    ours, theirs = read_columns(path, 2), Runs.from_records(read_runs(path))
    assert tuple(ours.records) == theirs.records
    assert ours.question_ids == theirs.question_ids
    np.testing.assert_array_equal(ours.answers, theirs.answers)
    np.testing.assert_array_equal(ours.uncached, theirs.uncached)


def test_of_several_bad_lines_processes_name_the_first(tmp_path, on_several_processors) -> None:
    bad = {"question_id": "z", "correct": [2]}
    path = write(tmp_path / "runs.jsonl", [*LINES, bad, PLAIN, {"question_id": "y"}, *LINES])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="line 7: correct.0 is 2"):
        read_columns(path, 1)
    path.write_bytes(write(path, LINES).read_bytes()[:-9])
    with pytest.raises(InputError, match="line 6: torn"):
        read_columns(path, 1)


def test_a_process_that_dies_costs_nothing(tmp_path, on_several_processors, monkeypatch) -> None:
    started = []

    def dying():
        started.append(start())
        started[-1].kill()
        return started[-1]

    start = column_process.start_process
    monkeypatch.setattr(column_process, "start_process", dying)
    found = read_columns(write(tmp_path / "runs.jsonl", LINES), 2)
    assert found.question_ids == tuple("abcdef")
    assert len(started) == 2 and all(one.returncode is not None for one in started)
