"""`msjax fit`: from recorded runs to the posterior of a chain, with its assumptions checked."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    from inference.fit import ChainFit
    from inference.push_forward import Estimate, Quantities

_UNKNOWN = "not identified"


@dataclass(frozen=True)
class Fit:
    """Estimate p0, p_ic and p_ci of every benchmark in recorded sequential runs.

    Prints the posterior of the two-state chain and of what follows from it (accuracy per round and
    its limit, the best number of rounds N*, whether refining helps), and checks whether one
    homogeneous chain describes the runs at all.

    Example: msjax fit runs.jsonl --out posterior.nc --json fit.json
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """JSON Lines files written by `msjax generate`; pooled by benchmark name."""
    out: Path | None = None
    """Write the posterior here (netCDF, opens in ArviZ); stopping rules read it."""
    json: Path | None = None
    """Write everything that is printed here as JSON."""
    seed: int = 0
    """Seed of all random draws."""
    value: float = 1.0
    """Worth of a correct answer, in any unit."""
    price: float = 1e-4
    """Price of one token in the unit of --value: 1e-4 makes 1,000 tokens worth a tenth of a correct
    answer when that is worth 1."""

    def run(self) -> int:
        """Fit, print, write; 0 when done, 1 when the sampler did not converge."""
        import jax

        from inference.counts import read_counts
        from inference.fit import NotConvergedError, fit
        from inference.push_forward import quantities
        from inference.store import save
        from msjax.cli.output import write_json

        counts = read_counts(self.runs)
        try:
            result = fit(counts, jax.random.key(self.seed))
        except NotConvergedError as error:
            print(f"msjax fit: {error}", file=sys.stderr)
            return 1
        derived = quantities(result.posterior, value=self.value, price=self.price)
        report = {
            "model": counts[0].model,
            "seed": self.seed,
            "value": self.value,
            "price": self.price,
            "prior": result.prior._asdict(),
            "benchmarks": {
                count.benchmark: _benchmark(result, derived, row)
                for row, count in enumerate(counts)
            },
        }
        _print_report(report)
        if self.json:
            write_json(self.json, report)
        if self.out:
            save(self.out, result, seed=self.seed, sources=self.runs)
        return 0


def _benchmark(result: "ChainFit", derived: "Quantities", row: int) -> dict[str, Any]:
    """Everything that is reported of one benchmark, in JSON's types."""
    from inference.posterior import PARAMETERS
    from inference.push_forward import estimate

    count, diagnostics = result.counts[row], result.diagnostics
    identified = result.posterior.identified[:, row]
    draws = [getattr(result.posterior, name)[:, row] for name in PARAMETERS]
    agreement = diagnostics.agreement[:, :, row]
    (ii, ic), (ci, cc) = count.transitions.sum(axis=0).tolist()
    helps = estimate(derived.helps[:, row])
    return {
        "questions": count.questions,
        "rounds": count.rounds,
        "censored": count.censored,
        "first_right": count.first_right,
        "transitions": {"II": ii, "IC": ic, "CI": ci, "CC": cc},
        "tokens_per_round": count.tokens_per_round,
        "diagnostics": {
            "r_hat": dict(zip(PARAMETERS, diagnostics.r_hat[:, row].tolist(), strict=True)),
            "bulk_ess": dict(zip(PARAMETERS, diagnostics.bulk_ess[:, row].tolist(), strict=True)),
            "divergences": diagnostics.divergences,
            "largest_z_against_exact": float(abs(agreement).max()),
            "z_limit": diagnostics.agreement_limit,
        },
        "parameters": {
            name: _interval(estimate(values) if known else None)
            for name, values, known in zip(PARAMETERS, draws, identified, strict=True)
        },
        "quantities": {
            "r": _interval(estimate(derived.r[:, row])),
            "pi": _interval(estimate(derived.pi[:, row])),
            "accuracy": [
                _interval(estimate(derived.accuracy[:, row, k]))
                for k in range(derived.accuracy.shape[2])
            ],
            "optimal_rounds": _interval(estimate(derived.optimal_rounds[:, row])),
            "probability_refining_helps": helps and helps.mean,
        },
        "checks": [vars(check) for check in result.checks[row]],
        "warnings": _warnings(result, row),
    }


