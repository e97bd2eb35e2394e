"""Several servers of the same models: the least loaded one is asked, one that fails is left out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["UNAVAILABLE", "Upstream", "by_load"]

LEFT_OUT = 10.0
"""Seconds for which a server that failed is asked only if no other is there."""
UNAVAILABLE = (502, 503, 504)
"""Statuses with which a server says that another should be asked."""


@dataclass
class Upstream:
    """One server.

    Attributes:
        url: of its API.
        in_flight: requests under way.
        failures: requests that it failed.
        reason: why it failed the last one, "" while it is up.
        until: when it will be asked again, by the monotonic clock.
    """

    url: str
    in_flight: int = 0
    failures: int = 0
    reason: str = ""
    until: float = field(default=0.0, repr=False)

    @property
    def up(self) -> bool:
        """Whether it is asked."""
        return time.monotonic() >= self.until

    def fail(self, reason: str) -> None:
        """It failed; others are asked for a while."""
        self.failures += 1
        self.reason, self.until = reason, time.monotonic() + LEFT_OUT

    def answered(self) -> None:
        """It answered, so it is asked like any other."""
        if self.reason:
            self.reason, self.until = "", 0.0


def by_load(servers: Sequence[Upstream], last: Upstream | None = None) -> list[Upstream]:
    """Whom to ask: the last one, whose cache knows the conversation, then by load.

    Args:
        servers: all there are.
        last: who answered this conversation so far, if anyone did.
    """

    def worse(server: Upstream) -> tuple[bool, bool, float, int]:
        up = server.up
        return not up, server is not last, 0.0 if up else server.until, server.in_flight

    return sorted(servers, key=worse)
