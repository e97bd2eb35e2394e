"""Rules that count votes: what votes show, and when that is taken to be enough.

A vote is an answer that is not -1. Every answer counts toward the budget, -1 included, but -1 wins
nothing. Of answers with equal counts the one seen first comes first. With a budget of M answers
there are at most M different ones, so M counters hold every vote.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real
from scipy import special

from msjax.errors import require, require_uncertain
from msjax.rules.protocol import Decision, Observation, StoppingRule

__all__ = [
    "EASY",
    "HARD",
    "MEDIUM",
    "Standing",
    "Votes",
    "asc",
    "cast",
    "certificate",
    "consol",
    "counting_rule",
    "dsc",
    "esc",
    "first_answer_certificate",
    "no_belief",
    "no_votes",
    "require_budget",
    "standing",
    "vote_margin",
]

EASY, MEDIUM, HARD = 0, 1, 2
"""Difficulties that `dsc` is told."""


class Votes(NamedTuple):
    """What was answered so far.

    Attributes:
        counts: votes for each answer, by `answer_id`.
        asked: answers so far, those that gave no answer included.
    """

    counts: Int[Array, "budget"]
    asked: Int[Array, ""]


class Standing(NamedTuple):
    """The two answers with most votes, and how many; -1 and 0 where there is none."""

    leader: Int[Array, ""]
    runner_up: Int[Array, ""]
    first: Int[Array, ""]
    second: Int[Array, ""]

    @property
    def lead(self) -> Int[Array, ""]:
        """Votes by which the leader is ahead."""
        return self.first - self.second


def no_votes(budget: int) -> Votes:
    """Before the first of at most `budget` answers."""
    return Votes(jnp.zeros(budget, jnp.int32), jnp.int32(0))


def cast(votes: Votes, answer_id: Int[Array, ""]) -> Votes:
    """One more answer.

    Raises:
        InputError: an answer_id the counters have no place for (known only outside `jit`; within
            the budget, answers numbered by first appearance never are).
    """
    places = votes.counts.shape[0]
    require(
        "answer_id",
        answer_id,
        lambda x: (x >= -1) & (x < places),
        f"number answers from 0 by first appearance, -1 for none; the budget is {places}",
    )
    voted = jnp.arange(places) == answer_id
    return Votes(votes.counts + voted.astype(jnp.int32), votes.asked + 1)


def standing(votes: Votes) -> Standing:
    """Who leads, who is next; of equal counts the one seen first."""
    counts = votes.counts
    first = jnp.max(counts)
    leader = jnp.where(first > 0, jnp.argmax(counts), -1).astype(jnp.int32)
    others = jnp.where(jnp.arange(counts.shape[0]) == leader, 0, counts)
    second = jnp.max(others)
    runner_up = jnp.where(second > 0, jnp.argmax(others), -1).astype(jnp.int32)
    return Standing(leader, runner_up, first, second)


def counting_rule(
    budget: int,
    judge: Callable[[Votes, Standing], tuple[Bool[Array, ""], Float[Array, ""]]],
    min_samples: int = 1,
) -> StoppingRule:
    """A rule that looks at vote counts alone and returns the leader.

    Args:
        budget: the most answers; the rule stops there in any case.
        judge: whether the votes are enough, and the belief to report.
        min_samples: answers wanted in any case.

    Raises:
        InputError: a budget < 1, or not 1 <= min_samples <= budget.
    """
    require_budget(budget)
    require(
        "min_samples",
        min_samples,
        lambda x: (x >= 1) & (x <= budget),
        f"give 1 to {budget} (budget)",
    )

    def update(before: Votes, seen: Observation) -> tuple[Votes, Decision]:
        votes = cast(before, seen.answer_id)
        now = standing(votes)
        enough, belief = judge(votes, now)
        stop = (enough & (votes.asked >= min_samples)) | (votes.asked >= budget)
        return votes, Decision(stop, now.leader, belief)

    return StoppingRule(lambda: no_votes(budget), update)


def vote_margin(budget: int, margin: Int[Array, ""] | int, min_samples: int = 1) -> StoppingRule:
    """Stop when the leader is `margin` votes ahead of the runner-up, v_1 - v_2 >= margin.

    Args:
        budget: the most answers.
        margin: lead in votes, >= 1.
        min_samples: answers wanted in any case.

    Raises:
        InputError: a margin < 1, a budget < 1, or not 1 <= min_samples <= budget.

    Reference: docs/theory.md E4.
    """
    require("margin", margin, lambda x: x >= 1, "give a lead in votes >= 1")
    return counting_rule(budget, lambda votes, now: (now.lead >= margin, no_belief()), min_samples)


def asc(budget: int, threshold: Real[Array, ""] | float = 0.95) -> StoppingRule:
    """Adaptive-Consistency: stop when P(the leader beats the runner-up) >= threshold.

    With v_1 >= v_2 votes and a uniform prior on the leader's share of them, that probability is
    1 - I_{1/2}(v_1 + 1, v_2 + 1), the share being above one half; it is the belief reported. It
    is about which of two answers the model gives more often, not about which is right. It depends
    on counts only, so it is read from a table.

    Args:
        budget: the most answers.
        threshold: probability wanted, in (0, 1).

    Raises:
        InputError: a budget < 1 or a threshold outside (0, 1).

    Reference: Adaptive-Consistency (arXiv 2305.11860), its "beta" criterion.
    """
    require_uncertain("threshold", threshold)
    confidence = _leader_ahead(budget)

    def judge(votes: Votes, now: Standing) -> tuple[Bool[Array, ""], Float[Array, ""]]:
        belief = jnp.asarray(confidence)[now.first, now.second]
        return belief >= threshold, belief

    return counting_rule(budget, judge)


def dsc(
    budget: int,
    difficulty: Int[Array, ""] | int,
    threshold: Real[Array, ""] | float = 0.95,
) -> StoppingRule:
    """Difficulty-adaptive self-consistency: EASY asks once, HARD asks `budget` times, else ASC.

    **Free information**: `difficulty` is not seen by the rule but given to it. In the public
    comparisons it is the question's rank by the verifier scores of *all* samples, also those the
    rule then does not pay for. Count what it costs to know it.

    Args:
        budget: the most answers.
        difficulty: EASY, MEDIUM or HARD.
        threshold: as for `asc`.

    Raises:
        InputError: a budget < 1, another difficulty, or a threshold outside (0, 1).

    Reference: DSC (arXiv 2408.13457).
    """
    require(
        "difficulty",
        difficulty,
        lambda x: (x == 0) | (x == 1) | (x == 2),
        "give EASY, MEDIUM, HARD",
    )
    require_uncertain("threshold", threshold)
    confidence = _leader_ahead(budget)

    def judge(votes: Votes, now: Standing) -> tuple[Bool[Array, ""], Float[Array, ""]]:
        belief = jnp.asarray(confidence)[now.first, now.second]
        adaptive = (difficulty == MEDIUM) & (belief >= threshold)
        return adaptive | (difficulty == EASY), belief

    return counting_rule(budget, judge)


def consol(
    budget: int,
    p1: Real[Array, ""] | float = 0.5001,
    alpha: Real[Array, ""] | float = 0.05,
    beta: Real[Array, ""] | float = 0.949976,
) -> StoppingRule:
    """ConSol's sequential probability ratio test of leader against runner-up.

    log LR = v_1 log(2 p1) + v_2 log(2 (1 - p1)); stop at >= log((1 - beta) / alpha) or at
    <= log(beta / (1 - alpha)). The constants of the public code make it "stop at a lead of 3": one
    vote of lead weighs 2.0e-4 and 4.8e-4 are wanted; the lower bound takes a tie of 632 votes each.

    Args:
        budget: the most answers.
        p1: share of the leader's votes under the alternative, in (1/2, 1).
        alpha: nominal error of the first kind, in (0, 1).
        beta: nominal error of the second kind, in (0, 1); alpha + beta < 1.

    Raises:
        InputError: a budget < 1, or p1, alpha or beta outside these ranges.

    Reference: ConSol (arXiv 2503.17587).
    """
    require("p1", p1, lambda x: (x > 0.5) & (x < 1), "give a share in (1/2, 1)")
    require_uncertain("alpha", alpha)
    require_uncertain("beta", beta)
    require("alpha + beta", alpha + beta, lambda x: x < 1, "the two errors sum to less than 1")
    # log(2 p1) and log(2 (1 - p1)) nearly cancel; their half-difference and half-sum do not.
    edge = 2 * p1 - 1
    per_lead, per_vote = jnp.arctanh(edge), jnp.log1p(-(edge**2)) / 2
    upper, lower = jnp.log((1 - beta) / alpha), jnp.log(beta / (1 - alpha))

    def judge(votes: Votes, now: Standing) -> tuple[Bool[Array, ""], Float[Array, ""]]:
        log_ratio = now.lead * per_lead + (now.first + now.second) * per_vote
        return (log_ratio >= upper) | (log_ratio <= lower), no_belief()

    return counting_rule(budget, judge)


class _Window(NamedTuple):
    """Votes, and the answer that all of the present window gave; -1 if they differ."""

    votes: Votes
    shared: Int[Array, ""]


def esc(budget: int, window: int = 5) -> StoppingRule:
    """Early-stopping self-consistency: stop after a unanimous window, return the majority of all.

    Windows of `window` answers follow one another without overlap. No answer breaks unanimity.

    Args:
        budget: the most answers.
        window: answers per window, >= 1.

    Raises:
        InputError: a budget or a window < 1.

    Reference: ESC (arXiv 2401.10480).
    """
    require_budget(budget)
    require("window", window, lambda x: x >= 1, "give a number of answers >= 1")

    def update(before: _Window, seen: Observation) -> tuple[_Window, Decision]:
        votes = cast(before.votes, seen.answer_id)
        starts = before.votes.asked % window == 0
        agrees = starts | (before.shared == seen.answer_id)
        shared = jnp.where(agrees, seen.answer_id, -1).astype(jnp.int32)
        ends = votes.asked % window == 0
        stop = (ends & (shared >= 0)) | (votes.asked >= budget)
        return _Window(votes, shared), Decision(stop, standing(votes).leader, no_belief())

    return StoppingRule(lambda: _Window(no_votes(budget), jnp.int32(-1)), update)


class _Process(NamedTuple):
    """One e-process: votes for and against the leader of the time, and whether the last was for.

    It stays where it was at a vote that is neither.
    """

    wins: Int[Array, ""]
    losses: Int[Array, ""]
    won: Bool[Array, ""]


class _Certificate(NamedTuple):
    """Votes, and the leader's evidence against the runner-up and against all others."""

    votes: Votes
    pair: _Process
    rest: _Process


