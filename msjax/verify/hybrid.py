"""Claims on selecting among independent chains on a budget: section A9."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from functools import cache, partial

import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key
from scipy import integrate, special, stats

from msjax.simulation.enumeration import exact_curve
from msjax.theory import hybrid as theory
from msjax.theory.chain import TwoStateChain
from msjax.verify.claim import Claim, Laboratory
from msjax.verify.evidence import Evidence, join, of_counts
from msjax.verify.sampling import generator

__all__ = ["CLAIMS", "selections"]

Setting = tuple[float, float, float, float, float]
"""(p0, p_ic, p_ci, agreement, discriminability)."""

SETTINGS: tuple[Setting, ...] = (
    (0.3, 0.25, 0.1, 0.4, 1.0),  # beneficial; from a / (1 + a) to well above it
    (0.6, 0.1, 0.3, 1.0, 0.5),  # harmful; all wrong answers agree
    (0.3, 0.7, 0.8, 0.0, 2.0),  # overshoots; no two wrong answers agree
    (0.2, 0.3, 0.1, 0.5, math.inf),  # a verifier that is never wrong
    (0.35, 0.0, 0.0, 0.7, 0.0),  # frozen, and a verifier that guesses
    (1.0, 1.0, 1.0, 0.3, 1.5),  # all right and all wrong in turn
)

CHAINS = 8
"""Most chains that are selected from."""
LATEST = 4
"""Most rounds of each."""
BUDGETS = ((5.0, 1.0, 1.0), (8.0, 1.0, 2.0), (9.0, 2.0, 1.5))
"""(budget, tokens of a first answer, tokens of a round), within `CHAINS` and `LATEST`."""

Values = Float[np.ndarray, "..."]

_COMPILED = 16
_TIE = 1e-12


def selections(
    key: Key[Array, ""],
    laboratory: Laboratory,
    p0: float,
    p_ic: float,
    p_ci: float,
    agreement: float,
    discriminability: float,
) -> Int[np.ndarray, "2 answers chains"]:
    """Of `_groups` how often the vote and the verifier are right, after k rounds of m chains.

    The groups of fewer chains are the first members of a group of `CHAINS`.
    """
    rng, shape = generator(key), (CHAINS, _groups(laboratory))
    seen_earlier = -np.arange(CHAINS, dtype=np.int8)[:, None]
    wrong_answers = np.where(rng.random(shape) < agreement, 1, 2 - seen_earlier).astype(np.int8)
    noise = rng.standard_normal(shape)
    right = rng.random(shape) < p0
    found = np.empty((2, LATEST + 1, CHAINS), int)
    for k in range(LATEST + 1):
        answers = np.where(right, 0, wrong_answers)
        ranks = np.broadcast_to(seen_earlier, shape).copy()
        right_scores = np.where(right, noise + discriminability, -np.inf)
        wrong_scores = np.where(right, -np.inf, noise)
        for m in range(CHAINS):
            # A vote counts for more than any order of appearance: ranks are > 0 with a vote only.
            ranks += np.int8(CHAINS) * (answers == answers[m])
            found[0, k, m] = np.sum((ranks * right).max(axis=0) == ranks.max(axis=0))
            best_right, best_wrong = (x[: m + 1].max(axis=0) for x in (right_scores, wrong_scores))
            found[1, k, m] = np.sum(best_right > best_wrong)
        right = right ^ (rng.random(shape) < np.where(right, p_ci, p_ic))
    return found


def _accuracies(setting: Setting) -> Values:
    """p_0, p_1, ...: as many as `best_split` has voted on at once, to compile nothing twice."""
    return np.array([float(p) for p in exact_curve(*setting[:3], _COMPILED - 1)])


def _groups(laboratory: Laboratory) -> int:
    """As many groups as have together `n_chains` chains."""
    return laboratory.n_chains // CHAINS


@cache
def _winning_sequences() -> Int[np.ndarray, "groups rights commons"]:
    """Of the sequences of m answers with c right and w common wrong ones, how many the vote wins.

    All 3^m sequences of right, common and other answers are voted on, m <= `CHAINS`.
    """
    won = np.zeros((CHAINS + 1,) * 3, int)
    for m in range(1, CHAINS + 1):
        for kinds in itertools.product(("right", "common", "other"), repeat=m):
            answers = [i if kind == "other" else kind for i, kind in enumerate(kinds)]
            # `most_common` lists equals in the order in which they were first seen.
            if Counter(answers).most_common(1)[0][0] == "right":
                won[m, kinds.count("right"), kinds.count("common")] += 1
    return won


def _exact_votes(setting: Setting) -> Values:
    """P(vote is right) for k = 0, ..., LATEST rounds (rows) of m = 1, ..., CHAINS chains."""
    agreement, won = setting[3], _winning_sequences()
    m, right, common = np.ogrid[1 : CHAINS + 1, : CHAINS + 1, : CHAINS + 1]
    other = np.maximum(m - right - common, 0)
    reached = []
    for p in _accuracies(setting)[: LATEST + 1]:
        shared, lone = (1 - p) * agreement, (1 - p) * (1 - agreement)
        probability = p**right * shared**common * lone**other
        reached.append(np.sum(won[1:] * probability, axis=(1, 2)))
    return np.array(reached)


@cache
def _best_is_right(discriminability: float) -> Values:
    """P(the best of c right answers scores above the best of w wrong ones) at [c, w]."""

    def density(t: float, c: int, w: int) -> float:
        above = t - discriminability
        best = c * special.ndtr(above) ** (c - 1) * math.exp(-above * above / 2)
        return best / math.sqrt(2 * math.pi) * special.ndtr(t) ** w

    beats = np.zeros((CHAINS + 1, CHAINS + 1))
    beats[1:, 0] = 1
    for c, w in itertools.product(range(1, CHAINS), repeat=2):
        if discriminability == math.inf:
            beats[c, w] = 1
        elif c + w <= CHAINS:
            ends = discriminability - 9, discriminability + 9
            beats[c, w], _ = integrate.quad(density, *ends, (c, w), epsabs=1e-13, epsrel=0)
    return beats


def _exact_verified(setting: Setting) -> Values:
    """P(best score is right), laid out like `_exact_votes`; c right ones are binomial."""
    p, beats = _accuracies(setting)[: LATEST + 1, None], _best_is_right(setting[4])
    reached = []
    for m in range(1, CHAINS + 1):
        c = np.arange(m + 1)
        reached.append(stats.binom.pmf(c[None], m, p) @ beats[c, m - c])
    return np.stack(reached, axis=1)


def _voted(setting: Setting) -> ArrayLike:
    p, agreement = _accuracies(setting), setting[3]
    vote = theory.majority_accuracy_of_chains
    reached = [vote(p, m, agreement) for m in range(1, CHAINS + 1)]
    return np.stack(reached, axis=1)[: LATEST + 1]


def _verified(setting: Setting) -> ArrayLike:
    p, distance = _accuracies(setting), setting[4]
    verify = theory.verifier_accuracy_of_chains
    reached = [verify(p, m, distance) for m in range(1, CHAINS + 1)]
    return np.stack(reached, axis=1)[: LATEST + 1]


def _selected(selector: int) -> Callable[[Laboratory, Setting, Values], Evidence]:
    def simulated(lab: Laboratory, setting: Setting, predicted: Values) -> Evidence:
        return of_counts(lab.run(selections, *setting)[selector].ravel(), _groups(lab), predicted)

    return simulated


def _splits(setting: Setting) -> ArrayLike:
    """Chains, rounds, accuracy, tokens and tokens again: rows, for each selector and budget."""
    chain, agreement, distance = TwoStateChain(*setting[:3]), setting[3], setting[4]
    selectors = (
        partial(theory.majority_accuracy_of_chains, agreement=agreement),
        partial(theory.verifier_accuracy_of_chains, discriminability=distance),
    )
    rows = []
    for select, (budget, first, per_round) in itertools.product(selectors, BUDGETS):
        split = theory.best_split(chain, budget, first, per_round, select)
        tokens = theory.hybrid_tokens(split.chains, split.rounds, first, per_round)
        rows.append((*split, tokens))
    return np.array(rows, float)


def _affordable(
    budget: float, first_tokens: float, round_tokens: float
) -> list[tuple[float, int, int]]:
    """All (tokens, chains, rounds) within a budget, cheapest first."""
    splits = itertools.product(range(1, CHAINS + 1), range(LATEST + 1))
    cost = ((m * (first_tokens + k * round_tokens), m, k) for m, k in splits)
    return sorted(split for split in cost if split[0] <= budget)


def _exact_splits(setting: Setting) -> Values:
    rows = []
    for reached, budget in itertools.product(
        (_exact_votes(setting), _exact_verified(setting)), BUDGETS
    ):
        splits = _affordable(*budget)
        best = max(reached[k, m - 1] for _, m, k in splits)
        tokens, m, k = next(s for s in splits if reached[s[2], s[1] - 1] >= best - _TIE)
        rows.append((m, k, reached[k, m - 1], tokens, tokens))
    return np.array(rows, float)


def _simulated_splits(lab: Laboratory, setting: Setting, predicted: Values) -> Evidence:
    """The split reaches what is claimed, and no other within the budget reaches more."""
    found, n = lab.run(selections, *setting), _groups(lab)
    parts = []
    for (counts, budget), (m, k, accuracy, *_) in zip(
        itertools.product(found, BUDGETS), predicted.reshape(-1, 5), strict=True
    ):
        chains, rounds = min(round(m), CHAINS), min(round(k), LATEST)
        others = np.array([counts[k, m - 1] for _, m, k in _affordable(*budget)])
        parts.append(of_counts(counts[rounds, chains - 1], n, accuracy))
        parts.append(of_counts(others, n, accuracy, side=-1))
    return join(*parts)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "A9.majority",
        "plurality of M chains when wrong answers agree with probability a",
        "docs/theory.md A9; self-consistency, arXiv 2203.11171",
        SETTINGS,
        _voted,
        _exact_votes,
        _selected(0),
        compiled=False,
    ),
    Claim(
        "A9.verifier",
        "the best score among M chains is right with the binormal integral",
        "docs/theory.md A9",
        SETTINGS,
        _verified,
        _exact_verified,
        _selected(1),
        compiled=False,
    ),
    Claim(
        "A9.budget",
        "best numbers of chains and rounds within a budget, and what they reach",
        "docs/theory.md A9",
        SETTINGS,
        _splits,
        _exact_splits,
        _simulated_splits,
        compiled=False,
    ),
)
