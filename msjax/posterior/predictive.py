"""Does the fitted model look like the runs? Posterior predictive checks on what matters here.

Replicates are whole benchmarks: as many new questions as were asked, one benchmark per posterior
draw, with the runs cut where the real ones were (by budget, or by the label at the first success).
Each statistic is a vector; how far it is off is the sum of its squared deviations from the mean of
the replicates in units of their standard deviations, and the p-value is the share of replicates
that are off at least as far. As the data were used twice, such p-values tend to be too large: a
small one counts, a large one proves nothing.

Reference: Gelman, Meng & Stern (1996), Posterior predictive assessment of model fitness.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int8, PRNGKeyArray

from msjax.data.runs import MISSING, Runs
from msjax.intervals import LEVEL as SHARE
from msjax.posterior.average import MATERIAL, apportion
from msjax.posterior.fits import Fit
from msjax.posterior.models.model import Draws
from msjax.posterior.sample import host_generator

LEVEL = 0.05
"""Chance of a false alarm over all the statistics of one benchmark (Bonferroni)."""
REPLICATES = 500
FEWEST, MANY = 200, 10**8
"""Replicates of any number of questions, and replicated questions beyond which there are fewer."""
_MOST_FLIPS = 3
QUESTIONS_AT_ONCE = 2**21
"""Replicated questions that are in memory at a time."""

_TITLES = {
    "accuracy": "accuracy per round",
    "solved": "share solved by each round",
    "p_ic per round": "P(I -> C) per round",
    "p_ci per round": "P(C -> I) per round",
    "second order": "P(right next) after II, CI, IC, CC",
    "flips per question": "share of questions with 0, 1, 2, 3 or more changes of state",
    "changed per round": "share of answers changed per round",
    "changes per question": "share of questions with 0, 1, 2, 3 or more changes of the answer",
    "never right": "share of questions never right",
    "always right": "share of questions right throughout",
}


@dataclass(frozen=True)
class PredictiveCheck:
    """One statistic of the runs against its posterior predictive distribution.

    `observed`, `low`, `median`, `high` hold one entry per round or case, NaN where there is
    nothing to see; the band is central 90 %. `surprising` is whether the p-value is at or below
    its share of the level.
    """

    statistic: str
    observed: Float[np.ndarray, " entry"]
    low: Float[np.ndarray, " entry"]
    median: Float[np.ndarray, " entry"]
    high: Float[np.ndarray, " entry"]
    p_value: float
    surprising: bool
    sentence: str


class Criticism(NamedTuple):
    """Checks of what was fitted as a whole, and whether each of its models fails its own."""

    checks: tuple[PredictiveCheck, ...]
    contradicted: tuple[bool, ...]


def predictive_checks(
    fits: Sequence[Fit], weights: Sequence[float], key: PRNGKeyArray
) -> Criticism:
    """Posterior predictive checks of models by themselves, and of their average.

    One check per statistic that the runs show. The average has replicates from every model in
    proportion to its weight; a model that weighs too little for one is not replicated, nor judged.

    Reference: docs/theory.md F3.
    """
    random = host_generator(key)
    enough = min(REPLICATES, max(FEWEST, MANY // fits[0].count.questions))
    shares = apportion(weights, enough)
    predicted = []
    for fit, share in zip(fits, shares, strict=True):
        number = enough if share >= MATERIAL * enough else share
        step = max(1, len(next(iter(fit.draws.values()))) // max(number, 1))
        draws: Draws = {name: values[::step][:number] for name, values in fit.draws.items()}
        predicted.append(_replicated(fit, draws, number, random) if number else None)
    observed = _seen(fits[0], fits[0].runs[None])
    shown = {name: x[0] for name, x in observed.items() if not np.isnan(x[0]).all()}
    level = LEVEL / max(len(shown), 1)

    def judge(found: dict[str, np.ndarray]) -> tuple[PredictiveCheck, ...]:
        return tuple(_check(name, x, found[name], level) for name, x in shown.items())

    used = [(p, share) for p, share in zip(predicted, shares, strict=True) if p is not None]
    together = {name: np.concatenate([p[name][:share] for p, share in used]) for name in shown}
    return Criticism(
        judge(together),
        tuple(
            p is not None
            and share >= MATERIAL * enough
            and any(check.surprising for check in judge(p))
            for p, share in zip(predicted, shares, strict=True)
        ),
    )


def _replicated(
    fit: Fit, draws: Draws, number: int, random: np.random.Generator
) -> dict[str, Float[np.ndarray, "replicate entry"]]:
    """The statistics of replicates, of which so many are made at a time as fit in memory."""
    step = max(1, QUESTIONS_AT_ONCE // fit.count.questions)
    parts = [
        _seen(fit, replicates(fit, {name: x[k : k + step] for name, x in draws.items()}, random))
        for k in range(0, number, step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _seen(
    fit: Fit, states: Int8[np.ndarray, "replicate question column"]
) -> dict[str, Float[np.ndarray, "replicate entry"]]:
    if fit.model.sees == "changes":
        return _changes(states)
    return _statistics(states, fit.count.n_censored > 0)


def replicates(
    fit: Fit, draws: Draws, random: np.random.Generator
) -> Int8[np.ndarray, "draw question answer"]:
    """New questions under each draw, with runs that end where the real ones would have."""
    count = fit.count
    none = np.zeros((count.questions, 0), dtype=np.int8)
    states = fit.model.continue_runs(random, draws, none, fit.runs.shape[1])
    if fit.model.sees == "changes":
        states[:, fit.runs == MISSING] = MISSING
        return states
    states[:, ~budgeted(count)] = MISSING
    if count.n_censored:
        solved = np.logical_or.accumulate(states == 1, axis=-1)
        states[..., 1:][solved[..., :-1]] = MISSING
    return states


def budgeted(count: Runs) -> Bool[np.ndarray, "question answer"]:
    """Answers each run had the budget for; all of them where the label may have cut it short."""
    reached = count.correct != MISSING
    if count.n_censored:
        reached = reached | (count.correct == 1).any(axis=1, keepdims=True)
    return reached


def _statistics(
    states: Int8[np.ndarray, "replicate question answer"], oracle: bool
) -> dict[str, Float[np.ndarray, "replicate entry"]]:
    """All statistics of each benchmark; what the label hides from a censored one is left out."""
    right, seen = states == 1, states != MISSING
    now, following = states[..., :-1], states[..., 1:]
    found = {}
    if oracle:
        solved = np.logical_or.accumulate(right, axis=-1)
        found["solved"] = solved.mean(axis=1)
        visit = (now == 0) & (following != MISSING)
        found["p_ic per round"] = _share(visit & (following == 1), visit)
        found["never right"] = 1 - solved[..., -1:].mean(axis=1)
        return found
    found["accuracy"] = _share(right, seen)
    for state, name in enumerate(("p_ic", "p_ci")):
        visit = (now == state) & (following != MISSING)
        found[f"{name} per round"] = _share(visit & (following != state), visit)
    before, now, following = states[..., :-2], states[..., 1:-1], states[..., 2:]
    cases = []
    for state in (0, 1):
        for earlier in (0, 1):
            visit = (before == earlier) & (now == state) & (following != MISSING)
            cases.append(_share_of_all(visit & (following == 1), visit))
    found["second order"] = np.stack(cases, axis=1)
    flips = (states[..., 1:] + states[..., :-1]) == 1
    found["flips per question"] = _share_with(flips, seen[..., 1:].any(axis=-1))
    found["never right"] = 1 - right.any(axis=-1).mean(axis=1)[:, None]
    found["always right"] = (right | ~seen).all(axis=-1).mean(axis=1)[:, None]
    return found


def _changes(
    changed: Int8[np.ndarray, "replicate question round"],
) -> dict[str, Float[np.ndarray, "replicate entry"]]:
    """All statistics of runs of which only changes of the answer are seen."""
    seen = changed != MISSING
    return {
        "changed per round": _share(changed == 1, seen),
        "changes per question": _share_with(changed == 1, seen.any(axis=-1)),
    }


def _share_with(
    events: Bool[np.ndarray, "replicate question round"],
    asked: Bool[np.ndarray, "replicate question"],
) -> Float[np.ndarray, "replicate number"]:
    """Share of the questions asked with 0, 1, 2, and 3 or more events."""
    times = np.where(asked, events.sum(axis=-1).clip(max=_MOST_FLIPS), -1)
    total = np.maximum(asked.sum(axis=1), 1)
    return np.stack([(times == n).sum(axis=1) / total for n in range(_MOST_FLIPS + 1)], axis=1)


def _share(yes: np.ndarray, asked: np.ndarray) -> Float[np.ndarray, "replicate answer"]:
    trials = asked.sum(axis=1)
    return np.where(trials > 0, yes.sum(axis=1) / np.maximum(trials, 1), np.nan)


def _share_of_all(yes: np.ndarray, asked: np.ndarray) -> Float[np.ndarray, " replicate"]:
    trials = asked.sum(axis=(1, 2))
    return np.where(trials > 0, yes.sum(axis=(1, 2)) / np.maximum(trials, 1), np.nan)


def _check(
    name: str,
    observed: Float[np.ndarray, " entry"],
    predicted: Float[np.ndarray, "replicate entry"],
    level: float,
) -> PredictiveCheck:
    known = ~np.isnan(observed) & (np.isfinite(predicted).sum(axis=0) > 1)
    usable = np.where(known, predicted, 0.0)
    with np.errstate(invalid="ignore"):
        mean, sd = np.nanmean(usable, axis=0), np.nanstd(usable, axis=0)

    # Replicates that all agree make any other value impossible under the model.
    scale = np.where(sd > 0, sd, 1e-9)
    cells = np.vstack([observed, predicted])
    off = np.where(known & ~np.isnan(cells), cells - mean, 0) / scale
    far, *replicated = (off**2).sum(axis=1)
    margin = 1e-9 * max(1.0, far)
    p_value = float((1 + (np.array(replicated) >= far - margin).sum()) / (1 + len(predicted)))
    tail = (1 - SHARE) / 2
    low, median, high = (
        np.where(known, np.nanquantile(usable, q, axis=0), np.nan) for q in (tail, 0.5, 1 - tail)
    )
    surprising = p_value <= level
    outside = int((known & ((observed < low) | (observed > high))).sum())
    verdict = "the model does not produce it" if surprising else "as the model predicts"
    sentence = (
        f"{_TITLES[name]}: {verdict}; {outside} of {int(known.sum())} outside the central 90 %, "
        f"p = {p_value:.3g}, level {level:.3g}"
    )
    return PredictiveCheck(name, observed, low, median, high, p_value, surprising, sentence)
