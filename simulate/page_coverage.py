"""How often what the decision card prints is true, on benchmarks of known distribution.

Pilots are simulated and judged as `msjax card` judges them. For the policy that each recommends it
is counted how often every printed interval holds what that policy does on fresh questions, and how
often the word on it is false. Numbers that are exact by construction (the gain of the first answer
over itself), or the same for every question, have no interval; they are counted as `exact`.

    python -m simulate.page_coverage --json simulate/results/page_coverage.json
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from msjax._io import write_text
from msjax.cli.tables import markdown
from msjax.data.runs import Runs
from msjax.decision.advice import questions_needed
from msjax.decision.learnt_answers import belief_policy, learn
from msjax.decision.policies import policies_of
from msjax.decision.verdict import Judgement, Outcomes, judge

Draw = Callable[[np.random.Generator, int, int], np.ndarray]
"""Labels [question, answer] of so many questions and rounds."""

QUANTITIES = ("headline", "gain", "against", "accuracy", "tokens", "saving")
QUESTIONS, ROUNDS = (20, 50, 200), (1, 3, 6, 10)
_MANY = 200_000
_MARGIN = 0.02
_WRONG_ANSWERS, _KEEP_WRONG = 6, 0.7


@dataclass(frozen=True)
class Study:
    """Judge simulated pilots of every distribution, number of questions and number of rounds.

    python -m simulate.page_coverage --json simulate/results/page_coverage.json
    """

    json: Path | None = None
    """Write the results here, cell by cell; a study that was cut goes on from them."""
    pilots: int = 300
    """Pilots of every distribution, number of questions and number of rounds."""
    answers: int = 100
    """Pilots of distributions whose answers are simulated too: all policies are compared."""
    futures: int = 1000
    """Pilots whose advice is followed."""
    seed: int = 0
    """Seed of all random draws."""


def chain(
    random: np.random.Generator,
    rounds: int,
    p0: np.ndarray,
    p_ic: Callable[[int], np.ndarray] | np.ndarray,
    p_ci: Callable[[int], np.ndarray] | np.ndarray,
) -> np.ndarray:
    """One run of every question from its own rates, which may depend on the round."""
    right = [random.random(p0.shape) < p0]
    for k in range(rounds):
        uniform = random.random(p0.shape)
        repairs, breaks = (x(k) if callable(x) else x for x in (p_ic, p_ci))
        right.append(np.where(right[-1], uniform >= breaks, uniform < repairs))
    return np.stack(right, axis=-1)


def same(p0: float, p_ic: float, p_ci: float) -> Draw:
    """All questions follow one chain."""

    def draw(random: np.random.Generator, questions: int, rounds: int) -> np.ndarray:
        one = np.ones(questions)
        return chain(random, rounds, p0 * one, p_ic * one, p_ci * one)

    return draw


def heterogeneous(random: np.random.Generator, questions: int, rounds: int) -> np.ndarray:
    """Independent Beta rates: most questions hardly move."""
    p0, p_ic, p_ci = (random.beta(a, b, questions) for a, b in ((2, 1), (0.5, 3), (0.3, 6)))
    return chain(random, rounds, p0, p_ic, p_ci)


def mover_stayer(random: np.random.Generator, questions: int, rounds: int) -> np.ndarray:
    """Three of five questions never change, the others do often."""
    moves = random.random(questions) < 0.4
    return chain(random, rounds, np.where(moves, 0.4, 0.6), moves * 0.5, moves * 0.3)


def drifting(random: np.random.Generator, questions: int, rounds: int) -> np.ndarray:
    """Repairs become rarer and breaks more frequent from round to round."""
    one = np.ones(questions)
    return chain(
        random,
        rounds,
        0.5 * one,
        lambda k: one * 0.4 * 0.6**k,
        lambda k: one * min(0.03 * (k + 1), 0.3),
    )


def correlated(random: np.random.Generator, questions: int, rounds: int) -> np.ndarray:
    """One ability of a question moves all three rates."""
    ability = random.normal(0, 1.5, questions)
    p0, p_ic, p_ci = (1 / (1 + np.exp(-x)) for x in (ability, ability - 1, -ability - 2))
    return chain(random, rounds, p0, p_ic, p_ci)


def clustered(random: np.random.Generator, questions: int, rounds: int) -> np.ndarray:
    """Questions come in pairs, of which the second behaves as the first in seven of ten cases."""
    first = correlated(random, questions // 2, rounds)
    other = correlated(random, questions // 2, rounds)
    copied = random.random((questions // 2, 1)) < 0.7
    return np.stack([first, np.where(copied, first, other)], axis=1).reshape(questions, -1)


DISTRIBUTIONS: dict[str, Draw] = {
    "null": same(0.6, 0.3, 0.2),
    "helps": same(0.4, 0.5, 0.05),
    "helps little": same(0.55, 0.25, 0.1),
    "hurts": same(0.8, 0.1, 0.3),
    "heterogeneous": heterogeneous,
    "mover-stayer": mover_stayer,
    "drifting": drifting,
    "correlated": correlated,
    "clustered": clustered,
}
WITH_ANSWERS: dict[str, Draw] = {
    "sticky answers": same(0.5, 0.3, 0.15),
    "null": DISTRIBUTIONS["null"],
}
"""Distributions for which answers are simulated too: votes, repeats, learnt rules compete."""
PARTS: dict[str, list[tuple[str, int, int]]] = {
    "labels": [(name, n, k) for n in QUESTIONS for k in ROUNDS for name in DISTRIBUTIONS],
    "with_answers": [(name, n, k) for n in QUESTIONS for k in ROUNDS for name in WITH_ANSWERS],
    "advice": [("small changes", n, 3) for n in QUESTIONS[1:]],
}
"""Cells of the study, in this order: distribution, number of questions, number of rounds."""


def tokens_of(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Tokens of every answer: long and short questions, and chance; mean 200."""
    question = random.gamma(4.0, 0.25, (shape[0], 1))
    return 200 * question * random.gamma(4.0, 0.25, shape)


