"""Plans against brute force: futures simulated and refitted one by one."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.stats

from msjax.decision.design import Plan, plan, smoothed_weights
from msjax.errors import InputError
from msjax.posterior.fits import Fit, fit_model
from msjax.posterior.models import find_model
from msjax.posterior.models.chains import Pooled
from msjax.posterior.sample import Sample, sample_prior
from msjax.verify.evidence import FALSE_ALARM

PILOT, ROUNDS = 60, 3
QUESTIONS = (1, 25, 100)
PRICE = 1e-4
BRUTE, REFIT = 80, 2000
"""Futures, and draws from the posterior in each."""


class Reweighted(Pooled):
    """The pooled chain, without its closed form."""

    name = "reweighted"

    def exact(self, correct):
        return None


@pytest.fixture(scope="module")
def pilot(simulate, make_counts) -> Fit:
    """Refining helps by little, so that its price makes the number of rounds a close decision."""
    runs = simulate(np.random.default_rng(5), 0.5, 0.25, 0.1, PILOT, ROUNDS)
    return fit_model(make_counts(runs), Pooled(), jax.random.key(0))


@pytest.fixture(scope="module")
def plans(pilot) -> dict[str, Plan]:
    """The same plan by closed form and by reweighting."""
    fits = {"exact": pilot, "reweighted": dataclasses.replace(pilot, model=Reweighted())}
    return {
        name: plan(one, jax.random.key(1), questions=QUESTIONS, rounds=(ROUNDS,), price=PRICE)
        for name, one in fits.items()
    }


@pytest.fixture(scope="module")
def brute(pilot, simulate) -> dict[int, dict[str, np.ndarray]]:
    """Width, error and gain in each of many futures, for every number of new questions."""
    random = np.random.default_rng(2)
    laws = Pooled().exact(pilot.runs)
    costs = PRICE * 100 * np.arange(11)

    def summary(p0, p_ic, p_ci):
        pi = p_ic / (p_ic + p_ci)
        low, high = np.quantile(pi, [0.05, 0.95])
        curve = pi[:, None] + (1 - p_ic - p_ci)[:, None] ** np.arange(11) * (p0 - pi)[:, None]
        return high - low, (curve[:, 1] > p0).mean(), curve.mean(axis=0) - costs

    usual = summary(*(random.beta(*law, 20_000) for law in laws.values()))[2].argmax()
    found = {}
    for n in QUESTIONS:
        rows = []
        for _ in range(BRUTE):
            truth = [random.beta(*law) for law in laws.values()]
            runs = np.concatenate([pilot.runs, simulate(random, *truth, n, ROUNDS)])
            before, after = runs[:, :-1].ravel(), runs[:, 1:].ravel()
            counts = [(runs[:, 0] == 1, runs[:, 0] == 0)]
            counts += [((before == s) & (after != s), (before == s) & (after == s)) for s in (0, 1)]
            draws = [random.beta(1 + yes.sum(), 1 + no.sum(), REFIT) for yes, no in counts]
            width, helps, net = summary(*draws)
            rows.append((width, min(helps, 1 - helps), net.max() - net[usual]))
        found[n] = dict(zip(("width", "first_round_error", "evsi"), np.array(rows).T, strict=True))
    return found


@pytest.mark.parametrize("way", ["exact", "reweighted"])
def test_expectations_are_those_of_refitting_each_future(plans, brute, way):
    compared = [(d, name) for d in plans[way].designs for name in brute[d.questions]]
    z = scipy.stats.norm.isf(FALSE_ALARM / (2 * len(compared)))
    # Net values of two numbers of rounds differ by a posterior sd below .05; the best of several
    # means of draws is too good by about one standard error.
    bias = 0.05 / np.sqrt(REFIT)
    for design, name in compared:
        ours, theirs = getattr(design, name), brute[design.questions][name]
        error = np.hypot(ours.standard_error, theirs.std(ddof=1) / np.sqrt(BRUTE))
        assert abs(ours.mean - theirs.mean()) < z * error + bias, (design.questions, name)


@pytest.mark.parametrize("way", ["exact", "reweighted"])
def test_more_questions_never_harm(plans, way):
    found = plans[way]
    z = scipy.stats.norm.isf(FALSE_ALARM)
    for less, more in zip((found.now, *found.designs), found.designs, strict=False):
        for name, sign in (
            ("width", 1),
            ("first_round_error", 1),
            ("limit_error", 1),
            ("evsi", -1),
        ):
            a, b = getattr(less, name), getattr(more, name)
            worse = sign * (b.mean - a.mean)
            assert worse <= z * np.hypot(a.standard_error, b.standard_error) + 1e-12, name
        assert 0 <= more.evsi.mean
        slack = z * np.hypot(more.evsi.standard_error, found.evpi.standard_error)
        assert more.evsi.mean <= found.evpi.mean + slack
    assert found.now.evsi.mean == 0 and found.designs[-1].evsi.mean > 0
    assert found.designs[-1].width.mean < 0.7 * found.now.width.mean
    assert found.designs[-1].tokens == QUESTIONS[-1] * 100 * (ROUNDS + 1)


def test_labels_are_worth_nothing_when_the_decision_is_certain(pilot):
    """At a price of 1 per token nobody refines, whatever the labels say."""
    found = plan(pilot, jax.random.key(1), questions=(100,), rounds=(ROUNDS,), price=1.0)
    assert found.designs[0].evsi.mean == found.evpi.mean == 0


def test_smallest_design(plans):
    found = plans["exact"]
    widths = [design.width.mean for design in found.designs]
    assert found.smallest(lambda d: d.width.mean <= widths[1]) is found.designs[1]
    assert found.smallest(lambda d: d.width.mean <= 1) is found.now
    assert found.smallest(lambda d: d.width.mean <= widths[2] / 2) is None
    unreliable = dataclasses.replace(found.designs[2], pareto_k=0.8)
    shaky = dataclasses.replace(found, designs=(*found.designs[:2], unreliable))
    assert not unreliable.reliable
    assert shaky.smallest(lambda d: d.width.mean <= widths[2]) is None


@pytest.mark.slow
def test_designs_that_say_far_more_than_the_pilot_are_fitted_anew(pilot):
    """Present draws cannot stand for such a posterior; draws around its mode can."""
    design = {"questions": (2000,), "rounds": (6,), "price": PRICE}
    exact = plan(pilot, jax.random.key(1), **design).designs[0]
    anew = dataclasses.replace(pilot, model=Reweighted())
    found = plan(anew, jax.random.key(1), **design).designs[0]
    assert found.reliable and found.ess > 100
    names = ("width", "evsi")
    z = scipy.stats.norm.isf(FALSE_ALARM / (2 * len(names)))
    for name in names:
        a, b = getattr(found, name), getattr(exact, name)
        assert abs(a.mean - b.mean) < z * np.hypot(a.standard_error, b.standard_error), name


def test_what_the_pilot_does_not_identify_is_refused(make_counts):
    solved = fit_model(make_counts(np.ones((20, 4))), Pooled(), jax.random.key(0))
    with pytest.raises(InputError, match="'simulated': the runs do not identify p_ic.*record"):
        plan(solved, jax.random.key(1), questions=(10,), rounds=(3,))


def test_a_target_that_the_model_lacks_is_refused(pilot):
    drifting = find_model("drifting")
    draws = sample_prior(drifting, jax.random.key(0), 1000)
    sample = Sample({name: x.reshape(4, 250) for name, x in draws.items()}, {})
    known = dict.fromkeys(drifting.parameters, True)
    one = dataclasses.replace(pilot, model=drifting, sample=sample, identified=known)
    with pytest.raises(InputError, match="target is 'limit'.*drifting"):
        plan(one, jax.random.key(1), questions=(10,), rounds=(3,))
    found = plan(one, jax.random.key(1), questions=(1,), rounds=(3,), target="accuracy")
    assert found.now.limit_error is None
    assert found.designs[0].width.mean < found.now.width.mean


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"questions": ()}, "questions is empty"),
        ({"rounds": (3, 0)}, r"rounds\[1\] is 0"),
        ({"value": 0.0}, "value is 0"),
        ({"price": -1.0}, "price is -1"),
        ({"price": np.inf}, "price is inf"),
    ],
)
def test_bad_designs_are_refused(pilot, wrong, message):
    options = {"questions": (10,), "rounds": (3,)} | wrong
    with pytest.raises(InputError, match=message):
        plan(pilot, jax.random.key(1), **options)


@pytest.mark.filterwarnings("error")
def test_shapes_that_cannot_be_fitted_are_not_averaged_with_others():
    equal, alone = np.zeros(4000), np.where(np.arange(4000) == 7, 0.0, -2000.0)
    assert smoothed_weights(np.stack([equal] * 20))[1] == 0
    assert smoothed_weights(np.stack([equal] * 19 + [alone]))[1] == 0
    assert smoothed_weights(np.stack([equal] * 17 + [alone] * 3))[1] == np.inf
