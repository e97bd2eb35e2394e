"""What the parts hand over, and the time they have for it."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from msjax.cli.output import plain


@dataclass(frozen=True)
class Measurement:
    """One line of the report.

    Attributes:
        part: which part it belongs to.
        name: what was measured or checked.
        values: numbers by name, with units in the names.
        passed: of a check, whether it did; None if this is no check, or could not be made.
        says: in words, what the values leave open, such as why there are none.
    """

    part: str
    name: str
    values: dict[str, Any] = field(default_factory=dict)
    passed: bool | None = None
    says: str = ""

    def line(self) -> str:
        """As one line of JSON."""
        return json.dumps(plain(asdict(self)), allow_nan=False)


class Clock:
    """The time of a part.

    Args:
        seconds: of it.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, negative once it is over."""
        return self._end - time.monotonic()

    def shares(self, number: int) -> Iterator[Clock]:
        """Clocks of so many tasks in turn, each with an equal share of what is then left."""
        for remaining in range(number, 0, -1):
            yield Clock(self.left / remaining)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median time of a call that waits for its result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
