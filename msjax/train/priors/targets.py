"""What a predictor of priors predicts: the chain of a question, or its distribution of scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from msjax.data.runs import Runs, ragged
from msjax.errors import InputError
from msjax.theory.score_fits import ScoreStatistics, score_statistics
from msjax.train.priors.losses import (
    LARGEST_WEIGHT,
    BetaPrior,
    ScorePrior,
    beta_binomial_log_evidence,
    distribution_grid,
    score_log_evidence,
)

__all__ = [
    "TARGETS",
    "ChainData",
    "ChainPriors",
    "Evidence",
    "ScoreData",
    "Target",
    "question_names",
]

_MARGIN = 1e-3


class ChainPriors(NamedTuple):
    """Distributions of a question's (p0, p_ic, p_ci), independent given its features."""

    p0: BetaPrior
    p_ic: BetaPrior
    p_ci: BetaPrior


class ChainData(NamedTuple):
    """Trials of (p0, p_ic, p_ci) that every question showed, and how many of them succeeded."""

    yes: Int[np.ndarray | Array, "*question 3"]
    no: Int[np.ndarray | Array, "*question 3"]


class ScoreData(NamedTuple):
    """Scores of every question, NaN for none, and their statistics."""

    scores: Float[np.ndarray | Array, "*question sample"]
    statistics: ScoreStatistics


@runtime_checkable
class Evidence(Protocol):
    """Log evidence of what one question showed, part by part; hashable, for `jit`."""

    def __call__(self, outputs: Float[Array, " output"], data: Any) -> Float[Array, " part"]:
        """From the outputs of a network and the data of one question."""


