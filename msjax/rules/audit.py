"""The exact distribution of a stopping rule on independent votes, from the rule's own states.

Nothing is derived from how a rule is described: `rule.update`, the function that runs live, is
applied to every state the votes can lead to, and equal states are merged. Doubles throughout; no
simulation.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from msjax.errors import InputError, require
from msjax.rules.protocol import Decision, Observation, StoppingRule

__all__ = ["Audit", "StopDistribution", "audit", "stop_distribution"]

STATE_LIMIT = 300_000
_MOST_VOTES = 4096
_SMALLEST_BATCH = 256
_COLUMNS = 16
QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
_ROUNDING = 1e-9


class StopDistribution(NamedTuple):
    """When a rule stops, and with which answer, within a number of votes.

    Attributes:
        stopped_at: P(the rule stops at vote t) at `[t - 1]`.
        right: P(it stops and returns class 0).
        equivalent_margin: the m for which it stops at a vote exactly if the leader is then at least
            m votes ahead, whatever led there; None if there is no such m.
    """

    stopped_at: Float[np.ndarray, "votes"]
    right: float
    equivalent_margin: int | None


@dataclasses.dataclass(frozen=True)
class Audit:
    """What a rule does with independent votes; probabilities unless said otherwise.

    Attributes:
        budget: the most votes.
        rates: chance that a vote falls on each class, the right one first.
        error: the answer returned is not right (that none is returned included).
        undecided: the budget is spent before the rule's own criterion is met.
        expected_votes: mean number of votes.
        p95_votes: the smallest number of votes that is not exceeded with probability .95.
        unanimous_votes: votes until the rule stops if all agree; the budget at the latest.
        equivalent_margin: as in `StopDistribution`, up to the budget.
        claimed_error: what the rule claims; None if it claims nothing.
        null: P(the rule's criterion is met within t votes) between two answers that are equally
            likely, for each horizon t.
        anytime_valid: whether that stays within the claim at all these horizons; None without one.
    """

    budget: int
    rates: tuple[float, ...]
    error: float
    undecided: float
    expected_votes: float
    p95_votes: int
    unanimous_votes: int
    equivalent_margin: int | None
    claimed_error: float | None
    null: dict[int, float]
    anytime_valid: bool | None


def stop_distribution(rule: StoppingRule, rates: Sequence[float], votes: int) -> StopDistribution:
    """Exact distribution of `rule` within `votes` independent votes.

    Follows the distribution over the rule's states: at each vote every state is updated with every
    class, numbered by first appearance as in live use, and states that are equal, with equal
    numbering, are merged. Wrong classes of equal rate are interchangeable and are merged as well.

    Args:
        rule: any rule that decides by `answer_id` alone; it sees no scores, answers of one token.
        rates: chance that a vote falls on each class, class 0 the right one; what they lack to 1
            is the chance of no answer (-1).
        votes: how far to follow, >= 1.

    Raises:
        InputError: rates outside [0, 1] or of sum above 1, votes < 1, or more than 300,000 states.

    Reference: docs/theory.md E4 (the same recursion for a vote margin alone).
    """
    return _distribution(_Stepper(rule), rates, votes)


def _distribution(stepper: "_Stepper", rates: Sequence[float], votes: int) -> StopDistribution:
    _require_rates(rates)
    require("votes", votes, lambda x: x >= 1, "give a number of votes >= 1")
    outcomes = _Outcomes.of(rates)
    frontier = stepper.start(len(rates))
    stopped_at, right = np.zeros(votes), 0.0
    stops_from, goes_on_to = votes + 1, -1
    for t in range(votes):
        if not len(frontier.mass):
            break
        frontier, answers = frontier.asked(outcomes)
        frontier, stop, returned = stepper.update(frontier, answers)
        lead = frontier.lead()
        stops_from = int(lead[stop].min(initial=stops_from))
        goes_on_to = int(lead[~stop].max(initial=goes_on_to))
        stopped_at[t] = frontier.mass[stop].sum()
        is_right = (returned >= 0) & (returned == frontier.ids[:, 0])
        right += frontier.mass[stop & is_right].sum()
        frontier = frontier.kept(~stop).merged(outcomes)
    margin = stops_from if goes_on_to < stops_from <= votes else None
    return StopDistribution(stopped_at, float(right), margin)


def audit(
    rule_of: Callable[[int], StoppingRule],
    budget: int,
    rates: Sequence[float],
    *,
    claimed_error: float | None = None,
    null_rule_of: Callable[[int], StoppingRule] | None = None,
    horizons: Sequence[int] = (32, 100, 400),
) -> Audit:
    """What a rule does on independent votes with these rates, and whether its claim holds.

    A rule stops at its budget in any case, so whether its own criterion is met is read off the
    same rule with a larger budget: hence a factory. The null is the boundary: two answers, each
    with probability 1/2, where every declaration is one too many. A claim about a model in which
    one answer is the likelier is not made for the null, and is then reported as not anytime-valid:
    it says nothing about a question on which the model is torn.

    Args:
        rule_of: the rule for a given budget, such as `msjax.rules.asc`.
        budget: the most votes, >= 1.
        rates: as for `stop_distribution`.
        claimed_error: the error the rule claims, in (0, 1); None if it claims nothing.
        null_rule_of: the rule to hold against the null, by budget; the same if not given.
        horizons: numbers of votes at which to look at the null, each >= 1.

    Raises:
        InputError: as `stop_distribution`; a claimed error outside (0, 1), or horizons that are
            none.

    Reference: docs/stopping.md.
    """
    require(
        "budget",
        budget,
        lambda x: (x >= 1) & (x <= _MOST_VOTES),
        f"give the most votes as a number from 1 to {_MOST_VOTES:,}",
    )
    rule = rule_of(budget)
    if not horizons:
        raise InputError("horizons is empty; give numbers of votes")
    require("horizons", np.array(horizons), lambda x: x >= 1, "give numbers of votes >= 1")
    if claimed_error is not None:
        require("claimed_error", claimed_error, lambda x: (x > 0) & (x < 1), "give one in (0, 1)")
    live, longest = _Stepper(rule), max(horizons)
    distribution, unanimous = (
        _distribution(live, rates, budget),
        _distribution(live, (1.0,), budget),
    )
    unhurried = stop_distribution(rule_of(budget + 1), rates, budget)
    null_rule = (null_rule_of or rule_of)(longest + 1)
    # Neither answer is class 0, so the two are interchangeable and half the states suffice.
    declared = np.cumsum(stop_distribution(null_rule, (0.0, 0.5, 0.5), longest).stopped_at)
    null = {int(t): float(declared[t - 1]) for t in horizons}
    by_vote = np.cumsum(distribution.stopped_at)
    return Audit(
        budget=budget,
        rates=tuple(float(rate) for rate in rates),
        error=1 - distribution.right,
        undecided=max(0.0, 1 - float(unhurried.stopped_at.sum())),
        expected_votes=float(distribution.stopped_at @ np.arange(1, budget + 1)),
        p95_votes=int(np.argmax(by_vote >= 0.95 - _ROUNDING)) + 1,
        unanimous_votes=int(np.argmax(unanimous.stopped_at)) + 1,
        equivalent_margin=unhurried.equivalent_margin,
        claimed_error=claimed_error,
        null=null,
        anytime_valid=None
        if claimed_error is None
        else max(null.values()) <= claimed_error + _ROUNDING,
    )


class _Outcomes(NamedTuple):
    """What one vote can be: a class or, as -1, no answer; and which classes are interchangeable."""

    classes: Int[np.ndarray, "outcomes"]
    chances: Float[np.ndarray, "outcomes"]
    alike: list[Int[np.ndarray, "_"]]

    @staticmethod
    def of(rates: Sequence[float]) -> "_Outcomes":
        chances = np.array([*rates, max(0.0, 1 - sum(rates))])
        classes = np.array([*range(len(rates)), -1])
        possible = chances > _ROUNDING * (classes < 0)
        wrong = chances[1:-1]
        alike = [1 + np.flatnonzero(wrong == rate) for rate in np.unique(wrong)]
        return _Outcomes(classes[possible], chances[possible], alike)


class _Frontier(NamedTuple):
    """The states a rule can be in after some votes without having stopped.

    Attributes:
        states: the columns of the rule's packed state that ever move.
        ids: the answer_id of each class, -1 before its first vote.
        counts: votes by answer_id.
        mass: probability.
    """

    states: Int[np.ndarray, "states columns"]
    ids: Int[np.ndarray, "states classes"]
    counts: Int[np.ndarray, "states classes"]
    mass: Float[np.ndarray, "states"]

    def kept(self, which: Bool[np.ndarray, "_"] | Int[np.ndarray, "_"]) -> "_Frontier":
        return _Frontier(*(leaf[which] for leaf in self))

    def asked(self, outcomes: _Outcomes) -> tuple["_Frontier", Int[np.ndarray, "_"]]:
        """Every state once for each outcome, the class numbered; and that outcome's answer_id."""
        fan = len(outcomes.classes)
        wide = self.kept(np.repeat(np.arange(len(self.mass)), fan))
        row = np.arange(len(wide.mass))
        voted = np.tile(outcomes.classes, len(self.mass))
        known = wide.ids[row, voted]
        answers = np.where(known >= 0, known, wide.ids.max(axis=1) + 1)
        answers = np.where(voted >= 0, answers, -1).astype(np.int32)
        cast = voted >= 0
        wide.ids[row[cast], voted[cast]] = answers[cast]
        wide.counts[row[cast], answers[cast]] += 1
        return wide._replace(mass=wide.mass * np.tile(outcomes.chances, len(self.mass))), answers

    def lead(self) -> Int[np.ndarray, "_"]:
        """Votes by which the leader is ahead of the runner-up."""
        top = np.sort(np.pad(self.counts, ((0, 0), (1, 0))), axis=1)
        return top[:, -1] - top[:, -2]

    def merged(self, outcomes: _Outcomes) -> "_Frontier":
        """Equal states as one; wrong classes of equal rate in the order of their numbers."""
        if not len(self.mass):
            return self
        ids, unseen = self.ids.copy(), self.ids.shape[1]
        for group in outcomes.alike:
            part = np.sort(np.where(ids[:, group] < 0, unseen, ids[:, group]), axis=1)
            ids[:, group] = np.where(part == unseen, -1, part)
        columns = np.concatenate([self.states, ids, self.counts], axis=1)
        varying = (columns != columns[0]).any(axis=0)
        if not varying.any():
            return self.kept(np.array([0]))._replace(mass=self.mass.sum(keepdims=True))
        key = np.ascontiguousarray(columns[:, varying])
        whole = key.view(np.dtype((np.void, key.itemsize * key.shape[1])))[:, 0]
        _, first, label = np.unique(whole, return_index=True, return_inverse=True)
        if len(first) > STATE_LIMIT:
            raise InputError(
                f"{len(first)} states are undecided at once, at most {STATE_LIMIT} are followed; "
                "lower the budget or give fewer classes"
            )
        mass = np.bincount(label, weights=self.mass)
        return _Frontier(self.states[first], ids[first], self.counts[first], mass)


class _Stepper:
    """A rule's own update on many states at once, as rows of 32-bit words.

    A state may hold hundreds of counters of which two classes move two. Only columns that differ
    from the initial state are carried; whenever another one moves it is taken up and the step
    repeated, so nothing is lost.
    """

    def __init__(self, rule: StoppingRule) -> None:
        leaves, self._shape = jax.tree.flatten(rule.init())
        self._leaves = [jnp.asarray(leaf) for leaf in leaves]
        self._rule = rule
        self._initial = self._pack(self._leaves)
        self._active = np.zeros(_COLUMNS, int)
        # Compiling takes longer than running: leave the expensive optimisations out.
        self._step = jax.jit(self._advance, compiler_options=QUICK_COMPILE)

    def start(self, classes: int) -> _Frontier:
        states = np.asarray(self._initial)[None, self._active]
        ids = np.full((1, classes), -1, np.int32)
        return _Frontier(states, ids, np.zeros((1, classes), np.int32), np.ones(1))

    def update(
        self, frontier: _Frontier, answers: Int[np.ndarray, "_"]
    ) -> tuple[_Frontier, Bool[np.ndarray, "_"], Int[np.ndarray, "_"]]:
        """The frontier after these answers, whether the rule stops, and what it returns."""
        size = _SMALLEST_BATCH
        while size < len(answers):
            size *= 4
        padded = np.minimum(np.arange(size), len(answers) - 1)
        while True:
            states, moved, decision = self._step(
                self._active, frontier.states[padded], answers[padded]
            )
            new = np.setdiff1d(np.flatnonzero(moved), self._active)
            if not len(new):
                break
            frontier = frontier._replace(states=self._take_up(frontier.states, new))
        kept = slice(len(answers))
        stop, answer_id = np.asarray(decision.stop)[kept], np.asarray(decision.answer_id)[kept]
        return frontier._replace(states=np.asarray(states)[kept]), stop, answer_id

    def _take_up(
        self, states: Int[np.ndarray, "states _"], new: Int[np.ndarray, "_"]
    ) -> Int[np.ndarray, "states _"]:
        """More columns, at their initial value so far; few widths, so that few are compiled."""
        known = np.unique(self._active)
        columns = np.concatenate([known, new])
        width = -(-len(columns) // _COLUMNS) * _COLUMNS
        columns = np.pad(columns, (0, width - len(columns)), mode="edge")
        wide = np.tile(np.asarray(self._initial)[columns], (len(states), 1))
        place = {column: i for i, column in enumerate(self._active.tolist())}
        wide[:, : len(known)] = states[:, [place[column] for column in known.tolist()]]
        self._active = columns
        return wide

    def _advance(
        self,
        active: Int[Array, "columns"],
        states: Int[Array, "states columns"],
        answers: Int[Array, "states"],
    ) -> tuple[Int[Array, "states columns"], Bool[Array, "words"], Decision]:
        def one(state: Int[Array, "columns"], answer: Int[Array, ""]) -> tuple[Any, Any, Decision]:
            whole = self._unpack(self._initial.at[active].set(state))
            seen = Observation(answer, jnp.float32(jnp.nan), jnp.float32(1))
            after, decision = self._rule.update(whole, seen)
            words = self._pack(jax.tree.leaves(after))
            return words[active], words != self._initial, decision

        after, moved, decision = jax.vmap(one)(states, answers)
        return after, moved.any(axis=0), decision

    @staticmethod
    def _pack(leaves: Sequence[Array]) -> Int[Array, "words"]:
        def words(leaf: Array) -> Array:
            if leaf.dtype == bool:
                return leaf.astype(jnp.int32).ravel()
            return jax.lax.bitcast_convert_type(leaf, jnp.int32).ravel()

        return jnp.concatenate([words(leaf) for leaf in leaves])

    def _unpack(self, words: Int[Array, "words"]) -> Any:
        leaves, at = [], 0
        for leaf in self._leaves:
            size = leaf.size * max(1, leaf.dtype.itemsize // 4)
            part, at = words[at : at + size], at + size
            if leaf.dtype == bool:
                leaves.append(part.astype(bool).reshape(leaf.shape))
            else:
                double = () if leaf.dtype.itemsize == 4 else (2,)
                part = part.reshape(leaf.shape + double)
                leaves.append(jax.lax.bitcast_convert_type(part, leaf.dtype))
        return jax.tree.unflatten(self._shape, leaves)


def _require_rates(rates: Sequence[float]) -> None:
    if not rates:
        raise InputError("rates is empty; give the chance of the right answer first")
    require("rates", np.array(rates), lambda x: (x >= 0) & (x <= 1), "give chances in [0, 1]")
    require("the sum of rates", sum(rates), lambda x: x <= 1 + 1e-9, "it is 1 at most")
