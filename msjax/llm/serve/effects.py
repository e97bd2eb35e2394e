"""What the rule saves and gains against a baseline that a random share of requests is given."""

from __future__ import annotations

import math

from msjax.errors import InputError
from msjax.intervals import LEVEL, Interval

__all__ = ["FEWEST", "Difference", "RunningMean", "negated"]

FEWEST = 50
"""Requests of each kind before an interval is given, since it holds for many."""
_TIGHTEST = 1000
"""Requests after which intervals are as narrow as they can be for their level."""


class RunningMean:
    """The mean of what comes in, with an interval that holds at all times at once.

    After t values of mean m and standard deviation s,

        m +- s sqrt(2 (t r + 1) / (t^2 r) log(sqrt(t r + 1) / a)),     a = 1 - level,

    contains the mean of their expectations, given what came before each, for all t from some on,
    with a probability that tends to `level` as that start grows: an asymptotic confidence sequence.
    r makes it narrowest at 1,000 values.

    Reference: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, arXiv 2103.06476, theorem 2.2.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.count += 1
        away = value - self.mean
        self.mean += away / self.count
        self._squares += away * (value - self.mean)

    def interval(self, level: float = LEVEL) -> Interval:
        """Mean and interval; the interval is endless before there are two values."""
        if self.count < 2:
            return Interval(self.mean if self.count else math.nan, -math.inf, math.inf)
        t, a = self.count, 1 - level
        r = (-2 * math.log(a) + math.log(1 - 2 * math.log(a))) / _TIGHTEST
        spread = math.sqrt(self._squares / t)
        wide = spread * math.sqrt(
            2 * (t * r + 1) / (t * t * r) * math.log(math.sqrt(t * r + 1) / a)
        )
        return Interval(self.mean, self.mean - wide, self.mean + wide)


class Difference:
    """Mean of the rule's values less that of the baseline's, of requests given to either at random.

    A request counts as +- (value - centre) / P(it was given to what it was given to), where the
    centre is the mean of all values before it. Its expectation is the difference on that very
    request, whatever requests come when, so no two requests need be alike.

    Args:
        share: probability with which a request was given to the baseline, in (0, 1).

    Attributes:
        counts: requests of the rule and of the baseline.
    """

    def __init__(self, share: float) -> None:
        if not 0 < share < 1:
            raise InputError(f"share is {share}; give a probability in (0, 1)")
        self._share = share
        self._seen = RunningMean()
        self._terms = RunningMean()
        self.counts = [0, 0]

    def add(self, value: float, *, baseline: bool) -> None:
        """One more request."""
        away = value - self._seen.mean
        self._terms.add(-away / self._share if baseline else away / (1 - self._share))
        self._seen.add(value)
        self.counts[baseline] += 1

    def interval(self) -> Interval | None:
        """Difference and interval; None before there are 50 requests of each."""
        return self._terms.interval() if min(self.counts) >= FEWEST else None


def negated(interval: Interval) -> Interval:
    """The interval of the negative."""
    return Interval(-interval.estimate, -interval.high, -interval.low)