def certificate(
    budget: int, delta: Real[Array, ""] | float = 0.05, predictive: bool = True
) -> StoppingRule:
    """Martingale Majority Certificate: stop when two e-processes both reach 1 / delta.

    One sets the leader against the runner-up, the other against all remaining answers; leader and
    runner-up are those before the vote, so the bet is placed before it is seen. While there is no
    runner-up a new answer counts against the leader in both. The leader has to be the same after
    the vote. A process with s votes for and f against the leader is

    - predictive: the product of 2 q_t (for) or 2 (1 - q_t) (against), q_t the mean of q given the
      votes *before* t under a Beta(1/2, 1/2) prior cut to (1/2, 1]; equal to
      2^(s + f) E[q^s (1 - q)^f], so that counts suffice. If every vote falls on the leader with
      probability 1/2 its expectation stays 1, and it ever reaches 1 / delta with probability at
      most delta (Ville), however long one goes on.
    - else, as the public code computes it: 2^(s + f) q^s (1 - q)^f with the newest plug-in
      q = (s' + 1/2) / (s' + f' + 1), kept within (.50001, .99999), s' and f' being s and f before
      this vote. It recomputes past factors with what came later, so it is no martingale.

    Args:
        budget: the most answers. If it is spent without a certificate the leader is returned.
        delta: claimed probability of certifying at chance level, in (0, 1).
        predictive: whether past factors stay as they were.

    Raises:
        InputError: a budget < 1 or delta outside (0, 1).

    Reference: Certified Self-Consistency (arXiv 2510.17472).
    """
    reaches = _reaches(budget, delta, predictive)

    def update(before: _Certificate, seen: Observation) -> tuple[_Certificate, Decision]:
        votes, was = cast(before.votes, seen.answer_id), standing(before.votes)
        voted = seen.answer_id
        counted = (voted >= 0) & (was.leader >= 0)
        won = counted & (voted == was.leader)
        second = (voted == was.runner_up) | (was.runner_up < 0)
        pair = _bet(before.pair, won, counted & ~won & second)
        rest = _bet(before.rest, won, counted & ~won & (voted != was.runner_up))
        leader = standing(votes).leader
        certified = reaches(pair) & reaches(rest) & (leader == was.leader)
        stop = certified | (votes.asked >= budget)
        return _Certificate(votes, pair, rest), Decision(stop, leader, no_belief())

    return StoppingRule(lambda: _Certificate(no_votes(budget), _fresh(), _fresh()), update)


