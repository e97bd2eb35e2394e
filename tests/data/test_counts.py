"""Counting: what is read from runs, and what is refused."""

import json

import numpy as np
import pytest

from msjax.data.counts import BenchmarkCounts, count_runs, first_rounds, read_counts
from msjax.errors import InputError


def test_transitions_tokens_and_ragged_runs(make_run):
    (count,) = count_runs([make_run([0, 0, 1, 1], "a"), make_run([1, 0], "b"), make_run([1], "c")])
    assert (count.questions, count.rounds, count.first_right) == (3, 3, 2)
    # [round, from, to]
    expected = [[[1, 0], [1, 0]], [[0, 1], [0, 0]], [[0, 0], [0, 1]]]
    assert count.transitions.tolist() == expected
    assert count.tokens_per_round.tolist() == [100, 110, 120, 130]
    assert count.correct.tolist() == [[0, 0, 1, 1], [1, 0, -1, -1], [1, -1, -1, -1]]


def test_benchmarks_are_kept_apart_and_files_pooled(make_run, tmp_path):
    runs = [make_run([0, 1], "a", "x"), make_run([1, 1], "a", "y"), make_run([0, 0], "b", "x")]
    paths = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    for path, part in zip(paths, (runs[:2], runs[2:]), strict=True):
        path.write_text("".join(run.model_dump_json() + "\n" for run in part))
    counts = read_counts(paths)
    assert [(count.benchmark, count.questions) for count in counts] == [("x", 2), ("y", 1)]
    with pytest.raises(InputError, match="'a' of 'x': occurs twice"):
        read_counts([paths[0], paths[0]])


def test_where_the_label_stops_runs_nothing_after_success_counts(make_run):
    """Not even in the runs that were not cut short, which are a selection."""
    (count,) = count_runs([make_run([0, 1], "a", censored=True), make_run([1, 0, 1], "b")])
    assert count.observable.tolist() == [[0, 1, -1], [1, -1, -1]]
    (count,) = count_runs([make_run([0, 1], "a"), make_run([1, 0, 1], "b")])
    assert count.observable is count.correct


def test_runs_of_several_models_are_benchmarks_of_their_own(make_run):
    runs = [make_run([0, 1], "a", "x"), make_run([1, 1], "a", "x", model="other")]
    counts = count_runs(runs)
    assert [count.benchmark for count in counts] == ["x (scripted)", "x (other)"]
    assert [count.model for count in counts] == ["scripted", "other"]


def test_whether_answers_changed(make_run):
    runs = [make_run([0, 1, 1], "a", answers=("1", None, "2")), make_run([0, 0], "b")]
    (count,) = count_runs(runs)
    assert count.changed.tolist() == [[1, 1], [0, -1]]
    assert count.seen_as("changes") is count.changed
    assert count.seen_as("labels") is count.correct
    with pytest.raises(InputError, match="changed is not known"):
        count_runs([make_run([0], "a")])[0].seen_as("changes")


def test_the_first_rounds_of_runs(make_run):
    (count,) = count_runs([make_run([0, 0, 1, 1], "a"), make_run([1, 0], "b")])
    early = first_rounds(count, 1)
    assert early.correct.tolist() == [[0, 0], [1, 0]]
    assert early.tokens_per_round.tolist() == [100, 110]
    assert early.changed.shape == (2, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "parallel"}, "protocol is 'parallel'"),
        ({"protocol": "prefix"}, "protocol is 'prefix', but 'sequential' in question_id 'a'"),
        ({"question_id": "a"}, "occurs twice"),
    ],
)
def test_runs_that_do_not_belong_together(make_run, changes, message):
    with pytest.raises(InputError, match=message):
        count_runs([make_run([0, 1], "a"), make_run([0, 1], **{"question_id": "b"} | changes)])


def test_no_runs():
    with pytest.raises(InputError, match="none given"):
        count_runs([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ('{"model": "x"', "torn"),
        ("not json\n", "is no file of recorded runs"),
        ('{"model": "x"}\nnot json\n', "line 1"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "runs.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_counts([path])


def test_nan_for_correct_is_refused(make_run, tmp_path):
    fields = json.loads(make_run([0, 1]).model_dump_json())
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(fields | {"correct": [float("nan"), True]}) + "\n")
    with pytest.raises(InputError, match="correct"):
        read_counts([path])


@pytest.mark.parametrize(
    ("correct", "tokens", "message"),
    [
        ([[0, 2]], [1, 1], "correct holds 2"),
        ([[0, 1], [0, -1], [-1, 1]], [1, 1], "question 2"),
        ([[0, -1, 1]], [1, 1, 1], "question 0"),
        ([[]], [], "empty"),
        ([[0, 1]], [1], "1 entries for 2"),
        ([[0, 1]], [1, np.nan], "finite"),
    ],
)
def test_bad_arrays(correct, tokens, message):
    with pytest.raises(InputError, match=message):
        BenchmarkCounts(
            "scripted", "x", np.array(correct, dtype=np.int8), np.array(tokens, dtype=float)
        )
