"""Majority voting with a vote-margin stop: evidence, posterior, error and cost.

Rollouts vote for one of `classes` answers, independently of each other. Hypothesis H_j, "answer j
is right", says that a vote falls on j with probability `p_right` and on each other class with
probability `p_wrong`; before any vote all answers are equally likely. v_j is the number of votes
for answer j, L the leader and S the runner-up. docs/theory.md E derives everything.

Votes are counts along the last axis, classes without a vote included. The other arguments
broadcast against the remaining axes; `jit`, `vmap` and (where smooth) `grad` apply.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from msjax.errors import InputError, require, require_probability, require_uncertain
from msjax.theory._integers import smallest_integer

__all__ = [
    "VotesDistribution",
    "WaldTest",
    "class_posterior",
    "error_probability",
    "expected_votes",
    "leader_posterior",
    "log_bayes_factor",
    "log_bayes_factor_by_class",
    "margin_needed",
    "votes_distribution",
    "wald_two_class",
]

_STATE_LIMIT = 50_000

_MARGIN_BITS = 31


class VotesDistribution(NamedTuple):
    """Distribution of voting until the leader is a margin ahead, or the budget is spent.

    All are probabilities; `winner` and `undecided_leader` together sum to 1, and so does
    `stopped_at`.

    Attributes:
        stopped_at: P(voting ends with vote t) at `[t - 1]`; the last entry includes the runs that
            spend the budget without meeting the margin.
        winner: P(the margin is met and answer j leads) at `[j]`.
        undecided: P(the budget is spent and the margin not met).
        undecided_leader: `undecided`, split by the answer with most votes; answers that tie share
            equally.
    """

    stopped_at: Float[Array, "*batch max_votes"]
    winner: Float[Array, "*batch classes"]
    undecided: Float[Array, "*batch"]
    undecided_leader: Float[Array, "*batch classes"]


class WaldTest(NamedTuple):
    """Two classes and no budget: P(the wrong answer wins) and the expected number of votes."""

    error: Float[Array, "*batch"]
    expected_votes: Float[Array, "*batch"]


def log_bayes_factor(
    votes: Int[ArrayLike, "*batch classes"],
    p_right: Real[ArrayLike, "..."],
    p_wrong: Real[ArrayLike, "..."],
) -> Float[Array, "..."]:
    """Log evidence for the leader against the runner-up, (v_L - v_S) log(p_right / p_wrong).

    Args:
        votes: counts, integers >= 0, for two classes or more along the last axis.
        p_right: probability that a vote falls on the right answer, in (0, 1).
        p_wrong: probability that a vote falls on one given wrong answer, in (0, 1).

    Returns: log P(votes | H_L) - log P(votes | H_S), natural logarithm; 0 in a tie.

    Raises:
        InputError: negative counts, fewer than two classes, or a probability outside (0, 1).

    Reference: docs/theory.md E1; OptPO arXiv 2512.02882 (Lambda_t; equal error rates).
    """
    return _log_bayes_factor(_counts(votes), *_vote_probabilities(p_right, p_wrong))


def log_bayes_factor_by_class(
    votes: Int[ArrayLike, "*batch classes"],
    p_right: Real[ArrayLike, "..."],
    p_wrong: Real[ArrayLike, "rates"],
) -> Float[Array, "..."]:
    """The same where wrong answers attract votes unequally.

    (v_L - v_S) log p_right + v_S log p_wrong[S] - v_L log p_wrong[L]. It depends on more than the
    margin, and a leader whose votes are cheap (p_wrong[L] large) may have the evidence against it.

    Args:
        votes: counts, integers >= 0, for two classes or more along the last axis.
        p_right: probability that a vote falls on the right answer, in (0, 1).
        p_wrong: probability that a vote falls on answer c when c is wrong, in (0, 1), for each c.

    Returns: log P(votes | H_L) - log P(votes | H_S), natural logarithm. Of answers with equal
    counts the one of lower index comes first.

    Raises:
        InputError: negative counts, fewer than two classes, a probability outside (0, 1), or not
            one p_wrong per class.

    Reference: docs/theory.md E1; OptPO arXiv 2512.02882 (Lambda_t).
    """
    counts = _counts(votes)
    require_uncertain("p_right", p_right)
    require_uncertain("p_wrong", p_wrong)
    if jnp.shape(p_wrong) != counts.shape[-1:]:
        raise InputError(
            f"p_wrong has shape {jnp.shape(p_wrong)}; give one per class, {counts.shape[-1]}"
        )
    dtype = jnp.result_type(float, p_right, p_wrong)
    return _by_class(counts, jnp.asarray(p_right, dtype), jnp.asarray(p_wrong, dtype))


@jax.jit
def _by_class(
    counts: Int[Array, "*batch classes"],
    p_right: Float[Array, "..."],
    p_wrong: Float[Array, " classes"],
) -> Float[Array, "..."]:
    leaders, who = jax.lax.top_k(counts, 2)
    log_wrong, log_right = jnp.log(p_wrong)[who], jnp.log(p_right)[..., None]
    leaders, log_right, log_wrong = jnp.broadcast_arrays(leaders, log_right, log_wrong)
    evidence = leaders * (log_right - log_wrong)
    return evidence[..., 0] - evidence[..., 1]


def class_posterior(
    votes: Int[ArrayLike, "*batch classes"],
    p_right: Real[ArrayLike, "..."],
    p_wrong: Real[ArrayLike, "..."],
) -> Float[Array, "... classes"]:
    """Posterior of every answer, P(H_j | votes) proportional to (p_right / p_wrong)^v_j.

    Args:
        votes: counts, integers >= 0, for two classes or more along the last axis. Every answer
            that could be right needs its place, though it has no vote.
        p_right: probability that a vote falls on the right answer, in (0, 1).
        p_wrong: probability that a vote falls on one given wrong answer, in (0, 1).

    Returns: probabilities that sum to 1 along the last axis.

    Raises:
        InputError: negative counts, fewer than two classes, a probability outside (0, 1), or
            p_right + (classes - 1) p_wrong above 1.

    Reference: docs/theory.md E2; OptPO arXiv 2512.02882.
    """
    return _class_posterior(*_possible(votes, p_right, p_wrong))


def leader_posterior(
    votes: Int[ArrayLike, "*batch classes"],
    p_right: Real[ArrayLike, "..."],
    p_wrong: Real[ArrayLike, "..."],
) -> Float[Array, "..."]:
    """Posterior that the leader is right, 1 / (1 + sum_{j != L} (p_wrong / p_right)^(v_L - v_j)).

    Args: as for `class_posterior`.

    Returns: P(H_L | votes) (probability); in a tie that of any one of the leaders.

    Raises:
        InputError: as for `class_posterior`.

    Reference: docs/theory.md E2; OptPO arXiv 2512.02882 (its stop: this reaches a threshold).
    """
    return _leader_posterior(*_possible(votes, p_right, p_wrong))


def margin_needed(
    threshold: Real[ArrayLike, "..."],
    p_right: Real[ArrayLike, "..."],
    p_wrong: Real[ArrayLike, "..."],
) -> Int[Array, "..."]:
    """Lead at which the Bayes factor is reached, ceil(log threshold / log(p_right / p_wrong)).

    The smallest h with (p_right / p_wrong)^h >= threshold, met to within rounding of the inputs.

    Args:
        threshold: Bayes factor wanted, leader against runner-up, > 1.
        p_right: probability that a vote falls on the right answer, in (0, 1).
        p_wrong: probability that a vote falls on one given wrong answer, in (0, 1).

    Returns: int32 votes, >= 1; `UNBOUNDED` if p_right <= p_wrong, where votes for an answer are no
    evidence for it.

    Raises:
        InputError: a threshold <= 1 or not finite, or a probability outside (0, 1).

    Reference: docs/theory.md E3; OptPO arXiv 2512.02882.
    """
    require(
        "threshold", threshold, lambda x: (x > 1) & np.isfinite(x), "give a finite Bayes factor > 1"
    )
    right, wrong = _vote_probabilities(p_right, p_wrong)
    return _margin_needed(jnp.asarray(threshold, right.dtype), right, wrong)


@jax.jit
def _margin_needed(
    threshold: Float[Array, "..."], p_right: Float[Array, "..."], p_wrong: Float[Array, "..."]
) -> Int[Array, "..."]:
    log_ratio = _log_ratio(p_right, p_wrong)
    log_threshold, per_vote = jnp.broadcast_arrays(jnp.log(threshold), jnp.maximum(log_ratio, 0))
    exact = log_threshold / per_vote
    slack = jnp.finfo(exact.dtype).eps * exact * (4 + 1 / log_threshold + 2 / per_vote)
    return jnp.maximum(smallest_integer(exact, slack), 1)


def votes_distribution(
    vote_probabilities: Real[ArrayLike, "classes"], margin: int, max_votes: int
) -> VotesDistribution:
    """Exact distribution of voting until the leader is `margin` ahead, or `max_votes` are cast.

    By recursion over the vote counts that are still undecided. Whether to stop depends on
    differences of counts only, so counts are kept relative to the smallest of them.

    Args:
        vote_probabilities: probability that a vote falls on each answer, class 0 the right one;
            they sum to 1.
        margin: lead over the runner-up that ends the vote, >= 1 (static).
        max_votes: budget, >= 1 (static).

    Returns: `VotesDistribution`; differentiable in the vote probabilities.

    Raises:
        InputError: fewer than two classes, probabilities outside [0, 1] or of another sum, margin
            or max_votes < 1, or more than 50,000 undecided states.

    Reference: docs/theory.md E4; OptPO arXiv 2512.02882 (its stop, with equal error rates).
    """
    require("margin", margin, lambda x: x >= 1, "give a lead >= 1")
    require("max_votes", max_votes, lambda x: x >= 1, "give a budget >= 1")
    require(
        "vote_probabilities",
        vote_probabilities,
        lambda x: (x >= 0) & (x <= 1),
        "a probability must lie in [0, 1]",
    )
    chances = jnp.asarray(vote_probabilities, jnp.result_type(float, vote_probabilities))
    if chances.ndim != 1 or chances.size < 2:
        raise InputError(
            f"vote_probabilities has shape {chances.shape}; give a vector of two classes or more"
        )
    require(
        "the sum of vote_probabilities",
        jnp.sum(chances),
        lambda x: abs(x - 1) < 1e-5,
        "scale them to sum to 1",
    )
    return _run_votes(chances, _undecided_states(chances.size, margin, max_votes), max_votes)


def expected_votes(distribution: VotesDistribution) -> Float[Array, "*batch"]:
    """Expected number of votes cast, the sum of t P(voting ends with vote t).

    Returns: votes, of the distribution's batch shape.

    Reference: docs/theory.md E4.
    """
    cast = jnp.arange(1, distribution.stopped_at.shape[-1] + 1)
    return jnp.sum(
        distribution.stopped_at * jnp.broadcast_to(cast, distribution.stopped_at.shape), axis=-1
    )


def error_probability(distribution: VotesDistribution) -> Float[Array, "*batch"]:
    """Probability that the answer returned, the one with most votes, is not class 0.

    A tie at the budget is broken by lot: two tied answers count as half an error.

    Returns: probability, of the distribution's batch shape, accurate relative to its own size.

    Reference: docs/theory.md E4.
    """
    return jnp.sum((distribution.winner + distribution.undecided_leader)[..., 1:], axis=-1)


def wald_two_class(p_right: Real[ArrayLike, "..."], margin: Int[ArrayLike, "..."]) -> WaldTest:
    """Error and cost of voting between two answers until one leads by `margin`, without budget.

    error = 1 / (1 + (p/q)^h), expected votes = h (1 - 2 error) / (p - q), with p = p_right,
    q = 1 - p, h = margin; h^2 votes at p = 1/2. Exact: a lead grows by steps of one and so cannot
    overshoot, which makes Wald's approximations equalities.

    Args:
        p_right: probability that a vote falls on the right answer, in [0, 1], any shape.
        margin: lead that ends the vote, integers >= 1, any shape that broadcasts.

    Returns: `WaldTest` of the broadcast shape; correct and differentiable for every p_right.

    Raises:
        InputError: p_right outside [0, 1], or a margin < 1 or fractional.

    Reference: docs/theory.md E5; Wald, Sequential Analysis (1947).
    """
    require_probability("p_right", p_right)
    if not jnp.issubdtype(jnp.result_type(margin), jnp.integer):
        raise InputError(f"margin is {margin}; give a lead in votes as an integer")
    require("margin", margin, lambda x: x >= 1, "give a lead >= 1")
    right = jnp.asarray(p_right, jnp.result_type(float, p_right))
    return _wald_two_class(right, jnp.asarray(margin, jnp.int32))


@jax.jit
def _wald_two_class(p_right: Float[Array, "..."], margin: Int[Array, "..."]) -> WaldTest:
    right, lead = jnp.broadcast_arrays(p_right, margin)
    likely = right >= 0.5
    odds = jnp.where(likely, 1 - right, right) / jnp.where(likely, right, 1 - right)
    lost = odds**lead
    return WaldTest(
        error=jnp.where(likely, lost, 1) / (1 + lost),
        expected_votes=lead * _advantage(2 * right - 1, lead),
    )


class _Lattice(NamedTuple):
    """The undecided vote counts, relative to the smallest, numbered from the origin.

    Attributes:
        before: the state that a vote for each class leads here from; out of range if there is none.
        stops: whether a vote for each class ends the vote.
        leads: whether a class has as many votes as any.
    """

    before: Int[np.ndarray, "states classes"]
    stops: Bool[np.ndarray, "states classes"]
    leads: Bool[np.ndarray, "states classes"]


@functools.lru_cache(maxsize=16)
def _undecided_states(classes: int, margin: int, max_votes: int) -> _Lattice:
    """All states that `max_votes` votes can reach without a lead of `margin`."""
    origin = (0,) * classes
    number = {origin: 0}
    frontier = [origin]
    for _ in range(max_votes):
        reached = []
        for state in frontier:
            for voted in range(classes):
                counts = [count + (c == voted) for c, count in enumerate(state)]
                lead = counts[voted] - max(counts[:voted] + counts[voted + 1 :])
                smallest = min(counts)
                moved = tuple(count - smallest for count in counts)
                if lead < margin and moved not in number:
                    number[moved] = len(number)
                    reached.append(moved)
        if len(number) > _STATE_LIMIT:
            raise InputError(
                f"margin {margin}, max_votes {max_votes} and {classes} classes have more than "
                f"{_STATE_LIMIT} undecided states; lower max_votes, the margin or the classes"
            )
        frontier = reached
    states = np.array(list(number))
    before = np.empty(states.shape, np.int32)
    stops = np.empty(states.shape, bool)
    for voted in range(classes):
        counts = states - (np.arange(classes) == voted)
        counts -= counts.min(axis=1, keepdims=True)
        before[:, voted] = [number.get(tuple(c), len(number)) for c in counts.tolist()]
        others = np.delete(states, voted, axis=1).max(axis=1)
        stops[:, voted] = states[:, voted] + 1 - others >= margin
    return _Lattice(before, stops, leads=states == states.max(axis=1, keepdims=True))


@functools.partial(jax.jit, static_argnames="max_votes")
def _run_votes(
    chances: Float[Array, "classes"], lattice: _Lattice, max_votes: int
) -> VotesDistribution:
    def cast(here: Float[Array, "states"], _: None) -> tuple[Array, Array]:
        stopped = chances * jnp.sum(jnp.where(lattice.stops, here[:, None], 0), axis=0)
        came_from = here.at[lattice.before].get(mode="fill", fill_value=0)
        return jnp.sum(chances[None, :] * came_from, axis=1), stopped

    start = jnp.zeros(len(lattice.before), chances.dtype).at[0].set(1)
    undecided, stopped = jax.lax.scan(cast, start, length=max_votes)
    total = jnp.sum(undecided)
    of_each_leader = undecided / jnp.sum(lattice.leads, axis=1)
    return VotesDistribution(
        stopped_at=jnp.sum(stopped, axis=1).at[-1].add(total),
        winner=jnp.sum(stopped, axis=0),
        undecided=total,
        undecided_leader=jnp.sum(jnp.where(lattice.leads, of_each_leader[:, None], 0), axis=0),
    )


@jax.jit
def _advantage(edge: Float[Array, "*shape"], lead: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """tau_h = (p^h - q^h) / ((p^h + q^h) (p - q)) with p - q = edge, by the binary digits of h.

    edge tau_h = tanh(h atanh(edge)) adds like velocities: tau_1 = 1 and
    tau_{m+n} = (tau_m + tau_n) / (1 + edge^2 tau_m tau_n). Without a difference anywhere it is
    exact and smooth at p = q and at p = 1.
    """
    square = edge**2

    def double_and_add(i: Int[Array, ""], tau: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        tau = 2 * tau / (1 + square * tau**2)
        digit = (lead >> (_MARGIN_BITS - 1 - i)) & 1
        return jnp.where(digit == 1, (tau + 1) / (1 + square * tau), tau)

    return jax.lax.fori_loop(0, _MARGIN_BITS, double_and_add, jnp.zeros_like(edge))


def _counts(votes: ArrayLike) -> Int[Array, "*batch classes"]:
    """`votes` as an array, checked to be whole, non-negative and of two classes or more."""
    if not jnp.issubdtype(jnp.result_type(votes), jnp.integer):
        raise InputError(f"votes is {votes}; give counts as integers")
    require("votes", votes, lambda x: x >= 0, "give counts >= 0")
    if jnp.ndim(votes) == 0 or jnp.shape(votes)[-1] < 2:
        raise InputError(
            f"votes has shape {jnp.shape(votes)}; give counts of two classes or more, last axis"
        )
    return jnp.asarray(votes)


def _vote_probabilities(
    p_right: ArrayLike, p_wrong: ArrayLike
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The probabilities of a vote for a right and a given wrong answer, of one floating type."""
    # At 0 or 1 a single vote would rule an answer out for good, and two such votes every answer.
    require_uncertain("p_right", p_right)
    require_uncertain("p_wrong", p_wrong)
    dtype = jnp.result_type(float, p_right, p_wrong)
    return jnp.asarray(p_right, dtype), jnp.asarray(p_wrong, dtype)


