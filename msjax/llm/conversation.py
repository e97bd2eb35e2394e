"""The loop: ask, grade, let the rule decide, ask to revise or once more, until it says stop."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import numpy as np

from msjax.data.messages import Completion, Message, Score
from msjax.data.trajectory import Trajectory
from msjax.data.usage import uncached_tokens
from msjax.llm.answers import Answers
from msjax.llm.engine import Conversation, Turn
from msjax.llm.judge import ITSELF, Itself, Judge, Verdict, combined, judge_messages, read_verdict
from msjax.llm.scores import Scorer, token_logprob
from msjax.rules.protocol import StoppingRule
from msjax.tasks.registry import Question, Task


def question_key(seed: int, name: str) -> jax.Array:
    """The random key of one question: it depends on nothing else, so neither batch nor restart
    changes what is sampled. Round r, or sample r, uses fold_in(key, r).

    Args:
        seed: of all sampling.
        name: "benchmark/question_id", and for samples "benchmark/question_id/parallel", so that
            they are independent of the rounds.
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def _as_if_unbroken(completion: Completion, before: Completion) -> Completion:
    """With the tokens as cached that the turns before had computed, all but the last drawn."""
    prompt, answer = before.usage.prompt, before.usage.completion
    if prompt is None or answer is None or completion.usage.prompt is None:
        return completion
    cached = min(prompt + answer - 1, completion.usage.prompt)
    return replace(completion, usage=completion.usage.model_copy(update={"cached": cached}))


def refine(
    benchmark: Task,
    question: Question,
    rule: StoppingRule,
    *,
    model: str,
    seed: int,
    rounds: int,
    settings: dict[str, str | int | float | None],
    finish: Callable[[Trajectory], None],
    score: Scorer | None = token_logprob,
    parallel: bool = False,
    audit: bool = False,
    given: Sequence[Completion] = (),
    judged: Sequence[Verdict] = (),
    judge: Judge | None = None,
    longer: bool = False,
) -> Conversation:
    """One question's conversation, for `Engine.converse`; its trajectory goes to `finish`.

    Args:
        benchmark: the prompts.
        question: one of `benchmark`.
        rule: decides after every answer and never sees a label; best with a jitted `update`.
        model: name of the model, for the record.
        seed: of all sampling.
        rounds: most refinement rounds, or samples after the first (the budget).
        settings: recorded with the trajectory.
        finish: called once, when the question stops.
        score: scores each answer, for the rule and for the record; None: the log-odds that its
            judge gives.
        parallel: whether the same is asked anew each time, for independent samples, instead of a
            revision. A sample is begun when the rule has seen the one before.
        audit: whether to go on to the end of the budget when the rule has stopped, so that what it
            returned can be compared with everything.
        given: completions that the first turns got before, such as those of a shorter run, which
            are not asked for again. What follows is accounted as if there had been no break.
        judged: verdicts on these, whose tokens are in their accounts; a judge is asked of others.
        judge: says whether each answer is accepted, for the rule and for the record. The model
            itself is asked in a conversation of its own, and goes on with this one as if it had not
            been.
        longer: whether answers have a larger limit of tokens than those they are compared with.
    """
    name = f"{question.benchmark}/{question.id}{'/parallel' if parallel else ''}"
    key = question_key(seed, name)
    so_far = Answers(rule, rounds + 1, audit=audit)
    correct: list[bool] = []
    held: list[tuple[bool, str | None]] = []
    verdicts: list[Verdict] = []
    votes_on: list[tuple[bool | None, ...]] = []

    def grade(completion: Completion) -> tuple[bool, str | None]:
        """Whether what was read is right, whatever came before, and its spelling."""
        answer = benchmark.read(completion, () if parallel else so_far.answers, question)
        spelling = benchmark.spelled_as(answer, so_far.answers, question)
        return question.verify(answer), spelling

    def score_and_grade(completion: Completion) -> Score:
        # Engines score answers in parallel, and comparing formulas may take seconds as well.
        held[:] = [grade(completion)]
        if callable(judge):
            verdicts[:] = [judge(question, completion)]
        if score is None:
            return Score(verdicts[0].log_odds if verdicts else np.nan)
        return score(question, completion)

    itself = Itself() if judge == ITSELF else judge if isinstance(judge, Itself) else None
    messages = benchmark.conversation(question)
    alone = parallel or benchmark.new_conversation or rounds == 0
    said: list[Message] = []
    before: Completion | None = None
    while True:
        asked = len(correct)
        if asked < len(given):
            completion: Completion | None = given[asked]
            assert completion is not None
        else:
            broken = itself is not None or asked == len(given)
            resumed = before is not None and broken and not alone
            completion = yield Turn(
                [*said, *messages] if resumed else messages,
                jax.random.fold_in(key, asked),
                alone or resumed,
                score_and_grade,
            )
            assert completion is not None
            if before is not None and resumed and not completion.unasked:
                completion = _as_if_unbroken(completion, before)
        said += [*messages, {"role": "assistant", "content": completion.text}]
        before = completion
        right, answer = held.pop() if held else grade(completion)
        correct.append(right)
        verdict = verdicts.pop() if verdicts else Verdict(None)
        if asked < min(len(given), len(judged)):
            verdict = judged[asked]
        elif itself is not None and not completion.unasked:
            votes = []
            for vote in range(itself.votes):
                reply = yield Turn(
                    judge_messages(question, completion, itself.prompt),
                    jax.random.fold_in(jax.random.fold_in(key, asked), 1 + vote),
                    new_conversation=True,
                )
                assert reply is not None
                tokens = uncached_tokens([reply.usage])
                votes.append(
                    Verdict(
                        None if reply.unasked else read_verdict(reply.text),
                        None if np.isnan(tokens) else int(tokens),
                        log_odds=reply.log_odds,
                    )
                )
            verdict = combined(votes, itself.threshold)
            if score is None:
                completion = replace(completion, score=Score(verdict.log_odds))
        elif callable(judge) and asked < len(given):
            verdict = judge(question, completion)
        so_far.add(completion, answer, verdict.accepted, verdict.tokens)
        votes_on.append(verdict.votes)
        if so_far.over:
            break
        if not parallel:
            messages = benchmark.revision(question, so_far.answers[-1])
    finish(
        Trajectory(
            model=model,
            benchmark=question.benchmark,
            question_id=question.id,
            protocol="longer" if longer else "parallel" if parallel else "sequential",
            question=question.text,
            gold=question.gold,
            answers=tuple(so_far.answers),
            correct=tuple(correct),
            scores=tuple(None if np.isnan(s) else s for s in so_far.scores),
            verdicts=tuple(so_far.verdicts),
            votes=tuple(votes_on),
            tokens=tuple(so_far.usages),
            completions=tuple(one.text for one in so_far.completions),
            finish=tuple(one.finish for one in so_far.completions),
            stop_reason="rule" if so_far.stopped and not audit else "budget",
            censored=False,
            key=f"{seed}/{name}",
            settings=settings,
            returned=so_far.returned,
        )
    )
