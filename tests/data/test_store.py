"""Runs on disk: nothing finished is lost, nothing wrong is read."""

import json

import pytest

from msjax.data.store import read_runs, resume
from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage
from msjax.errors import InputError

SETTINGS = {"rule": "fixed: 1", "seed": 0}


def trajectory(number: int, **changes) -> Trajectory:
    fields = {
        "model": "scripted",
        "benchmark": "sums",
        "question_id": f"{number:05d}",
        "protocol": "sequential",
        "question": "1 + 1",
        "gold": "2",
        "answers": ("3", "2"),
        "correct": (False, True),
        "scores": (-0.5, None),
        "tokens": (
            Usage(prompt=9, cached=0, completion=3),
            Usage(prompt=20, cached=12, completion=3),
        ),
        "completions": ("3", "2"),
        "stop_reason": "budget",
        "censored": False,
        "key": f"0/sums/{number:05d}",
        "settings": SETTINGS,
    }
    return Trajectory(**fields | changes)


@pytest.fixture
def path(tmp_path):
    """A file with three finished questions."""
    file = tmp_path / "runs.jsonl"
    with resume(file, model="scripted", settings=SETTINGS) as writer:
        for number in range(3):
            writer.append(trajectory(number))
    return file


def test_what_is_written_is_read(path) -> None:
    assert read_runs(path) == [trajectory(number) for number in range(3)]


def test_a_line_is_on_disk_before_the_next_question(tmp_path) -> None:
    file = tmp_path / "runs.jsonl"
    with resume(file, model="scripted", settings=SETTINGS) as writer:
        for number in range(3):
            writer.append(trajectory(number))
            assert len(read_runs(file)) == number + 1


@pytest.mark.parametrize("kept", [1, 40, -2])
def test_a_torn_last_line_is_refused_by_readers_and_repaired_by_resuming(path, kept) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:kept])
    with pytest.raises(InputError, match="line 3: torn"):
        read_runs(path)
    with resume(path, model="scripted", settings=SETTINGS) as writer:
        assert [run.question_id for run in writer.lines] == ["00000", "00001"]
        writer.append(trajectory(2))
    assert path.read_bytes() == b"".join(lines)


def test_a_complete_last_line_without_an_end_is_kept(path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert len(read_runs(path)) == 3
    with resume(path, model="scripted", settings=SETTINGS) as writer:
        assert path.read_bytes() == content[:-1]
        writer.append(trajectory(3))
    assert read_runs(path) == [trajectory(number) for number in range(4)]
    with (
        pytest.raises(InputError, match="model='scripted', but this run has model='other'"),
        resume(path, model="other", settings=SETTINGS),
    ):
        pass
    assert len(read_runs(path)) == 4


@pytest.mark.parametrize("kept", [1, 20, 30, 60])
def test_a_first_line_cut_short_is_begun_again(path, kept) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:kept])
    with resume(path, model="scripted", settings=SETTINGS) as writer:
        assert writer.lines == []
        for number in range(3):
            writer.append(trajectory(number))
    assert path.read_bytes() == content


FOREIGN = {
    "one line without an end": b'{"my": "only copy of my config", "k": 1}',
    "one line cut short": b'{"my": "only copy of my conf',
    "a list": b'["my", "notes"]',
    "text": b"my notes",
    "text after a line": None,
    "another model, cut short": b'{"version":1,"model":"other","bench',
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_someone_else_stays_as_it_is(path, content) -> None:
    content = path.read_bytes() + b"my notes" if content is None else content
    path.write_bytes(content)
    with pytest.raises(InputError), resume(path, model="scripted", settings=SETTINGS):
        pass
    assert path.read_bytes() == content
    if content not in (FOREIGN["another model, cut short"],):
        with pytest.raises(InputError) as caught:
            read_runs(path)
        assert "resume" not in str(caught.value)


def test_nothing_is_made_before_the_first_line(tmp_path) -> None:
    with resume(tmp_path / "runs.jsonl", model="scripted", settings=SETTINGS) as writer:
        assert not (tmp_path / "runs.jsonl").exists()
        writer.append(trajectory(0))
    assert [path.name for path in tmp_path.iterdir()] == ["runs.jsonl"]


def test_a_run_has_one_writer_at_a_time(path) -> None:
    with resume(path, model="scripted", settings=SETTINGS):
        with pytest.raises(InputError, match="another process is writing it"):
            with resume(path, model="scripted", settings=SETTINGS):
                pass
    with resume(path, model="scripted", settings=SETTINGS) as writer:
        assert len(writer.lines) == 3


def test_a_run_with_other_settings_is_not_continued(path) -> None:
    with (
        pytest.raises(InputError, match="seed=0, but this run has seed=1"),
        resume(path, model="scripted", settings=SETTINGS | {"seed": 1}),
    ):
        pass
    with (
        pytest.raises(InputError, match="rule='fixed: 1', but"),  # of all that differ, the first
        resume(path, model="scripted", settings=dict.fromkeys(SETTINGS)),
    ):
        pass
    with (
        pytest.raises(InputError, match="model='scripted', but this run has model='other'"),
        resume(path, model="other", settings=SETTINGS),
    ):
        pass
    assert len(read_runs(path)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"line 2: unknown field colour \(found 'red'\); correct"),
        ({"correct": [True]}, "line 2: answers has 2 entries but correct has 1; correct"),
        ({"correct": [0, 1]}, "line 2: correct.0 is 0; it should be a valid boolean"),
        (
            {"answers": [], "correct": [], "scores": [], "tokens": [], "completions": []},
            "correct is empty",
        ),
        ({"returned": 2}, "line 2: returned is 2 but answers has 0 to 1; correct"),
        ({"protocol": "circular"}, "line 2: protocol is 'circular'; it should be 'sequential'"),
        ({"version": 2}, "line 2: version is 2; it should be 1"),
        ({"tokens": [{"prompt": 1, "cached": 2, "completion": 0}] * 2}, "cached tokens"),
        ({"tokens": [{"prompt": -1, "cached": 0, "completion": 0}] * 2}, "tokens.0.prompt is -1"),
        (
            {"tokens": [{"prompt": 10**30, "cached": 0, "completion": 0}] * 2},
            "equal to 1000000000000",
        ),
        ({"question_id": "00000"}, "'00000' of 'sums': occurs twice"),
    ],
)
def test_a_line_off_the_schema_is_named(path, change, message) -> None:
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=message):
        read_runs(path)


