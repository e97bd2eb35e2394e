"""Loops with a judge: answers are revised, or resampled, until a checker accepts one.

The judge (another model, a self-check, unit tests) sees an answer and accepts or rejects it. It
accepts a right answer with probability s = `accept_right` and a wrong one with probability
f = `accept_wrong`, given the answer whatever happened before. With `TwoStateChain` that makes four
rates: fix p_ic, damage p_ci, s and f (1 - s is the false reject, f the false accept).

A loop that revises goes through rounds 0, 1, ...: the judge sees the answer, and if it rejects it
the next round revises it. Every function acts elementwise: the shapes of chain, judge and other
arguments broadcast. docs/theory.md H derives what follows.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Int8, Real

from msjax.errors import require, require_probability
from msjax.theory._arrays import in_blocks, together
from msjax.theory.chain import UNBOUNDED, TwoStateChain, accuracy_after
from msjax.theory.population import Population

__all__ = [
    "Filtered",
    "Judge",
    "LoopOutcome",
    "acceptance_pmf",
    "accepted_accuracy",
    "filter_verdicts",
    "judge_by_votes",
    "mean_outcome",
    "resample_until_accepted",
    "until_accepted",
    "update_on_verdict",
]

_BITS_AT_ONCE, _ALL_BITS = 4, 31


class Judge(NamedTuple):
    """How often a judge accepts an answer, given whether it is right (probabilities, any shapes).

    `accept_right` = `accept_wrong` is a judge that tells nothing; 1 and 0 one that never errs.
    """

    accept_right: Real[ArrayLike, "..."]
    accept_wrong: Real[ArrayLike, "..."]


class LoopOutcome(NamedTuple):
    """How a loop with a judge ends: four probabilities that sum to 1, and what it cost.

    Attributes:
        accepted_right: P(the judge accepts an answer, and it is right).
        accepted_wrong: P(the judge accepts an answer, and it is wrong).
        unaccepted_right: P(it accepts none, and the last one is right).
        unaccepted_wrong: P(it accepts none, and the last one is wrong).
        judge_calls: expected number of answers that the judge sees, infinite for a loop without a
            cap that may never end.
    """

    accepted_right: Float[Array, "..."]
    accepted_wrong: Float[Array, "..."]
    unaccepted_right: Float[Array, "..."]
    unaccepted_wrong: Float[Array, "..."]
    judge_calls: Float[Array, "..."]

    @property
    def accuracy(self) -> Float[Array, "..."]:
        """P(the answer returned is right): the one accepted, or the last."""
        return self.accepted_right + self.unaccepted_right

    @property
    def accepted(self) -> Float[Array, "..."]:
        """P(the judge accepts an answer)."""
        return self.accepted_right + self.accepted_wrong

    @property
    def revisions(self) -> Float[Array, "..."]:
        """Expected number of answers after the first."""
        return self.judge_calls - 1

    def tokens(
        self,
        first: Real[ArrayLike, "..."],
        later: Real[ArrayLike, "..."],
        verdict: Real[ArrayLike, "..."],
    ) -> Float[Array, "..."]:
        """Expected tokens, by those of the first answer, of every later one and of a verdict."""
        return self.revisions * later + self.judge_calls * verdict + jnp.asarray(first)


class Filtered(NamedTuple):
    """What verdicts alone tell of a run.

    Attributes:
        beliefs: P(answer k is right | verdicts on answers 0..k) at `[..., k]`.
        log_likelihood: logarithm of the probability of all the verdicts (nats).
    """

    beliefs: Float[Array, "... answers"]
    log_likelihood: Float[Array, "..."]


def until_accepted(
    chain: TwoStateChain, judge: Judge, revisions: Int[ArrayLike, "..."]
) -> LoopOutcome:
    """Revise until the judge accepts, at most `revisions` times; the last answer if it never does.

    With states (I, C), T = [[1 - p_ic, p_ic], [p_ci, 1 - p_ci]], D_a = diag(f, s),
    D_r = diag(1 - f, 1 - s), M = D_r T, v_0 = (1 - p0, p0) and e_C = (0, 1):

        S_K = I + M + ... + M^K = (I - M)^-1 (I - M^(K+1))
        P(accepted, right) = v_0 S_K D_a e_C
        P(none accepted, last right) = v_0 M^K D_r e_C
        E[judge calls] = v_0 S_K 1.

    Summed by doubling, which needs no inverse, so every loop is right to a few units of rounding:
    one whose judge accepts nothing, or everything, or errs never.

    Args:
        chain: first answers and revisions.
        judge: its rates.
        revisions: the cap K, integers >= 0; `UNBOUNDED` for no cap.

    Returns: `LoopOutcome` of the broadcast shape.

    Raises:
        InputError: a rate outside [0, 1] or NaN, or a cap that is negative or fractional.

    Reference: docs/theory.md H1.
    """
    cap = _whole("revisions", revisions)
    return _until_accepted(*_together(chain, judge, cap), _bits(revisions), _endless(revisions))


def acceptance_pmf(
    chain: TwoStateChain, judge: Judge, k: Int[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """P(the loop without a cap accepts the answer of round k) = v_0 M^k D_a 1.

    Args:
        chain: first answers and revisions.
        judge: its rates.
        k: round, integers >= 0; the first answer is round 0.

    Returns: the probability, of the broadcast shape. The sum over all k is below 1 where the loop
    may never end.

    Raises:
        InputError: a rate outside [0, 1] or NaN, or a round that is negative or fractional.

    Reference: docs/theory.md H1.
    """
    rounds = _whole("k", k)
    return _acceptance_pmf(*_together(chain, judge, rounds), _bits(k))


def resample_until_accepted(
    p0: Real[ArrayLike, "..."], judge: Judge, samples: Int[ArrayLike, "..."]
) -> LoopOutcome:
    """Draw fresh answers until the judge accepts one, at most `samples`; the last if it never does.

    A fresh answer is right with probability p0 whatever the one before was, so this is
    `until_accepted` of the chain with p_ic = p0 and p_ci = 1 - p0, for which r = 0.

    Args:
        p0: probability that an answer is right.
        judge: its rates.
        samples: the most answers, integers >= 1; `UNBOUNDED` for no cap.

    Returns: `LoopOutcome` of the broadcast shape.

    Raises:
        InputError: a rate outside [0, 1] or NaN, or a number of samples below 1 or fractional.

    Reference: docs/theory.md H2.
    """
    require_probability("p0", p0)
    most = _whole("samples", samples, 1)
    return _resampled(*_rates(judge, p0), most, _bits(samples), _endless(samples))


def accepted_accuracy(p0: Real[ArrayLike, "..."], judge: Judge) -> Float[Array, "..."]:
    """P(an accepted answer is right), p0 s / (p0 s + (1 - p0) f), where answers are resampled.

    It does not depend on the cap.

    Args:
        p0: probability that an answer is right.
        judge: its rates.

    Returns: the probability, of the broadcast shape; NaN where nothing is ever accepted.

    Raises:
        InputError: p0 or a rate outside [0, 1] or NaN.

    Reference: docs/theory.md H2.
    """
    require_probability("p0", p0)
    prior, s, f = _rates(judge, p0)
    return _share_of_accepted(prior, s, f)


def mean_outcome(
    population: Population, judge: Judge, revisions: Int[ArrayLike, ""]
) -> LoopOutcome:
    """`until_accepted` over questions that differ: the mean of every number over the population.

    The judge's rates may differ from question to question with those of the chain, and the mean is
    not the outcome of any one loop: the questions that are still rejected are the hard ones.
    `msjax.theory.population.beta_questions` makes populations of five rates.

    Args:
        population: the benchmark.
        judge: its rates on every question, of shape [questions] or scalars.
        revisions: the cap K, an integer >= 0; `UNBOUNDED` for no cap.

    Returns: `LoopOutcome` of scalars.

    Raises:
        InputError: as `until_accepted`.

    Reference: docs/theory.md H3.
    """
    return _weighted(until_accepted(population.chains, judge, revisions), population.weights)


def judge_by_votes(
    judge: Judge,
    votes: int,
    threshold: Int[ArrayLike, ""],
    correlation_right: Real[ArrayLike, "..."] = 0.0,
    correlation_wrong: Real[ArrayLike, "..."] = 0.0,
) -> Judge:
    """The judge that accepts where at least `threshold` of `votes` verdicts do.

    Verdicts on one answer need not be independent. Given that it is right, their number is
    Beta-binomial with mean s and intraclass correlation `correlation_right` (0 is binomial, 1 the
    same verdict every time), and likewise given that it is wrong.

    Args:
        judge: rates of one verdict.
        votes: verdicts on every answer (m), >= 1.
        threshold: of which so many accept (t), 1 <= t <= m.
        correlation_right: P(two verdicts on a right answer agree) beyond chance, in [0, 1].
        correlation_wrong: the same on a wrong answer.

    Returns: `Judge` of the broadcast shape.

    Raises:
        InputError: a rate or correlation outside [0, 1], votes < 1, or a threshold beyond 1..m.

    Reference: docs/theory.md H4.
    """
    require("votes", votes, lambda m: m >= 1, "give a number of verdicts >= 1")
    require(
        "threshold",
        threshold,
        lambda t: (t >= 1) & (t <= votes),
        f"give how many of the {votes} verdicts must accept, from 1 to {votes}",
    )
    require_probability("correlation_right", correlation_right)
    require_probability("correlation_wrong", correlation_wrong)
    s, f = _rates(judge)
    return Judge(
        _votes_tail(s, votes, threshold, correlation_right),
        _votes_tail(f, votes, threshold, correlation_wrong),
    )


def update_on_verdict(
    belief: Real[ArrayLike, "..."], judge: Judge, accepted: Int[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """Belief in an answer after a verdict on it: odds times s / f, or (1 - s) / (1 - f).

    Args:
        belief: P(the answer is right) before.
        judge: its rates.
        accepted: 1 where it accepted, 0 where it rejected, -1 where it was not asked.

    Returns: the belief after, of the broadcast shape; unchanged where the judge was not asked, or
    its verdict was one that the rates hold impossible.

    Raises:
        InputError: a belief or rate outside [0, 1] or NaN, or another verdict.

    Reference: docs/theory.md H5.
    """
    require_probability("belief", belief)
    return _update_on_verdict(*_rates(judge, belief), _checked(accepted))


def filter_verdicts(
    chain: TwoStateChain, judge: Judge, verdicts: Int[ArrayLike, "... answers"]
) -> Filtered:
    """Beliefs in the answers of a run whose labels are unseen, from the verdicts on them.

    `update_on_verdict` on every answer, and between two answers a revision, b' = p_ic + r b: the
    filter of a hidden Markov model.

    Args:
        chain: first answers and revisions; its shape broadcasts against that before the last axis.
        judge: its rates, likewise.
        verdicts: on answer k at `[..., k]`: 1 accepted, 0 rejected, -1 not asked.

    Returns: `Filtered`; verdicts that the rates hold impossible have likelihood 0.

    Raises:
        InputError: a rate outside [0, 1] or NaN, or another verdict.

    Reference: docs/theory.md H5.
    """
    seen = _checked(verdicts)
    return _filtered(*_rates(judge, chain.p0, chain.p_ic, chain.p_ci), seen)


@jax.jit
def _update_on_verdict(before: Array, s: Array, f: Array, verdict: Array) -> Float[Array, "..."]:
    before, s, f, verdict = jnp.broadcast_arrays(before, s, f, verdict)
    shown_right, shown_wrong = _likelihoods(s, f, verdict)
    return _share(before * shown_right, (1 - before) * shown_wrong, otherwise=before)


@jax.jit
def _filtered(p0: Array, p_ic: Array, p_ci: Array, s: Array, f: Array, verdicts: Array) -> Filtered:
    seen = jnp.atleast_1d(verdicts)
    rates = jnp.broadcast_arrays(p0, p_ic, p_ci, s, f, seen[..., 0])[:5]
    return in_blocks(_followed, *rates, jnp.broadcast_to(seen, (*rates[0].shape, seen.shape[-1])))


def _followed(p0: Array, p_ic: Array, p_ci: Array, s: Array, f: Array, seen: Array) -> Filtered:
    """The filter, of rates of one shape, answer by answer."""

    def step(before: tuple[Array, Array], verdict: Array) -> tuple[tuple[Array, Array], Array]:
        belief, log_likelihood = before
        shown_right, shown_wrong = _likelihoods(s, f, verdict)
        right, wrong = belief * shown_right, (1 - belief) * shown_wrong
        now, total = _share(right, wrong, otherwise=belief), right + wrong
        log = jnp.where(total > 0, jnp.log(jnp.where(total > 0, total, 1)), -jnp.inf)
        return (now * (1 - p_ci) + (1 - now) * p_ic, log_likelihood + log), now

    start = p0, jnp.zeros_like(p0)
    (_, log_likelihood), beliefs = jax.lax.scan(step, start, jnp.moveaxis(seen, -1, 0))
    return Filtered(jnp.moveaxis(beliefs, 0, -1), log_likelihood)


class _Steps(NamedTuple):
    """What so many rounds of a loop do, the judge being followed by a revision in each.

    Either for answers as they are at first, or with a leading axis: those now wrong, those right.
    """

    accepted_right: Float[Array, "..."]
    accepted_wrong: Float[Array, "..."]
    right: Float[Array, "..."]
    wrong: Float[Array, "..."]
    calls: Float[Array, "..."]


def _after(first: _Steps, then: _Steps) -> _Steps:
    """One after the other; sums of terms >= 0, so nothing cancels."""
    ended = first.accepted_right, first.accepted_wrong, 0, 0, first.calls
    return _Steps(
        *(
            before + first.wrong * if_wrong + first.right * if_right
            for before, (if_wrong, if_right) in zip(ended, then, strict=True)
        )
    )


def _normalised(steps: _Steps) -> _Steps:
    """The same with probabilities that sum to 1, lest rounding doubles with the rounds."""
    *ways, calls = steps
    total = jax.lax.stop_gradient(sum(ways))
    accepted_right, accepted_wrong, right, wrong = (way / total for way in ways)
    return _Steps(accepted_right, accepted_wrong, right, wrong, calls)


def _run(
    p0: Array, p_ic: Array, p_ci: Array, s: Array, f: Array, rounds: Array, bits: int
) -> _Steps:
    """So many rounds from the first answers on, by the binary digits of their number."""
    zero, one = jnp.zeros_like(s), jnp.ones_like(s)
    step = _Steps(
        jnp.stack([zero, s]),
        jnp.stack([f, zero]),
        jnp.stack([(1 - f) * p_ic, (1 - s) * (1 - p_ci)]),
        jnp.stack([(1 - f) * (1 - p_ic), (1 - s) * p_ci]),
        jnp.stack([one, one]),
    )

    def double_and_add(i: Array, now: tuple[_Steps, _Steps]) -> tuple[_Steps, _Steps]:
        run, step = now
        taken = (rounds >> i) & 1 == 1
        run = jax.tree.map(lambda new, old: jnp.where(taken, new, old), _after(run, step), run)
        return run, _normalised(jax.vmap(_after, in_axes=(0, None))(step, step))

    start = _Steps(zero, zero, p0, 1 - p0, zero)
    return jax.lax.fori_loop(0, bits, double_and_add, (start, step))[0]


@partial(jax.jit, static_argnames=("bits", "endless"))
def _until_accepted(
    p0: Array, p_ic: Array, p_ci: Array, s: Array, f: Array, cap: Array, bits: int, endless: bool
) -> LoopOutcome:
    rates = jnp.broadcast_arrays(p0, p_ic, p_ci, s, f, cap)
    return in_blocks(partial(_ending, bits=bits, endless=endless), *rates)


def _ending(
    p0: Array, p_ic: Array, p_ci: Array, s: Array, f: Array, cap: Array, bits: int, endless: bool
) -> LoopOutcome:
    """The outcome, by doubling; that of caps of `UNBOUNDED`, if there are any, by `_limit`."""
    run = _run(p0, p_ic, p_ci, s, f, cap, bits)
    capped = LoopOutcome(
        run.accepted_right + run.right * s,
        run.accepted_wrong + run.wrong * f,
        run.right * (1 - s),
        run.wrong * (1 - f),
        run.calls + run.right + run.wrong,
    )
    if not endless:
        return capped
    limit = _limit(p0, p_ic, p_ci, s, f)
    return jax.tree.map(lambda x, y: jnp.where(cap == UNBOUNDED, x, y), limit, capped)


def _limit(p0: Array, p_ic: Array, p_ci: Array, s: Array, f: Array) -> LoopOutcome:
    """Without a cap: v_0 (I - M)^-1, all of whose terms are >= 0, where there is an inverse.

    Where there is none, what is not accepted at first or after one change never is: right answers
    are not accepted and stay right, or wrong ones are not accepted and stay wrong.
    """
    determinant = f * s + f * (1 - s) * p_ci + s * (1 - f) * p_ic
    ends = determinant > 0
    divisor = jnp.where(ends, determinant, 1)
    at_right = ((1 - p0) * (1 - f) * p_ic + p0 * (f + (1 - f) * p_ic)) / divisor
    at_wrong = ((1 - p0) * (s + (1 - s) * p_ci) + p0 * (1 - s) * p_ci) / divisor
    none = jnp.zeros_like(s)
    ended = LoopOutcome(s * at_right, f * at_wrong, none, none, at_right + at_wrong)

    stays = jnp.where(
        (s == 0) & (f == 0), accuracy_after(TwoStateChain(p0, p_ic, p_ci), UNBOUNDED), 0
    )
    repaired = (1 - p0) * _share((1 - f) * p_ic, f, otherwise=none)
    broken = p0 * _share((1 - s) * p_ci, s, otherwise=none)
    in_the_end_right = jnp.where((s == 0) & (f > 0), p0 + repaired, stays)
    in_the_end_wrong = jnp.where((s > 0) & (f == 0), 1 - p0 + broken, 0)
    in_the_end_wrong = jnp.where((s == 0) & (f == 0), 1 - stays, in_the_end_wrong)
    calls = p0 * _inverse(s + (1 - s) * p_ci) + (1 - p0) * _inverse(f + (1 - f) * p_ic)
    never = in_the_end_right + in_the_end_wrong > 0
    stuck = LoopOutcome(
        p0 * _share(s, (1 - s) * p_ci, otherwise=none),
        (1 - p0) * _share(f, (1 - f) * p_ic, otherwise=none),
        in_the_end_right,
        in_the_end_wrong,
        jnp.where(never, jnp.inf, calls),
    )
    return jax.tree.map(lambda x, y: jnp.where(ends, x, y), ended, stuck)


def _inverse(x: Array) -> Array:
    """1 / x, and 0 where x is 0."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


