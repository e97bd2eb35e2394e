"""Two policies on the same questions: paired differences with intervals."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msjax.data.trajectory import Trajectory
from msjax.data.usage import uncached_tokens
from msjax.errors import InputError
from msjax.evaluate.means import DIFFERENCES, UNBOUNDED, mean_interval
from msjax.intervals import Interval


@dataclass(frozen=True)
class Comparison:
    """A policy against a fixed number of answers, over the same n questions.

    Attributes:
        benchmark: its name, or "all" for every question together.
        k: answers of the fixed policy after the first.
        parallel: whether answers are independent samples, of which the fixed policy returns the one
            given most often (of equals the earliest), not rounds, of which it returns the last.
        questions: n.
        accuracy, fixed_accuracy: share right of the answers returned.
        tokens, fixed_tokens: mean uncached tokens per question; NaN if one is not reported.
        accuracy_gain: accuracy - fixed_accuracy, paired.
        tokens_saved: fixed_tokens - tokens, paired, in tokens per question; NaN, which prints as
            not identified, if one is not reported.
    """

    benchmark: str
    k: int
    parallel: bool
    questions: int
    accuracy: float
    fixed_accuracy: float
    tokens: float
    fixed_tokens: float
    accuracy_gain: Interval
    tokens_saved: Interval


def tokens_until(run: Trajectory, k: int) -> float:
    """Uncached tokens of a trajectory up to and including round k; NaN if one is not reported."""
    return uncached_tokens(run.tokens[: k + 1])


ALL = "all"


def of_benchmark(runs: Sequence[Trajectory], name: str) -> list[Trajectory]:
    """The runs of one benchmark, or every run for `ALL`."""
    return [run for run in runs if name in (ALL, run.benchmark)]


def compare(
    policy: Sequence[Trajectory], full: Sequence[Trajectory], rounds: int
) -> list[Comparison]:
    """`policy` against fixed k = 0..rounds, for every benchmark and for all together.

    `full` holds the same questions, each revised `rounds` times; stopping it after k rounds is the
    fixed policy k. Of samples 1, 2, 4, ... are compared with, and all of them.

    Raises:
        InputError: as `against_fixed`.
    """
    names = list(dict.fromkeys(run.benchmark for run in policy))
    compared = []
    for name in [ALL, *names] if len(names) > 1 else names:
        mine, other = of_benchmark(policy, name), of_benchmark(full, name)
        ks = _few(rounds) if full[0].protocol == "parallel" else range(rounds + 1)
        compared += [against_fixed(name, mine, other, k) for k in ks]
    return compared


def against_fixed(
    benchmark: str, policy: Sequence[Trajectory], full: Sequence[Trajectory], k: int
) -> Comparison:
    """Compare where `policy` stopped with stopping `full` after exactly k refinement rounds.

    Args:
        benchmark: what to call this set of questions.
        policy: trajectories that a rule ended.
        full: trajectories of the same questions with all answers.
        k: refinement rounds, or samples after the first.

    Raises:
        InputError: the two do not hold the same questions, or a run in `full` is shorter than k.
    """
    by_question = {(run.benchmark, run.question_id): run for run in full}
    asked = {(run.benchmark, run.question_id) for run in policy}
    if asked != by_question.keys() or len(policy) != len(full):
        raise InputError(
            f"{benchmark}: the two runs must hold the same questions ({len(policy)} and "
            f"{len(full)} found); generate both with the same --questions and --start"
        )
    pairs = []
    for run in policy:
        other = by_question[run.benchmark, run.question_id]
        if other.revisions < k:
            raise InputError(
                f"question {run.question_id} of {run.benchmark} was revised {other.revisions} "
                f"times, fewer than k = {k}; lower k or record more rounds or samples"
            )
        pairs.append((run, other))
    right = np.array([run.right for run, _ in pairs])
    fixed_right = np.array([right_after(other, k) for _, other in pairs])
    tokens = np.array([tokens_until(run, run.revisions) for run, _ in pairs])
    fixed_tokens = np.array([tokens_until(other, k) for _, other in pairs])
    return Comparison(
        benchmark=benchmark,
        k=k,
        parallel=full[0].protocol == "parallel",
        questions=len(pairs),
        accuracy=float(right.mean()),
        fixed_accuracy=float(fixed_right.mean()),
        tokens=float(tokens.mean()),
        fixed_tokens=float(fixed_tokens.mean()),
        accuracy_gain=mean_interval(right.astype(float) - fixed_right, DIFFERENCES),
        tokens_saved=mean_interval(fixed_tokens - tokens, UNBOUNDED),
    )


def _few(rounds: int) -> list[int]:
    """Samples after the first of 1, 2, 4, ... and of all."""
    return [2**i - 1 for i in range(rounds.bit_length()) if 2**i - 1 < rounds] + [rounds]


def right_after(run: Trajectory, k: int) -> bool:
    """Whether a right answer is returned after always k rounds, or samples after the first.

    Of rounds the last is returned, of samples the answer given most often, of equals the earliest.
    """
    if run.protocol != "parallel":
        return run.correct[k]
    votes = Counter(answer for answer in run.answers[: k + 1] if answer is not None)
    return bool(votes) and run.correct[run.answers.index(votes.most_common(1)[0][0])]
