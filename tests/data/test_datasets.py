"""What ships is read, and holds no texts of questions that are others'."""

import gzip
from importlib.resources import files

import pytest

import msjax
from msjax.errors import InputError
from msjax.testing import make_run


def test_the_pilot_is_read() -> None:
    runs = msjax.datasets.load("pilot")
    assert {one.benchmark for one in runs.groups} >= {"arithmetic-easy", "arithmetic-hard"}
    assert runs.model == "SmolLM2-135M-Instruct"


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Writes files of a study in the place of what ships."""
    monkeypatch.setattr("msjax.data.datasets.files", lambda _: tmp_path)
    folder = tmp_path / "recorded" / "study"
    folder.mkdir(parents=True)

    def write(name, strategy, model, correct, ids) -> None:
        runs = [
            make_run(model=model, question_id=one, correct=correct, settings={"strategy": strategy})
            for one in ids
        ]
        lines = "".join(run.model_dump_json() + "\n" for run in runs)
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))

    return write


def test_the_study_is_read_strategy_by_strategy(recorded) -> None:
    four, two = (True, False, True, True), (True, False)
    recorded("a.b.reconsider", "reconsider", "a", four, "01")
    recorded("a.b.reconsider.early", "reconsider", "a", two, "2")
    recorded("c.b.reconsider.early", "reconsider", "c", two, "012")
    recorded("a.b.samples", "samples", "a", four, "01")
    runs = msjax.datasets.load("study")
    assert {(one.model, one.questions, one.rounds) for one in runs.groups} == {
        ("a", 2, 3),
        ("c", 3, 1),
    }
    assert msjax.datasets.load("study", strategy="samples").questions == 2
    with pytest.raises(InputError, match="'dance' is not recorded; there are reconsider, samples"):
        msjax.datasets.load("study", strategy="dance")


def test_what_is_not_there_is_named(recorded) -> None:
    with pytest.raises(InputError, match="'stories' is unknown; choose from pilot, study"):
        msjax.datasets.load("stories")
    with pytest.raises(InputError, match="'reconsider' is not recorded; there are none"):
        msjax.datasets.load("study")


def test_recordings_that_ship_hold_no_texts_of_questions() -> None:
    folder = files("msjax") / "recorded" / "study"
    for path in folder.iterdir() if folder.is_dir() else ():
        lines = gzip.decompress(path.read_bytes()).splitlines()
        assert lines and all(b'"question":""' in line and b'"gold":""' in line for line in lines)
        assert all(b'"question_sha256":"' in line for line in lines)
