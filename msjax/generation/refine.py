"""The loop: ask, grade, let the rule decide, ask to revise, until rule or budget says stop."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from msjax.answers import answer_ids
from msjax.errors import InputError
from msjax.generation.engine import Completion, Engine
from msjax.generation.scores import Scorer, token_logprob
from msjax.generation.tasks import Benchmark, Question
from msjax.records import StopReason, Trajectory
from msjax.stopping.protocol import Observation, StoppingRule


@dataclass
class _Chain:
    """One question under way."""

    question: Question
    key: jax.Array
    completions: list[Completion] = field(default_factory=list)
    answers: list[str | None] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    stop_reason: StopReason | None = None

    def record(self, benchmark: Benchmark, score: Scorer, completion: Completion) -> None:
        answer = benchmark.read(completion, self.answers)
        self.completions.append(completion)
        self.answers.append(answer)
        self.correct.append(self.question.verify(answer))
        self.scores.append(score(completion))


def question_key(seed: int, benchmark: str, question_id: str) -> jax.Array:
    """The random key of one question: it depends on nothing else, so neither batch nor restart
    changes what is sampled. Round r uses fold_in(key, r).
    """
    name = zlib.crc32(f"{benchmark}/{question_id}".encode())
    return jax.random.fold_in(jax.random.key(seed), name)


def refine(
    engine: Engine,
    benchmark: Benchmark,
    questions: Sequence[Question],
    rule: StoppingRule,
    *,
    seed: int,
    rounds: int,
    settings: dict[str, str | int | float | None],
    finish: Callable[[Trajectory], None],
    score: Scorer = token_logprob,
) -> None:
    """Refine the questions of one batch, handing each trajectory to `finish` once it has stopped.

    Args:
        engine: who answers.
        benchmark: the prompts.
        questions: all of `benchmark`; they advance together.
        rule: decides per question, never sees a label; it is vmapped and jitted.
        seed: of all sampling.
        rounds: most refinement rounds per question (the budget).
        settings: recorded with every trajectory.
        finish: called as soon as a question stops, in the order in which they stop.
        score: scores each answer, for the rule and for the record.

    Raises:
        InputError: rounds is negative.
    """
    if rounds < 0:
        raise InputError(f"rounds = {rounds}: must be 0 or more")
    chains = [_Chain(q, question_key(seed, q.benchmark, q.id)) for q in questions]
    update = jax.jit(jax.vmap(rule.update))
    state = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(chains)), rule.init())
    session = engine.start([benchmark.conversation(question) for question in questions])
    for round_ in range(rounds + 1):
        keys = [None if c.stop_reason else jax.random.fold_in(c.key, round_) for c in chains]
        for chain, completion in zip(chains, session.complete(keys), strict=True):
            if completion is not None:
                chain.record(benchmark, score, completion)
        state, decision = update(state, _observe(chains))
        says = zip(np.asarray(decision.stop), np.asarray(decision.answer_id), strict=True)
        for chain, (stop, answer_id) in zip(chains, says, strict=True):
            if not chain.stop_reason and (stop or round_ == rounds):
                chain.stop_reason = "rule" if stop else "budget"
                finish(_trajectory(chain, int(answer_id), engine.name, seed, settings))
        if all(chain.stop_reason for chain in chains):
            break
        session.extend(
            [
                None if c.stop_reason else benchmark.revision(c.question, c.answers[-1])
                for c in chains
            ]
        )


def returned_round(answers: Sequence[str | None], answer_id: int) -> int:
    """The latest round that gave answer number `answer_id`; the last one if none did."""
    ids = answer_ids(answers)
    last = len(ids) - 1
    return last - ids[::-1].index(answer_id) if answer_id in ids else last


def _observe(chains: Sequence[_Chain]) -> Observation:
    """The latest answer of every question; finished ones repeat theirs, which nobody reads."""
    return Observation(
        answer_id=jnp.asarray([answer_ids(c.answers)[-1] for c in chains], jnp.int32),
        score=jnp.asarray([c.scores[-1] for c in chains], jnp.float32),
        tokens=jnp.asarray([c.completions[-1].usage.computed for c in chains], jnp.float32),
    )


def _trajectory(
    chain: _Chain,
    answer_id: int,
    model: str,
    seed: int,
    settings: dict[str, str | int | float | None],
) -> Trajectory:
    assert chain.stop_reason is not None
    return Trajectory(
        model=model,
        benchmark=chain.question.benchmark,
        question_id=chain.question.id,
        protocol="sequential",
        question=chain.question.text,
        gold=chain.question.gold,
        answers=tuple(chain.answers),
        correct=tuple(chain.correct),
        scores=tuple(None if np.isnan(s) else s for s in chain.scores),
        tokens=tuple(c.usage for c in chain.completions),
        completions=tuple(c.text for c in chain.completions),
        stop_reason=chain.stop_reason,
        censored=False,
        key=f"{seed}/{chain.question.benchmark}/{chain.question.id}",
        settings=settings,
        returned=returned_round(chain.answers, answer_id),
    )