def _possible(
    votes: ArrayLike, p_right: ArrayLike, p_wrong: ArrayLike
) -> tuple[Int[Array, "*batch classes"], Float[Array, "..."], Float[Array, "..."]]:
    """Votes and probabilities, checked to go together."""
    counts = _counts(votes)
    right, wrong = _vote_probabilities(p_right, p_wrong)
    require(
        "p_right + (classes - 1) p_wrong",
        _total(right, wrong, counts.shape[-1]),
        lambda x: x < 1 + 1e-5,
        "give as p_wrong the probability of one given wrong answer, not of all together",
    )
    return counts, right, wrong


@functools.partial(jax.jit, static_argnames="classes")
def _total(
    p_right: Float[Array, "..."], p_wrong: Float[Array, "..."], classes: int
) -> Float[Array, "..."]:
    right, wrong = jnp.broadcast_arrays(p_right, p_wrong)
    return right + (classes - 1) * wrong


def _log_ratio(p_right: Float[Array, "..."], p_wrong: Float[Array, "..."]) -> Float[Array, "..."]:
    """Evidence of one vote, log(p_right / p_wrong)."""
    right, wrong = jnp.broadcast_arrays(p_right, p_wrong)
    return jnp.log(right / wrong)


@jax.jit
def _log_bayes_factor(
    counts: Int[Array, "*batch classes"], p_right: Float[Array, "..."], p_wrong: Float[Array, "..."]
) -> Float[Array, "..."]:
    leaders, _ = jax.lax.top_k(counts, 2)
    margin, log_ratio = jnp.broadcast_arrays(
        leaders[..., 0] - leaders[..., 1], _log_ratio(p_right, p_wrong)
    )
    return margin * log_ratio


@jax.jit
def _class_posterior(
    counts: Int[Array, "*batch classes"], p_right: Float[Array, "..."], p_wrong: Float[Array, "..."]
) -> Float[Array, "... classes"]:
    return jax.nn.softmax(_log_odds_to_leader(counts, p_right, p_wrong), axis=-1)


@jax.jit
def _leader_posterior(
    counts: Int[Array, "*batch classes"], p_right: Float[Array, "..."], p_wrong: Float[Array, "..."]
) -> Float[Array, "..."]:
    return jnp.exp(-jax.nn.logsumexp(_log_odds_to_leader(counts, p_right, p_wrong), axis=-1))


def _log_odds_to_leader(
    counts: Int[Array, "*batch classes"], p_right: Float[Array, "..."], p_wrong: Float[Array, "..."]
) -> Float[Array, "... classes"]:
    """Log P(votes | H_j) - log P(votes | H_L) = (v_j - v_L) log(p_right / p_wrong), every j."""
    log_ratio = _log_ratio(p_right, p_wrong)
    lag = counts - jnp.max(counts, axis=-1, keepdims=True)
    lag, log_ratio = jnp.broadcast_arrays(lag, log_ratio[..., None])
    return lag * log_ratio
