"""Rates that are not constant: drifting with the round, or depending on the state before."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Bool, Float, Int8

from msjax.posterior.models.chains import (
    MOVES,
    UNIFORM,
    additive_rows,
    draw_settled,
    first_answers,
    move_factors,
    settled_or,
    settled_shares,
    started,
)
from msjax.posterior.models.model import (
    BetaDistribution,
    Curves,
    Draws,
    Factor,
    Model,
    Parameters,
    simulate,
)
from msjax.posterior.models.prior import normal

DRIFT = normal(0, 0.5)


class _DriftingFamily(Model):
    """The common likelihood; `stayers` says whether some questions are settled.

    Reference: docs/theory.md F2.
    """

    stayers: ClassVar[bool]

    @property
    def largest(self) -> "DriftingMoverStayer":
        """The member of which the other is the case without settled questions."""
        return DriftingMoverStayer().with_priors(self.distributions)

    def statistics(
        self, correct: Int8[np.ndarray, "question answer"]
    ) -> Float[np.ndarray, "question statistic"]:
        """Started right, started wrong, never moved, then IC, II, CI, CC of every round."""
        before, after = correct[:, :-1], correct[:, 1:]
        moves = [(before == i) & (after == j) for i, j in ((0, 1), (0, 0), (1, 0), (1, 1))]
        right, wrong = started(correct)
        unmoved = (right | wrong) & ~(moves[0] | moves[2]).any(axis=1)
        flags = np.stack([right, wrong, unmoved], axis=1)
        return np.concatenate([flags, *moves], axis=1).astype(np.float32)

    def log_likelihood(
        self, parameters: Parameters, statistics: Float[Array, "row statistic"]
    ) -> Float[Array, " row"]:
        moves = statistics[:, 3:] @ _terms(jnp, parameters, statistics.shape[1])
        if self.stayers:
            moves = settled_or(parameters, statistics[:, :3], moves)
        return first_answers(parameters, statistics) + moves

    def additive(self, statistics: Float[np.ndarray, "row statistic"]) -> Bool[np.ndarray, " row"]:
        return additive_rows(self.stayers, statistics)

    def factors(self, correct: Int8[np.ndarray, "question answer"]) -> tuple[Factor, ...]:
        def terms(values: Draws, move: str, size: int) -> np.ndarray:
            return np.concatenate(_exits(np, values, move, size // 2), axis=-1)

        return move_factors(self, self.statistics(correct), terms, stayers=self.stayers)

    def identified(self, correct: Int8[np.ndarray, "question answer"]) -> dict[str, bool]:
        before, after = correct[:, :-1], correct[:, 1:]
        rounds = {
            move: int(((before == state) & (after >= 0)).any(axis=0).sum())
            for state, move in enumerate(("ic", "ci"))
        }
        # Told from a rate that falls, a settled share needs what a question did before.
        found = {
            "p0": bool(np.any(started(correct))),
            "p_ic": rounds["ic"] > 0,
            "p_ci": rounds["ci"] > 0,
            "drift_ic": rounds["ic"] > 1,
            "drift_ci": rounds["ci"] > 1,
            "settled_right": rounds["ci"] > 1,
            "settled_wrong": rounds["ic"] > 1,
        }
        return {name: found[name] for name in self.parameters}

    def curves(self, draws: Draws, rounds: int) -> Curves:
        p0 = np.asarray(draws["p0"], dtype=float)
        right, wrong = settled_shares(draws)
        moving = 1 - right - wrong
        accuracy = np.empty((len(p0), 3, rounds + 1))
        accuracy[:, 0], accuracy[:, 1] = 1, 0
        accuracy[:, 2, 0] = np.where(moving > 0, (p0 - right) / np.maximum(moving, 1e-300), 0.5)
        for k in range(rounds):
            now = accuracy[:, 2, k]
            p_ic, p_ci = (_drifting_rate(draws, move, k) for move in ("ic", "ci"))
            accuracy[:, 2, k + 1] = now + (1 - now) * p_ic - now * p_ci
        return Curves(np.stack([right, wrong, moving], axis=1), accuracy, None)

    def continue_runs(
        self,
        random: np.random.Generator,
        draws: Draws,
        correct: Int8[np.ndarray, "question answer"],
        rounds: int,
    ) -> Int8[np.ndarray, "draw question answer_and_round"]:
        p0 = _p0(draws, correct)
        if self.stayers:
            statistics = self.statistics(correct)
            moves = np.exp(_terms(np, draws, statistics.shape[1]) @ statistics[:, 3:].T)
            settled, p0 = draw_settled(random, draws, statistics[:, :3], moves)
        else:
            settled = np.zeros(p0.shape, dtype=bool)

        def follow(uniform: np.ndarray, k: int, states: np.ndarray) -> np.ndarray:
            p_ic, p_ci = (_drifting_rate(draws, move, k - 1)[:, None] for move in ("ic", "ci"))
            now = states[..., k - 1] == 1
            return np.where(settled, now, np.where(now, uniform >= p_ci, uniform < p_ic))

        return simulate(random, p0, follow, correct, rounds)


class Drifting(_DriftingFamily):
    """Rates that change with the round, linearly on the scale of log-odds.

        logit p_ic(k) = logit p_ic + drift_ic (k - 1),   k = 1, 2, ... the round,

    and likewise p_ci(k). Beyond the rounds observed this is an extrapolation, so the limit is not
    said to be known.
    """

    name = "drifting"
    says = "every question has the same rates, which change with the round, linearly in log-odds"
    parameters = ("p0", "p_ic", "p_ci", "drift_ic", "drift_ci")
    distributions = dict.fromkeys(parameters, UNIFORM) | dict.fromkeys(parameters[3:], DRIFT)
    stayers = False


class DriftingMoverStayer(_DriftingFamily):
    """Some questions are settled, right or wrong; the others share rates that drift."""

    name = "drifting_mover_stayer"
    says = (
        "some questions never change their state again, the others have the same rates, which "
        "change with the round, linearly in log-odds"
    )
    parameters = (
        "p0", "p_ic", "p_ci", "settled_right", "settled_wrong", "drift_ic", "drift_ci"
    )  # fmt: skip
    distributions = dict.fromkeys(parameters, UNIFORM) | dict.fromkeys(parameters[5:], DRIFT)
    stayers = True


class SecondOrder(Model):
    """Rates that depend on the state before the present one.

    The first round has the rates p_ic and p_ci; later, `p_ic_after_i` is P(I -> C) when the answer
    before was wrong too, `p_ic_after_c` when it was right, and so on. Its posterior is a product of
    Betas.

    Reference: docs/theory.md F2; Anderson & Goodman (1957).
    """

    name = "second_order"
    says = "every question has the same rates, which depend on the last two states"
    parameters = (
        "p0", "p_ic", "p_ci", "p_ic_after_i", "p_ic_after_c", "p_ci_after_i", "p_ci_after_c"
    )  # fmt: skip
    distributions = dict.fromkeys(parameters, UNIFORM)

    def statistics(
        self, correct: Int8[np.ndarray, "question answer"]
    ) -> Float[np.ndarray, "question statistic"]:
        """For each parameter in turn: times it happened, times it did not."""
        first, second = correct[:, :1], correct[:, 1:2]
        before, now, after = correct[:, :-2], correct[:, 1:-1], correct[:, 2:]
        cases = [(first == 1, first == 0)]
        cases += [((first == s) & (second == 1 - s), (first == s) & (second == s)) for s in (0, 1)]
        for state in (0, 1):
            for earlier in (0, 1):
                visit = (now == state) & (before == earlier)
                cases.append((visit & (after == 1 - state), visit & (after == state)))
        counts = [x.sum(axis=1) for pair in cases for x in pair]
        return np.stack(counts, axis=1).astype(np.float32)

    def log_likelihood(
        self, parameters: Parameters, statistics: Float[Array, "row statistic"]
    ) -> Float[Array, " row"]:
        terms = [f(parameters[name]) for name in self.parameters for f in (jnp.log, _log_rest)]
        return statistics @ jnp.stack(terms)

    def exact(
        self, correct: Int8[np.ndarray, "question answer"]
    ) -> dict[str, BetaDistribution] | None:
        """Beta(a + times it happened, b + times it did not) for every parameter."""
        counts = self.statistics(correct).sum(axis=0, dtype=float).reshape(-1, 2).tolist()
        return self.updated(dict(zip(self.parameters, map(tuple, counts), strict=True)))

    def factors(self, correct: Int8[np.ndarray, "question answer"]) -> tuple[Factor, ...]:
        counts = self.statistics(correct).sum(axis=0, dtype=float).reshape(-1, 2)

        def factor(name: str, yes: float, no: float) -> Factor:
            def log_likelihood(values: Draws) -> np.ndarray:
                return yes * np.log(values[name]) + no * np.log1p(-values[name])

            return Factor((name,), (self.distributions[name],), log_likelihood)

        return tuple(factor(x, *n) for x, n in zip(self.parameters, counts, strict=True))

    def identified(self, correct: Int8[np.ndarray, "question answer"]) -> dict[str, bool]:
        trials = self.statistics(correct).sum(axis=0).reshape(-1, 2).sum(axis=1)
        return dict(zip(self.parameters, (trials > 0).tolist(), strict=True))

    def curves(self, draws: Draws, rounds: int) -> Curves:
        p = {name: np.asarray(x, dtype=float) for name, x in draws.items()}
        p0 = p["p0"]
        accuracy = np.empty((len(p0), 1, rounds + 1))
        accuracy[:, 0, 0] = p0
        # Share of questions by (state before, state now).
        ii, ic = (1 - p0) * (1 - p["p_ic"]), (1 - p0) * p["p_ic"]
        ci, cc = p0 * p["p_ci"], p0 * (1 - p["p_ci"])
        for k in range(1, rounds + 1):
            accuracy[:, 0, k] = ic + cc
            repaired = ii * p["p_ic_after_i"] + ci * p["p_ic_after_c"]
            broken = ic * p["p_ci_after_i"] + cc * p["p_ci_after_c"]
            ii, ic, ci, cc = ii + ci - repaired, repaired, broken, ic + cc - broken
        stay_right = 1 + (1 - p["p_ci_after_i"]) / np.maximum(p["p_ci_after_c"], 1e-300)
        stay_wrong = 1 + (1 - p["p_ic_after_c"]) / np.maximum(p["p_ic_after_i"], 1e-300)
        limit = stay_right / (stay_right + stay_wrong)
        return Curves(np.ones((len(p0), 1)), accuracy, limit[:, None])

    def continue_runs(
        self,
        random: np.random.Generator,
        draws: Draws,
        correct: Int8[np.ndarray, "question answer"],
        rounds: int,
    ) -> Int8[np.ndarray, "draw question answer_and_round"]:
        p: dict[str, Any] = {name: np.asarray(x)[:, None] for name, x in draws.items()}

        def follow(uniform: np.ndarray, k: int, states: np.ndarray) -> np.ndarray:
            now = states[..., k - 1]
            if k == 1:
                p_ic, p_ci = p["p_ic"], p["p_ci"]
            else:
                earlier = states[..., k - 2] == 1
                p_ic = np.where(earlier, p["p_ic_after_c"], p["p_ic_after_i"])
                p_ci = np.where(earlier, p["p_ci_after_c"], p["p_ci_after_i"])
            return np.where(now == 1, uniform >= p_ci, uniform < p_ic)

        return simulate(random, _p0(draws, correct), follow, correct, rounds)


def _log_rest(probability: Array) -> Array:
    return jnp.log1p(-probability)


def _p0(draws: Draws, correct: np.ndarray) -> Float[np.ndarray, "draw question"]:
    return np.broadcast_to(np.asarray(draws["p0"])[:, None], (len(draws["p0"]), len(correct)))


def _terms(xp: Any, parameters: dict[str, Any], statistics: int) -> Any:
    """What an I -> C, I -> I, C -> I, C -> C of each round adds to the log-likelihood."""
    rounds = (statistics - 3) // 4
    terms = [x for move in MOVES for x in _exits(xp, parameters, move, rounds)]
    return xp.concatenate(terms, axis=-1)


def _exits(xp: Any, parameters: dict[str, Any], move: str, rounds: int) -> tuple[Any, Any]:
    """Logarithms [..., round] of leaving a state in each round, and of staying."""
    values = {name: xp.asarray(x)[..., None] for name, x in parameters.items()}
    log_odds = _drifting_log_odds(xp, values, move, np.arange(rounds))
    return -xp.logaddexp(0, -log_odds), -xp.logaddexp(0, log_odds)


def _drifting_log_odds(xp: Any, parameters: dict[str, Any], move: str, k: Any) -> Any:
    rate = parameters[f"p_{move}"]
    return xp.log(rate) - xp.log1p(-rate) + parameters[f"drift_{move}"] * k


def _drifting_rate(draws: Draws, move: str, k: int) -> Float[np.ndarray, " draw"]:
    """Rate of round k + 1, draw by draw."""
    return scipy.special.expit(_drifting_log_odds(np, draws, move, k))
