"""Labels without labels: rollouts of a question vote until a stopping rule is content."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from msjax.data.messages import REFUSED
from msjax.data.runs import answer_ids
from msjax.errors import InputError
from msjax.llm.flax.chat import Chat
from msjax.rules.protocol import Observation, StoppingRule, restopped, run_rule_on_each
from msjax.tasks.benchmark import Question, Task
from msjax.train.ttrl.rollouts import Prompt, Rollouts, Sampler, joined, pad_prompt

__all__ = ["ChatTask", "Vote", "Voting", "rollout_keys", "vote_on"]


@dataclass(frozen=True)
class ChatTask:
    """How questions become prompts, and completions answers.

    Attributes:
        benchmark: whose prompts are used and whose extraction.
        chat: of the model.
    """

    benchmark: Task
    chat: Chat

    def prompt(self, question: Question) -> Prompt:
        """Tokens of the conversation that asks a question."""
        return pad_prompt(self.chat.begin(self.benchmark.conversation(question), alone=True).ids)

    def answers(self, rollouts: Rollouts) -> list[str | None]:
        """The answer of each completion; equal answers are equal strings."""
        known: dict[tuple[tuple[int, ...], bool], str | None] = {}
        found = []
        for tokens, count, ended in zip(*rollouts, strict=True):
            written = tuple(tokens[: count - ended].tolist()), bool(ended)
            if written not in known:
                known[written] = self._read(*written, tuple(known.values()))
            found.append(known[written])
        return found

    def _read(
        self, tokens: tuple[int, ...], ended: bool, earlier: tuple[str | None, ...]
    ) -> str | None:
        completion = replace(
            REFUSED, text=self.chat.text(tokens), finished=ended, thinking=self.chat.thinking
        )
        return self.benchmark.spelled_as(self.benchmark.read(completion), earlier)


class Vote(NamedTuple):
    """The votes of one question.

    Attributes:
        rollouts: all that were sampled.
        answers: one per rollout, None where it has none.
        label: the answer that leads; None if no answer was given twice.
    """

    rollouts: Rollouts
    answers: list[str | None]
    label: str | None

    def rewards(self, n_train_rollouts: int) -> Float[np.ndarray, " retained"]:
        """1 for each of the first rollouts that agrees with the label, else 0.

        Raises:
            InputError: there is no label.
        """
        if self.label is None:
            raise InputError("label is None; a question without consensus has no rewards")
        return np.array(
            [answer == self.label for answer in self.answers[:n_train_rollouts]], np.float32
        )


class Voting:
    """When the votes of a question are enough.

    The rule is consulted after the first `n_train_rollouts` and then after every `block`, with all
    that were paid for; so a rollout that is sampled always has its vote.

    Args:
        rule: stopping rule for at most `budget` answers.
        budget: M, the most rollouts.
        n_train_rollouts: N, the rollouts that are sampled in any case and kept for the update.
        block: rollouts sampled between two looks.

    Raises:
        InputError: not 2 <= n_train_rollouts <= budget, or a block < 1.
    """

    def __init__(self, rule: StoppingRule, *, budget: int, n_train_rollouts: int, block: int):
        if not 2 <= n_train_rollouts <= budget:
            raise InputError(
                f"n_train_rollouts is {n_train_rollouts} and budget {budget}; keep at least 2 "
                "rollouts for the update and at most the budget"
            )
        if block < 1:
            raise InputError(f"block is {block}; sample at least 1 rollout between two looks")
        self.budget, self.n_train_rollouts, self.block = budget, n_train_rollouts, block

        def consulted(n_used: Int[Array, ""], stop: Bool[Array, ""]) -> Bool[Array, ""]:
            return stop & (n_used >= n_train_rollouts) & ((n_used - n_train_rollouts) % block == 0)

        self._rule = restopped(rule, consulted)

    def sizes(self) -> list[int]:
        """Rollouts of each block, if the rule never stops before the budget."""
        rest = self.budget - self.n_train_rollouts
        whole, last = divmod(rest, self.block)
        return [self.n_train_rollouts, *[self.block] * whole, *[last] * (last > 0)]

    def decide(self, answers: list[str | None]) -> tuple[bool, str | None]:
        """Whether to stop, and the leading answer, None if no answer was given twice."""
        ids = answer_ids(answers)
        padded = np.full((1, self.budget), -1, np.int32)
        padded[0, : len(ids)] = ids
        seen = Observation(jax.numpy.asarray(padded))
        ran = jax.device_get(run_rule_on_each(self._rule, seen, np.array([len(ids)])))
        leader = ran.answer_id[0]
        agreed = leader >= 0 and ids.count(leader) > 1
        stop = not ran.hit_budget[0] or len(ids) == self.budget
        return stop, answers[ids.index(leader)] if agreed else None


def vote_on(task: ChatTask, sampler: Sampler, voting: Voting, key: Key[Array, ""]) -> Vote:
    """Samples rollouts of one question until the rule stops or the budget is spent.

    Rollout i is sampled with ``fold_in(key, i)``, so the first rollouts do not depend on the rule.

    Args:
        task: how completions are read.
        sampler: of the question's completions.
        voting: when votes are enough.
        key: of this question.
    """
    blocks: list[Rollouts] = []
    answers: list[str | None] = []
    label = None
    for size in voting.sizes():
        blocks.append(sampler.sample(rollout_keys(key, len(answers), size)))
        answers = task.answers(joined(blocks))
        stop, label = voting.decide(answers)
        if stop:
            break
    return Vote(joined(blocks), answers, label)


def rollout_keys(key: Key[Array, ""], start: int, count: int) -> Key[Array, " count"]:
    """Keys of rollouts start, start + 1, ..., of a question."""
    return _folded(key, np.arange(start, start + count))


_folded = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))
