"""Accuracy on questions that were not adapted to, before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Key
from tqdm import tqdm

from msjax.evaluate.means import DIFFERENCES, mean_interval
from msjax.intervals import Interval
from msjax.tasks.benchmark import Question
from msjax.train.ttrl.pseudo_labels import ChatTask, rollout_keys
from msjax.train.ttrl.rollouts import Prompt, Sampler

__all__ = ["Gain", "HeldOut", "gain", "held_out_accuracy"]


@dataclass(frozen=True)
class HeldOut:
    """Answers to held-out questions.

    Attributes:
        questions: their ids.
        samples: per question.
        right: share of each question's samples that are right.
        vote_right: whether the answer given most often (of equals the first) is right.
    """

    questions: tuple[str, ...]
    samples: int
    right: tuple[float, ...]
    vote_right: tuple[bool, ...]

    @property
    def pass_at_1(self) -> float:
        """Probability that one sampled answer is right, averaged over questions."""
        return float(np.mean(self.right))

    @property
    def vote_accuracy(self) -> float:
        """Share of questions whose vote is right."""
        return float(np.mean(self.vote_right))


@dataclass(frozen=True)
class Gain:
    """After minus before on the same questions, with 90 % intervals over questions."""

    pass_at_1: Interval
    vote_accuracy: Interval


def gain(before: HeldOut, after: HeldOut) -> Gain:
    """Paired differences; see `msjax.evaluate.means` for the intervals."""
    right, vote = (
        np.array(getattr(after, name), float) - np.array(getattr(before, name), float)
        for name in ("right", "vote_right")
    )
    return Gain(mean_interval(right, DIFFERENCES), mean_interval(vote, DIFFERENCES))


def held_out_accuracy(
    task: ChatTask,
    sampler: Callable[[Prompt], Sampler],
    questions: Sequence[Question],
    key: Callable[[Question], Key[Array, ""]],
    *,
    samples: int,
    label: str,
) -> HeldOut:
    """Samples every question `samples` times and grades each answer, and their vote.

    Args:
        task: how questions are asked and read.
        sampler: of completions of a prompt.
        questions: to ask.
        key: of each question; the same key before and after pairs the samples as well.
        samples: per question.
        label: of the progress bar.
    """
    right, vote_right = [], []
    for question in tqdm(questions, unit="question", desc=label, disable=None):
        rollouts = sampler(task.prompt(question)).sample(rollout_keys(key(question), 0, samples))
        answers = task.answers(rollouts)
        graded = {answer: question.verify(answer) for answer in set(answers)}
        right.append(float(np.mean([graded[answer] for answer in answers])))
        votes = Counter(answer for answer in answers if answer is not None)
        vote_right.append(bool(votes) and graded[votes.most_common(1)[0][0]])
    ids = tuple(question.id for question in questions)
    return HeldOut(ids, samples, tuple(right), tuple(vote_right))
