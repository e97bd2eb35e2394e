"""The cheapest policy that is no worse: exact levels by enumeration, and the walk."""

import bisect
import itertools
import math

import numpy as np
import pytest
from scipy.stats import multinomial

import simulate.guarantee as study
from msjax.data.runs import Runs
from msjax.decision.card import decide
from msjax.decision.guarantee import (
    betting_p_value,
    cheapest_no_worse,
    fewest_questions,
    guaranteed_policy,
    score_statistic,
    trinomial_p_value,
)
from msjax.errors import InputError


def counts_of(n):
    """All (broken, repaired) of n questions."""
    return [(a, b) for a in range(n + 1) for b in range(n + 1 - a)]


def probabilities(n, broken, repaired):
    """Of `counts_of(n)`, where a question breaks or is repaired with these probabilities."""
    shares = [broken, repaired, max(1 - broken - repaired, 0.0)]
    cells = [(a, b, n - a - b) for a, b in counts_of(n)]
    return multinomial.pmf(cells, n, shares)


def passed(n, eps, delta):
    """Which of `counts_of(n)` pass: those from a score on, found by bisection."""
    score = np.array([score_statistic(*pair, n, eps) for pair in counts_of(n)])
    order = np.argsort(-score)
    rejected = bisect.bisect_right(
        order, delta, key=lambda i: trinomial_p_value(*counts_of(n)[i], n, eps)
    )
    least = score[order[rejected - 1]] if rejected else np.inf
    return score >= least - 1e-9


def row(broken, repaired, n):
    return np.array([-1] * broken + [1] * repaired + [0] * (n - broken - repaired))


@pytest.mark.parametrize("eps", [0.03, 0.2])
def test_p_value_is_the_supremum_over_a_fine_grid(eps):
    n = 12
    score = np.array([score_statistic(*pair, n, eps) for pair in counts_of(n)])
    grid = (1 - eps) * np.linspace(0, 0.5, 801)
    mass = np.array([probabilities(n, q + eps, q) for q in grid])
    for pair, own in list(zip(counts_of(n), score, strict=True))[::7]:
        exact = mass[:, score >= own - 1e-9].sum(axis=1).max()
        p = trinomial_p_value(*pair, n, eps)
        assert exact * (1 - 1e-4) <= p <= min(exact * 1.0021 + 1.1e-5, 1.0)


@pytest.mark.parametrize("n, eps", [(6, 0.1), (20, 0.1), (50, 0.05)])
@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_the_level_holds_on_the_edge_of_the_null_and_inside(n, eps, delta):
    passing = passed(n, eps, delta)
    for repaired, loss in itertools.product((0, 0.01, 0.05, 0.2, 0.45), (eps, eps + 0.03, 0.3)):
        mass = probabilities(n, min(repaired + loss, 1 - repaired), repaired)
        assert mass[passing].sum() <= delta


@pytest.mark.parametrize("n, eps", [(1, 0.5), (7, 0.01), (40, 0.05), (60, 0.3), (60, 0.9)])
def test_score_falls_with_what_is_broken_and_rises_with_what_is_repaired(n, eps):
    a, b = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    score = np.where(a + b <= n, score_statistic(a, np.minimum(b, n - a), n, eps), np.nan)
    assert np.nanmax(np.diff(score, axis=0)) < 1e-12
    assert np.nanmin(np.diff(score, axis=1)) > -1e-12


def test_exact_test_is_far_sharper_than_betting_at_50_questions():
    n, eps, delta = 50, 0.05, 0.1
    mass = probabilities(n, 0.05, 0.05)
    betting = np.array([betting_p_value(row(*pair, n), eps) for pair in counts_of(n)])
    assert mass[passed(n, eps, delta)].sum() > 0.35
    assert mass[betting <= delta].sum() < 0.15


@pytest.mark.parametrize(
    "values, shares",
    [
        ((-1, 0.9), (0.55 / 0.95, 0.4 / 0.95)),
        ((-1, -0.1, 0.4), (0.3, 0.2, 0.5)),
        ((-0.2,), (1,)),
        ((-1, 0, 1), (0.2, 0.8, 0)),
    ],
)
def test_betting_keeps_its_level_by_enumeration(values, shares):
    shares = np.array(shares) / sum(shares)
    eps, n = -float(np.dot(values, shares)), 8
    assert eps > 0
    p = {}
    for chosen in itertools.combinations_with_replacement(range(len(values)), n):
        counts = np.bincount(chosen, minlength=len(values))
        p[tuple(counts)] = betting_p_value(np.array([values[i] for i in chosen], float), eps)
    mass = {counts: multinomial.pmf(counts, n, shares) for counts in p}
    assert sum(mass.values()) == pytest.approx(1)
    for delta in (0.01, 0.1, 0.3):
        assert sum(mass[x] for x in p if p[x] <= delta) <= delta


def test_the_walk_stops_at_the_first_that_may_be_worse():
    n = 100
    rows = np.array([row(0, 0, n), row(40, 0, n), row(0, 5, n), row(0, 0, n)])
    tokens = np.array([300.0, 200.0, 100.0, 400.0])
    found = cheapest_no_worse(rows, tokens, 400.0, eps=0.05, delta=0.1)
    assert found.chosen == 0 and found.order == (0, 1, 2)
    assert found.p_values[2] < 0.1 < found.p_values[1]
    # One that is as expensive as the reference is none to change to.
    assert np.isnan(found.p_values[3])
    without = cheapest_no_worse(
        np.delete(rows, 1, 0), np.delete(tokens, 1), 400.0, eps=0.05, delta=0.1
    )
    assert without.chosen == 1
    assert cheapest_no_worse(rows[1:2], tokens[:1], 400.0, eps=0.05, delta=0.1).chosen is None


