"""Loops with a judge: known figures, every edge, slopes, what they reduce to, and bad input.

The claims of `msjax.verify.loops` hold the same functions against enumeration and simulation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msjax.errors import InputError
from msjax.theory.belief import optimal_continuation
from msjax.theory.chain import UNBOUNDED, TwoStateChain, accuracy_after
from msjax.theory.judge import (
    Judge,
    acceptance_pmf,
    accepted_accuracy,
    filter_verdicts,
    judge_by_votes,
    mean_outcome,
    resample_until_accepted,
    until_accepted,
    update_on_verdict,
)
from msjax.theory.judge_control import Action, LoopCosts, best_loop
from msjax.theory.path_distributions import verified_accuracy
from msjax.theory.population import Population, beta_questions

CAPS = np.array([0, 1, 5, UNBOUNDED])


def test_a_loop_can_help_where_revising_hurts_and_resampling_can_help_more() -> None:
    """A model that is its own judge at the Game of 24, by its four rates."""
    p0, p_ic, judge = 0.077, 148 / 2791, Judge(0.327, 0.044)
    chain = TwoStateChain(p0, p_ic, 108 / 133)
    revised, resampled = until_accepted(chain, judge, 9), resample_until_accepted(p0, judge, 10)
    assert float(accuracy_after(chain, 9)) < p0
    found = [*revised[:1], revised.accuracy, revised.judge_calls, *resampled[:1]]
    np.testing.assert_allclose(found, [0.153, 0.175, 7.63, 0.189], atol=5e-4)
    assert float(resampled.accuracy) == pytest.approx(0.217, abs=5e-4)


def test_judges_that_accept_nothing_everything_or_never_err() -> None:
    chain = TwoStateChain(0.3, 0.2, 0.15)
    nothing, everything, perfect = (
        until_accepted(chain, Judge(*rates), CAPS) for rates in ((0, 0), (1, 1), (1, 0))
    )
    np.testing.assert_allclose(nothing.accuracy, accuracy_after(chain, CAPS), rtol=1e-6)
    assert np.asarray(nothing.judge_calls).tolist() == [1, 2, 6, np.inf]
    assert np.asarray(everything.judge_calls).tolist() == [1] * 4
    np.testing.assert_allclose(everything.accepted_right, 0.3, rtol=1e-6)
    np.testing.assert_allclose(perfect.accuracy, verified_accuracy(chain, CAPS), rtol=1e-6)
    np.testing.assert_allclose(perfect.judge_calls[-1], 1 + 0.7 / 0.2, rtol=1e-6)


def test_loops_that_may_never_end_say_so() -> None:
    # Wrong answers stay wrong and are never accepted; right ones are never accepted and stay; both.
    chains = TwoStateChain(np.array([0.4, 0.4, 1.0]), np.array([0.0, 0.3, 0.0]), 0.0)
    judge = Judge(np.array([0.5, 0.0, 0.5]), np.array([0.0, 0.2, 0.0]))
    found = until_accepted(chains, judge, UNBOUNDED)
    np.testing.assert_allclose(found.accepted, [0.4, 0.6 * 0.2 / 0.44, 1], rtol=1e-6)
    np.testing.assert_allclose(found.judge_calls, [np.inf, np.inf, 2], rtol=1e-6)


def test_a_million_rounds_of_a_judge_that_hardly_ever_accepts_lose_no_digits() -> None:
    chain, judge = TwoStateChain(0.3, 1e-4, 1.5e-3), Judge(1e-5, 1e-5)
    caps = np.array([10**4, 10**6])
    found = until_accepted(chain, judge, caps)
    np.testing.assert_allclose(found.accepted, -np.expm1((caps + 1) * np.log1p(-1e-5)), rtol=1e-5)
    np.testing.assert_allclose(sum(found[:4]), 1, rtol=1e-6)


@pytest.mark.slow
def test_slopes_at_the_edges_are_those_of_finite_differences() -> None:
    at = [0.3, 0.2, 0.15, 1.0, 0.0]

    def loop(rates):
        outcome = until_accepted(TwoStateChain(*rates[:3]), Judge(*rates[3:]), 5)
        return outcome.accuracy + 0.1 * outcome.judge_calls

    with jax.enable_x64(True):
        slope = jax.grad(loop)(jnp.array(at))
        sign = np.array([1, 1, 1, -1, 1])
        steps = 1e-6 * np.arange(3)[:, None, None] * (np.eye(5) * sign)[None]
        values = loop(jnp.asarray(np.moveaxis(np.array(at) + steps, 2, 0)))
        finite = sign * (-3 * values[0] + 4 * values[1] - values[2]) / 2e-6
        np.testing.assert_allclose(slope, finite, rtol=1e-5, atol=1e-8)


def test_a_second_call_compiles_nothing(compiling_nothing) -> None:
    rates = np.linspace(0.1, 0.9, 7)

    def both(x):
        found = until_accepted(TwoStateChain(x, 0.2, x), Judge(x, 0.1), 6)
        pmf = acceptance_pmf(TwoStateChain(x, 0.2, x), Judge(x, 0.1), 3)
        return jax.block_until_ready((found, pmf))

    both(rates)
    with compiling_nothing():
        both(rates / 2)


def test_the_rounds_of_acceptance_add_up_to_what_is_accepted() -> None:
    chain, judge = TwoStateChain(0.077, 0.053, 0.81), Judge(0.33, 0.04)
    pmf = acceptance_pmf(chain, judge, np.arange(10))
    np.testing.assert_allclose(pmf.sum(), until_accepted(chain, judge, 9).accepted, rtol=1e-6)


def test_what_is_accepted_of_fresh_answers_does_not_depend_on_the_cap() -> None:
    judge = Judge(0.7, 0.1)
    found = resample_until_accepted(0.3, judge, np.array([1, 4, UNBOUNDED]))
    precision = found.accepted_right / found.accepted
    np.testing.assert_allclose(precision, accepted_accuracy(0.3, judge), rtol=1e-6)
    assert np.isnan(accepted_accuracy(0.3, Judge(0, 0)))


def test_populations_of_five_rates_by_quadrature_agree_with_draws_of_them() -> None:
    shapes = {"p0": (2.0, 3.0), "p_ic": (1.0, 4.0), "p_ci": (1.0, 6.0)}
    shapes |= {"s": (6.0, 2.0), "f": (1.0, 5.0)}
    rates, weights = beta_questions(shapes, 4)
    chains = TwoStateChain(rates["p0"], rates["p_ic"], rates["p_ci"])
    exact = mean_outcome(Population(chains, weights), Judge(rates["s"], rates["f"]), 2)
    random = np.random.default_rng(1)
    drawn = [random.beta(*shape, 400_000) for shape in shapes.values()]
    each = until_accepted(TwoStateChain(*drawn[:3]), Judge(*drawn[3:]), 2).accuracy
    error = float(jnp.std(each)) / np.sqrt(len(each))
    assert abs(float(each.mean() - exact.accuracy)) < 4.9 * error
    alike = [a / (a + b) for a, b in shapes.values()]
    homogeneous = until_accepted(TwoStateChain(*alike[:3]), Judge(*alike[3:]), 2)
    assert abs(float(homogeneous.accuracy - exact.accuracy)) > 10 * error


def test_votes_of_a_judge_who_repeats_himself_are_one_vote() -> None:
    judge = Judge(np.array([0.7, 0.9]), 0.1)
    same = judge_by_votes(judge, 5, 4, 1.0, 1.0)
    for one, other in zip(judge, same, strict=True):
        np.testing.assert_allclose(np.broadcast_to(one, 2), other, rtol=1e-6)
    majority = judge_by_votes(judge, 5, 3)
    assert (majority.accept_right > judge.accept_right).all()
    assert (majority.accept_wrong < 0.1).all()


def test_verdicts_that_are_absent_or_worthless_leave_the_belief_to_the_chain() -> None:
    chain = TwoStateChain(0.3, 0.2, 0.15)
    curve = accuracy_after(chain, np.arange(4))
    absent = filter_verdicts(chain, Judge(0.7, 0.1), np.full(4, -1))
    np.testing.assert_allclose(absent.beliefs, curve, rtol=1e-6)
    assert float(absent.log_likelihood) == 0
    worthless = filter_verdicts(chain, Judge(0.4, 0.4), np.array([1, 0, 1, 0]))
    np.testing.assert_allclose(worthless.beliefs, curve, rtol=1e-6)
    assert float(update_on_verdict(0.3, Judge(1, 0), 1)) == 1
    impossible = filter_verdicts(chain, Judge(1, 1), np.array([0, 1, 1, 1]))
    assert float(impossible.log_likelihood) == -np.inf


def test_many_settings_come_out_as_few_do() -> None:
    random = np.random.default_rng(3)
    n, few = 9001, slice(8990, 9001)
    rates, verdicts = random.random((5, n)), random.integers(-1, 2, (n, 3))
    caps = random.choice([0, 3, UNBOUNDED], n)

    def all_of(some):
        p0, p_ic, p_ci, s, f = rates[:, some]
        chain, judge = TwoStateChain(p0, p_ic, p_ci), Judge(s, f)
        votes = judge_by_votes(judge, 3, 2, p0, p_ic)
        return (
            until_accepted(chain, judge, caps[some]),
            acceptance_pmf(chain, judge, 2),
            votes,
            filter_verdicts(chain, judge, verdicts[some]),
        )

    many, those = jax.tree.leaves(all_of(slice(n))), jax.tree.leaves(all_of(few))
    for one, other in zip(many, those, strict=True):
        np.testing.assert_allclose(one[few], other, rtol=1e-6)


SETTINGS = [
    # p0, p_ic, p_ci, s, f; verdict, revision, restart
    ((0.3, 0.2, 0.15, 0.7, 0.1), (0.01, 0.03, np.inf)),
    ((0.6, 0.3, 0.4, 0.8, 0.4), (0.02, 0.01, 0.05)),
    ((0.2, 0.6, 0.7, 0.9, 0.3), (0.0, 0.05, 0.04)),
]
best = jax.jit(best_loop, static_argnums=(4, 5))


def expectimax(rates, costs, left):
    """Value after the first answer, by every sequence of actions and verdicts there can be."""
    p0, p_ic, p_ci, s, f = rates
    verdict, revision, restart = costs
    move = np.array([[1 - p_ic, p_ic], [p_ci, 1 - p_ci]])

    def value(joint, left):
        """Of a measure over [incumbent right, current right]; its sum is the probability so far."""
        mass = joint.sum()
        found = [max(joint[1].sum(), joint[:, 1].sum())]
        if left and mass > 0:
            chances = np.array([f, s])
            asked = value(joint * chances, left - 1) + value(joint * (1 - chances), left - 1)
            found.append(asked - verdict * mass)
            for start in (joint, np.diag(joint.sum(axis=0))):
                found.append(value(start @ move, left - 1) - revision * mass)
                if restart < np.inf:
                    fresh = start.sum(axis=1)[:, None] * np.array([1 - p0, p0])
                    found.append(value(fresh, left - 1) - restart * mass)
        return max(found)

    return value(np.diag([1 - p0, p0]), left)


@pytest.mark.slow
@pytest.mark.parametrize(("rates", "costs"), SETTINGS)
def test_the_programme_bounds_the_best_of_all_histories_ever_closer(rates, costs) -> None:
    chain, judge = TwoStateChain(*rates[:3]), Judge(*rates[3:])
    exact = [expectimax(rates, costs, left) for left in range(5)]
    errors = []
    for grid in (9, 33):
        found = best(chain, judge, 1.0, LoopCosts(*costs), 4, grid)
        values = np.array([found.value_at(left, rates[0], 1, 0) for left in range(5)])
        errors.append(values - exact)
    assert (np.array(errors) > -1e-6).all()
    assert errors[1].max() < min(2e-3, errors[0].max() + 1e-6)


def test_a_worthless_judge_leaves_the_best_number_of_rounds() -> None:
    chain = TwoStateChain(0.25, 0.25, 0.125)
    found = best(chain, Judge(0.4, 0.4), 1.0, LoopCosts(0.01, 0.03), 4, 33)
    blind = optimal_continuation(chain, 1.0, 0.03, 4, grid_size=5)
    value = found.value_at(4, 0.25, 1, 0)
    np.testing.assert_allclose(value, blind.value_to_go[4, 1], atol=1e-4)
    assert not (np.asarray(found.action) == Action.ASK).any()


def test_a_judge_that_never_errs_and_costs_nothing_reaches_the_verified_accuracy() -> None:
    chain = TwoStateChain(0.25, 0.25, 0.125)
    # A verdict and a revision in turn: two actions a round.
    found = best(chain, Judge(1.0, 0.0), 1.0, LoopCosts(0.0, 0.0), 4, 33)
    value = found.value_at(4, 0.25, 1, 0)
    assert float(value) >= float(verified_accuracy(chain, 2)) - 1e-6
    paid = best(chain, Judge(1.0, 0.0), 1.0, LoopCosts(0.0, 0.75), 4, 33)
    np.testing.assert_allclose(paid.value_at(4, 0.25, 1, 0), 0.25, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda c, j: until_accepted(c, Judge(1.2, 0), 3), "accept_right is 1.2; a probability"),
        (lambda c, j: until_accepted(c, j, -1), "revisions is -1; give a whole number >= 0"),
        (lambda c, j: until_accepted(c, j, np.float64(1.5)), "revisions is 1.5"),
        (lambda c, j: resample_until_accepted(0.3, j, 0), "samples is 0; give a whole number >= 1"),
        (lambda c, j: judge_by_votes(j, 3, 4), "threshold is 4; give how many of the 3 verdicts"),
        (lambda c, j: filter_verdicts(c, j, np.array([0, 2])), r"verdicts\[1\] is 2; give 1"),
        (lambda c, j: update_on_verdict(0.3, j, 2), "verdicts is 2"),
        (lambda c, j: best_loop(c, j, 0.0, LoopCosts(0, 0), 2), "value is 0.0"),
        (lambda c, j: best_loop(c, j, 1.0, LoopCosts(-1, 0), 2), "costs.verdict is -1"),
        (lambda c, j: best_loop(c, Judge(np.ones(2), 0), 1.0, LoopCosts(0, 0), 2), "not scalar"),
    ],
)
def test_bad_input_is_named(call, says) -> None:
    with pytest.raises(InputError, match=says):
        call(TwoStateChain(0.3, 0.2, 0.1), Judge(0.7, 0.1))