@runtime_checkable
class Target(Protocol):
    """What is predicted.

    Attributes:
        name: what users type.
        parts: what the evidence is the sum of.
        owners: of every output, the number of the only part that depends on it.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    owners: ClassVar[tuple[int, ...]]

    def read(self, pools: Sequence[Runs]) -> tuple[tuple[str, ...], Any]:
        """Names of the questions, and what they showed, over all pools."""

    def prior(self, outputs: Float[ArrayLike, "*question output"]) -> Any:
        """The prior, from what a network puts out."""

    def evidence(self, data: Any) -> Evidence:
        """The likelihood of such data."""


@dataclass(frozen=True)
class _ChainEvidence:
    most: int

    def __call__(self, outputs: Float[Array, " output"], data: ChainData) -> Float[Array, " part"]:
        priors = ChainTarget().prior(outputs)
        found = [
            beta_binomial_log_evidence(prior, yes, no, self.most)
            for prior, yes, no in zip(priors, data.yes, data.no, strict=True)
        ]
        return jnp.stack(found)


class ChainTarget:
    """MarkovScale-t: Beta distributions of p0, p_ic and p_ci of every question."""

    name: ClassVar[str] = "chain"
    parts: ClassVar[tuple[str, ...]] = ("p0", "p_ic", "p_ci")
    owners: ClassVar[tuple[int, ...]] = (0, 1, 2, 0, 1, 2)

    def read(self, pools: Sequence[Runs]) -> tuple[tuple[str, ...], ChainData]:
        """Names of the questions, and their trials, over all pools.

        Sequential runs show a first answer and transitions, parallel ones several first answers.

        Raises:
            InputError: no question shows two trials of p_ic, or of p_ci.
        """
        counts: dict[str, np.ndarray] = {}
        for pool in pools:
            for question, trials in zip(question_names(pool), _trials(pool), strict=True):
                counts[question] = counts.get(question, 0) + trials
        each = np.stack(list(counts.values()))
        data = ChainData(each[:, 0], each[:, 1])
        for i, rate in enumerate(self.parts[1:], 1):
            if each[:, :, i].sum(axis=1).max() < 2:
                raise InputError(
                    f"target chain: no question shows {rate} twice, so how much it differs between "
                    "questions is not identified; record sequential runs with more rounds"
                )
        return tuple(counts), data

    def prior(self, outputs: Float[ArrayLike, "*question output"]) -> ChainPriors:
        """Beta distributions; outputs are logits of means, then of intra-question correlations."""
        mean, icc = jnp.split(_inside(outputs), 2, axis=-1)
        return ChainPriors(*(BetaPrior(mean[..., i], icc[..., i]) for i in range(3)))

    def evidence(self, data: ChainData) -> Evidence:
        """Beta-binomial, of p0, p_ic and p_ci."""
        return _ChainEvidence(int((data.yes + data.no).max()))


@dataclass(frozen=True)
class _ScoreEvidence:
    scores: int

    def __call__(self, outputs: Float[Array, " output"], data: ScoreData) -> Float[Array, " part"]:
        prior = ScoreTarget().prior(outputs)
        return score_log_evidence(prior, data.statistics, distribution_grid(self.scores))[None]


class ScoreTarget:
    """OptScale-t: the conjugate prior of every question's distribution of scores."""

    name: ClassVar[str] = "scores"
    parts: ClassVar[tuple[str, ...]] = ("scores",)
    owners: ClassVar[tuple[int, ...]] = (0, 0, 0)

    def read(self, pools: Sequence[Runs]) -> tuple[tuple[str, ...], ScoreData]:
        """Names of the questions, and their scores, over all pools.

        Raises:
            InputError: sequential runs, whose scores are not of independent samples; scores that
                are missing or outside [0, 1]; or fewer than two scores of a question in all.
        """
        scores: dict[str, list[float]] = {}
        for pool in pools:
            if not pool.parallel:
                raise InputError(
                    f"target scores: {pool.name} is sequential; give runs of independent samples"
                )
            if not pool.scores_are_probabilities:
                raise InputError(
                    f"target scores: {pool.name} has answers without a score in [0, 1]; record "
                    "such scores, `confidence` for one"
                )
            for question, row, n in zip(
                question_names(pool), pool.scores, pool.recorded, strict=True
            ):
                scores.setdefault(question, []).extend(row[:n].tolist())
        if max(map(len, scores.values())) < 2:
            raise InputError(
                "target scores: no question has two scores, so what a prior is worth is not "
                "identified; record more samples"
            )
        padded = ragged(list(scores.values()), np.nan).astype(np.float32)
        statistics = jax.tree.map(np.asarray, score_statistics(padded))
        return tuple(scores), ScoreData(padded, statistics)

    def prior(self, outputs: Float[ArrayLike, "*question output"]) -> ScorePrior:
        """Outputs are logits: of the mean, of variance / (mean (1 - mean)), of the weight."""
        mean, spread, weight = jnp.moveaxis(_inside(outputs), -1, 0)
        return ScorePrior(mean, spread * mean * (1 - mean), LARGEST_WEIGHT * weight)

    def evidence(self, data: ScoreData) -> Evidence:
        """Of truncated normals, integrated out on a grid that resolves all posteriors."""
        return _ScoreEvidence(int(data.statistics.number.max()) + int(LARGEST_WEIGHT))


TARGETS: dict[str, Target] = {target.name: target for target in (ChainTarget(), ScoreTarget())}
"""Targets by name."""


def question_names(pool: Runs) -> tuple[str, ...]:
    """Names of a pool's questions, "benchmark/question_id", as where several benchmarks meet."""
    return tuple(f"{pool.name}/{i}" for i in pool.question_ids)


def _trials(pool: Runs) -> Int[np.ndarray, "question 2 3"]:
    """Trials of the three rates that succeeded and that failed."""
    real, right = pool.real, pool.right & pool.real
    first = right if pool.parallel else right[:, :1]
    asked = real if pool.parallel else real[:, :1]
    if pool.parallel:
        ic = ii = ci = cc = np.zeros(pool.questions, int)
    else:
        there, before, after = real[:, 1:], right[:, :-1], right[:, 1:]
        ii, ic, ci, cc = (
            (there & (before == i) & (after == j)).sum(axis=1) for i in (0, 1) for j in (0, 1)
        )
    yes = np.stack([first.sum(axis=1), ic, ci], axis=1)
    no = np.stack([(asked & ~first).sum(axis=1), ii, cc], axis=1)
    return np.stack([yes, no], axis=1)


@jax.jit
def _inside(outputs: Float[ArrayLike, "*question output"]) -> Float[Array, "*question output"]:
    """Logits to numbers in (0, 1), a little off its ends."""
    return _MARGIN + (1 - 2 * _MARGIN) * jax.nn.sigmoid(jnp.asarray(outputs))
