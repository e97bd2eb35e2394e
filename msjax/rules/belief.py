"""Rules that follow P(this answer is right), question by question, from what was seen of it.

What may be seen of a revision is a verifier's score, a judge's verdict and whether the answer
changed. Each comes with a distribution given the states before and after (`SignalDistribution`),
and the belief is the filter of the hidden chain (docs/theory.md C2, H5). Parameters may be
posterior draws: every draw then has a belief of its own and a weight, the likelihood of what this
question showed.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import beta as beta_distribution
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from msjax.errors import InputError, require, require_probability, require_value_and_cost
from msjax.rules.protocol import Decision, Observation, StoppingRule
from msjax.theory.chain import TwoStateChain
from msjax.theory.judge import Judge
from msjax.theory.score_fits import BetaScores

__all__ = [
    "NOISE",
    "ScoreDistributions",
    "SignalDistribution",
    "belief_programme",
    "belief_rule",
    "round_costs",
]

_SCORE_MARGIN = 1e-3
"""Scores are brought so far inside (0, 1), where Beta densities are finite."""
NOISE = 1e-6
"""Gains below so many values of a correct answer are rounding."""


class ScoreDistributions(NamedTuple):
    """Distributions of a score in [0, 1] of right and of wrong answers, as of `fit_beta`."""

    right: BetaScores
    wrong: BetaScores


class SignalDistribution(NamedTuple):
    """What is seen of an answer, and its distribution given whether the answers before and now are
    right.

    Attributes:
        keep_wrong: rho, probability that a revision from wrong to wrong keeps the answer, scalar or
            [draw]; None: changes are not looked at. C -> C keeps the answer, I -> C and C -> I
            change it.
        scores: distributions of the verifier's score; of one that is 0 or 1, how often it is 1, as
            a `Judge`, for no density describes it; None: scores are not looked at.
        verdicts: rates of the judge, scalars or [draw]; None: verdicts are not looked at.
    """

    keep_wrong: Real[ArrayLike, "*draw"] | None = None
    scores: ScoreDistributions | Judge | None = None
    verdicts: Judge | None = None


NOTHING = SignalDistribution()
"""Neither changes nor scores nor verdicts are looked at."""


class _Seen(NamedTuple):
    """State: answers so far, the last one, and per draw its belief and log weight."""

    answers: Int[Array, ""]
    last: Int[Array, ""]
    belief: Float[Array, " draw"]
    log_weight: Float[Array, " draw"]


def belief_rule(
    chain: TwoStateChain,
    tokens_per_round: Float[Array | np.ndarray, " rounds"],
    signals: SignalDistribution = NOTHING,
    *,
    value: float = 1.0,
    price: Real[ArrayLike, ""],
) -> StoppingRule:
    """Revise while some number of further revisions is expected to pay for what was seen so far.

    With b_d the belief under draw d and w_d its weight, revise once more iff for some j

        V sum_d w_d [(pi_d - b_d) (1 - r_d^j)] > price * (tokens of the next j rounds),

    the gain of j revisions of which nothing more is seen. One draw is the plug-in rule; several
    average over what is not known of the rates, and w_d is proportional to the probability of what
    this question showed. Without signals the rule is `markovscale.posterior_rounds` for one chain.
    The last answer is returned. A missing score (NaN) says nothing; no answer (-1) counts as an
    answer like any other when changes are looked at.

    Args:
        chain: one chain or posterior draws of it, shape () or [draw].
        tokens_per_round: expected uncached tokens of rounds 1..K; the rule stops at K.
        signals: what is looked at, and its distribution.
        value: worth of one correct answer.
        price: cost of one token in the same unit, >= 0.

    Raises:
        InputError: keep_wrong outside [0, 1], parameters of scores that are not positive, value not
            positive, or price or tokens negative or not finite.

    Reference: docs/theory.md C1, C2, C4.
    """
    cost = round_costs(tokens_per_round, value, price)
    _check(signals)
    chain = jax.tree.map(jnp.atleast_1d, chain)
    horizon = len(cost)
    ahead = np.arange(1, horizon + 1)
    spent, kept, added = _look_ahead(chain, cost)

    def init() -> _Seen:
        draws = chain.shape[0]
        return _Seen(jnp.int32(0), jnp.int32(-1), chain.p0, jnp.zeros(draws))

    def update(state: _Seen, seen: Observation) -> tuple[_Seen, Decision]:
        first = state.answers == 0
        belief, log_likelihood = _filter(chain, state, seen, signals, first)
        log_weight = state.log_weight + log_likelihood
        weight = jax.nn.softmax(log_weight)
        now = jnp.vdot(weight, belief)
        later = weight @ added + (weight * belief) @ kept
        k = jnp.minimum(state.answers, horizon)
        to_come = jnp.minimum(k + ahead, horizon)
        gain = value * (later - now) - (spent[to_come] - spent[k])
        pays = (gain > NOISE * value) & (k + ahead <= horizon)
        after = _Seen(state.answers + 1, seen.answer_id, belief, log_weight)
        return after, Decision(~pays.any(), seen.answer_id, now)

    return StoppingRule(init, update)


@jax.jit
def _look_ahead(
    chain: TwoStateChain, cost: Float[Array | np.ndarray, " rounds"]
) -> tuple[
    Float[Array, " rounds_plus_1"], Float[Array, "draw rounds"], Float[Array, "draw rounds"]
]:
    """Cost of k rounds, and j rounds ahead, that take a belief of b to added_j + kept_j b."""
    spent = jnp.concatenate([jnp.zeros(1), jnp.cumsum(cost)])
    gap = chain.p_ic + chain.p_ci
    kept = (1 - gap)[:, None] ** jnp.arange(1, len(cost) + 1)[None, :]
    # p_ic (1 + r + ... + r^(j-1)), without a pole at gap = 0.
    added = chain.p_ic[:, None] * jnp.cumsum(
        jnp.concatenate([jnp.ones_like(kept[:, :1]), kept[:, :-1]], 1), 1
    )
    return spent, kept, added


def belief_programme(
    chain: TwoStateChain,
    tokens_per_round: Float[Array | np.ndarray, " rounds"],
    signals: SignalDistribution = NOTHING,
    *,
    value: float = 1.0,
    price: Real[ArrayLike, ""],
    grid_size: int = 501,
    score_levels: int = 64,
) -> StoppingRule:
    """The best rule of all that see these signals and know the chain: finite-horizon optimum.

        V_K(b) = V b,   V_k(b) = max(V b, -price tokens_(k+1) + E[V_(k+1)(b')]),

    by dynamic programming on a grid of beliefs, the mean taken over what the next revision may
    show. A score counts as one of `score_levels` intervals of equal probability under the equal
    mixture of its two distributions, when the programme is solved; when the rule runs the belief
    uses the score itself. It is the yardstick: no rule does better, and `belief_rule` is what it
    becomes if the worth of what later revisions will show is left out.

    Args: as `belief_rule`, with one chain, shape ().

    Raises:
        InputError: as `belief_rule`, a chain that is not scalar, or fewer than 2 beliefs or levels.

    Reference: docs/theory.md C1, C2.
    """
    if chain.shape != ():
        raise InputError(f"chain has shape {chain.shape}; the yardstick knows one chain")
    require("grid_size", grid_size, lambda x: x >= 2, "give a number of beliefs >= 2")
    require("score_levels", score_levels, lambda x: x >= 2, "give a number of levels >= 2")
    cost = round_costs(tokens_per_round, value, price)
    _check(signals)
    horizon = len(cost)
    continues = _programme(chain, cost, signals, value, grid_size, score_levels)
    one = jax.tree.map(jnp.atleast_1d, chain)

    def init() -> _Seen:
        return _Seen(jnp.int32(0), jnp.int32(-1), one.p0, jnp.zeros(1))

    def update(state: _Seen, seen: Observation) -> tuple[_Seen, Decision]:
        belief, _ = _filter(one, state, seen, signals, state.answers == 0)
        k = jnp.minimum(state.answers, horizon - 1)
        nearest = jnp.round(belief[0] * (grid_size - 1)).astype(int)
        stop = ~continues[k, nearest] | (state.answers >= horizon)
        after = _Seen(state.answers + 1, seen.answer_id, belief, state.log_weight)
        return after, Decision(stop, seen.answer_id, belief[0])

    return StoppingRule(init, update)


@partial(jax.jit, static_argnames=("grid_size", "score_levels"))
def _programme(
    chain: TwoStateChain,
    cost: Float[Array, " rounds"],
    signals: SignalDistribution,
    value: Real[Array, ""] | float,
    grid_size: int,
    score_levels: int,
) -> Bool[Array, "rounds grid"]:
    """Whether to go on before each round, at every belief."""
    beliefs = jnp.linspace(0, 1, grid_size)
    operators = _operators(chain, signals, score_levels)
    wrong, right = (
        (1 - beliefs)[None, :] * operators[:, 0, j, None]
        + beliefs[None, :] * operators[:, 1, j, None]
        for j in (0, 1)
    )
    likelihood = wrong + right
    after = jnp.where(likelihood > 0, right / jnp.where(likelihood > 0, likelihood, 1), 0)

    def back(best: Array, cost: Array) -> tuple[Array, Array]:
        continued = (likelihood * jnp.interp(after, beliefs, best)).sum(axis=0) - cost
        return jnp.maximum(value * beliefs, continued), continued > value * beliefs + NOISE * value

    return jax.lax.scan(back, value * beliefs, cost, reverse=True)[1]


def _filter(
    chain: TwoStateChain, state: _Seen, seen: Observation, signals: SignalDistribution, first: Array
) -> tuple[Float[Array, " draw"], Float[Array, " draw"]]:
    """Belief in the present answer given all seen, and log-probability of what it showed."""
    b = state.belief
    moves = [(1 - b) * (1 - chain.p_ic), (1 - b) * chain.p_ic, b * chain.p_ci, b * (1 - chain.p_ci)]
    if signals.keep_wrong is not None:
        changed = seen.answer_id != state.last
        rho = jnp.asarray(signals.keep_wrong)
        shown = (jnp.where(changed, 1 - rho, rho), changed, changed, ~changed)
        moves = [move * distribution for move, distribution in zip(moves, shown, strict=True)]
    ii, ic, ci, cc = moves
    wrong, right = jnp.where(first, 1 - b, ii + ci), jnp.where(first, b, ic + cc)
    if signals.scores is not None:
        f_wrong, f_right = _score_likelihoods(signals.scores, seen.score)
        wrong, right = wrong * f_wrong, right * f_right
    if signals.verdicts is not None:
        f_wrong, f_right = _verdict_likelihoods(signals.verdicts, seen.verdict)
        wrong, right = wrong * f_wrong, right * f_right
    total = wrong + right
    possible = total > 0
    blind = jnp.where(first, b, (1 - b) * chain.p_ic + b * (1 - chain.p_ci))
    belief = jnp.where(possible, right / jnp.where(possible, total, 1), blind)
    # A draw that holds impossible what was seen keeps a weight, lest all of them be lost at once.
    return belief, jnp.log(jnp.maximum(total, 1e-30))


def _score_likelihoods(scores: ScoreDistributions | Judge, score: Array) -> tuple[Array, Array]:
    """Densities for wrong and right answers; 1 where there is no score."""
    seen = ~jnp.isnan(score)
    if isinstance(scores, Judge):
        return _verdict_likelihoods(scores, jnp.where(seen, score >= 0.5, -1))
    s = jnp.clip(jnp.where(seen, score, 0.5), _SCORE_MARGIN, 1 - _SCORE_MARGIN)
    wrong, right = (
        jnp.exp(beta_distribution.logpdf(s, distribution.a, distribution.b))
        for distribution in (scores.wrong, scores.right)
    )
    return jnp.where(seen, wrong, 1), jnp.where(seen, right, 1)


def _verdict_likelihoods(judge: Judge, verdict: Array | int | None) -> tuple[Array, Array]:
    """Probabilities of a verdict on wrong and right answers; 1 where there is none."""
    shown = jnp.asarray(-1 if verdict is None else verdict)
    wrong, right = (
        jnp.where(shown == 1, rate, jnp.where(shown == 0, 1 - jnp.asarray(rate), 1))
        for rate in (judge.accept_wrong, judge.accept_right)
    )
    return wrong, right


def _operators(
    chain: TwoStateChain, signals: SignalDistribution, levels: int
) -> Float[Array, "signal state next_state"]:
    """P(signal, next state | state) for every signal a revision may show."""
    p_ic, p_ci = chain.p_ic, chain.p_ci
    found = jnp.array([[1 - p_ic, p_ic], [p_ci, 1 - p_ci]])[None]
    if signals.keep_wrong is not None:
        rho = jnp.asarray(signals.keep_wrong)
        kept = jnp.stack([jnp.stack([rho, 0 * rho]), jnp.array([0.0, 1.0])])
        found = jnp.concatenate([found * kept[None], found * (1 - kept)[None]])
    for scores in (signals.scores, signals.verdicts):
        if scores is not None:
            share = jnp.stack(_level_probabilities(scores, levels), axis=1)
            found = (found[:, None] * share[None, :, None, :]).reshape(-1, 2, 2)
    return found


def _level_probabilities(scores: ScoreDistributions | Judge, levels: int) -> tuple[Array, Array]:
    """Probability of every level of the score, for wrong and for right answers."""
    if isinstance(scores, Judge):
        wrong, right = (
            jnp.stack([1 - jnp.asarray(rate, float), jnp.asarray(rate, float)])
            for rate in (scores.accept_wrong, scores.accept_right)
        )
        return wrong, right
    fine = jnp.linspace(0, 1, 4097)
    cdfs = [
        jax.scipy.special.betainc(distribution.a, distribution.b, fine)
        for distribution in (scores.wrong, scores.right)
    ]
    edges = jnp.interp(jnp.linspace(0, 1, levels + 1)[1:-1], sum(cdfs) / 2, fine)
    within = [
        jnp.concatenate([jnp.zeros(1), jnp.interp(edges, fine, cdf), jnp.ones(1)]) for cdf in cdfs
    ]
    return jnp.diff(within[0]), jnp.diff(within[1])


def round_costs(
    tokens_per_round: Float[Array | np.ndarray, " rounds"], value: float, price: ArrayLike
) -> Float[Array, " rounds"]:
    """Costs of rounds 1..K; raises `InputError` unless value, price and tokens are in range."""
    require_value_and_cost(value, price=price)
    require(
        "tokens_per_round",
        tokens_per_round,
        lambda x: np.isfinite(x) & (x >= 0),
        "give expected tokens of rounds 1..K, finite and >= 0",
    )
    tokens = jnp.asarray(tokens_per_round, float)
    if tokens.ndim != 1 or not len(tokens):
        raise InputError(f"tokens_per_round has shape {tokens.shape}; give rounds 1..K, K >= 1")
    return tokens * jnp.asarray(price, float)


def _check(signals: SignalDistribution) -> None:
    if signals.keep_wrong is not None:
        require_probability("keep_wrong", signals.keep_wrong)
    for judge in (signals.scores, signals.verdicts):
        if isinstance(judge, Judge):
            for name, rate in judge._asdict().items():
                require_probability(name, rate)
    if isinstance(signals.scores, ScoreDistributions):
        for which, distribution in signals.scores._asdict().items():
            for name, shape in distribution._asdict().items():
                require(
                    f"scores.{which}.{name}",
                    shape,
                    lambda x: x > 0,
                    "a shape of a Beta distribution is > 0",
                )
