"""`msjax check`: whether recorded runs are those of one homogeneous two-state chain."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from msjax.cli.output import OutputFile, Seed


@dataclass(frozen=True)
class Check:
    """Test the assumptions of one homogeneous chain on recorded sequential runs, without a fit.

    Memory (order 0, 1, 2), homogeneity over rounds and over questions, and Chapman-Kolmogorov, each
    with its result in words. Exit status 1 if one contradicts the chain, else 0.

    Example: msjax check runs.jsonl --json checks.json
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """JSON Lines files written by `msjax run`; pooled by benchmark name."""
    json: OutputFile | None = None
    """Write the results here as JSON."""
    seed: Seed = 0
    """Seed of the replicates behind the p-values."""

    def run(self) -> int:
        """Check and print; 1 when some benchmark contradicts one homogeneous chain, else 0."""
        import jax

        from msjax.cli.output import write_json
        from msjax.data.importers.reading import read
        from msjax.posterior.posterior import check_benchmark

        key = jax.random.key(self.seed)
        found = {
            count.name: check_benchmark(count, jax.random.fold_in(key, b))
            for b, count in enumerate(read(*self.runs).groups)
        }
        print(f"seed {self.seed}")
        for benchmark, checks in found.items():
            print(f"\n{benchmark}")
            for check in checks:
                print(f"  {check.name}: {check.sentence}")
        if self.json:
            write_json(self.json, {"seed": self.seed, "benchmarks": found})
        return int(any(check.contradicted for checks in found.values() for check in checks))
