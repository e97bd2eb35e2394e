"""Runs to fit: simulated ones, and five benchmarks that differ in what they identify."""

import numpy as np
import pytest

from msjax.data.counts import BenchmarkCounts, count_runs
from msjax.data.store import Trajectory
from msjax.data.usage import Usage


def _make_run(correct, question_id="q0", benchmark="arithmetic", **changes) -> Trajectory:
    """A sequential run whose round k cost 100 + 10 k tokens."""
    rounds = len(correct)
    fields = {
        "model": "scripted",
        "benchmark": benchmark,
        "question_id": question_id,
        "protocol": "sequential",
        "question": "1 + 1",
        "gold": "2",
        "answers": ("2",) * rounds,
        "correct": tuple(bool(state) for state in correct),
        "scores": (None,) * rounds,
        "tokens": tuple(Usage(prompt=50, cached=0, completion=50 + 10 * k) for k in range(rounds)),
        "completions": ("",) * rounds,
        "stop_reason": "budget",
        "censored": False,
        "key": "0",
        "settings": {},
    }
    return Trajectory(**fields | changes)


def _make_counts(correct, benchmark="simulated", censored=0) -> BenchmarkCounts:
    """Counts from an array of states, -1 where a run is over."""
    correct = np.asarray(correct, dtype=np.int8)
    tokens = np.full(correct.shape[1], 100.0)
    return BenchmarkCounts("scripted", benchmark, correct, tokens, censored)


def _simulate(random, p0, p_ic, p_ci, questions, rounds):
    """States [question, answer]; rates may be scalars or one per question."""
    states = np.empty((questions, rounds + 1), dtype=np.int8)
    states[:, 0] = random.random(questions) < p0
    for k in range(rounds):
        change = np.where(states[:, k] == 1, p_ci, p_ic)
        states[:, k + 1] = states[:, k] ^ (random.random(questions) < change)
    return states


BENCHMARKS = {
    # name: states of its runs
    "ordinary": _simulate(np.random.default_rng(7), 0.5, 0.3, 0.1, 60, 3),
    "all right": np.ones((20, 4), dtype=np.int8),
    "all wrong": np.zeros((20, 4), dtype=np.int8),
    "one answer": np.array([[1], [0], [1]], dtype=np.int8),
    "censored": [[1], [0, 1], [0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]] * 4,
}


def _make_runs() -> list[Trajectory]:
    """Runs of all of `BENCHMARKS`."""
    return [
        _make_run(states, f"q{i}", name, censored=name == "censored" and len(states) < 4)
        for name, rows in BENCHMARKS.items()
        for i, states in enumerate(rows)
    ]


@pytest.fixture(scope="session")
def make_run():
    return _make_run


@pytest.fixture(scope="session")
def make_counts():
    return _make_counts


@pytest.fixture(scope="session")
def simulate():
    return _simulate


@pytest.fixture(scope="session")
def five_counts() -> dict[str, BenchmarkCounts]:
    """Counts of `BENCHMARKS` by name."""
    return {count.benchmark: count for count in count_runs(_make_runs())}


@pytest.fixture(autouse=True)
def no_silent_rank_promotion() -> None:
    """Switched off here: NumPyro relies on rank promotion."""
