"""Rules that count votes, against plain-Python accounts of what they are said to do."""

import functools
import math
from collections import Counter
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msjax.errors import InputError
from msjax.rules.audit import QUICK_COMPILE
from msjax.rules.fixed import answer_by, best_score, self_consistency, until_repeated
from msjax.rules.optpo import optpo, optpo_posterior
from msjax.rules.protocol import Observation
from msjax.rules.votes import (
    EASY,
    HARD,
    MEDIUM,
    asc,
    cast,
    certificate,
    consol,
    dsc,
    esc,
    first_answer_certificate,
    no_votes,
    predictive_evidence,
    standing,
    vote_margin,
)
from msjax.theory import voting

BUDGET = 24
QUICK = functools.partial(jax.jit, compiler_options=QUICK_COMPILE)


def by_first_appearance(labels) -> list[int]:
    """Answers as a rule sees them; negative labels are no answers."""
    known = {}
    return [-1 if x < 0 else known.setdefault(x, len(known)) for x in labels]


STREAMS = np.array(
    [
        by_first_appearance(stream)
        for p in ((0.7, 0.2, 0.1), (0.4, 0.3, 0.3))
        for stream in np.random.default_rng(5).choice([0, 1, 2], (60, BUDGET), p=p)
        - (np.random.default_rng(6).random((60, BUDGET)) < 0.1) * 9
    ]
)


def decisions(rule, answers, scores=None, beliefs=False):
    """Every decision along the streams, as if nobody had stopped."""
    answers = np.atleast_2d(np.asarray(answers, np.int32))
    scores = np.full(answers.shape, np.nan) if scores is None else np.atleast_2d(scores)
    scores = scores.astype(np.float32)

    def follow(answers, scores):
        seen = Observation(answers, scores, jnp.ones_like(scores))
        return jax.lax.scan(rule.update, rule.init(), seen)[1]

    return jax.tree.map(np.asarray, QUICK(jax.vmap(follow))(answers, scores))


def stops(rule, answers, scores=None):
    """Votes until the rule stops, and what it returns, for every stream."""
    says = decisions(rule, answers, scores)
    assert says.stop.any(axis=1).all()
    at = says.stop.argmax(axis=1)
    return at + 1, says.answer_id[np.arange(len(at)), at]


def prefix_counts(stream):
    """After each answer: votes, descending, and the leader by first appearance."""
    for t in range(1, len(stream) + 1):
        votes = Counter(x for x in stream[:t] if x >= 0)
        ranked = sorted(votes.items(), key=lambda pair: (-pair[1], pair[0]))
        first, second = ([n for _, n in ranked] + [0, 0])[:2]
        yield t, first, second, ranked[0][0] if ranked else -1


def expected(judge, streams=STREAMS, budget=BUDGET, min_samples=1):
    """The same from a judgement of the two largest counts."""
    found = []
    for stream in streams.tolist():
        for t, first, second, leader in prefix_counts(stream):
            if (judge(first, second) and t >= min_samples) or t == budget:
                found.append((t, leader))
                break
    return tuple(np.array(found).T)


def ahead(first: int, second: int) -> Fraction:
    """P(share > 1/2) under Beta(first + 1, second + 1), as a binomial sum."""
    n = first + second + 1
    return Fraction(sum(math.comb(n, k) for k in range(first + 1)), 2**n)


def sprt(first: int, second: int) -> bool:
    p1, alpha, beta = 0.5001, 0.05, 0.949976
    ratio = first * math.log(p1 / 0.5) + second * math.log((1 - p1) / 0.5)
    return ratio >= math.log((1 - beta) / alpha) or ratio <= math.log(beta / (1 - alpha))


