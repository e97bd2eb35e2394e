"""One laboratory per file of claims, so that its tests share their simulations."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import pytest

from msjax.verify.bench import ClaimResult, gather, judge, select
from msjax.verify.claim import Claim, Laboratory


@pytest.fixture(scope="module")
def laboratory() -> Laboratory:
    """Two hundred thousand paths per setting, and ensembles of two hundred million."""
    return Laboratory(jax.random.key(11), 200_000)


@pytest.fixture(scope="module")
def verdicts(laboratory: Laboratory) -> Callable[..., dict[str, ClaimResult]]:
    """Judges claims: `verdicts(claims, section, ids, precision=..., sabotage=...)`, by id."""

    def run(
        claims: Sequence[Claim], section: str | None = None, ids: Sequence[str] = (), **options: Any
    ) -> dict[str, ClaimResult]:
        found = gather(select(claims, section, ids), laboratory, **options)
        return {result.id: result for result in judge(list(found))}

    return run