class _Candidate(NamedTuple):
    """Whether an answer was given yet, its process, and the answers so far."""

    named: Bool[Array, ""]
    process: _Process
    asked: Int[Array, ""]


def first_answer_certificate(
    budget: int, delta: Real[Array, ""] | float = 0.05, predictive: bool = True
) -> StoppingRule:
    """One e-process of `certificate` alone: stop when the first answer beats all others together.

    The candidate is fixed, which `certificate` does not do. But wherever every vote falls on the
    leader with probability 1/2, whoever leads, the two processes have the same distribution, and
    this one has few states: it is what the null of `certificate` is audited by.

    Args, Raises: as for `certificate`. The first answer is returned in any case.

    Reference: Certified Self-Consistency (arXiv 2510.17472).
    """
    reaches = _reaches(budget, delta, predictive)

    def update(before: _Candidate, seen: Observation) -> tuple[_Candidate, Decision]:
        voted = seen.answer_id
        process = _bet(before.process, before.named & (voted == 0), before.named & (voted > 0))
        now = _Candidate(before.named | (voted >= 0), process, before.asked + 1)
        answer = jnp.where(now.named, 0, -1).astype(jnp.int32)
        return now, Decision(reaches(process) | (now.asked >= budget), answer, no_belief())

    return StoppingRule(lambda: _Candidate(jnp.bool_(False), _fresh(), jnp.int32(0)), update)


