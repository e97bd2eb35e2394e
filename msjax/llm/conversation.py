"""The loop: ask, grade, let the rule decide, ask to revise or once more, until it says stop."""

import zlib
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from msjax.data.messages import Completion
from msjax.data.runs import answer_ids
from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage, uncached_tokens
from msjax.llm.engine import Conversation, Turn
from msjax.llm.scores import Scorer, token_logprob
from msjax.rules.protocol import Observation, StoppingRule
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
    score: Scorer = token_logprob,
    parallel: bool = False,
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
        score: scores each answer, for the rule and for the record.
        parallel: whether the same is asked anew each time, for independent samples, instead of a
            revision. A sample is begun when the rule has seen the one before.
    """
    name = f"{question.benchmark}/{question.id}{'/parallel' if parallel else ''}"
    key = question_key(seed, name)
    completions: list[Completion] = []
    answers: list[str | None] = []
    correct: list[bool] = []
    scores: list[float] = []
    usages: list[Usage] = []
    state, messages = rule.init(), benchmark.conversation(question)
    for round_ in range(rounds + 1):
        turn_key = jax.random.fold_in(key, round_)
        completion = yield Turn(
            messages,
            turn_key,
            parallel or benchmark.afresh or rounds == 0,
            partial(score, question),
        )
        assert completion is not None
        answer = benchmark.read(completion, () if parallel else answers)
        completions.append(completion)
        answers.append(benchmark.spelled_as(answer, answers, question))
        correct.append(question.verify(answer))  # of what was read, whatever came before
        value = completion.score.value
        scores.append(value if np.isfinite(value) else np.nan)
        usages.append(completion.usage.model_copy(update={"verifier": completion.score.tokens}))
        seen = Observation(
            jnp.int32(answer_ids(answers)[-1]),
            jnp.float32(scores[-1]),
            jnp.float32(uncached_tokens(usages[-1:])),
        )
        state, decision = rule.update(state, seen)
        if decision.stop or round_ == rounds:
            break
        if not parallel:
            messages = benchmark.revision(question, answers[-1])
    finish(
        Trajectory(
            model=model,
            benchmark=question.benchmark,
            question_id=question.id,
            protocol="parallel" if parallel else "sequential",
            question=question.text,
            gold=question.gold,
            answers=tuple(answers),
            correct=tuple(correct),
            scores=tuple(None if np.isnan(s) else s for s in scores),
            tokens=tuple(usages),
            completions=tuple(one.text for one in completions),
            finish=tuple(one.finish for one in completions),
            stop_reason="rule" if decision.stop else "budget",
            censored=False,
            key=f"{seed}/{name}",
            settings=settings,
            returned=returned_round(answers, int(decision.answer_id)),
        )
    )


def returned_round(answers: Sequence[str | None], answer_id: int) -> int:
    """The latest round that gave answer number `answer_id`; the last one if none did."""
    ids = answer_ids(answers)
    last = len(ids) - 1
    return last - ids[::-1].index(answer_id) if answer_id in ids else last
