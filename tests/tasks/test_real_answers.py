"""Re-grading recorded answers of others: what their published labels and ours disagree on."""

import json
from collections import Counter

import pytest

from msjax.tasks import grade

DISAGREEMENTS = {
    "oracle_stop_gsm8k/trajectories.jsonl": {(0, 1): 537, (1, 0): 39},
    "incremental_gsm8k/qwen2.5-7b.jsonl": {(0, 1): 468, (1, 0): 3},
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_recorded_answers_are_graded_like_equal_numbers(real_data, name) -> None:
    runs = [json.loads(line) for line in (real_data / name).read_text().splitlines()]
    lines, labels, published = [], [], []
    for run in runs:
        for answer, label, said in zip(
            run["answers"], run["correct"], run["correct_published"], strict=True
        ):
            lines.append({"gold": run["gold"], "completion": answer or ""})
            labels.append(label)
            published.append(said)
    found = [int(one.correct) for one in grade(lines)]
    assert found == labels
    against = Counter(pair for pair in zip(published, found, strict=True) if pair[0] != pair[1])
    assert against == DISAGREEMENTS[name]
