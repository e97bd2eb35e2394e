"""Checks claims: gathers what exact arithmetic and simulation say, then judges all together."""

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import jax
import numpy as np
from jaxtyping import ArrayLike, Bool, Float
from scipy import stats

from msjax.devices import require_float64
from msjax.errors import InputError
from msjax.verify.claim import Claim, Laboratory, compiled
from msjax.verify.evidence import FALSE_ALARM, Evidence, join

__all__ = ["ClaimResult", "Findings", "Precision", "gather", "judge", "select"]

Precision = Literal["float32", "float64"]

_FLOAT32_TOLERANCE = 3e-5


@dataclasses.dataclass(frozen=True)
class Findings:
    """What speaks for and against one claim, over all its settings.

    Attributes:
        claim: the claim.
        settings: the setting of each exact comparison.
        closed_form, exact: the two sides of the exact comparisons.
        tolerance: largest error allowed between them, relative to max(1, |exact|).
        simulated_settings: the setting of each Monte Carlo comparison.
        evidence: the Monte Carlo comparisons.
    """

    claim: Claim
    settings: list[tuple]
    closed_form: Float[np.ndarray, "m"]
    exact: Float[np.ndarray, "m"]
    tolerance: float
    simulated_settings: list[tuple]
    evidence: Evidence

    @property
    def error(self) -> Float[np.ndarray, "m"]:
        """|closed form - exact| / max(1, |exact|); 0 where both are the same infinity or NaN."""
        with np.errstate(invalid="ignore"):
            error = np.abs(self.closed_form - self.exact) / np.maximum(1, np.abs(self.exact))
        same = (self.closed_form == self.exact) | (
            np.isnan(self.closed_form) & np.isnan(self.exact)
        )
        return np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))


@dataclasses.dataclass(frozen=True)
class ClaimResult:
    """Outcome of one claim; the numbers are those of its worst Monte Carlo comparison.

    Attributes:
        id, section, statement, reference, holds: as in the claim.
        ok: whether the claim stands, or for a known error whether it was refuted.
        exact_ok: whether the closed form equals the exact values, within `tolerance`.
        exact_error: largest error among `exact_values` of them, relative to max(1, |exact|).
        monte_carlo_ok: whether simulation is compatible with the claim.
        closed_form, estimate, standard_error: prediction, Monte Carlo estimate and its error;
            where the claim is an order the prediction is the bound it sets.
        z: (estimate - closed_form) / standard_error.
        threshold: the |z| at which a normal estimate would fail, given all comparisons made.
        setting: parameters of the worst comparison.
        settings: number of settings that the claim was checked on.
        comparisons: number of Monte Carlo comparisons over those settings.
        residuals: z of each of them.
    """

    id: str
    section: str
    statement: str
    reference: str
    holds: bool
    ok: bool
    exact_ok: bool
    exact_error: float
    exact_values: int
    tolerance: float
    monte_carlo_ok: bool
    closed_form: float
    estimate: float
    standard_error: float
    z: float
    threshold: float
    setting: tuple
    settings: int
    comparisons: int
    residuals: tuple[float, ...]


def select(
    claims: Sequence[Claim], section: str | None = None, ids: Sequence[str] = ()
) -> list[Claim]:
    """Claims of a section, or of the given ids, or all.

    Raises:
        InputError: an unknown section or id (the message names what comes near), or ids of other
            sections.
    """
    sections = list(dict.fromkeys(claim.section for claim in claims))
    if section is not None and section not in sections:
        raise InputError(f"section is {section!r}; choose one of {', '.join(sections)}")
    known = [claim.id for claim in claims]
    for wanted in ids:
        if wanted not in known:
            near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
            raise InputError(f"claim is {wanted!r}, which does not exist; {hint}")
    selected = [
        claim
        for claim in claims
        if section in (None, claim.section) and (not ids or claim.id in ids)
    ]
    if not selected:
        raise InputError(
            f"no claim of {', '.join(ids)} is in section {section}; drop one of the two"
        )
    return selected


def gather(
    claims: Sequence[Claim],
    laboratory: Laboratory,
    precision: Precision = "float64",
    sabotage: float = 0.0,
) -> Iterator[Findings]:
    """Compare the closed form of each claim with exact values and with simulation.

    Args:
        claims: what to check, from `select`.
        laboratory: runs the simulations, and remembers them for the next call.
        precision: of the closed forms; simulation is exact in either.
        sabotage: multiply every prediction by 1 + sabotage. Claims are judged one by one, so this
            says for each whether the check would notice it being wrong.

    Yields: findings, claim by claim.

    Raises:
        InputError: a device without float64.
    """
    require_float64("a check of claims")
    # While one claim is compiled another is computed. Over several devices the programs of two
    # threads could wait for each other.
    threads = (os.cpu_count() or 1) if len(jax.devices()) == 1 else 1
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(lambda claim: _examine(claim, laboratory, precision, sabotage), claims)


