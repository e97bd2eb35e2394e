"""What rules learn from answers and scores; their curves and rates come with `Training`."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from msjax.rules.belief import ScoreDistributions
from msjax.rules.spec import Training
from msjax.theory.judge import Judge
from msjax.theory.score_fits import BetaScores, fit_beta, score_statistics

__all__ = [
    "judge_draws",
    "keep_wrong_draws",
    "score_distributions",
    "score_threshold",
    "vote_rates",
    "wrong_answers",
]

DRAWS = 1000
"""Posterior draws that a rule averages over."""


class _Transitions(NamedTuple):
    """Every revision that was recorded: right before, right after, and the same answer again."""

    real: Bool[np.ndarray, "question round"]
    before: Bool[np.ndarray, "question round"]
    after: Bool[np.ndarray, "question round"]
    kept: Bool[np.ndarray, "question round"]


def _transitions(train: Training) -> _Transitions:
    runs = train.known
    kept = runs.answers[:, :-1] == runs.answers[:, 1:]
    return _Transitions(runs.real[:, 1:], runs.right[:, :-1], runs.right[:, 1:], kept)


def keep_wrong_draws(train: Training) -> Float[np.ndarray, " draw"]:
    """Posterior draws of rho, P(a revision from wrong to wrong keeps the answer), uniform prior."""
    real, before, after, kept = _transitions(train)
    wrong = real & ~before & ~after
    random = np.random.default_rng(1)
    return random.beta(1 + (wrong & kept).sum(), 1 + (wrong & ~kept).sum(), DRAWS)


def wrong_answers(train: Training) -> float:
    """How many wrong answers a question effectively has: posterior mean over 2 to 100, prior 1 / m.

    Of m equally likely wrong answers, of which s were given before, a fresh wrong one repeats one
    of those with probability s / m; the one before it, if wrong, counts neither in s nor in m.
    """
    runs = train.known
    wrong, answers = runs.real & ~runs.right, runs.answers
    m = np.arange(2, 101)
    given = np.zeros(len(answers), int)
    cases = [np.empty((0, 3), int)]
    for k in range(answers.shape[1]):
        earlier = (wrong[:, :k] & (answers[:, :k] == answers[:, k, None])).any(axis=1)
        if k:
            replaced = wrong[:, k] & wrong[:, k - 1] & (answers[:, k] != answers[:, k - 1])
            fresh = replaced | (wrong[:, k] & runs.right[:, k - 1])
            cases.append(np.stack([given - replaced, replaced, earlier], axis=1)[fresh])
        given += wrong[:, k] & ~earlier
    # Few are different, so that what is multiplied out with every m is small.
    different, times = np.unique(np.concatenate(cases), axis=0, return_counts=True)
    others, replaced, seen = different[:, :, None].swapaxes(0, 1)
    chance = np.minimum(others / (m - replaced), 1)
    with np.errstate(divide="ignore"):
        log_weight = times @ np.log(np.where(seen, chance, 1 - chance)) - np.log(m)
    weight = np.exp(log_weight - log_weight.max())
    return float(weight @ m / weight.sum())


def judge_draws(train: Training) -> Judge:
    """Posterior draws of how often the judge accepts right and wrong answers, uniform priors."""
    runs, random = train.known, np.random.default_rng(2)
    return Judge(
        *(
            random.beta(
                1 + (known & (runs.verdicts == 1)).sum(),
                1 + (known & (runs.verdicts == 0)).sum(),
                DRAWS,
            )
            for known in (runs.real & runs.right, runs.real & ~runs.right)
        )
    )


def score_distributions(train: Training) -> ScoreDistributions | Judge:
    """Beta fits to the scores of right and of wrong answers; both flat where either is unknown.

    Scores that are all 0 or 1 are verdicts: how often they are 1 (posterior means, uniform priors).
    A density would misstate what one of them shows.
    """
    runs = train.known
    seen = runs.real & ~np.isnan(runs.scores)
    if np.isin(runs.scores[seen], (0, 1)).all():
        yes = runs.scores == 1
        return Judge(
            *(
                jnp.float32((1 + (known & yes).sum()) / (2 + known.sum()))
                for known in (seen & runs.right, seen & ~runs.right)
            )
        )
    fits = [
        fit_beta(
            score_statistics(
                np.where(runs.real & (runs.right == right), runs.scores, np.nan).ravel()
            )
        )
        for right in (True, False)
    ]
    if any(bool(fit.degenerate) for fit in fits):
        flat = BetaScores(jnp.float32(1), jnp.float32(1))
        return ScoreDistributions(flat, flat)
    return ScoreDistributions(*(fit.distribution for fit in fits))


def score_threshold(train: Training) -> float:
    """The score to be reached with the largest net value on the questions that may be looked at.

    Of 200 quantiles of their scores, and infinity (never stop before the last answer); of equal net
    values the lowest.
    """
    runs = train.known
    scores = np.where(np.isnan(runs.scores), -np.inf, runs.scores)
    scores = np.where(runs.real, scores, -np.inf)
    finite = scores[np.isfinite(scores)]
    tried = np.quantile(finite, np.linspace(0, 1, 200), method="inverted_cdf")
    spent = train.price * np.concatenate([[0], np.cumsum(train.tokens)])
    rows, best = np.arange(runs.questions), (-np.inf, np.inf)
    for threshold in (*np.unique(tried), np.inf):
        reached = scores >= threshold
        stop = np.where(reached.any(axis=1), reached.argmax(axis=1), runs.recorded - 1)
        net = float((train.value * runs.right[rows, stop] - spent[stop]).mean())
        if net > best[0] + 1e-12:
            best = net, float(threshold)
    return best[1]


def vote_rates(train: Training) -> tuple[float, float]:
    """P(a vote is right), and P(it falls on the commonest wrong answer); within [.01, .99]."""
    runs = train.known
    right = runs.right.sum() / runs.real.sum()
    commonest = [
        np.bincount(ids[keep]).max(initial=0)
        for ids, keep in zip(
            runs.answers, runs.real & ~runs.right & (runs.answers >= 0), strict=True
        )
    ]
    p_right, p_wrong = np.clip([right, np.sum(commonest) / runs.real.sum()], 0.01, 0.99)
    return float(p_right), float(p_wrong)
