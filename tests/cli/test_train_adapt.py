"""`msjax train adapt` on an untrained tiny decoder: what it writes, prints, resumes and refuses."""

import json

import numpy as np
import pytest
from flax import nnx

from msjax.cli import main
from msjax.llm.flax import Decoder, DecoderConfig, load
from msjax.train.ttrl import arithmetic

SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
SIZES = (
    "--questions 4 --held-out 3 --samples 4 --budget 12 --n-train-rollouts 8 --block 4 --epochs 2"
)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """The tiny decoder's folder, as it is before training."""
    monkeypatch.setattr(arithmetic, "TINY_CONFIG", {**arithmetic.TINY_CONFIG, **SHAPE, **HEADS})
    config = DecoderConfig.from_dict(arithmetic.TINY_CONFIG)
    monkeypatch.setattr(arithmetic, "train_tiny", lambda **_: Decoder(config, rngs=nnx.Rngs(0)))
    return arithmetic.write_tiny(tmp_path / "start", seed=0)


def adapt(start, out, *more: str) -> int:
    common = f"adapt {out} --tiny --model {start} {SIZES} --questions-per-step 2"
    return main([*common.split(), "--max-new-tokens", "1", *more])


@pytest.mark.slow
def test_a_run_writes_a_model_a_log_and_a_summary(start, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert adapt(start, out, "--json", str(tmp_path / "result.json")) == 0
    printed = capsys.readouterr().out
    assert "optpo, seed 0" in printed and "pass@1" in printed and "all epochs done" in printed
    result = json.loads((out / "summary.json").read_text())
    assert result == json.loads((tmp_path / "result.json").read_text())
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == [
        "settings",
        "held_out",
        *["step"] * 4,
        "held_out",
    ]
    steps = [line["step"] for line in lines if "step" in line]
    assert result["rollouts"] == sum(sum(step["rollouts"]) for step in steps)
    assert all(count in (8, 12) for step in steps for count in step["rollouts"])
    held_out = [line["held_out"]["right"] for line in lines if "held_out" in line]
    assert result["pass_at_1"] == pytest.approx([np.mean(right) for right in held_out])
    gained = result["gain"]["pass_at_1"]
    assert gained["estimate"] == pytest.approx(np.subtract(*result["pass_at_1"][::-1]))
    adapted, before = load(out / "model"), load(start)
    assert (out / "model" / "tokenizer.json").read_text() == (start / "tokenizer.json").read_text()
    assert any(step["learnt"] for step in steps)
    assert not np.array_equal(adapted.embedding[...], before.embedding[...])

    log = (out / "log.jsonl").read_bytes()
    assert adapt(start, out) == 0
    assert (out / "log.jsonl").read_bytes() == log
    assert adapt(start, out, "--learning-rate", "1") == 2
    assert "recorded with update=" in capsys.readouterr().err


def test_a_guard_that_stops_a_run_is_status_1(start, tmp_path, capsys) -> None:
    assert adapt(start, tmp_path / "out", "--max-kl", "1e-9") == 1
    assert "diverged" in capsys.readouterr().out
    last_good, before = load(tmp_path / "out" / "model"), load(start)
    np.testing.assert_array_equal(last_good.embedding[...], before.embedding[...])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-train-rollouts", "13"], "n_train_rollouts is 13"),
        (["--n-train-rollouts", "1"], "n_train_rollouts is 1"),
        (["--questions", "0"], "questions 0"),
        (["--start", "5000"], "may have seen answers from question"),
        (["--benchmark", "arithmetic-easy"], "knows sums only"),
        (["--p-right", "1.5"], "p_right is 1.5"),
        (["--temperature", "0"], "temperature is 0"),
        (["--max-new-tokens", "300"], "exceed the context"),
    ],
)
def test_bad_input_is_one_line_and_status_2(start, tmp_path, capsys, options, message) -> None:
    assert adapt(start, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("msjax: error:") and message in error
