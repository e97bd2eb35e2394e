"""Path functionals against their meaning, path by path."""

import itertools

import jax
import numpy as np
import pytest

from msjax.rules import fixed
from msjax.simulation import functionals
from msjax.simulation.paths import simulate, simulate_histogram
from msjax.theory.chain import TwoStateChain

ROUNDS = 5


def first_correct(path):
    return path.index(True) if True in path else len(path)


def initial_stay(path):
    return 2 * (len(list(next(itertools.groupby(path))[1])) - 1) + path[0]


def longest_streak(path):
    return max((len(list(run)) for right, run in itertools.groupby(path) if right), default=0)


def after_two_rounds(path):
    return 2 * 2 + path[2]


MEANINGS = {
    "correct_count": (functionals.correct_count(ROUNDS), sum),
    "first_correct": (functionals.first_correct(ROUNDS), first_correct),
    "initial_stay": (functionals.initial_stay(ROUNDS), initial_stay),
    "longest_streak": (functionals.longest_streak(ROUNDS), longest_streak),
    "stopping_outcome": (
        functionals.stopping_outcome(fixed.fixed_rounds(2), ROUNDS),
        after_two_rounds,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEANINGS)
def test_histogram_counts_the_functional_of_the_same_paths(name):
    functional, meaning = MEANINGS[name]
    key, chain, n = jax.random.key(5), TwoStateChain(0.4, 0.3, 0.4), 3000
    paths = np.asarray(simulate(key, chain, n, ROUNDS)).tolist()
    expected = np.bincount([meaning(path) for path in paths], minlength=functional.bins)
    found = simulate_histogram(key, chain, n, ROUNDS, functional)
    np.testing.assert_array_equal(found, expected)


def test_the_same_arguments_give_the_same_object():
    assert functionals.longest_streak(4) is functionals.longest_streak(4)