@partial(jax.jit, static_argnames=("bits", "endless"))
def _resampled(p0: Array, s: Array, f: Array, most: Array, bits: int, endless: bool) -> LoopOutcome:
    cap = jnp.where(most == UNBOUNDED, UNBOUNDED, most - 1)
    return _until_accepted(p0, p0, 1 - p0, s, f, cap, bits, endless)


@jax.jit
def _weighted(each: LoopOutcome, weights: Float[Array, " question"]) -> LoopOutcome:
    # Nothing of a question without weight counts, not even that it may never end.
    return jax.tree.map(lambda x: jnp.sum(jnp.where(weights > 0, weights * x, 0)), each)


@partial(jax.jit, static_argnames="bits")
def _acceptance_pmf(
    p0: Array, p_ic: Array, p_ci: Array, s: Array, f: Array, rounds: Array, bits: int
) -> Float[Array, "..."]:
    rates = jnp.broadcast_arrays(p0, p_ic, p_ci, s, f, rounds)

    def accepted(p0: Array, p_ic: Array, p_ci: Array, s: Array, f: Array, rounds: Array) -> Array:
        run = _run(p0, p_ic, p_ci, s, f, rounds, bits)
        return run.right * s + run.wrong * f

    return in_blocks(accepted, *rates)


@partial(jax.jit, static_argnames="votes")
def _votes_tail(
    p: Float[Array, "..."],
    votes: int,
    threshold: Int[ArrayLike, ""],
    correlation: Real[ArrayLike, "..."],
) -> Float[Array, "..."]:
    """P(at least `threshold` of the votes accept): Polya's urn, vote by vote."""

    def tail(p: Array, rho: Array) -> Array:
        p, rho = p[None], rho[None]
        accepts = jnp.arange(votes + 1).reshape((-1,) + (1,) * (p.ndim - 1))
        distribution = jnp.where(accepts == 0, jnp.ones_like(p), 0)
        for asked in range(votes):
            chance = (p * (1 - rho) + accepts * rho) / (1 - rho + asked * rho) if asked else p
            yes = distribution * chance
            distribution = distribution * (1 - chance) + jnp.roll(yes, 1, axis=0)
        return jnp.sum(jnp.where(accepts >= threshold, distribution, 0), axis=0)

    return in_blocks(tail, *jnp.broadcast_arrays(p, jnp.asarray(correlation, p.dtype)))