@pytest.mark.parametrize(
    ("rule", "judge", "min_samples"),
    [
        (self_consistency(BUDGET), lambda a, b: False, 1),
        (vote_margin(BUDGET, 3), lambda a, b: a - b >= 3, 1),
        (vote_margin(BUDGET, 2, min_samples=9), lambda a, b: a - b >= 2, 9),
        (asc(BUDGET), lambda a, b: ahead(a, b) >= Fraction(19, 20), 1),
        (asc(BUDGET, 0.99), lambda a, b: ahead(a, b) >= Fraction(99, 100), 1),
        (consol(BUDGET), sprt, 1),
        (optpo(BUDGET, 0.5, 0.2, 20.0), lambda a, b: (a - b) * math.log(2.5) >= math.log(20), 1),
        (dsc(BUDGET, EASY), lambda a, b: True, 1),
        (dsc(BUDGET, MEDIUM), lambda a, b: ahead(a, b) >= Fraction(19, 20), 1),
        (dsc(BUDGET, HARD), lambda a, b: False, 1),
    ],
)
def test_rules_of_the_two_largest_counts(rule, judge, min_samples) -> None:
    for found, wanted in zip(
        stops(rule, STREAMS), expected(judge, min_samples=min_samples), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("rule", "votes"),
    [(asc(BUDGET), 4), (esc(BUDGET), 5), (consol(BUDGET), 3), (until_repeated(BUDGET, 2), 2)],
)
def test_votes_needed_if_all_agree(rule, votes) -> None:
    at, answer = stops(rule, np.zeros(BUDGET))
    assert (at[0], answer[0]) == (votes, 0)


def test_asc_reports_its_confidence() -> None:
    beliefs = decisions(asc(BUDGET), STREAMS[:5]).belief
    exact = [[float(ahead(a, b)) for _, a, b, _ in prefix_counts(s)] for s in STREAMS[:5].tolist()]
    np.testing.assert_allclose(beliefs, exact, rtol=1e-6)


def test_consol_accepts_a_long_tie() -> None:
    # Its lower bound: 632 votes each, where float32 knows the drift to a few votes.
    at, _ = stops(consol(1400), np.arange(1400) % 2)
    exact = next(n for n in range(1, 700) if sprt(n, n))
    assert exact == 632
    assert abs(at[0] - 2 * exact) <= 20


def test_optpo_is_the_margin_that_its_bayes_factor_needs() -> None:
    counts = np.array([[a, b, c] for a in range(9) for b in range(a + 1) for c in range(b + 1)])
    for p_right, p_wrong, threshold in ((0.5, 0.25, 8.0), (0.6, 0.1, 20.0), (0.45, 0.3, 3.0)):
        factor = np.asarray(voting.log_bayes_factor(counts, p_right, p_wrong))
        margin = voting.margin_needed(threshold, p_right, p_wrong)
        np.testing.assert_array_equal(
            counts[:, 0] - counts[:, 1] >= margin, factor >= math.log(threshold) * (1 - 1e-6)
        )
        found = stops(optpo(BUDGET, p_right, p_wrong, threshold), STREAMS)
        for a, b in zip(found, stops(vote_margin(BUDGET, margin), STREAMS), strict=True):
            np.testing.assert_array_equal(a, b)
    at, _ = stops(optpo(BUDGET, 0.2, 0.3), STREAMS)
    assert (at == BUDGET).all()


def test_optpo_posterior_is_the_posterior_of_the_leader() -> None:
    rule = optpo_posterior(BUDGET, 0.5, 0.1, classes=6, confidence=0.9)
    says = decisions(rule, STREAMS)
    counts = (STREAMS[:, :, None] == np.arange(6)).cumsum(axis=1)
    exact = np.asarray(voting.leader_posterior(counts, 0.5, 0.1))
    np.testing.assert_allclose(says.belief, exact, rtol=2e-5)
    np.testing.assert_array_equal(says.stop[:, :-1], (says.belief >= 0.9)[:, :-1])


def esc_by_hand(stream, window=5) -> tuple[int, int]:
    for t, _, _, leader in prefix_counts(stream):
        last = stream[t - window : t] if t % window == 0 else [-1]
        if (last[0] >= 0 and len(set(last)) == 1) or t == len(stream):
            return t, leader
    raise AssertionError


def repeated_by_hand(stream, times=3) -> tuple[int, int]:
    for t in range(1, len(stream) + 1):
        row = stream[max(t - times, 0) : t]
        if (len(row) == times and row[0] >= 0 and len(set(row)) == 1) or t == len(stream):
            return t, next((x for x in stream[:t][::-1] if x >= 0), -1)
    raise AssertionError


