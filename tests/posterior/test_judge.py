"""The judge's rates: known counts, coverage over questions that differ, what is not identified."""

import json

import jax
import numpy as np
import pytest
from scipy import stats

import msjax
from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.decision.policies import policies_of
from msjax.errors import InputError
from msjax.posterior.for_rules import PosteriorForRules
from msjax.posterior.judge import fit_judge
from msjax.rules.belief import ScoreDistributions
from msjax.rules.fixed import until_score
from msjax.rules.learnt import judge_draws, score_distributions, score_threshold
from msjax.rules.protocol import Observation, run_rule
from msjax.rules.spec import Training
from msjax.theory.chain import TwoStateChain, stationary_accuracy
from msjax.theory.judge import Judge, resample_until_accepted, until_accepted
from msjax.verify.evidence import FALSE_ALARM


def judged(random, questions=60, answers=4, s=(6, 2), f=(1, 4)):
    """Runs whose questions each have rates of their own, from Beta distributions."""
    correct = random.random((questions, answers)) < random.random((questions, 1))
    rates = np.where(correct, *(random.beta(*x, (questions, 1)) for x in (s, f)))
    return Runs.from_arrays(correct, verdicts=random.random(correct.shape) < rates)


def test_one_answer_per_question_gives_the_beta_posterior() -> None:
    correct = np.array([1] * 20 + [0] * 30)[:, None]
    verdicts = np.array([1] * 15 + [0] * 5 + [1] * 3 + [0] * 27)[:, None]
    found = fit_judge(Runs.from_arrays(correct, verdicts=verdicts))
    for draws, beta in ((found.accept_right, (16, 6)), (found.accept_wrong, (4, 28))):
        assert stats.kstest(draws, stats.beta(*beta).cdf).pvalue > FALSE_ALARM
    assert found.tells and found.warnings == ()
    assert (found.judged_right, found.accepted_right, found.accepted_wrong) == (20, 15, 3)


def test_intervals_hold_the_mean_over_questions_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    fits = [fit_judge(judged(random)) for _ in range(40)]
    for draws, mean in (("accept_right", 0.75), ("accept_wrong", 0.2)):
        below = np.array([(getattr(fit, draws) < mean).mean() for fit in fits])
        held = int(((below > 0.05) & (below < 0.95)).sum())
        assert stats.binomtest(held, len(fits), 0.9).pvalue > FALSE_ALARM
        # Were questions taken for alike, four verdicts would count for four.
        assert stats.kstest(below, "uniform").pvalue > FALSE_ALARM


def test_a_loop_that_ends_at_the_first_acceptance_does_not_bias_the_rates() -> None:
    off = []
    for seed in range(8):
        runs = judged(np.random.default_rng(seed), questions=300, answers=6)
        until = (np.cumsum(runs.verdicts, axis=1) - runs.verdicts) == 0
        correct, verdicts = (np.where(until, x, -1) for x in (runs.correct, runs.verdicts))
        found = fit_judge(Runs.from_arrays(correct, verdicts=verdicts))
        assert found.unjudged == 0
        for draws, mean in ((found.accept_right, 0.75), (found.accept_wrong, 0.2)):
            off.append((draws.mean() - mean) / draws.std())
    z = np.sum(np.reshape(off, (8, 2)), axis=0) / np.sqrt(8)
    assert (np.abs(z) < stats.norm.isf(FALSE_ALARM / 4)).all()


def voted(random, rho=0.4, votes=5, questions=80):
    """Runs whose answers were judged several times, with rates of their own."""
    found = []
    for q in range(questions):
        correct = (random.random(3) < 0.5).tolist()
        means = np.where(correct, 0.7, 0.2)
        rates = random.beta(means * (1 - rho) / rho, (1 - means) * (1 - rho) / rho)
        said = random.random((3, votes)) < rates[:, None]
        accepted = (said.sum(axis=1) > votes / 2).tolist()
        each = tuple(tuple(one) for one in said.tolist())
        run = Trajectory(question_id=str(q), correct=tuple(correct), votes=each)
        found.append(run.model_copy(update={"verdicts": tuple(accepted)}))
    return found


def test_the_correlation_of_votes_on_one_answer_is_estimated_where_they_are_repeated() -> None:
    random = np.random.default_rng(5)
    fits = [fit_judge(Runs.from_records(voted(random))) for _ in range(15)]
    for draws in ("votes_right", "votes_wrong"):
        below = np.array([(getattr(fit, draws) < 0.4).mean() for fit in fits])
        assert stats.kstest(below, "uniform").pvalue > FALSE_ALARM
    assert np.isnan(fit_judge(judged(random)).votes_right).all()
    once = [x.model_copy(update={"votes": ((), (), ())}) for x in voted(random)]
    assert np.isnan(fit_judge(Runs.from_records(once)).votes_wrong).all()


