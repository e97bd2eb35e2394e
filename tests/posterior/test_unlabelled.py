"""Models of runs whose labels are not seen, against the enumeration of hidden paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpyro.infer.util import log_density

from msjax.errors import InputError
from msjax.posterior.diagnostics import diagnose
from msjax.posterior.models.chains import Pooled
from msjax.posterior.models.label_free import (
    Coordinates,
    LabelFree,
    LabelFreeMirrored,
    mirror,
    swap_statement,
    to_rates,
)
from msjax.posterior.models.noisy import Noisy, VerifierCounts
from msjax.posterior.sample import log_likelihoods, sample_posterior, sample_prior, tabulate
from msjax.theory.belief import log_likelihood_of_changes
from msjax.theory.chain import TwoStateChain
from msjax.verify.evidence import FALSE_ALARM

COLUMNS = 4
NOISY = {
    # name: p0, p_ic, p_ci, sensitivity, specificity
    "ordinary": (0.6, 0.3, 0.1, 0.9, 0.8),
    "exchanged": (0.4, 0.1, 0.3, 0.2, 0.1),
    "alternating": (0.2, 0.9, 0.7, 0.95, 0.6),
    "perfect": (0.6, 0.3, 0.1, 1.0, 1.0),
}
LABEL_FREE = {
    # name: p0, p_ic, p_ci, rho
    "ordinary": (0.6, 0.3, 0.1, 0.8),
    "mirror of ordinary": (0.4, 0.1, 0.3, 0.8),
    "settled": (0.6, 0.3, 0.1, 1.0),
    "mirror of settled": (0.4, 0.1, 0.3, 1.0),
    "restless": (0.2, 0.9, 0.7, 0.3),
    "always right": (1.0, 0.3, 0.0, 0.8),
}
POINTS = {Noisy(): NOISY, LabelFree(): LABEL_FREE}
MODELS = pytest.mark.parametrize("model", POINTS, ids=lambda model: model.name)


def path_probability(model, point, path):
    """Probability of a path of hidden states, and those of a signal of 1 in every column."""
    p0, p_ic, p_ci, *errors = point
    probability = p0 if path[0] else 1 - p0
    for now, then in itertools.pairwise(path):
        leave = p_ci if now else p_ic
        probability = probability * (leave if now != then else 1 - leave)
    if isinstance(model, Noisy):
        sensitivity, specificity = errors
        return probability, [sensitivity if state else 1 - specificity for state in path]
    moves = itertools.pairwise(path)
    return probability, [1 if a != b else 0 if a else 1 - errors[0] for a, b in moves]


def probability_of(model, point, signals, state=None):
    """Probability of signals, -1 standing for either; of those with the last state, if given."""
    columns = len(signals)
    total = 0
    for path in itertools.product((0, 1), repeat=columns + (not isinstance(model, Noisy))):
        if state is None or path[-1] == state:
            probability, ones = path_probability(model, point, path)
            for one, signal in zip(ones, signals, strict=True):
                probability = probability * (1 if signal < 0 else one if signal else 1 - one)
            total = total + probability
    return total


def sequences(columns):
    return np.array(list(itertools.product((0, 1), repeat=columns)), dtype=np.int8)


def as_draws(model, points):
    return dict(zip(model.parameters, np.array(points).T, strict=True))


@pytest.fixture(scope="module")
def likelihoods():
    """Log-likelihoods [point, run] of all runs of four columns, and of all shorter ones."""
    shorter = [[*s, *[-1] * (COLUMNS - k)] for k in range(COLUMNS) for s in sequences(k)]
    runs = np.concatenate([sequences(COLUMNS), np.array(shorter, dtype=np.int8)])
    found = {}
    for model, points in POINTS.items():
        table = tabulate(model, runs)
        draws = as_draws(model, list(points.values()))
        found[model] = log_likelihoods(model, table, draws)[:, table.row]
    return runs, found


@MODELS
def test_forward_algorithm_equals_the_enumeration_of_hidden_paths(model, likelihoods):
    """Runs that ended early included: their probability is that of all their continuations."""
    runs, found = likelihoods
    probabilities = np.array(
        [[probability_of(model, p, run) for run in runs] for p in POINTS[model].values()]
    )
    np.testing.assert_allclose(np.exp(found[model]), probabilities, rtol=2e-5)
    np.testing.assert_allclose(np.exp(found[model][:, : 2**COLUMNS]).sum(axis=1), 1, rtol=1e-5)


def test_a_perfect_verifier_shows_the_chain_itself(likelihoods):
    runs, found = likelihoods
    pooled = Pooled()
    table = tabulate(pooled, runs)
    values = log_likelihoods(pooled, table, as_draws(pooled, [NOISY["perfect"][:3]]))
    perfect = list(NOISY).index("perfect")
    np.testing.assert_allclose(found[Noisy()][perfect], values[0, table.row], rtol=1e-5, atol=1e-6)


def test_label_free_agrees_with_the_belief_filter(likelihoods):
    runs, found = likelihoods
    full = runs[: 2**COLUMNS] == 1
    *rates, rho = np.array(list(LABEL_FREE.values()), dtype=np.float32).T[:, :, None]
    expected = jax.jit(log_likelihood_of_changes)(TwoStateChain(*rates), full, rho)
    np.testing.assert_allclose(found[LabelFree()][:, : 2**COLUMNS], expected, rtol=1e-5, atol=1e-6)
    assert np.isneginf(np.asarray(expected)[list(LABEL_FREE).index("always right")]).sum() == 15


def test_right_and_wrong_can_be_exchanged(likelihoods):
    """With errors exchanged always; seen through changes if rho = 1, and only then."""
    _, found = likelihoods
    noisy, free = (dict(zip(POINTS[model], np.exp(found[model]), strict=True)) for model in POINTS)
    np.testing.assert_allclose(noisy["exchanged"], noisy["ordinary"], rtol=1e-5)
    np.testing.assert_allclose(free["mirror of settled"], free["settled"], rtol=1e-5)
    assert np.abs(free["mirror of ordinary"] - free["ordinary"]).max() > 0.01
    draws = as_draws(LabelFree(), [LABEL_FREE["settled"]])
    for name, values in as_draws(LabelFree(), [LABEL_FREE["mirror of settled"]]).items():
        np.testing.assert_allclose(mirror(draws)[name], values)


def rank_of_information(model, point, runs, free=slice(None)):
    """Rank of the Fisher information of one of these runs on the parameters that are free.

    Derivatives are by a complex step, to rounding.
    """
    scores = []
    for i in range(len(point))[free]:
        moved = np.array(point, dtype=complex)
        moved[i] += 1e-30j
        probabilities = np.array([probability_of(model, moved, run) for run in runs])
        scores.append(probabilities.imag * 1e30 / np.sqrt(probabilities.real))
    return np.linalg.matrix_rank(np.array(scores), tol=1e-8)


@pytest.mark.parametrize(
    ("model", "point", "ranks"),
    [
        (Noisy(), NOISY["ordinary"], (1, 3, 5)),
        (Noisy(), (0.6, 0.4, 0.6, 0.9, 0.8), (1, 3, 3)),  # independent answers
        (Noisy(), (0.6, 0.3, 0.1, 0.6, 0.4), (1, 2, 2)),  # verdicts by coin
        (LabelFree(), LABEL_FREE["ordinary"], (1, 3, 4)),
        (LabelFree(), LABEL_FREE["settled"], (1, 3, 4)),
        (LabelFree(), (0.6, 0.3, 0.3, 1.0), (1, 2, 2)),  # both states are kept equally often
    ],
)
def test_three_columns_identify_all_parameters_and_two_do_not(model, point, ranks):
    assert tuple(rank_of_information(model, point, sequences(k)) for k in (1, 2, 3)) == ranks


def until_accepted(columns):
    """All runs that end with the first verdict 1."""
    runs = [[*[0] * k, 1, *[-1] * (columns - k - 1)] for k in range(columns)]
    return np.array([*runs, [0] * columns], dtype=np.int8)


def test_runs_that_end_when_accepted_show_three_numbers_however_long():
    model, point = Noisy(), NOISY["ordinary"]
    rates = slice(0, 3)
    assert [rank_of_information(model, point, until_accepted(k)) for k in (2, 3, 5)] == [2, 3, 3]
    known = [rank_of_information(model, point, until_accepted(k), rates) for k in (2, 3)]
    assert known == [2, 3]
    calibrated = Noisy(VerifierCounts(5, 1, 5, 1))
    assert not any(model.identified(until_accepted(5)).values())
    assert all(calibrated.identified(until_accepted(3)).values())
    assert not calibrated.identified(until_accepted(2))["p_ic"]


def test_identified_parameters():
    runs = np.array([[0, 1, 1], [1, 1, -1]], dtype=np.int8)
    for model in POINTS:
        assert all(model.identified(runs).values())
        assert not any(model.identified(runs[:, :2]).values())
    assert not any(LabelFree().identified(np.zeros((9, 6), np.int8)).values())
    both, one = (Noisy(VerifierCounts(*n)) for n in ((5, 1, 5, 1), (5, 1, 0, 0)))
    assert both.identified(runs[:, :1]) == {
        "p0": True, "p_ic": False, "p_ci": False, "sensitivity": True, "specificity": True
    }  # fmt: skip
    assert all(both.identified(runs[:, :2]).values())
    assert not any(one.identified(runs[:, :2]).values())


def simulated(model, point, questions, columns, seed):
    new = np.zeros((questions, 0), dtype=np.int8)
    draws = as_draws(model, [point])
    return model.continue_runs(np.random.default_rng(seed), draws, new, columns)[0]


@MODELS
def test_simulated_runs_follow_the_model(model):
    """New runs of three columns, and two more columns after a history of two."""
    point = POINTS[model]["ordinary"]
    for history in ((), (1, 0)):
        seen = np.tile(np.array(history, dtype=np.int8), (20_000, 1))
        more = 3 - len(history) // 2
        draws = as_draws(model, [point])
        runs = model.continue_runs(np.random.default_rng(5), draws, seen, more)[0]
        assert (runs[:, : len(history)] == history).all()
        counts = np.bincount(runs[:, len(history) :] @ (1 << np.arange(more)[::-1]))
        probabilities = np.array(
            [probability_of(model, point, (*history, *s)) for s in sequences(more)]
        )
        assert (
            scipy.stats.chisquare(counts, probabilities / probabilities.sum() * 20_000).pvalue
            > FALSE_ALARM
        )


def test_filter_of_verdicts_equals_the_enumeration_of_hidden_paths():
    model = Noisy()
    verdicts = np.array([[1, 0, 0], [0, 1, -1]], dtype=np.int8)
    points = [NOISY["ordinary"], NOISY["alternating"]]
    found = model.filtered(as_draws(model, points), verdicts)
    for (i, point), (q, run), k in itertools.product(
        enumerate(points), enumerate(verdicts), range(3)
    ):
        right, either = (probability_of(model, point, run[: k + 1], state) for state in (1, None))
        assert found[i, q, k] == pytest.approx(right / either, rel=1e-5)


@pytest.mark.parametrize("model", [LabelFree(), LabelFreeMirrored()], ids=lambda model: model.name)
def test_prior_is_uniform_within_the_reading(model):
    cube = np.random.default_rng(0).random((40_000, 4))
    _, p_ic, p_ci, rho = cube.T
    inside = cube[(1 - p_ci < (1 - p_ic) * rho) == model.mirrored]
    draws = sample_prior(model, jax.random.key(3), 10_000)
    sampled = np.stack(list(draws.values()), axis=1)
    for direction in (*np.eye(4), np.ones(4)):
        test = scipy.stats.ks_2samp(sampled @ direction, inside @ direction)
        assert test.pvalue > FALSE_ALARM / 5
    # The density is written down separately; it is that of the rates times their derivative.
    points = np.random.default_rng(1).random((200, 4), dtype=np.float32)
    slopes, log_density_found = jax.jit(
        jax.vmap(
            lambda x: (
                jax.jacfwd(lambda y: jnp.stack(to_rates(y, model.mirrored)))(x),
                Coordinates(model.mirrored).log_prob(x),
            )
        )
    )(points)
    density = np.abs(np.linalg.det(slopes)) * (4 if model.mirrored else 4 / 3)
    np.testing.assert_allclose(np.exp(log_density_found), density, rtol=1e-3)


TRUTH = {model: points["ordinary"] for model, points in POINTS.items()}


@pytest.fixture(scope="module")
def posteriors():
    """Samples for 300 questions of six rounds, and for 10,000; both tables compile one sampler."""
    found = {}
    for model, point in TRUTH.items():
        columns = 6 + isinstance(model, Noisy)
        for questions in (300, 10_000):
            runs = simulated(model, point, questions, columns, seed=questions)
            found[model, questions] = sample_posterior(model, runs, jax.random.key(1))
    return found


@pytest.mark.study
@MODELS
def test_posterior_recovers_the_truth(model, posteriors):
    """At 10,000 questions it is normal, and narrow enough to tell the truth from its mirror."""
    for questions in (300, 10_000):
        assert not diagnose(posteriors[model, questions]).failures
    draws = posteriors[model, 10_000].flat
    limit = scipy.stats.norm.isf(FALSE_ALARM / 2 / len(draws))
    for name, truth in zip(model.parameters, TRUTH[model], strict=True):
        assert abs(draws[name].mean() - truth) < limit * draws[name].std(), name
    assert abs(draws["p0"].mean() - (1 - TRUTH[model][0])) > limit * draws["p0"].std()


@pytest.mark.study
def test_calibration_enters_as_two_binomials_and_narrows_the_errors(posteriors):
    """The calibrated posterior is the other one, weighted by the ratio of the two priors."""
    counts = VerifierCounts(90, 10, 80, 20)
    draws = posteriors[Noisy(), 300].flat
    sensitivity, specificity = draws["sensitivity"], draws["specificity"]

    def log_prior(model, missed, false_alarm):
        errors = jnp.stack([missed, false_alarm, 1 - missed - false_alarm])
        values = {"errors": errors} | dict.fromkeys(("p0", "p_ic", "p_ci"), jnp.float32(0.5))
        return log_density(model.prior, (), {}, values)[0]

    weights = [
        jax.vmap(lambda a, b, model=model: log_prior(model, a, b))(
            jnp.asarray(1 - sensitivity), jnp.asarray(1 - specificity)
        )
        for model in (Noisy(), Noisy(counts))
    ]
    ratio = np.asarray(weights[1] - weights[0], dtype=float)
    expected = scipy.stats.binom.logpmf(90, 100, sensitivity)
    expected += scipy.stats.binom.logpmf(80, 100, specificity)
    np.testing.assert_allclose(ratio - ratio[0], expected - expected[0], rtol=1e-4, atol=1e-3)
    weight = np.exp(ratio - ratio.max())
    for errors in (sensitivity, specificity):
        mean = np.average(errors, weights=weight)
        assert np.average((errors - mean) ** 2, weights=weight) < 0.8 * errors.var()
    assert Noisy(counts) != Noisy() and Noisy(counts) == Noisy(VerifierCounts(90, 10, 80, 20))
    assert hash(Noisy(counts)) != hash(Noisy())


def test_a_report_gives_both_readings():
    draws = as_draws(LabelFree(), [LABEL_FREE["settled"]] * 3)
    said = swap_statement(draws, mirror(draws))
    assert "only up to a swap" in said
    assert "p0 is 0.60 (90 % interval 0.60 to 0.60) and pi is 0.75" in said
    assert "p0 is 0.40 (90 % interval 0.40 to 0.40) and pi is 0.25" in said


@MODELS
def test_accuracy_is_that_of_the_chain(model):
    curves = model.curves(as_draws(model, [POINTS[model]["ordinary"]]), 2)
    np.testing.assert_allclose(curves.accuracy[0, 0], [0.6, 0.66, 0.696])
    np.testing.assert_allclose(curves.limit, 0.75)
    chains = model.question_chains(
        np.random.default_rng(0), as_draws(model, [POINTS[model]["ordinary"]]), np.zeros((5, 3))
    )
    assert chains.p_ic.shape == (1, 5)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="noisy: the data hold 2"):
        tabulate(Noisy(), np.array([[0, 2]], dtype=np.int8))
    with pytest.raises(InputError, match="label_free: the data hold -3"):
        tabulate(LabelFree(), np.array([[0, -3]], dtype=np.int8))
    with pytest.raises(InputError, match="false_negative is -1"):
        VerifierCounts(3, -1, 2, 2)
