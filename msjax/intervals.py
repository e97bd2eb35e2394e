"""The one interval: a point estimate and the ends of what it may be."""

import math
from dataclasses import dataclass

LEVEL = 0.9
"""Share of intervals that hold the truth, wherever no other is said."""


@dataclass(frozen=True)
class Interval:
    """A point estimate and the ends of its interval, 90 % unless said; NaN where not identified.

    It prints as "0.520 [0.410, 0.620]", and as `format(interval, "+.2f")` says.
    """

    estimate: float
    low: float
    high: float

    @property
    def identified(self) -> bool:
        """Whether there is a number at all."""
        return not math.isnan(self.estimate)

    def __format__(self, form: str) -> str:
        if not self.identified:
            return "not identified"
        estimate, low, high = (
            format(x, form or ".3f") for x in (self.estimate, self.low, self.high)
        )
        return f"{estimate} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self, "")


NOT_IDENTIFIED = Interval(math.nan, math.nan, math.nan)
