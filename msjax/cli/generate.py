"""`msjax generate`: a model answers and revises, a rule says when to stop, all is recorded."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from msjax.errors import InputError

if TYPE_CHECKING:
    from msjax.records import Trajectory
    from msjax.stopping.markovscale import RoundPlan
    from msjax.stopping.protocol import StoppingRule


@dataclasses.dataclass(frozen=True)
class Generate:
    """Ask questions, let the model revise its answers, record every trajectory.

    Lines are written as questions finish; the same command resumes an interrupted run. With
    --rule posterior the same questions are also run for all rounds, and the two are compared.

    Example: msjax generate pilot.jsonl --questions 50 --rounds 3
    """

    out: Annotated[Path, tyro.conf.Positional]
    """JSON Lines file to write (or to resume)."""

    benchmarks: tuple[str, ...] = ("arithmetic-easy", "arithmetic-medium", "arithmetic-hard")
    """Names of the benchmarks to ask."""

    questions: int = 40
    """Questions per benchmark."""

    start: int = 0
    """First question of each benchmark; start a fresh set where the pilot ended."""

    rounds: int = 3
    """Refinement rounds after the first answer (with --rule posterior: at most)."""

    rule: Literal["fixed", "posterior"] = "fixed"
    """fixed: always --rounds revisions. posterior: gate and N* from --posterior."""

    posterior: Path | None = None
    """Posterior written by `msjax fit --out`, needed by --rule posterior."""

    value: float = 1.0
    """Worth of one correct answer, for --rule posterior."""

    price: float = 1e-4
    """Price of one computed token in the same unit as --value."""

    model: Path | None = None
    """Folder of a Hugging Face checkpoint; default: what `msjax weights` obtained."""

    temperature: float = 0.7
    """Sampling temperature; 0 takes the most probable token."""

    max_new_tokens: int = 16
    """Most tokens per answer."""

    batch_size: int = 40
    """Conversations decoded together; changes speed, not results."""

    seed: int = 0
    """Seed of all sampling; each question's key also depends on its name, on nothing else."""

    json: Path | None = None
    """Also write the summary (and comparison) to this file, as JSON."""

    def run(self) -> int:
        """Generate, report, return the exit status."""
        from msjax.cli.output import write_json
        from msjax.cli.tables import comparison_table, summary_table
        from msjax.comparison import compare
        from msjax.stopping.baselines import fixed_rounds
        from msjax.stopping.markovscale import posterior_rounds
        from msjax.summary import summarise

        fixed = dict.fromkeys(self.benchmarks, fixed_rounds(self.rounds))
        result: dict[str, Any] = {"seed": self.seed, "rule": self.rule, "file": self.out}
        if self.rule == "fixed":
            recorded = self._record(self.out, f"fixed: {self.rounds}", fixed)
        else:
            plans = self._round_plans()
            stop_at = ", ".join(f"{name} {plan.optimal_rounds}" for name, plan in plans.items())
            rules = {name: posterior_rounds(plan) for name, plan in plans.items()}
            recorded = self._record(self.out, f"posterior: {stop_at}", rules)
            result["plans"] = {name: _plan_result(plan) for name, plan in plans.items()}
        result["summary"] = summarise(recorded)
        print(summary_table(result["summary"]))
        if self.rule == "posterior":
            full = self._record(fixed_file(self.out, self.rounds), f"fixed: {self.rounds}", fixed)
            result["comparison"] = compare(recorded, full, self.rounds)
            print(comparison_table(result["comparison"]))
        if self.json is not None:
            write_json(self.json, result)
        return 0

    @property
    def model_folder(self) -> Path:
        """Folder of the model that answers."""
        from msjax.models import smollm2

        return self.model or smollm2.default_folder()

    def _record(
        self, out: Path, label: str, rules: Mapping[str, "StoppingRule"]
    ) -> "list[Trajectory]":
        from msjax.generation.run import RunPlan, record_run

        folder = self.model_folder

        def load_engine() -> Any:
            from msjax.generation.flax_engine import FlaxEngine

            return FlaxEngine.load(
                folder,
                batch_size=self.batch_size,
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
            )

        plan = RunPlan(
            model=folder.name,
            start=self.start,
            count=self.questions,
            rounds=self.rounds,
            seed=self.seed,
            batch_size=self.batch_size,
            settings={
                "rule": label,
                "rounds": self.rounds,
                "seed": self.seed,
                "temperature": self.temperature,
                "max_new_tokens": self.max_new_tokens,
            },
        )
        print(f"{out}: {label}, seed {self.seed}")
        return record_run(out, plan, rules, load_engine)

    def _round_plans(self) -> "dict[str, RoundPlan]":
        import jax.numpy as jnp
        import numpy as np

        from inference.store import load
        from msjax.stopping.markovscale import plan_rounds

        if self.posterior is None:
            raise InputError("--rule posterior needs --posterior FILE; make one with `msjax fit`")
        found = load(self.posterior)
        plans = {}
        for name in self.benchmarks:
            if name not in found.benchmarks:
                raise InputError(
                    f"{self.posterior} knows {', '.join(found.benchmarks)} but not {name}; "
                    "fit a pilot of that benchmark"
                )
            b = found.benchmarks.index(name)
            tokens = found.tokens_per_round[b, 1 : self.rounds + 1]
            if len(tokens) < self.rounds or np.isnan(tokens).any():
                raise InputError(
                    f"{self.posterior}: the pilot of {name} has fewer rounds than --rounds "
                    f"{self.rounds}, so their cost is unknown; lower --rounds"
                )
            if found.censored[b]:
                raise InputError(
                    f"{self.posterior}: runs of {name} were stopped by looking at the label, so "
                    "what revising breaks is unknown; record a pilot that always revises"
                )
            _warn(name, found.models[b], found.identified[b], found.contradicted[b])
            accuracy = jnp.asarray(found.accuracy[:, b, : self.rounds + 1])
            plans[name] = plan_rounds(
                accuracy, jnp.asarray(tokens), value=self.value, price=self.price
            )
        return plans


def _warn(benchmark: str, model: str, identified: bool, contradicted: bool) -> None:
    if contradicted:
        print(
            f"warning: {benchmark}: the pilot contradicts the model {model} (see `msjax fit`); "
            "the plan is only as good as its curve"
        )
    if not identified:
        print(
            f"warning: {benchmark}: the pilot does not identify all that the curve needs (see "
            "`msjax fit`); the rule falls back on the prior there"
        )


def fixed_file(out: Path, rounds: int) -> Path:
    """Where the comparison run with a fixed number of rounds is recorded."""
    return out.with_suffix(f".fixed-{rounds}{out.suffix}")


def _plan_result(plan: "RoundPlan") -> dict[str, Any]:
    return {
        "optimal_rounds": plan.optimal_rounds,
        "accuracy": plan.accuracy,
        "net_value": plan.net_value,
    }
