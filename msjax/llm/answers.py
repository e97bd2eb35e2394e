"""The answers of one question so far, and what a rule says of them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from msjax.data.messages import Completion
from msjax.data.runs import answer_ids
from msjax.data.usage import Usage, uncached_tokens
from msjax.rules.protocol import Observation, StoppingRule

__all__ = ["Answers", "jitted", "returned_round"]


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
        self.scores.append(value if np.isfinite(value) else np.nan)
        known = completion.score.tokens is not None and judge_tokens is not None
        verifier = (completion.score.tokens or 0) + (judge_tokens or 0) if known else None
        self.usages.append(completion.usage.model_copy(update={"verifier": verifier}))
        if self.stopped:
            return
        shown: tuple[Any, ...] = (  # of NumPy, which a compiled rule takes at once
            np.int32(answer_ids(self.answers)[-1]),
            np.float32(self.scores[-1]),
            np.float32(uncached_tokens(self.usages[-1:])),
            np.int32(-1 if verdict is None else verdict),
        )
        self._state, decided = self._rule.update(self._state, Observation(*shown))
        decision = jax.device_get(decided)
        self.stopped = bool(decision.stop)
        self.belief = float(decision.belief)
        self._returned = returned_round(self.answers, int(decision.answer_id))

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


@lru_cache(maxsize=256)
def jitted(rule: StoppingRule) -> StoppingRule:
    """The rule with a compiled `update`; asked for again it compiles nothing."""
    begun = rule.init()
    return StoppingRule(lambda: begun, jax.jit(rule.update))
