"""Recorded answers as arrays, and the orders in which rules meet them."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from msjax.data.importers.optscale import boxed_answer, read_optscale
from msjax.data.pools import Pool, pools_of, streams
from msjax.data.store import Trajectory
from msjax.data.usage import Usage
from msjax.errors import InputError
from msjax.evaluate.replay import Replayed, outcome


def run(answers, gold="7", **changes):
    """A run whose answer number k cost 10 + k completion tokens and 50 prompt tokens, 20 cached."""
    fields = {
        "model": "scripted",
        "benchmark": "x",
        "question_id": "q0",
        "protocol": "sequential",
        "question": "?",
        "gold": gold,
        "answers": tuple(answers),
        "correct": tuple(answer == gold for answer in answers),
        "scores": (0.5,) * len(answers),
        "tokens": tuple(
            Usage(prompt=50, cached=20, completion=10 + k) for k in range(len(answers))
        ),
        "completions": ("",) * len(answers),
        "stop_reason": "budget",
        "censored": False,
        "key": "0",
        "settings": {},
    }
    return Trajectory(**fields | changes)


RUNS = [
    run(["3", "7", None, "3"], question_id="a"),
    run(["7", "7", "7", "7"], question_id="b"),
]


def test_a_pool_holds_what_was_recorded():
    (pool,) = pools_of([*RUNS, run(["1", "2"], question_id="c")])
    assert pool.question_ids == ("a", "b", "c")
    assert pool.answers.tolist() == [[0, 1, -1, 0], [0, 0, 0, 0], [0, 1, -1, -1]]
    assert pool.recorded.tolist() == [4, 4, 2]
    assert pool.computed[0].tolist() == [40, 41, 42, 43]
    assert pool.tokens["cached"][2].tolist() == [20, 20, 0, 0]
    assert pool.difficulty.tolist() == [0.75, 0, 1]
    assert pool.scored and pool.answered and not pool.parallel


def test_orders_of_a_parallel_pool_are_uniform_and_consistent():
    runs = [r.model_copy(update={"protocol": "parallel"}) for r in RUNS]
    (pool,) = pools_of(runs)
    met = streams(pool, jax.random.key(0), 2000)
    sample = np.asarray(met.sample)
    assert (np.sort(sample, axis=2) == np.arange(4)).all()
    first = np.bincount(sample[:, 0, 0], minlength=4)
    assert abs(first - 500).max() < 6 * np.sqrt(2000 * 3 / 16)
    for order in range(20):
        for q in range(2):
            place = sample[order, q]
            texts = [runs[q].answers[i] for i in place]
            known: dict[str, int] = {}
            ids = [-1 if t is None else known.setdefault(t, len(known)) for t in texts]
            assert met.answers[order, q].tolist() == ids
            for text, number in known.items():
                assert bool(met.right[order, q, number]) == (text == "7")
            assert met.tokens[order, q].tolist() == pool.computed[q, place].tolist()


def test_the_first_sample_pays_for_the_prompt_whichever_it_is():
    tokens = tuple(
        Usage(prompt=100, cached=99 * (k > 0), completion=10 + k, verifier=k) for k in range(4)
    )
    (pool,) = pools_of([run(["3", "7", "7", "3"], protocol="parallel", tokens=tokens)])
    assert pool.computed.tolist() == [[110, 13, 15, 17]]
    met = streams(pool, jax.random.key(0), 50)
    sample = np.asarray(met.sample)
    assert len(np.unique(sample[:, 0, 0])) == 4
    expected = 10 + 2 * sample + np.where(np.arange(4) == 0, 100, 1)
    np.testing.assert_array_equal(met.tokens, expected)
    asked = np.full((1, 50, 1), 2)
    spent = outcome(pool, met, Replayed(asked, asked > 0, asked < 0, asked * np.nan))
    assert spent.computed.item() == pytest.approx(expected[:, 0, :2].sum(axis=1).mean())
    assert spent.tokens["prompt"].item() == 101 and spent.tokens["cached"].item() == 99


def test_what_was_not_recorded_stays_behind():
    runs = [
        r.model_copy(update={"protocol": "parallel"})
        for r in (*RUNS, run(["1", "2"], question_id="c"))
    ]
    (pool,) = pools_of(runs)
    met = streams(pool, jax.random.key(1), 50)
    assert (np.sort(met.sample[:, 2, :2], axis=1) == [0, 1]).all()
    assert (np.asarray(met.answers)[:, 2, 2:] == -1).all()


def test_a_sequential_pool_has_one_order():
    (pool,) = pools_of(RUNS)
    met = streams(pool, jax.random.key(0), 100)
    assert met.sample.shape == (1, 2, 4)
    assert met.answers[0].tolist() == pool.answers.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question_id": "a"}, "occurs twice"),
        ({"protocol": "parallel"}, "protocol is 'parallel', not 'sequential'"),
        ({"censored": True}, "stopped by its label"),
        ({"stop_reason": "rule"}, "stopped by a rule"),
    ],
)
def test_runs_that_cannot_be_replayed(changes, message):
    with pytest.raises(InputError, match=message):
        pools_of([*RUNS, run(["1", "7"], **{"question_id": "c"} | changes)])


def test_no_runs():
    with pytest.raises(InputError, match="none given"):
        pools_of([])


def test_bad_arrays():
    (pool,) = pools_of(RUNS)
    with pytest.raises(InputError, match="empty"):
        dataclasses.replace(pool, recorded=np.array([0, 4]))
    with pytest.raises(InputError, match=r"scores has shape \(1, 4\)"):
        dataclasses.replace(pool, scores=pool.scores[:1])
    with pytest.raises(InputError, match="completion"):
        dataclasses.replace(pool, tokens={"completion": np.full((2, 4), np.nan)})
    with pytest.raises(InputError, match="orders is 0"):
        streams(pool, jax.random.key(0), 0)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{12} or \boxed{1,200.50}", "1200.5"),
        (r"\boxed{\dfrac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{ \left( 3, \frac{\pi}{2} \right) }", r"(3,\frac{\pi}{2})"),
        (r"\boxed{7} and then \boxed{unfinished", "7"),
        ("no box", None),
    ],
)
def test_boxed_answers(text, answer):
    assert boxed_answer(text) == answer


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
    assert isinstance(pool, Pool) and pool.parallel
    assert pool.answers.tolist() == [[0, 1, -1]]
    assert pool.correct.tolist() == [[True, False, False]]
    assert pool.computed.tolist() == [[10, 20, 30]]
    assert pool.scores == pytest.approx(np.array([[0.9, 0.2, 0.1]]))


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
