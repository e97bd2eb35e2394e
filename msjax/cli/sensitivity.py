"""`msjax sensitivity`: what errors in the parameters and in the assumptions cost."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msjax.cli.output import OutputFile, OutputFolder, Seed

if TYPE_CHECKING:
    from msjax.theory.chain import TwoStateChain

__all__ = ["Sensitivity"]

_PARAMETERS = ("p0", "p_ic", "p_ci")
_QUESTIONS = 50
_ERROR = 0.05
_ACCEPTABLE = 0.01  # regret as a share of the value
_PILOTS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_GRID, _REACH = 61, 0.3  # errors in p_ic and p_ci
_ROUNDS_DRAWN = 30
_LARGEST_CORRELATION, _CORRELATIONS = 0.6, 13
_MIXTURE = {"p0": (2.0, 1.0), "p_ic": (0.5, 3.0), "p_ci": (0.3, 6.0)}  # docs/theory.md B1


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Say what errors in p0, p_ic, p_ci cost, how large a pilot must be, and draw both.

    Example: msjax sensitivity --p0 .5 --p-ic .3 --p-ci .1
    """

    p0: float
    """Probability that the first answer is right."""

    p_ic: float
    """Probability per round that a wrong answer becomes right."""

    p_ci: float
    """Probability per round that a right answer becomes wrong."""

    value: float = 1.0
    """Value of a correct answer."""

    cost: float = 0.01
    """Cost of one round, in the same unit."""

    rounds: int = 3
    """Rounds that a pilot observes."""

    correlation: float = 0.2
    """Intra-question correlation of flips, when questions with these mean rates differ."""

    draws: int = 4000
    """Pilots simulated per size."""

    seed: Seed = 0
    """Random seed."""

    out: OutputFolder = Path("artifacts/sensitivity")
    """Folder for the figures and the numbers behind them."""

    json: OutputFile | None = None
    """Also write the table to this file, as JSON."""

    def run(self) -> int:
        """Print the table, write the figures and their data; returns 0."""
        import jax

        from msjax.cli.output import write_json
        from msjax.errors import require
        from msjax.report.figures import heterogeneity, regret
        from msjax.theory.chain import TwoStateChain

        require(
            "correlation",
            self.correlation,
            lambda x: (x > 0) & (x < 1),
            "a correlation of questions that differ must lie in (0, 1)",
        )
        with jax.enable_x64(True):
            chain = TwoStateChain(self.p0, self.p_ic, self.p_ci)
            table = self._table(chain)
            chains = {self._name: self._regrets(chain)}
            benchmarks = self._benchmarks()
        table = {"seed": self.seed, **table}
        table["pilot_size"] = _sufficient(chains[self._name])
        self._print(table)
        write_json(self.out / "regret.json", chains)
        write_json(self.out / "heterogeneity.json", benchmarks)
        figures = [
            regret.draw(chains, _ACCEPTABLE, self.out / "regret"),
            heterogeneity.draw(benchmarks, self.out / "heterogeneity"),
        ]
        print(f"figures: {', '.join(map(str, figures))}")
        if self.json is not None:
            write_json(self.json, table | {"figures": figures})
        return 0

    @property
    def _name(self) -> str:
        return f"p0 {self.p0:g}, p_ic {self.p_ic:g}, p_ci {self.p_ci:g}"

    def _table(self, chain: TwoStateChain) -> dict[str, Any]:
        """Everything that is printed, but the pilot size."""
        import numpy as np

        from msjax.decision import sensitivity
        from msjax.theory.chain import TwoStateChain, optimal_rounds

        slopes = sensitivity.gradients(chain, self.rounds, self.value, self.cost)
        errors = sensitivity.standard_errors(chain, self.rounds, _QUESTIONS)
        true = np.array([self.p0, self.p_ic, self.p_ci])
        shifts = _ERROR * np.stack([-np.eye(3), np.eye(3)])
        believed = TwoStateChain(*np.moveaxis(np.clip(true + shifts, 0, 1), -1, 0))
        lost = np.asarray(sensitivity.regret(chain, believed, self.value, self.cost))
        return {
            "chain": dict(zip(_PARAMETERS, true.tolist(), strict=True)),
            "optimal_rounds": int(optimal_rounds(chain, self.value, self.cost)),
            "gradients": {
                "pi": slopes.stationary_accuracy,
                "r": slopes.eigenvalue,
                **{f"p_{k}": slopes.accuracy[k] for k in range(self.rounds + 1)},
                "best worth": slopes.worth,
            },
            "standard_errors": {
                **{name: getattr(errors, name) for name in _PARAMETERS},
                "pi": errors.stationary_accuracy,
                **{f"p_{k}": errors.accuracy[k] for k in range(1, self.rounds + 1)},
            },
            "regret_of_errors": {
                name: {f"{sign * _ERROR:+g}": lost[side, i] for side, sign in ((0, -1), (1, 1))}
                for i, name in enumerate(_PARAMETERS)
            },
        }

    def _regrets(self, chain: TwoStateChain) -> dict[str, Any]:
        """Regret over a grid of errors, and against pilot size."""
        import jax
        import numpy as np

        from msjax.decision import sensitivity

        errors = np.linspace(-_REACH, _REACH, _GRID)
        grid = sensitivity.regret_grid(chain, errors, errors, self.value, self.cost)
        pilots = sensitivity.pilot_regret(
            jax.random.key(self.seed),
            chain,
            np.array(_PILOTS),
            self.rounds,
            self.draws,
            self.value,
            self.cost,
        )
        return {
            "value": self.value,
            "errors_ic": errors,
            "errors_ci": errors,
            "regret": np.asarray(grid),
            "questions": _PILOTS,
            **{name: np.asarray(numbers) for name, numbers in pilots._asdict().items()},
        }

    def _benchmarks(self) -> dict[str, dict[str, Any]]:
        """The mixture of the theory, and one around this chain where its rates can vary."""
        found = {"example of docs/theory.md B1": _benchmark(_MIXTURE)}
        means = {"p0": self.p0, "p_ic": self.p_ic, "p_ci": self.p_ci}
        if all(0 < mean < 1 for mean in means.values()):
            strength = 1 / self.correlation - 1
            distributions = {
                name: (mean * strength, (1 - mean) * strength) for name, mean in means.items()
            }
            found[f"{self._name},\ncorrelation {self.correlation:g}"] = _benchmark(distributions)
        return found

    def _print(self, table: dict[str, Any]) -> None:
        from msjax.theory.chain import UNBOUNDED

        stop = table["optimal_rounds"]
        print(
            f"{self._name}; a right answer is worth {self.value:g}, a round costs {self.cost:g}: "
            f"N* = {'unbounded' if stop == UNBOUNDED else stop}"
        )
        print(f"\n{'derivative of':<14}" + "".join(f"{'in ' + name:>12}" for name in _PARAMETERS))
        for name, slope in table["gradients"].items():
            print(f"{name:<14}" + "".join(f"{_text(number):>12}" for number in slope))
        print(f"\nstandard errors from {_QUESTIONS} questions, {self.rounds} rounds each")
        errors = table["standard_errors"].items()
        print(", ".join(f"{name} {_text(error)}" for name, error in errors))
        if not self.p_ic and not self.p_ci:
            print("pi: not identified, as a frozen chain keeps its first answers")
        print(f"\n{'regret of':<14}{f'error {-_ERROR:+g}':>12}{f'error {_ERROR:+g}':>12}")
        for name, lost in table["regret_of_errors"].items():
            print(f"{name:<14}" + "".join(f"{number:>12.4f}" for number in lost.values()))
        needed = table["pilot_size"]
        print(
            f"\nmean regret stays below {_ACCEPTABLE:.0%} of the value from a pilot of "
            + (f"{needed} questions on" if needed else f"more than {_PILOTS[-1]:,} questions")
            + f" (seed {self.seed})"
        )


