"""Whether the guarantee holds, and what it saves, on pilots of known distribution.

Each pilot is asked for the cheapest policy that is no worse than all rounds by `eps`, at level
`delta`: fixed numbers of rounds, and rounds until an answer was repeated once or twice. A violation
is a choice whose true accuracy is below that of all rounds by `eps` or more. On the edge the first
policy tested loses exactly `eps`, so that the level is used up. Policies are ordered by the mean
tokens of the very pilot they are tested on. Where questions come in clusters, clusters are given;
what happens when they are not is shown beside it.

    python -m simulate.guarantee --json simulate/results/guarantee.json
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Bool, Float, Int
from scipy.stats import binom
from tqdm import tqdm

from msjax.cli.output import write_json
from msjax.cli.tables import markdown
from msjax.decision.guarantee import betting_p_value, score_statistic, trinomial_p_value

QUESTIONS, ROUNDS = (20, 50, 200), (1, 3, 6, 10)
LEVELS = ((0.02, 0.1), (0.05, 0.1), (0.1, 0.05))
CLUSTER = 5
KEEP_WRONG = 0.7
"""Probability that a revision from wrong to wrong keeps the answer."""


@dataclass(frozen=True)
class Study:
    """Ask simulated pilots for the cheapest policy that is no worse.

    python -m simulate.guarantee --json simulate/results/guarantee.json
    """

    json: Path | None = None
    """write the results here as well"""
    pilots: int = 10_000
    """pilots of every distribution and size"""
    seed: int = 0
    """seed of all random draws"""


@dataclass(frozen=True)
class Runs:
    """Whether each answer is right [..., question, answer] and is the one before [..., round]."""

    right: Bool[np.ndarray, "*pilot question answer"]
    repeated: Bool[np.ndarray, "*pilot question round"]

    def shortened(self, rounds: int) -> Runs:
        """The same with fewer rounds."""
        return Runs(self.right[..., : rounds + 1], self.repeated[..., :rounds])


Rate = Float[np.ndarray, "*pilot question"] | float
Draw = Callable[[np.random.Generator, tuple[int, int], int, float], Runs]
"""Runs of (pilots, questions), with so many rounds; the last number is `eps`."""


@dataclass(frozen=True)
class Distribution:
    """What makes runs.

    Attributes:
        draw: the runs.
        edge: whether each policy loses exactly eps or nothing.
        clusters: whether questions come in clusters.
    """

    draw: Draw
    edge: bool = False
    clusters: bool = False


@dataclass(frozen=True)
class Outcome:
    """Choices from the pilots of one distribution, size and level.

    Attributes:
        violations: pilots whose choice loses eps or more in truth.
        chosen: pilots that had any choice but all rounds.
        saved: mean share of the tokens of all rounds that the choices save in truth.
        saved_shared: the same had each policy been tested at its share of delta (Bonferroni), and
            the cheapest that passed been chosen.
        attainable: share saved by the cheapest policy that loses less than eps in truth.
    """

    distribution: str
    clusters_given: bool
    questions: int
    rounds: int
    eps: float
    delta: float
    pilots: int
    violations: int
    chosen: int
    saved: float
    saved_shared: float
    attainable: float


def follow(
    random: np.random.Generator,
    p0: Rate,
    moves: Sequence[tuple[Rate, Rate]],
    shape: tuple[int, int],
    keep_wrong: Rate = KEEP_WRONG,
) -> Runs:
    """Chains whose rates (p_ic, p_ci) may differ by question and by round."""
    right = [random.random(shape) < p0]
    repeated = []
    for p_ic, p_ci in moves:
        moved = random.random(shape) < np.where(right[-1], p_ci, p_ic)
        keeps = random.random(shape) < np.where(right[-1], 1.0, keep_wrong)
        repeated.append(~moved & keeps)
        right.append(right[-1] ^ moved)
    return Runs(np.stack(right, axis=-1), np.stack(repeated, axis=-1))


def one_chain(p0: float, p_ic: float, p_ci: float) -> Draw:
    """The same three rates for every question."""
    return lambda random, shape, rounds, _: follow(random, p0, [(p_ic, p_ci)] * rounds, shape)


def on_the_edge(broken: float) -> Draw:
    """Nothing changes but in the last round, which repairs more than it breaks by exactly eps."""

    def draw(random: np.random.Generator, shape: tuple[int, int], rounds: int, eps: float) -> Runs:
        last = ((broken + eps) / 0.5, broken / 0.5)
        return follow(random, 0.5, [(0.0, 0.0)] * (rounds - 1) + [last], shape, 1.0)

    return draw


def heterogeneous(
    random: np.random.Generator, shape: tuple[int, int], rounds: int, eps: float
) -> Runs:
    """Rates that differ widely between questions, easy ones being repaired more often."""
    ease = random.random(shape)
    p_ic, p_ci = 0.6 * ease * random.random(shape), 0.2 * (1 - ease)
    return follow(random, ease, [(p_ic, p_ci)] * rounds, shape)


def mover_stayer(
    random: np.random.Generator, shape: tuple[int, int], rounds: int, eps: float
) -> Runs:
    """Half of the questions never change, the others do often."""
    stays = random.random(shape) < 0.5
    moves = (np.where(stays, 0.0, 0.5), np.where(stays, 0.0, 0.15))
    return follow(random, np.where(stays, 0.6, 0.4), [moves] * rounds, shape)


def sticky(random: np.random.Generator, shape: tuple[int, int], rounds: int, eps: float) -> Runs:
    """Half of the wrong answers are stuck and repeat themselves, the others are loose."""
    stuck = random.random(shape) < 0.5
    moves = (np.where(stuck, 0.02, 0.5), 0.05)
    return follow(random, 0.5, [moves] * rounds, shape, np.where(stuck, 0.98, 0.1))


def drifting(random: np.random.Generator, shape: tuple[int, int], rounds: int, eps: float) -> Runs:
    """Repairs fade and breaks grow with the rounds, so that accuracy rises and falls."""
    moves = [(0.4 * 0.6**k, min(0.03 * 1.4**k, 0.5)) for k in range(rounds)]
    return follow(random, 0.5, moves, shape)


def clustered(random: np.random.Generator, shape: tuple[int, int], rounds: int, eps: float) -> Runs:
    """Five questions of a cluster go the same way; on the edge as above."""
    pilots, questions = shape
    once = on_the_edge(0.1)(random, (pilots, questions // CLUSTER), rounds, eps)
    return Runs(*(np.repeat(x, CLUSTER, axis=-2) for x in (once.right, once.repeated)))


DISTRIBUTIONS = {
    "no change: chain (.6, .3, .2)": Distribution(one_chain(0.6, 0.3, 0.2)),
    "nothing moves": Distribution(one_chain(0.6, 0.0, 0.0)),
    "helps: chain (.4, .4, .05)": Distribution(one_chain(0.4, 0.4, 0.05)),
    "helps slowly: chain (.5, .06, .02)": Distribution(one_chain(0.5, 0.06, 0.02)),
    "hurts: chain (.8, .1, .3)": Distribution(one_chain(0.8, 0.1, 0.3)),
    "heterogeneous": Distribution(heterogeneous),
    "mover-stayer": Distribution(mover_stayer),
    "sticky answers": Distribution(sticky),
    "drifting": Distribution(drifting),
    "on the edge, none broken": Distribution(on_the_edge(0.0), edge=True),
    "on the edge, .05 broken": Distribution(on_the_edge(0.05), edge=True),
    "on the edge, .2 broken": Distribution(on_the_edge(0.2), edge=True),
    "clustered, on the edge": Distribution(clustered, edge=True, clusters=True),
}


def stops(runs: Runs) -> Int[np.ndarray, "policy *pilot question"]:
    """The round whose answer each policy returns: fixed ones, then one and two repeats."""
    rounds = runs.repeated.shape[-1]
    shape = runs.right.shape[:-1]
    found = [np.full(shape, k, dtype=np.int8) for k in range(rounds)]
    in_a_row = np.zeros(shape, dtype=np.int8)
    once, twice = (np.full(shape, rounds, dtype=np.int8) for _ in range(2))
    for k in range(rounds):
        in_a_row = np.where(runs.repeated[..., k], in_a_row + 1, 0)
        for repeats, at in ((1, once), (2, twice)):
            at[(in_a_row >= repeats) & (at == rounds)] = k + 1
    return np.stack([*found, once, twice])


@functools.cache
def least_score(n: int, eps: float, delta: float) -> float:
    """The lowest score that the exact test of n questions passes; infinite if none."""
    pairs = [(a, b) for a in range(n + 1) for b in range(n + 1 - a)]
    broken, repaired = np.array(pairs).T
    score = score_statistic(broken, repaired, n, eps)
    order = np.argsort(-score)
    passed = bisect.bisect_right(
        order, delta, key=lambda i: trinomial_p_value(*pairs[int(i)], n, eps)
    )
    return float(score[order[passed - 1]]) if passed else np.inf


def choose(
    passes: Bool[np.ndarray, "policy pilot"], tokens: Float[np.ndarray, "policy pilot"], full: float
) -> Int[np.ndarray, " pilot"]:
    """What `cheapest_no_worse` chooses from each pilot; the number of policies for all rounds."""
    order = np.argsort(-tokens, axis=0, kind="stable")
    tested = np.take_along_axis(tokens < full, order, axis=0)
    good = np.logical_and.accumulate(np.take_along_axis(passes, order, axis=0) | ~tested, axis=0)
    last = np.where(good & tested, np.arange(len(tokens))[:, None], -1).max(axis=0)
    column = np.arange(tokens.shape[1])
    return np.where(last >= 0, order[last, column], len(tokens))


def judge(name: str, pilots: int, random: np.random.Generator) -> list[Outcome]:
    """All sizes and levels on the pilots of one distribution; small pilots are parts of large."""
    kind = DISTRIBUTIONS[name]
    shape = (pilots, max(QUESTIONS))
    found = []
    if kind.edge:
        for rounds in ROUNDS:
            for eps, delta in LEVELS:
                runs = kind.draw(random, shape, rounds, eps)
                found += _judge_sizes(name, runs, ((eps, delta),))
    else:
        longest = kind.draw(random, shape, max(ROUNDS), math.nan)
        for rounds in ROUNDS:
            found += _judge_sizes(name, longest.shortened(rounds), LEVELS)
    return found


def _judge_sizes(name: str, runs: Runs, levels: Sequence[tuple[float, float]]) -> list[Outcome]:
    kind = DISTRIBUTIONS[name]
    differences, asked = differences_and_answers(runs)
    policies, pilots, _ = asked.shape
    full = runs.right.shape[-1]
    # All pilots together say what is true, within a few standard errors; on the edge it is known.
    loss, spent = -differences.mean(axis=(1, 2)), asked.mean(axis=(1, 2))
    error = differences.std(axis=(1, 2)) / np.sqrt(differences[0].size)
    found = []
    for questions in QUESTIONS:
        own = differences[..., :questions]
        tokens = asked[..., :questions].mean(axis=-1)
        broken, repaired = ((own == sign).sum(axis=-1) for sign in (-1, 1))
        for eps, delta in levels:
            worse = loss > eps / 2 if kind.edge else loss + 3 * error >= eps
            score = score_statistic(broken, repaired, questions, eps) + 1e-9
            levels_tried = (delta, delta / policies)
            ways = [(False, [score >= least_score(questions, eps, x) for x in levels_tried])]
            if kind.clusters:
                means = own.reshape(policies, pilots, -1, CLUSTER).mean(axis=-1)
                p = np.stack([betting_p_value(x, eps) for x in means])
                ways.append((True, [p <= x for x in levels_tried]))
            for given, (passes, passes_shared) in ways:
                chosen = choose(passes, tokens, full)
                shared = np.where(passes_shared & (tokens < full), tokens, np.inf)
                cheapest = np.where(
                    np.isfinite(shared.min(axis=0)), shared.argmin(axis=0), policies
                )
                found.append(
                    Outcome(
                        distribution=name,
                        clusters_given=given,
                        questions=questions,
                        rounds=full - 1,
                        eps=eps,
                        delta=delta,
                        pilots=pilots,
                        violations=int(np.append(worse, False)[chosen].sum()),
                        chosen=int((chosen < policies).sum()),
                        saved=float(1 - np.append(spent, full)[chosen].mean() / full),
                        saved_shared=float(1 - np.append(spent, full)[cheapest].mean() / full),
                        attainable=float(1 - np.append(spent[~worse], full).min() / full),
                    )
                )
    return found


def differences_and_answers(
    runs: Runs,
) -> tuple[Int[np.ndarray, "policy pilot question"], Int[np.ndarray, "policy pilot question"]]:
    """Correctness less that of all rounds, and answers asked."""
    at = stops(runs)
    right = np.stack([np.take_along_axis(runs.right, k[..., None], -1)[..., 0] for k in at])
    return right.astype(np.int8) - runs.right[..., -1].astype(np.int8), at + 1


def main() -> None:
    """Print tables as Markdown, write the JSON."""
    options = tyro.cli(Study)
    random = np.random.default_rng(options.seed)
    found = [
        outcome
        for name in tqdm(DISTRIBUTIONS, unit="distribution", disable=None)
        for outcome in judge(name, options.pilots, random)
    ]
    header = ["distribution", "level (eps, delta)", "worst share of violations"]
    header += [f"saved, {n} questions" for n in QUESTIONS]
    rows = []
    for name, given in dict.fromkeys((x.distribution, x.clusters_given) for x in found):
        for level in LEVELS:
            own = [
                x
                for x in found
                if (x.distribution, x.clusters_given) == (name, given) and (x.eps, x.delta) == level
            ]
            saved = []
            for n in QUESTIONS:
                same = [x for x in own if x.questions == n]
                names = ("saved", "saved_shared", "attainable")
                mean, shared, most = (np.mean([getattr(x, y) for x in same]) for y in names)
                saved.append(f"{mean:.2f} ({shared:.2f}; {most:.2f})")
            label = name
            if DISTRIBUTIONS[name].clusters:
                label += ", clusters given" if given else ", clusters not given"
            worst = max(x.violations for x in own) / options.pilots
            rows.append([label, f"{level[0]:g}, {level[1]:g}", f"{worst:.4f}", *saved])
    print(markdown(header, rows))
    promised = [x for x in found if x.clusters_given or not DISTRIBUTIONS[x.distribution].clusters]
    # Chance alone exceeds this in any of so many rows with probability .01.
    share = 0.01 / len(promised)
    broken = [x for x in promised if binom.sf(x.violations - 1, x.pilots, x.delta) < share]
    print(
        f"\n{options.pilots} pilots each of {QUESTIONS} questions x {ROUNDS} rounds, seed "
        f"{options.seed}; saved: mean over the numbers of rounds, in brackets\n"
        f"with delta shared out among policies, and what the truth allows. {len(broken)} of "
        f"{len(promised)} rows have more violations than delta allows."
    )
    if options.json:
        terms = {"pilots": options.pilots, "seed": options.seed}
        write_json(options.json, {**terms, "outcomes": found})


if __name__ == "__main__":
    main()
