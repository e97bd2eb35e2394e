"""How rarely the live monitors ring where nothing is wrong, and how soon where something is.

The promise (`PromiseMonitor`): streams of paired differences that keep it, by a hair or with room
to spare, and streams that break it from some question on. The rates (`RateMonitor`): a pilot of 4
rounds, then live runs of 1, 4 or 10 rounds of questions that differ, with the same rates or with
others. Beside it stands what happens when the first chance in any round is counted in place of the
first revision.

    python -m simulate.monitor --json simulate/results/monitor.json
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Bool, Float, Int
from tqdm import tqdm

from msjax.cli.output import write_json
from msjax.cli.tables import markdown
from msjax.decision.monitor import RateTest, promise_evidence
from msjax.llm.drift import RESTART

EPS, FALSE_ALARM = 0.05, 0.01
PILOT_ROUNDS, PILOT_QUESTIONS = 4, (100, 400)
LOOK_EVERY = 20
"""Live questions between two looks at the rates, which saves time; one may look at each."""


Share = Float[np.ndarray, " question"] | float


@dataclass(frozen=True)
class Study:
    """Watch simulated live runs.

    python -m simulate.monitor --json simulate/results/monitor.json
    """

    json: Path | None = None
    """write the results here as well"""
    streams: int = 2000
    """live runs that are watched for the promise, of each kind"""
    rate_streams: int = 1000
    """live runs that are watched for the rates, of each kind"""
    questions: int = 10_000
    """live questions watched for the promise"""
    rate_questions: int = 1000
    """live questions watched for the rates"""
    seed: int = 0
    """seed of all random draws"""


@dataclass(frozen=True)
class Rung:
    """Of the live runs of one kind, how many rang, and after how many questions.

    Attributes:
        kind: what was watched.
        broken_after: questions before the promise broke or the rates changed; None if never.
        streams: live runs.
        early: that rang before that, or at all where nothing broke.
        rang: that rang at all.
        delay: median and 90 % quantile of the questions from the change to the alarm, over runs
            that did not ring before; None where that many never rang.
    """

    kind: str
    broken_after: int | None
    streams: int
    early: int
    rang: int
    delay: tuple[int | None, int | None]


def rung(kind: str, broken_after: int | None, alarm: Float[np.ndarray, " stream"]) -> Rung:
    """Summarise the questions at which each stream rang (infinite for never)."""
    after = np.inf if broken_after is None else broken_after
    late = np.sort(alarm[alarm > after]) - after

    def quantile(share: float) -> int | None:
        if broken_after is None or not len(late):
            return None
        value = late[int(np.ceil(share * len(late))) - 1]
        return int(value) if np.isfinite(value) else None

    return Rung(
        kind,
        broken_after,
        len(alarm),
        int((alarm <= after).sum()) if broken_after is not None else int(np.isfinite(alarm).sum()),
        int(np.isfinite(alarm).sum()),
        (quantile(0.5), quantile(0.9)),
    )


def differences(
    random: np.random.Generator,
    shape: tuple[int, int],
    broken: Share,
    repaired: Share,
) -> Int[np.ndarray, "stream question"]:
    """Paired differences, -1 and 1 with these probabilities."""
    uniform = random.random(shape, dtype=np.float32)
    return (uniform > 1 - repaired).astype(np.int8) - (uniform < broken).astype(np.int8)


def watch_promise(options: Study, random: np.random.Generator) -> list[Rung]:
    """Streams that keep the promise, and streams that break it."""
    shape = (options.streams, options.questions)
    number = np.arange(options.questions)
    waves = 0.1 + 0.1 * np.sin(number / 500)
    kept: dict[str, tuple[Share, Share]] = {
        "kept by a hair, none repaired": (EPS, 0.0),
        "kept by a hair, .05 repaired": (0.05 + EPS, 0.05),
        "kept by a hair, .3 repaired": (0.3 + EPS, 0.3),
        "kept by a hair, churn that comes and goes": (waves + EPS, waves),
        "no loss, .1 broken and repaired": (0.1, 0.1),
    }
    broken: dict[str, tuple[int | None, Share, Share]] = {
        f"loses {loss:g} after {start:,}": (start, 0.1 + loss * (number >= start), 0.1)
        for loss in (0.1, 0.15, 0.25)
        for start in (0, 1000, 5000)
        if start < options.questions
    }
    runs = {name: (None, *shares) for name, shares in kept.items()} | broken
    found = []
    for name, (start, lost, won) in tqdm(runs.items(), unit="promise", disable=None):
        evidence = promise_evidence(differences(random, shape, lost, won), EPS)
        rings = evidence >= 1 / FALSE_ALARM
        alarm = np.where(rings.any(axis=1), rings.argmax(axis=1) + 1.0, np.inf)
        found.append(rung(name, start, alarm))
    return found


def heterogeneous(
    random: np.random.Generator, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p0, p_ic and p_ci of questions that differ widely, easy ones being easy in all."""
    ease = random.random(shape)
    return ease, 0.8 * ease, 0.4 * (1 - ease)