def _text(number: Any) -> str:
    """Four digits, or "none" for NaN."""
    value = float(number)
    return "none" if math.isnan(value) else f"{value + 0.0:.4f}"


def _benchmark(distributions: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Curves and limits of a benchmark with Beta distributions, and of its pooled chain."""
    import jax
    import numpy as np

    from msjax.decision.heterogeneity import heterogeneity_curve
    from msjax.theory.chain import accuracy_curve
    from msjax.theory.population import beta_population, mean_accuracy_curve, pooled_chain

    mixture = beta_population(distributions["p0"], distributions["p_ic"], distributions["p_ci"])
    true = jax.jit(mean_accuracy_curve, static_argnums=1)(mixture, _ROUNDS_DRAWN)
    pooled = accuracy_curve(jax.jit(pooled_chain)(mixture), _ROUNDS_DRAWN)
    mean_ic, mean_ci = (a / (a + b) for a, b in (distributions["p_ic"], distributions["p_ci"]))
    rho_ic, rho_ci = (1 / (1 + a + b) for a, b in (distributions["p_ic"], distributions["p_ci"]))
    limit = mean_ic / (mean_ic + mean_ci)
    correlation = np.linspace(0, _LARGEST_CORRELATION, _CORRELATIONS)
    spreads: dict[str, tuple[Any, Any]] = {
        "both": (correlation, correlation),
        "ic": (correlation, 0.0),
        "ci": (0.0, correlation),
    }
    return {
        "mixture": np.asarray(true),
        "pooled": np.asarray(pooled),
        "limit": limit + float(heterogeneity_curve(mean_ic, mean_ci, rho_ic, rho_ci)),
        "pooled_limit": limit,
        "correlation": correlation,
        **{
            name: heterogeneity_curve(mean_ic, mean_ci, *spread) for name, spread in spreads.items()
        },
    }


def _sufficient(found: dict[str, Any]) -> int | None:
    """The least pilot from which on the mean regret is acceptable, None if there is none."""
    needed = None
    for questions, mean in zip(reversed(found["questions"]), reversed(found["mean"]), strict=True):
        if mean > _ACCEPTABLE * found["value"]:
            break
        needed = questions
    return needed
