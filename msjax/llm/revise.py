"""Ask any model through a function of one's own, revise or sample until a rule stops.

async def ask(messages):
reply = await client.chat.completions.create(model="Qwen3-8B", messages=messages)
return reply.choices[0].message.content, reply.usage

found = await msjax.revise(ask, "What is 17 * 23?", "until_repeated", rounds=3)
found.text, found.answer, found.usage
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msjax.data.messages import Completion, Message, Score, asked
from msjax.data.usage import Usage, total
from msjax.errors import InputError
from msjax.llm.answers import Answers, jitted
from msjax.llm.concurrency import to_thread
from msjax.llm.judge import as_verdict
from msjax.llm.live_rule import rule_without_pilot
from msjax.llm.replies import read_usage
from msjax.rules.protocol import StoppingRule
from msjax.tasks.prompts import NO_ANSWER, Template
from msjax.tasks.scorers import Scorer, find_scorer

__all__ = [
    "REVISE",
    "Ask",
    "Judge",
    "Revised",
    "UnansweredError",
    "deliberate",
    "last_text",
    "revise",
]

REVISE = Template(
    first_prompt="{question}",
    revise_prompt=(
        "Reconsider your answer. Keep it if it holds, replace it if it does not, and give the "
        "whole answer again in the form that was asked for."
    ),
)
"""How a revision is asked for where nothing is known of the question."""

Ask = Callable[[list[Message]], Awaitable[Any]]
"""Answers messages: with a text, a text and its account, or a `Completion`."""
Judge = Callable[[list[Message], str], Awaitable[Any]]
"""Says of messages and the text that answers them whether that is accepted: True, False or None, or
a pair of this and the account of the judge."""


class UnansweredError(Exception):
    """An answer could not be had; what was answered before it still counts."""


@dataclass(frozen=True)
class Revised:
    """What came of one question.

    Attributes:
        text: of the answer that the rule returns.
        answer: what was read from it, None for nothing.
        returned: its position among the answers.
        completions: all that the rule saw, in order.
        answers: what was read from each.
        verdicts: of the judge on each, None where it was not asked.
        scores: of each, None where there is none.
        usages: what each cost.
        stop_reason: "rule", "budget" of answers, or "failed" where a later one could not be had.
        belief: P(the answer is right) as the rule sees it, None where it holds no belief.
        surplus: samples that had arrived when the rule stopped and were not their turn yet.
        cancelled: samples that were given up on the way; what they cost is not known.
    """

    text: str
    answer: str | None
    returned: int
    completions: tuple[Completion, ...]
    answers: tuple[str | None, ...]
    verdicts: tuple[bool | None, ...]
    scores: tuple[float | None, ...]
    usages: tuple[Usage, ...]
    stop_reason: Literal["rule", "budget", "failed"]
    belief: float | None
    surplus: tuple[Completion, ...] = ()
    cancelled: int = 0

    @property
    def usage(self) -> Usage:
        """Sum over all calls, those whose answers came too late included."""
        return total([*self.usages, *(one.usage for one in self.surplus)])


async def revise(
    ask: Ask,
    question: str | Sequence[Message],
    rule: str | StoppingRule = "until_repeated",
    *,
    rounds: int = 3,
    samples: int | None = None,
    template: Template = REVISE,
    scorer: str | Scorer = "math",
    judge: Judge | None = None,
    ahead: int = 1,
) -> Revised:
    """The answer to a question that is revised, or sampled, until the rule stops.

    Whoever cancels this cancels the calls under way.

    Args:
        ask: answers messages; see `Ask`.
        question: its text, or a conversation that ends with a user message.
        rule: says after every answer whether to go on: the name of one that learns nothing from
            labels, or any `StoppingRule`, such as `msjax.decide(runs).rule`.
        rounds: most revisions after the first answer.
        samples: ask for at most so many independent samples instead.
        template: how a revision is asked for. Its first prompt asks a question that is a text;
            a conversation is sent as it is.
        scorer: reads answers and says which are equal; see `msjax.tasks.scorers.find_scorer`.
        judge: whether an answer is accepted, for rules that look at verdicts; see `Judge`.
        ahead: samples in flight at a time; the rule sees them in the order in which they were begun
            and the others are given up when it stops.

    Raises:
        InputError: no question, an unknown rule, one that needs labelled runs or a judge that is
            not there, or a number out of range.
    """
    budget = (rounds + 1) if samples is None else samples
    if budget < 1:
        what = f"rounds is {rounds}" if samples is None else f"samples is {samples}"
        raise InputError(f"{what}; ask for at least one answer")
    if ahead < 1:
        raise InputError(f"ahead is {ahead}; keep at least 1 sample in flight")
    if isinstance(rule, str):
        kind = "rounds" if samples is None else "samples"
        rule = rule_without_pilot(rule, budget, kind, judged=judge is not None).rule
    messages = (
        _opening(template, question) if isinstance(question, str) else [dict(m) for m in question]
    )
    if not messages or messages[-1].get("role") != "user":
        raise InputError("question must end with a user message")

    async def completion(said: list[Message], _: int) -> Completion:
        return _completion(await ask(said))

    return await deliberate(
        completion,
        messages,  # type: ignore[arg-type]
        jitted(rule),
        budget=budget,
        template=template,
        scorer=find_scorer(scorer),
        parallel=samples is not None,
        judge=judge,
        ahead=ahead,
    )


async def deliberate(
    ask: Callable[[list[Message], int], Awaitable[Completion]],
    messages: list[Message],
    rule: StoppingRule,
    *,
    budget: int,
    template: Template,
    scorer: Scorer,
    parallel: bool = False,
    score: Callable[[str, Completion], Score] | None = None,
    waits: bool = False,
    judge: Judge | None = None,
    ahead: int = 1,
) -> Revised:
    """`revise`, given the number of each answer, and scores.

    Args:
        ask: answers messages, for answer number 0, 1, ...; raises `UnansweredError` where what came
            before is to be returned.
        messages: what was said so far, a user message last.
        rule: with a jitted `update`.
        budget: the most answers.
        template: see `revise`.
        scorer: see `revise`.
        judge: see `revise`.
        ahead: see `revise`.
        parallel: whether answers are independent samples.
        score: scores an answer to a question.
        waits: whether scoring waits for another server.
    """
    so_far = Answers(rule, budget)
    question = last_text(messages)
    said = messages
    failed, cancelled = False, 0

    async def answer(number: int, said: list[Message]) -> Completion:
        nonlocal cancelled
        try:
            found = await ask(said, number)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        if score is None:
            return found
        scoring = (
            score(question, found) if not waits else await to_thread(lambda: score(question, found))
        )
        return dataclasses.replace(found, score=scoring)

    async def add(found: Completion) -> None:
        earlier = () if parallel else so_far.answers
        read = scorer.read(
            found.text, finished=found.finished, thinking=found.thinking, earlier=earlier
        ).answer
        verdict, tokens = (
            (None, 0) if judge is None else _verdict(await judge(messages, found.text))
        )
        so_far.add(found, scorer.spelled_as(read, so_far.answers), verdict, tokens)

    begun: deque[asyncio.Task[Completion]] = deque()
    try:
        number = 0
        while not so_far.over:
            while number < budget and len(begun) < (ahead if parallel else 1):
                begun.append(asyncio.create_task(answer(number, said)))
                number += 1
            try:
                await add(await begun[0])
            except UnansweredError:
                if not so_far.answers:
                    raise
                failed = True
                break
            finally:
                begun.popleft()
            if not parallel and not so_far.over:
                said = _revision(said, messages, so_far, template)
    finally:
        for task in begun:
            task.cancel()
        others = await asyncio.gather(*begun, return_exceptions=True)
    chosen = so_far.returned
    return Revised(
        text=so_far.completions[chosen].text,
        answer=so_far.answers[chosen],
        returned=chosen,
        completions=tuple(so_far.completions),
        answers=tuple(so_far.answers),
        verdicts=tuple(so_far.verdicts),
        scores=tuple(None if math.isnan(x) else x for x in so_far.scores),
        usages=tuple(so_far.usages),
        stop_reason="failed" if failed else "rule" if so_far.stopped else "budget",
        belief=None if math.isnan(so_far.belief) else so_far.belief,
        surplus=tuple(found for found in others if isinstance(found, Completion)),
        cancelled=cancelled,
    )


def _opening(template: Template, question: str) -> list[Any]:
    system = [{"role": "system", "content": template.system.format()}] if template.system else []
    return [*system, *asked(template.first_prompt.format(question=question))]


def _revision(
    said: list[Message], messages: list[Message], so_far: Answers, template: Template
) -> list[Message]:
    """What is said to have the last answer revised."""
    answer = so_far.answers[-1]
    shown = NO_ANSWER if answer is None else answer
    prompt = asked(template.revise_prompt.format(question=last_text(messages), answer=shown))
    if template.new_conversation:
        return [*messages[:-1], *prompt]
    return [*said, {"role": "assistant", "content": so_far.completions[-1].text}, *prompt]


def last_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last message, which may come in parts."""
    content = messages[-1].get("content")
    if isinstance(content, str):
        return content
    parts = [part.get("text", "") for part in content or () if isinstance(part, Mapping)]
    return "\n".join(part for part in parts if isinstance(part, str) and part)


def _completion(said: Any) -> Completion:
    if isinstance(said, Completion):
        return said
    text, usage = said if isinstance(said, tuple) and len(said) == 2 else (said, None)
    if not isinstance(text, str):
        raise InputError(
            f"ask returned {type(said).__name__}; return a text, or a text and its usage"
        )
    return Completion(text, math.nan, math.nan, True, _usage(usage, said=bool(text)))


def _usage(usage: Any, said: bool) -> Usage:
    if usage is None or isinstance(usage, Usage):
        return usage or Usage()
    if not isinstance(usage, Mapping):
        usage = usage.model_dump() if hasattr(usage, "model_dump") else vars(usage)
    return read_usage(usage, said=said)[0]


def _verdict(said: Any) -> tuple[bool | None, int | None]:
    """The verdict, and the tokens that it took; None where the judge reports none."""
    verdict, usage = said if isinstance(said, tuple) else (said, Usage(prompt=0, completion=0))
    return as_verdict(verdict, "judge"), _usage(usage, said=True).uncached