def test_all_missing_fields_are_named_at_once(path) -> None:
    path.write_text('{"gold": "4"}\n')
    with pytest.raises(InputError, match="line 1: lacks question_id, correct, which docs/data.md"):
        read_runs(path)


def test_the_smallest_record(path) -> None:
    path.write_text('{"question_id": "q", "correct": [false, true]}\n')
    (run,) = read_runs(path)
    assert run.answers == (None, None) and run.completions == ("", "") and run.right
    assert [usage.prompt for usage in run.tokens] == [None, None]


def test_scores_that_are_not_numbers_are_refused(path) -> None:
    path.write_text(path.read_text().replace("-0.5", "NaN", 1))
    with pytest.raises(InputError, match="line 1"):
        read_runs(path)


OTHER = "is no file of recorded runs"


@pytest.mark.parametrize(
    ("score", "value", "inside"),
    [
        (None, 5.0, "[-inf, 0]"),  # a mean log-probability
        ("certainty", 0.5, "[-inf, 0]"),
        ("confidence", 1.5, "[0, 1]"),
        ("confidence", -0.5, "[0, 1]"),
        (None, 1e-7, ""),  # rounded
        ("reward", 5.0, ""),
    ],
)
def test_scores_outside_their_range_are_refused(path, score, value, inside) -> None:
    fields = json.loads(trajectory(3).model_dump_json())
    fields["settings"]["score"], fields["scores"] = score, [value, None]
    with path.open("a") as lines:
        lines.write(json.dumps(fields) + "\n")
    if not inside:
        assert read_runs(path)[3].scores == (value, None)
        return
    with pytest.raises(InputError, match="line 4: scores.0 is ") as caught:
        read_runs(path)
    assert f"this score lies in {inside}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello\n", OTHER),
        (b'{\n  "seed": 0\n}\n', OTHER),
        (b"\x89HDF\r\n\x1a\n\0", OTHER),
        ('{"version": 1}'.encode("utf-16"), OTHER),
        (b'{"version": 1,\n', "line 1: Invalid JSON: EOF while parsing a value; correct"),
    ],
)
def test_files_that_hold_no_runs(tmp_path, content, message) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_runs(file)
    if message is OTHER:
        with pytest.raises(InputError, match=OTHER), resume(file, model="", settings={}):
            pass
        assert file.read_bytes() == content


def test_a_byte_order_mark_is_read_over(path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_runs(path)) == 3
    with resume(path, model="scripted", settings=SETTINGS) as writer:
        writer.append(trajectory(3))
    assert len(read_runs(path)) == 4


def test_an_absent_file(tmp_path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_runs(tmp_path / "absent.jsonl")


def test_tokens_may_be_totals(tmp_path):
    path = tmp_path / "runs.jsonl"
    record = {"question_id": "1", "correct": [True, False], "tokens": [120, None]}
    path.write_text(json.dumps(record) + "\n")
    (run,) = read_runs(path)
    assert [usage.uncached for usage in run.tokens] == [120, None]
    path.write_text(json.dumps(record | {"tokens": [120, -1]}) + "\n")
    with pytest.raises(InputError, match=r"tokens\.1\.total is -1"):
        read_runs(path)
