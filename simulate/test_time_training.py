"""Test-time training without labels: OptPO's stopping rule against a fixed number of votes.

For every seed a model is adapted twice to the same questions, from the same weights and with the
same number of updates on the same number of rollouts: with a fixed number of votes (TTRL: 64, of
which 32 are kept) and with OptPO's rule (32 to 64). Seeds differ in questions, and for the tiny
decoder also in the decoder itself, which is trained from scratch.

    python -m simulate.test_time_training --out ttt --json test_time_training.json
    python -m simulate.test_time_training --out ttt-smollm2 --model smollm2 --seeds 1 \
        --questions 16 --held-out 32 --epochs 1 --questions-per-step 4 --budget 32 \
        --n-train-rollouts 16
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from msjax.cli.output import write_json
from msjax.cli.tables import interval, markdown
from msjax.cli.train_adapt import TrainAdapt
from msjax.evaluate.means import DIFFERENCES, UNBOUNDED, mean_interval
from msjax.intervals import Interval

RULES: tuple[Literal["fixed", "optpo"], ...] = ("fixed", "optpo")


@dataclass(frozen=True)
class TestTimeTraining:
    """Adapt with both rules and compare.

    python -m simulate.test_time_training --out ttt --json test_time_training.json
    """

    out: Path
    """folder of all runs; the same command resumes them"""
    model: Literal["tiny", "smollm2"] = "tiny"
    """the tiny decoder on sums of two-digit numbers, or SmolLM2 with LoRA on one-digit sums"""
    seeds: int = 5
    """seeds 0, 1, ..."""
    questions: int = 448
    """adapted to, per seed"""
    held_out: int = 128
    """held out, per seed"""
    epochs: int = 3
    """passes over the questions"""
    questions_per_step: int = 32
    """questions per update"""
    budget: int = 64
    """votes of the fixed rule, and the most of OptPO's"""
    n_train_rollouts: int = 32
    """rollouts learnt from, and the least votes of OptPO's"""
    samples: int = 16
    """answers per held-out question"""
    max_new_tokens: int | None = None
    """most tokens per answer; default: that of `msjax train adapt`"""
    json: Path | None = None
    """write the results here as well"""

    def summaries(self, seed: int) -> dict[str, dict[str, Any]]:
        """Adapts with each rule; what the command wrote, and the held-out answers after."""
        found: dict[str, dict[str, Any]] = {}
        for rule in RULES:
            out = self.out / f"seed-{seed}" / rule
            tiny = self.model == "tiny"
            TrainAdapt(
                out=out,
                tiny=tiny,
                model=self.out / f"seed-{seed}" / "start" if tiny else None,
                rule=rule,
                questions=self.questions,
                start=seed * (self.questions + self.held_out),
                held_out=self.held_out,
                samples=self.samples,
                epochs=self.epochs,
                questions_per_step=self.questions_per_step,
                budget=self.budget,
                n_train_rollouts=self.n_train_rollouts,
                max_new_tokens=self.max_new_tokens,
                seed=seed,
            ).run()
            summary = json.loads((out / "summary.json").read_text())
            lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
            answers = [line["held_out"] for line in lines if "held_out" in line]
            found[rule] = summary | {one["when"]: one for one in answers}
        return found


def differences(runs: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Interval]]:
    """Paired 90 % intervals: over seeds (if there are several) and over all questions."""
    right: dict[tuple[str, str, str], np.ndarray] = {
        (rule, when, kind): np.concatenate([run[rule][when][kind] for run in runs])
        for rule in RULES
        for when in ("before", "after")
        for kind in ("right", "vote_right")
    }
    found: dict[str, dict[str, Interval]] = {}

    def compare(label: str, first: tuple[str, str], second: tuple[str, str]) -> None:
        for kind, name in (("right", "pass@1"), ("vote_right", "vote")):
            one, other = (right[*which, kind].astype(float) for which in (first, second))
            found[f"{name}, {label}"] = {"questions": mean_interval(one - other, DIFFERENCES)}
            if len(runs) > 1:
                first_mean, second_mean = (
                    x.reshape(len(runs), -1).mean(axis=1) for x in (one, other)
                )
                found[f"{name}, {label}"]["seeds"] = mean_interval(
                    first_mean - second_mean, UNBOUNDED
                )

    compare("fixed, after - before", ("fixed", "after"), ("fixed", "before"))
    compare("OptPO, after - before", ("optpo", "after"), ("optpo", "before"))
    compare("OptPO - fixed, after", ("optpo", "after"), ("fixed", "after"))
    if len(runs) > 1:
        saved = np.array([run["optpo"]["rollouts_saved"] for run in runs])
        optpo, fixed = (
            np.array([run[rule]["label_accuracy"] for run in runs]) for rule in ("optpo", "fixed")
        )
        found["share of rollouts saved"] = {"seeds": mean_interval(saved, UNBOUNDED)}
        found["label accuracy, OptPO - fixed"] = {"seeds": mean_interval(optpo - fixed, UNBOUNDED)}
    return found


def main() -> None:
    """Run what is left to run, print the tables, write the JSON."""
    options = tyro.cli(TestTimeTraining)
    runs = [options.summaries(seed) for seed in range(options.seeds)]
    rows = [
        [
            str(run[rule]["seed"]),
            rule,
            *(f"{run[rule]['pass_at_1'][i]:.3f}" for i in (0, 1)),
            *(f"{run[rule]['vote_accuracy'][i]:.3f}" for i in (0, 1)),
            f"{run[rule]['label_accuracy']:.3f}",
            f"{run[rule]['rollouts_per_question']:.1f}",
            run[rule]["reason"],
        ]
        for run in runs
        for rule in RULES
    ]
    header = ["seed", "rule", "pass@1 before", "after", "vote before", "after", "labels right"]
    print(markdown([*header, "rollouts per question", "ended"], rows))
    found = differences(runs)
    cells = [
        [name, *(interval(by[key], 3) if key in by else "" for key in ("seeds", "questions"))]
        for name, by in found.items()
    ]
    print(markdown(["paired difference", "90 % over seeds", "90 % over questions"], cells))
    if options.json:
        write_json(options.json, {"options": asdict(options), "runs": runs, "differences": found})


if __name__ == "__main__":
    main()
