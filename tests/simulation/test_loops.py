"""Loops with a judge, simulated: a thousand million of them end as the closed form says."""

import jax
import numpy as np
import pytest

from msjax.errors import InputError
from msjax.simulation.loops import simulate_loops
from msjax.theory.chain import TwoStateChain
from msjax.theory.judge import Judge, acceptance_pmf, until_accepted
from msjax.verify.evidence import FALSE_ALARM, join, of_counts

CAP, N = 3, 10**9
SETTINGS = [
    ((0.3, 0.2, 0.15), (0.7, 0.1)),
    ((0.077, 0.053, 0.81), (0.33, 0.04)),
    ((0.4, 0.4, 0.6), (1.0, 0.0)),  # resampled, by a judge that never errs
]


@pytest.mark.parametrize(("rates", "judge"), SETTINGS)
def test_loops_end_as_the_closed_form_says(rates, judge) -> None:
    found = simulate_loops(jax.random.key(2), TwoStateChain(*rates), Judge(*judge), N, CAP)
    with jax.enable_x64(True):
        chain = TwoStateChain(*map(np.float64, rates))
        ends = until_accepted(chain, Judge(*map(np.float64, judge)), CAP)
        rounds = acceptance_pmf(chain, Judge(*map(np.float64, judge)), np.arange(CAP + 1))
    accepted = found.accepted_right + found.accepted_wrong
    evidence = join(
        of_counts(accepted, N, np.asarray(rounds)),
        of_counts(found.accepted_right.sum(), N, float(ends.accepted_right)),
        of_counts(found.rejected_right[-1], N, float(ends.unaccepted_right)),
    )
    assert evidence.tail.min() > FALSE_ALARM / len(SETTINGS) / evidence.tail.size
    assert accepted.sum() + found.rejected_right[-1] + found.rejected_wrong[-1] == N
    assert found.rejected_right.dtype == np.int64


def test_bad_input_is_named() -> None:
    chain, judge, key = TwoStateChain(0.3, 0.2, 0.1), Judge(0.7, 0.1), jax.random.key(0)
    for wrong, says in (
        ((chain, judge, 0, 2), "n is 0"),
        ((chain, judge, 5, -1), "revisions is -1"),
        ((chain, Judge(1.5, 0), 5, 1), "accept_right is 1.5"),
        ((chain, Judge(np.zeros(2), 0), 5, 1), "not scalar"),
    ):
        with pytest.raises(InputError, match=says):
            simulate_loops(key, *wrong)