def answers_of(random: np.random.Generator, right: np.ndarray) -> np.ndarray:
    """Answers: 0 is right, wrong ones are kept with probability .7."""
    answers = np.zeros(right.shape, dtype=int)
    for k in range(right.shape[1]):
        fresh = random.integers(1, _WRONG_ANSWERS + 1, len(right))
        if k:
            keeps = ~right[:, k - 1] & (random.random(len(right)) < _KEEP_WRONG)
            fresh = np.where(keeps, answers[:, k - 1], fresh)
        answers[:, k] = np.where(right[:, k], 0, fresh)
    return answers


class Counts:
    """How often intervals hold, by quantity, and how often words are false."""

    def __init__(self) -> None:
        """Nothing counted."""
        self.held: Counter[str] = Counter()
        self.printed: Counter[str] = Counter()
        self.exact: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self.false: Counter[str] = Counter()
        self.band = 0
        self.pilots = 0

    def add(self, judged: Judgement, right: np.ndarray, tokens: np.ndarray) -> None:
        """One pilot; `right` and `tokens` are the truth of every policy, NaN if not looked at."""
        self.pilots += 1
        chosen, base = judged.chosen, judged.baseline
        truth = {
            "gain": right - right[0],
            "against": right - right[base],
            "accuracy": right,
            "tokens": tokens,
            "saving": tokens[base] - tokens,
        }
        for name, values in truth.items():
            found = getattr(judged, name)
            if found.exact[chosen] or np.isnan(found.low[chosen]):
                self.exact[name] += bool(abs(found.estimate[chosen] - values[chosen]) < 1e-9)
                continue
            self.printed[name] += 1
            self.held[name] += bool(found.low[chosen] <= values[chosen] <= found.high[chosen])
        others = (np.arange(len(right)) != chosen) & ~judged.gain.exact & ~np.isnan(right)
        low, high = judged.gain.low[others], judged.gain.high[others]
        self.band += bool(((low <= truth["gain"][others]) & (truth["gain"][others] <= high)).all())
        _, low, high = judged.difference
        difference = right[chosen] - right[judged.reference]
        if chosen != judged.reference:
            self.printed["headline"] += 1
            self.held["headline"] += bool(low <= difference <= high)
        self.words[judged.verdict] += 1
        false = {
            "better": difference <= 0,
            "worse": difference >= 0,
            "no worse": difference < -_MARGIN,
        }
        self.false[judged.verdict] += bool(false.get(judged.verdict, False))

    def row(self) -> dict:
        """What was counted, in JSON's types."""
        return {
            "pilots": self.pilots,
            "held": {name: self.held[name] for name in QUANTITIES},
            "printed": {name: self.printed[name] for name in QUANTITIES},
            "exact": {name: self.exact[name] for name in QUANTITIES},
            "other_policies_all_held": self.band,
            "words": dict(self.words),
            "false": {name: n for name, n in self.false.items() if n},
        }


