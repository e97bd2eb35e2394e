"""Runs to fit: simulated ones, and five benchmarks that differ in what they identify."""

import numpy as np
import pytest

from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory


def _make_counts(correct, benchmark="simulated", censored=False) -> Runs:
    """Runs from an array of states, -1 where a run is over."""
    correct = np.asarray(correct)
    tokens = np.full(correct.shape, 100.0)
    return Runs.from_arrays(
        correct, tokens=tokens, benchmark=benchmark, model="scripted", censored=censored
    )


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


def _make_runs(make_run) -> list[Trajectory]:
    """Runs of all of `BENCHMARKS`."""
    return [
        make_run(states, f"q{i}", name, censored=name == "censored" and len(states) < 4)
        for name, rows in BENCHMARKS.items()
        for i, states in enumerate(rows)
    ]


@pytest.fixture(scope="session")
def make_counts():
    return _make_counts


@pytest.fixture(scope="session")
def simulate():
    return _simulate


@pytest.fixture(scope="session")
def five_counts(make_run) -> dict[str, Runs]:
    """Counts of `BENCHMARKS` by name."""
    return {count.name: count for count in Runs.from_records(_make_runs(make_run)).groups}


@pytest.fixture(autouse=True)
def no_silent_rank_promotion() -> None:
    """Switched off here: NumPyro relies on rank promotion."""
