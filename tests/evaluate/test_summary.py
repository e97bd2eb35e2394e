"""What is said of runs before anything is estimated from them."""

import pytest

from msjax.cli import main
from msjax.data.runs import Runs
from msjax.evaluate.summary import doubts
from msjax.testing import make_run


def test_doubts_name_what_may_spoil_an_estimate() -> None:
    plain = [make_run([0, 1], f"q{i}", settings={"temperature": 0.7}) for i in range(30)]
    assert doubts(Runs.from_records(plain)) == []
    ended = {"finish": ("stop", "length"), "completions": ("a", "")}
    others = [
        make_run([0, 1], "a", "Arithmetic"),
        make_run([1, 1], "b", model="Scripted"),
        make_run([1, 1], "c", settings={"temperature": 1.0, "seed": 3, "rule": "belief"}),
        *(make_run([1, 0], f"d{i}", **ended) for i in range(2)),
        make_run([1, 0], "e", finish=("stop", "tired"), completions=("a", "a")),
    ]
    found = doubts(Runs.from_records(plain + others))
    assert len(found) == 5
    assert found[0].startswith("benchmarks 'Arithmetic', 'arithmetic' differ only in capital")
    assert found[1].startswith("models 'Scripted', 'scripted' differ only in capital")
    assert "temperature is 0.7 in 30 and 1.0 in 1 of its runs" in found[2]
    assert "1 of 6 answers ended with 'tired', which is no reason that msjax knows" in found[3]
    assert found[4].startswith("2 of 6 answers (33%) were cut at the limit of new tokens, 2 of")


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (["01", "1", "1", "001", "000", "01"] * 8, "32 runs of 48 ended early, each at its first"),
        (["0111", "0011", "1111", "0000"] * 8, "no right answer ever becomes wrong"),
    ],
)
def test_what_labels_hide_is_said_and_not_replayed(tmp_path, capsys, labels, why) -> None:
    runs = [
        make_run(
            list(map(int, label)), f"q{i}", answers=tuple(f"{k}{c}" for k, c in enumerate(label))
        )
        for i, label in enumerate(labels)
    ]
    (found,) = doubts(Runs.from_records(runs))
    assert found.startswith(f"arithmetic: {why}")
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(run.model_dump_json() + "\n" for run in runs))
    assert main(["replay", str(path), "--rules", "fixed"]) == 2
    assert f"{why}" in capsys.readouterr().err
