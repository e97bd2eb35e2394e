"""`msjax verify`: every claim of the theory against exact arithmetic and simulation."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from msjax.cli.output import OutputFile, Seed, begin, width
from msjax.errors import InputError

if TYPE_CHECKING:
    from msjax.verify.bench import ClaimResult

__all__ = ["Verify"]


@dataclasses.dataclass(frozen=True)
class Verify:
    """Check every claim of docs/theory.md: closed form, exact arithmetic, Monte Carlo.

    Exit status 1 if any claim fails. Example: msjax verify --section A4 --seed 7
    """

    chains: int = 1_000_000
    """Paths simulated per setting, at least 10,000; ensembles have a thousand times as many."""

    seed: Seed = 0
    """Random seed; printed, so that a run can be repeated."""

    section: str | None = None
    """Only the claims of one section of docs/theory.md, such as A6."""

    claim: tuple[str, ...] = ()
    """Only these claims, such as A1.transient."""

    precision: Literal["float32", "float64"] = "float64"
    """Precision of the closed forms."""

    devices: int | None = None
    """Spread paths over this many devices (CPU threads, on a CPU); does not change any number."""

    sabotage: float | None = None
    """Multiply each closed form by 1 + SABOTAGE and report which claims the check catches; the exit
    status is then 1 if any is caught, as for closed forms that are wrong."""

    list: bool = False
    """Only say what is claimed, in words, and where each claim comes from."""

    report: OutputFile | None = None
    """Also write a report with a plot of all residuals: a .html or .md file."""

    json: OutputFile | None = None
    """Also write the results to this file, as a JSON list of claims."""

    def run(self) -> int:
        """Run the checks, print the table and return the exit status."""
        if self.devices is not None:
            _use_devices(self.devices)

        import jax
        from tqdm import tqdm

        from msjax.cli.output import write_json
        from msjax.verify import CLAIMS
        from msjax.verify.bench import gather, judge, select
        from msjax.verify.claim import Laboratory

        if self.sabotage is not None and not math.isfinite(self.sabotage):
            raise InputError(f"--sabotage is {self.sabotage}; give a finite number such as 0.001")
        if self.report is not None:
            from msjax.report.figures import claims_report

            claims_report.check_path(self.report)
        claims = select(CLAIMS, self.section, self.claim)
        if self.list:
            for claim in claims:
                _print_words(claim.id, claim.statement, claim.reference, claim.holds)
            return 0
        if self.sabotage is not None:
            claims = [claim for claim in claims if claim.holds]
        laboratory = Laboratory(jax.random.key(self.seed), self.chains)
        findings = []
        with tqdm(total=len(claims), unit="claim", disable=None, leave=False) as bar:
            for section, members in groupby(claims, key=lambda claim: claim.section):
                begin(f"checking {section}")
                for found in gather(
                    list(members), laboratory, self.precision, self.sabotage or 0.0
                ):
                    findings.append(found)
                    bar.update()
        results = judge(findings)
        print(f"seed {self.seed}, {self.chains:,} paths per setting, closed forms {self.precision}")
        if self.sabotage is not None:
            return self._report_caught(results)
        failed = _print_table(results)
        if self.json is not None:
            write_json(self.json, results)
        if self.report is not None:
            print(f"report: {claims_report.write(results, self.seed, self.chains, self.report)}")
        return 1 if failed else 0

    def _report_caught(self, results: Sequence[ClaimResult]) -> int:
        """Which falsified closed forms were noticed, and by what."""
        from msjax.cli.output import write_json

        rows = [
            {
                "id": result.id,
                "caught": not result.ok,
                "by_exact": not result.exact_ok,
                "by_monte_carlo": not result.monte_carlo_ok,
            }
            for result in results
        ]
        for row in rows:
            by = [name for name in ("exact", "monte_carlo") if row[f"by_{name}"]]
            print(f"{row['id']:<22} {'caught by ' + ' and '.join(by) if by else 'NOT caught'}")
        caught = sum(bool(row["caught"]) for row in rows)
        print(f"{caught} of {len(rows)} closed forms that are off by {self.sabotage:g} were caught")
        if self.json is not None:
            write_json(self.json, rows)
        return 1 if caught else 0


def _use_devices(devices: int) -> None:
    """Make that many devices, before JAX starts.

    Raises:
        InputError: fewer than one, or more than this process has or can make.
    """
    if devices < 1:
        raise InputError(f"devices is {devices}; give a number >= 1")
    import jax

    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:  # JAX has started: it has the devices it has
        pass
    if len(jax.devices()) < devices:
        raise InputError(
            f"devices is {devices}, but there are {len(jax.devices())}; give at most that many"
        )


def _print_table(results: Sequence[ClaimResult]) -> list[str]:
    """Every claim with its outcome and in words; returns the ids of those that fail."""
    from msjax.verify.bench import outcome
    from msjax.verify.evidence import FALSE_ALARM

    for result in results:
        word = "holds" if result.ok else "FAILS"
        if not result.holds:
            word = "refuted, as it should be" if result.ok else "NOT refuted"
        numbers = f"exact error {result.exact_error:.0e}, z {result.z:+.1f}"
        print(_filled(f"{result.id:<22} {word}: {numbers}", "", "    "))
        _print_words("", result.statement, result.reference, result.holds)
        if not result.ok:
            _print_failure(result)
    failed = [result.id for result in results if not result.ok]
    simulated = sum(result.comparisons for result in results)
    exact = sum(result.exact_values for result in results)
    print(_filled(outcome(results)))
    print(
        _filled(
            f"{exact:,} exact values and {simulated:,} Monte Carlo comparisons; z is that of the "
            f"worst of a claim, an equality fails beyond {results[0].threshold:.2f} (false alarm "
            f"{FALSE_ALARM:g} for the whole run)"
        )
    )
    if failed:
        print(_filled(f"FAILED: {', '.join(failed)}"))
    return failed


def _print_words(name: str, statement: str, reference: str, holds: bool) -> None:
    """What is claimed, and by whom; a theorem is called so, and a misconception too."""
    kind = "" if holds else "a known misconception: "
    if name:
        print(name)
    print(_filled(f"{kind}{statement} [{reference}]", "    "))


def _print_failure(result: ClaimResult) -> None:
    sides = (("exact values", result.exact_ok), ("Monte Carlo", result.monte_carlo_ok))
    against = " and ".join(name for name, fine in sides if fine != result.holds)
    print(
        _filled(
            f"{against} {'speak against' if result.holds else 'agree with'} it, worst at "
            f"{result.setting}: closed form {result.closed_form:.6f}, Monte Carlo "
            f"{result.estimate:.6f}, standard error {result.standard_error:.1e}",
            "    ",
        )
    )


def _filled(words: str, first: str = "", then: str | None = None) -> str:
    """Lines as wide as the terminal, indented by `first`, and after the first one by `then`."""
    rest = first if then is None else then
    return textwrap.fill(
        words, width(), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )
