"""Runs from tables, logs and lists of others."""

import csv
import json
import re

import numpy as np
import pytest

import msjax
from msjax.cli import main
from msjax.data.importers.reading import import_records
from msjax.errors import InputError

ROWS = [
    {"question": "1 + 1?", "round": k, "answer": a, "gold": "2", "tokens": 10 + k, "shift": "night"}
    for k, a in enumerate(["3", "2", "2.0"])
] + [{"question": "2 + 2?", "round": 0, "answer": "4", "gold": "4", "tokens": 7, "shift": "day"}]


def as_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_form_holds_the_same_runs(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    sources = [
        ROWS,
        ROWS[::-1][1:] + ROWS[3:],
        as_csv(tmp_path / "a.csv", ROWS),
        as_lines(tmp_path / "a.jsonl", ROWS),
        pandas.DataFrame(ROWS),
    ]
    for source in sources:
        runs = msjax.read(source, benchmark="sums")
        assert runs.question_ids == ("1 + 1?", "2 + 2?")
        assert runs.correct.tolist() == [[0, 1, 1], [1, -1, -1]]
        assert runs.answers.tolist() == [[0, 1, 1], [0, -1, -1]]
        assert runs.uncached.tolist() == [[10, 11, 12], [7, 0, 0]]
        assert runs.records[0].metadata == {"shift": "night"} and runs.name == "sums"


def test_labels_samples_verdicts_and_accounts() -> None:
    rows = [
        {
            "qid": 7, "epoch": k + 1, "is_correct": right, "prompt_tokens": 50, "cached_tokens": 20,
            "completion_tokens": 5, "verdict": "accept", "score": "0.5", "cluster": "a",
            "task": "t", "model": "m",
        }
        for k, right in enumerate(["C", "I", True, 0, "1"])
    ]  # fmt: skip
    runs = msjax.read(rows)
    assert runs.parallel and runs.benchmark == "t" and runs.model == "m"
    assert runs.correct.tolist() == [[1, 0, 1, 0, 1]] and runs.cluster == ("a",)
    assert runs.uncached.tolist() == [[35] * 5] and runs.tokens["cached"].tolist() == [[20] * 5]
    assert runs.verdicts.tolist() == [[1] * 5] and runs.scores.tolist() == [[0.5] * 5]


def test_several_verdicts_on_an_answer_are_votes() -> None:
    said = [[1, "no", True], [0, None, "accept"], ["rejected", 0, None], None, "yes"]
    rows = [{"id": "q", "round": k, "correct": 1, "verdict": x} for k, x in enumerate(said)]
    listed = [{"id": "q", "correct": [1] * 5, "verdicts": said}]
    for given in (rows, listed):
        (run,) = import_records(given).records
        assert run.verdicts == (True, None, False, None, True)
        assert run.votes[:3] == ((True, False, True), (False, None, True), (False, False, None))
        assert run.votes[3:] == ((), ())
    with pytest.raises(InputError, match="verdict is 'perhaps'; write 1 or 0"):
        import_records([{"id": "q", "correct": 1, "verdict": [1, "perhaps"]}])


def test_what_is_not_reported_is_not_zero() -> None:
    found = import_records([{"question": "a", "correct": 1}])
    runs = msjax.Runs.from_records(found.records)
    assert np.isnan(runs.uncached).all()
    assert any("tokens are not reported" in note for note in found.notes)


def test_completions_are_graded_as_a_run_would() -> None:
    rows = [
        {"id": 1, "round": 0, "gold": "8", "completion": "<think>7?</think> So it is \\boxed{8}."},
        {"id": 1, "round": 1, "gold": "8", "completion": "<think>8", "finish_reason": "length"},
    ]
    runs = msjax.read(rows)
    assert runs.correct.tolist() == [[1, 0]] and runs.answers.tolist() == [[0, -1]]


LM_EVAL = {
    "doc": {"question": "1 + 1?"}, "target": "#### 2", "filtered_resps": ["2"],
    "metrics": ["exact_match"], "exact_match": 1.0,
}  # fmt: skip


def test_no_answer_takes_no_tokens() -> None:
    counts = [{"tokens": 0}, {"prompt_tokens": 3, "completion_tokens": 0}, {"tokens": 7}, {}]
    rows = [{"question": str(i), "correct": 1} | count for i, count in enumerate(counts)]
    assert msjax.read(rows).uncached[:, 0].tolist() == pytest.approx(
        [np.nan, np.nan, 7, np.nan], nan_ok=True
    )


def test_lm_eval_samples(tmp_path) -> None:
    rows = [
        LM_EVAL | {"doc_id": i, "filter": name, "resps": [["It is 2."]]}
        for i in range(3)
        for name in ("strict-match", "flexible-extract")
    ]
    path = as_lines(tmp_path / "samples_gsm8k_2025-01-01T00-00-00.0.jsonl", rows)
    found = import_records(path)
    runs = msjax.read(path)
    assert runs.name == "gsm8k" and runs.parallel and runs.correct.tolist() == [[1]] * 3
    assert any("'strict-match' is read; left out: flexible-extract" in x for x in found.notes)
    several = [LM_EVAL | {"doc_id": 0, "filter": "none", "resps": [["It is 2.", "It is 3."]]}]
    found = import_records(as_lines(tmp_path / "several.jsonl", several))
    assert found.records[0].correct == (True, False)
    assert any("graded again" in note for note in found.notes)
    opened = {"arguments": {"gen_args_0": {"arg_0": "1 + 1?<think>\n", "arg_1": {}}}}
    texts = {"resps": [["It is 2.", "It is 3.</think>It is 2."]]}
    found = import_records(as_lines(tmp_path / "thoughts.jsonl", [several[0] | opened | texts]))
    assert found.records[0].answers == (None, "2")


def test_completions_are_read_as_they_ended_and_by_the_options_of_their_question() -> None:
    row = {"question": "1 + 1?", "gold": "2", "completion": r"So \boxed{2} or"}
    cases = [{}, {"prompt": "1 + 1?<think>\n"}, {"finish_reason": "MAX_TOKENS"}]
    runs = msjax.read([row | {"id": i} | case for i, case in enumerate(cases)])
    assert runs.correct.tolist() == [[1], [0], [1]]
    cut = row | {"completion": "It is 2", "finish_reason": "abort"}
    assert msjax.read([cut]).correct.tolist() == [[0]]
    choice = {
        "question": "France?",
        "options": ["Lyon", "Paris"],
        "gold": "B",
        "completion": "Paris",
    }
    assert msjax.read([choice], scorer="choice").correct.tolist() == [[1]]


def test_what_is_written_reads_back(tmp_path, capsys) -> None:
    source, out = as_csv(tmp_path / "a.csv", ROWS), tmp_path / "runs.jsonl"
    assert main(["import", str(source), "--out", str(out), "--json", str(tmp_path / "x.json")]) == 0
    assert "right: 1, 1, 1 of 2" in capsys.readouterr().out
    ours, theirs = msjax.read(out), msjax.read(source)
    assert tuple(ours.records) == tuple(theirs.records)
    assert json.loads((tmp_path / "x.json").read_text())["groups"][0]["questions"] == 2


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"prompt": "a", "ok": 1}], {}, r"question_id \(or question\) and correct"),
        ([{"prompt": "a", "ok": 1}], {"columns": {"qustion": "prompt"}}, "'qustion' is unknown"),
        ([{"prompt": "a"}], {"columns": {"question": "prmpt"}}, "no column 'prmpt'; there are"),
        ([{"question": "a", "correct": "maybe"}], {}, "row 1: correct is 'maybe'"),
        ([{"question": "a", "correct": 1, "round": 2}], {}, "comes without round 1"),
        ([{"question": "a", "correct": 1, "round": 0}] * 2, {}, "round 0 of its question occurs"),
        ([{"question": "a", "correct": 1, "tokens": -1}], {}, "tokens is -1"),
        ([{"question": "a", "correct": 1, "tokens": True}], {}, "tokens is True"),
        ([{"question": "a", "correct": 1, "tokens": "many"}], {}, "tokens is 'many'"),
        ([{"question": "", "correct": 1}], {}, "question is empty"),
        ([], {}, "none given"),
        ([3], {}, "row 1: is 3"),
    ],
)
def test_bad_rows_are_named(rows, options, message) -> None:
    with pytest.raises(InputError, match=message):
        msjax.read(rows, **options)


