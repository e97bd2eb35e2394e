"""One laboratory per file of claims, so that its tests share their simulations."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import pytest

from msjax.verify.bench import ClaimResult, Findings, gather, judge, select
from msjax.verify.claim import Claim, Laboratory


@pytest.fixture(scope="module")
def laboratory() -> Laboratory:
    """Two hundred thousand paths per setting, and ensembles of two hundred million."""
    return Laboratory(jax.random.key(11), 200_000)


@pytest.fixture(scope="module")
def verdicts(laboratory: Laboratory) -> Callable[..., dict[str, ClaimResult]]:
    """Judges claims: `verdicts(claims, section, ids, precision=..., sabotage=...)`, by id.

    What the closed forms of a file say is computed once, however often it is falsified.
    """
    said: dict[str, Claim] = {}

    def remembered(claim: Claim) -> Claim:
        if claim.id not in said:
            (found,) = gather([claim], laboratory)
            said[claim.id] = _saying(found)
        return said[claim.id]

    def run(
        claims: Sequence[Claim], section: str | None = None, ids: Sequence[str] = (), **options: Any
    ) -> dict[str, ClaimResult]:
        chosen = select(claims, section, ids)
        if "sabotage" in options:
            chosen = [remembered(claim) for claim in chosen]
        found = list(gather(chosen, laboratory, **options))
        if options == {"precision": "float64"}:
            said.update({one.claim.id: _saying(one) for one in found})
        return {result.id: result for result in judge(found)}

    return run


def _saying(found: Findings) -> Claim:
    """The claim, with a closed form that says again what it said."""
    values = defaultdict(list)
    for setting, value in zip(found.settings, found.closed_form, strict=True):
        values[setting].append(value)
    return dataclasses.replace(found.claim, closed_form=values.__getitem__, compiled=False)
