"""Runs seen through a verifier that errs, and what models of unseen states have in common."""

import abc
from collections.abc import Hashable
from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int8

from msjax.data.runs import MISSING
from msjax.errors import InputError
from msjax.posterior.models.chains import UNIFORM
from msjax.posterior.models.model import ChainMixture, Chains, Draws, Parameters

_MOVES = ((0, 0), (0, 1), (1, 0), (1, 1))


class HiddenChain(ChainMixture):
    """One chain for all questions, unseen but for a signal, 0 or 1, in every column of the data.

    With states I and C as 0 and 1, M_y[i, j] = P(signal y, next state j | state i) and
    start = (1 - p0, p0),

        P(y_1, ..., y_K) = start M_(y_1) ... M_(y_K) (1, 1)^T,

    where a signal that was not seen counts as M_0 + M_1. Nothing latent is sampled.

    Reference: docs/theory.md F9; Jaeger (2000), Observable operator models for discrete stochastic
    time series.
    """

    @abc.abstractmethod
    def operators(self, parameters: Parameters) -> Float[Array, "signal state next_state"]:
        """M_0 and M_1; parameters scalar."""

    def statistics(
        self, seen: Int8[np.ndarray, "question column"]
    ) -> Float[np.ndarray, "question column"]:
        """The signals themselves.

        Raises InputError for values other than 1, 0 and -1 (not seen).
        """
        strange = np.setdiff1d(seen, (MISSING, 0, 1))
        if strange.size:
            raise InputError(
                f"{self.name}: the data hold {strange[0]}; use 1, 0, or -1 for what was not seen"
            )
        return seen.astype(np.float32)

    def log_likelihood(
        self, parameters: Parameters, statistics: Float[Array, "row column"]
    ) -> Float[Array, " row"]:
        operators, p0 = self.operators(parameters), parameters["p0"]
        zero, one = statistics.T != 1, statistics.T != 0
        # Entry by entry, [column, row], since a row of 2 x 2 products is slow on a CPU.
        entries = [zero * operators[0, i, j] + one * operators[1, i, j] for i, j in _MOVES]

        def follow(
            distribution: tuple[Array, Array], now: list[Array]
        ) -> tuple[tuple[Array, Array], Array]:
            (wrong, right), (ii, ic, ci, cc) = distribution, now
            wrong, right = wrong * ii + right * ci, wrong * ic + right * cc
            total = wrong + right
            # Long runs would underflow unless rescaled; impossible ones stay at 0.
            scale = 1 / jnp.where(total > 0, total, 1)
            return (wrong * scale, right * scale), total

        rows = len(statistics)
        _, totals = jax.lax.scan(follow, (jnp.full(rows, 1 - p0), jnp.full(rows, p0)), entries)
        return jnp.log(totals).sum(axis=0)

    def kinds(self, draws: Draws) -> tuple[Chains, Float[np.ndarray, "draw kind"]]:
        chains = Chains(*(np.asarray(draws[name], dtype=float)[:, None] for name in Chains._fields))
        return chains, np.ones_like(chains.p0)

    def question_chains(
        self,
        random: np.random.Generator,
        draws: Draws,
        statistics: Float[np.ndarray, "question statistic"],
    ) -> Chains:
        """The common chain, whatever the question showed."""
        chains, _ = self.kinds(draws)
        return Chains(*(np.repeat(rates, len(statistics), axis=1) for rates in chains))

    def continue_runs(
        self,
        random: np.random.Generator,
        draws: Draws,
        seen: Int8[np.ndarray, "question column"],
        rounds: int,
    ) -> Int8[np.ndarray, "draw question column_and_round"]:
        """The signals and `rounds` more columns of them, simulated given those seen.

        The present state is drawn given the signals seen, and followed from there.
        """
        operators, distributions = self._filter(draws, seen)
        columns = seen.shape[1]
        shown = operators[:, 1].sum(axis=2)
        moved = operators[..., 1] / np.maximum(operators.sum(axis=3), 1e-300)
        draw = np.arange(len(operators))[:, None]
        state = (random.random(distributions.shape[1:3]) < distributions[columns, ..., 1]).astype(
            int
        )
        signals = np.empty((*state.shape, columns + rounds), dtype=np.int8)
        signals[..., :columns] = seen
        for k in range(columns, columns + rounds):
            signals[..., k] = random.random(state.shape) < shown[draw, state]
            right = random.random(state.shape) < moved[draw, signals[..., k], state]
            state = right.astype(int)
        return signals

    def _filter(
        self, draws: Draws, seen: Int8[np.ndarray, "question column"]
    ) -> tuple[Float[np.ndarray, "draw 3 2 2"], Float[np.ndarray, "column_plus_1 draw question 2"]]:
        """Operators, and the probabilities of the state where each column begins and the last ends.

        These are given the signals of the columns before; NaN where they are impossible.
        """
        values = {name: jnp.asarray(x) for name, x in draws.items()}
        operators = np.asarray(jax.vmap(self.operators)(values), dtype=float)
        # -1, which marks what was not seen, finds the last.
        operators = np.concatenate([operators, operators.sum(axis=1, keepdims=True)], axis=1)
        p0 = np.asarray(draws["p0"], dtype=float)[:, None]
        distributions = [np.repeat(np.stack([1 - p0, p0], axis=2), len(seen), axis=1)]
        for signal in self.statistics(seen).T.astype(int):
            distribution = np.einsum("dqi,dqij->dqj", distributions[-1], operators[:, signal])
            distributions.append(_normalised(distribution))
        return operators, np.stack(distributions)