@pytest.mark.parametrize("eps, delta", [(0.02, 0.1), (0.05, 0.1), (0.05, 0.05), (0.2, 0.1)])
def test_fewest_questions_are_those_that_can_pass_a_policy_that_never_differs(eps, delta):
    n = fewest_questions(eps, delta)
    assert (1 - eps) ** n <= delta < (1 - eps) ** (n - 1)
    for questions, chosen in ((n + 1, 0), (n - 1, None)):
        same = np.zeros((1, questions), dtype=int)
        assert cheapest_no_worse(same, np.ones(1), 2.0, eps=eps, delta=delta).chosen == chosen


def test_neither_order_nor_names_change_a_bit():
    random = np.random.default_rng(0)
    rows = random.choice([-0.4, 0.0, 0.1, 0.7], (2, 60))
    cluster = [f"c{i // 3}" for i in range(60)]
    terms = {"eps": 0.1, "delta": 0.1}
    mixed = random.permutation(60)
    for own in (None, cluster):
        one = cheapest_no_worse(rows, np.array([2, 1]), 3.0, cluster=own, **terms)
        other = cheapest_no_worse(
            rows[:, mixed], np.array([2, 1]), 3.0, cluster=own and [own[i] for i in mixed], **terms
        )
        assert one.p_values.tobytes() == other.p_values.tobytes()
        assert one.chosen == other.chosen
    assert one.units == 20


def test_clusters_count_once():
    once = np.array([row(2, 3, 40)])
    tokens = np.ones(1)
    terms = {"eps": 0.1, "delta": 0.1}
    alone = cheapest_no_worse(once, tokens, 2.0, cluster=range(40), **terms)
    assert alone.p_values == trinomial_p_value(2, 3, 40, 0.1)
    five = cheapest_no_worse(
        np.repeat(once, 5, axis=1), tokens, 2.0, cluster=np.repeat(range(40), 5).tolist(), **terms
    )
    assert five.units == 40
    assert five.p_values == betting_p_value(once[0].astype(float), 0.1)


@pytest.mark.parametrize("name", ["sticky answers", "clustered, on the edge"])
def test_the_study_chooses_what_the_function_chooses(name):
    """Its choices are made for many pilots at once."""
    eps, delta, pilots, questions, rounds = 0.1, 0.2, 12, 100, 3
    runs = study.DISTRIBUTIONS[name].draw(
        np.random.default_rng(0), (pilots, questions), rounds, eps
    )
    differences, asked = study.differences_and_answers(runs)
    tokens = asked.mean(axis=-1)
    score = score_statistic((differences < 0).sum(-1), (differences > 0).sum(-1), questions, eps)
    passes = score + 1e-9 >= study.least_score(questions, eps, delta)
    chosen = study.choose(passes, tokens, rounds + 1)
    for i in range(pilots):
        own = cheapest_no_worse(
            differences[:, i].astype(int), tokens[:, i], rounds + 1.0, eps=eps, delta=delta
        )
        assert chosen[i] == (len(tokens) if own.chosen is None else own.chosen)
    assert len(set(chosen.tolist())) > 1


def test_what_recorded_runs_guarantee():
    """Revising never changes a label here, so the first answer is as good, and cheapest."""
    right = np.repeat(np.arange(60)[:, None] % 2, 4, axis=1)
    answers = np.where(right, 0, 1 + np.arange(4))
    runs = Runs.from_arrays(right, answers=answers, tokens=np.full((60, 4), 10))
    terms = {"eps": 0.05, "delta": 0.1}

    def guaranteed(runs, **terms):
        one = decide(runs).single
        return guaranteed_policy(one.outcomes, one.judgement.baseline, **terms)

    found = guaranteed(runs, **terms)
    assert found.policy.name == "first" and found.reference.name == "3 rounds"
    assert found.saved == pytest.approx(0.75)
    assert "keep the first answer: its accuracy is below that of '3 rounds' by more" in str(found)
    tested = [one["policy"] for one in found.to_dict()["tested"]]
    assert tested[-1] == "first" and "2 rounds" in tested and "by belief" not in found.tested
    assert not any(name.startswith("majority") for name in found.tested)
    few = guaranteed(runs.take(np.arange(30)), **terms)
    assert few.policy is None and "30 questions or clusters; at least 45 are needed" in str(few)
    with pytest.raises(InputError, match="eps is 1.5"):
        guaranteed(runs, eps=1.5, delta=0.1)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"eps": 0.0}, "eps is 0.0; give a loss of accuracy in"),
        ({"eps": 1.0}, "eps is 1.0"),
        ({"eps": math.nan}, "eps is nan"),
        ({"delta": 0.0}, "delta is 0.0; give a probability in"),
        ({"differences": np.array([[0, 2]])}, r"differences\[0\]\[1\] is 2; the difference of two"),
        ({"differences": np.array([[0, np.nan]])}, r"differences\[0\]\[1\] is nan"),
        ({"differences": np.zeros((1, 0))}, r"differences has rows of shape \[\(0,\)\]"),
        ({"tokens": np.ones(2)}, r"tokens has shape \(2,\) for 1 policies"),
        ({"tokens": np.array([np.nan])}, r"tokens\[0\] is nan; give finite means"),
        ({"cluster": ["a"]}, "cluster has 1 entries for 2 questions"),
    ],
)
def test_bad_input(change, says):
    given = {"differences": np.zeros((1, 2), dtype=int), "tokens": np.ones(1)}
    with pytest.raises(InputError, match=says):
        cheapest_no_worse(**({**given, "reference_tokens": 2.0, "eps": 0.1, "delta": 0.1} | change))


def test_bad_counts():
    with pytest.raises(InputError, match="3 broken and 2 repaired of 4 questions"):
        trinomial_p_value(3, 2, 4, 0.1)
