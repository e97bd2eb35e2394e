"""Distributions of one whole trajectory X_0, ..., X_rounds: first success, stays, counts and votes.

`msjax.theory.chain` says how likely a single answer of the trajectory is right; here several
answers count at once. Symbols are those of `msjax.theory.chain`, and n = rounds + 1 is the number
of answers.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Real, UInt32

from msjax.errors import InputError, require, require_probability
from msjax.theory.chain import TwoStateChain, accuracy_after, marginal_gain

__all__ = [
    "Majority",
    "Sojourns",
    "correct_count_mean",
    "correct_count_pmf",
    "correct_count_variance",
    "first_correct_pmf",
    "majority_accuracy",
    "mean_first_correct",
    "mean_sojourns",
    "sojourn_pmf",
    "time_average_variance",
    "verified_accuracy",
]

_ANSWER_BITS = 32


class Sojourns(NamedTuple):
    """Mean number of successive answers (rounds) of an uninterrupted stay in each state."""

    correct: Float[Array, "*batch"]
    incorrect: Float[Array, "*batch"]


class Majority(NamedTuple):
    """Probabilities that more than half, and that exactly half, of the answers are right."""

    win: Float[Array, "*batch"]
    tie: Float[Array, "*batch"]


def verified_accuracy(chain: TwoStateChain, k: Int[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Probability of at least one right answer by round k, 1 - (1 - p0) (1 - p_ic)^k.

    The accuracy under a perfect verifier that stops at the first right answer ("oracle stop").
    It does not depend on p_ci, and never falls with k. It is `accuracy_after` with p_ci = 0.

    Args:
        chain: chain of any shape.
        k: rounds, integers >= 0 (up to `UNBOUNDED`), any shape that broadcasts.

    Returns: the probability, of the broadcast shape, to a few units of rounding of itself.

    Raises:
        InputError: a negative or fractional number of rounds.

    Reference: docs/theory.md A7.
    """
    return accuracy_after(_never_breaking(chain), k)