@dataclass(frozen=True)
class VerifierCounts:
    """Verdicts on answers whose label is known: how a verifier was seen to err.

    Raises InputError for a negative count.
    """

    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int

    def __post_init__(self) -> None:
        for name, count in asdict(self).items():
            if count < 0:
                raise InputError(f"{name} is {count}; give a number of answers >= 0")


@dataclass(frozen=True, eq=False)
class Noisy(HiddenChain):
    """A chain judged by a verifier: verdict 1 on right answers with probability `sensitivity`.

    On wrong ones it is 1 with probability 1 - `specificity`, and independent of all else given
    whether the answer is right. The data are verdicts, [question, answer].

    The prior of (1 - sensitivity, 1 - specificity, sensitivity + specificity - 1) is
    Dirichlet(1, 1, 3). So sensitivity and specificity are Beta(4, 1) each and their sum exceeds 1,
    which rules out the same verdicts with right and wrong exchanged. Two verdicts per question
    cannot tell the chain from the verifier, three can; a verifier that was calibrated on both
    right and wrong answers needs one verdict for p0 and two for the rates. If every run ended when
    an answer was accepted, no number of verdicts tells the chain from the verifier, and with a
    calibrated one three are needed for the rates.

    Attributes:
        calibration: verdicts on labelled answers, which enter the posterior as two binomials.
            They are data: draws from the prior do not know of them.

    Reference: docs/theory.md F9.
    """

    name = "noisy"
    says = (
        "every question has the same rates, and a verifier with unknown error rates is all we see"
    )
    parameters = ("p0", "p_ic", "p_ci", "sensitivity", "specificity")
    distributions = dict.fromkeys(parameters[:3], UNIFORM)
    joint_prior = (
        "(1 - sensitivity, 1 - specificity, sensitivity + specificity - 1) ~ Dirichlet(1, 1, 3), "
        "so each ~ Beta(4, 1) and their sum exceeds 1"
    )

    calibration: VerifierCounts | None = None

    @property
    def _identity(self) -> tuple[Hashable, ...]:
        return *super()._identity, self.calibration

    def prior(self) -> Parameters:
        sites = super().prior()
        missed, false_alarm, _ = numpyro.sample(
            "errors", dist.Dirichlet(jnp.array([1.0, 1.0, 3.0]))
        )
        sites["sensitivity"] = numpyro.deterministic("sensitivity", 1 - missed)
        sites["specificity"] = numpyro.deterministic("specificity", 1 - false_alarm)
        if self.calibration is not None:
            seen = self.calibration
            numpyro.factor(
                "calibration",
                seen.true_positive * jnp.log1p(-missed)
                + seen.false_negative * jnp.log(missed)
                + seen.true_negative * jnp.log1p(-false_alarm)
                + seen.false_positive * jnp.log(false_alarm),
            )
        return sites

    def operators(self, parameters: Parameters) -> Float[Array, "signal state next_state"]:
        p_ic, p_ci = parameters["p_ic"], parameters["p_ci"]
        accepted = jnp.stack([1 - parameters["specificity"], parameters["sensitivity"]])
        verdict = jnp.stack([1 - accepted, accepted])
        return verdict[:, :, None] * jnp.array([[1 - p_ic, p_ic], [p_ci, 1 - p_ci]])

    def identified(self, verdicts: Int8[np.ndarray, "question answer"]) -> dict[str, bool]:
        answers = int((verdicts != MISSING).sum(axis=1).max(initial=0))
        accepted = verdicts == 1
        before = np.cumsum(accepted, axis=1) - accepted > 0
        # Of runs that end when one is accepted only the length varies. Its distribution is that of
        # a hidden chain of two states, which three numbers describe, however many answers it took.
        ended = not (before & (verdicts != MISSING)).any()
        known = self.calibration
        calibrated = (
            known is not None
            and known.true_positive + known.false_negative > 0
            and known.true_negative + known.false_positive > 0
        )
        needed = dict.fromkeys(self.parameters, np.inf if ended else 3)
        if calibrated:
            rates = 3 if ended else 2
            needed = {"p0": 1, "p_ic": rates, "p_ci": rates, "sensitivity": 0, "specificity": 0}
        return {name: answers >= least for name, least in needed.items()}

    def filtered(
        self, draws: Draws, verdicts: Int8[np.ndarray, "question answer"]
    ) -> Float[np.ndarray, "draw question answer"]:
        """P(answer k is right | verdicts 0..k).

        Where there is no verdict on answer k it is the prediction from those before; NaN where a
        draw holds the verdicts impossible.

        Raises InputError as `statistics` does.
        """
        operators, distributions = self._filter(draws, verdicts)
        given_state = operators.sum(axis=3)
        now = [
            _normalised(distribution * given_state[:, verdict])[..., 1]
            for distribution, verdict in zip(distributions[:-1], verdicts.T, strict=True)
        ]
        return np.stack(now, axis=2)


def _normalised(distribution: Float[np.ndarray, "*any 2"]) -> Float[np.ndarray, "*any 2"]:
    total = distribution.sum(axis=-1, keepdims=True)
    return distribution / np.where(total > 0, total, np.nan)
