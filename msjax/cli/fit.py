"""`msjax fit`: from recorded runs to a posterior worth trusting, or to the reason why not."""

import math
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from msjax.cli.output import OutputFile, OutputFolder, Seed, prepare_sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from msjax.data.runs import Runs
    from msjax.posterior.analysis import Analysis
    from msjax.posterior.compare import Candidate, Score
    from msjax.posterior.quantities import Bounds

_UNKNOWN = "not identified"


@dataclass(frozen=True)
class Fit:
    """Fit recorded sequential runs: whether revising helps, its limit and bounds, how sure one is.

    With --model auto, several models of each benchmark are fitted and compared by leave-one-out and
    by how well they predict later rounds from earlier ones; the one chosen is put to the test by
    posterior predictive checks. What the runs cannot show is reported as not identified.

    Example: msjax fit runs.jsonl --out posterior.nc --json fit.json
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """JSON Lines files written by `msjax run`; pooled by benchmark name."""
    model: str = "auto"
    """auto, or one of: pooled, heterogeneous, mover_stayer, mover_stayer_beta, drifting,
    drifting_mover_stayer, second_order, logit_normal; partial_pooling (all benchmarks at once);
    noisy (`correct` holds verdicts of a verifier that errs); label_free (only whether the answer
    changed is used)."""
    verifier: tuple[int, int, int, int] | None = None
    """For --model noisy, how the verifier did on answers with known labels: true positives, false
    negatives, true negatives, false positives."""
    out: OutputFile | None = None
    """Write the posterior here (netCDF, opens in ArviZ); stopping rules read it."""
    json: OutputFile | None = None
    """Write everything that is printed here as JSON."""
    figures: OutputFolder | None = None
    """Draw the bounds of all benchmarks, curves and predictive checks of each, in this folder."""
    seed: Seed = 0
    """Seed of all random draws."""
    value: float = 1.0
    """Worth of a correct answer, in any unit."""
    price: float = 1e-4
    """Price of one token in the unit of --value: 1e-4 makes 1,000 tokens worth a tenth of a correct
    answer when that is worth 1."""

    def run(self) -> int:
        """Fit, print, write; 0 when done, 1 when the sampler did not converge."""
        prepare_sampling()
        from msjax.cli.output import write_json
        from msjax.data.runs import Runs
        from msjax.errors import require_extra, require_value_and_cost
        from msjax.posterior.fit import NotConvergedError
        from msjax.posterior.store import save

        if self.figures:
            require_extra("report", "matplotlib")
        require_value_and_cost(self.value, price=self.price)
        counts = Runs.from_files(self.runs).groups
        try:
            found = self._analyses(counts)
        except NotConvergedError as error:
            print(f"msjax fit: {error}", file=sys.stderr)
            return 1
        report = {
            "seed": self.seed,
            "value": self.value,
            "price": self.price,
            "benchmarks": {a.fit.count.name: as_dict(a) for a in found},
        }
        _print_report(report)
        if self.json:
            write_json(self.json, report)
        if self.out:
            save(self.out, found, seed=self.seed, sources=self.runs)
        if self.figures:
            _draw(report, self.figures)
        return 0

    def _analyses(self, counts: "Sequence[Runs]") -> "list[Analysis]":
        import jax
        from tqdm import tqdm

        from msjax.posterior.analysis import analyse, criticise, split_key

        key = jax.random.key(self.seed)
        if self.model == "partial_pooling":
            from msjax.posterior.models.partial_pooling import partially_pool

            together = partially_pool(counts, key)
            return [
                criticise(
                    together.fit_of(name),
                    split_key(jax.random.fold_in(key, b))[1],
                    value=self.value,
                    price=self.price,
                )
                for b, name in enumerate(together.benchmarks)
            ]
        found = []
        with tqdm(counts, desc="fit", unit="benchmark", disable=None) as bar:
            for b, count in enumerate(bar):

                def show(model: str, benchmark: str = count.name) -> None:
                    bar.set_postfix_str(f"{benchmark}: {model}")

                found.append(
                    analyse(
                        count,
                        jax.random.fold_in(key, b),
                        model=self._model(),
                        value=self.value,
                        price=self.price,
                        progress=show,
                    )
                )
        return found

    def _model(self) -> Any:
        from msjax.errors import InputError

        if self.verifier is None:
            return self.model
        if self.model != "noisy":
            raise InputError(
                f"--verifier is {self.verifier} with --model {self.model}; "
                "it belongs to --model noisy"
            )
        from msjax.posterior.models.noisy import Noisy, VerifierCounts

        return Noisy(VerifierCounts(*self.verifier))


def as_dict(found: "Analysis") -> dict[str, Any]:
    """Everything that is reported of one benchmark, in JSON's types."""
    from msjax.posterior.analysis import observed_accuracy
    from msjax.posterior.quantities import estimate

    fit, q = found.fit, found.quantities
    count, diagnostics = fit.count, fit.diagnostics
    (ii, ic), (ci, cc) = count.transitions.sum(axis=0).tolist()
    flat = fit.sample.flat

    def interval(draws: "np.ndarray") -> dict[str, float] | None:
        summary = estimate(draws)
        return None if summary is None else summary._asdict()

    def probability(draws: "np.ndarray") -> float | None:
        summary = estimate(draws)
        return None if summary is None else summary.mean

    def limits(bounds: "Bounds", k: Any = ...) -> dict[str, Any]:
        return {name: interval(draws[:, k]) for name, draws in bounds._asdict().items()}

    return {
        "language_model": count.model,
        "model": fit.model.name,
        "says": fit.model.says,
        "priors": fit.model.priors,
        "questions": count.questions,
        "rounds": count.rounds,
        "censored": count.n_censored,
        "first_right": count.first_right,
        "transitions": {"II": ii, "IC": ic, "CI": ci, "CC": cc},
        "tokens_per_round": count.tokens_per_round,
        "observed": {
            "accuracy": observed_accuracy(count),
            "questions": (count.correct >= 0).sum(axis=0),
        },
        "warnings": found.warnings,
        "comparison": found.comparison
        and {
            "reason": found.comparison.reason,
            "candidates": [_candidate(c) for c in found.comparison.candidates],
        },
        "diagnostics": vars(diagnostics) | {"draws": len(next(iter(flat.values())))},
        "parameters": {
            name: {
                "identified": fit.identified[name],
                "posterior": interval(flat[name]),
                "prior": interval(found.prior[name]),
            }
            for name in fit.model.parameters
        },
        "prior_predictive": {"accuracy": [interval(x) for x in found.prior_accuracy.T]},
        "bounds": {
            "rounds": count.rounds,
            "after": [limits(q.bounds, k) for k in range(q.bounds.neutral.shape[1])],
            "limit": {name: interval(draws) for name, draws in q.limit._asdict().items()},
        },
        "quantities": {
            "r": interval(q.r),
            "pi": interval(q.limit.neutral),
            "accuracy": [interval(draws) for draws in q.bounds.neutral.T],
            "optimal_rounds": interval(q.optimal_rounds),
            "worth_of_refining": interval(q.worth_of_refining),
            "worth_of_stopping": interval(q.worth_of_stopping),
            "probability_refining_helps": probability(q.first_round_helps),
            "probability_limit_helps": probability(q.limit_helps),
        },
        "checks": [vars(check) for check in found.checks],
        "ppc": [vars(check) for check in found.predictive],
    }


