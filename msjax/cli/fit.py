"""`msjax fit`: from recorded runs to a posterior worth trusting, or to the reason why not."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from msjax.cli.output import OutputFile, OutputFolder, Seed, begin, prepare_sampling, print_doubts
from msjax.cli.prices import Prices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msjax.data.runs import Runs
    from msjax.posterior.posterior import Posterior


@dataclass(frozen=True)
class Fit(Prices):
    """Fit recorded sequential runs: what revising fixes and breaks, its limit and bounds.

    With --model auto, several models of each benchmark are averaged, each by its probability given
    the runs, and the average is put to the test by posterior predictive checks. What the runs
    cannot show is reported as not identified.

    Example: msjax fit runs.jsonl --out posterior.nc --json fit.json
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """JSON Lines files written by `msjax run`; pooled by benchmark name."""
    model: str = "auto"
    """auto, or one of: pooled, heterogeneous, mover_stayer, mover_stayer_beta, drifting,
    drifting_mover_stayer, second_order, logit_normal; partial_pooling (all benchmarks at once);
    noisy (`correct` holds verdicts of a verifier that errs); label_free (only whether the answer
    changed is used); or module:Class, a model of your own."""
    prior: tuple[str, ...] = ()
    """Priors of parameters, as in p_ci=beta:1,99 drift_ic=normal:0,0.1: of every model that has the
    parameter. Families: uniform:LOW,HIGH, beta:A,B, normal:MEAN,SD, halfnormal:SD."""
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

    def run(self) -> int:
        """Fit, print, write; 0 when done, 1 when the sampler did not converge."""
        prepare_sampling()
        from msjax.cli.output import write_json
        from msjax.data.importers.reading import files_of, read
        from msjax.errors import require_extra
        from msjax.posterior.fits import NotConvergedError
        from msjax.posterior.store import save
        from msjax.posterior.words import as_dict, number

        if self.figures:
            require_extra("report", "matplotlib")
        worth, price = self.worth_and_price()
        runs = read(*self.runs)
        print_doubts(runs)
        groups = runs.groups
        try:
            found = self._posteriors(groups)
        except NotConvergedError as error:
            print(f"msjax fit: {error}", file=sys.stderr)
            return 1
        self._print(found, worth, price)
        benchmarks = {post.runs.name: as_dict(post) for post in found}
        for post in found:
            best = None
            if price is not None:
                best = number(post.best_rounds(worth, price).draws)
            benchmarks[post.runs.name]["quantities"]["optimal_rounds"] = best
        report = {
            "seed": self.seed,
            "worth": worth,
            "price": price,
            "benchmarks": benchmarks,
        }
        if self.json:
            write_json(self.json, report)
        if self.out:
            sources = [file for path in self.runs for file in files_of(path)]
            save(self.out, found, seed=self.seed, sources=sources)
        if self.figures:
            _draw(report, self.figures)
        return 0

    def _posteriors(self, groups: "Sequence[Runs]") -> "list[Posterior]":
        import jax
        from tqdm import tqdm

        from msjax.errors import InputError
        from msjax.posterior.posterior import fit, fit_together

        key = jax.random.key(self.seed)
        model, priors = self._model(), self._priors()
        if model == "partial_pooling":
            if priors:
                raise InputError(
                    "--prior is given with --model partial_pooling, whose rates have a common "
                    "distribution to be learnt; drop one of the two"
                )
            return fit_together(groups, key)
        with tqdm(groups, desc="fit", unit="benchmark", disable=None) as bar:

            def show(model: str) -> None:
                bar.set_postfix_str(model)

            found = []
            for b, runs in enumerate(bar):
                begin(f"fitting {runs.name}")
                found.append(
                    fit(
                        runs,
                        model=model,
                        priors=priors,
                        seed=jax.random.fold_in(key, b),
                        progress=show,
                    )
                )
            return found

    def _priors(self) -> dict[str, str]:
        from msjax.errors import InputError

        found: dict[str, str] = {}
        for given in self.prior:
            name, equals, prior = given.partition("=")
            if not (name and equals) or name in found:
                raise InputError(
                    f"--prior is {given!r}; give each parameter once, as in p_ci=beta:1,99"
                )
            found[name] = prior
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

    def _print(self, found: "Sequence[Posterior]", worth: float, price: float | None) -> None:
        from msjax.posterior.words import break_even_table, details, price_table

        print(f"seed {self.seed}")
        for post in found:
            print(f"\n{post.summary()}")
            if price is not None:
                print(price_table(post, worth, price))
            elif post.runs.rounds:
                print(break_even_table(post))
            print(details(post))


def _draw(report: dict[str, Any], folder: Path) -> None:
    from msjax.cli.output import plain
    from msjax.report.figures.posterior import curve_bands, forest, predictive_panels
    from msjax.report.figures.style import write_figure
    from msjax.texts import file_names

    report = plain(report)
    write_figure(forest(report), folder / "bounds.png")
    for name, stem in file_names(report["benchmarks"]).items():
        write_figure(curve_bands(report, name), folder / f"{stem}.curve.png")
        write_figure(predictive_panels(report, name), folder / f"{stem}.checks.png")
