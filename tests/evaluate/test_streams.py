"""The orders in which rules meet recorded answers."""

import jax
import numpy as np
import pytest

from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage
from msjax.errors import InputError
from msjax.evaluate.replay import Replayed, outcome
from msjax.evaluate.streams import streams


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
    pool = Runs.from_records([*RUNS, run(["1", "2"], question_id="c")])
    assert pool.question_ids == ("a", "b", "c")
    assert pool.answers.tolist() == [[0, 1, -1, 0], [0, 0, 0, 0], [0, 1, -1, -1]]
    assert pool.recorded.tolist() == [4, 4, 2]
    assert pool.uncached[0].tolist() == [40, 41, 42, 43]
    assert pool.tokens["cached"][2].tolist() == [20, 20, 0, 0]
    assert pool.difficulty.tolist() == [0.75, 0, 1]
    assert pool.scored and pool.answered and not pool.parallel


def test_orders_of_a_parallel_pool_are_uniform_and_consistent():
    runs = [r.model_copy(update={"protocol": "parallel"}) for r in RUNS]
    pool = Runs.from_records(runs)
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
            assert met.tokens[order, q].tolist() == pool.uncached[q, place].tolist()


def test_the_first_sample_pays_for_the_prompt_whichever_it_is():
    tokens = tuple(
        Usage(prompt=100, cached=99 * (k > 0), completion=10 + k, verifier=k) for k in range(4)
    )
    pool = Runs.from_records([run(["3", "7", "7", "3"], protocol="parallel", tokens=tokens)])
    assert pool.uncached.tolist() == [[110, 13, 15, 17]]
    met = streams(pool, jax.random.key(0), 50)
    sample = np.asarray(met.sample)
    assert len(np.unique(sample[:, 0, 0])) == 4
    expected = 10 + 2 * sample + np.where(np.arange(4) == 0, 100, 1)
    np.testing.assert_array_equal(met.tokens, expected)
    n_used = np.full((1, 50, 1), 2)
    spent = outcome(pool.tokens, met, Replayed(n_used, n_used > 0, n_used < 0, n_used * np.nan))
    assert spent.uncached.item() == pytest.approx(expected[:, 0, :2].sum(axis=1).mean())
    assert spent.tokens["prompt"].item() == 101 and spent.tokens["cached"].item() == 99


def test_what_was_not_recorded_stays_behind():
    runs = [
        r.model_copy(update={"protocol": "parallel"})
        for r in (*RUNS, run(["1", "2"], question_id="c"))
    ]
    pool = Runs.from_records(runs)
    met = streams(pool, jax.random.key(1), 50)
    assert (np.sort(met.sample[:, 2, :2], axis=1) == [0, 1]).all()
    assert (np.asarray(met.answers)[:, 2, 2:] == -1).all()


def test_a_sequential_pool_has_one_order():
    pool = Runs.from_records(RUNS)
    met = streams(pool, jax.random.key(0), 100)
    assert met.sample.shape == (1, 2, 4)
    assert met.answers[0].tolist() == pool.answers.tolist()


def test_orders_are_counted_from_one():
    with pytest.raises(InputError, match="orders is 0"):
        streams(Runs.from_records(RUNS), jax.random.key(0), 0)
