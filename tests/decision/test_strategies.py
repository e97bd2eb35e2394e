"""Strategies on one front: what runs can compare, what they lack, and longer answers."""

import numpy as np
import pytest

from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage
from msjax.decision.card import decide
from msjax.decision.pilot import pilots
from msjax.decision.strategies import advise, strategies_of
from msjax.errors import InputError

QUESTIONS = 60


def run(number, protocol, random, answers, judged=True, limit=100):
    p = {"sequential": 0.4, "parallel": 0.4, "longer": 0.9}[protocol]
    correct = (random.random(answers) < p).tolist()
    used = 90 if protocol == "longer" else 50
    return Trajectory(
        question_id=str(number),
        protocol=protocol,
        answers=tuple(str(int(x)) for x in correct),
        correct=tuple(correct),
        verdicts=tuple(correct) if judged else (),
        tokens=(Usage(prompt=10, cached=0, completion=used),) * answers,
        settings={"rule": "fixed: 2", "max_new_tokens": limit},
        key=f"0/{number}",
    )


def recorded(*protocols, **options):
    random = np.random.default_rng(2)
    answers = {"sequential": 3, "parallel": 4, "longer": 1}
    return [
        run(i, protocol, random, answers[protocol], **options)
        for protocol in protocols
        for i in range(QUESTIONS)
    ]


def test_longer_answers_are_on_the_front_and_can_be_the_ones_to_use() -> None:
    both = recorded("sequential", "parallel")
    longer = recorded("longer", limit=400)
    card = decide(Runs.from_records([*both, *longer]))
    rows = {row.policy.name: row for row in card.policies}
    row = rows["think longer"]
    right = np.mean([x.correct[0] for x in longer])
    assert row.first_right == pytest.approx(rows["first"].first_right)
    assert row.accuracy.estimate == pytest.approx(right, abs=0.02)
    assert row.uncached.estimate == 100
    assert {"until accepted", "samples until accepted", "majority of 4 samples"} <= set(rows)
    assert card.single.use.name == "think longer"
    assert "--max-new-tokens 400" in str(card) and "--rounds 0" in str(card)
    # Questions without a longer answer leave the policy unjudged there, not wrong.
    few = decide(Runs.from_records([*both, *longer[:40]]))
    found = next(row for row in few.policies if row.policy.name == "think longer")
    assert found.questions == 40


def test_what_a_pilot_cannot_compare_is_named_with_what_records_it() -> None:
    (whole,) = pilots(Runs.from_records(recorded("sequential", "parallel", "longer")))
    assert [one.name for one in strategies_of(whole) if one.lacks] == ["best of N"]
    (rounds,) = pilots(Runs.from_records(recorded("sequential", judged=False)))
    assert {one.name: one.lacks for one in strategies_of(rounds)} == {
        "first answer": "",
        "think longer": "--longer TOKENS",
        "revise": "",
        "revise until accepted": "--judge self",
        "resample until accepted": "--samples N --judge self",
        "vote": "--samples N",
        "best of N": "--samples N --score confidence",
    }
    assert "--pilot-for strategies" in advise(rounds)
    (samples,) = pilots(Runs.from_records(recorded("parallel")))
    lacking = {one.name: one.lacks for one in strategies_of(samples)}
    assert lacking["revise until accepted"] == "--rounds K --judge self" and not lacking["vote"]


def test_longer_answers_alone_or_twice_are_refused() -> None:
    with pytest.raises(InputError, match="only answers with a larger limit"):
        decide(Runs.from_records(recorded("longer")))
    twice = [x.model_copy(update={"repeat": 1}) for x in recorded("longer")]
    with pytest.raises(InputError, match="several longer answers"):
        decide(Runs.from_records([*recorded("sequential", "longer"), *twice]))
