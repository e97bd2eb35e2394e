"""Rules told predicted priors: what they do is what the prior says."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.evaluate.replay import replay
from msjax.evaluate.streams import streams
from msjax.posterior.for_rules import PosteriorForRules
from msjax.rules import find_rule
from msjax.rules.markovscale import plan_rounds
from msjax.rules.spec import Training
from msjax.theory.population import beta_population, mean_accuracy_curve
from msjax.train.priors.features import FeatureTable
from msjax.train.priors.predictor import Predictor, PriorNetwork
from msjax.train.priors.rules import new_questions, predicted_rules
from msjax.train.priors.targets import TARGETS

PRICE = 3e-4
LAWS = np.array([[0.2, 0.5, 0.1, 0.3, 0.2, 0.1], [0.9, 0.1, 0.3, 0.3, 0.2, 0.1]])
"""Means and correlations of two kinds of question: revising pays for the first alone."""


def logit(x):
    return np.log((np.asarray(x) - 1e-3) / (1 - 1e-3 - np.asarray(x)))


def predictor(target, outputs, learnt_from=()):
    """One that puts out the first row for the feature 0, the second for 1."""
    first, second = np.asarray(outputs, np.float32)
    network = PriorNetwork(1, len(first), 2, rngs=nnx.Rngs(0))
    network.constant[...] = jnp.asarray(first)
    # gelu(100) - 100 is rounding, gelu(0) is 0.
    network.first.kernel[...] = jnp.array([[100.0, 0.0]])
    network.last.kernel[...] = jnp.stack([(second - first) / 100, 0 * first])
    kind = TARGETS[target]
    networks = (network,) * len(kind.parts)
    epochs = (1,) * len(kind.parts)
    return Predictor(kind, networks, "kind", frozenset(learnt_from), False, 0, epochs)


def pool(parallel, questions=40, answers=5, seed=0):
    random = np.random.default_rng(seed)
    scores = random.beta(4, 2, (questions, answers))
    return Runs.from_arrays(
        answers=random.integers(0, 2, scores.shape),
        correct=random.random(scores.shape) < scores,
        scores=scores,
        tokens={"completion": np.full(scores.shape, 100.0)},
        benchmark="made",
        protocol="parallel" if parallel else "sequential",
    )


def table(questions=40):
    kind = np.arange(questions, dtype=np.float32) % 2
    return FeatureTable("kind", tuple(f"made/{i}" for i in range(questions)), kind[:, None])


def used(entry, recorded, setting=0):
    training = Training(
        recorded,
        np.ones(recorded.questions, bool),
        1.0,
        PRICE,
        PosteriorForRules(jax.random.key(0)),
    )
    parameters = entry.parameters(training)
    if hasattr(parameters, "flat"):
        parameters = parameters.flat()
    one = jax.tree.map(lambda x: jnp.asarray(x)[setting : setting + 1], parameters)
    met = streams(recorded, jax.random.key(0), 1)
    return replay(entry.make, met, one, entry.side_info(recorded)).n_used[0, 0]


@pytest.mark.slow
def test_markovscale_t_is_the_plan_of_the_predicted_curve():
    recorded = pool(False)
    rules = predicted_rules(predictor("chain", logit(LAWS)), table(), recorded)
    assert [rule.name for rule in rules] == [
        "markovscale,prior=predicted",
        "belief,prior=predicted",
        "belief,scores=yes,prior=predicted",
        "markovscale,scores=yes,prior=predicted",
    ]
    found = used(rules[0], recorded) - 1
    for kind, (mean, icc) in enumerate(zip(LAWS[:, :3], LAWS[:, 3:], strict=True)):
        strength = (1 - icc) / icc
        distributions = [(m * n, (1 - m) * n) for m, n in zip(mean, strength, strict=True)]
        curve = mean_accuracy_curve(beta_population(*distributions, nodes=4), 4)
        plan = plan_rounds(curve[None], np.full(4, 100.0), price=PRICE)
        assert set(found[kind::2]) == {plan.optimal_rounds}
    assert found[0] > 0 and found[1] == 0
    # p0(q) = (m + s) / 2 with a weight of one score; the gate closes above pi = 5 / 6.
    by_score = used(rules[3], recorded) - 1
    p0 = (0.2 + recorded.scores[::2, 0]) / 2
    assert (by_score[::2] == 0)[p0 > 5 / 6].all() and (by_score[::2] > 0)[p0 < 0.6].all()
    assert set(by_score[1::2]) == {0}


@pytest.mark.study
def test_a_prediction_that_weighs_nothing_changes_nothing():
    recorded = pool(True)
    weights = [[0.0, 0.0, -8.0], [3.0, 0.0, -8.0]]
    light = predicted_rules(predictor("scores", weights), table(), recorded)[1]
    plain = replace(find_rule("optscale", recorded), side_info=lambda _: np.zeros(40))
    assert light.name == "optscale,prior=weighted"
    setting = plain.settings.index("s_min=0.8,confidence=0.5")
    np.testing.assert_array_equal(used(light, recorded, setting), used(plain, recorded, setting))


@pytest.mark.slow
def test_a_prediction_that_weighs_much_decides():
    recorded = pool(True)
    # Scores near .95 or near .2, with the weight of 31 scores.
    heavy = [[2.9, -3.0, 3.5], [-1.4, -3.0, 3.5]]
    rules = predicted_rules(predictor("scores", heavy), table(), recorded)
    setting = rules[1].settings.index("s_min=0.8,confidence=0.5")
    found = used(rules[1], recorded, setting)
    assert set(found[::2]) == {1} and found[1::2].mean() > 4


@pytest.mark.study
def test_the_papers_weight():
    recorded = pool(True)
    heavy = [[2.9, -3.0, 3.5], [-1.4, -3.0, 3.5]]
    rule = predicted_rules(predictor("scores", heavy), table(), recorded)[0]
    found = used(rule, recorded, rule.settings.index("s_min=0.8,confidence=0.5"))
    assert found[::2].mean() < found[1::2].mean()


def test_only_new_questions_are_judged():
    recorded = pool(False)
    known = [f"made/{i}" for i in range(0, 30)]
    told = predictor("chain", logit(LAWS), known)
    new = new_questions(told, recorded)
    assert new.question_ids == tuple(map(str, range(30, 40)))
    np.testing.assert_array_equal(new.correct, recorded.correct[30:])
    with pytest.raises(InputError, match="learnt from all of its questions"):
        new_questions(predictor("chain", logit(LAWS), [f"made/{i}" for i in range(40)]), recorded)


def test_a_predictor_of_the_other_kind_is_refused():
    with pytest.raises(InputError, match="predicts chain, rules for samples need scores"):
        predicted_rules(predictor("chain", logit(LAWS)), table(), pool(True))
    with pytest.raises(InputError, match="'made/39' has none"):
        predicted_rules(predictor("chain", logit(LAWS)), table(39), pool(False))
