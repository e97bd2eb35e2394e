"""Files that OptScale's public code writes."""

import json

import numpy as np
import pytest

from msjax.data.importers.optscale import read_optscale
from msjax.data.runs import Runs
from msjax.errors import InputError


def optscale(tmp_path, items, prompts):
    """The two files."""
    paths = tmp_path / "completions.json", tmp_path / "prompts.json"
    for path, content in zip(paths, (items, prompts), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return paths


ITEM = {
    "score": {
        "completions": [["\\boxed{4}", "\\boxed{5}", ""]],
        "completion_tokens": [[10, 20, 30]],
        "scores": [[0.9, 0.2, 0.1]],
    }
}


def test_pools_of_optscale(tmp_path):
    pool = read_optscale(*optscale(tmp_path, [ITEM], [{"answer": "4", "problem": "2 + 2"}]))
    assert isinstance(pool, Runs) and pool.parallel
    assert pool.answers.tolist() == [[0, 1, -1]]
    assert pool.right.tolist() == [[True, False, False]]
    assert pool.uncached.tolist() == [[10, 20, 30]]
    assert pool.scores == pytest.approx(np.array([[0.9, 0.2, 0.1]]))


def test_answers_are_read_and_graded_like_those_of_a_run(tmp_path):
    texts = [
        r"so \boxed{12}, then \boxed{1,200.50}",
        r"<think>\boxed{7}</think> The answer is 1200.5. Surely.",
        r"\boxed{}",
        r"perhaps 1200.5",
        r"\boxed{\frac{2401}{2}} and then \boxed{unfinished",
    ]
    score = {"completions": [texts], "completion_tokens": [[1] * 5], "scores": [[0.5] * 5]}
    pool = read_optscale(*optscale(tmp_path, [{"score": score}], [{"answer": "1200.5"}]))
    assert pool.answers.tolist() == [[0, 0, -1, -1, 0]]
    assert pool.right.tolist() == [[True, True, False, False, True]]


@pytest.mark.parametrize(
    ("items", "prompts", "message"),
    [
        ("[", [], "not JSON"),
        ([], [], "one item per question"),
        ([ITEM], [{"answer": "4"}] * 2, "1 questions"),
        ([{"score": {}}], [{"answer": "4"}], "question 0"),
        ([ITEM], [{"gold": "4"}], "answer"),
        (
            [{"score": ITEM["score"] | {"scores": [[0.1]]}}],
            [{"answer": "4"}],
            "differ in length",
        ),
    ],
)
def test_bad_files_of_optscale(tmp_path, items, prompts, message):
    with pytest.raises(InputError, match=message):
        read_optscale(*optscale(tmp_path, items, prompts))