def _draw(report: dict[str, Any], folder: Path) -> None:
    from msjax.cli.output import plain
    from msjax.report.figures.posterior import curve_bands, forest, predictive_panels
    from msjax.report.figures.style import write_figure

    report = plain(report)
    write_figure(forest(report), folder / "bounds.png")
    for name in report["benchmarks"]:
        stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        write_figure(curve_bands(report, name), folder / f"{stem}.curve.png")
        write_figure(predictive_panels(report, name), folder / f"{stem}.checks.png")


def _candidate(candidate: "Candidate") -> dict[str, Any]:
    def score(found: "Score | None") -> dict[str, float] | None:
        return None if found is None else vars(found)

    return {
        "model": candidate.model.name,
        "refused": candidate.refused,
        "leave_one_out": score(candidate.leave_one_out),
        "pareto_k": candidate.pareto_k,
        "high_pareto_k": candidate.high_pareto_k,
        "leave_future_out": score(candidate.future),
    }


def _print_report(report: dict[str, Any]) -> None:
    print(f"seed {report['seed']}")
    for name, benchmark in report["benchmarks"].items():
        for warning in benchmark["warnings"]:
            print(f"!! {name}: {warning}")
    for name, benchmark in report["benchmarks"].items():
        _print_benchmark(name, benchmark, report)


