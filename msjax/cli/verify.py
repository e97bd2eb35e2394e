"""`msjax verify`: every closed form of the two-state chain against Monte Carlo."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulate.claims import ClaimResult

__all__ = ["Verify"]

_ROW = "{:<20} {:>11} {:>11} {:>10} {:>8}  {}"


@dataclasses.dataclass(frozen=True)
class Verify:
    """Check every closed form of docs/theory.md against simulated chains.

    Exit status 1 if any claim fails. Example: msjax verify --section A4 --seed 7
    """

    chains: int = 1_000_000
    """Chains simulated per setting of (p0, p_ic, p_ci), at least 10,000."""

    seed: int = 0
    """Random seed; printed, so that a run can be repeated."""

    section: str | None = None
    """Only the claims of one section of docs/theory.md, such as A6."""

    json: Path | None = None
    """Also write the results to this file, as a JSON list of claims."""

    def run(self) -> int:
        """Run the checks, print the table and return the exit status."""
        import jax

        from msjax.cli.output import write_json
        from simulate.claims import FALSE_ALARM, run_claims

        results = run_claims(jax.random.key(self.seed), self.chains, self.section)
        print(f"seed {self.seed}, {self.chains:,} chains per setting")
        print(_ROW.format("claim", "closed form", "Monte Carlo", "std error", "z", "verdict"))
        for result in results:
            print(_line(result))
        failed = [result.id for result in results if not result.ok]
        comparisons = sum(result.comparisons for result in results)
        print(
            f"{len(results) - len(failed)} of {len(results)} claims as stated, {comparisons:,} "
            f"comparisons, |z| allowed {results[0].threshold:.2f} "
            f"(false alarm {FALSE_ALARM:g} for the whole run); rows show the worst comparison"
        )
        if failed:
            print(f"FAILED: {', '.join(failed)}")
        if self.json is not None:
            write_json(self.json, results)
        return 1 if failed else 0


def _line(result: ClaimResult) -> str:
    """One row of the table."""
    verdict = ("holds" if result.holds else "refuted") if result.ok else "FAILS"
    if not result.holds:
        verdict += f": '{result.statement}'"
    if not result.ok:
        verdict += " at p0={:g} p_ic={:g} p_ci={:g}".format(*result.chain)
    return _ROW.format(
        result.id,
        f"{result.closed_form:.6f}",
        f"{result.estimate:.6f}",
        f"{result.standard_error:.1e}",
        f"{result.z:+.2f}",
        verdict,
    )
