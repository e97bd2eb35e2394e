"""inspect_ai: a solver that revises by a rule, a scorer of every answer, and early stopping.

    Task(
        dataset=...,
        solver=revise(rule="until_repeated", rounds=3),
        scorer=each_answer(match()),
        early_stopping=SettledStopping(margin=0.02),
    )

What each round answered and cost is in the sample's store, and its scores in the metadata of the
score, from where `msjax.read` takes them.
"""

from __future__ import annotations

import math
from typing import Any

from msjax.data.messages import Completion, Message
from msjax.data.usage import Usage
from msjax.decision.monitor import PromiseMonitor
from msjax.errors import InputError, require_extra
from msjax.llm.answers import jitted
from msjax.llm.live_rule import rule_without_pilot
from msjax.llm.revise import REVISE, deliberate
from msjax.rules.protocol import StoppingRule
from msjax.tasks.prompts import Template
from msjax.tasks.scorers import Scorer as Reads
from msjax.tasks.scorers import find_scorer

require_extra("inspect", "inspect_ai")

from inspect_ai.model import (  # noqa: E402
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ModelOutput,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer, stderr  # noqa: E402
from inspect_ai.solver import Generate, Solver, TaskState, solver  # noqa: E402
from inspect_ai.util import EarlyStop  # noqa: E402

__all__ = ["SettledStopping", "each_answer", "revise"]

STORE = "msjax"
"""Where the sample's store and the score's metadata hold what each answer was."""
_RIGHT = {"C": True, "I": False}


@solver
def revise(
    rule: str | StoppingRule = "until_repeated",
    rounds: int = 3,
    *,
    samples: int | None = None,
    template: Template = REVISE,
    scorer: str | Reads = "math",
    ahead: int = 1,
) -> Solver:
    """Answers, and revises or samples again until the rule stops; the output is what it returns.

    Args:
        rule: the name of a rule that learns nothing from labels, or any `StoppingRule`.
        rounds: most revisions after the first answer.
        samples: ask for at most so many independent samples instead.
        template: how a revision is asked for.
        scorer: reads answers, for the rule: msjax's, not that of the task.
        ahead: samples in flight at a time.
    """
    budget = rounds + 1 if samples is None else samples
    if isinstance(rule, str):
        kind = "rounds" if samples is None else "samples"
        rule = rule_without_pilot(rule, budget, kind).rule
    stepped, reads = jitted(rule), find_scorer(scorer)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        model = get_model()
        opening: list[Any] = [{"role": m.role, "content": m.text} for m in state.messages]
        original = {id(said): m for said, m in zip(opening, state.messages, strict=True)}
        outputs: list[ModelOutput] = []

        async def ask(messages: list[Message], number: int) -> Completion:
            output = await model.generate([original.get(id(m)) or _chat(m) for m in messages])
            outputs.append(output)
            return _completion(output)

        found = await deliberate(
            ask,
            opening,
            stepped,
            budget=budget,
            template=template,
            scorer=reads,
            parallel=samples is not None,
            ahead=ahead,
        )
        state.store.set(
            STORE,
            {
                "answers": list(found.answers),
                "completions": [one.text for one in found.completions],
                "tokens": [one.model_dump() for one in found.usages],
                "returned": found.returned,
                "stop_reason": found.stop_reason,
                "protocol": "sequential" if samples is None else "parallel",
            },
        )
        chosen = next(x for x in outputs if _completion(x) == found.completions[found.returned])
        state.output = chosen
        state.messages.append(chosen.message)
        return state

    return solve


@scorer(metrics=[accuracy(), stderr()])
def each_answer(by: Scorer) -> Scorer:
    """The score of what was returned, with that of every answer of `revise` in its metadata.

    Args:
        by: the task's own scorer.
    """

    async def score(state: TaskState, target: Target) -> Score | None:
        known = state.store.get(STORE)
        returned = await by(state, target)
        if known is None or returned is None:
            return returned
        output, values = state.output, []
        for k, text in enumerate(known["completions"]):
            if k == known["returned"]:
                values.append(returned.value)
                continue
            state.output = ModelOutput.from_content(str(state.model), text)
            found = await by(state, target)
            values.append(None if found is None else found.value)
        state.output = output
        metadata = {**(returned.metadata or {}), STORE: {**known, "scores": values}}
        return returned.model_copy(update={"metadata": metadata})

    return score


class SettledStopping:
    """Ends an evaluation once it is settled whether the policy is better or worse than another.

    Of every question it takes whether the answer that the policy returned is right, less whether
    the first answer (or the last one) is, and bets against "not better by more than the margin" and
    against "not worse by more than the margin" (docs/theory.md G2). Either is given up wrongly with
    probability at most `false_alarm`, however often one looks. A difference within the margin
    settles nothing, and all questions are asked. This is another end than a narrow interval, which
    may come long after or before the decision.

    Questions count in the order of the data set, whatever is finished first, since what is finished
    first is as a rule easier. One that 200 later ones have overtaken has failed and is skipped. Of
    several epochs the first counts.

    Args:
        margin: a difference up to this is of no interest, in (0, 1).
        against: "first" or "last" answer.
        false_alarm: probability of a wrong end, for better and for worse each, in (0, 1).
    """

    def __init__(
        self, margin: float = 0.02, *, against: str = "first", false_alarm: float = 0.05
    ) -> None:
        if against not in ("first", "last"):
            raise InputError(f"against is {against!r}; compare with the first or the last answer")
        self._against = 0 if against == "first" else -1
        self._worse = PromiseMonitor(margin, false_alarm=false_alarm)
        self._better = PromiseMonitor(margin, false_alarm=false_alarm)
        self._place: dict[str | int, int] = {}
        self._waiting: dict[int, float | None] = {}
        self._next = self._skipped = self._stopped = 0

    @property
    def verdict(self) -> str | None:
        """What is settled, better or worse; None before."""
        if self._better.broken or self._worse.broken:
            return "better" if self._better.broken else "worse"
        return None

    async def start_task(self, task: Any, samples: list[Any], epochs: int) -> str:
        """Takes the order of the questions."""
        self._place = {one.id: place for place, one in enumerate(samples)}
        return "msjax"

    async def schedule_sample(self, id: str | int, epoch: int) -> EarlyStop | None:
        """Leaves a question out once all is settled."""
        if self.verdict is None:
            return None
        self._stopped += 1
        return EarlyStop(id=id, epoch=epoch, reason=f"settled: {self.verdict}")

    async def complete_sample(self, id: str | int, epoch: int, scores: dict[str, Any]) -> None:
        """Counts a question."""
        place = self._place[id]
        if epoch != 1 or place < self._next:
            return
        self._waiting[place] = next(
            (d for one in scores.values() if (d := self._difference(one.score)) is not None), None
        )
        while self._next in self._waiting or len(self._waiting) >= _OVERTAKEN:
            difference = self._waiting.pop(self._next, None)
            self._next += 1
            if difference is None:
                self._skipped += 1
            else:
                self._worse.add(difference)
                self._better.add(-difference)

    async def complete_task(self) -> dict[str, Any]:
        """What was found."""
        mean = self._worse.mean
        return {
            "verdict": self.verdict,
            "questions": self._worse.questions,
            "skipped": self._skipped,
            "left_out": self._stopped,
            "mean_difference": None if math.isnan(mean) else mean,
            "evidence_better": self._better.evidence,
            "evidence_worse": self._worse.evidence,
        }

    def _difference(self, score: Score) -> float | None:
        """None where the score is not of `each_answer`, or not all of it is right or wrong."""
        known = (score.metadata or {}).get(STORE)
        if known is None:
            return None
        found = [label(value) for value in known["scores"]]
        one, other = found[known["returned"]], found[self._against]
        return None if one is None or other is None else float(one) - float(other)


_OVERTAKEN = 200


def label(value: Any) -> bool | None:
    """Whether a score says right or wrong; None for anything else."""
    if isinstance(value, str):
        return _RIGHT.get(value)
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def _chat(message: Message) -> Any:
    kinds = {
        "user": ChatMessageUser,
        "assistant": ChatMessageAssistant,
        "system": ChatMessageSystem,
    }
    return kinds[message["role"]](content=message["content"])


def _completion(output: ModelOutput) -> Completion:
    usage = output.usage
    account = Usage()
    if usage is not None and usage.total_tokens:
        cached = usage.input_tokens_cache_read
        account = Usage(
            prompt=usage.input_tokens + (cached or 0) + (usage.input_tokens_cache_write or 0),
            cached=cached,
            completion=usage.output_tokens,
        )
    reason = output.stop_reason
    return Completion(
        output.completion, math.nan, math.nan, reason == "stop", account, finish=str(reason)
    )
