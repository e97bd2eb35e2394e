"""What the proxy counts, for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from msjax.intervals import Interval

__all__ = ["Metrics"]


class Metrics:
    """Counters and gauges of one proxy.

    Attributes:
        requests: by what became of them.
        answers: how many were asked for, by what decided.
        tokens: reported, by what decided and by category.
        unreported: requests without a whole account.
        unscored: answers that the reward model did not score.
        given_up: upstream requests cancelled, by why.
        fallbacks: requests given to the baseline because of an alarm.
        labels: received, by what decided.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"msjax_{name}", says, labels, registry=registry)

        self.requests = counter("requests", "Requests, by what became of them", "outcome")
        self.answers = Histogram(
            "msjax_answers",
            "Answers asked for per request that was decided on",
            ["arm"],
            buckets=(1, 2, 3, 4, 6, 8, 16, 32, 64),
            registry=registry,
        )
        self.tokens = counter("tokens", "Tokens, by category", "arm", "category")
        self.unreported = counter("unreported", "Requests without a whole account")
        self.unscored = counter("unscored", "Answers that the reward model did not score")
        self.given_up = counter("cancelled", "Upstream requests given up", "why")
        self.fallbacks = counter("fallbacks", "Requests given to the baseline after an alarm")
        self.labels = counter("labels", "Labels received", "arm", "correct")
        self._gauges: dict[str, Gauge] = {}

    def watch(self, name: str, says: str, value: Callable[[], float], **labels: str) -> None:
        """A number that is looked up whenever metrics are asked for."""
        gauge = self._gauge(name, says, tuple(labels))
        (gauge.labels(**labels) if labels else gauge).set_function(value)

    def watch_interval(self, name: str, says: str, value: Callable[[], Interval | None]) -> None:
        """An interval by its `end` (estimate, low, high), NaN while there is none."""

        def end(which: str) -> Callable[[], float]:
            def found() -> float:
                interval = value()
                return math.nan if interval is None else float(getattr(interval, which))

            return found

        for which in ("estimate", "low", "high"):
            self.watch(name, says, end(which), end=which)

    def _gauge(self, name: str, says: str, labels: tuple[str, ...]) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, says, labels, registry=self._registry)
        return self._gauges[name]

    def text(self) -> bytes:
        """In the text format of Prometheus."""
        return generate_latest(self._registry)