def test_the_correlation_of_votes_is_read_from_files_as_from_memory(tmp_path) -> None:
    path = tmp_path / "votes.jsonl"
    runs = voted(np.random.default_rng(7), questions=40)
    lines = [x.model_copy(update={"settings": {"judge_votes": 5}}).model_dump_json() for x in runs]
    path.write_text("\n".join(lines) + "\n")
    found = fit_judge(msjax.read(path))
    known = fit_judge(Runs.from_records(runs))
    np.testing.assert_array_equal(found.votes_right, known.votes_right)
    assert 0.2 < np.median(found.votes_right) < 0.65


@pytest.mark.parametrize(
    ("correct", "verdicts", "says"),
    [
        ([[1, 1], [1, 1]], [[1, 0], [1, 1]], "no wrong answer was judged"),
        ([[1, 0], [0, 1]], [[1, 1], [1, 1]], "accepts every answer"),
        ([[1, 0], [0, 1]], [[0, 0], [0, 0]], "rejects every answer"),
        ([[1, 0], [0, 1]] * 9, [[1, 0], [1, 0]] * 9, "not distinguishable from zero"),
        ([[1, 0], [0, 1]] * 9, [[0, 1], [1, 0]] * 9, "wrong answers more often than right"),
        ([[1, 0], [0, 1]] * 9, [[1, -1], [0, 1]] * 9, "9 answers have no verdict"),
    ],
)
def test_what_stands_in_the_way_is_said(correct, verdicts, says) -> None:
    found = fit_judge(Runs.from_arrays(correct, verdicts=verdicts))
    assert any(says in warning for warning in found.warnings), found.warnings


def test_without_verdicts_there_is_no_judge_and_other_values_are_refused() -> None:
    assert fit_judge(Runs.from_arrays([[1, 0]])) is None
    with pytest.raises(InputError, match=r"verdicts\[0, 1\] is 2; use 1 / 0"):
        Runs.from_arrays([[1, 0]], verdicts=[[1, 2]])


def test_the_threshold_of_a_score_is_the_one_worth_most_on_labelled_runs() -> None:
    random = np.random.default_rng(2)
    correct = random.random((300, 3)) < 0.4
    scores = random.normal(correct, 1.0).astype(np.float32)
    tokens = np.full(correct.shape, 100.0)
    runs = Runs.from_arrays(correct, scores=scores, tokens=tokens)

    def net(threshold, price):
        reached = scores >= threshold
        stop = np.where(reached.any(axis=1), reached.argmax(axis=1), 2)
        return (correct[np.arange(300), stop] - price * 100 * stop).mean()

    found = []
    for price in (0.0, 1e-3, 0.1):
        training = Training(
            runs, np.ones(300, bool), 1.0, price, PosteriorForRules(jax.random.key(0))
        )
        found.append(score_threshold(training))
        assert net(found[-1], price) >= max(net(t, price) for t in scores.ravel()[::7]) - 0.01
    assert found[0] > found[1] > found[2] == scores.min()  # a round that costs much is never asked
    rule = until_score(3, found[0])
    seen = Observation(np.arange(3), np.array([np.nan, found[0], 9.0]))
    assert int(run_rule(rule, seen).n_used) == 2
    with pytest.raises(InputError, match="threshold is nan; give a score to be reached"):
        until_score(3, np.nan)


def test_rules_learn_verdicts_and_scores_that_are_only_0_or_1_as_rates() -> None:
    runs = judged(np.random.default_rng(1), questions=200)

    def training(**scores):
        known = Runs.from_arrays(runs.correct, verdicts=runs.verdicts, **scores)
        return Training(known, np.ones(200, bool), 1.0, 0.0, PosteriorForRules(jax.random.key(0)))

    two_valued = score_distributions(training(scores=runs.verdicts.astype(float)))
    assert isinstance(two_valued, Judge)
    draws = judge_draws(training())
    for rate, learnt in zip(two_valued, draws, strict=True):
        assert float(rate) == pytest.approx(learnt.mean(), abs=0.01)
    graded = score_distributions(training(scores=0.2 + 0.5 * runs.verdicts))
    assert isinstance(graded, ScoreDistributions)


@pytest.fixture(scope="module")
def game24(real_data):
    """Rounds and samples of a model that is its own judge, at most ten answers each."""

    def read(name):
        lines = (real_data / "game24_llm_verifier" / name).read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return Runs.from_arrays(
            [row["correct"][:10] for row in rows],
            verdicts=[row["verifier_accepts"][:10] for row in rows],
            question_ids=[f"{row['question_id']}/{row.get('run', 0)}" for row in rows],
            cluster=[row["question_id"] for row in rows],
        )

    return read("trajectories.jsonl"), read("samples.jsonl")


