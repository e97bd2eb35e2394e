"""Commands run NumPyro, which relies on rank promotion."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_silent_rank_promotion() -> None:
    """Switched off here."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a terminal; what a shell starts in the background ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
