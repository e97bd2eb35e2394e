"""`msjax reproduce`: the whole way once, from the model's weights to the report."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

from msjax._io import locked, reading, write_bytes
from msjax.cli.fit import Fit
from msjax.cli.output import OutputFile, OutputFolder, Seed, write_json
from msjax.cli.report import Report
from msjax.cli.run import Run, full_file
from msjax.cli.verify import Verify
from msjax.cli.weights import Weights
from msjax.errors import InputError

_REPORTED = ("msjax", "jax", "flax", "numpyro", "transformers", "reasoning-gym", "numpy")

PRICE = 1e-4
"""Of a token, in right answers: ten thousand tokens are worth one right answer."""


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Run everything: weights, pilot, verification, posterior, rule on fresh questions, report.

    An interrupted reproduction goes on where it stopped. With --recorded the answers are those of a
    recorded run that ships with msjax, and no model is needed.

    Example: msjax reproduce --small
    """

    resumes = True

    out: OutputFolder = Path("artifacts")
    """Folder for everything that is made."""

    recorded: bool = False
    """Use the recorded answers instead of running the model."""

    small: bool = False
    """A quick pass, to see that everything works: few questions, the pooled chain only."""

    seed: Seed = 0
    """Seed of all sampling."""

    json: OutputFile | None = None
    """Also write what was run, with seconds per step and exit status, to this file, as JSON."""

    def run(self) -> int:
        """Run the steps in order; 1 if a check failed, else 0."""
        questions = 4 if self.small and not self.recorded else 40
        chains = 100_000 if self.small else 1_000_000
        pilot = Run(
            out=self.out / "pilot.jsonl",
            questions=questions,
            seed=self.seed,
            json=self.out / "pilot.json",
        )
        fresh = dataclasses.replace(
            pilot,
            out=self.out / "fresh.jsonl",
            start=questions,
            rule="markovscale",
            posterior=self.out / "posterior.nc",
            worth=1.0,
            price=PRICE,
            json=self.out / "rule.json",
        )
        fit = Fit(
            runs=(pilot.out,),
            model="pooled" if self.small else "auto",
            out=fresh.posterior,
            json=self.out / "fit.json",
            worth=fresh.worth,
            price=fresh.price,
            seed=self.seed,
        )
        steps: dict[str, Callable[[], int]] = {
            "weights": Weights().run,
            "pilot": pilot.run,
            "verify": Verify(chains=chains, seed=self.seed, json=self.out / "verify.json").run,
            "fit": fit.run,
            "rule": fresh.run,
            "report": Report(self.out).run,
        }
        if self.recorded:
            del steps["weights"]
        with locked(self.out):
            self._claim_folder(pilot, fresh)
            if self.recorded:
                self._copy_recorded(pilot, fresh)
            return self._take(steps)

    def _take(self, steps: dict[str, Callable[[], int]]) -> int:
        """Take the steps in order until one but `verify` fails; returns the worst status."""
        outcomes: dict[str, dict[str, float]] = {}
        worst = 0
        for number, (name, step) in enumerate(steps.items(), 1):
            print(f"\n== {number}/{len(steps)} {name}", flush=True)
            started = time.monotonic()
            status = step()
            outcomes[name] = {"status": status, "seconds": round(time.monotonic() - started, 1)}
            worst = max(worst, status)
            if status and name != "verify":
                break
        print("\n" + ", ".join(f"{n} {o['seconds']:.0f} s" for n, o in outcomes.items()))
        if self.json is not None:
            write_json(self.json, outcomes)
        return worst

    def _copy_recorded(self, pilot: Run, fresh: Run) -> None:
        from importlib.resources import as_file, files

        for path in (pilot.out, fresh.out, full_file(fresh.out, f"fixed: {fresh.rounds}")):
            with as_file(files("msjax") / "recorded" / path.name) as source:
                write_bytes(path, source.read_bytes())

    def _claim_folder(self, pilot: Run, fresh: Run) -> None:
        """Write where the answers come from; refuse a folder whose answers come from elsewhere."""
        import platform
        from importlib.metadata import version

        source = {
            "recorded": self.recorded,
            "model": pilot.model_name,
            "questions": pilot.questions,
            "fresh_questions": fresh.questions,
            "rounds": pilot.rounds,
            "seed": self.seed,
        }
        path = self.out / "provenance.json"
        found = source
        if path.exists():
            with reading(path, "name another folder with --out, or remove that one"):
                found = dict(json.loads(path.read_text(encoding="utf-8")))
        for name, value in source.items():
            if found.get(name) != value:
                raise InputError(
                    f"{self.out} holds a reproduction with {name}={found.get(name)!r}, this one "
                    f"has {name}={value!r}; name another folder with --out, or remove that one"
                )
        versions = {name: version(name) for name in _REPORTED}
        versions["python"] = platform.python_version()
        write_json(path, source | {"versions": versions})
