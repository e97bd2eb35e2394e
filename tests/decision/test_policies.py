"""Policies read off arrays do what their rules do, and learn on other questions only."""

import numpy as np
import pytest

from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage, uncached_tokens
from msjax.decision.learnt_answers import belief_policy, learn
from msjax.decision.policies import policies_of
from msjax.errors import InputError
from msjax.evaluate.folds import FOLDS, folds
from msjax.llm.live import cut_by, rule_from_pilot


def simulated(seed=0, questions=40, rounds=3, **changes):
    """Runs with answers that are right ("7"), wrong, or none, scores, and tokens that differ."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(questions):
        answers, state = [], random.random() < 0.4
        for _ in range(rounds + 1):
            wrong = random.choice(["1", "2", "3", None])
            answers.append("7" if state else wrong)
            state = random.random() < (0.85 if state else 0.4)
        n = len(answers)
        found.append(
            Trajectory(
                question_id=f"q{i:03}",
                answers=tuple(answers),
                correct=tuple(x == "7" for x in answers),
                scores=tuple(random.random(n)),
                tokens=tuple(
                    Usage(prompt=int(p), cached=3, completion=int(c))
                    for p, c in random.integers(5, 50, (n, 2))
                ),
                **changes,
            )
        )
    return found


def test_policies_do_what_their_rules_do():
    records = simulated()
    found = policies_of(Runs.from_records(records), None)
    names = [policy.name for policy in found.policies]
    assert {"first", "3 rounds", "majority after 2 rounds", "until repeated twice"} <= set(names)
    assert {"best score after 1 round", "by belief"} <= set(names)
    for j, policy in enumerate(found.policies):
        cut = cut_by(policy.rule, records)
        if not policy.learnt:  # labels of what is learnt come from rules of other folds
            assert [run.right for run in cut] == found.right[:, j].tolist(), policy.name
        assert [len(run.answers) for run in cut] == found.asked[:, j].tolist(), policy.name
        spent = [uncached_tokens(run.tokens) for run in cut]
        assert spent == found.uncached[:, j].tolist(), policy.name


@pytest.mark.parametrize("price", [0.0, 0.002])
def test_belief_policy_is_the_rule(price):
    records = simulated(1, 60)
    runs = Runs.from_records(records)
    distribution = learn(runs, np.ones(60, bool))
    last, returned = belief_policy(distribution, runs.answers, price)
    cut = cut_by(distribution.rule(price), records)
    assert [run.revisions for run in cut] == last.tolist()
    for run, row, number in zip(cut, runs.answers, returned, strict=True):
        given = None if run.returned is None else row[run.returned]
        assert number == (-1 if given is None else given)
    assert len(set(last.tolist())) > 1 or price


@pytest.mark.slow
def test_what_is_learnt_is_judged_on_other_questions():
    # All answers are fair coins, so learning gains nothing; judged where it was learnt the best of
    # several rules would seem to.
    random = np.random.default_rng(2)
    gains = []
    for _ in range(12):
        correct = random.integers(0, 2, (50, 4))
        answers = np.where(correct, 0, random.integers(1, 9, correct.shape))
        found = policies_of(Runs.from_arrays(correct, answers=answers), None)
        (j,) = (j for j, policy in enumerate(found.policies) if policy.learnt)
        gains.append((found.right[:, j] - found.right[:, 0]).mean())
    # Two coins differ by .5 at most in variance; 600 questions, 4 standard errors.
    assert abs(np.mean(gains)) < 4 * np.sqrt(0.5 / 600)


def test_folds_are_even_and_depend_on_names_alone():
    names = [f"q{i}" for i in range(50)]
    one = folds(names, 0)
    assert np.bincount(one).tolist() == [10] * FOLDS
    other = folds(names[::-1], 0)
    assert one.tolist() == other[::-1].tolist() and one.tolist() != folds(names, 1).tolist()
    pairs = folds([name for name in names for _ in range(2)], 0)
    assert (pairs[::2] == pairs[1::2]).all()


def test_a_loop_with_a_judge():
    correct = [(False, True, True), (True, True, False), (False, False, False)]
    verdicts = [(False, True, True), (True, False, False), (False, False, False)]
    records = [
        Trajectory(question_id=f"{i}", correct=labels, verdicts=said, answers=("1", "2", "3"))
        for i, (labels, said) in enumerate(zip(correct, verdicts, strict=True))
    ]
    found = policies_of(Runs.from_records(records), None)
    j = [policy.name for policy in found.policies].index("until accepted")
    cut = cut_by(found.policies[j].rule, records)
    assert [run.right for run in cut] == found.right[:, j].tolist() == [1, 1, 0]
    assert [len(run.correct) for run in cut] == found.asked[:, j].tolist() == [2, 1, 3]


def until_accepted_of(*runs):
    found = policies_of(*runs)
    name = "samples until accepted" if runs[0] is None else "until accepted"
    return found, [policy.name for policy in found.policies].index(name)


def test_runs_with_gaps_in_their_verdicts_are_left_out_whatever_the_judge_said():
    random = np.random.default_rng(0)
    correct = random.random((400, 4)) < np.array([0.3, 0.5, 0.6, 0.7])
    verdicts = np.where(correct, random.random((400, 4)) < 0.8, random.random((400, 4)) < 0.2)
    gap = np.arange(400) % 2 == 1
    with_gaps = np.where((np.arange(4) == 1) & gap[:, None], -1, verdicts)
    found, j = until_accepted_of(Runs.from_arrays(correct, verdicts=with_gaps), None)
    # Were only those left out that the gap hits, half of the quick ones would have no counterpart.
    assert np.isnan(found.right[gap, j]).all() and not np.isnan(found.right[~gap, j]).any()
    # Asked until it accepts, a judge leaves gaps that hide nothing, but for those before.
    ever = verdicts.any(axis=1)
    until = np.where(ever, verdicts.argmax(axis=1), 3)[:, None]
    asked_until = np.where(np.arange(4) <= until, verdicts, -1)
    found, j = until_accepted_of(Runs.from_arrays(correct, verdicts=asked_until), None)
    assert found.right[:, j].tolist() == correct[np.arange(400), until[:, 0]].tolist()
    hidden = np.where((np.arange(4) == 1) & gap[:, None], -1, asked_until)
    found, j = until_accepted_of(Runs.from_arrays(correct, verdicts=hidden), None)
    assert np.isnan(found.right[:, j]).all()


def test_samples_until_a_judge_accepts():
    correct = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]
    verdicts = [[0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]
    tokens = {"prompt": [[100, 0, 0]] * 4, "completion": [[10, 10, 10]] * 4}
    samples = Runs.from_arrays(correct, verdicts=verdicts, tokens=tokens, protocol="parallel")
    found, j = until_accepted_of(None, samples)
    # What is accepted is the same in every order; of three accepted, or none, any may be met.
    assert found.right[:2, j].tolist() == [0, 1]
    assert 0 < found.right[2, j] < 1 and 0.3 < found.right[3, j] < 1
    assert found.asked[2:, j] == pytest.approx([3, 1]) and (found.asked[:2, j] < 3).all()
    assert found.uncached[:, j] == pytest.approx(100 + 10 * found.asked[:, j])
    # Recorded until the judge accepted, one order is all there is.
    ended = [[0, 0, 1], [0, 1], [0, 0, 0], [1]]
    correct = [[1, 0, 0], [0, 1], [0, 0, 1], [1]]
    for protocol in ("parallel", "sequential"):
        runs = Runs.from_arrays(correct, verdicts=ended, protocol=protocol)
        found, j = until_accepted_of(*((None, runs) if runs.parallel else (runs, None)))
        assert found.right[:, j].tolist() == [0, 1, 1, 1]
        assert found.asked[:, j].tolist() == [3, 2, 3, 1]


def test_samples_pay_for_the_prompt_once():
    tokens = {"prompt": [[100, 0, 0]] * 4, "cached": [[0, 100, 100]] * 4}
    tokens |= {"completion": [[10, 20, 30]] * 4}
    answers = [["7", "7", "1"], ["1", "7", "1"], ["7", "1", "2"], ["1", "1", "1"]]
    correct = [[x == "7" for x in row] for row in answers]
    samples = Runs.from_arrays(correct, answers=answers, tokens=tokens, protocol="parallel")
    found = policies_of(None, samples)
    names = [policy.name for policy in found.policies]
    assert names == ["first", "majority of 3 samples"]
    assert found.uncached[0].tolist() == [100 + 20, 100 + 60]
    assert found.right[:, 0] == pytest.approx([2 / 3, 1 / 3, 1 / 3, 0])
    # A tie of three goes to whichever comes first, over all orders to each as often.
    assert found.right[[0, 1, 3], 1].tolist() == [1, 0, 0] and 0 < found.right[2, 1] < 1


def test_the_card_in_front_of_a_model():
    helps = [
        Trajectory(question_id=str(i), answers=answers, correct=tuple(x == "7" for x in answers))
        for i, answers in enumerate([("1", "7", "7")] * 20 + [("7", "7", "7")] * 20)
    ]
    live = rule_from_pilot("card", helps, rounds=2, value=1.0, price=0.0)
    assert "revise once" in live.says and not live.looks
    assert {run.revisions for run in cut_by(live.rule, helps)} == {1}
    right_ones = [(i % 4 == 0, True, False) for i in range(200)]
    judged = [
        Trajectory(question_id=str(i), correct=labels, verdicts=labels)
        for i, labels in enumerate(right_ones)
    ]
    with pytest.raises(InputError, match="'until accepted', and no judge is asked here"):
        rule_from_pilot("card", judged, rounds=2, value=1.0, price=0.0)
    with pytest.raises(InputError, match="raise --rounds"):
        rule_from_pilot("card", helps, rounds=0, value=1.0, price=0.0)
