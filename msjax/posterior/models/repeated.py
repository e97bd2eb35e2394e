"""Several runs of every question: question effects that the runs themselves tell apart.

The distribution of questions is that of `logit_normal`. With counts a, b of right and wrong first
answers of a question, and IC, II, CI, CC of its transitions over all its runs,

    P(runs) = sum_z w_z p_ic^IC (1 - p_ic)^II p_ci^CI (1 - p_ci)^CC
              sum_y w_y p0^a (1 - p0)^b,

z over kinds of rates and y over what these leave open of p0. One run of each question has a + b = 1
and shows the mean of p0 given the rates alone; two or more show how far questions differ in p0, and
so what could be gained by revising only those that gain.

Reference: docs/theory.md F4, F8.
"""

from collections.abc import Hashable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float, Int, Int8

from msjax.posterior.models.logit_normal import (
    LogitNormal,
    Nodes,
    choose,
    nodes_of,
    normal_rule,
)
from msjax.posterior.models.model import Chains, Draws, Parameters

_RATES, _STARTS = normal_rule(2, 0.8, 3.6), normal_rule(1, 0.9, 3.6)
"""Kinds of question (p_ic, p_ci), and of p0 within each: 621 in all. A mean over 64 questions of
log P(runs) is right to .001, an expectation to about .002."""


class Repeated(LogitNormal):
    """As `logit_normal`, of questions that were run several times.

    Args:
        question: which of the questions 0, 1, ... each run is of; without it every run is of a
            question of its own.
    """

    name = "repeated"
    says = "every question has log-odds of its own, normally distributed, the same in all its runs"
    min_rounds = 1
    nuisance: ClassVar[tuple[str, ...]] = ()
    nearly_normal = True
    tells_starts_apart = True

    def __init__(self, question: Int[np.ndarray, " run"] | None = None) -> None:
        self._question = None if question is None else np.asarray(question)

    @property
    def _identity(self) -> tuple[Hashable, ...]:
        question = None if self._question is None else self._question.tobytes()
        return *super()._identity, question

    @property
    def largest(self) -> "Repeated":
        """The same for all runs: statistics are taken before anything is compiled."""
        return Repeated().with_priors(self.distributions)

    def _of_question(self, runs: int) -> Int[np.ndarray, " run"]:
        same = self._question is not None and len(self._question) == runs
        return self._question if same and self._question is not None else np.arange(runs)

    def statistics(
        self, correct: Int8[np.ndarray, "question answer"]
    ) -> Float[np.ndarray, "_ statistic"]:
        """Sums over the runs of every question."""
        of_run = super().statistics(correct)
        question = self._of_question(len(correct))
        total = np.zeros((int(question.max(initial=-1)) + 1, of_run.shape[1]), dtype=np.float32)
        np.add.at(total, question, of_run)
        return total

    def log_likelihood(
        self, parameters: Parameters, statistics: Float[Array, "row statistic"]
    ) -> Float[Array, " row"]:
        joint = _log_joint(jnp, nodes_of(parameters, _RATES, _STARTS), statistics)
        return jax.scipy.special.logsumexp(joint, axis=(1, 2))

    def identified(self, correct: Int8[np.ndarray, "question answer"]) -> dict[str, bool]:
        right, wrong, ic, ii, ci, cc = self.statistics(correct).T
        from_i, from_c = ic + ii, ci + cc
        sd_p0 = bool((right + wrong > 1).any())
        sd_ic, sd_ci = bool((from_i > 1).any()), bool((from_c > 1).any())
        return {
            "p0": bool((right + wrong).any()),
            "p_ic": bool(from_i.any()),
            "p_ci": bool(from_c.any()),
            "sd_p0": sd_p0,
            "sd_ic": sd_ic,
            "sd_ci": sd_ci,
            "corr_p0_ic": sd_p0 and sd_ic,
            "corr_p0_ci": sd_p0 and sd_ci,
            "corr_ic_ci": sd_ic and sd_ci and bool((from_i * from_c).any()),
        }

    def kinds(self, draws: Draws) -> tuple[Chains, Float[np.ndarray, "draw kind"]]:
        """Kinds are pairs of rates and a p0 each."""
        nodes = _of_draws(dict(draws))
        shape = nodes.p0.shape
        p0, p_ic, p_ci = (
            scipy.special.expit(np.broadcast_to(x, shape).reshape(len(x), -1).astype(float))
            for x in (nodes.p0, nodes.ic[:, None], nodes.ci[:, None])
        )
        weight = (_STARTS.weight[:, None] * _RATES.weight).astype(float).reshape(-1)
        return Chains(p0, p_ic, p_ci), np.broadcast_to(weight / weight.sum(), p0.shape)

    def question_chains(
        self,
        random: np.random.Generator,
        draws: Draws,
        statistics: Float[np.ndarray, "question statistic"],
    ) -> Chains:
        """The chain of each question, at a node drawn given all its runs."""
        rows, row = np.unique(statistics, axis=0, return_inverse=True)
        row = row.reshape(-1)
        nodes = _of_draws(dict(draws))
        chains = Chains(*(np.empty((len(nodes.ic), len(row))) for _ in range(3)))
        for i, (p0, ic, ci) in enumerate(zip(*map(np.asarray, nodes), strict=True)):
            joint = _log_joint(np, Nodes(p0, ic, ci), rows)
            distribution = scipy.special.softmax(joint.reshape(len(rows), -1), axis=1)
            part, node = np.divmod(choose(random, distribution, row), len(ic))
            chains.p0[i] = scipy.special.expit(p0[part, node])
            chains.p_ic[i], chains.p_ci[i] = (scipy.special.expit(x[node]) for x in (ic, ci))
        return chains

    def run_chains(
        self,
        random: np.random.Generator,
        draws: Draws,
        correct: Int8[np.ndarray, "question answer"],
    ) -> Chains:
        """Runs of one question share its chain."""
        question = self._of_question(len(correct))
        return Chains(*(x[:, question] for x in super().run_chains(random, draws, correct)))


def _log_joint(
    xp: Any, nodes: Nodes, statistics: Float[Array | np.ndarray, "row statistic"]
) -> Any:
    """Log-probability [row, part, node] of a node and of runs at it."""
    right, wrong = (statistics[:, i, None, None] for i in (0, 1))
    first = right * _log_sigmoid(xp, nodes.p0) + wrong * _log_sigmoid(xp, -nodes.p0)
    each = xp.stack([nodes.ic, -nodes.ic, nodes.ci, -nodes.ci])
    later = statistics[:, 2:] @ _log_sigmoid(xp, each)
    prior = np.log(_STARTS.weight)[:, None] + np.log(_RATES.weight)
    return first + later[:, None] + prior


def _log_sigmoid(xp: Any, x: Any) -> Any:
    return -xp.logaddexp(0, -x)


@jax.jit
@jax.vmap
def _of_draws(draws: Parameters) -> Nodes:
    return nodes_of(draws, _RATES, _STARTS)
