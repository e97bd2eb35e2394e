"""When test-time training should stop: trouble, or nothing left to learn.

Everything is read off the records of the steps, so a resumed run decides as one that was never
interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msjax.errors import InputError

__all__ = ["EarlyStopping", "Step", "stop_reason", "trouble"]


@dataclass(frozen=True)
class Step:
    """What one step of test-time training saw; its weights are those before its update.

    Attributes:
        step: its number, from 0.
        epoch: which pass over the questions.
        questions: ids of its questions.
        rollouts: sampled, per question.
        labels: consensus answer per question, None if there was none.
        label_right: whether each consensus is the gold answer (False without consensus); never
            used for training.
        reward: mean agreement of the retained rollouts with the label, over questions that have
            one; None if none has.
        uniform: questions with a label whose retained rollouts all get the same reward.
        learnt: questions the update learnt from.
        kl: k3 estimate of KL(policy || starting policy), in nats per token, over the retained
            rollouts of questions with a label; None if there are none, or if it is not finite.
        loss: of the last update of the step; None without one, or if it is not finite.
        gradient: its norm before clipping; None likewise.
    """

    step: int
    epoch: int
    questions: tuple[str, ...]
    rollouts: tuple[int, ...]
    labels: tuple[str | None, ...]
    label_right: tuple[bool, ...]
    reward: float | None
    uniform: int
    learnt: int
    kl: float | None
    loss: float | None
    gradient: float | None


@dataclass(frozen=True)
class EarlyStopping:
    """What is too much.

    Attributes:
        max_kl: nats per token from the starting policy.
        collapse: a mean reward below this fraction of that of the first `patience` steps.
        patience: steps of the same kind in a row, before training stops.

    Raises:
        InputError: a setting outside its range.
    """

    max_kl: float = 1.0
    collapse: float = 0.5
    patience: int = 5

    def __post_init__(self) -> None:
        if not self.max_kl > 0:
            raise InputError(f"max_kl is {self.max_kl}; give nats per token > 0")
        if not 0 <= self.collapse < 1:
            raise InputError(f"collapse is {self.collapse}; give a fraction in [0, 1)")
        if self.patience < 1:
            raise InputError(f"patience is {self.patience}; give at least 1 step")


def trouble(history: Sequence[Step], early_stopping: EarlyStopping) -> str | None:
    """What is wrong with the last step, None if nothing is.

    - "no consensus": no question of the step has a label;
    - "diverged": KL above `max_kl`, or a KL, loss or gradient that is no finite number;
    - "reward collapse": mean reward below `collapse` times that of the first steps.
    """
    now = history[-1]
    if now.reward is None:
        return "no consensus"
    if now.kl is None or now.kl > early_stopping.max_kl:
        return "diverged"
    if now.learnt and (now.loss is None or now.gradient is None):
        return "diverged"
    first = [step.reward for step in history[: early_stopping.patience] if step.reward is not None]
    return (
        "reward collapse"
        if now.reward < early_stopping.collapse * sum(first) / len(first)
        else None
    )


def stop_reason(history: Sequence[Step], early_stopping: EarlyStopping) -> str | None:
    """Why to stop after the last step: divergence at once, other trouble after `patience` steps.

    "nothing left to learn" is no trouble: every label of the last `patience` steps was shared by
    all of its rollouts.
    """
    now = trouble(history, early_stopping)
    if now == "diverged" or len(history) < early_stopping.patience:
        return now if now == "diverged" else None
    last = range(len(history) - early_stopping.patience + 1, len(history) + 1)
    if now is not None:
        return now if all(trouble(history[:end], early_stopping) == now for end in last) else None
    idle = all(not history[end - 1].learnt for end in last)
    return "nothing left to learn" if idle else None
