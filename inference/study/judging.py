"""The model's own verdict on each of its answers, which a rule may listen to in a label's place."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from msjax.data.messages import Message
from msjax.data.store import resume
from msjax.data.trajectory import Trajectory
from msjax.llm.conversation import question_key
from msjax.llm.engine import Conversation, Engine, Turn
from msjax.tasks.benchmark import Question, Task

__all__ = ["judge", "judge_runs"]


def judge_runs(
    path: Path,
    runs: Sequence[Trajectory],
    task: Task,
    questions: Sequence[Question],
    load_engine: Callable[[], Engine],
    *,
    seed: int,
    settings: Mapping[str, Any],
) -> list[Trajectory]:
    """Records a verdict on every answer of every run, from where it stopped.

    Args:
        path: the file of the judged runs; they are the runs without completions.
        runs: of one model and benchmark.
        task: its prompts; the revision's words ask for the verdict.
        questions: whose runs are judged.
        load_engine: called if something is left to judge.
        seed: of all sampling.
        settings: of all lines.

    Raises:
        InputError: the file was recorded with other settings.
    """
    asked = {question.id: question for question in questions}
    wanted = [run for run in runs if run.question_id in asked]
    with resume(
        path, model=wanted[0].model, settings=settings, learnt=("chat_template",)
    ) as writer:
        done = {run.question_id for run in writer.lines}
        todo = [run for run in wanted if run.question_id not in done]
        if todo:
            engine = load_engine()
            learnt = dict(getattr(engine, "settings", {}))
            with tqdm(total=len(todo), unit="question", desc=path.name) as bar:

                def finish(run: Trajectory) -> None:
                    writer.append(run.model_copy(update={"settings": {**settings, **learnt}}))
                    bar.update()

                def conversations() -> Iterator[Conversation]:
                    for run in todo:
                        yield judge(task, asked[run.question_id], run, seed, finish)

                engine.converse(conversations())
        return [run for run in writer.lines if run.question_id in asked]


def judge(
    task: Task,
    question: Question,
    run: Trajectory,
    seed: int,
    finish: Callable[[Trajectory], None],
) -> Conversation:
    """Asks of each answer, as if it were the first, whether it is right.

    `verdicts` is what was said (None where it was neither yes nor no), `metadata.verdict_logprobs`
    the log-probability of the whole reply under the model at temperature 1, and the tokens of
    reading and saying it are the verifier's.
    """
    key = question_key(seed, f"{run.benchmark}/{run.question_id}/verdict")
    verdicts: list[bool | None] = []
    logprobs: list[float | None] = []
    usages = []
    for k, text in enumerate(run.completions):
        answer: Message = {"role": "assistant", "content": text}
        said = [*task.conversation(question), answer, *task.revision(question, run.answers[k])]
        completion = yield Turn(said, jax.random.fold_in(key, k), True)
        assert completion is not None
        word = re.search(r"[a-z]+", completion.text.lower())
        verdicts.append({"yes": True, "no": False}.get(word.group() if word else ""))
        spent = completion.usage
        total = None
        if spent.completion is not None:
            total = completion.token_logprob * spent.completion
        logprobs.append(None if total is None or math.isnan(total) else round(total, 5))
        known = spent.prompt is not None and spent.completion is not None
        verifier = (spent.prompt or 0) + (spent.completion or 0) if known else None
        usages.append(run.tokens[k].model_copy(update={"verifier": verifier}))
    finish(
        run.model_copy(
            update={
                "verdicts": tuple(verdicts),
                "tokens": tuple(usages),
                "completions": ("",) * len(verdicts),
                "metadata": {**run.metadata, "verdict_logprobs": logprobs},
            }
        )
    )