def _interval(estimate: "Estimate | None") -> dict[str, float] | None:
    return None if estimate is None else estimate._asdict()


def _warnings(result: "ChainFit", row: int) -> list[str]:
    """What a reader must know before any number, most serious first."""
    from inference.posterior import PARAMETERS

    count, found = result.counts[row], []
    broken = [check for check in result.checks[row] if check.contradicted]
    if broken:
        found.append(
            f"CONTRADICTED: one homogeneous chain does not describe these runs "
            f"({', '.join(check.name for check in broken)}); its numbers are averages over what "
            "differs, and its intervals and its limit cannot be trusted"
        )
    if count.censored:
        found.append(
            f"CENSORED: {count.censored} runs were stopped by looking at the label; p_ci cannot "
            "be estimated, and p_ic is that of the questions still wrong, which get harder"
        )
    found.extend(
        f"NOT IDENTIFIED: {name}, as no run shows it; its posterior is its prior"
        for name, known in zip(PARAMETERS, result.posterior.identified[:, row], strict=True)
        if not known
    )
    unchecked = [check.name for check in result.checks[row] if check.contradicted is None]
    if unchecked:
        found.append(f"NOT CHECKED: these runs do not allow the check of {', '.join(unchecked)}")
    return found


def _print_report(report: dict[str, Any]) -> None:
    print(f"model {report['model']}, seed {report['seed']}")
    for name, benchmark in report["benchmarks"].items():
        for warning in benchmark["warnings"]:
            print(f"!! {name}: {warning}")
    for name, benchmark in report["benchmarks"].items():
        _print_benchmark(name, benchmark, report)


def _print_benchmark(name: str, benchmark: dict[str, Any], report: dict[str, Any]) -> None:
    moves = " ".join(f"{move} {times}" for move, times in benchmark["transitions"].items())
    print(
        f"\n{name}: {benchmark['questions']} questions, {benchmark['first_right']} right at once, "
        f"up to {benchmark['rounds']} rounds; transitions {moves}"
    )
    print(f"  {'':16}{'median':>8}  90 % interval   {'R-hat':>6} {'bulk ESS':>9}")
    diagnostics, derived = benchmark["diagnostics"], benchmark["quantities"]
    for parameter, interval in benchmark["parameters"].items():
        r_hat, ess = diagnostics["r_hat"][parameter], diagnostics["bulk_ess"][parameter]
        _print_row(parameter, interval, f"   {r_hat:6.3f} {ess:9.0f}")
    _print_row("r", derived["r"])
    _print_row("pi = limit", derived["pi"])
    for k in range(benchmark["rounds"] + 1):
        _print_row(f"p_{k}", derived["accuracy"][k])
    _print_row("N*", derived["optimal_rounds"], form=".0f")
    helps = derived["probability_refining_helps"]
    print(f"  P(refining helps | data): {_UNKNOWN if helps is None else f'{helps:.3f}'}")
    print(
        f"  N* is the best of 0..{len(derived['accuracy']) - 1} rounds when a correct answer is "
        f"worth {report['value']:g} and a token costs {report['price']:g}."
    )
    prior = report["prior"]
    print(
        f"  Prior Beta({prior['alpha']:g}, {prior['beta']:g}). NUTS agrees with the exact "
        f"posterior: largest |z| {diagnostics['largest_z_against_exact']:.1f}, "
        f"limit {diagnostics['z_limit']:.1f}; {diagnostics['divergences']} divergences."
    )
    print("  Checks (counts are changes of state / visits, p-values posterior predictive):")
    for check in benchmark["checks"]:
        print(f"    {check['name']}: {check['sentence']}")


def _print_row(
    title: str, interval: dict[str, float] | None, more: str = "", form: str = ".3f"
) -> None:
    if interval is None:
        print(f"  {title:16}{_UNKNOWN}")
    else:
        median, low, high = (format(interval[x], form) for x in ("median", "low", "high"))
        print(f"  {title:16}{median:>8}  [{low}, {high}]".ljust(42) + more)
