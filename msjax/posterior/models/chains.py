"""Two-state chains whose rates may differ from question to question: four models, one likelihood.

    pooled             every question has the rates p_ic and p_ci
    heterogeneous      rates of a question ~ Beta with means p_ic, p_ci and intra-question
                       correlations icc_ic, icc_ci
    mover_stayer       a share settled_right of the questions that start right stays right for good,
                       a share settled_wrong of those that start wrong stays wrong; the others
                       follow one chain
    mover_stayer_beta  the same, and the unsettled questions are heterogeneous

A question with rate q ~ Beta(m (1 - icc) / icc, (1 - m) (1 - icc) / icc) that has left a state i
times in t visits leaves it at the next with probability (m (1 - icc) + i icc) / (1 - icc + t icc).
The product of these ratios is the Beta-binomial likelihood, without a singularity at icc = 0, where
it is that of one common rate. Its logarithm is linear in the indicators "left more than i times",
"stayed more than i times" and "visited more than i times", which are the statistics kept here.

Reference: docs/theory.md F1; Goodman (1961), Statistical methods for the mover-stayer model;
Skellam (1948), A probability distribution derived from the binomial distribution.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Bool, Float, Int8

from msjax.data.runs import MISSING
from msjax.posterior.models.model import (
    BetaDistribution,
    ChainMixture,
    Chains,
    Draws,
    Factor,
    Model,
    Parameters,
)
from msjax.posterior.models.prior import beta, uniform

MOVES = ("ic", "ci")
UNIFORM = uniform(0, 1)
CORRELATION = beta(1, 2)

_STRATA = 20
"""Quantiles that stand for a Beta distribution; two of these make 400 kinds of question."""

_MIN_SPREAD = 1e-4
"""Intra-question correlation below which a Beta distribution is its mean (sd below .005)."""


class _ChainFamily(ChainMixture):
    """The common likelihood; `stayers` and `spread` say which of its parts a model has.

    Statistics of a question over T rounds: started right, started wrong, never moved, and six
    blocks of T indicators n > 0, ..., n > T - 1 for
    n = I -> C, I -> I, both, C -> I, C -> C, both.
    """

    stayers: ClassVar[bool]
    spread: ClassVar[bool]

    @property
    def largest(self) -> "MoverStayerBeta":
        """The member of which every other is the case with some parameters at 0."""
        return MoverStayerBeta().with_priors(self.distributions)

    def statistics(
        self, correct: Int8[np.ndarray, "question answer"]
    ) -> Float[np.ndarray, "question statistic"]:
        ii, ic, ci, cc = transition_counts(correct).T
        indices = np.arange(max(correct.shape[1] - 1, 0))
        blocks = [n[:, None] > indices for n in (ic, ii, ic + ii, ci, cc, ci + cc)]
        right, wrong = started(correct)
        unmoved = (right | wrong) & (ic + ci == 0)
        flags = np.stack([right, wrong, unmoved], axis=1)
        return np.concatenate([flags, *blocks], axis=1).astype(np.float32)

    def log_likelihood(
        self, parameters: Parameters, statistics: Float[Array, "row statistic"]
    ) -> Float[Array, " row"]:
        moves = statistics[:, 3:] @ _log_terms(jnp, parameters, statistics.shape[1])
        if self.stayers:
            moves = settled_or(parameters, statistics[:, :3], moves)
        return first_answers(parameters, statistics) + moves

    def additive(self, statistics: Float[np.ndarray, "row statistic"]) -> Bool[np.ndarray, " row"]:
        return additive_rows(self.stayers, statistics)

    def factors(self, correct: Int8[np.ndarray, "question answer"]) -> tuple[Factor, ...] | None:
        def terms(values: Draws, move: str, size: int) -> np.ndarray:
            found = np.broadcast_arrays(*_exits(np, values, move, size // 3))
            return np.concatenate(found, axis=-1)

        return move_factors(self, self.statistics(correct), terms, stayers=self.stayers)

    def identified(self, correct: Int8[np.ndarray, "question answer"]) -> dict[str, bool]:
        ii, ic, ci, cc = transition_counts(correct).T
        right, wrong = started(correct)
        from_i, from_c = ic + ii, ci + cc
        found = {
            "p0": bool((right | wrong).any()),
            "p_ic": bool(from_i.any()),
            "p_ci": bool(from_c.any()),
            "settled_right": bool((right & (from_c > 1)).any()),
            "settled_wrong": bool((wrong & (from_i > 1)).any()),
            "icc_ic": bool((from_i > 1).any()),
            "icc_ci": bool((from_c > 1).any()),
        }
        return {name: found[name] for name in self.parameters}

    def kinds(self, draws: Draws) -> tuple[Chains, Float[np.ndarray, "draw kind"]]:
        p0 = np.asarray(draws["p0"], dtype=float)[:, None]
        right, wrong = (share[:, None] for share in settled_shares(draws))
        moving = 1 - right - wrong
        p0_moving = np.where(moving > 0, (p0 - right) / np.maximum(moving, 1e-300), 0.5)
        p_ic, p_ci = (
            _quantiles(draws[f"p_{move}"], draws.get(f"icc_{move}")) for move in ("ic", "ci")
        )
        p_ic, p_ci = _all_pairs(p_ic, p_ci)
        p0_moving = np.broadcast_to(p0_moving, p_ic.shape)
        weight = np.broadcast_to(moving / p_ic.shape[1], p_ic.shape)
        chains = Chains(p0_moving, p_ic, p_ci)
        if not self.stayers:
            return chains, weight
        zero, one = np.zeros_like(p0), np.ones_like(p0)
        settled = Chains(np.hstack([one, zero]), np.hstack([zero, zero]), np.hstack([zero, zero]))
        chains = Chains(*(np.hstack(pair) for pair in zip(settled, chains, strict=True)))
        return chains, np.hstack([right, wrong, weight])

    def question_chains(
        self,
        random: np.random.Generator,
        draws: Draws,
        statistics: Float[np.ndarray, "question statistic"],
    ) -> Chains:
        ic, ii, _, ci, cc, _ = np.split(statistics[:, 3:].astype(float), 6, axis=1)
        p_ic = _question_rates(random, draws, "ic", ic.sum(axis=1), ii.sum(axis=1))
        p_ci = _question_rates(random, draws, "ci", ci.sum(axis=1), cc.sum(axis=1))
        if not self.stayers:
            p0 = np.asarray(draws["p0"], dtype=float)[:, None]
            return Chains(np.broadcast_to(p0, p_ic.shape), p_ic, p_ci)
        terms = _log_terms(np, draws, statistics.shape[1])
        moves = np.exp(terms @ statistics[:, 3:].T)
        settled, p0 = draw_settled(random, draws, statistics[:, :3], moves)
        return Chains(p0, np.where(settled, 0, p_ic), np.where(settled, 0, p_ci))


class Pooled(_ChainFamily):
    """One chain for all questions; its posterior is three independent Betas."""

    name = "pooled"
    says = "every question has the same rates in every round"
    parameters = ("p0", "p_ic", "p_ci")
    distributions = dict.fromkeys(parameters, UNIFORM)
    min_rounds = 0
    stayers = False
    spread = False

    def exact(
        self, correct: Int8[np.ndarray, "question answer"]
    ) -> dict[str, BetaDistribution] | None:
        """Beta(a + successes, b + failures): the likelihood is a product of three binomials."""
        ii, ic, ci, cc = transition_counts(correct).sum(axis=0).tolist()
        right, wrong = (float(x.sum()) for x in started(correct))
        return self.updated({"p0": (right, wrong), "p_ic": (ic, ii), "p_ci": (ci, cc)})


class Heterogeneous(_ChainFamily):
    """Rates differ from question to question by independent Beta distributions."""

    name = "heterogeneous"
    says = "every question has rates of its own, from Beta distributions, the same in every round"
    parameters = ("p0", "p_ic", "p_ci", "icc_ic", "icc_ci")
    distributions = dict.fromkeys(parameters, UNIFORM) | dict.fromkeys(parameters[3:], CORRELATION)
    stayers = False
    spread = True


class MoverStayer(_ChainFamily):
    """Some questions are settled, right or wrong; the others share one chain."""

    name = "mover_stayer"
    says = "some questions never change their state again, the others have the same rates"
    parameters = ("p0", "p_ic", "p_ci", "settled_right", "settled_wrong")
    distributions = dict.fromkeys(parameters, UNIFORM)
    stayers = True
    spread = False


class MoverStayerBeta(_ChainFamily):
    """Some questions are settled; the rates of the others differ by Beta distributions."""

    name = "mover_stayer_beta"
    says = "some questions never change their state again, the others have Beta-distributed rates"
    parameters = ("p0", "p_ic", "p_ci", "settled_right", "settled_wrong", "icc_ic", "icc_ci")
    distributions = dict.fromkeys(parameters, UNIFORM) | dict.fromkeys(parameters[5:], CORRELATION)
    stayers = True
    spread = True


def transition_counts(
    correct: Int8[np.ndarray, "question answer"],
) -> Float[np.ndarray, "question 4"]:
    """Number of I -> I, I -> C, C -> I and C -> C transitions of every question."""
    before, after = correct[:, :-1], correct[:, 1:]
    cases = [(before == i) & (after == j) for i in (0, 1) for j in (0, 1)]
    return np.stack([case.sum(axis=1) for case in cases], axis=1).astype(float)


def started(correct: Int8[np.ndarray, "question answer"]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each question's first answer was right, and whether it was wrong."""
    first = correct[:, 0] if correct.shape[1] else np.full(len(correct), MISSING)
    return first == 1, first == 0


def first_answers(
    parameters: Parameters, statistics: Float[Array, "row statistic"]
) -> Float[Array, " row"]:
    """Log-probability of each row's first answers: columns 0 and 1 count the right and wrong."""
    p0 = parameters["p0"]
    return statistics[:, 0] * jnp.log(p0) + statistics[:, 1] * jnp.log1p(-p0)


def settled_or(
    parameters: Parameters, flags: Float[Array, "row 3"], moves: Float[Array, " row"]
) -> Float[Array, " row"]:
    """Log-probability of a row's transitions, when its question may be settled.

    log(s [never moved] + (1 - s) P(transitions | not settled)), s being the settled share of the
    questions with that first answer, `moves` the logarithm of the last factor; `flags` are started
    right, started wrong, never moved. Questions that moved may be summed into one row.
    """
    settled_right, settled_wrong = parameters["settled_right"], parameters["settled_wrong"]
    right, wrong, unmoved = flags.T
    follow = right * jnp.log1p(-settled_right) + wrong * jnp.log1p(-settled_wrong) + moves
    share = jnp.where(right > 0, settled_right, settled_wrong)
    possible = (unmoved > 0) & (share > 0)
    stayed = jnp.where(possible, jnp.log(jnp.where(possible, share, 1)), -jnp.inf)
    return jnp.logaddexp(stayed, follow)


