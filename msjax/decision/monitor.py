"""Whether what a pilot promised still holds, watched question by question for as long as one likes.

With labels, of questions on which policy and reference were both run: `PromiseMonitor`. Without,
or before it costs accuracy: `RateTest`, whether something that each question shows, such as that
the first revision changed the answer, has become more or less frequent than in the pilot. Either
may be looked at after every question, and rings where nothing is wrong with at most the stated
probability, ever.

Reference: docs/theory.md G2 and C6.
"""

import hashlib
import math

import numpy as np
from jaxtyping import ArrayLike, Float, Int, Real
from scipy.special import betainc, betaln, xlogy

from msjax.errors import InputError, require, require_probability, require_uncertain

__all__ = ["PromiseMonitor", "RateTest", "audited", "promise_evidence"]

_BETS = 12
_CELLS = 400
_HALF_STAKED = 50
"""Questions by which half of the capital that bets against a promise is staked."""


class PromiseMonitor:
    """Rings when the policy's accuracy is below the reference's by more than `eps`.

    The evidence against the promise is what one would own who started with 1 and bet against it,
    see `promise_evidence`. While the promise holds this ever reaches 1 / false_alarm with
    probability at most `false_alarm`, however long one watches and whatever else changes. Once it
    is broken, use the reference.

    Args:
        eps: loss of accuracy that was accepted, in (0, 1).
        false_alarm: probability of ever ringing while the promise holds, in (0, 1).

    Attributes:
        questions: watched so far.
        mean: mean difference over them; NaN before the first.
        evidence: against the promise.
        broken_at: number of questions after which it rang; None if it did not.

    Raises:
        InputError: eps or false_alarm out of range.

    Reference: docs/theory.md G2.
    """

    def __init__(self, eps: float, *, false_alarm: float = 0.01) -> None:
        require_uncertain("eps", eps)
        require_uncertain("false_alarm", false_alarm)
        self._eps, self._limit = eps, 1 / false_alarm
        self._capital = np.zeros(_BETS)
        self._sum = 0.0
        self.questions = 0
        self.evidence = 1.0
        self.broken_at: int | None = None

    @property
    def mean(self) -> float:
        """Mean difference so far."""
        return self._sum / self.questions if self.questions else math.nan

    @property
    def broken(self) -> bool:
        """Whether it has rung."""
        return self.broken_at is not None

    def add(self, difference: float) -> bool:
        """One more question: the policy's correctness less the reference's, in [-1, 1].

        Returns whether the promise is broken. Raises InputError for a difference out of range.
        """
        _require_difference(difference)
        self._capital = _bet(self._capital, np.asarray(difference), self.questions, self._eps)
        self.questions += 1
        self._sum += float(difference)
        self.evidence = float(self._capital.sum()) + _reserve(self.questions)
        if not self.broken and self.evidence >= self._limit:
            self.broken_at = self.questions
        return self.broken


def promise_evidence(
    differences: Real[np.ndarray, "*batch question"], eps: float
) -> Float[np.ndarray, "*batch question"]:
    """Evidence against "every question's mean difference is at least -eps", after each question.

    A bet lam begun at question j is worth prod_{i >= j} (1 - lam (d_i + eps)) later, of mean at
    most 1 while the promise holds. Of a capital of 1 the part 50 / (50 + t) is not yet staked after
    t questions; what is staked is spread evenly over bets lam from 0.02 to nearly 1 / (1 + eps). So
    a promise that is broken late is noticed too. Bets whose worth would overflow are held at 1e300.

    Raises InputError for eps outside (0, 1) and for differences outside [-1, 1].

    Reference: docs/theory.md G2; Waudby-Smith and Ramdas, arXiv 2010.09686.
    """
    require_uncertain("eps", eps)
    _require_difference(differences)
    differences = np.asarray(differences, dtype=float)
    capital = np.zeros((*differences.shape[:-1], _BETS))
    evidence = np.empty(differences.shape)
    for j in range(differences.shape[-1]):
        capital = _bet(capital, differences[..., j], j, eps)
        evidence[..., j] = capital.sum(axis=-1) + _reserve(j + 1)
    return evidence


def _bet(
    capital: Float[np.ndarray, "*batch bet"],
    difference: Float[np.ndarray, "*batch"],
    before: int,
    eps: float,
) -> Float[np.ndarray, "*batch bet"]:
    """Capital staked on each bet after one more question; `before` questions came before it."""
    bets = np.geomspace(0.02, 0.99 / (1 + eps), _BETS)
    staked = capital + (_reserve(before) - _reserve(before + 1)) / _BETS
    return np.minimum(staked * (1 - bets * (difference[..., None] + eps)), 1e300)