def certificate_by_hand(stream, predictive: bool, delta=0.05) -> tuple[int, int]:
    """The public procedure with ties by first appearance, one product after the other."""
    log_e, evidence = [0.0, 0.0], [[0, 0], [0, 0]]
    before = [-1, -1]
    for t, _, _, leader in prefix_counts(stream):
        vote = stream[t - 1]
        if vote >= 0 and before[0] >= 0:
            second = vote == before[1] or before[1] < 0
            against = (vote != before[0] and second, vote not in before)
            for k in range(2):
                won, lost = vote == before[0], against[k]
                if not (won or lost):
                    continue
                s, f = evidence[k]
                if predictive:
                    log_e[k] += math.log(
                        2 * (mean_above_half(s, f) if won else 1 - mean_above_half(s, f))
                    )
                evidence[k] = s, f = [s + won, f + lost]
                if not predictive:
                    q = min(max((s - won + 0.5) / (s + f), 0.50001), 0.99999)
                    log_e[k] = (s + f) * math.log(2) + s * math.log(q) + f * math.log(1 - q)
        if (min(log_e) >= math.log(1 / delta) and leader == before[0]) or t == len(stream):
            return t, leader
        ranked = sorted(
            Counter(x for x in stream[:t] if x >= 0).items(), key=lambda p: (-p[1], p[0])
        )
        before = ([x for x, _ in ranked] + [-1, -1])[:2]
    raise AssertionError


@functools.cache
def mean_above_half(s: int, f: int) -> float:
    """Mean of q under Beta(s + 1/2, f + 1/2) cut to (1/2, 1], q = sin^2 to tame the ends."""
    angle = math.pi / 4 + (np.arange(4000) + 0.5) * (math.pi / 4) / 4000
    weight = np.sin(angle) ** (2 * s) * np.cos(angle) ** (2 * f)
    return float((weight * np.sin(angle) ** 2).sum() / weight.sum())


@pytest.mark.parametrize(
    ("rule_of", "by_hand"),
    [
        (esc, esc_by_hand),
        (functools.partial(esc, window=3), functools.partial(esc_by_hand, window=3)),
        (functools.partial(until_repeated, times=3), repeated_by_hand),
        (
            functools.partial(certificate, predictive=False),
            functools.partial(certificate_by_hand, predictive=False),
        ),
        (certificate, functools.partial(certificate_by_hand, predictive=True)),
    ],
)
def test_rules_of_the_order_of_answers(rule_of, by_hand) -> None:
    at, answer = stops(rule_of(BUDGET), STREAMS)
    wanted = np.array([by_hand(stream) for stream in STREAMS.tolist()]).T
    np.testing.assert_array_equal(at, wanted[0])
    np.testing.assert_array_equal(answer, wanted[1])
    assert len(set(at.tolist())) > 2


def test_predictive_evidence_is_a_martingale_at_one_half_and_bets_on_the_leader() -> None:
    log_e = predictive_evidence(40).astype(np.float64)
    now, won, lost = log_e[:-1, :-1], log_e[1:, :-1], log_e[:-1, 1:]
    assert log_e[0, 0] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(np.logaddexp(won, lost) - math.log(2), now, atol=2e-5)
    assert (won > lost).all()


def test_first_answer_certificate_bets_on_the_first_answer() -> None:
    at, answer = stops(first_answer_certificate(BUDGET), [[-1, *[0] * 23], [-1] * 24])
    assert at.tolist() == [8, 24]
    assert answer.tolist() == [0, -1]


def test_best_score_takes_the_earliest_of_the_highest() -> None:
    nan = np.nan
    answers = [[0, 1, 2, 1], [0, -1, 1, 1], [0, 1, -1, -1], [-1, -1, -1, -1]]
    scores = np.array([[0.2, 0.7, 0.7, 0.1], [0.2, 0.9, nan, 0.3], [nan] * 4, [0.5] * 4])
    at, answer = stops(best_score(4), answers, jnp.asarray(scores, jnp.float32))
    assert at.tolist() == [4] * 4
    assert answer.tolist() == [1, 1, -1, -1]


def test_no_answer_counts_toward_the_budget_and_never_wins() -> None:
    votes = no_votes(5)
    for answer in (-1, -1, -1, 0):
        votes = cast(votes, jnp.int32(answer))
    now = standing(votes)
    assert (int(votes.asked), int(now.leader), int(now.runner_up), int(now.lead)) == (4, 0, -1, 1)
    for rule in (self_consistency(4), asc(4), esc(4, 2), vote_margin(4, 2), until_repeated(4, 2)):
        at, answer = stops(rule, [[-1, -1, -1, -1], [-1, -1, 0, -1]])
        assert at.tolist() == [4, 4]
        assert answer.tolist() == [-1, 0]