@pytest.mark.parametrize("column", ["sample", "epoch", "repeat", "trial"])
def test_samples_that_have_rounds_are_runs_of_their_question(column) -> None:
    rows = [
        {"question": q, column: s, "round": k, "correct": (s + k) % 2}
        for q in ("a", "b")
        for s in (1, 2)
        for k in (0, 1, 2)
    ]
    runs = msjax.read(rows)
    assert runs.question_ids == ("a", "a", "b", "b") and runs.repeated and not runs.parallel
    assert runs.correct.tolist() == [[1, 0, 1], [0, 1, 0]] * 2
    assert [run.repeat for run in runs.records] == [0, 1, 0, 1]
    once = msjax.read([row for row in rows if row[column] == 1])
    assert not once.repeated


def test_parquet_comes_back_as_it_was_written(tmp_path) -> None:
    pytest.importorskip("pyarrow")
    source, table = as_csv(tmp_path / "a.csv", ROWS), tmp_path / "runs.parquet"
    assert main(["import", str(source), "--out", str(table)]) == 0
    ours, theirs = msjax.read(table), msjax.read(source)
    for name in ("correct", "answers", "scores"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_array_equal(ours.uncached, theirs.uncached)
    assert ours.question_ids == theirs.question_ids and ours.protocol == theirs.protocol


def test_bad_files_are_named(tmp_path) -> None:
    (tmp_path / "result.json").write_text('{"benchmarks": {}}')
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nested.jsonl").write_text('{"a":' * 100_000)
    for source, message in [
        (tmp_path / "absent.csv", "no such file"),
        (tmp_path / "result.json", "holds one JSON object"),
        (tmp_path / "nothing", "no file of recorded runs"),
        (tmp_path / "nested.jsonl", "is no file of recorded runs"),
        (tmp_path / "*.nothing", "no file of recorded runs"),
    ]:
        with pytest.raises(InputError, match=message):
            msjax.read(source)


def test_rows_that_hold_lists_are_read_as_one_row_per_answer(tmp_path) -> None:
    """Epochs may be missing, and two runs of one model are two models, as their choices differ."""
    accounts = [{"prompt": 20, "completion": 5}, None, {"prompt": 20, "cached": 8, "completion": 5}]
    row = {
        "model": "m", "benchmark": "b", "question_id": "q", "run": "x", "protocol": "parallel",
        "epochs": [1, 2, 4], "correct": [1, 0, 1], "answers": ["A", None, "A"], "gold": "A",
        "tokens": accounts,
    }  # fmt: skip
    more = {**row, "question_id": "p", "epochs": [1, 2, 3]}
    runs = msjax.read(as_lines(tmp_path / "pool.jsonl", [row, more]))
    assert (runs.model, runs.protocol) == ("m", "parallel")
    assert runs.correct.tolist() == [[1, 0, 1]] * 2 and runs.answers.tolist() == [[0, -1, 0]] * 2
    assert runs.uncached[0, [0, 2]].tolist() == [25, 17] and np.isnan(runs.uncached[0, 1])
    both = msjax.read([row, {**row, "run": "y"}]).groups
    assert [group.model for group in both] == ["m, run x", "m, run y"]
    for change, match in (
        ({"answers": ["A"]}, "answers has 1 entries for 3 labels"),
        ({"epochs": [1, 2, 2]}, "sample 2 of its question occurs twice"),
    ):
        with pytest.raises(InputError, match=match):
            msjax.read([{**row, **change}])


def test_a_filter_and_a_metric_of_lm_eval_are_chosen(tmp_path, capsys) -> None:
    row = {"doc_id": 1, "doc": {}, "target": "5", "resps": [["It is 5"]], "filtered_resps": ["5"]}
    row |= {"metrics": ["strict", "loose"], "strict": 0, "loose": 1, "filter": "a"}
    path = as_lines(tmp_path / "samples_x_1.jsonl", [row, {**row, "filter": "b", "strict": 1}])
    assert msjax.read(path).right.tolist() == [[False]]
    assert msjax.read(path, filter="b").right.tolist() == [[True]]
    assert msjax.read(path, metric="loose").right.tolist() == [[True]]
    assert main(["import", str(path), "--filter", "c"]) == 2
    assert "filter is 'c'; the file has a, b" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.realdata
def test_pools_of_epoch_ai_have_their_published_accuracies(real_data) -> None:
    """110 runs of two benchmarks; in a few, samples that failed count otherwise there."""
    folder = real_data / "epoch_pools"
    published = {one["run"]: one for one in json.loads((folder / "runs.json").read_text())}
    found: dict[str, list[float]] = {}
    for record in import_records(folder / "pool.jsonl").records:
        found.setdefault(record.metadata["run"], []).append(np.mean(record.correct))
    assert len(found) == 110 and set(found) <= set(published)
    away = [abs(np.mean(x) - published[run]["published_accuracy"]) for run, x in found.items()]
    assert max(away) < 0.006 and sum(x > 5e-4 for x in away) <= 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resps": 5}, "resps is 5; give lists of texts"),
        ({"resps": {"0": ["It is 2."]}}, "give lists of texts"),
        ({"resps": [{"0": "It is 2."}]}, "give lists of texts"),
        ({"metrics": 3}, "metric is None; the file has none"),
        ({"metrics": "exact_match"}, "metric is None; the file has none"),
        ({"metrics": [["exact_match"]]}, "metric is None; the file has none"),
        ({"exact_match": 0.5}, "exact_match is 0.5; a label is 0 or 1"),
    ],
)
def test_samples_of_another_kind_are_refused_with_their_line(tmp_path, change, message) -> None:
    row = LM_EVAL | {"doc_id": 0, "filter": "none", "resps": [["It is 2."]]}
    with pytest.raises(InputError, match=re.escape(message)):
        msjax.read(as_lines(tmp_path / "samples.jsonl", [row | change]))


@pytest.mark.parametrize("name", ["doc_id", "target", "resps", "filter"])
def test_a_later_sample_that_lacks_a_field_is_named(tmp_path, name) -> None:
    row = LM_EVAL | {"doc_id": 0, "filter": "none", "resps": [["It is 2."]]}
    other = {key: value for key, value in row.items() if key != name}
    with pytest.raises(InputError, match=f"line 2: lacks {name}, which lm-eval logs"):
        msjax.read(as_lines(tmp_path / "samples.jsonl", [row, other]))


@pytest.mark.parametrize("name", ["score", "tokens", "completion_tokens", "round"])
def test_true_is_no_number(name) -> None:
    with pytest.raises(InputError, match=f"{name} is True; write a number"):
        msjax.read([{"question": "a", "correct": 1, name: True}])


def test_half_of_a_surrogate_pair_in_a_row_can_be_written_again(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "1 + \\ud83d?", "correct": 1, "answer": "\\ude00"}\n')
    (run,) = import_records(path).records
    assert run.question == "1 + \ufffd?" and run.answers == ("\ufffd",)
    assert run.model_dump_json()
