"""Commands run NumPyro, which relies on rank promotion."""

import pytest


@pytest.fixture(autouse=True)
def no_silent_rank_promotion() -> None:
    """Switched off here."""
