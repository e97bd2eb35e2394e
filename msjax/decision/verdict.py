"""Which policy a pilot speaks for, what it is worth, and how sure that is.

A policy says when to stop asking and which answer to return. Policies are compared on the same
questions; policy 0 keeps the first answer. Nothing here knows what a policy is: it takes what each
returned and what it cost, question by question.

Reference: docs/decisions.md.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from msjax.decision.band import joint_errors, multiplier, normal_points
from msjax.evaluate.means import DIFFERENCES, SHARES, UNBOUNDED, Means, means, smoothed, student

__all__ = ["FEWEST", "LEVEL", "Intervals", "Judgement", "Outcomes", "Verdict", "judge", "word"]

LEVEL = 0.9
"""Probability that an interval, or all of a band at once, holds the truth."""
FEWEST = 20
"""Questions below which nothing is decided: a share of so few is known to within .2 at best."""

_RANGE = {"accuracy": (0.0, 1.0), "gain": (-1.0, 1.0), "against": (-1.0, 1.0)}
_DIGITS = 6
_RARE = 0.05
"""Share of simulated choices below which their quantiles are not trusted."""

Verdict = Literal["better", "no worse", "worse", "cannot tell"]


@dataclass(frozen=True)
class Outcomes:
    """What every policy did on every question; NaN where that was not recorded.

    Attributes:
        right: whether the answer returned is right, or how often over foldings.
        tokens: uncached tokens.
        cluster: which of 0, 1, ... each question belongs to.
        baseline: the policy in use at present.
        cost: what orders policies, cheapest first, where tokens are not known.
    """

    right: Float[np.ndarray, "question policy"]
    tokens: Float[np.ndarray, "question policy"]
    cluster: Int[np.ndarray, " question"]
    baseline: int
    cost: Float[np.ndarray, "question policy"] | None = None


@dataclass(frozen=True)
class Intervals:
    """One quantity of every policy.

    Attributes:
        estimate: mean over the questions that show it; NaN where none does.
        low, high: ends of intervals; equal to the estimate where that is exact, NaN where every
            question has the same value, so that nothing shows how it varies.
        error: standard error.
        exact: whether the quantity is what it is by construction.
    """

    estimate: Float[np.ndarray, " policy"]
    low: Float[np.ndarray, " policy"]
    high: Float[np.ndarray, " policy"]
    error: Float[np.ndarray, " policy"]
    exact: Bool[np.ndarray, " policy"]


@dataclass(frozen=True)
class Choice:
    """How a policy is chosen from estimated differences to the first answer.

    With a price: the one of greatest net value. Without one, of the policies that neither can be
    told from the most accurate one nor are less accurate than the baseline, the one of fewest
    tokens; where that leaves the first answer out, only policies better than it are left.

    Attributes:
        reach: by how much two policies must differ to be told apart.
        cost: tokens more than the first answer takes.
        eligible: policies that may be chosen.
        baseline: the policy in use at present.
        priced: whether differences are of net value.
    """

    reach: Float[np.ndarray, "policy policy"]
    cost: Float[np.ndarray, " policy"]
    eligible: Bool[np.ndarray, " policy"]
    baseline: int
    priced: bool

    def __call__(
        self,
        gain: Float[np.ndarray, "point policy"],
        dearer: float | Float[np.ndarray, "point policy"] = 0.0,
        scale: float | Float[np.ndarray, "policy policy"] = 1.0,
    ) -> Int[np.ndarray, " point"]:
        """The policy chosen for every row of differences; of equal ones the first.

        `dearer` is added to the cost, and `scale` multiplies `reach`.
        """
        mine = np.where(self.eligible, gain, -np.inf)
        if self.priced:
            return mine.argmax(axis=1)
        reach = scale * self.reach
        best = mine.argmax(axis=1)
        kept = mine.max(axis=1, keepdims=True) - mine <= reach[best]
        if self.eligible[self.baseline]:
            kept &= mine[:, [self.baseline]] - mine <= reach[self.baseline]
        better = mine - mine[:, [0]] > reach[:, 0]
        left = self.eligible & kept & (better | kept[:, [0]])
        # Rounding must not decide between policies that cost the same.
        cost = np.round(self.cost + dearer, _DIGITS)
        cheapest = np.where(left, cost, np.inf).argmin(axis=1)
        return np.where(left.any(axis=1), cheapest, best)


@dataclass(frozen=True)
class Judgement:
    """Every policy with its intervals, the policy chosen, and the word on it.

    Attributes:
        chosen: the policy to use.
        baseline: the policy in use at present.
        reference: the policy that the word compares it with.
        verdict: the word.
        accuracy, tokens: of every policy.
        gain: accuracy less that of the first answer.
        against: accuracy less that of the baseline.
        saving: tokens less than the baseline takes.
        net_gain, net_against: net value less that of the first answer and of the baseline, in right
            answers; the same as `gain` and `against` without a price.
        questions, clusters: what a policy was compared with the first answer on.
        eligible: policies that enough questions show to be recommended.
        decided_by: what the choice and the word rest on: accuracy or net value.
        parts: the means behind all this, by name.
        multipliers: of standard errors, for the chosen policy.
        choice: how the policy was chosen.
    """

    chosen: int
    baseline: int
    reference: int
    verdict: Verdict
    accuracy: Intervals
    tokens: Intervals
    gain: Intervals
    against: Intervals
    saving: Intervals
    net_gain: Intervals
    net_against: Intervals
    questions: Int[np.ndarray, " policy"]
    clusters: Int[np.ndarray, " policy"]
    eligible: Bool[np.ndarray, " policy"]
    decided_by: Literal["accuracy", "net value"]
    parts: dict[str, Means] = field(repr=False)
    multipliers: dict[str, float] = field(repr=False)
    choice: Choice = field(repr=False)

    @property
    def deciding(self) -> tuple[str, str]:
        """Names of the parts that the choice rests on, and the word if the reference is not the
        first answer.
        """
        priced = self.decided_by == "net value"
        return ("net_gain", "net_against") if priced else ("gain", "against")

    @property
    def difference(self) -> tuple[float, float, float]:
        """Estimate and ends of what the word is about: chosen policy less the reference."""
        found = self.net_gain if self.reference == 0 else self.net_against
        at = self.chosen
        return float(found.estimate[at]), float(found.low[at]), float(found.high[at])


def word(low: float, high: float, margin: float) -> Verdict:
    """What an interval of a difference says.

    better if all of it is above 0; else no worse if none of it is below -margin; else worse if all
    of it is below 0; else cannot tell.
    """
    if low > 0:
        return "better"
    if low >= -margin:
        return "no worse"
    return "worse" if high < 0 else "cannot tell"


def judge(
    outcomes: Outcomes,
    *,
    margin: float,
    token_price: float | None = None,
    level: float = LEVEL,
) -> Judgement:
    """Choose a policy and say what it is worth.

    The interval of the chosen policy holds the truth with probability `level` in pilots like this
    one, whichever policy they would choose: multipliers of its standard errors are quantiles over
    simulated pilots, whose truth is spread around this one, of |error| / standard error of what
    each of them chooses. Those of the other policies hold for all policies at once.

    Args:
        outcomes: what policies did.
        margin: a loss of accuracy up to this counts as none.
        token_price: price of a token in right answers; None if nobody gave one.
        level: probability that intervals hold.
    """
    right, tokens, cluster = outcomes.right, outcomes.tokens, outcomes.cluster
    policies = right.shape[1]
    base = outcomes.baseline
    is_first, is_base = np.arange(policies) == 0, np.arange(policies) == base
    parts = {
        "accuracy": means(right, cluster, SHARES),
        "tokens": means(tokens, cluster, UNBOUNDED),
        "gain": means(right - right[:, [0]], cluster, DIFFERENCES, is_first),
        "against": means(right - right[:, [base]], cluster, DIFFERENCES, is_base),
        "saving": means(tokens[:, [base]] - tokens, cluster, UNBOUNDED, is_base),
    }
    if token_price is not None:
        net = right - token_price * tokens
        parts["net_gain"] = means(net - net[:, [0]], cluster, DIFFERENCES, is_first)
        parts["net_against"] = means(net - net[:, [base]], cluster, DIFFERENCES, is_base)
    decides = parts["gain" if token_price is None else "net_gain"]
    clusters = decides.clusters
    eligible = is_first | (clusters >= FEWEST)
    paid = tokens if outcomes.cost is None else outcomes.cost
    extra = means(paid - paid[:, [0]], cluster, UNBOUNDED, is_first)
    *drawn, dearer = joint_errors(
        [*parts.values(), extra], normal_points(policies * (len(parts) + 1))
    )
    errors = dict(zip(parts, drawn, strict=True))
    moved, moved_dearer = joint_errors([decides, extra], normal_points(2 * policies, 1))
    together = {
        name: _together(errors[name], part, eligible, level) for name, part in parts.items()
    }
    name = "gain" if token_price is None else "net_gain"
    choice = chooser(
        decides, extra, eligible, base, together[name], level, priced=token_price is not None
    )
    if clusters[0] < FEWEST:
        chosen, picks = base, np.full(len(moved), base)
    else:
        chosen = int(choice(decides.estimate[None])[0])
        picks = choice(decides.estimate + moved + errors[name], moved_dearer + dearer)
    multipliers = {
        name: min(_alone(errors[name], part, picks, level), together[name])
        for name, part in parts.items()
    }
    here = np.arange(policies) == chosen
    found = {
        name: _intervals(part, np.where(here, multipliers[name], together[name]), _RANGE.get(name))
        for name, part in parts.items()
    }
    found.setdefault("net_gain", found["gain"])
    found.setdefault("net_against", found["against"])
    reference = 0 if chosen != 0 else base
    difference = found["net_gain"] if reference == 0 else found["net_against"]
    verdict = word(float(difference.low[chosen]), float(difference.high[chosen]), margin)
    shown = ("net_gain", "net_against") if token_price is not None else ("gain", "against")
    rests_on = parts[shown[reference != 0]].clusters[chosen]
    if chosen != reference and rests_on < FEWEST:
        verdict = "cannot tell"
    return Judgement(
        chosen=chosen,
        baseline=base,
        reference=reference,
        verdict=verdict,
        questions=decides.questions,
        clusters=clusters,
        eligible=eligible,
        decided_by="accuracy" if token_price is None else "net value",
        parts=parts,
        multipliers=multipliers,
        choice=choice,
        **found,
    )


def chooser(
    decides: Means,
    extra: Means,
    eligible: Bool[np.ndarray, " policy"],
    baseline: int,
    together: float,
    level: float,
    *,
    priced: bool,
) -> Choice:
    """The choice, from what decides it and the multiplier that holds for all policies at once.

    The first answer and the baseline are told apart by the multiplier of a single comparison, as
    these two are named beforehand.
    """
    clusters = np.minimum(decides.clusters[:, None], decides.clusters)
    shrink = clusters / (clusters + DIFFERENCES.number)
    # `influence` is shrunk already; `smoothed` would do so once more.
    square = decides.influence.T @ decides.influence
    variance = np.diag(square)[:, None] + np.diag(square) - 2 * square
    estimate = decides.estimate[:, None] - decides.estimate
    _, error = smoothed(estimate, variance / shrink**2, clusters, DIFFERENCES)
    reach = student(together, clusters) * error / shrink
    alone = student(-special.ndtri((1 - level) / 2), clusters) * error / shrink
    for a, b in ((0, baseline), (baseline, 0)):
        reach[a, b] = alone[a, b]
    # Without tokens all cost the same, and the first policy is taken.
    cost = np.where(extra.questions > 0, extra.estimate, 0.0)
    return Choice(reach, cost, eligible, baseline, priced)


def _together(
    errors: Float[np.ndarray, "point policy"],
    part: Means,
    eligible: Bool[np.ndarray, " policy"],
    level: float,
) -> float:
    """Multiplier that holds for all policies at once."""
    counts = eligible & (part.error > 0) & np.isfinite(part.error)
    if not counts.any():
        counts = (part.error > 0) & np.isfinite(part.error)
    ratios = np.abs(errors[:, counts]) / part.error[counts]
    return multiplier(ratios.max(axis=1, initial=0.0), level)


def _alone(
    errors: Float[np.ndarray, "point policy"],
    part: Means,
    picks: Int[np.ndarray, " point"],
    level: float,
) -> float:
    """Multiplier that holds for the policy chosen; infinite where hardly any has an error."""
    error = part.error[picks]
    counts = (error > 0) & np.isfinite(error)
    if counts.mean() < _RARE:
        return np.inf
    return multiplier(errors[counts, picks[counts]] / error[counts], level)


def _intervals(
    part: Means, normal: Float[np.ndarray, " policy"], within: tuple[float, float] | None
) -> Intervals:
    known = part.questions > 0
    estimate = np.where(known, part.estimate, np.nan)
    reach = student(normal, part.clusters) * np.where(part.error > 0, part.error, np.nan)
    reach = np.where(part.exact, 0.0, reach)
    low = np.minimum(part.centre - reach, estimate)
    high = np.maximum(part.centre + reach, estimate)
    if within is not None:
        low, high = np.maximum(low, within[0]), np.minimum(high, within[1])
    return Intervals(estimate, low, high, part.error, known & part.exact)