def _print_benchmark(name: str, benchmark: dict[str, Any], report: dict[str, Any]) -> None:
    asked, most = (
        f"{benchmark[what]} {what[:-1]}{'s' * (benchmark[what] != 1)}"
        for what in ("questions", "rounds")
    )
    moves = " ".join(f"{move} {times}" for move, times in benchmark["transitions"].items())
    print(
        f"\n{name} ({benchmark['language_model']}): {asked}, "
        f"{benchmark['first_right']} right at once, up to {most}; "
        f"transitions {moves}"
    )
    if benchmark["comparison"]:
        _print_comparison(benchmark["comparison"])
    print(f"  Model {benchmark['model']}: {benchmark['says']}.")
    print(f"  Prior: {benchmark['priors']}.")
    derived, rounds = benchmark["quantities"], benchmark["bounds"]["rounds"]
    expected = benchmark["prior_predictive"]["accuracy"]
    first, last = (f"[{x['low']:.3f}, {x['high']:.3f}]" for x in (expected[0], expected[rounds]))
    print(f"  Prior predictive, 90 %: first accuracy {first}, after {rounds} rounds {last}.")
    _print_parameters(benchmark)
    for k in range(rounds + 1):
        _print_row(f"E[p_{k}]", derived["accuracy"][k])
    _print_row("r", derived["r"])
    limit, after = benchmark["bounds"]["limit"], benchmark["bounds"]["after"][rounds]
    for title, found in ((f"after {rounds}", after), ("limit", limit)):
        for bound in ("upper", "neutral", "lower"):
            _print_row(f"{bound}, {title}", found[bound])
    _print_row("N*", derived["optimal_rounds"], ".0f")
    _print_row("worth of N*", derived["worth_of_refining"])
    first, many = (derived[f"probability_{what}_helps"] for what in ("refining", "limit"))
    print(
        "  P(the first round helps | data): "
        f"{_UNKNOWN if first is None else f'{first:.3f}'}; "
        f"P(many rounds help | data): {_UNKNOWN if many is None else f'{many:.3f}'}"
    )
    print(
        f"  N* is the best of 0..{len(derived['accuracy']) - 1} rounds when a correct answer is "
        f"worth {report['value']:g} and a token costs {report['price']:g}; upper: only questions "
        "that gain are refined,\n  neutral: all, lower: only those that lose."
    )
    if benchmark["checks"]:
        print("  Is it one homogeneous chain? (counts: changes of state / visits)")
    for check in benchmark["checks"]:
        print(f"    {check['name']}: {check['sentence']}")
    if benchmark["ppc"]:
        print(f"  Does {benchmark['model']} look like the runs? (posterior predictive)")
    for check in benchmark["ppc"]:
        print(f"    {check['sentence']}")


def _print_comparison(comparison: dict[str, Any]) -> None:
    from msjax.cli.tables import table

    rows = []
    for c in comparison["candidates"]:
        if c["refused"]:
            continue
        loo, future = c["leave_one_out"], c["leave_future_out"]
        error = loo["difference_error"]
        rows.append(
            (
                c["model"],
                f"{loo['elpd']:.1f}",
                f"{loo['difference']:+.1f} "
                + ("(one question)" if math.isnan(error) else f"+- {error:4.1f}"),
                f"{c['pareto_k']:.2f}",
                f"{future['elpd']:.1f} ({future['difference']:+.1f})" if future else "not scored",
            )
        )
    header = ("model", "LOO elpd", "difference", "Pareto k", "later rounds")
    print(f"  Model chosen: {comparison['reason']}.")
    print(textwrap.indent(table(header, rows), "  "))
    for c in comparison["candidates"]:
        if c["refused"]:
            print(f"  {c['model']:24}left out: {c['refused']}")


def _print_parameters(benchmark: dict[str, Any]) -> None:
    diagnostics = benchmark["diagnostics"]
    print(
        f"  {'':18}{'median':>7}  90 % interval    {'R-hat':>6} {'bulk ESS':>9} {'tail ESS':>9}"
        f"   ({diagnostics['divergences']} divergences in {diagnostics['draws']} draws)"
    )
    for name, parameter in benchmark["parameters"].items():
        numbers = (
            f" {diagnostics['r_hat'][name]:6.3f} {diagnostics['bulk_ess'][name]:9.0f}"
            f" {diagnostics['tail_ess'][name]:9.0f}"
        )
        if parameter["identified"]:
            _print_row(name, parameter["posterior"], more=numbers)
        else:
            prior, posterior = (
                f"[{x['low']:.3f}, {x['high']:.3f}]"
                for x in (parameter["prior"], parameter["posterior"])
            )
            print(f"  {name:18}{_UNKNOWN}: prior {prior}, posterior {posterior}")


def _print_row(
    title: str, interval: dict[str, float] | None, form: str = ".3f", more: str = ""
) -> None:
    if interval is None:
        print(f"  {title:18}{_UNKNOWN}")
    else:
        median, low, high = (format(interval[x], form) for x in ("median", "low", "high"))
        print((f"  {title:18}{median:>7}  [{low}, {high}]".ljust(45) + more).rstrip())