def _reserve(questions: int) -> float:
    """Capital that is not staked yet."""
    return _HALF_STAKED / (_HALF_STAKED + questions)


class RateTest:
    """Whether a rate has changed since the pilot, tested as often as one likes.

    Trials are independent with one rate p in the pilot, and live with one rate, the same if nothing
    changed. For each p: u(p) is the exact two-sided p-value of the pilot, and v(p) the inverse of
    the greatest value so far of

        B(1 + s, 1 + f) / (p^s (1 - p)^f)

    after s live successes and f failures, a martingale of mean 1 under p. As u and v are
    independent, P(u v <= c) <= c (1 - log c) under p (Fisher). The p-value is that bound at the
    greatest u(p) v(p) over all p, which is bounded from above in each of 400 cells. `restart`
    begins another such test with the trials that follow, so that a late change is noticed: the b-th
    has the share 1 / (b (b + 1)) of the level. The p-value of all never rises, and ever falls to
    `alpha` with probability at most `alpha` if nothing changed, whatever p.

    Args:
        successes: of the pilot; arrays stand for several tests at once.
        failures: of the pilot, in the same shape.

    Raises:
        InputError: a negative count.

    Reference: docs/theory.md C6.
    """

    def __init__(
        self, successes: Int[ArrayLike, "*batch"], failures: Int[ArrayLike, "*batch"]
    ) -> None:
        _require_counts(successes=successes, failures=failures)
        a, b = (np.asarray(x, dtype=float)[..., None] for x in (successes, failures))
        edges = np.sin(np.linspace(0, np.pi / 2, _CELLS + 1)) ** 2
        self._low, self._high = edges[:-1], edges[1:]
        # P(X >= a) rises with p and P(X <= a) falls, so each is greatest at one end of a cell.
        many = np.where(a > 0, betainc(np.maximum(a, 1), b + 1, self._high), 1.0)
        few = np.where(b > 0, betainc(np.maximum(b, 1), a + 1, 1 - self._low), 1.0)
        with np.errstate(divide="ignore"):
            self._log_u = np.log(np.minimum(2 * np.minimum(many, few), 1.0))
        self._counts = np.zeros((2, *self._log_u.shape[:-1], 1))
        self._before: list[Float[np.ndarray, "2 *batch 1"]] = []
        self._log_most: list[Float[np.ndarray, "*batch cell"]] = []
        self.restart()

    def restart(self) -> None:
        """Begin another test, with the live trials that follow."""
        self._before.append(self._counts)
        self._log_most.append(np.zeros_like(self._log_u))

    def update(
        self, successes: Int[ArrayLike, "*batch"], failures: Int[ArrayLike, "*batch"]
    ) -> Float[np.ndarray, "*batch"]:
        """The p-value of "the rate is the pilot's" after so many live trials in all.

        Raises InputError for a negative count, or fewer than before.
        """
        _require_counts(successes=successes, failures=failures)
        now = np.stack([np.asarray(x, dtype=float)[..., None] for x in (successes, failures)])
        if np.any(now < self._counts):
            raise InputError("fewer live trials than before; give all of them, old and new")
        self._counts = now
        least = np.ones(self._log_u.shape[:-1])
        for b, before in enumerate(self._before):
            s, f = now - before
            likeliest = np.clip(s / np.maximum(s + f, 1), self._low, self._high)
            log_worth = betaln(1 + s, 1 + f) - xlogy(s, likeliest) - xlogy(f, 1 - likeliest)
            self._log_most[b] = np.maximum(self._log_most[b], log_worth)
            log_c = np.minimum((self._log_u - self._log_most[b]).max(axis=-1), 0.0)
            least = np.minimum(least, np.exp(log_c) * (1 - log_c) * (b + 1) * (b + 2))
        return np.asarray(least)


def audited(question_id: str, share: float) -> bool:
    """Whether a question is one of those, a `share` of all, on which the reference is run too.

    It depends on the name of the question alone, so that neither the question's difficulty nor its
    answers decide whether it is looked at.

    Raises InputError for a share outside [0, 1].
    """
    require_probability("share", share)
    digest = hashlib.sha256(question_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _require_difference(difference: Real[ArrayLike, "..."]) -> None:
    remedy = "the difference of two answers' correctness lies in [-1, 1]"
    require("difference", difference, lambda x: (x >= -1) & (x <= 1), remedy)


def _require_counts(**counts: Int[ArrayLike, "..."]) -> None:
    for name, count in counts.items():
        if np.any(np.asarray(count) < 0):
            raise InputError(f"{name} is {count}; a count cannot be negative")
