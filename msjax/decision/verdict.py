"""What a pilot decides: does revising help, and how many more questions would decide it.

After k rounds a question is in one of four cells: its first answer right or wrong, its answer after
k rounds right or wrong. The shares of the cells have the prior Dirichlet(1/2, 1/2, 1/2, 1/2), so
given counts n their law is Dirichlet(n + 1/2), whatever made the runs: no chain is assumed within
the rounds recorded. The accuracy after k rounds less that of the first answer is the share repaired
less the share broken. How many rounds to judge is chosen on other questions than those judged.

Reference: docs/theory.md F10; Agresti & Min (2005), Statistics in Medicine 24, 729-740, who add the
same half observation to each cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.errors import require, require_value_and_cost
from msjax.evaluate.crossfit import FOLDS
from msjax.posterior.checks import Check
from msjax.posterior.models.chains import Pooled
from msjax.posterior.models.model import Draws
from msjax.posterior.quantities import MIN_ROUNDS, Estimate, estimate, round_tokens
from msjax.posterior.sample import host_generator, sample_posterior
from msjax.rules.markovscale import plan_rounds

SURE = 0.9
"""Probability from which a verdict is given, that of an interval too."""
FEWEST = 20
"""Questions below which no verdict is given: a share of so few is known to within .2 at best."""
SIZES = (25, 50, 100, 200, 400, 800, 1600, 3200)
"""Numbers of further questions that are tried."""
_DRAWS, _FUTURES, _FUTURE_DRAWS = 20_000, 200, 1000
_PRIOR = 0.5
_WANTED = 0.8
"""Share of the futures in which so many questions must decide."""

Verdict = Literal["helps", "neutral", "hurts", "does not help"]


@dataclass(frozen=True)
class Change:
    """The accuracy after `rounds` rounds less that of the first answer, and what it amounts to.

    `helps`, `neutral` and `hurts` are the probabilities that it is above the margin, within it, and
    below.
    """

    rounds: int
    accuracy: Estimate
    change: Estimate
    helps: float
    neutral: float
    hurts: float

    @property
    def verdict(self) -> Verdict | None:
        """What is sure enough, the most precise first; None if nothing is."""
        sure: dict[Verdict, float] = {
            "helps": self.helps,
            "neutral": self.neutral,
            "hurts": self.hurts,
            "does not help": 1 - self.helps,
        }
        return next((name for name, probability in sure.items() if probability >= SURE), None)


@dataclass(frozen=True)
class More:
    """How many more questions, and at what cost, decide in four of five futures.

    `questions` and `tokens` are None if not even the greatest number tried does; `chance` is then
    that of the greatest number.
    """

    questions: int | None
    chance: float
    tokens: float | None


@dataclass(frozen=True)
class ChainPlan:
    """What the pooled chain says: its rates, the limit, N*, and what rounds beyond the pilot gain.

    Rates and limit are None where the runs do not show them. `gain` is the expected net value of N*
    rounds less that of the best number within the rounds recorded.
    """

    rates: dict[str, Estimate | None]
    limit: Estimate | None
    optimal_rounds: int | None
    accuracy: tuple[Estimate, ...]
    gain: float | None


@dataclass(frozen=True)
class Decision:
    """What the runs of one benchmark decide.

    Attributes:
        count: the runs.
        margin: changes of the accuracy up to this count as neutral.
        by: what the changes rest on: the answers themselves, pair by pair, or the chain (runs that
            a rule cut short); None where nothing can be said.
        changes: after 1, 2, ... rounds.
        judged: the change after the number of rounds >= 1 of greatest expected net value, on
            questions that had no part in choosing this number (`held_out_cells`).
        fold_rounds: the number that each fold was judged after; empty by the chain.
        rounds: the number of rounds, 0 included, of greatest expected net value within those
            recorded; None where nothing can be said.
        chain: what the pooled chain says.
        checks: whether it is one chain.
        more: what would decide, where the runs do not; None where they do or nothing can be said.
    """

    count: Runs
    margin: float
    by: Literal["paired answers", "chain"] | None
    changes: tuple[Change, ...]
    judged: Change | None
    fold_rounds: tuple[int, ...]
    rounds: int | None
    chain: ChainPlan
    checks: tuple[Check, ...]
    more: More | None

    @property
    def verdict(self) -> str:
        """A `Verdict`, or undecided, too small, not identified."""
        if self.judged is None:
            return "not identified"
        if self.count.questions < FEWEST:
            return "too small"
        return self.judged.verdict or "undecided"

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that contradict one chain."""
        return tuple(check for check in self.checks if check.contradicted)

    @property
    def trusts_chain(self) -> bool:
        """Whether nothing contradicts the chain where it speaks of rounds not recorded."""
        return self.chain.optimal_rounds is not None and not self.failed


