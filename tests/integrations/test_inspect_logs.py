"""Logs that inspect_ai itself writes, with what is found in real ones, read as samples."""

import json

import pytest

pytest.importorskip("inspect_ai")

from inspect_ai import Task, eval  # noqa: E402
from inspect_ai.dataset import MemoryDataset, Sample  # noqa: E402
from inspect_ai.model import ModelOutput, ModelUsage, get_model  # noqa: E402
from inspect_ai.scorer import Score, accuracy, scorer  # noqa: E402
from inspect_ai.solver import generate  # noqa: E402

import msjax  # noqa: E402
from msjax.cli import main  # noqa: E402
from msjax.data.importers.reading import import_records  # noqa: E402
from msjax.errors import InputError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def by(name, value, answer):
    """A scorer of this name, by functions of the sample's state."""

    @scorer(metrics=[accuracy()], name=name)
    def made():
        async def score(state, target):
            return Score(value=value(state), answer=answer(state))

        return score

    return made()


def right(state):
    return "C" if state.output.completion.endswith("5") else "I"


def logged(tmp_path, *scorers, usage=True, form="eval", epochs=3, fails=()):
    """A log of two questions, answered 5, 5, 4 in their epochs."""
    answers = iter(["5", "5", "4"] * 9)

    def output(input, tools, tool_choice, config):
        found = ModelOutput.from_content("mockllm/model", f"I think it is {next(answers)}")
        found.usage = ModelUsage()
        if usage:
            found.usage = ModelUsage(
                input_tokens=12, input_tokens_cache_read=8, output_tokens=5, total_tokens=25
            )
        return found

    def broken(state):
        if (state.sample_id, state.epoch) in fails:
            raise RuntimeError("the tool is gone")
        return right(state)

    task = Task(
        dataset=MemoryDataset([Sample(input=f"{i}?", target="5", id=i) for i in (1, 2)]),
        solver=generate(),
        scorer=list(scorers) or by("ends", broken, lambda state: state.output.completion[-1]),
        name="sums",
    )
    (log,) = eval(
        task,
        model=get_model("mockllm/model", custom_outputs=output),
        epochs=epochs,
        max_samples=1,
        log_dir=str(tmp_path),
        log_format=form,
        display="none",
        fail_on_error=False,
    )
    return log.location


@pytest.mark.parametrize("form", ["eval", "json"])
def test_epochs_are_samples(tmp_path, form):
    path = logged(tmp_path, form=form)
    runs = msjax.read(path)
    assert (runs.benchmark, runs.model, runs.protocol) == ("sums", "mockllm/model", "parallel")
    assert sorted(runs.question_ids) == ["1", "2"] and runs.right.sum() == 4
    assert (runs.uncached == 17).all() and runs.answered
    assert {run.gold for run in runs.records} == {"5"}
    named = msjax.read(path, benchmark="b", model="m")
    assert (named.benchmark, named.model) == ("b", "m")


def test_samples_that_failed_are_missing_and_said(tmp_path, capsys):
    path = logged(tmp_path, fails={(2, 1), (2, 3)})
    assert main(["import", str(path), "--out", str(tmp_path / "runs.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "2 of 6 samples failed or have no score" in said
    assert "1 questions have fewer than 3 epochs" in said
    assert sorted(len(run.correct) for run in msjax.read(tmp_path / "runs.jsonl").records) == [1, 3]


def test_null_answers_and_whole_completions_are_told_from_answers(tmp_path):
    null = logged(tmp_path / "a", by("s", right, lambda state: None), usage=False)
    found = import_records(null)
    assert all(answer is None for run in found.records for answer in run.answers)
    assert any(note.startswith("6 samples have no answer") for note in found.notes)
    assert any(note.startswith("6 samples have no account") for note in found.notes)
    assert found.records[0].tokens[0].uncached is None
    whole = logged(tmp_path / "b", by("s", right, lambda state: state.output.completion))
    found = import_records(whole)
    assert {answer for run in found.records for answer in run.answers} == {"4", "5"}
    assert any(note.startswith("6 samples keep the completion") for note in found.notes)


def test_one_of_several_scorers_is_chosen_and_said(tmp_path):
    graded = by("graded", lambda state: 0.5, lambda state: "x")
    path = logged(tmp_path, by("ends", right, lambda state: "x"), graded)
    found = import_records(path)
    assert (
        found.notes[0] == "scores of 'ends' are the labels; left out: graded (choose with metric=)"
    )
    with pytest.raises(InputError, match="its score is 0.5; a label is C or I"):
        import_records(path, metric="graded")
    with pytest.raises(InputError, match="metric is 'x'; .* has ends, graded"):
        import_records(path, metric="x")


def test_what_is_no_log_is_refused(tmp_path):
    (tmp_path / "a.eval").write_bytes(b"PK not a zip")
    with pytest.raises(InputError, match="cannot be read as a log of inspect_ai"):
        import_records(tmp_path / "a.eval")
    path = logged(tmp_path / "b", form="json")
    log = json.loads(open(path.removeprefix("file://")).read())
    (tmp_path / "c.json").write_text(json.dumps({**log, "samples": []}))
    with pytest.raises(InputError, match="has no sample with a score"):
        import_records(tmp_path / "c.json")


def changed(tmp_path, change):
    """A log whose first sample's score has been changed by hand."""
    path = logged(tmp_path / "whole", form="json")
    log = json.loads(open(path.removeprefix("file://")).read())
    change(log["samples"][0]["scores"])
    (tmp_path / "changed.json").write_text(json.dumps(log))
    return tmp_path / "changed.json"


def test_a_sample_without_the_score_that_is_the_label_is_left_out(tmp_path):
    path = changed(tmp_path, lambda scores: scores.update(other=scores.pop("ends")))
    found = import_records(path, metric="ends")
    assert sorted(len(run.correct) for run in found.records) == [2, 3]
    assert any(note.startswith("1 of 6 samples failed or have no score") for note in found.notes)


def test_rounds_that_are_damaged_are_named(tmp_path):
    def change(scores):
        scores["ends"]["metadata"] = {"msjax": {"protocol": "sequential"}}

    with pytest.raises(InputError, match="sample 1, epoch 1: what the solver 'msjax' kept of it"):
        import_records(changed(tmp_path, change))
