"""How often the decision card's verdict is right, on benchmarks of known law.

Pilots are simulated; each is judged as the card does, after the number of rounds that looks best on
other questions, and, for comparison, after the one that looks best on the questions judged.

    python -m simulate.page_coverage --json card.json
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from msjax.cli.output import write_json
from msjax.cli.tables import interval, markdown
from msjax.decision.verdict import Change, changes_of, held_out_cells, pair_cells
from msjax.evaluate.simulated import POPULATIONS, Population
from msjax.evaluate.summary import proportion

_CHAINS = {
    "at its limit": (0.6, 0.3, 0.2),
    "at its limit, nearly right": (0.9, 0.09, 0.01),
    "one chain that hurts": (0.8, 0.1, 0.3),
}
_MANY = 200_000
_VERDICTS = ("helps", "neutral", "hurts", "does not help", "undecided")


@dataclass(frozen=True)
class Card:
    """Judge simulated pilots.

    python -m simulate.page_coverage --json card.json
    """

    json: Path | None = None
    """write the results here as well"""
    pilots: int = 1000
    """pilots of every law"""
    questions: int = 50
    """questions of a pilot"""
    rounds: int = 3
    """rounds of revision"""
    margin: float = 0.02
    """change that counts as neutral"""
    seed: int = 0
    """seed of all random draws"""


@dataclass(frozen=True)
class Judged:
    """Verdicts on the pilots of one law.

    `change` is the true one after the best number of rounds >= 1, `tuned` the pilots
    said to help had the number of rounds been chosen on the questions that are judged.
    """

    law: str
    change: float
    verdicts: dict[str, int]
    tuned: int


def laws() -> list[Population]:
    """Chains at and below their limit, and the laws of the rules' benchmark."""

    def following(name: str, chain: tuple[float, float, float]) -> Population:
        p0, p_ic, p_ci = chain

        def draw(random: np.random.Generator, questions: int, rounds: int) -> np.ndarray:
            right = [random.random(questions) < p0]
            for _ in range(rounds):
                uniform = random.random(questions)
                right.append(np.where(right[-1], uniform >= p_ci, uniform < p_ic))
            return np.stack(right, axis=1)

        return Population(f"{name} {chain}", "one chain (p0, p_ic, p_ci)", draw)

    return [*(following(*one) for one in _CHAINS.items()), *POPULATIONS[:4]]


def judge(law: Population, options: Card, random: np.random.Generator) -> Judged:
    """Every pilot of one law."""
    curve = law.states(random, _MANY, options.rounds).mean(axis=0)
    free = np.zeros(options.rounds)
    verdicts: Counter[str] = Counter()
    tuned = 0
    for _ in range(options.pilots):
        right = law.states(random, options.questions, options.rounds)
        cells = pair_cells(right)
        best = cells[int(np.argmax(cells[:, 2] - cells[:, 1]))]
        judged, in_sample = (
            _one(x, options.margin, random) for x in (held_out_cells(right, free, random)[0], best)
        )
        verdicts[judged.verdict or "undecided"] += 1
        tuned += in_sample.verdict == "helps"
    return Judged(law.name, float((curve[1:] - curve[0]).max()), dict(verdicts), tuned)


def _one(cells: np.ndarray, margin: float, random: np.random.Generator) -> Change:
    (found,) = changes_of(cells[None], margin, random)
    return found


def main() -> None:
    """Print the table as Markdown, write the JSON."""
    options = tyro.cli(Card)
    random = np.random.default_rng(options.seed)
    found = [judge(law, options, random) for law in tqdm(laws(), unit="law", disable=None)]
    header = ["law", "true change", *_VERDICTS, "helps, had k been chosen in sample"]
    rows = []
    for one in found:
        cells = [one.verdicts.get(name, 0) for name in _VERDICTS]
        rows.append(
            [one.law, f"{one.change:+.3f}", interval(proportion(cells[0], options.pilots))]
            + [f"{count / options.pilots:.2f}" for count in cells[1:]]
            + [f"{one.tuned / options.pilots:.2f}"]
        )
    print(markdown(header, rows))
    print(f"\n{options.pilots} pilots of {options.questions} questions x {options.rounds} rounds,")
    print(f"margin {options.margin:g}, seed {options.seed}; intervals 90 %")
    if options.json:
        write_json(options.json, {"laws": [asdict(one) for one in found]})


if __name__ == "__main__":
    main()
