"""What to record next, and how likely that decides.

Reference: docs/decisions.md.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from msjax.decision.band import joint_errors, normal_points
from msjax.decision.verdict import FEWEST, LEVEL, Judgement
from msjax.evaluate.means import student

__all__ = ["SIZES", "USUAL_CHANGE", "WANTED", "More", "questions_needed"]

USUAL_CHANGE = 0.05
"""Standard deviation of the changes of accuracy that are expected before a pilot is seen."""
WANTED = 0.8
"""Share of the futures in which so many questions must decide."""
SIZES: tuple[int, ...] = (25, 30, 40, 50, 65, 80, 100, 125, 160, 200, 250, 320, 400, 500, 640, 800)
SIZES += (1000, 1250, 1600, 2000, 2500, 3200, 4000, 5000, 6400, 8000, 10_000)
"""Numbers of further questions that are tried."""


@dataclass(frozen=True)
class More:
    """How many more questions decide in four of five futures.

    `questions` is None if not even the greatest number tried does; `chance` is then that of the
    greatest number.
    """

    questions: int | None
    chance: float


def questions_needed(judgement: Judgement, margin: float, level: float = LEVEL) -> More:
    """The least number of new questions after which a word other than "cannot tell" is likely.

    Before the pilot the true differences d have mean 0 and standard deviation t = `USUAL_CHANGE`.
    With standard errors s of the pilot's differences D, s^2 their mean square, the differences
    given the pilot are those that it shows, shrunk by w = t^2 / (t^2 + s^2), with covariance w C, C
    that of the errors. A future is a draw of d, and new questions with these differences; pilot and
    new questions together are judged as the pilot was.

    Args:
        judgement: of the pilot.
        margin: a loss of accuracy up to this counts as none.
        level: probability that intervals hold.

    Reference: docs/decisions.md.
    """
    names = judgement.deciding
    parts = [judgement.parts[name] for name in names]
    dimension = sum(part.error.size for part in parts)
    around, new = (joint_errors(parts, normal_points(dimension, part)) for part in (2, 3))
    error = parts[0].error
    shown = (parts[0].clusters > 1) & (error > 0) & np.isfinite(error)
    if not shown.any():
        return More(None, 0.0)
    shrunk = USUAL_CHANGE**2 / (USUAL_CHANGE**2 + (error[shown] ** 2).mean())
    normal = float(-special.ndtri((1 - level) / 2))
    usual = [max(judgement.multipliers[name], normal) for name in names]
    usual = [x if np.isfinite(x) else normal for x in usual]
    point = np.arange(len(around[0]))
    chance = 0.0
    for size in SIZES:
        clusters = parts[0].clusters
        eligible = clusters + size >= FEWEST
        if not eligible[0]:
            continue
        fewer = np.minimum(clusters[:, None], clusters)
        choice = replace(judgement.choice, eligible=eligible & (clusters > 1))
        seen, reach = [], []
        for part, where, noise, times in zip(parts, around, new, usual, strict=True):
            share = size / (part.clusters + size)
            truth = shrunk * part.estimate + np.sqrt(shrunk) * where
            fresh = truth + noise * np.sqrt((1 - share) / share)
            seen.append((1 - share) * part.estimate + share * fresh)
            half = student(times, part.clusters + size) * part.error * np.sqrt(1 - share)
            reach.append(np.broadcast_to(half, seen[-1].shape))
        chosen = choice(seen[0], scale=np.sqrt(fewer / (fewer + size)))
        revises = chosen != 0
        middle, half = (
            np.where(revises, of_gain[point, chosen], of_against[point, chosen])
            for of_gain, of_against in (seen, reach)
        )
        decided = (middle - half >= -margin) | (middle + half < 0)
        chance = float(decided.mean())
        if chance >= WANTED:
            return More(size, chance)
    return More(None, chance)