def decide(
    count: Runs,
    right: Bool[np.ndarray, "question answer"] | None,
    checks: tuple[Check, ...],
    key: PRNGKeyArray,
    *,
    margin: float = 0.02,
    value: float = 1.0,
    price: float = 1e-4,
) -> Decision:
    """Whether revising helps, by the paired answers where they are complete.

    Args:
        count: the runs of one benchmark.
        right: whether the answer that would be returned after 0, 1, ... rounds is right; None where
            runs were cut short, so that this is not known. The chain takes its place then, unless
            the label cut them.
        checks: what was found of one chain, see `msjax.posterior.checks.check_chain`.
        key: JAX key.
        margin: changes of the accuracy up to this are neutral (probability).
        value: worth of a correct answer, > 0.
        price: price of a token in that unit, >= 0.

    Raises:
        InputError: margin outside [0, 1), value or price out of range.

    Reference: docs/theory.md F10.
    """
    require("margin", margin, lambda x: (x >= 0) & (x < 1), "give a probability in [0, 1)")
    require_value_and_cost(value, price=price)
    chain_key, draw_key = jax.random.split(key)
    random = host_generator(draw_key)
    # Exact and independent draws, which need no diagnostics.
    draws = sample_posterior(Pooled(), count.observable, chain_key).flat
    identified = Pooled().identified(count.observable)
    accuracy = Pooled().curves(draws, count.rounds).mean_accuracy
    tokens = round_tokens(count.tokens_per_round)
    by: Literal["paired answers", "chain"] | None = None
    changes: tuple[Change, ...] = ()
    if right is not None and right.shape[1] > 1:
        by, changes = "paired answers", changes_of(pair_cells(right), margin, random)
    elif right is None and all(identified.values()) and not any(x.contradicted for x in checks):
        by = "chain"
        changes = tuple(
            _change(k, accuracy[:, k], accuracy[:, k] - accuracy[:, 0], margin)
            for k in range(1, count.rounds + 1)
        )
    judged = rounds = more = None
    fold_rounds: tuple[int, ...] = ()
    if changes:
        cost = price / value * tokens[: len(changes)].cumsum()
        gain = np.array([change.change.mean for change in changes])
        judged, rounds = changes[_best(gain, cost) - 1], _best(gain, cost, fewest=0)
        if right is not None:
            held_out, fold_rounds = held_out_cells(right, cost, random)
            (found,) = changes_of(held_out[None], margin, random)
            judged = replace(found, rounds=judged.rounds)
            if judged.verdict is None or count.questions < FEWEST:
                each = float(count.tokens_per_round[: judged.rounds + 1].sum())
                more = questions_needed(held_out, margin, each, random)
    chain = _plan_by_chain(draws, identified, count.rounds, tokens, value, price)
    return Decision(count, margin, by, changes, judged, fold_rounds, rounds, chain, checks, more)


def pair_cells(right: Bool[np.ndarray, "question answer"]) -> Int[np.ndarray, "round 4"]:
    """Questions kept right, broken, repaired and kept wrong after 1, 2, ... rounds."""
    first, later = right[:, :1], right[:, 1:]
    cells = (first & later, first & ~later, ~first & later, ~first & ~later)
    return np.stack([cell.sum(axis=0) for cell in cells], axis=1)