def _likelihoods(s: Array, f: Array, verdict: Array) -> tuple[Array, Array]:
    """P(verdict | right) and P(verdict | wrong); 1 where there is none."""
    return (
        jnp.where(verdict == 1, s, jnp.where(verdict == 0, 1 - s, 1)),
        jnp.where(verdict == 1, f, jnp.where(verdict == 0, 1 - f, 1)),
    )


@jax.jit
def _share_of_accepted(prior: Array, s: Array, f: Array) -> Float[Array, "..."]:
    return _share(prior * s, (1 - prior) * f, otherwise=jnp.full_like(s, jnp.nan))


def _share(
    right: Float[Array, "..."], wrong: Float[Array, "..."], otherwise: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Share of `right` in right + wrong, or `otherwise` where both are 0."""
    total = right + wrong
    return jnp.where(total > 0, right / jnp.where(total > 0, total, 1), otherwise)


def _rates(judge: Judge, *others: Real[ArrayLike, "..."]) -> list[Array]:
    """The others, then s and f, checked and of one type; of one shape where there are others."""
    for name, rate in judge._asdict().items():
        require_probability(name, rate)
    return together(*others, *judge)


def _together(chain: TwoStateChain, judge: Judge, whole: Int[Array, "..."]) -> list[Array]:
    """p0, p_ic, p_ci, s and f of one shape, and the whole number, which broadcasts to it."""
    return [*_rates(judge, chain.p0, chain.p_ic, chain.p_ci), whole]


def _whole(name: str, value: ArrayLike, least: int = 0) -> Int[Array, "..."]:
    require(
        name,
        value,
        lambda x: (x >= least) & (x == np.floor(x)),
        f"give a whole number >= {least}",
    )
    return jnp.asarray(value, jnp.int32)


def _bits(whole: ArrayLike) -> int:
    """Binary digits that are enough for these numbers, of few possible, lest all compile anew."""
    if isinstance(whole, jax.core.Tracer):
        return _ALL_BITS
    numbers = np.asarray(whole)
    digits = int(np.max(numbers, initial=0, where=numbers != UNBOUNDED)).bit_length()
    return min(_BITS_AT_ONCE * max(1, -(-digits // _BITS_AT_ONCE)), _ALL_BITS)


def _endless(whole: ArrayLike) -> bool:
    """Whether some of these numbers may be `UNBOUNDED`."""
    return isinstance(whole, jax.core.Tracer) or bool(np.any(np.asarray(whole) == UNBOUNDED))


def _checked(verdicts: Int[ArrayLike, "..."]) -> Int8[Array, "..."]:
    """The verdicts, in the least memory."""
    require(
        "verdicts",
        verdicts,
        lambda x: (x == 1) | (x == 0) | (x == -1),
        "give 1 (accepted), 0 (rejected) or -1 (not asked)",
    )
    return jnp.asarray(verdicts, jnp.int8)
