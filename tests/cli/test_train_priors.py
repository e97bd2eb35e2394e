"""`msjax train priors`: features, training, application, use in replay, and what is refused."""

import dataclasses
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import tyro

from msjax.cli.replay import Replay
from msjax.cli.train_priors import Apply, Features, Train, TrainPriors
from msjax.data.store import read_runs
from msjax.errors import InputError
from msjax.train.priors.features import FeatureTable, read_features, write_features

RUNS = Path(str(files("msjax") / "recorded" / "pilot.jsonl"))
TINY = Path(__file__).parents[1] / "fixtures" / "tiny_llama" / "tied"


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Operands of the recorded questions, and their benchmark."""
    runs = read_runs(RUNS)
    benchmarks = sorted({run.benchmark for run in runs})
    vectors = []
    for run in runs:
        first, sign, second = run.question.split()
        kind = [float(run.benchmark == name) for name in benchmarks]
        vectors.append([float(first), float(second), float(sign == "-"), *kind])
    names = tuple(f"{run.benchmark}/{run.question_id}" for run in runs)
    path = tmp_path_factory.mktemp("predict") / "features.npz"
    write_features(path, FeatureTable("operands", names, np.array(vectors, np.float32)))
    return path


@pytest.fixture(scope="module")
def trained(features):
    command = Train(
        (RUNS,),
        features=features,
        out=features.with_name("predictor.safetensors"),
        json=features.with_name("report.json"),
    )
    assert command.run() == 0
    return command


@pytest.mark.slow
def test_report(trained, capsys):
    assert dataclasses.replace(trained, json=None).run() == 0
    printed = capsys.readouterr().out
    report = json.loads(trained.json.read_text())
    assert report["questions"] == 120 and report["test"]["questions"] == 24
    assert [q["name"] for q in report["test"]["quantities"]] == ["p0", "p_ic", "p_ci"]
    gain = report["test"]["gain"]["all"]
    assert f"{gain['estimate']:.4f} [{gain['low']:.4f}, {gain['high']:.4f}]" in printed
    # Products of digits, sums of digits and of two-digit numbers differ in difficulty.
    assert report["test"]["quantities"][0]["correlation"]["estimate"] > 0.2
    assert "seed 0" in printed


def test_apply(trained, tmp_path, capsys):
    path = tmp_path / "priors.json"
    assert Apply(trained.out, features=trained.features, json=path).run() == 0
    priors = json.loads(path.read_text())
    assert priors["target"] == "chain" and len(priors["questions"]) == 120
    one = priors["questions"]["arithmetic-easy/00000"]
    assert list(one) == ["p0", "p_ic", "p_ci"] and 0 < one["p_ic"]["mean"] < 1
    # One first answer per question does not say how much p0 differs between like questions.
    assert one["p0"]["icc"] is None and 0 < one["p_ci"]["icc"] < 1
    assert "priors of 120 questions" in capsys.readouterr().out


@pytest.mark.slow
def test_replay_on_questions_not_learnt_from(trained, tmp_path, capsys):
    path, easy = tmp_path / "replay.json", tmp_path / "easy.jsonl"
    easy.write_text("".join(RUNS.read_text().splitlines(keepends=True)[:40]))
    command = Replay(
        (easy,), predictor=trained.out, features=trained.features, rules=("fixed",), json=path
    )
    assert command.run() == 0
    pools = json.loads(path.read_text())["pools"]
    assert list(pools) == ["arithmetic-easy"]
    assert 5 <= pools["arithmetic-easy"]["questions"] < 24
    assert list(pools["arithmetic-easy"]["rules"]) == [
        "fixed",
        "markovscale,prior=predicted",
        "belief,prior=predicted",
    ]
    assert "markovscale,prior=predicted" in capsys.readouterr().out
    with pytest.raises(InputError, match="--features is None; give both"):
        dataclasses.replace(command, features=None).run()


def test_features_of_a_local_model(tmp_path, capsys):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(RUNS.read_text().splitlines(keepends=True)[:3]))
    command = Features((few,), out=tmp_path / "states.npz", model=TINY)
    assert command.run() == 0
    table = read_features(command.out)
    assert table.names == tuple(f"arithmetic-easy/0000{i}" for i in range(3))
    assert table.vectors.shape[0] == 3 and len(np.unique(table.vectors, axis=0)) == 3
    assert table.source == "tied: mean and last final state of the prompt"
    assert "3 questions" in capsys.readouterr().out


def test_refusals(trained, tmp_path):
    table = read_features(trained.features)
    write_features(
        tmp_path / "some.npz", FeatureTable("operands", table.names[1:], table.vectors[1:])
    )
    with pytest.raises(InputError, match=r"'arithmetic-easy/00000' has none \(1 of 120"):
        dataclasses.replace(trained, features=tmp_path / "some.npz").run()
    write_features(tmp_path / "other.npz", dataclasses.replace(table, source="another"))
    with pytest.raises(InputError, match="'another', the predictor was trained on 'operands'"):
        Apply(trained.out, features=tmp_path / "other.npz", json=tmp_path / "x.json").run()
    with pytest.raises(InputError, match="is sequential"):
        dataclasses.replace(trained, target="scores").run()
    few = tmp_path / "few.jsonl"
    few.write_text("".join(RUNS.read_text().splitlines(keepends=True)[:40]))
    with pytest.raises(InputError, match="40 leave 8 for validation"):
        dataclasses.replace(trained, runs=(few,)).run()
    changed = tmp_path / "changed.jsonl"
    changed.write_text(few.read_text().replace('"model":"SmolLM2', '"model":"Other'))
    with pytest.raises(InputError, match="a prior is that of one model"):
        dataclasses.replace(trained, runs=(RUNS, changed)).run()


def test_options():
    parsed = tyro.cli(TrainPriors, args=["fit", "a.jsonl", "--features", "f.npz", "--out", "p"])
    assert isinstance(parsed.step, Train) and parsed.step.runs == (Path("a.jsonl"),)