def additive_rows(
    stayers: bool, statistics: Float[np.ndarray, "row statistic"]
) -> Bool[np.ndarray, " row"]:
    """Rows that may be summed: all, or with settled questions those that are known to move."""
    return (statistics[:, 2] == 0) | (not stayers)


def settled_shares(draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Shares of all questions that are settled right and settled wrong, each [draw]."""
    p0 = np.asarray(draws["p0"], dtype=float)
    zero = np.zeros_like(p0)
    right, wrong = (draws.get(f"settled_{state}", zero) for state in ("right", "wrong"))
    return p0 * right, (1 - p0) * wrong


def draw_settled(
    random: np.random.Generator,
    draws: Draws,
    flags: Float[np.ndarray, "question 3"],
    moves: Float[np.ndarray, "draw question"],
) -> tuple[Bool[np.ndarray, "draw question"], Float[np.ndarray, "draw question"]]:
    """Which questions are settled, drawn given their runs, and everyone's p0.

    `flags` are started right, started wrong, never moved; `moves` the probability of each run's
    transitions if it is not settled. A question with neither start is new: it is settled with the
    shares of the mixture, and its p0 is 1 or 0 if it is.
    """
    p0 = np.broadcast_to(np.asarray(draws["p0"], dtype=float)[:, None], moves.shape)
    right, wrong = (share[:, None] for share in settled_shares(draws))
    p0_moving = (p0 - right) / np.maximum(1 - right - wrong, 1e-300)
    started_right, started_wrong, unmoved = (flags[:, i] > 0 for i in range(3))
    share = np.where(
        started_right, *(np.asarray(draws[f"settled_{s}"])[:, None] for s in ("right", "wrong"))
    )
    settled = unmoved * share / np.maximum(share + (1 - share) * moves, 1e-300)
    new = ~(started_right | started_wrong)
    uniform = random.random(moves.shape)
    stays_right = uniform < np.where(new, right, started_right * settled)
    stays_wrong = ~stays_right & (uniform < np.where(new, right + wrong, started_wrong * settled))
    stays = stays_right | stays_wrong
    return stays, np.where(stays, stays_right, p0_moving)


def _log_terms(xp: Any, parameters: dict[str, Any], statistics: int) -> Any:
    """What each indicator adds to the log-likelihood: leaving, staying, and visits, I then C."""
    size = (statistics - 3) // 6
    terms = [x for move in MOVES for x in _exits(xp, parameters, move, size)]
    return xp.concatenate(xp.broadcast_arrays(*terms), axis=-1)


def _exits(xp: Any, parameters: dict[str, Any], move: str, size: int) -> tuple[Any, Any, Any]:
    """Logarithms [..., indicator] of leaving a state, staying and visiting it once more."""
    i = np.arange(size)
    icc = xp.asarray(parameters.get(f"icc_{move}", 0.0))[..., None]
    left = xp.asarray(parameters[f"p_{move}"])[..., None] * (1 - icc)
    return (
        xp.log(left + i * icc),
        xp.log((1 - icc) - left + i * icc),
        -xp.log(1 - icc + i * icc),
    )


def move_factors(
    model: Model,
    statistics: Float[np.ndarray, "question statistic"],
    terms: Callable[[Draws, str, int], Float[np.ndarray, "*value indicator"]],
    *,
    stayers: bool,
) -> tuple[Factor, ...]:
    """Factors for the first answer, for exits from I and for exits from C.

    Statistics are started right, started wrong, never moved, and equal numbers of indicators for
    exits from I and from C; `terms(values, move, size)` is what each of these adds to the
    log-likelihood.
    """
    right, wrong, unmoved = (statistics[:, i] > 0 for i in range(3))
    size = (statistics.shape[1] - 3) // 2

    def first(values: Draws) -> np.ndarray:
        p0 = values["p0"]
        return right.sum() * np.log(p0) + wrong.sum() * np.log1p(-p0)

    def exits(move: str, start: np.ndarray, settled: str) -> Factor:
        block = statistics[:, 3:][:, size * MOVES.index(move) :][:, :size].astype(float)
        maybe = start & unmoved & stayers
        follows = block[~maybe].sum(axis=0)
        stays, times = np.unique(block[maybe], axis=0, return_counts=True)
        moved = (start & ~unmoved).sum()

        def log_likelihood(values: Draws) -> np.ndarray:
            each = terms(values, move, size)
            total = each @ follows
            if not stayers:
                return total
            share = values[settled]
            stayed = np.exp(each @ stays.T)
            for i, n in enumerate(times):
                total = total + n * np.log(share + (1 - share) * stayed[..., i])
            return total + moved * np.log1p(-share)

        names = tuple(
            name
            for name in model.parameters
            if name.endswith(f"_{move}") or (stayers and name == settled)
        )
        return Factor(names, tuple(model.distributions[name] for name in names), log_likelihood)

    return (
        Factor(("p0",), (model.distributions["p0"],), first),
        exits("ic", wrong, "settled_wrong"),
        exits("ci", right, "settled_right"),
    )


def _question_rates(
    random: np.random.Generator, draws: Draws, move: str, left: np.ndarray, stayed: np.ndarray
) -> Float[np.ndarray, "draw question"]:
    """Rates of questions given how often each left the state and stayed in it."""
    mean = np.asarray(draws[f"p_{move}"], dtype=float)[:, None]
    icc = draws.get(f"icc_{move}")
    if icc is None:
        return np.broadcast_to(mean, (len(mean), len(left)))
    total = (1 - icc[:, None]) / np.maximum(icc[:, None], _MIN_SPREAD)
    # Gamma variates below the smallest double make 0 / 0; they are rates of 0 or 1.
    a, b = np.maximum(mean * total + left, 1e-12), np.maximum((1 - mean) * total + stayed, 1e-12)
    return random.beta(a, b)


def _quantiles(mean: np.ndarray, icc: np.ndarray | None) -> Float[np.ndarray, "draw stratum"]:
    """Conditional medians of equally likely strata of the distribution of a rate."""
    mean = np.asarray(mean, dtype=float)[:, None]
    if icc is None:
        return mean
    total = (1 - icc[:, None]) / np.maximum(icc[:, None], _MIN_SPREAD)
    levels = (np.arange(_STRATA) + 0.5) / _STRATA
    a, b = np.maximum(mean * total, 1e-12), np.maximum((1 - mean) * total, 1e-12)
    return scipy.special.betaincinv(a, b, levels)


def _all_pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(first), first.shape[1], second.shape[1])
    pairs = (np.broadcast_to(first[:, :, None], shape), np.broadcast_to(second[:, None], shape))
    return pairs[0].reshape(len(first), -1), pairs[1].reshape(len(first), -1)
