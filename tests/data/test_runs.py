"""Runs as arrays: what is read from records, files and arrays, and what is refused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import msjax
from msjax.data.importers.reading import read
from msjax.data.runs import Runs
from msjax.errors import InputError


def test_transitions_tokens_and_ragged_runs(make_run):
    count = Runs.from_records(
        [make_run([0, 0, 1, 1], "a"), make_run([1, 0], "b"), make_run([1], "c")]
    )
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
    counts = read(*paths).groups
    assert [(count.name, count.questions) for count in counts] == [("x", 2), ("y", 1)]
    with pytest.raises(InputError, match="'a' of 'x': occurs twice"):
        read(paths[0], paths[0])
    again = [run.model_copy(update={"repeat": 1}) for run in runs]
    twice = Runs.from_records([*runs, *again])
    assert twice.repeated and twice.groups[0].question_numbers.tolist() == [0, 1, 0, 1]


def test_where_the_label_stops_runs_nothing_after_success_counts(make_run):
    """Not even in the runs that were not cut short, which are a selection."""
    count = Runs.from_records([make_run([0, 1], "a", censored=True), make_run([1, 0, 1], "b")])
    assert count.observable.tolist() == [[0, 1, -1], [1, -1, -1]]
    count = Runs.from_records([make_run([0, 1], "a"), make_run([1, 0, 1], "b")])
    assert count.observable is count.correct


def test_runs_of_several_models_are_benchmarks_of_their_own(make_run):
    runs = [make_run([0, 1], "a", "x"), make_run([1, 1], "a", "x", model="other")]
    counts = Runs.from_records(runs).groups
    assert [count.name for count in counts] == ["x (scripted)", "x (other)"]
    assert [count.model for count in counts] == ["scripted", "other"]


def test_whether_answers_changed(make_run):
    runs = [make_run([0, 1, 1], "a", answers=("1", None, "2")), make_run([0, 0], "b")]
    count = Runs.from_records(runs)
    assert count.changed.tolist() == [[1, 1], [0, -1]]
    assert count.seen_as("changes").tolist() == count.changed.tolist()
    assert count.seen_as("labels") is count.correct
    with pytest.raises(InputError, match="changes are not known"):
        Runs.from_records([make_run([0], "a")]).seen_as("changes")


def test_the_first_rounds_of_runs(make_run):
    count = Runs.from_records([make_run([0, 0, 1, 1], "a"), make_run([1, 0], "b")])
    early = count.truncated(1)
    assert early.correct.tolist() == [[0, 0], [1, 0]]
    assert early.tokens_per_round.tolist() == [100, 110]
    assert early.changed.shape == (2, 1)


def test_protocols_are_groups_of_their_own(make_run):
    runs = [make_run([0, 1], "a"), make_run([0, 1], "a", protocol="parallel")]
    rounds, samples = Runs.from_records(runs).groups
    assert (rounds.name, samples.name) == ("arithmetic", "arithmetic, parallel")
    assert rounds.require_rounds() is rounds
    with pytest.raises(InputError, match="protocol is 'parallel'"):
        samples.require_rounds()
    with pytest.raises(InputError, match=r"several protocols \(sequential, parallel\)"):
        _ = Runs.from_records(runs).protocol


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"censored": True}, "stopped by its label"), ({"stop_reason": "rule"}, "stopped by a rule")],
)
def test_runs_that_cannot_be_replayed(make_run, changes, message):
    cut = make_run([0, 1], "b", **changes)
    with pytest.raises(InputError, match=f"'b' of 'arithmetic': was {message}"):
        Runs.from_records([make_run([0, 1, 1], "a"), cut]).require_complete()


def test_no_runs():
    with pytest.raises(InputError, match="none given"):
        Runs.from_records([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ('{"model": "x"', "is no file of recorded runs"),
        ("not json\n", "is no file of recorded runs"),
        ('{"model": "x", "correct": []}\nnot json\n', "line 1"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "runs.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read(path)


def test_nan_for_correct_is_refused(make_run, tmp_path):
    fields = json.loads(make_run([0, 1]).model_dump_json())
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(fields | {"correct": [float("nan"), True]}) + "\n")
    with pytest.raises(InputError, match="correct"):
        read(path)


LABELS = [[False, True], [True], [True, False, False]]


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        [[0, 1], [1], [1, 0, 0]],
        [["I", "C"], ["C"], ["C", "I", "I"]],
        [[0, 1, None], [1, None, None], [1, 0, 0]],
        np.array([[0, 1, -1], [1, -1, -1], [1, 0, 0]]),
        jnp.array([[0, 1, -1], [1, -1, -1], [1, 0, 0]]),
        [np.array([0.0, 1.0]), (True,), np.array([1, 0, 0])],
    ],
    ids=["booleans", "numbers", "letters", "None", "NumPy", "JAX", "mixed"],
)
def test_labels_of_any_kind(labels):
    runs = Runs.from_arrays(labels)
    assert runs.correct.tolist() == [[0, 1, -1], [1, -1, -1], [1, 0, 0]]
    assert runs.question_ids == ("0", "1", "2")
    assert np.isnan(runs.tokens_per_round).all() and runs.changed is None


def test_whatever_else_is_known():
    runs = Runs.from_arrays(
        [[0, 1], [1]],
        answers=[["a", "b"], [None]],
        tokens={"prompt": [[5, None], [5]], "completion": [[10, 20], [30]]},
        scores=[[0.1, 0.9], [None]],
        verdicts=[[False, True], [None]],
        question_ids=[7, 8],
        cluster=["x", "x"],
        benchmark=["one", "two"],
        censored=[True, False],
    )
    assert runs.answers.tolist() == [[0, 1], [-1, -1]]
    np.testing.assert_array_equal(runs.uncached, [[15, np.nan], [35, 0]])
    np.testing.assert_array_equal(runs.tokens_per_round, [25, np.nan])
    assert runs.verdicts.tolist() == [[0, 1], [-1, -1]]
    partly = Runs.from_arrays([[1, 0], [0, 1]], verdicts=np.array([[1.0, np.nan], [0.0, 1.0]]))
    assert partly.verdicts.tolist() == [[1, -1], [0, 1]]
    assert [group.name for group in runs.groups] == ["one", "two"]
    assert runs.groups[1].samples == 1 and runs.groups[0].censored.tolist() == [True]


def test_texts_and_numbers_name_the_same_answers():
    texts = Runs.from_arrays([[0, 1, 1]], answers=[["4", "9", "4"]])
    numbers = Runs.from_arrays([[0, 1, 1]], answers=np.array([[4, 9, 4]]))
    assert texts.answers.tolist() == numbers.answers.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"correct": [[0, 2]]}, r"correct\[0, 1\] is 2"),
        ({"correct": [[0, float("nan")]]}, r"correct\[0, 1\] is nan"),
        ({"correct": [["yes"]]}, r"correct\[0, 0\] is 'yes'"),
        ({"correct": "CCI"}, "correct is str"),
        ({"correct": [[0, 1], [0, None], [None, 1]]}, "question '2'"),
        ({"correct": [[0, -1, 1]]}, "question '0'"),
        ({"correct": [[]]}, "empty"),
        ({"correct": []}, "empty"),
        ({"correct": [[0, 1]], "tokens": [[1]]}, r"tokens \(total\)\[0\] has 1 entries"),
        ({"correct": [[0, 1]], "tokens": [[1, -1]]}, "finite and >= 0"),
        ({"correct": [[0, 1]], "tokens": {"paid": [[1, 1]]}}, "'paid' is unknown"),
        ({"correct": [[0, 1]], "scores": [[1, "high"]]}, "holds 'high'"),
        ({"correct": [[0, 1]], "answers": [["1", "2"], ["3"]]}, "2 rows for 1 questions"),
        ({"correct": [[0, 1]], "question_ids": ["a", "b"]}, "2 entries for 1 questions"),
        ({"correct": [[0, 1]], "protocol": "rounds"}, "protocol is 'rounds'"),
    ],
)
def test_bad_arrays(fields, message):
    with pytest.raises(InputError, match=message):
        Runs.from_arrays(**fields)


def test_it_is_shown_in_one_line():
    runs = Runs.from_arrays([[1, 0, 1], [0, 0]], benchmark="sums", model="m")
    assert repr(runs) == (
        "Runs(2 questions of 'sums' by 'm', at most 3 answers each, 0.500 of first answers right)"
    )


@pytest.mark.parametrize("score", [np.inf, -np.inf, 1e39])
def test_scores_that_single_precision_lacks_are_refused(score) -> None:
    with pytest.raises(InputError, match="scores must be finite in single precision"):
        Runs.from_arrays([[1, 0]], scores=[[0.5, score]])
    with pytest.raises(InputError, match="score"):
        msjax.read([{"question": "a", "correct": 1, "score": score}])


def test_log_probabilities_become_confidences_and_other_scores_stay():
    logs = Runs.from_arrays([[1, 0], [1]], scores=[[-0.5, -2.0], [0.0]])
    confident = logs.with_confidences()
    np.testing.assert_allclose(confident.scores[logs.real], np.exp([-0.5, -2.0, 0.0]), rtol=1e-6)
    assert confident.with_confidences() is confident
    for scores in ([[-0.5, 3.0], [0.0]], [[-0.5, None], [0.0]]):
        other = Runs.from_arrays([[1, 0], [1]], scores=scores)
        assert other.with_confidences() is other
