"""Several benchmarks and models side by side: partially pooled changes, and differences of models.

Reference: docs/decisions.md; Gelman et al. (2013), Bayesian Data Analysis, 5.4.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy import special

from msjax.decision.verdict import FEWEST, LEVEL
from msjax.evaluate.means import DIFFERENCES, mean_interval
from msjax.intervals import Interval

if TYPE_CHECKING:
    from msjax.decision.card import Decision

__all__ = ["ModelDifference", "Pooled", "model_differences", "partially_pooled", "pooled_changes"]

USUAL_SPREAD = 0.1
"""Scale of the spread of true changes between benchmarks before runs are seen."""
_SPREADS, _HALVINGS = 200, 60


@dataclass(frozen=True)
class Pooled:
    """The change by plain revision on one benchmark, by itself and with what the others show.

    Attributes:
        name: of the benchmark, with the model where there are several.
        rounds: rounds of revision, the last answer returned.
        alone: accuracy less that of the first answer, by the runs of this benchmark.
        pooled: the same, where benchmarks inform each other.
    """

    name: str
    rounds: int
    alone: Interval
    pooled: Interval


@dataclass(frozen=True)
class ModelDifference:
    """Two models on the questions of one benchmark that both answered.

    Attributes:
        benchmark: its name.
        models: the two; differences are the first less the second.
        questions: that both answered.
        first: difference of the accuracy of first answers.
        used: difference of the accuracy of the policies recommended for each.
    """

    benchmark: str
    models: tuple[str, str]
    questions: int
    first: Interval
    used: Interval


def partially_pooled(
    estimate: Float[np.ndarray, " group"], error: Float[np.ndarray, " group"], level: float = LEVEL
) -> list[Interval]:
    """Means of groups that are draws of one normal distribution, each with its interval.

    estimate_b ~ N(theta_b, error_b^2), theta_b ~ N(m, s^2), m flat and s half-Cauchy of scale
    `USUAL_SPREAD`; m and theta_b are integrated exactly given s, and s on a grid.

    Args:
        estimate: one for each group.
        error: their standard errors, > 0.
        level: probability that an interval holds.

    Returns: posterior mean of theta_b with the ends of its central interval.
    """
    spread = USUAL_SPREAD * np.tan((np.arange(_SPREADS) + 0.5) / _SPREADS * np.pi / 2)[:, None]
    weight = 1 / (error**2 + spread**2)
    total = weight.sum(axis=1, keepdims=True)
    middle = (weight * estimate).sum(axis=1, keepdims=True) / total
    # The grid has equal shares of the prior, so points are weighted by the likelihood alone.
    log = 0.5 * (np.log(weight).sum(axis=1, keepdims=True) - np.log(total))
    log = log - 0.5 * (weight * (estimate - middle) ** 2).sum(axis=1, keepdims=True)
    share = np.exp(log - log.max())
    share = share / share.sum()
    kept = spread**2 / (error**2 + spread**2)
    mean = kept * estimate + (1 - kept) * middle
    deviation = np.sqrt(kept * error**2 + (1 - kept) ** 2 / total)
    low, high = (_quantile(p, mean, deviation, share) for p in ((1 - level) / 2, (1 + level) / 2))
    centre = (share * mean).sum(axis=0)
    return [Interval(*map(float, ends)) for ends in zip(centre, low, high, strict=True)]


def _quantile(
    p: float,
    mean: Float[np.ndarray, "point group"],
    deviation: Float[np.ndarray, "point group"],
    share: Float[np.ndarray, "point 1"],
) -> Float[np.ndarray, " group"]:
    """Quantiles of mixtures of normal distributions, by bisection."""
    low = (mean - 10 * deviation).min(axis=0)
    high = (mean + 10 * deviation).max(axis=0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = (share * special.ndtr((middle - mean) / deviation)).sum(axis=0) < p
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def pooled_changes(decisions: "Sequence[Decision]") -> list[Pooled]:
    """The change by all rounds on every benchmark, alone and partially pooled.

    Empty with fewer than two benchmarks whose revisions can be judged.
    """
    revised: list[tuple[Decision, int]] = []
    for one in decisions:
        runs = one.pilot.rounds
        if runs is not None and runs.rounds and one.judgement.clusters[runs.rounds] > 1:
            revised.append((one, runs.rounds))
    if len(revised) < 2:
        return []
    centre, error = (
        np.array([getattr(one.judgement.parts["gain"], name)[rounds] for one, rounds in revised])
        for name in ("centre", "error")
    )
    result = []
    for (one, rounds), together in zip(revised, partially_pooled(centre, error), strict=True):
        alone = one.policies[rounds].gain
        assert alone is not None
        result.append(Pooled(one.name, rounds, alone, together))
    return result


def model_differences(decisions: "Sequence[Decision]") -> list[ModelDifference]:
    """Every two models on the questions of a benchmark that both answered, at least 20.

    All intervals hold at once with probability .9 (Sidak).
    """
    pairs: list[tuple[Decision, Decision, np.ndarray]] = []
    for one, other in combinations(decisions, 2):
        if one.pilot.benchmark != other.pilot.benchmark:
            continue
        position = {run: i for i, run in enumerate(_numbered(other.pilot.runs.question_ids))}
        mine = _numbered(one.pilot.runs.question_ids)
        shared = [(i, position[run]) for i, run in enumerate(mine) if run in position]
        if len(shared) >= FEWEST:
            pairs.append((one, other, np.array(shared)))
    if not pairs:
        return []
    level = LEVEL ** (1 / (2 * len(pairs)))
    found = []
    for one, other, both in pairs:
        first, used = (
            _mean(
                one.outcomes.right[both[:, 0], mine] - other.outcomes.right[both[:, 1], theirs],
                one.pilot.cluster[both[:, 0]],
                level,
            )
            for mine, theirs in ((0, 0), (one.judgement.chosen, other.judgement.chosen))
        )
        models = (one.pilot.model, other.pilot.model)
        found.append(ModelDifference(one.pilot.benchmark, models, len(both), first, used))
    return found


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """Every run by its question and which run of that question it is."""
    met: Counter[str] = Counter()
    found = []
    for name in names:
        found.append((name, met[name]))
        met[name] += 1
    return found


def _mean(values: np.ndarray, cluster: np.ndarray, level: float) -> Interval:
    _, number = np.unique(cluster, return_inverse=True)
    return mean_interval(values, DIFFERENCES, cluster=number, level=level)