def first_correct_pmf(chain: TwoStateChain, k: Int[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Probability that the first right answer comes at round k.

    p0 at k = 0 and (1 - p0) p_ic (1 - p_ic)^{k-1} after: geometric, given a wrong start. The sum
    over all k is 1 unless p_ic = 0.

    Args:
        chain: chain of any shape.
        k: rounds, integers >= 0, any shape that broadcasts.

    Returns: the probability, of the broadcast shape, accurate relative to its own size.

    Raises:
        InputError: a negative or fractional number of rounds.

    Reference: docs/theory.md A7.
    """
    return _first_correct_pmf(chain, _whole("k", k, 0))


@jax.jit
def _first_correct_pmf(chain: TwoStateChain, rounds: Int[Array, "..."]) -> Float[Array, "..."]:
    later = marginal_gain(_never_breaking(chain), jnp.maximum(rounds - 1, 0))
    p0, rounds = jnp.broadcast_to(chain.p0, later.shape), jnp.broadcast_to(rounds, later.shape)
    return jnp.where(rounds == 0, p0, later)


@jax.jit
def mean_first_correct(chain: TwoStateChain) -> Float[Array, "*batch"]:
    """Mean round of the first right answer, (1 - p0) / p_ic.

    Returns: mean (rounds, a real number), of the chain's shape: 0 if p0 = 1, infinite if p_ic = 0
    and p0 < 1, for then a wrong start is never repaired.

    Reference: docs/theory.md A7.
    """
    repairs = chain.p_ic > 0
    mean = (1 - chain.p0) / jnp.where(repairs, chain.p_ic, 1.0)
    return jnp.where(repairs, mean, jnp.where(chain.p0 < 1, jnp.inf, 0.0))


def sojourn_pmf(leave: Real[ArrayLike, "..."], m: Int[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Probability that a stay lasts exactly m answers, leave (1 - leave)^{m-1}.

    Args:
        leave: probability per round of leaving the state: p_ci for stays at right answers, p_ic
            for stays at wrong ones; any shape.
        m: length of the stay (answers, the first included), integers >= 1, any shape that
            broadcasts.

    Returns: the probability, of the broadcast shape, accurate relative to its own size; 0
    everywhere if leave = 0, for such a stay has no end.

    Raises:
        InputError: leave outside [0, 1] or NaN, a length below 1 or fractional.

    Reference: docs/theory.md A7.
    """
    require_probability("leave", leave)
    # Leaving is the first success of a chain that starts in the state and leaves it for good.
    return first_correct_pmf(TwoStateChain(0.0, leave, 0.0), _whole("m", m, 1))


def mean_sojourns(chain: TwoStateChain) -> Sojourns:
    """Mean length of a stay at right and at wrong answers, 1 / p_ci and 1 / p_ic.

    Returns: `Sojourns` (rounds, real numbers), each of the chain's shape; infinite where the
    state is never left.

    Reference: docs/theory.md A7.
    """

    def mean(leave: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        return jnp.where(leave > 0, 1 / jnp.where(leave > 0, leave, 1.0), jnp.inf)

    return Sojourns(correct=mean(chain.p_ci), incorrect=mean(chain.p_ic))


def correct_count_pmf(chain: TwoStateChain, rounds: int) -> Float[Array, "*batch {rounds}+2"]:
    """Distribution of the number S of right answers among X_0, ..., X_rounds (Markov-binomial).

    By the exact recursion over rounds of P(S = s, X_k = C) and P(S = s, X_k = I).

    Args:
        chain: chain of any shape.
        rounds: number of rounds, >= 0; work and memory of a gradient grow with its square.

    Returns: P(S = s) at `[..., s]`, s = 0, ..., rounds + 1.

    Raises:
        InputError: a negative number of rounds.

    Reference: docs/theory.md A8.
    """
    require("rounds", rounds, lambda x: x >= 0, "give a number of rounds >= 0")
    return _correct_count_pmf(chain, rounds)


def correct_count_mean(chain: TwoStateChain, rounds: Int[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Mean number of right answers among X_0, ..., X_rounds, p_0 + p_1 + ... + p_rounds.

    Equal to n pi + (p0 - pi) (1 - r^n) / (1 - r), n = rounds + 1, but evaluated without its pole
    at the frozen chain, by joining blocks of answers along the binary digits of `rounds`.

    Args:
        chain: chain of any shape.
        rounds: rounds, integers >= 0 (up to `UNBOUNDED`), any shape that broadcasts.

    Returns: mean (answers), of the broadcast shape.

    Raises:
        InputError: a negative or fractional number of rounds.

    Reference: docs/theory.md A8.
    """
    block, p0 = _trajectory_block(chain, rounds)
    return p0 * block.mean[0] + (1 - p0) * block.mean[1]


def correct_count_variance(
    chain: TwoStateChain, rounds: Int[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """Variance of the number of right answers among X_0, ..., X_rounds.

    Evaluated like `correct_count_mean`. Only central moments are joined, so that the variance is
    never a difference of large numbers, and no chain is a special case.

    Args:
        chain: chain of any shape.
        rounds: rounds, integers >= 0 (up to `UNBOUNDED`), any shape that broadcasts.

    Returns: variance (answers squared), of the broadcast shape, to a few units of rounding of
    itself or of 1, whichever is larger.

    Raises:
        InputError: a negative or fractional number of rounds.

    Reference: docs/theory.md A8 (with the classical closed form).
    """
    block, p0 = _trajectory_block(chain, rounds)
    within = p0 * block.variance[0] + (1 - p0) * block.variance[1]
    variance = within + p0 * (1 - p0) * block.memory[0] ** 2
    # Rounding may fall below 0 where the count is certain. Clipping the value keeps the slope.
    return variance + jax.lax.stop_gradient(jnp.maximum(variance, 0) - variance)


def time_average_variance(chain: TwoStateChain) -> Float[Array, "*batch"]:
    """Limit of n Var(S / n), pi (1 - pi) (1 + r) / (1 - r).

    The variance per answer of the share of right answers in a long trajectory, whatever p0.

    Returns: the limit, of the chain's shape: 0 for the alternating chain, whose share is certain,
    NaN for a frozen one, whose variance grows like n^2.

    Reference: docs/theory.md A8.
    """
    gap = chain.p_ic + chain.p_ci
    moves = gap > 0
    divisor = jnp.where(moves, gap, 1.0)
    variance = (chain.p_ic / divisor) * (chain.p_ci / divisor) * ((2 - gap) / divisor)
    return jnp.where(moves, variance, jnp.nan)


def majority_accuracy(chain: TwoStateChain, rounds: int) -> Majority:
    """Probability that a majority vote over X_0, ..., X_rounds is right, and that it is tied.

    win = P(S > n/2) and tie = P(S = n/2) with n = rounds + 1 answers. That is the worst case, in
    which all wrong answers agree: a right answer with fewer votes may win if they do not.

    Args:
        chain: chain of any shape.
        rounds: number of rounds, >= 0.

    Returns: `Majority` of probabilities, each of the chain's shape.

    Raises:
        InputError: a negative number of rounds.

    Reference: docs/theory.md A8.
    """
    return _majority(correct_count_pmf(chain, rounds))


@jax.jit
def _majority(distribution: Float[Array, "*batch answers_plus_1"]) -> Majority:
    rounds = distribution.shape[-1] - 2
    half, odd = divmod(rounds + 1, 2)
    win = jnp.sum(distribution[..., half + 1 :], axis=-1)
    return Majority(
        # Rounding may leave [0, 1] by an ulp. Clipping the value alone keeps the slope.
        win=win + jax.lax.stop_gradient(jnp.minimum(win, 1) - win),
        tie=jnp.zeros_like(win) if odd else distribution[..., half],
    )


def _whole(name: str, value: ArrayLike, least: int) -> Int[Array, "..."]:
    """`value` as an int32 array, checked to be whole and at least `least`."""
    if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
        raise InputError(f"{name} is {value}; give it as an integer")
    require(name, value, lambda x: x >= least, f"give an integer >= {least}")
    return jnp.asarray(value, jnp.int32)


def _never_breaking(chain: TwoStateChain) -> TwoStateChain:
    """The chain that keeps its first right answer: it is right at k iff `chain` was right by k."""
    return TwoStateChain(chain.p0, chain.p_ic, jnp.zeros_like(chain.p_ci))


@partial(jax.jit, static_argnames="rounds")
def _correct_count_pmf(chain: TwoStateChain, rounds: int) -> Float[Array, "*batch {rounds}+2"]:
    p_ic, p_ci = chain.p_ic[..., None], chain.p_ci[..., None]
    empty = jnp.zeros((*chain.shape, rounds + 2), chain.dtype)
    start = empty.at[..., 1].set(chain.p0), empty.at[..., 0].set(1 - chain.p0)

    def one_round(distributions: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        # What leaves one state enters the other, so that rounding cannot drain the total as
        # multiplying by a rounded 1 - p_ci would.
        right, wrong = distributions
        broken, repaired = p_ci * right, p_ic * wrong
        right, wrong = right - broken + repaired, wrong - repaired + broken
        # One more right answer moves the count up; the last slot is empty until it is needed.
        return (jnp.roll(right, 1, axis=-1), wrong), None

    (right, wrong), _ = jax.lax.scan(one_round, start, length=rounds)
    return right + wrong


class _Block(NamedTuple):
    """Moments of the number S of right answers in a block of n successive answers.

    The leading axis of the last three is the state of the block's first answer: C, I.
    """

    memory: Float[Array, "1 *batch"]
    """Difference of the two means, 1 + r + ... + r^{n-1}."""
    mean: Float[Array, "2 *batch"]
    variance: Float[Array, "2 *batch"]
    covariance: Float[Array, "2 *batch"]
    """Covariance of S with the indicator that the answer after the block is right."""


def _join(
    gap: Float[Array, "1 *batch"],
    first_gain: Float[Array, "2 *batch"],
    first: _Block,
    second: _Block,
) -> _Block:
    """The block `first` followed by the block `second`.

    By the laws of total mean, variance and covariance, given the answer at which `second` starts.
    """
    change = first_gain * first.memory
    starts_right = jnp.zeros_like(change).at[0].set(1)
    right, wrong = starts_right + change, (1 - starts_right) - change
    first_decay, second_decay = 1 - gap * first.memory, 1 - gap * second.memory

    def averaged(of_start: Float[Array, "2 *batch"]) -> Float[Array, "2 *batch"]:
        return right * of_start[:1] + wrong * of_start[1:]

    return _Block(
        memory=first.memory + first_decay * second.memory,
        mean=first.mean + averaged(second.mean),
        variance=first.variance
        + 2 * second.memory * first.covariance
        + averaged(second.variance)
        + right * wrong * second.memory**2,
        covariance=second_decay * first.covariance
        + averaged(second.covariance)
        + right * wrong * second.memory * second_decay,
    )


@jax.jit
def _block_of(
    n: UInt32[Array, "*batch"], p_ic: Float[Array, "*batch"], p_ci: Float[Array, "*batch"]
) -> _Block:
    """The block of n answers, by the binary digits of n."""
    join = partial(_join, (p_ic + p_ci)[None], jnp.stack([-p_ci, p_ic]))
    none = jnp.zeros((2, *p_ic.shape), p_ic.dtype)
    answer = _Block(jnp.ones_like(p_ic)[None], none.at[0].set(1), none, none)

    def double_and_add(i: Int[Array, ""], block: _Block) -> _Block:
        digit = (n[None] >> (_ANSWER_BITS - 1 - i).astype(n.dtype)) & 1
        # An answer times the digit 0 is the empty block, which changes nothing.
        return join(join(block, block), jax.tree.map(lambda x: digit.astype(x.dtype) * x, answer))

    empty = jax.tree.map(jnp.zeros_like, answer)
    return jax.lax.fori_loop(0, _ANSWER_BITS, double_and_add, empty)


def _trajectory_block(
    chain: TwoStateChain, rounds: Int[ArrayLike, "..."]
) -> tuple[_Block, Float[Array, "..."]]:
    """The block of the answers X_0, ..., X_rounds, and p0 in its shape."""
    # One answer more than `UNBOUNDED` rounds does not fit a signed integer.
    answers = _whole("rounds", rounds, 0).astype(jnp.uint32) + 1
    n, p0, p_ic, p_ci = jnp.broadcast_arrays(answers, chain.p0, chain.p_ic, chain.p_ci)
    return _block_of(n, p_ic, p_ci), p0