def mover_stayer(
    random: np.random.Generator, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half of the questions never change, the others do often."""
    stays = random.random(shape) < 0.5
    return np.where(stays, 0.6, 0.4), np.where(stays, 0.0, 0.5), np.where(stays, 0.0, 0.3)


def two_kinds(
    random: np.random.Generator, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hard questions and easy ones: a first answer that is wrong is nearly always to a hard one."""
    hard = random.random(shape) < 0.5
    return np.where(hard, 0.05, 0.9), np.where(hard, 0.05, 0.8), np.where(hard, 0.5, 0.1)


POPULATIONS = {"mover-stayer": mover_stayer, "two kinds": two_kinds, "heterogeneous": heterogeneous}
CHANGES = {
    "p_ic halved": (1.0, 0.5, 1.0),
    "p_ic to a fifth": (1.0, 0.2, 1.0),
    "p0 to two thirds": (2 / 3, 1.0, 1.0),
}


def states(
    random: np.random.Generator, rates: tuple[np.ndarray, ...], rounds: int
) -> Bool[np.ndarray, "stream question answer"]:
    """Whether each answer is right."""
    p0, p_ic, p_ci = rates
    right = [random.random(p0.shape) < p0]
    for _ in range(rounds):
        right.append(right[-1] ^ (random.random(p0.shape) < np.where(right[-1], p_ci, p_ic)))
    return np.stack(right, axis=-1)


def first_trials(
    right: Bool[np.ndarray, "stream question answer"], *, any_round: bool
) -> Int[np.ndarray, "2 rate stream question"]:
    """Successes and failures of each rate, at first revisions or at first chances anywhere."""
    trials = np.zeros((2, 3, *right.shape[:2]), dtype=np.int8)
    trials[0, 0], trials[1, 0] = right[..., 0], ~right[..., 0]
    for rate, state in ((1, False), (2, True)):
        chance = right[..., :-1] == state
        moved = chance & (right[..., 1:] != state)
        at = chance.argmax(axis=-1) if any_round else np.zeros(right.shape[:2], dtype=int)
        had, success = (np.take_along_axis(x, at[..., None], -1)[..., 0] for x in (chance, moved))
        trials[0, rate], trials[1, rate] = had & success, had & ~success
    return trials


def watch_rates(options: Study, random: np.random.Generator) -> tuple[list[Rung], list[Rung]]:
    """Alarms of the three rates, as `RateMonitor` counts, and by first chances anywhere."""
    streams, live_questions = options.rate_streams, options.rate_questions
    still = [
        (name, pilot, rounds, None, None)
        for name in POPULATIONS
        for pilot in PILOT_QUESTIONS
        for rounds in (1, 4, 10)
    ]
    moving = [
        ("mover-stayer", pilot, 4, change, start)
        for pilot in PILOT_QUESTIONS
        for change in CHANGES
        for start in (0, live_questions // 2)
    ]
    found: tuple[list[Rung], list[Rung]] = ([], [])
    for name, pilot, rounds, change, start in tqdm([*still, *moving], unit="rates", disable=None):
        draw = POPULATIONS[name]
        recorded = states(random, draw(random, (streams, pilot)), PILOT_ROUNDS)
        rates = draw(random, (streams, live_questions))
        if change is not None:
            changed = np.arange(live_questions) >= start
            factors = CHANGES[change]
            p0, p_ic, p_ci = (
                rate * np.where(changed, x, 1) for rate, x in zip(rates, factors, strict=True)
            )
            rates = (p0, p_ic, p_ci)
        live = states(random, rates, rounds)
        kind = f"{name}, pilot of {pilot} x {PILOT_ROUNDS}, live x {rounds}"
        for any_round, results in ((False, found[0]), (True, found[1])):
            if any_round and change is not None:
                continue
            test = RateTest(*first_trials(recorded, any_round=any_round).sum(axis=-1, dtype=int))
            counts = first_trials(live, any_round=any_round).cumsum(axis=-1, dtype=int)
            alarm = np.full(streams, np.inf)
            for seen in range(LOOK_EVERY, live_questions + 1, LOOK_EVERY):
                rings = (test.update(*counts[..., seen - 1]) <= FALSE_ALARM / 3).any(axis=0)
                alarm[rings & np.isinf(alarm)] = seen
                if seen % RESTART == 0:
                    test.restart()
            label = kind if change is None else f"{kind}, {change}"
            results.append(rung(label, start, alarm))
    return found


def table(rows: list[Rung]) -> str:
    """As Markdown."""
    header = ["what is watched", "broken after", "rang too early", "rang", "delay: median, 90 %"]
    cells = []
    for row in rows:
        never = row.broken_after is None
        delay = ", ".join("never" if x is None else f"{x:,}" for x in row.delay)
        cells.append(
            [
                row.kind,
                "never" if never else f"{row.broken_after:,}",
                f"{row.early / row.streams:.4f}",
                "" if never else f"{row.rang / row.streams:.2f}",
                "" if never else delay,
            ]
        )
    return markdown(header, cells)


def main() -> None:
    """Print tables as Markdown, write the JSON."""
    options = tyro.cli(Study)
    random = np.random.default_rng(options.seed)
    promise = watch_promise(options, random)
    rates, any_round = watch_rates(options, random)
    print(f"The promise, eps {EPS:g}, false alarm {FALSE_ALARM:g}, {options.questions:,} questions")
    print(f"\n{table(promise)}\n")
    print(f"The rates, false alarm {FALSE_ALARM:g}, {options.rate_questions:,} live questions")
    print(f"\n{table(rates)}\n")
    print("The same, had the first chance in any round been counted")
    print(f"\n{table(any_round)}\n")
    print(
        f"{options.streams:,} streams of each kind for the promise, {options.rate_streams:,} for "
        f"the rates, seed {options.seed}"
    )
    if options.json:
        names = ("streams", "questions", "rate_streams", "rate_questions", "seed")
        terms = {name: getattr(options, name) for name in names}
        result = {"promise": promise, "rates": rates, "rates_of_any_round": any_round}
        write_json(options.json, {**terms, **result})


if __name__ == "__main__":
    main()