def study(
    distribution: Draw, questions: int, rounds: int, pilots: int, random: np.random.Generator
) -> dict:
    """Pilots of which labels and tokens are known: every number of rounds competes."""
    right = distribution(random, _MANY, rounds).mean(axis=0)
    tokens = 200.0 * np.arange(1, rounds + 2)
    cluster = np.arange(questions) // 2 if distribution is clustered else np.arange(questions)
    counts = Counts()
    for _ in range(pilots):
        labels = distribution(random, questions, rounds).astype(float)
        spent = tokens_of(random, labels.shape).cumsum(axis=1)
        counts.add(judge(Outcomes(labels, spent, cluster, rounds), margin=_MARGIN), right, tokens)
    return counts.row()


def study_answers(
    distribution: Draw, questions: int, rounds: int, pilots: int, random: np.random.Generator
) -> dict:
    """Pilots whose answers are known: votes, repeats and the learnt rule compete too."""
    fresh = _runs(distribution, 20_000, rounds, random)
    truth = policies_of(fresh, None, learnt=False)
    right, tokens = np.nanmean(truth.right, axis=0), np.nanmean(truth.uncached, axis=0)
    spent = np.cumsum(fresh.uncached, axis=1)
    names = [policy.name for policy in truth.policies]
    counts = Counts()
    for _ in range(pilots):
        runs = _runs(distribution, questions, rounds, random)
        found = policies_of(runs, None)
        chosen = judge(
            Outcomes(found.right, found.uncached, np.arange(questions), rounds), margin=_MARGIN
        )
        at = [names.index(policy.name) if not policy.learnt else 0 for policy in found.policies]
        learnt = np.array([policy.learnt for policy in found.policies])
        mine_right, mine_tokens = (np.where(learnt, np.nan, x[at]) for x in (right, tokens))
        for j, policy in enumerate(found.policies):
            if policy.learnt and chosen.chosen == j:
                # What was learnt differs from pilot to pilot, so its truth does.
                last, returned = belief_policy(
                    learn(runs, np.ones(questions, bool)), fresh.answers, 0.0
                )
                row = np.arange(fresh.questions)
                label = np.zeros((fresh.questions, rounds + 1), bool)
                for k in range(rounds + 1):
                    label[row, fresh.answers[:, k]] |= fresh.right[:, k]
                mine_right[j] = (label[row, np.maximum(returned, 0)] & (returned >= 0)).mean()
                mine_tokens[j] = spent[row, last].mean()
        counts.add(chosen, mine_right, mine_tokens)
    return counts.row()


def _runs(distribution: Draw, questions: int, rounds: int, random: np.random.Generator) -> Runs:
    right = distribution(random, questions, rounds)
    return Runs.from_arrays(
        right, answers=answers_of(random, right), tokens=tokens_of(random, right.shape)
    )


def study_advice(questions: int, rounds: int, pilots: int, random: np.random.Generator) -> dict:
    """Whether following the advice decides as often as it promises.

    Changes are small ones, as before a pilot is seen: normal, of standard deviation .05.
    """
    most = questions + 10_000
    decided, promised, hopeless = 0, 0.0, 0
    sizes: list[int] = []
    while len(sizes) < pilots:
        breaks, p0 = random.beta(2, 12), random.uniform(0.4, 0.8)
        repairs = np.clip((breaks * p0 + random.normal(0, 0.05)) / (1 - p0), 0, 1)
        labels = same(p0, float(repairs), breaks)(random, most, rounds).astype(float)
        spent = tokens_of(random, labels.shape).cumsum(axis=1)

        def judged(n: int, labels: np.ndarray = labels, spent: np.ndarray = spent) -> Judgement:
            part = Outcomes(labels[:n], spent[:n], np.arange(n), rounds)
            return judge(part, margin=_MARGIN)

        pilot = judged(questions)
        if pilot.verdict != "cannot tell":
            continue
        more = questions_needed(pilot, _MARGIN)
        if more.questions is None:
            hopeless += 1
            continue
        sizes.append(more.questions)
        promised += more.chance
        decided += judged(questions + more.questions).verdict != "cannot tell"
    return {
        "pilots": pilots,
        "decided": decided,
        "promised": promised / pilots,
        "median_more": float(np.median(sizes)),
        "no_number_decides": hopeless,
    }