def require_budget(budget: int) -> None:
    """Raise `InputError` unless at least one answer may be asked for."""
    require("budget", budget, lambda x: x >= 1, "give the most answers as a number >= 1")


def _fresh() -> _Process:
    return _Process(jnp.int32(0), jnp.int32(0), jnp.bool_(False))


def _bet(before: _Process, won: Bool[Array, ""], lost: Bool[Array, ""]) -> _Process:
    """The process after a vote for or against the leader, or neither."""
    last = jnp.where(won | lost, won, before.won)
    return _Process(before.wins + won, before.losses + lost, last)


def _reaches(
    budget: int, delta: Real[Array, ""] | float, predictive: bool
) -> Callable[[_Process], Bool[Array, ""]]:
    """Whether a process is at 1 / delta or above."""
    require_budget(budget)
    require_uncertain("delta", delta)
    bar = -jnp.log(jnp.asarray(delta, jnp.result_type(float)))
    evidence = predictive_evidence(budget) if predictive else None

    def reaches(now: _Process) -> Bool[Array, ""]:
        wins, losses = now.wins, now.losses
        if evidence is not None:
            return jnp.asarray(evidence)[wins, losses] >= bar
        # Counts before the last vote; before the first there is no evidence whatever q is.
        q = (wins - now.won + 0.5) / jnp.maximum(wins + losses, 1)
        q = jnp.clip(q, 0.50001, 0.99999)
        return wins * jnp.log(2 * q) + losses * jnp.log(2 * (1 - q)) >= bar

    return reaches


def no_belief() -> Float[Array, ""]:
    """What a rule without a belief reports, NaN."""
    return jnp.float32(jnp.nan)


@functools.lru_cache(maxsize=8)
def _leader_ahead(budget: int) -> Float[np.ndarray, "first second"]:
    """1 - I_{1/2}(first + 1, second + 1) for all counts."""
    require_budget(budget)
    first, second = np.mgrid[: budget + 1, : budget + 1]
    return special.betainc(second + 1, first + 1, 0.5).astype(np.float32)


@functools.lru_cache(maxsize=8)
def predictive_evidence(budget: int) -> Float[np.ndarray, "wins losses"]:
    """Log of 2^(s + f) E[q^s (1 - q)^f], q ~ Beta(1/2, 1/2) cut to (1/2, 1]."""
    s, f = np.mgrid[: budget + 1, : budget + 1]
    kept = special.betainc(f + 0.5, s + 0.5, 0.5)  # mass above 1/2 of Beta(s + 1/2, f + 1/2)
    with np.errstate(divide="ignore"):  # beyond a thousand votes against: no mass, no evidence
        log_mass = special.betaln(s + 0.5, f + 0.5) + np.log(kept)
    return ((s + f) * math.log(2) + log_mass - math.log(math.pi / 2)).astype(np.float32)
