"""What verdicts alone say of a chain and its judge, where no answer is labelled.

Pilots of known rates are simulated as in `simulate.judge_coverage`, and the model `noisy` is fitted
to their verdicts: alone, or with some labelled answers on which the judge was tried. Counted is how
often its 90 % intervals hold the truth. Where rates are drawn from its prior, the truth is ranked
among posterior draws as well.

The posterior is computed from draws of the prior, weighted by the likelihood: verdicts of four
answers are one of few kinds of runs, so the likelihoods of all kinds serve every pilot. Cells that
are in the file already are not computed again.

    python -m simulate.judge_without_labels --json simulate/results/judge_without_labels.json
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jaxtyping import Float, Int, Int8
from tqdm import tqdm

from msjax._io import write_text
from msjax.cli.tables import markdown
from msjax.data.runs import MISSING
from msjax.posterior.average import DRAWS
from msjax.posterior.calibration import RANKED, simulate_runs, uniformity
from msjax.posterior.models.model import Draws
from msjax.posterior.models.noisy import Noisy
from msjax.posterior.sample import log_likelihoods, sample_prior, tabulate
from simulate.judge_coverage import ANSWERS, JUDGES, P0, P_CI, P_IC, simulated

QUESTIONS = (100, 300)
KINDS = ("alike", "differ", "until_accepted")
TRIED = 50
"""Right answers, and as many wrong ones, on which a judge was tried where labels are there."""
TAILS = (0.05, 0.95)
_CHUNK = 1 << 15
_NEGLIGIBLE = 14.0
"""Draws whose log-likelihood is so far below the best have no weight: e^-14 = 8e-7."""


@dataclass(frozen=True)
class Study:
    """Fit simulated pilots of verdicts without labels.

    python -m simulate.judge_without_labels --json simulate/results/judge_without_labels.json
    """

    json: Path | None = None
    """Write the results here, after every cell."""
    pilots: int = 200
    """Pilots of every cell."""
    draws: int = 1 << 21
    """Draws of the prior."""
    seed: int = 0
    """Seed of all random draws."""

    def run(self) -> None:
        """Print a table, and write it."""
        options = {"pilots": self.pilots, "draws": self.draws, "seed": self.seed}
        there: dict[str, Any] = {}
        if self.json is not None and self.json.exists():
            there = json.loads(self.json.read_text())
        if {name: there.get(name) for name in options} != options:
            there = options | {"cells": []}
        cells = list(itertools.product(JUDGES, KINDS, (0, TRIED), QUESTIONS))
        cells += [("prior", "alike", tried, n) for tried in (0, TRIED) for n in QUESTIONS]
        done = len(there["cells"])
        prior = Prior.drawn(self.seed, self.draws) if done < len(cells) else None
        for number in tqdm(range(done, len(cells)), unit="cell", disable=None):
            assert prior is not None
            random = np.random.default_rng([self.seed, number])
            judge, kind, tried, n = cells[number]
            there["cells"].append(covered(prior, judge, kind, tried, n, self.pilots, random))
            if self.json is not None:
                write_text(self.json, json.dumps(there) + "\n")
        print(_table(there["cells"]))


@dataclass(frozen=True)
class Prior:
    """Draws of the prior of `noisy`, and what they make of everything that may be seen.

    `kinds` are the verdicts of which runs may consist, complete ones and those that ended when the
    judge accepted. The columns of `log_likelihood` are these, then a right answer accepted and
    rejected, and a wrong one.
    """

    quantities: dict[str, Float[np.ndarray, " draw"]]
    kinds: Int8[np.ndarray, "kind answer"]
    log_likelihood: Float[np.ndarray, "draw event"]

    @classmethod
    def drawn(cls, seed: int, number: int) -> Prior:
        """So many draws."""
        model = Noisy()
        draws = sample_prior(model, jax.random.key(seed), number)
        runs = np.array(list(itertools.product((0, 1), repeat=ANSWERS)), np.int8)
        ended = np.where(np.tri(ANSWERS, k=-1, dtype=bool).T, MISSING, np.eye(ANSWERS, dtype=int))
        kinds = np.concatenate([runs, ended[:-1].astype(np.int8)])
        table = tabulate(model, kinds)
        each = np.empty((number, len(kinds) + 4), np.float32)
        for start in range(0, number, _CHUNK):
            part = slice(start, start + _CHUNK)
            some = {name: values[part] for name, values in draws.items()}
            each[part, :-4] = log_likelihoods(model, table, some)[:, table.row]
            for i, rate in enumerate((some["sensitivity"], 1 - some["specificity"])):
                each[part, len(kinds) + 2 * i] = np.log(rate)
                each[part, len(kinds) + 2 * i + 1] = np.log1p(-rate)
        return cls(quantities(draws), kinds, each)

    def counts(
        self, verdicts: Int8[np.ndarray, "question answer"], accepted: Int[np.ndarray, " 2"]
    ) -> Int[np.ndarray, " event"]:
        """How often everything was seen; `accepted` of `TRIED` right and wrong answers, or -1."""
        runs = (verdicts[:, None] == self.kinds).all(axis=2).sum(axis=0)
        labelled = np.column_stack([accepted, TRIED - accepted]).ravel()
        return np.concatenate([runs, labelled * (accepted[0] >= 0)])

    def posteriors(
        self, seen: Int[np.ndarray, "pilot event"], number: int, random: np.random.Generator
    ) -> tuple[Int[np.ndarray, "pilot draw"], Float[np.ndarray, " pilot"]]:
        """Indices of draws of every pilot's posterior, and how many draws its weights come to.

        The first `number` draws of the prior are weighted.
        """
        best = np.full(len(seen), -np.inf)
        likely: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in seen]
        for start in range(0, number, _CHUNK):
            part = seen.astype(np.float32) @ self.log_likelihood[start : start + _CHUNK].T
            best = np.maximum(best, part.max(axis=1))
            for pilot, values in enumerate(part):
                kept = np.flatnonzero(values > best[pilot] - _NEGLIGIBLE)
                likely[pilot].append((start + kept, values[kept]))
        drawn, effective = np.empty((len(seen), DRAWS), int), np.empty(len(seen))
        for pilot, found in enumerate(likely):
            index, logs = map(np.concatenate, zip(*found, strict=True))
            weights = np.exp(logs.astype(float) - best[pilot])
            weights /= weights.sum()
            drawn[pilot] = random.choice(index, DRAWS, p=weights)
            effective[pilot] = 1 / (weights**2).sum()
        return drawn, effective


def quantities(draws: Draws) -> dict[str, Any]:
    """What is asked: the rates of the chain, and those of the judge by their usual names."""
    f = 1 - draws["specificity"]
    chain = {name: draws[name] for name in ("p0", "p_ic", "p_ci")}
    return chain | {"s": draws["sensitivity"], "f": f, "s - f": draws["sensitivity"] - f}


def covered(
    prior: Prior,
    judge: str,
    kind: str,
    tried: int,
    questions: int,
    pilots: int,
    random: np.random.Generator,
) -> dict[str, Any]:
    """How often each interval held the truth, and how wide they were."""
    names = tuple(prior.quantities)
    truth = {name: np.empty(pilots) for name in names}
    seen = []
    for i in range(pilots):
        if judge == "prior":
            rates = _new_draw(random)
            verdicts = simulate_runs(Noisy(), rates, questions, ANSWERS - 1, random)[0]
            true = {name: x[0] for name, x in quantities(rates).items()}
        else:
            s, f = JUDGES[judge]
            until = kind == "until_accepted"
            verdicts = simulated(s, f, kind == "differ", until, questions, random).verdicts
            true = {"p0": P0, "p_ic": P_IC, "p_ci": P_CI, "s": s, "f": f, "s - f": s - f}
        accepted = random.binomial(tried, (true["s"], true["f"])) if tried else np.full(2, -1)
        seen.append(prior.counts(verdicts, accepted))
        for name in names:
            truth[name][i] = true[name]
    # The more questions, the fewer draws of the prior are likely.
    number = len(prior.log_likelihood) * questions // max(QUESTIONS)
    drawn, effective = prior.posteriors(np.stack(seen), number, random)
    values = {name: x[drawn] for name, x in prior.quantities.items()}
    ends = {name: np.quantile(x, TAILS, axis=1) for name, x in values.items()}
    held = {n: (ends[n][0] <= truth[n]) & (truth[n] <= ends[n][1]) for n in names}
    result: dict[str, Any] = {
        "judge": judge,
        "runs": kind,
        "tried": tried,
        "questions": questions,
        "held": {name: float(x.mean()) for name, x in held.items()},
        "width": {name: round(float((x[1] - x[0]).mean()), 3) for name, x in ends.items()},
        "effective_draws": [round(float(x)) for x in (effective.min(), np.median(effective))],
    }
    if judge == "prior":
        ranks = {n: (x[:, :RANKED] < truth[n][:, None]).sum(axis=1) for n, x in values.items()}
        result["p_values"] = {name: uniformity(x) for name, x in ranks.items()}
    return result


def _new_draw(random: np.random.Generator) -> Draws:
    missed, false_alarm, _ = random.dirichlet((1, 1, 3))
    rates = dict(zip(("p0", "p_ic", "p_ci"), random.random((3, 1)), strict=True))
    errors = {"sensitivity": 1 - missed, "specificity": 1 - false_alarm}
    return rates | {name: np.array([x]) for name, x in errors.items()}


def _table(found: list[dict[str, Any]]) -> str:
    rows = [
        [
            one["judge"],
            one["runs"].replace("_", " "),
            str(2 * one["tried"]),
            str(one["questions"]),
            *(f"{one['held'][name]:.2f} ({one['width'][name]:.2f})" for name in one["held"]),
            f"{one['effective_draws'][0]}",
            f"{min(one['p_values'].values()):.2g}" if "p_values" in one else "",
        ]
        for one in found
    ]
    names = found[0]["held"]
    header = ["judge", "runs", "labelled", "number", *names, "least draws", "least p-value"]
    return markdown(header, rows)


if __name__ == "__main__":
    tyro.cli(Study).run()