def clustered(runs, value):
    """Mean over runs and its standard error, clusters being independent."""
    names = np.unique(np.array(runs.cluster), return_inverse=True)[1]
    totals, sizes = np.bincount(names, value - value.mean()), np.bincount(names)
    return value.mean(), np.sqrt((totals**2).sum()) / sizes.sum()


@pytest.mark.realdata
def test_the_four_rates_predict_what_loops_with_a_judge_did(game24) -> None:
    runs, samples = game24
    judge = fit_judge(runs)
    assert judge.tells and (judge.accepted_right, judge.judged_right) == (71, 209)
    (ii, ic), (ci, cc) = runs.transitions.sum(axis=0)
    assert [ic, ci] == [148, 108]
    rates = Judge(
        judge.accepted_right / judge.judged_right, judge.accepted_wrong / judge.judged_wrong
    )
    p0 = runs.first_right / runs.questions
    chain = TwoStateChain(p0, ic / (ii + ic), ci / (ci + cc))
    assert float(stationary_accuracy(chain)) < p0  # the chain alone says that revising hurts
    predicted = until_accepted(chain, rates, 9), resample_until_accepted(p0, rates, 10)
    for recorded, loop in zip((runs, samples), predicted, strict=True):
        last = recorded.right[np.arange(recorded.questions), recorded.recorded - 1]
        accepted = (recorded.verdicts == 1).any(axis=1)
        for seen, said in (
            (last, loop.accuracy),
            (last & accepted, loop.accepted_right),
            (recorded.recorded, loop.judge_calls),
        ):
            mean, error = clustered(recorded, np.asarray(seen, float))
            assert abs(mean - float(said)) < 3 * error
        assert last.mean() > 2 * p0


@pytest.mark.realdata
def test_a_sound_verifier_is_known_to_err_hardly_ever_and_its_loop_is_predicted(real_data) -> None:
    path = real_data / "planning_sound_verifier" / "trajectories.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    labels = [
        row["correct"]
        for row in rows
        if row["model"] == "o1-preview_chat" and row["benchmark"] == "PlanBench blocksworld_hard"
    ]
    # The label is the validator's verdict, so that no run shows what revising breaks.
    runs = Runs.from_arrays(labels, verdicts=labels, censored=True)
    judge = fit_judge(runs)
    assert judge.tells and judge.warnings == ()
    assert judge.false_accept.high < 0.05 and judge.false_reject.high < 0.05
    (ii, ic), (ci, cc) = runs.transitions.sum(axis=0)
    assert ci == cc == 0
    for damage in (0.0, 1.0):  # which does not matter: right answers are accepted
        chain = TwoStateChain(runs.first_right / runs.questions, ic / (ii + ic), damage)
        loop = until_accepted(chain, Judge(1.0, 0.0), runs.rounds)
        solved = runs.right.any(axis=1)
        error = np.sqrt(solved.mean() * (1 - solved.mean()) / len(solved))
        assert abs(float(loop.accuracy) - solved.mean()) < 3 * error


def judged_pool(rows, accepts):
    """What resampling did, and what rates that are alike, and those of each question, predict."""
    correct = np.array([row["correct"] for row in rows])
    runs = Runs.from_arrays(correct, verdicts=accepts(rows, correct), protocol="parallel")
    outcomes = policies_of(None, runs)
    done = [policy.name for policy in outcomes.policies].index("samples until accepted")
    right, wrong, accepted = runs.right, ~runs.right, runs.verdicts == 1

    def rates(axis):
        with np.errstate(invalid="ignore"):
            both = [(accepted & x).sum(axis) / x.sum(axis) for x in (right, wrong)]
        # Where a question has no answer of a class, its rate does not matter.
        return right.mean(axis), Judge(*(np.nan_to_num(x) for x in both))

    alike, each = (
        np.mean(resample_until_accepted(*rates(axis), runs.samples).accuracy) for axis in (None, 1)
    )
    return outcomes.right[:, done].mean(), alike, each, fit_judge(runs)


@pytest.mark.realdata
def test_loops_over_pools_are_predicted_by_questions_that_differ_and_not_by_ones_alike(
    real_data,
) -> None:
    def read(name):
        lines = (real_data / name / "pool.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def reward_above(share):
        def accepts(rows, _):
            scores = np.array([row["scores"] for row in rows])
            return scores >= np.quantile(scores, share)

        return accepts

    for share in (0.2, 0.5):
        observed, alike, each, judge = judged_pool(read("pool_math100_rm"), reward_above(share))
        assert judge.tells and judge.discrimination.low > 0.3
        assert abs(each - observed) < 0.01 and alike - observed > 0.06
    for variant in ("plain", "self-critique", "self-selection"):
        rows = [x for x in read("pool_humaneval_selfcritique") if x["variant"] == variant]
        observed, alike, each, judge = judged_pool(rows, lambda _, correct: correct)  # unit tests
        assert judge.discrimination.low > 0.9
        assert abs(each - observed) < 0.08 < 0.15 < alike - observed