def held_out_cells(
    right: Bool[np.ndarray, "question answer"],
    cost: Float[np.ndarray, " round"],
    random: np.random.Generator,
) -> tuple[Int[np.ndarray, "4"], tuple[int, ...]]:
    """Cells of every question after the number of rounds that questions of other folds chose.

    The second value holds these numbers. Each, at least 1, has the greatest expected gain of
    accuracy less `cost` on the other four of five folds, so that looking for the best makes none
    look better than it is. Fewer than five questions are a fold each.
    """
    fold = random.permutation(np.arange(len(right)) % FOLDS)
    total, chosen = np.zeros(4, dtype=np.int64), []
    for number in range(min(FOLDS, len(right))):
        others = pair_cells(right[fold != number])
        gain = (others[:, 2] - others[:, 1]) / (others.sum(axis=1) + 4 * _PRIOR)
        chosen.append(_best(gain, cost))
        total += pair_cells(right[fold == number])[chosen[-1] - 1]
    return total, tuple(chosen)


def _best(
    gain: Float[np.ndarray, " round"], cost: Float[np.ndarray, " round"], fewest: int = 1
) -> int:
    """Number of rounds of greatest net gain, at least `fewest`."""
    return fewest + int(np.append(0, gain - cost)[fewest:].argmax())


def changes_of(
    cells: Int[np.ndarray, "round 4"], margin: float, random: np.random.Generator
) -> tuple[Change, ...]:
    """The changes after 1, 2, ... rounds, from cells as `pair_cells` counts them."""
    found = []
    for k, counts in enumerate(cells, 1):
        kept, broken, repaired, _ = random.dirichlet(counts + _PRIOR, _DRAWS).T
        found.append(_change(k, kept + repaired, repaired - broken, margin))
    return tuple(found)


def questions_needed(
    cells: Int[np.ndarray, "4"],
    margin: float,
    tokens: float,
    random: np.random.Generator,
    sizes: Sequence[int] = SIZES,
) -> More:
    """The least number of new questions that decides in at least four of five futures.

    A future is a draw of the shares from their law given the pilot, and as many questions drawn
    with these shares; it decides if, given pilot and new questions, the probability that revising
    helps is at least .9 or at most .1.

    Args:
        cells: counts as `pair_cells` gives them for one number of rounds.
        margin: changes up to this are neutral.
        tokens: what recording one question costs.
        random: source of futures.
        sizes: numbers to try, ascending.
    """
    shares = random.dirichlet(cells + _PRIOR, _FUTURES)
    chance = 0.0
    for size in sizes:
        alpha = cells + random.multinomial(size, shares) + _PRIOR
        gamma = random.standard_gamma(alpha, (_FUTURE_DRAWS, *alpha.shape))
        change = (gamma[..., 2] - gamma[..., 1]) / gamma.sum(axis=2)
        helps = (change > margin).mean(axis=0)
        chance = float((np.maximum(helps, 1 - helps) >= SURE).mean())
        if chance >= _WANTED:
            return More(size, chance, size * tokens)
    return More(None, chance, None)


def _change(
    k: int,
    accuracy: Float[np.ndarray, " draw"],
    change: Float[np.ndarray, " draw"],
    margin: float,
) -> Change:
    helps, hurts = float((change > margin).mean()), float((change < -margin).mean())
    within = float((np.abs(change) <= margin).mean())
    found = estimate(accuracy), estimate(change)
    assert found[0] is not None and found[1] is not None
    return Change(k, found[0], found[1], helps, within, hurts)


def _plan_by_chain(
    draws: Draws,
    identified: dict[str, bool],
    recorded: int,
    tokens: Float[np.ndarray, " round"],
    value: float,
    price: float,
) -> ChainPlan:
    rates = {name: estimate(draws[name]) if known else None for name, known in identified.items()}
    if not all(identified.values()):
        return ChainPlan(rates, None, None, (), None)
    curves = Pooled().curves(draws, max(MIN_ROUNDS, recorded))
    accuracy = curves.mean_accuracy
    plan = plan_rounds(accuracy, tokens, value=value, price=price)
    net = np.asarray(plan.net_value)
    assert curves.limit is not None
    return ChainPlan(
        rates,
        estimate(curves.limit[:, 0]),
        plan.optimal_rounds,
        tuple(found for column in accuracy.T if (found := estimate(column))),
        float(net[plan.optimal_rounds] - net[: recorded + 1].max()),
    )
