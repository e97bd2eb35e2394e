"""The cheapest policy that is, surely enough, no worse than what one does now.

A policy is no worse than the reference if its accuracy is below the reference's by less than `eps`.
The walk starts at the most expensive policy that is cheaper than the reference and goes on to the
next cheaper one as long as a test at level `delta` rejects that the policy is worse. It ends at the
first that is not rejected, so no level is shared out: a worse policy is passed only if the first
worse one on the way is rejected, which has probability at most `delta` for any number of policies.

Reference: docs/theory.md G1; Angelopoulos et al., arXiv 2110.01052 (tests in fixed sequence).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Real, Shaped
from scipy.special import betainc, gammaln, logsumexp, xlogy

from msjax.errors import InputError, require, require_uncertain

if TYPE_CHECKING:
    from msjax.decision.policies import Policy, PolicyOutcomes

__all__ = [
    "Guarantee",
    "GuaranteedPolicy",
    "betting_p_value",
    "cheapest_no_worse",
    "fewest_questions",
    "guaranteed_policy",
    "score_statistic",
    "trinomial_p_value",
]

_FIRST_CELLS = 64
_TOLERANCE = 0.002
"""How far the exact p-value may be exceeded, relative to it."""
_TIE = 1e-9
_NEGLIGIBLE, _NO_MASS = 1e-5, 1e-18
_BETS = 24


@dataclass(frozen=True)
class Guarantee:
    """Which policy can be used in place of the reference.

    Attributes:
        chosen: index of the cheapest policy that passed; None if none did, so that the reference
            stays.
        order: indices of the policies that are cheaper than the reference, as they were tested:
            most expensive first.
        p_values: of "worse than the reference by `eps` or more", by policy; NaN for policies that
            are not cheaper. Those after the first above `delta` play no part in the choice.
        units: questions, or clusters where these were given.
        eps: as asked for.
        delta: as asked for.
    """

    chosen: int | None
    order: tuple[int, ...]
    p_values: Float[np.ndarray, " policy"]
    units: int
    eps: float
    delta: float


def cheapest_no_worse(
    differences: Real[np.ndarray, "policy question"] | Sequence[Real[np.ndarray, " question"]],
    tokens: Real[np.ndarray, " mean"],
    reference_tokens: float,
    *,
    eps: float,
    delta: float,
    cluster: Sequence[Hashable] | None = None,
) -> Guarantee:
    """The cheapest policy of which "worse than the reference by `eps` or more" is rejected.

    The probability that a policy is chosen whose mean difference is `-eps` or less is at most
    `delta`, whatever the number of questions and whatever made them, if questions (or clusters)
    are independent draws of one distribution, if the policies were not learnt from their labels,
    and if the order of tokens is that which was to be expected.

    Args:
        differences: of each policy and question, the policy's correctness less the reference's.
            Rows of integers -1, 0, 1 are tested exactly (`trinomial_p_value`); rows of floats in
            [-1, 1], such as means over orders of samples, by betting (`betting_p_value`), which
            needs more questions.
        tokens: mean tokens per question.
        reference_tokens: the same of the reference; policies that take as many or more are left
            out.
        eps: loss of accuracy that is accepted, in (0, 1).
        delta: probability of a greater loss that is accepted, in (0, 1).
        cluster: of each question, what it belongs to, where questions of one cluster are alike;
            clusters then count once each, by their mean, tested by betting.

    Raises:
        InputError: eps or delta outside (0, 1), differences outside [-1, 1], tokens that are not
            finite, lengths that do not match, or no question.

    Reference: docs/theory.md G1.
    """
    _require_levels(eps, delta)
    rows, tokens = [np.asarray(row) for row in differences], np.asarray(tokens, dtype=float)
    shape = rows[0].shape if rows else (0,)
    if any(row.shape != shape for row in rows) or len(shape) != 1 or (rows and not shape[0]):
        raise InputError(
            f"differences has rows of shape {sorted({row.shape for row in rows})}; give every "
            "policy the same questions, at least one"
        )
    if tokens.shape != (len(rows),):
        raise InputError(
            f"tokens has shape {tokens.shape} for {len(rows)} policies; give one mean each"
        )
    require("tokens", tokens, np.isfinite, "give finite means")
    require("reference_tokens", reference_tokens, np.isfinite, "give a finite mean")
    if cluster is not None and rows and len(cluster) != shape[0]:
        raise InputError(
            f"cluster has {len(cluster)} entries for {shape[0]} questions; give one each"
        )
    for i, row in enumerate(rows):
        _require_differences(row, f"differences[{i}]")
    units = shape[0] if cluster is None else len(set(cluster))
    if cluster is not None and units < shape[0]:
        rows = [_cluster_means(row, cluster) for row in rows]
    order = [int(i) for i in np.argsort(-tokens, kind="stable") if tokens[i] < reference_tokens]
    p_values = np.full(len(tokens), np.nan)
    for i in order:
        p_values[i] = p_value(rows[i], eps)
    chosen = None
    for i in order:
        if p_values[i] > delta:
            break
        chosen = i
    return Guarantee(chosen, tuple(order), p_values, units, eps, delta)


@dataclass(frozen=True)
class GuaranteedPolicy:
    """What recorded runs guarantee, see `guaranteed_policy`.

    Attributes:
        policy: the cheapest that is no worse; None if none is sure enough, so that the reference
            stays.
        reference: the policy it was compared with.
        saved: share of the reference's tokens that it saves; 0 for None.
        guarantee: the tests, of the policies `tested`.
        tested: names of these policies.
    """

    policy: "Policy | None"
    reference: "Policy"
    saved: float
    guarantee: Guarantee
    tested: tuple[str, ...]

    def __str__(self) -> str:
        found = self.guarantee
        if self.policy is not None:
            assert found.chosen is not None
            return (
                f"{self.policy.says}: its accuracy is below that of {self.reference.name!r} by "
                f"more than {found.eps:g} with probability at most {found.delta:.2g} "
                f"(p = {found.p_values[found.chosen]:.2g}); it saves {self.saved:.0%} of the tokens"
            )
        keep = f"keep {self.reference.name!r}: "
        if not found.order:
            return f"{keep}no policy that is fixed beforehand is cheaper"
        least = fewest_questions(found.eps, found.delta)
        if found.units < least:
            return f"{keep}{found.units} questions or clusters; at least {least} are needed"
        return (
            f"{keep}no cheaper policy is within {found.eps:g} of it with probability "
            f"{1 - found.delta:.2g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        found = self.guarantee
        return {
            "policy": self.policy.name if self.policy else None,
            "reference": self.reference.name,
            "saved": self.saved,
            "questions_or_clusters": found.units,
            "eps": found.eps,
            "delta": found.delta,
            "tested": [
                {"policy": self.tested[i], "p_value": float(found.p_values[i])} for i in found.order
            ],
        }


def guaranteed_policy(
    outcomes: "PolicyOutcomes",
    reference: int,
    *,
    eps: float,
    delta: float,
    cluster: Sequence[Hashable] | None = None,
) -> GuaranteedPolicy:
    """`cheapest_no_worse` of the first answer and of all policies like the reference.

    These are the policies that return the same kind of answer (the last, or a majority) and learn
    nothing from labels. Questions count that show the reference. Tokens are uncached ones, or
    answers asked for where tokens were not reported.

    Args:
        outcomes: what policies did on recorded questions.
        reference: position of the policy that is in use at present.
        eps: loss of accuracy that is accepted.
        delta: accepted probability of a greater loss.
        cluster: what each question belongs to, where questions depend on each other.

    Raises InputError for eps or delta outside (0, 1), or where no question shows the reference.
    """
    _require_levels(eps, delta)
    policies = outcomes.policies
    spent = outcomes.asked if np.isnan(outcomes.uncached).all() else outcomes.uncached
    whole = ~np.isnan(outcomes.right[:, reference] + spent[:, reference])
    # Every further policy may end the walk, so those that return another kind of answer are left
    # out, as are those that the questions with the reference do not show.
    candidates = [
        j
        for j, policy in enumerate(policies)
        if j != reference
        and not policy.learnt
        and (j == 0 or policy.returns == policies[reference].returns)
        and not np.isnan((outcomes.right[:, j] + spent[:, j])[whole]).any()
    ]
    if not whole.any():
        raise InputError(f"no question shows {policies[reference].name!r}; name another baseline")
    base = outcomes.right[whole, reference]
    differences = []
    for j in candidates:
        difference = outcomes.right[whole, j] - base
        # Means over orders of samples are told by the kind of policy, not by their values.
        averaged = policies[j].parallel or policies[reference].parallel
        differences.append(difference if averaged else difference.astype(int))
    tokens = spent[whole].mean(axis=0)
    found = cheapest_no_worse(
        differences,
        tokens[candidates],
        float(tokens[reference]),
        eps=eps,
        delta=delta,
        cluster=None if cluster is None else [cluster[int(i)] for i in np.flatnonzero(whole)],
    )
    chosen = None if found.chosen is None else candidates[found.chosen]
    return GuaranteedPolicy(
        None if chosen is None else policies[chosen],
        policies[reference],
        0.0 if chosen is None else float(1 - tokens[chosen] / tokens[reference]),
        found,
        tuple(policies[j].name for j in candidates),
    )


def fewest_questions(eps: float, delta: float) -> int:
    """Questions below which not even a policy that differed on none of them can be passed.

    With fewer, a loss on a share `eps` of all questions shows on none with probability
    (1 - eps)^n > delta.

    Raises InputError for eps or delta outside (0, 1).
    """
    _require_levels(eps, delta)
    return math.ceil(math.log(delta) / math.log1p(-eps) - _TIE)


def p_value(differences: Real[np.ndarray, " question"], eps: float) -> float:
    """Of "the mean difference is `-eps` or less": exact for integers, by betting for floats."""
    _require_differences(differences)
    if np.issubdtype(differences.dtype, np.integer):
        broken, repaired = int((differences < 0).sum()), int((differences > 0).sum())
        return trinomial_p_value(broken, repaired, len(differences), eps)
    return float(betting_p_value(differences, eps))


def score_statistic(
    broken: Int[np.ndarray, "..."] | int, repaired: Int[np.ndarray, "..."] | int, n: int, eps: float
) -> Float[np.ndarray, "..."]:
    """How far the share repaired less the share broken is above `-eps`, in standard errors.

        z = (repaired - broken + n eps) / sqrt(n (2 q + eps - eps^2)),

    where q and q + eps are the likeliest shares of repaired and broken that differ by eps.

    Reference: Tango (1998), Statistics in Medicine 17, 891-908; docs/theory.md G1.
    """
    broken, repaired = np.asarray(broken, dtype=float), np.asarray(repaired, dtype=float)
    same = n - broken - repaired
    half = (repaired * (1 - 3 * eps) + broken * (1 - eps) - 2 * eps * same) / 2
    root = np.sqrt(half**2 + 2 * n * repaired * eps * (1 - eps))
    q = np.clip((half + root) / (2 * n), 0, (1 - eps) / 2)
    return np.asarray((repaired - broken + n * eps) / np.sqrt(n * (2 * q + eps - eps**2)))


def trinomial_p_value(broken: int, repaired: int, n: int, eps: float) -> float:
    """The greatest probability of a score as high as that seen, over all means of `-eps` or less.

    Of n questions, `repaired` were right under the policy alone and `broken` under the reference
    alone. Every distribution of mean -eps or less is stochastically below one of mean -eps, so the
    supremum runs over the share repaired, q in [0, (1 - eps) / 2]. It is taken by bounding cells of
    q from above, and dividing them until the bound exceeds the greatest value known by at most
    0.2 % of it or 1e-5.

    Raises:
        InputError: counts that are negative or exceed n, n < 1, or eps outside (0, 1).

    Reference: docs/theory.md G1.
    """
    _require_levels(eps)
    if n < 1 or min(broken, repaired) < 0 or broken + repaired > n:
        raise InputError(
            f"{broken} broken and {repaired} repaired of {n} questions; give counts that add up to "
            "at most n >= 1"
        )
    fewest = _fewest_repaired(score_statistic(broken, repaired, n, eps), n, eps)
    edges = (1 - eps) / 2 * np.sin(np.linspace(0, np.pi / 2, _FIRST_CELLS + 1)) ** 2
    low, high = edges[:-1], edges[1:]
    known = _tail(fewest, n, edges + eps, edges).max()
    passed = 0.0
    while True:
        # Fewer broken and more repaired than anywhere in the cell.
        bound = _tail(fewest, n, low + eps, high)
        close = bound <= known * (1 + _TOLERANCE) + _NEGLIGIBLE
        passed = max(passed, bound[close].max(initial=0.0))
        if close.all():
            return float(min(max(passed, known), 1.0))
        low, high = low[~close], high[~close]
        middle = (low + high) / 2
        known = max(known, _tail(fewest, n, middle + eps, middle).max())
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])


def betting_p_value(
    differences: Real[np.ndarray, "*batch question"], eps: float
) -> Float[np.ndarray, "*batch"]:
    """A p-value of "the mean of these numbers in [-1, 1] is `-eps` or less", in any order.

    Whoever stakes the share lam on every question has, after all of them, prod(1 + lam (d + eps)),
    of mean at most 1 if the mean of d is -eps or less. The mean of that over bets lam is an e-value
    E, and 1 / E is a p-value (Markov). Bets run evenly in the logarithm from eps to nearly
    1 / (1 - eps), where one loss takes all.

    Raises InputError for numbers outside [-1, 1] and for eps outside (0, 1).

    Reference: docs/theory.md G1; Waudby-Smith and Ramdas, arXiv 2010.09686.
    """
    _require_levels(eps)
    _require_differences(differences)
    bets = np.geomspace(eps, 0.99 / (1 - eps), _BETS)
    # Sorted, so that rounding cannot depend on the order of questions.
    above = np.sort(np.asarray(differences, dtype=float), axis=-1) + eps
    log_worth = np.stack([np.log1p(bet * above).sum(axis=-1) for bet in bets])
    return np.asarray(np.exp(np.minimum(math.log(_BETS) - logsumexp(log_worth, axis=0), 0.0)))


def _fewest_repaired(
    score: Float[np.ndarray, ""], n: int, eps: float
) -> Int[np.ndarray, " broken"]:
    """For 0, 1, ..., n broken: the fewest repaired whose score is not below; n + 1 for none."""
    broken = np.arange(n + 1)
    low, high = np.zeros(n + 1, dtype=int), n - broken + 1
    while (low < high).any():
        middle = np.minimum((low + high) // 2, n - broken)
        reached = score_statistic(broken, middle, n, eps) >= score - _TIE
        searched = low < high
        high = np.where(searched & reached, middle, high)
        low = np.where(searched & ~reached, middle + 1, low)
    low = np.where(low > n - broken, n + 1, low)
    # The supremum over the null is on its edge only for a region that fewer broken never leave.
    return np.minimum.accumulate(low[::-1])[::-1]


def _tail(
    fewest: Int[np.ndarray, " broken"],
    n: int,
    share_broken: Float[np.ndarray, " cell"],
    share_repaired: Float[np.ndarray, " cell"],
) -> Float[np.ndarray, " cell"]:
    """P(at least `fewest` repaired, given how many are broken) under these shares."""
    broken = np.flatnonzero(fewest <= n - np.arange(n + 1))
    p = np.minimum(share_broken, 1.0)[:, None]
    rest = n - broken
    coefficient = gammaln(n + 1) - gammaln(broken + 1) - gammaln(rest + 1)
    weight = np.exp(coefficient + xlogy(broken, p) + xlogy(rest, 1 - p))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(p < 1, share_repaired[:, None] / (1 - p), 0.0)
    share = np.clip(share, 0.0, 1.0)
    at_least = np.broadcast_to(fewest[broken], weight.shape)
    # P(Binomial(rest, share) >= at_least) is an incomplete Beta function. It is 1 for at_least = 0,
    # and is taken for 1 where hardly any mass is, which saves most of the work.
    many = np.ones(weight.shape)
    cell, j = np.nonzero((at_least > 0) & (weight > _NO_MASS))
    many[cell, j] = betainc(fewest[broken[j]], rest[j] - fewest[broken[j]] + 1, share[cell, 0])
    return np.asarray((weight * many).sum(axis=1))


def _cluster_means(
    differences: Real[np.ndarray, " question"], cluster: Sequence[Hashable]
) -> Float[np.ndarray, " cluster"]:
    members: dict[Hashable, list[float]] = {}
    for name, difference in zip(cluster, differences.tolist(), strict=True):
        members.setdefault(name, []).append(difference)
    return np.array([math.fsum(own) / len(own) for own in members.values()])


def _require_differences(differences: Shaped[np.ndarray, "..."], name: str = "differences") -> None:
    remedy = "the difference of two answers' correctness lies in [-1, 1]"
    require(name, differences, lambda x: (x >= -1) & (x <= 1), remedy)


def _require_levels(eps: float, delta: float = 0.5) -> None:
    remedy = "give a loss of accuracy in (0, 1), such as 0.05"
    require("eps", eps, lambda x: (x > 0) & (x < 1), remedy)
    require_uncertain("delta", delta)
