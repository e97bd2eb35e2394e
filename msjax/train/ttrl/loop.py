"""Test-time training without labels: vote, reward agreement, update, again.

Reference: OptPO (arXiv 2512.02882); TTRL (arXiv 2504.16084) votes a fixed number of times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Key, PyTree
from tqdm import tqdm

from msjax.errors import InputError
from msjax.llm.conversation import question_key
from msjax.llm.flax.decoder import Decoder
from msjax.tasks.benchmark import Question
from msjax.train.ttrl.checkpoints import Checkpoints
from msjax.train.ttrl.early_stopping import EarlyStopping, Step, stop_reason, trouble
from msjax.train.ttrl.held_out import HeldOut, held_out_accuracy
from msjax.train.ttrl.policy_losses import kl_estimate
from msjax.train.ttrl.pseudo_labels import ChatTask, Vote, Voting, vote_on
from msjax.train.ttrl.rollouts import Prompt, Sampler
from msjax.train.ttrl.run_log import RunLog, open_run_log
from msjax.train.ttrl.updates import Learner, Measured, Rewarded, State, Update

__all__ = ["FINISHED", "Outcome", "Schedule", "TestTimeTraining"]

FINISHED = "all epochs done"


@dataclass(frozen=True)
class Schedule:
    """What is asked, and how often.

    Attributes:
        epochs: passes over the questions.
        questions_per_step: questions that one update learns from together.
        samples: per held-out question.
        temperature: of all sampling.
        max_new_tokens: per completion.
        checkpoint_every: steps from one checkpoint to the next.
        seed: of everything that is random.

    Raises:
        InputError: a number below 1.
    """

    epochs: int = 1
    questions_per_step: int = 4
    samples: int = 16
    temperature: float = 1.0
    max_new_tokens: int = 16
    checkpoint_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "questions_per_step", "samples", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a number >= 1")


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        steps: in order.
        reason: `FINISHED`, or why it stopped before (see `stop_reason`).
        troubled: whether that was trouble; `weights` are then those of the last step without any.
        before, after: accuracy on held-out questions.
        weights: of the adapted decoder.
    """

    steps: list[Step]
    reason: str
    troubled: bool
    before: HeldOut
    after: HeldOut
    weights: PyTree[Array]


class _Progress:
    """The state of training, and the policy of the last step without trouble."""

    def __init__(self, state: State):
        self.state, self.good = state, state.policy

    def stored(self) -> tuple[State, PyTree[Array]]:
        return self.state, self.good