def test_an_answer_without_a_place_is_refused_not_dropped() -> None:
    rule = self_consistency(3)
    seen = Observation(jnp.int32(3), jnp.float32(jnp.nan), jnp.float32(1))
    with pytest.raises(InputError, match="answer_id is 3; number answers from 0"):
        rule.update(rule.init(), seen)


@pytest.mark.parametrize(("by", "answer"), [("last", 2), ("majority", 1), ("best_score", 0)])
def test_another_answer_for_the_same_stop(by, answer) -> None:
    scores = jnp.array([[0.9, 0.1, 0.9, 0.2, 0.95, 1.0]], jnp.float32)
    rule = answer_by(vote_margin(5, 4), by, 5)
    at, found = stops(rule, [[0, 1, 1, 2, -1, 0]], scores)
    assert (at[0], found[0]) == (5, answer)


def test_answer_by_score_prefers_the_belief_of_the_rule() -> None:
    # Belief peaks at vote 3, when answer 0 leads 3 : 0; answer 1 then takes the lead.
    stream = [0, 0, 0, 1, 1, 1, 1]
    assert stops(asc(7, 0.999), [stream])[1][0] == 1
    assert stops(answer_by(asc(7, 0.999), "best_score", 7), [stream])[1][0] == 0


@pytest.mark.slow
def test_thresholds_may_be_traced() -> None:
    stream = jnp.asarray(STREAMS[0], jnp.int32)
    nan = jnp.full(stream.shape, jnp.nan)

    def stop_with(threshold: jax.Array, margin: jax.Array) -> tuple[jax.Array, ...]:
        rules = (
            asc(BUDGET, threshold),
            optpo(BUDGET, threshold, threshold / 4, 20.0),
            vote_margin(BUDGET, margin),
            until_repeated(BUDGET, margin),
            certificate(BUDGET, 1 - threshold),
            dsc(BUDGET, margin, threshold),
        )
        scans = [
            jax.lax.scan(rule.update, rule.init(), Observation(stream, nan, nan))[1]
            for rule in rules
        ]
        return tuple(jnp.argmax(says.stop) for says in scans)

    traced = jax.jit(jax.vmap(stop_with))(jnp.array([0.7, 0.95]), jnp.array([1, 2]))
    for i, (threshold, margin) in enumerate(((0.7, 1), (0.95, 2))):
        plain = stop_with(threshold, margin)
        assert [int(found[i]) for found in traced] == [int(found) for found in plain]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: self_consistency(0), "budget is 0"),
        (lambda: best_score(0), "budget is 0"),
        (lambda: esc(0), "budget is 0"),
        (lambda: esc(5, 0), "window is 0"),
        (lambda: vote_margin(5, 0), "margin is 0"),
        (lambda: vote_margin(5, 2, min_samples=6), r"min_samples is 6; give 1 to 5"),
        (lambda: optpo(5, 0.5, 0.2, min_samples=6), "min_samples is 6"),
        (lambda: optpo(5, 0.5, 0.2, 1.0), "threshold is 1.0"),
        (lambda: optpo(5, 1.5, 0.2), "p_right is 1.5"),
        (lambda: optpo_posterior(5, 0.5, 0.4, 3), r"p_right \+ \(classes - 1\) p_wrong is 1.3"),
        (lambda: optpo_posterior(5, 0.5, 0.4, 1), "classes is 1"),
        (lambda: optpo_posterior(5, 0.5, 0.4, 2, math.nan), "confidence is nan"),
        (lambda: asc(5, 1.0), "threshold is 1.0"),
        (lambda: asc(5, math.nan), "threshold is nan"),
        (lambda: asc(0), "budget is 0"),
        (lambda: dsc(5, 3), "difficulty is 3"),
        (lambda: consol(5, 0.5), "p1 is 0.5"),
        (lambda: consol(5, alpha=0.6, beta=0.5), r"alpha \+ beta is 1.1"),
        (lambda: certificate(5, 0.0), "delta is 0.0"),
        (lambda: until_repeated(5, 0), "times is 0"),
        (lambda: answer_by(esc(5), "majority", 0), "budget is 0"),
    ],
)
def test_bad_input_is_named(make, message) -> None:
    with pytest.raises(InputError, match=message):
        make()
