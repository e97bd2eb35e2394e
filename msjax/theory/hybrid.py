"""M independent chains of K refinement rounds each: select among the last answers, on a budget.

Every chain ends with an answer that is right with probability p = p_K. A vote or a verifier picks
one of the M answers; `best_split` asks how a budget is best divided between chains and rounds.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, ArrayLike, Float, Int, Real

from msjax.errors import InputError, require, require_probability
from msjax.theory._arrays import together
from msjax.theory.chain import TwoStateChain, accuracy_curve

__all__ = [
    "MAX_CHAINS",
    "MAX_ROUNDS",
    "Split",
    "best_split",
    "hybrid_tokens",
    "majority_accuracy_of_chains",
    "verifier_accuracy_of_chains",
]

MAX_CHAINS: int = 512
"""Most chains that are voted on or searched."""

MAX_ROUNDS: int = 512
"""Most rounds that are searched."""

# Ties are resolved to this many units of rounding, more than a selector's error.
_TIE = 32

# The trapezoidal rule converges geometrically for a smooth integrand that dies out at both ends:
# this step leaves errors below 1e-14, and the normal density beyond the ends is below 1e-17.
_NODES = np.linspace(-9.0, 9.0, 289)


class Split(NamedTuple):
    """Numbers of chains and of rounds per chain, the accuracy they reach and what they cost."""

    chains: Int[Array, "*batch"]
    rounds: Int[Array, "*batch"]
    accuracy: Float[Array, "*batch"]
    tokens: Float[Array, "*batch"]


def majority_accuracy_of_chains(
    accuracy: Real[ArrayLike, "..."], chains: int, agreement: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """Probability that the plurality vote over the last answers of M chains is right.

    Right answers agree. A wrong answer is the one common wrong answer with probability
    `agreement` and otherwise like no other. With c right, w common wrong and u other answers,
    c ~ Bin(M, p), w ~ Bin(M - c, agreement), the vote is right with probability

        c >= 2: 1 if c > w, 1/2 if c = w;   c = 1: 1 / M if w <= 1;   else 0.

    A tie goes to the answer seen first. The chains being exchangeable, each of the tied answers
    is seen first equally often; at c = 1, w <= 1 all M answers are tied.

    Args:
        accuracy: probability p that the last answer of a chain is right, any shape.
        chains: number M of chains, 1 to `MAX_CHAINS`.
        agreement: probability that a wrong answer is the common one, any shape that broadcasts.

    Returns: the probability, of the broadcast shape.

    Raises:
        InputError: a probability outside [0, 1] or NaN, or too few or too many chains.

    Reference: docs/theory.md A9; self-consistency, arXiv 2203.11171.
    """
    require_probability("accuracy", accuracy)
    require_probability("agreement", agreement)
    _require_chains(chains)
    return _plurality(accuracy, agreement, chains, capacity=_padded(chains))


def verifier_accuracy_of_chains(
    accuracy: Real[ArrayLike, "..."], chains: int, discriminability: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """Probability that the highest-scored of the last answers of M chains is right.

    Scores are N(d', 1) if the answer is right and N(0, 1) if wrong (equal-variance binormal):

        integral over v in (0, 1) of M p (p v + (1 - p) Phi(Phi^-1(v) + d'))^{M-1} dv

    It is p for d' = 0 and 1 - (1 - p)^M for d' = infinity. The substitution v = Phi(z) resolves
    the end v = 1, on which the integrand concentrates as M grows.

    Args:
        accuracy: probability p that the last answer of a chain is right, any shape.
        chains: number M of chains, 1 to `MAX_CHAINS`.
        discriminability: distance d' >= 0 between the mean scores of right and wrong answers, in
            standard deviations; any shape that broadcasts. The verifier's AUC is Phi(d' / sqrt 2).

    Returns: the probability, of the broadcast shape.

    Raises:
        InputError: an accuracy outside [0, 1] or NaN, d' negative or NaN, too few or too many
            chains.

    Reference: docs/theory.md A9.
    """
    require_probability("accuracy", accuracy)
    require("discriminability", discriminability, lambda x: x >= 0, "give a distance d' >= 0")
    _require_chains(chains)
    return _highest_score(accuracy, discriminability, chains)


def hybrid_tokens(
    chains: Int[ArrayLike, "..."],
    rounds: Int[ArrayLike, "..."],
    first_tokens: Real[ArrayLike, "..."],
    round_tokens: Real[ArrayLike, "..."],
) -> Float[Array, "..."]:
    """Cost of M chains of K rounds each, M (first_tokens + K round_tokens).

    Args:
        chains: number M of chains, integers >= 1, any shape.
        rounds: number K of rounds per chain, integers >= 0, any shape that broadcasts.
        first_tokens: cost of a first answer (tokens), > 0.
        round_tokens: cost of a round (tokens), > 0.

    Returns: tokens, of the broadcast shape.

    Raises:
        InputError: chains < 1, rounds < 0, or a cost that is not finite and > 0.

    Reference: docs/theory.md A9.
    """
    require("chains", chains, lambda x: x >= 1, "give a number of chains >= 1")
    require("rounds", rounds, lambda x: x >= 0, "give a number of rounds >= 0")
    _require_cost("first_tokens", first_tokens)
    _require_cost("round_tokens", round_tokens)
    m, k, first, per_round = together(chains, rounds, first_tokens, round_tokens)
    return m * (first + k * per_round)


def best_split(
    chain: TwoStateChain,
    budget: Real[ArrayLike, ""],
    first_tokens: Real[ArrayLike, ""],
    round_tokens: Real[ArrayLike, ""],
    selector: Callable[[Float[Array, "*batch rounds"], int], Float[Array, "*batch rounds"]],
) -> Split:
    """The numbers of chains M and rounds K within a budget that reach the highest accuracy.

    Maximises selector(p_K, M) over all M (first_tokens + K round_tokens) <= budget by comparing
    them all: neither a vote nor a curve p_K need improve with every chain or round. Ties, to
    within rounding, go to fewer tokens, then to fewer chains.

    A search on the host for concrete values: it cannot be traced by `jit` or `vmap`.

    Args:
        chain: chain of any shape; each of its elements is searched on its own.
        budget: tokens to spend, enough for one answer, for at most `MAX_CHAINS` answers and for
            at most `MAX_ROUNDS` rounds of one chain.
        first_tokens: cost of a first answer (tokens), > 0.
        round_tokens: cost of a round (tokens), > 0.
        selector: accuracy after selection among M chains from the accuracy of each, elementwise,
            such as `partial(majority_accuracy_of_chains, agreement=0.3)`.

    Returns: `Split`, each of the chain's shape.

    Raises:
        InputError: a budget or cost that is not finite and > 0, a budget that does not pay for
            one answer or that pays for more than is searched.

    Reference: docs/theory.md A9.
    """
    _require_cost("budget", budget)
    _require_cost("first_tokens", first_tokens)
    _require_cost("round_tokens", round_tokens)
    total, first, per_round = (float(np.asarray(x)) for x in (budget, first_tokens, round_tokens))
    if total < first:
        raise InputError(f"budget is {budget}; one answer costs {first_tokens}, give at least that")
    most = min(MAX_CHAINS * first, first + MAX_ROUNDS * per_round)
    if total > most:
        raise InputError(
            f"budget is {budget}; at these costs at most {most:g} can be searched, which pays for "
            f"{MAX_CHAINS} first answers or for {MAX_ROUNDS} rounds of one chain; give no more"
        )
    curve = np.asarray(_accuracy_curve(chain, MAX_ROUNDS))
    accuracies, splits, costs = [], [], []
    for chains in itertools.count(1):
        tokens = chains * (first + per_round * np.arange(MAX_ROUNDS + 1))
        affordable = int(np.sum(tokens <= total * (1 + 4 * np.finfo(float).eps)))
        if not affordable:
            break
        reached = selector(jnp.asarray(curve[..., : _padded(affordable)]), chains)
        accuracies.append(np.asarray(reached)[..., :affordable])
        splits.append([(chains, rounds) for rounds in range(affordable)])
        costs.append(tokens[:affordable])
    cost = np.concatenate(costs)
    cheapest_first = np.argsort(cost, kind="stable")
    accuracy = np.concatenate(accuracies, axis=-1)[..., cheapest_first]
    slack = _TIE * jnp.finfo(accuracy.dtype).eps
    best = np.argmax(accuracy >= accuracy.max(axis=-1, keepdims=True) - slack, axis=-1)
    chosen = np.concatenate(splits)[cheapest_first][best]
    return Split(
        chains=jnp.asarray(chosen[..., 0], jnp.int32),
        rounds=jnp.asarray(chosen[..., 1], jnp.int32),
        accuracy=jnp.asarray(np.take_along_axis(accuracy, best[..., None], axis=-1)[..., 0]),
        tokens=jnp.asarray(cost[cheapest_first][best], chain.dtype),
    )


_accuracy_curve = jax.jit(accuracy_curve, static_argnums=1)


def _require_chains(chains: int) -> None:
    require(
        "chains",
        chains,
        lambda x: (x >= 1) & (x <= MAX_CHAINS),
        f"give a number of chains from 1 to {MAX_CHAINS}",
    )


def _require_cost(name: str, value: ArrayLike) -> None:
    require(name, value, lambda x: (x > 0) & np.isfinite(x), "give a finite cost > 0")


def _as_probability(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, which rounding may have left an ulp outside [0, 1], clipped with its slope kept."""
    return x + jax.lax.stop_gradient(jnp.clip(x, 0, 1) - x)


def _padded(n: int) -> int:
    """A size at least n, one of few, so that few sizes have to be compiled."""
    return max(16, 1 << (n - 1).bit_length())


@partial(jax.jit, static_argnames="capacity")
def _plurality(
    accuracy: Real[ArrayLike, "..."],
    agreement: Real[ArrayLike, "..."],
    chains: Int[ArrayLike, ""],
    capacity: int,
) -> Float[Array, "..."]:
    """`majority_accuracy_of_chains` for any number of chains up to `capacity`.

    The distributions of the number of right answers among n and of common ones among n wrong
    answers grow by one trial at a time. Their entries are sums of positive terms: unlike powers and
    factorials in log space, they keep their digits in float32 and their slopes at probabilities 0
    and 1.
    """
    p, agrees = together(accuracy, agreement)
    none = jnp.zeros((*p.shape, capacity + 1), p.dtype).at[..., 0].set(1)
    counts = jnp.broadcast_to(jnp.arange(capacity + 1), none.shape)
    p, agrees = p[..., None], agrees[..., None]

    def one_more(distribution: Array, probability: Array) -> Array:
        counted = probability * distribution
        # The last slot is empty until it is needed.
        return distribution - counted + jnp.roll(counted, 1, axis=-1)

    def one_more_answer(
        distributions: tuple[Array, Array], n: Array
    ) -> tuple[tuple[Array, Array], Array]:
        right, common = distributions
        right = jnp.where(n <= chains, one_more(right, p), right)
        common = one_more(common, agrees)
        votes = chains - n  # for the right answer, where n answers are wrong
        against_few = (counts <= 1).astype(p.dtype) / chains
        against_many = ((counts < votes).astype(p.dtype) + (counts <= votes)) / 2
        won = jnp.where(votes >= 2, against_many, jnp.where(votes == 1, against_few, 0.0))
        return (right, common), jnp.sum(common * won, axis=-1)

    (right, _), won = jax.lax.scan(one_more_answer, (none, none), jnp.arange(1, capacity + 1))
    all_right, some_wrong = right[..., chains], right[..., chains - jnp.arange(1, capacity + 1)]
    return _as_probability(all_right + jnp.sum(some_wrong * jnp.moveaxis(won, 0, -1), axis=-1))


@jax.jit
def _highest_score(
    accuracy: Real[ArrayLike, "..."],
    discriminability: Real[ArrayLike, "..."],
    chains: Int[ArrayLike, ""],
) -> Float[Array, "..."]:
    """`verifier_accuracy_of_chains` by the trapezoidal rule over z = Phi^-1(v)."""
    p, distance = (x[..., None] for x in together(accuracy, discriminability))
    nodes = jnp.broadcast_to(_NODES.astype(p.dtype), (*p.shape[:-1], _NODES.size))
    weights = (_NODES[1] - _NODES[0]) * jnp.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi)
    higher = p * ndtr(-nodes) + (1 - p) * ndtr(-nodes - distance)
    # Where nearly all scores are higher the integrand is negligible, but log(0) has no slope.
    higher = jnp.minimum(higher, 1 - jnp.finfo(p.dtype).eps)
    none_higher = jnp.exp((chains - 1) * jnp.log1p(-higher))
    return _as_probability(jnp.sum(chains * p * weights * none_higher, axis=-1))