class TestTimeTraining:
    """Adapts a decoder to questions whose answers nobody tells it.

    Args:
        decoder: to start from.
        task: how questions are asked and read.
        voting: when the votes of a question are enough.
        update: how the policy is updated.
        early_stopping: when to stop.
        schedule: what is asked.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __init__(
        self,
        decoder: Decoder,
        task: ChatTask,
        voting: Voting,
        update: Update,
        early_stopping: EarlyStopping,
        schedule: Schedule,
    ):
        self._task, self._voting, self._early_stopping, self._schedule = (
            task,
            voting,
            early_stopping,
            schedule,
        )
        self._config = decoder.config
        graphdef, base = nnx.split(decoder)
        self._learner = Learner(
            graphdef,
            base,
            update,
            temperature=schedule.temperature,
            max_new=schedule.max_new_tokens,
        )

    def run(
        self,
        out: Path,
        questions: Sequence[Question],
        held_out: Sequence[Question],
        settings: dict[str, Any],
    ) -> Outcome:
        """Adapts, or goes on where an earlier call was interrupted, with the same result.

        Args:
            out: folder for ``log.jsonl`` and ``checkpoints``.
            questions: adapted to.
            held_out: other questions, asked before and after.
            settings: what the log must have been recorded with.

        Raises:
            InputError: no questions, a question in both sets, or a log that another process writes
                or that has other settings.
        """
        shared = {question.id for question in questions} & {question.id for question in held_out}
        if not questions or not held_out or shared:
            raise InputError(
                f"{len(questions)} questions and {len(held_out)} held-out ones share "
                f"{len(shared)}; give at least one of each, and none in both"
            )
        with open_run_log(out / "log.jsonl", settings) as log:
            checkpoints = Checkpoints(out / "checkpoints", self._schedule.checkpoint_every)
            try:
                return self._run(log, checkpoints, questions, held_out)
            finally:
                checkpoints.close()

    def _run(
        self,
        log: RunLog,
        checkpoints: Checkpoints,
        questions: Sequence[Question],
        held_out: Sequence[Question],
    ) -> Outcome:
        seed = self._schedule.seed
        progress = _Progress(self._learner.initial(jax.random.key(seed)))
        if "before" not in log.held_out:
            start = self._learner.weights(progress.state)
            log.write_held_out("before", self._accuracy(start, held_out, "before"))
        done = checkpoints.latest() or 0
        if done:
            progress.state, progress.good = checkpoints.restore(progress.stored())
        log.rewind(done)
        reason = self._train(log, checkpoints, progress, self._plan(questions))
        troubled = reason != FINISHED and trouble(log.steps, self._early_stopping) is not None
        final = progress.state._replace(policy=progress.good) if troubled else progress.state
        weights = self._learner.weights(final)
        if "after" not in log.held_out:
            log.write_held_out("after", self._accuracy(weights, held_out, "after"))
        before, after = log.held_out["before"], log.held_out["after"]
        return Outcome(log.steps, reason, troubled, before, after, weights)

    def _plan(self, questions: Sequence[Question]) -> list[tuple[int, list[Question]]]:
        """Epoch and questions of every step; each epoch shuffles anew."""
        size, steps = self._schedule.questions_per_step, []
        for epoch in range(self._schedule.epochs):
            order = np.random.default_rng([self._schedule.seed, epoch]).permutation(len(questions))
            shuffled = [questions[i] for i in order]
            steps += [(epoch, shuffled[i : i + size]) for i in range(0, len(shuffled), size)]
        return steps

    def _train(
        self,
        log: RunLog,
        checkpoints: Checkpoints,
        progress: _Progress,
        plan: Sequence[tuple[int, list[Question]]],
    ) -> str:
        """Takes the steps that are left; returns why it stopped."""
        reason = stop_reason(log.steps, self._early_stopping) if log.steps else None
        with tqdm(plan, initial=len(log.steps), total=len(plan), unit="step", disable=None) as bar:
            try:
                while reason is None and len(log.steps) < len(plan):
                    number = len(log.steps)
                    state, step = self._step(progress.state, number, *plan[number])
                    if trouble([*log.steps, step], self._early_stopping) is None:
                        progress.good = progress.state.policy
                    progress.state = state
                    log.write_step(step)
                    checkpoints.save(len(log.steps), progress.stored())
                    reason = stop_reason(log.steps, self._early_stopping)
                    bar.set_postfix_str(_shown(step), refresh=False)
                    bar.update()
            finally:
                if len(log.steps) != (checkpoints.latest() or 0):
                    checkpoints.save(len(log.steps), progress.stored(), force=True)
        return reason or FINISHED

    def _step(
        self, state: State, number: int, epoch: int, questions: Sequence[Question]
    ) -> tuple[State, Step]:
        learner, n_train_rollouts = self._learner, self._voting.n_train_rollouts
        prompts = [self._task.prompt(question) for question in questions]
        votes = self._votes(learner.weights(state), epoch, questions, prompts)
        groups = [
            Rewarded(prompt, vote.rollouts.first(n_train_rollouts), vote.rewards(n_train_rollouts))
            for prompt, vote in zip(prompts, votes, strict=True)
            if vote.label is not None
        ]
        measured = [learner.measure(state, group.prompt, group.rollouts) for group in groups]
        useful = [i for i, group in enumerate(groups) if learner.useful(group.rewards)]
        loss = gradient = None
        if useful:
            state, *numbers = learner.learn(
                state, [groups[i] for i in useful], [measured[i] for i in useful]
            )
            loss, gradient = map(_finite, numbers)
        return state, Step(
            step=number,
            epoch=epoch,
            questions=tuple(question.id for question in questions),
            rollouts=tuple(len(vote.answers) for vote in votes),
            labels=tuple(vote.label for vote in votes),
            label_right=tuple(
                vote.label is not None and question.verify(vote.label)
                for question, vote in zip(questions, votes, strict=True)
            ),
            reward=float(np.mean([group.rewards for group in groups])) if groups else None,
            uniform=sum(bool(np.ptp(group.rewards) == 0) for group in groups),
            learnt=len(useful),
            kl=_finite(_mean_kl(groups, measured)) if groups else None,
            loss=loss,
            gradient=gradient,
        )

    def _votes(
        self,
        weights: PyTree[Array],
        epoch: int,
        questions: Sequence[Question],
        prompts: Sequence[Prompt],
    ) -> list[Vote]:
        """The votes of each question; keeps nothing of the weights, which may be many."""
        keys = [jax.random.fold_in(self._key(question), epoch) for question in questions]
        return [
            vote_on(self._task, self._sampler(weights, prompt), self._voting, key)
            for prompt, key in zip(prompts, keys, strict=True)
        ]

    def _key(self, question: Question) -> Key[Array, ""]:
        return question_key(self._schedule.seed, f"{question.benchmark}/{question.id}")

    def _sampler(self, weights: PyTree[Array], prompt: Prompt) -> Sampler:
        return Sampler(
            self._learner.graphdef,
            weights,
            self._config,
            prompt,
            temperature=self._schedule.temperature,
            max_new=self._schedule.max_new_tokens,
        )

    def _accuracy(self, weights: PyTree[Array], held_out: Sequence[Question], when: str) -> HeldOut:
        return held_out_accuracy(
            self._task,
            lambda prompt: self._sampler(weights, prompt),
            held_out,
            self._key,
            samples=self._schedule.samples,
            label=f"held out, {when}",
        )


def _mean_kl(groups: Sequence[Rewarded], measured: Sequence[Measured]) -> float:
    """Over all tokens of all groups."""
    total = sum(
        float(np.sum(np.where(group.rollouts.mask, kl_estimate(one.logprobs, one.reference), 0)))
        for group, one in zip(groups, measured, strict=True)
    )
    return total / sum(int(group.rollouts.counts.sum()) for group in groups)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(step: Step) -> str:
    reward = "none" if step.reward is None else f"{step.reward:.2f}"
    return f"reward {reward}, {np.mean(step.rollouts):.0f} rollouts a question"
