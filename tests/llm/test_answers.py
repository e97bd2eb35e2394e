"""Decisions in front of a model are those of the rule offline, whatever was looked up."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msjax.data.messages import Completion, Score
from msjax.data.usage import Usage
from msjax.llm.answers import Answers, jitted
from msjax.rules.belief import SignalDistribution, belief_rule
from msjax.rules.fixed import answer_by, until_accepted, until_score
from msjax.rules.protocol import Observation, run_rule_on_each
from msjax.theory.chain import TwoStateChain
from msjax.theory.judge import Judge

BUDGET = 3
DRAWS = TwoStateChain(np.array([0.3, 0.5]), np.array([0.2, 0.3]), np.array([0.1, 0.05]))
VERDICTS = SignalDistribution(np.array([0.4, 0.6]), verdicts=Judge(np.array([0.7, 0.9]), 0.2))
BELIEF = belief_rule(DRAWS, np.full(BUDGET - 1, 100.0), VERDICTS, price=2e-4)


def completion(score):
    return Completion("", 0.0, 0.0, True, Usage(prompt=9, cached=0, completion=1), Score(score))


def live(rule, answers, verdicts, scores):
    so_far = Answers(rule, BUDGET)
    for answer, verdict, score in zip(answers, verdicts, scores, strict=True):
        so_far.add(completion(score), "abc"[answer], (False, True, None)[verdict])
        if so_far.over:
            break
    return len(so_far.answers), so_far.answers[so_far.returned], so_far.belief, so_far.stopped


@pytest.mark.parametrize(
    "rule",
    [
        until_accepted(BUDGET),
        answer_by(BELIEF, "best_score", BUDGET),
        until_score(BUDGET, 0.5),
    ],
    ids=["until_accepted", "belief", "until_score"],
)
def test_every_history_is_decided_as_offline(rule) -> None:
    orders = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, 2)]
    histories = list(
        product(orders, product((-1, 0, 1), repeat=BUDGET), ((0.2, 0.7, 0.9), (0.6,) * 3))
    )
    answers, verdicts, scores = (np.array(x) for x in zip(*histories, strict=True))
    seen = Observation(
        jnp.asarray(answers), jnp.asarray(scores, jnp.float32), 10.0, jnp.asarray(verdicts)
    )
    offline = jax.device_get(run_rule_on_each(rule, seen, jnp.full(len(answers), BUDGET)))
    stepped = jitted(rule)
    for _ in range(2):  # computed, then looked up
        found = [live(stepped, *history) for history in histories]
        used, returned, belief, stopped = (np.array(x) for x in zip(*found, strict=True))
        assert used.tolist() == offline.n_used.tolist()
        assert returned.tolist() == ["abc"[i] for i in offline.answer_id]
        np.testing.assert_allclose(belief, offline.belief, rtol=1e-5)
        assert (stopped != offline.hit_budget).all()
    assert len(set(used)) > 1


def test_what_was_shown_before_is_decided_without_computing_again(compiling_nothing) -> None:
    rule = jitted(BELIEF)
    live(rule, (0, 1, 1), (0, 0, 1), (0.1, 0.2, 0.3))
    with compiling_nothing(), jax.transfer_guard("disallow"):
        live(rule, (0, 1, 1), (0, 0, 1), (0.4, 0.5, 0.6))