def _examine(
    claim: Claim, laboratory: Laboratory, precision: Precision, sabotage: float
) -> Findings:
    """All comparisons of one claim."""
    settings, predictions, exacts, simulated, parts = [], [], [], [], []
    closed_form = _compiled(claim) if claim.compiled else claim.closed_form
    for setting in claim.settings:
        with jax.enable_x64(precision == "float64"):
            predicted = np.ravel(np.asarray(closed_form(setting), float)) * (1 + sabotage)
        exact = laboratory.exact(claim, setting)
        assert exact.shape == predicted.shape, f"{claim.id}: {exact.shape} != {predicted.shape}"
        settings += [setting] * exact.size
        predictions.append(predicted)
        exacts.append(exact)
        with jax.enable_x64(True):
            evidence = claim.monte_carlo(laboratory, setting, predicted)
        if evidence is not None:
            parts.append(evidence)
            simulated += [setting] * evidence.tail.size
    tolerance = claim.tolerance
    if precision == "float32":
        tolerance = max(tolerance, _FLOAT32_TOLERANCE)
    return Findings(
        claim,
        settings,
        np.concatenate(predictions),
        np.concatenate(exacts),
        tolerance,
        simulated,
        join(*parts),
    )


def _compiled(claim: Claim) -> Callable[[tuple], ArrayLike]:
    """The closed form of a claim, compiled for floats of any value."""
    held = [i for i, value in enumerate(claim.settings[0]) if not isinstance(value, float)]
    of_numbers = compiled(lambda *setting: claim.closed_form(setting), *held)
    return lambda setting: of_numbers(*setting)


def judge(findings: Sequence[Findings]) -> list[ClaimResult]:
    """Verdicts, with the false alarms of all comparisons together held to `FALSE_ALARM`.

    Each Monte Carlo comparison may fail by a tail of `FALSE_ALARM` / (number of comparisons).
    """
    allowed = FALSE_ALARM / sum(found.evidence.tail.size for found in findings)
    return [_judge(found, allowed) for found in findings]


def _judge(found: Findings, allowed: float) -> ClaimResult:
    claim, evidence = found.claim, found.evidence
    # Among equal tails: the closest call if all are fine, the grossest mismatch if all are not.
    distance = np.where(evidence.tail < 1, -np.abs(evidence.z), np.abs(evidence.z))
    worst = int(np.lexsort((distance, evidence.tail))[0])
    exact: Bool[np.ndarray, "m"] = found.error <= found.tolerance
    exact_ok, monte_carlo_ok = bool(exact.all()), bool(evidence.tail[worst] >= allowed)
    stands = exact_ok and monte_carlo_ok
    refuted = not exact_ok and not monte_carlo_ok
    return ClaimResult(
        id=claim.id,
        section=claim.section,
        statement=claim.statement,
        reference=claim.reference,
        holds=claim.holds,
        ok=stands if claim.holds else refuted,
        exact_ok=exact_ok,
        exact_error=float(found.error.max()),
        exact_values=found.error.size,
        tolerance=found.tolerance,
        monte_carlo_ok=monte_carlo_ok,
        closed_form=float(evidence.predicted[worst]),
        estimate=float(evidence.estimate[worst]),
        standard_error=float(evidence.standard_error[worst]),
        z=float(evidence.z[worst]),
        threshold=float(stats.norm.isf(allowed / 2)),
        setting=found.simulated_settings[worst],
        settings=len(claim.settings),
        comparisons=evidence.tail.size,
        residuals=tuple(np.round(evidence.z, 3).tolist()),
    )


def outcome(results: Sequence[ClaimResult]) -> str:
    """How many claims hold, and how many known misconceptions are refuted, in words."""
    kinds = ("claims hold", "known misconceptions are refuted, as they should be")
    found = []
    for holds, words in zip((True, False), kinds, strict=True):
        of_kind = [result.ok for result in results if result.holds == holds]
        if of_kind:
            found.append(f"{sum(of_kind)} of {len(of_kind)} {words}")
    return "; ".join(found)
