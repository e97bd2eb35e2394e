"""Logs of inspect_ai, `.eval` and `.json`: epochs are samples, answers of our solver are rounds."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from msjax.data.trajectory import Trajectory, trajectory_of
from msjax.data.usage import Usage
from msjax.errors import InputError, require_extra
from msjax.tasks.scorers import Scorer, find_scorer

__all__ = ["is_inspect", "records_of_inspect"]

SOLVER = "msjax"
"""Under which `msjax.integrations.inspect_ai` keeps the answers of a sample."""


def is_inspect(path: Path) -> bool:
    """Whether a file is a log of inspect_ai."""
    if path.suffix.lower() == ".eval":
        return True
    if path.suffix.lower() != ".json":
        return False
    try:
        with path.open("rb") as file:
            head = file.read(4096).decode("utf-8", "replace")
    except OSError:
        return False
    return head.lstrip().startswith("{") and '"eval"' in head and '"status"' in head


def records_of_inspect(
    path: Path,
    *,
    benchmark: str | None = None,
    model: str | None = None,
    metric: str | None = None,
    scorer: str | Scorer = "math",
) -> tuple[list[Trajectory], list[str]]:
    """Trajectories of a log, and what was chosen and left out, in words.

    The epochs of a question are independent samples of it, those that failed are missing. Where
    each answer of `msjax.integrations.inspect_ai.revise` was scored, these are its rounds.

    Args:
        path: of the log.
        benchmark: what it is called; by the log if None.
        model: what it is called; by the log if None.
        metric: which of the log's scorers is the label; the first one if None.
        scorer: reads an answer where a log keeps the whole completion in its place.

    Raises:
        InputError: a file that is no such log, has no samples, no scorer of that name, or scores
            other than right and wrong.
        MissingExtraError: inspect_ai is not installed.
    """
    require_extra("inspect", "inspect_ai")
    from inspect_ai.log import read_eval_log

    try:
        log = read_eval_log(str(path))
    except Exception as error:  # of whatever reads ZIP, JSON or their schema
        problem = str(error).partition("\n")[0]
        raise InputError(f"{path}: cannot be read as a log of inspect_ai ({problem})") from None
    samples = log.samples or []
    scored = [one for one in samples if one.scores and one.error is None]
    if not scored:
        raise InputError(f"{path}: has no sample with a score; run the evaluation to its end")
    names = Counter(name for one in scored for name in one.scores or ())
    chosen = next(iter(names)) if metric is None else metric
    if chosen not in names:
        raise InputError(f"metric is {chosen!r}; {path} has {', '.join(names)}")
    notes = [f"scores of {chosen!r} are the labels"]
    scored = [one for one in scored if chosen in one.scores]
    if len(names) > 1:
        others = ", ".join(name for name in names if name != chosen)
        notes[0] += f"; left out: {others} (choose with metric=)"
    asked = str(log.eval.model)
    reader = _Reader(path, chosen, asked, find_scorer(scorer))
    by_question: dict[str, list[Any]] = {}
    for one in sorted(scored, key=lambda one: one.epoch):
        by_question.setdefault(str(one.id), []).append(one)
    records = []
    for identity, epochs in by_question.items():
        fields = reader.rounds(epochs) or reader.samples(epochs)
        records.append(
            trajectory_of(
                f"{path}, sample {identity}",
                benchmark=benchmark or str(log.eval.task),
                model=model or asked,
                question_id=identity,
                question=_question(epochs[0]),
                gold=_text(epochs[0].target),
                **fields,
            )
        )
    failed = len(samples) - len(scored)
    if failed:
        notes.append(f"{failed} of {len(samples)} samples failed or have no score; left out")
    most = max(len(epochs) for epochs in by_question.values())
    short = sum(len(epochs) < most for epochs in by_question.values())
    if short:
        notes.append(f"{short} questions have fewer than {most} epochs")
    if any(one.choices for one in scored):
        notes.append("choices may be shuffled: letters do not compare with those of other logs")
    return records, notes + reader.notes()


class _Reader:
    """Reads samples, and counts what was not there.

    Args:
        path: for messages.
        metric: name of the scorer.
        asked: model that was evaluated; what others wrote was for scoring.
        reads: the scorer that reads whole completions.
    """

    def __init__(self, path: Path, metric: str, asked: str, reads: Scorer) -> None:
        self._path, self._metric, self._asked, self._reads = path, metric, asked, reads
        self._counts: Counter[str] = Counter()

    def rounds(self, epochs: list[Any]) -> dict[str, Any] | None:
        """What our solver kept of one question; None where another one answered."""
        known = (epochs[0].scores[self._metric].metadata or {}).get(SOLVER)
        if known is None:
            return None
        self._counts["later epochs"] += len(epochs) - 1
        where = self._where(epochs[0])
        try:
            return {
                "protocol": known["protocol"],
                "answers": tuple(known["answers"]),
                "correct": tuple(_label(where, value) for value in known["scores"]),
                "tokens": tuple(Usage.model_validate(one) for one in known["tokens"]),
                "completions": tuple(known["completions"]),
                "returned": known["returned"],
                "stop_reason": "rule" if known["stop_reason"] == "rule" else "budget",
            }
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{where}: what the solver {SOLVER!r} kept of it is damaged ({error!r}); run it "
                "again, or leave the sample out"
            ) from None

    def samples(self, epochs: list[Any]) -> dict[str, Any]:
        """The epochs of one question."""
        targets = {_text(one.target) for one in epochs}
        answers = [self._answer(one) for one in epochs]
        if len(targets) > 1:
            self._counts["reshuffled"] += 1
            answers = [None] * len(epochs)
        return {
            "protocol": "parallel",
            "answers": tuple(answers),
            "correct": tuple(
                _label(self._where(one), one.scores[self._metric].value) for one in epochs
            ),
            "tokens": tuple(self._usage(one) for one in epochs),
            "completions": tuple(one.output.completion for one in epochs),
            "finish": tuple(
                str(one.output.stop_reason) if one.output.choices else None for one in epochs
            ),
        }

    def notes(self) -> list[str]:
        """What was not there, in words."""
        words = {
            "null": "{} samples have no answer, only a score: rules that look at answers lack them",
            "whole": "{} samples keep the completion in place of the answer; answers were read",
            "no usage": "{} samples have no account, so their tokens are not reported",
            "reshuffled": "{} questions have targets that differ between epochs: no answers kept",
            "later epochs": "{} later epochs of revised questions are left out",
        }
        return [says.format(n) for name, says in words.items() if (n := self._counts[name])]

    def _where(self, one: Any) -> str:
        return f"{self._path}, sample {one.id}, epoch {one.epoch}"

    def _answer(self, one: Any) -> str | None:
        answer, completion = one.scores[self._metric].answer, one.output.completion
        if answer is None or not answer.strip():
            self._counts["null"] += 1
            return None
        if answer.strip() == completion.strip() and len(answer.split()) > 1:
            self._counts["whole"] += 1
            finished = one.output.stop_reason == "stop"
            return self._reads.read(completion, finished=finished).answer
        return str(answer).strip()

    def _usage(self, one: Any) -> Usage:
        """Tokens of the model that was evaluated; those of others are the verifier's."""
        own = [used for name, used in one.model_usage.items() if name == self._asked]
        if not own or not own[0].total_tokens:
            self._counts["no usage"] += 1
            return Usage()
        used = own[0]
        cached = used.input_tokens_cache_read
        others = [x.total_tokens for name, x in one.model_usage.items() if name != self._asked]
        return Usage(
            prompt=used.input_tokens + (cached or 0) + (used.input_tokens_cache_write or 0),
            cached=cached,
            completion=used.output_tokens,
            verifier=sum(others),
        )


def _label(where: str, value: Any) -> bool:
    words = {"C": True, "I": False, "N": False}
    if isinstance(value, str) and value in words:
        return words[value]
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise InputError(
        f"{where}: its score is {value!r}; a label is C or I, 1 or 0, so name another metric"
    )


def _question(one: Any) -> str:
    if isinstance(one.input, str):
        return one.input
    users = [message.text for message in one.input if message.role == "user"]
    return users[-1] if users else ""


def _text(target: Any) -> str:
    return target if isinstance(target, str) else json.dumps(target)
