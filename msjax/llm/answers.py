"""The answers of one question so far, and what a rule says of them."""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from msjax.data.messages import Completion
from msjax.data.runs import answer_ids
from msjax.data.trajectory import MOST_SCORE
from msjax.data.usage import Usage, uncached_tokens
from msjax.rules.protocol import Decision, Observation, State, StoppingRule

__all__ = ["Answers", "jitted", "returned_round"]

_REMEMBERED = 4096
"""Histories of answers and verdicts whose decisions a compiled rule keeps."""


class Answers:
    """One question on its way: every answer is shown to the rule, which says whether to go on.

    Args:
        rule: decides after every answer and never sees a label; best with a jitted `update`.
        budget: the most answers.
        audit: whether to go on to the budget when the rule has stopped, so that what it returned
            can be compared with everything.

    Attributes:
        completions: as they came.
        answers: what was read from each, None for none; equal answers are spelled alike.
        verdicts: whether a judge accepted each, None where it was not asked.
        scores: of each, NaN where there is none.
        usages: what each cost, with what scoring and judging it read.
        stopped: whether the rule said stop.
        belief: P(the answer it returns is right) as the rule sees it; NaN when it holds no belief.
    """

    def __init__(self, rule: StoppingRule, budget: int, *, audit: bool = False) -> None:
        self._rule, self._budget, self._audit = rule, budget, audit
        self._state = rule.init()
        self._returned = 0
        self._numbers: dict[str, int] = {}
        self._latest: dict[int, int] = {}
        self.completions: list[Completion] = []
        self.answers: list[str | None] = []
        self.verdicts: list[bool | None] = []
        self.scores: list[float] = []
        self.usages: list[Usage] = []
        self.stopped = False
        self.belief = float("nan")

    def add(
        self,
        completion: Completion,
        answer: str | None,
        verdict: bool | None = None,
        judge_tokens: int | None = 0,
    ) -> None:
        """One more answer.

        Args:
            completion: with its score.
            answer: what was read from it, in the spelling of an equal one before it.
            verdict: of a judge, None if it was not asked or does not say.
            judge_tokens: what the judge read and wrote; None if that is not reported.
        """
        self.completions.append(completion)
        self.answers.append(answer)
        self.verdicts.append(verdict)
        value = completion.score.value
        self.scores.append(value if abs(value) <= MOST_SCORE else math.nan)
        known = completion.score.tokens is not None and judge_tokens is not None
        verifier = (completion.score.tokens or 0) + (judge_tokens or 0) if known else None
        self.usages.append(completion.usage.model_copy(update={"verifier": verifier}))
        number = -1 if answer is None else self._numbers.setdefault(answer, len(self._numbers))
        last = len(self.answers) - 1
        self._latest[number] = last
        if self.stopped:
            return
        shown: tuple[Any, ...] = (
            np.int32(number),
            np.float32(self.scores[-1]),
            np.float32(uncached_tokens(self.usages[-1:])),
            np.int32(-1 if verdict is None else verdict),
        )
        self._state, decision = self._rule.update(self._state, Observation(*shown))
        self.stopped = bool(decision.stop)
        self.belief = float(decision.belief)
        self._returned = self._latest.get(int(decision.answer_id), last)

    @property
    def over(self) -> bool:
        """Whether no more is asked."""
        return (self.stopped and not self._audit) or len(self.answers) >= self._budget

    @property
    def returned(self) -> int:
        """Position of the answer that the rule returns."""
        return self._returned


def returned_round(answers: Sequence[str | None], answer_id: int) -> int:
    """The latest round that gave answer number `answer_id`; the last one if none did."""
    ids = answer_ids(answers)
    last = len(ids) - 1
    return last - ids[::-1].index(answer_id) if answer_id in ids else last


class _Reached:
    """Where a history of answers and verdicts has brought a rule, and what may follow."""

    __slots__ = ("after", "state")

    def __init__(self, state: State) -> None:
        self.state = state
        self.after: dict[tuple[int, int], tuple[_Reached, Decision]] = {}


@lru_cache(maxsize=256)
def jitted(rule: StoppingRule) -> StoppingRule:
    """The rule compiled, for one decision at a time; asked for again it compiles nothing.

    Its decisions are plain numbers. After the same answers and verdicts a rule that looks at
    nothing else decides alike, so that is computed once and then looked up.
    """
    begun = _Reached(rule.init())
    remembers = _looks_at_answers_and_verdicts_alone(rule, begun.state)
    computed = count()

    @jax.jit
    def packed(state: State, seen: Float[Array, "4"]) -> tuple[State, Float[Array, "3"]]:
        answer_id, score, tokens, verdict = seen
        whole = answer_id.astype(jnp.int32), score, tokens, verdict.astype(jnp.int32)
        state, says = rule.update(state, Observation(*whole))
        return state, jnp.stack([jnp.float32(x) for x in says])

    def update(before: _Reached, seen: Observation) -> tuple[_Reached, Decision]:
        history: Any = seen.answer_id, seen.verdict
        known = before.after.get(history)
        if known is not None:
            return known
        state, says = packed(before.state, np.array(seen, np.float32))
        stop, answer_id, belief = np.asarray(says).tolist()
        found = _Reached(state), Decision(stop > 0, answer_id, belief)
        if remembers and next(computed) < _REMEMBERED:
            before.after[history] = found
        return found

    return StoppingRule(lambda: begun, update)


def _looks_at_answers_and_verdicts_alone(rule: StoppingRule, begun: State) -> bool:
    """Whether nothing that is computed depends on scores or tokens."""
    shown = Observation(jnp.int32(0), jnp.float32(0), jnp.float32(0), jnp.int32(0))
    program = jax.make_jaxpr(rule.update)(begun, shown).jaxpr
    _, score, tokens, _ = program.invars[-4:]
    used = [x for equation in program.eqns for x in equation.invars] + program.outvars
    return not any(x is score or x is tokens for x in used)