def main() -> None:
    """Run every cell that is not recorded yet, print the tables as Markdown, write the JSON."""
    options = tyro.cli(Study)
    found: dict[str, Any] = {
        "command": "python -m simulate.page_coverage",
        "pilots": options.pilots,
        "answers": options.answers,
        "futures": options.futures,
        "seed": options.seed,
        "margin": _MARGIN,
        "labels": [],
        "with_answers": [],
        "advice": [],
    }
    if options.json and options.json.exists():
        before = json.loads(options.json.read_text())
        if differs := [x for x in found if before.get(x) != found[x] and x not in PARTS]:
            name = differs[0]
            raise SystemExit(
                f"{options.json} has {name} = {before.get(name)}, not {found[name]}; give another "
                "file, or the same settings to go on with it"
            )
        found |= {part: before[part] for part in PARTS}
    recorded = {(part, *_cell(row)) for part in PARTS for row in found[part]}
    cells = [
        (part, *cell) for part in PARTS for cell in PARTS[part] if (part, *cell) not in recorded
    ]
    order = {part: {cell: i for i, cell in enumerate(PARTS[part])} for part in PARTS}
    for part, distribution, n, k in tqdm(cells, unit="cell", disable=None):
        # Every cell has draws of its own, so that a run that was cut goes on to the same numbers.
        key = f"{part} {distribution} {n} {k}".encode()
        random = np.random.default_rng([options.seed, *key])
        if part == "labels":
            row = study(DISTRIBUTIONS[distribution], n, k, options.pilots, random)
        elif part == "with_answers":
            row = study_answers(WITH_ANSWERS[distribution], n, k, options.answers, random)
        else:
            row = study_advice(n, k, options.futures, random)
        found[part].append({"distribution": distribution, "questions": n, "rounds": k} | row)
        found[part].sort(key=lambda row, part=part: order[part][_cell(row)])
        if options.json:
            write_text(options.json, _lines(found))
    print(
        table(found["labels"], "rounds compete"),
        table(found["with_answers"], "all policies compete"),
        sep="\n\n",
    )
    for one in found["advice"]:
        print(
            f"\nadvice after {one['questions']} questions: decided "
            f"{one['decided'] / one['pilots']:.2f}, promised {one['promised']:.2f}, "
            f"median {one['median_more']:,.0f} more questions"
        )


def _cell(row: dict) -> tuple[str, int, int]:
    return row["distribution"], row["questions"], row["rounds"]


def _lines(found: dict) -> str:
    """JSON with one line for each row of a table."""
    parts = []
    for name, value in found.items():
        rows = isinstance(value, list)
        text = ",\n  ".join(map(json.dumps, value)) if rows else json.dumps(value)
        parts.append(f'"{name}": [\n  {text}\n]' if rows else f'"{name}": {text}')
    return "{" + ",\n".join(parts) + "}\n"


def table(rows: list[dict], title: str) -> str:
    """Coverage by distribution, over all numbers of questions and rounds, and by the former."""
    groups = [("all " + str(n), [r for r in rows if r["questions"] == n]) for n in QUESTIONS]
    groups = [
        (distribution, [r for r in rows if r["distribution"] == distribution])
        for distribution in {r["distribution"]: 0 for r in rows}
    ] + groups
    lines = []
    for name, chosen in groups:
        pilots = sum(r["pilots"] for r in chosen)
        cells = [name]
        for quantity in QUANTITIES:
            printed = sum(r["printed"][quantity] for r in chosen)
            held = sum(r["held"][quantity] for r in chosen)
            exact = sum(r["exact"][quantity] for r in chosen)
            share = f"{held / printed:.3f}" if printed >= 30 else "-"
            cells.append(share + (f" ({(held + exact) / (printed + exact):.3f})" if exact else ""))
        cells.append(f"{sum(r['other_policies_all_held'] for r in chosen) / pilots:.3f}")
        cells.append(f"{sum(sum(r['false'].values()) for r in chosen) / pilots:.3f}")
        lines.append(cells)
    header = [title, *QUANTITIES, "other policies", "false words"]
    return markdown(header, lines)


if __name__ == "__main__":
    main()
