"""The study's program: stages, interruption, predictions, what ships, and what is refused."""

import gzip
import json
from pathlib import Path

import jax
import pytest

from inference.study import __main__ as program
from inference.study import predictions
from inference.study.plan import PLAN, read_plan
from msjax.data.store import read_runs
from msjax.errors import InputError
from msjax.testing import ScriptedEngine, make_run

TEXT = """
seed = 3
temperature = 0.7
floor = 0.05
ceiling = 0.95
[benchmarks]
sums = "sums.jsonl"
[strategies.reconsider]
prompts = "reconsider"
max_new_tokens = 320
rounds = 3
early = 1
[strategies.samples]
prompts = "reconsider"
max_new_tokens = 320
samples = 4
first = "reconsider"
[strategies.verdicts]
prompts = "verdict"
max_new_tokens = 8
judges = "reconsider"
[[record]]
model = "m"
benchmark = "sums"
strategy = "reconsider"
questions = 3
[[record]]
model = "m"
benchmark = "sums"
strategy = "samples"
questions = 3
[[record]]
model = "m"
benchmark = "sums"
strategy = "verdicts"
questions = 3
"""


def reply(said, key) -> str:
    if "yes or no" in said[-1]:
        return ["Yes.", "no", "Maybe"][len(said[-2]) % 3]
    return rf"So \boxed{{{int(jax.random.randint(key, (), 1, 4))}}}."


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Makes the program over three questions and a scripted model, and counts what is asked."""
    lines = [{"index": i, "question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(3)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "plan.toml").write_text(TEXT)
    monkeypatch.setattr(program, "keep_compiled", lambda: None)
    seen = []

    def predict(runs, rounds, seed):
        seen.append([run.correct for run in runs])
        chance = [[0.5] * (rounds - 1) for _ in runs]
        ends = [{"low": 0.0, "median": 0.5, "high": 1.0}] * (rounds - 1)
        model = {"right": chance, "accuracy": ends, "rises": 0.9, "falls": 0.1}
        return {
            "seen_sha256": predictions.seen_hash(runs),
            "question_ids": [run.question_id for run in runs],
            "rounds_seen": 1,
            "rounds_predicted": [2, 3],
            "models": {"pooled": model},
        }

    monkeypatch.setattr(predictions, "predict", predict)

    def run(engine: ScriptedEngine, **changed) -> None:
        monkeypatch.setattr(program.Engines, "load", lambda *_: engine)
        known = {"data": tmp_path, "plan": tmp_path / "plan.toml"}
        known |= {name: tmp_path / name for name in ("work", "shipped", "predictions")}
        program.Study(**(known | changed)).run()

    run.seen, run.folder = seen, tmp_path  # type: ignore[attr-defined]
    return run


def test_later_rounds_are_recorded_after_they_were_predicted(study) -> None:
    engine = ScriptedEngine(reply, name="m")
    study(engine)
    assert engine.asked == 3 * 4 + 3 * 3 + 3 * 4  # the first sample is the first answer
    assert [len(correct) for correct in study.seen[0]] == [2, 2, 2]
    runs = read_runs(study.folder / "work" / "m.sums.reconsider.jsonl")
    samples = read_runs(study.folder / "work" / "m.sums.samples.jsonl")
    for one, other in zip(runs, samples, strict=True):
        assert len(one.correct) == len(other.correct) == 4
        assert one.completions[0] == other.completions[0]
    for one, other in zip(
        runs, read_runs(study.folder / "work/m.sums.verdicts.jsonl"), strict=True
    ):
        said = [[True, False, None][len(text) % 3] for text in one.completions]
        assert list(other.verdicts) == said and other.correct == one.correct
        assert other.completions == ("",) * 4 and all(u.verifier for u in other.tokens)
        assert other.metadata["verdict_logprobs"] == [-1.0] * 4
    scored = json.loads((study.folder / "predictions/m.sums.reconsider.0-2.score.json").read_text())
    assert scored["accuracy_later"][-1] == sum(run.correct[3] for run in runs) / 3
    assert scored["scores"]["pooled"]["brier"] == pytest.approx(0.25)
    again = ScriptedEngine(reply, name="m")
    study(again)
    assert again.asked == 0


def test_an_interrupted_study_ships_and_goes_on_from_what_ships(study) -> None:
    whole = ScriptedEngine(reply, name="m")
    study(whole, work=study.folder / "whole")
    shipped = study.folder / "shipped"
    texts = gzip.decompress((shipped / "m.sums.reconsider.jsonl.gz").read_bytes()).decode()
    assert "What is" not in texts and '"gold":""' in texts and "question_sha256" in texts
    for path in [*shipped.iterdir(), *(study.folder / "predictions").iterdir()]:
        path.unlink()
    # stops in the third question's revision, while two are finished
    with pytest.raises(KeyboardInterrupt):
        study(ScriptedEngine(reply, name="m", break_after=5))
    assert [path.name for path in shipped.iterdir()] == ["m.sums.reconsider.early.jsonl.gz"]
    engine = ScriptedEngine(reply, name="m")
    study(engine, work=study.folder / "elsewhere")
    assert engine.asked < whole.asked
    # and once more from what ships of the finished one, asking nothing
    finished = ScriptedEngine(reply, name="m")
    study(finished, work=study.folder / "again", only="reconsider")
    assert finished.asked == 0 and len(list(shipped.iterdir())) == 3
    for path in (study.folder / "whole").iterdir():
        lines = sorted(path.read_text().splitlines())
        for other in ("elsewhere", "again"):
            copy = study.folder / other / path.name
            if other == "elsewhere" or "reconsider" in path.name:
                assert sorted(copy.read_text().splitlines()) == lines


def test_a_plan_that_changed_under_way_is_refused(study) -> None:
    study(ScriptedEngine(reply, name="m"))
    plan = study.folder / "plan.toml"
    plan.write_text(TEXT.replace("temperature = 0.7", "temperature = 0.8"))
    with pytest.raises(InputError, match="temperature=0.7, but this run has temperature=0.8"):
        study(ScriptedEngine(reply, name="m"))
    (study.folder / "sums.jsonl").write_text('{"index": 0, "question": "Else?", "answer": "1"}\n')
    plan.write_text(TEXT)
    with pytest.raises(InputError, match="benchmark has changed|different questions"):
        study(ScriptedEngine(reply, name="m"))


def test_predictions_are_not_made_twice_from_other_answers(tmp_path) -> None:
    runs = [make_run(question_id=str(i), correct=(i > 1, i > 0, True, True)) for i in range(3)]
    early = [run.ended(2) for run in runs]
    other = [run.ended(1) for run in runs]
    found = {
        "seen_sha256": predictions.seen_hash(early),
        "question_ids": ["0", "1", "2"],
        "rounds_seen": 1,
        "rounds_predicted": [2, 3],
        "models": {},
    }
    scored = predictions.score(found, runs)
    assert scored["change"] == pytest.approx(1 / 3) and scored["went"] == "rises"
    assert set(scored["scores"]) == {"unchanged"}
    found["seen_sha256"] = predictions.seen_hash(other)
    with pytest.raises(InputError, match="not those that were predicted from"):
        predictions.score(found, runs)


def test_the_plan_that_ships_is_one(tmp_path) -> None:
    plan = read_plan(PLAN)
    assert len({str(batch) for batch in plan.batches}) == len(plan.batches)
    for batch in plan.batches:
        assert "{question}" in batch.strategy.template.first_prompt


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("questions = 3", "questions = 0", "record 1: questions is 0"),
        ('strategy = "samples"', 'strategy = "votes"', "'votes' is not declared"),
        ("early = 1", "early = 3", "leaves none to predict"),
        ("samples = 4", "samples = 4\nrounds = 1", "rounds and samples"),
        ("max_new_tokens = 320\nsamples", "max_new_tokens = 99\nsamples", "or for longer answers"),
        ("seed = 3", "", "is no plan of the study"),
    ],
)  # fmt: skip
def test_a_plan_that_is_none_is_refused(old, new, named, tmp_path) -> None:
    path = Path(tmp_path / "plan.toml")
    assert old in TEXT
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(InputError, match=named):
        read_plan(path)
