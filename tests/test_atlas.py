"""The atlas: what it reads from folders of others, and what it counts there."""

import json

import pytest

from inference.atlas import gains, gains_tables, read_recordings


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folder(tmp_path):
    """Two loops with a judge, of four questions each, and a run of three samples of a model."""
    loop = [
        # question, labels, verdicts
        ("a", [0, 1], [0, 1]),
        ("b", [1, 0, 0], [0, 0, 1]),
        ("c", [1], [1]),
        ("d", [0, 0, 0], [0, 0, None]),
    ]
    write(
        tmp_path / "game24_llm_verifier" / "trajectories.jsonl",
        [
            {
                "model": "m",
                "benchmark": "24",
                "question_id": question,
                "correct": labels,
                "verifier_accepts": verdicts,
            }
            for question, labels, verdicts in loop
            for _ in range(2)
        ],
    )
    write(
        tmp_path / "planning_sound_verifier" / "trajectories.jsonl",
        [
            {"model": "n_chat", "benchmark": "plans", "correct": labels}
            for labels in ([0, 1], [1], [0, 0, 0], [0, 0, 1])
        ],
    )
    samples = [(["x", "y", "y"], [0, 1, 1]), (["x", None, "y"], [1, 0, 0]), ([None] * 3, [0] * 3)]
    write(
        tmp_path / "epoch_pools" / "pool.jsonl",
        [
            {
                "run": run,
                "benchmark": "B",
                "question_id": number,
                "answers": answers,
                "correct": labels,
            }
            for run in ("kept", "thin")
            for number, (answers, labels) in enumerate(samples)
        ],
    )
    runs = [{"run": "kept", "answers_recorded": 0.95}, {"run": "thin", "answers_recorded": 0.5}]
    (tmp_path / "epoch_pools" / "runs.json").write_text(json.dumps(runs))
    return tmp_path


def test_loops_with_a_judge_are_compared_as_they_ended(folder):
    found = gains(read_recordings(folder), folder)
    assert found["revisions"] == {}
    ours = found["loops"]["game24_llm_verifier: m, 24"]
    assert (ours["questions"], ours["clusters"], ours["rounds"]) == (8, 4, 2)
    assert (ours["first"], ours["last"], ours["ever_right"]) == (0.5, 0.5, 0.75)
    # Per copy, one of four wrong answers was fixed that were revised, and one of one right broken;
    # one more, half taken, counts for every rate.
    assert ours["fix"].estimate == pytest.approx((2 + 0.5) / (8 + 1))
    assert ours["damage"].estimate == pytest.approx((2 + 0.5) / (2 + 1))
    assert ours["accepts_right"].estimate == pytest.approx((4 + 0.5) / (6 + 1))
    assert ours["accepts_wrong"].estimate == pytest.approx((2 + 0.5) / (10 + 1))
    assert not ours["verdict_is_label"] and ours["word"] == "cannot tell"
    sound = found["loops"]["planning_sound_verifier: n, plans"]
    assert sound["verdict_is_label"] and sound["damage"] is None
    assert sound["last"] == sound["ever_right"] == 0.75


def test_votes_are_compared_with_the_first_sample_of_runs_that_keep_their_answers(folder):
    votes = gains(read_recordings(folder), folder)["votes"]["B"]
    assert (votes["runs"], votes["questions"], votes["samples"]) == (1, 3, [3])
    # y leads once; x and y are level, so the first stands; and nothing was answered.
    assert (votes["first"], votes["majority"]) == pytest.approx((1 / 3, 2 / 3))
    assert votes["ever_right"] == pytest.approx(2 / 3)


def test_tables_say_what_is_not_identified(folder):
    found = json.loads(json.dumps(gains(read_recordings(folder), folder), default=_plain))
    tables = gains_tables(found)
    (plans,) = [line for line in tables.splitlines() if "plans" in line]
    assert "not identified" in plans and "as labelled" in plans
    assert "1 cannot tell" in tables


def _plain(value):
    return vars(value) if hasattr(value, "low") else float(value)
