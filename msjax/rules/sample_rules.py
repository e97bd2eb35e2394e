"""Rules for independent samples of a question, by name."""

from functools import cache

import numpy as np
from jaxtyping import Float

from msjax.data.runs import Runs
from msjax.rules import fixed, optpo, optscale, votes
from msjax.rules.grid import Grid
from msjax.rules.spec import ANSWERS, PROBABILITIES, SCORES, Entry, Training, at_most, constant

__all__ = ["sample_rules"]


@cache
def sample_rules(budget: int) -> tuple[Entry, ...]:
    """Every rule for at most `budget` samples."""
    sizes = sorted({n for n in (1, 2, 3, 4, 5, 8, 10, 16, 20, 32, 40, 64) if n < budget} | {budget})
    last = len(sizes) - 1
    thresholds = (0.8, 0.9, 0.95, 0.975, 0.99)
    margins = tuple(range(1, 9))
    s_mins, confidences = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99), (0.5, 0.9, 0.95, 0.99)
    grid = [(s, c) for s in s_mins for c in confidences]
    s_min_and_confidence = tuple(f"s_min {s:g}, confidence {c:g}" for s, c in grid)
    peek = optscale.PEEKS.get(budget, max(1, budget // 3))

    def all_combinations(_: Training) -> Grid:
        return Grid((np.array(s_mins, np.float32), np.array(confidences, np.float32)))

    def told_difficulty(pool: Runs) -> np.ndarray:
        """Thirds of the questions by mean score of all samples: easy, medium, hard."""
        mean = np.nanmean(pool.scores, axis=1)
        cuts = np.quantile(mean, [1 / 3, 2 / 3])
        return np.asarray(2 - np.searchsorted(cuts, mean), dtype=np.int32)

    return (
        Entry(
            "self_consistency",
            "a fixed number of samples, the answer given most often",
            lambda n, _: at_most(fixed.self_consistency(budget), n),
            tuple(f"{n} samples" for n in sizes),
            constant(sizes),
            last,
            ANSWERS,
        ),
        Entry(
            "best_of_n",
            "a fixed number of samples, the answer with the highest score",
            lambda n, _: at_most(fixed.best_score(budget), n),
            tuple(f"{n} samples" for n in sizes),
            constant(sizes),
            last,
            SCORES,
        ),
        Entry(
            "asc",
            "until the leader beats the runner-up with this Beta posterior",
            lambda threshold, _: votes.asc(budget, threshold),
            tuple(f"threshold {t:g}" for t in thresholds),
            constant(thresholds),
            thresholds.index(0.95),
            ANSWERS,
        ),
        Entry(
            "esc",
            "until all five answers of a window agree",
            lambda _parameter, _: votes.esc(budget),
            ("window 5",),
            constant([5]),
            0,
            ANSWERS,
        ),
        Entry(
            "consol",
            "ConSol's sequential probability ratio test, a lead of 3",
            lambda _parameter, _: votes.consol(budget),
            ("public constants",),
            constant([3]),
            0,
            ANSWERS,
        ),
        Entry(
            "vote_margin",
            "until the leader is so many votes ahead; OptPO with equal wrong rates",
            lambda margin, _: votes.vote_margin(budget, margin),
            tuple(f"margin {m}" for m in margins),
            constant(margins),
            margins.index(3),
            ANSWERS,
        ),
        Entry(
            "optpo",
            "until the Bayes factor of leader against runner-up is reached, vote rates estimated",
            lambda p, _: optpo.optpo(budget, p[0], p[1], p[2]),
            tuple(f"Bayes factor {t:g}" for t in (4, 20, 100)),
            _vote_rates,
            1,
            ANSWERS,
        ),
        Entry(
            "certificate",
            "until two e-processes certify the leader",
            lambda delta, _: votes.certificate(budget, delta),
            tuple(f"delta {d:g}" for d in (0.05, 0.1, 0.2)),
            constant([0.05, 0.1, 0.2]),
            1,
            ANSWERS,
        ),
        Entry(
            "dsc",
            "told which questions are hard by the scores of all samples, which is free information",
            lambda threshold, difficulty: votes.dsc(budget, difficulty, threshold),
            tuple(f"threshold {t:g}" for t in thresholds),
            constant(thresholds),
            thresholds.index(0.95),
            ANSWERS | SCORES,
            told_difficulty,
        ),
        Entry(
            "optscale",
            "OptScale0, fitted again after every sample as the paper says",
            lambda p, _: optscale.optscale(budget, s_min=p[0], confidence=p[1]),
            s_min_and_confidence,
            all_combinations,
            grid.index((0.9, 0.9)),
            PROBABILITIES,
        ),
        Entry(
            "optscale_peek_once",
            "OptScale0, fitted once as the public code does",
            lambda p, _: optscale.optscale_peek_once(
                budget, s_min=p[0], confidence=p[1], peek=peek
            ),
            s_min_and_confidence,
            all_combinations,
            grid.index((0.9, 0.9)),
            PROBABILITIES,
        ),
    )


def _vote_rates(train: Training) -> Float[np.ndarray, "setting 3"]:
    """P(a vote is right), P(it falls on the commonest wrong answer), Bayes factor wanted."""
    pool = train.pool
    there = pool.real & train.chosen[:, None]
    right = (pool.right & there).sum() / there.sum()
    commonest = [
        np.bincount(ids[keep]).max(initial=0)
        for ids, keep in zip(pool.answers, there & ~pool.right & (pool.answers >= 0), strict=True)
    ]
    wrong = np.sum(commonest) / there.sum()
    p_right, p_wrong = np.clip([right, wrong], 0.01, 0.99)
    return np.array([[p_right, p_wrong, factor] for factor in (4.0, 20.0, 100.0)])
