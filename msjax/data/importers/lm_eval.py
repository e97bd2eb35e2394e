"""Samples that lm-eval logs (`--log_samples`), one line per document and filter."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from msjax.data.trajectory import Trajectory, trajectory_of
from msjax.errors import InputError
from msjax.tasks.scorers import Scorer, find_scorer
from msjax.tasks.thoughts import opens_thought

__all__ = ["is_lm_eval", "records_of_lm_eval"]

_NEEDED = ("doc_id", "resps", "target", "filter")


def is_lm_eval(row: Mapping[str, Any]) -> bool:
    """Whether a row is a sample of lm-eval."""
    return all(name in row for name in _NEEDED)


def records_of_lm_eval(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    benchmark: str,
    model: str = "model",
    filter: str | None = None,
    metric: str | None = None,
    scorer: str | Scorer = "math",
) -> tuple[list[Trajectory], list[str]]:
    """Trajectories of parallel samples, and what was chosen, in words.

    A metric is about a document. With one sample of each it is the label; with several the samples
    are graded again.

    Args:
        rows: places for messages, and rows.
        benchmark: what it is called.
        model: what it is called.
        filter: which of lm-eval's filters to read; the first one of the file if None.
        metric: which metric is the label; the first one of the file if None.
        scorer: grades samples where a document has several.

    Raises:
        InputError: a filter or metric that is not there, a document twice, or a metric other than
            0 and 1.
    """
    every = list(rows)
    for where, row in every:
        missing = [name for name in _NEEDED if name not in row]
        if missing:
            raise InputError(f"{where}: lacks {', '.join(missing)}, which lm-eval logs; log again")
    filters = Counter(str(row["filter"]) for _, row in every)
    chosen = next(iter(filters)) if filter is None else filter
    if chosen not in filters:
        raise InputError(f"filter is {chosen!r}; the file has {', '.join(filters)}")
    notes = []
    if len(filters) > 1:
        others = ", ".join(name for name in filters if name != chosen)
        notes.append(f"filter {chosen!r} is read; left out: {others} (choose with filter=)")
    grader = find_scorer(scorer)
    found: dict[str, Trajectory] = {}
    regraded = 0
    for where, row in every:
        if row["filter"] != chosen:
            continue
        identity = str(row["doc_id"])
        if identity in found:
            raise InputError(f"{where}: doc_id {identity} occurs twice for filter {chosen!r}")
        texts = row["resps"][0] if isinstance(row["resps"], list) and row["resps"] else None
        if not (texts and isinstance(texts, list) and all(isinstance(x, str) for x in texts)):
            raise InputError(f"{where}: resps is {str(row['resps'])[:60]}; give lists of texts")
        if len(texts) == 1:
            name, right = _metric(where, row, metric)
            answers: tuple[str | None, ...] = (_filtered(row),)
            correct: tuple[bool, ...] = (right,)
            if not found:
                notes.append(f"metric {name!r} is the label")
        else:
            regraded += 1
            try:
                gold = grader.target(row["target"])
            except InputError as error:
                raise InputError(f"{where}: target: {error}") from None
            thinking = opens_thought(_prompt(row))
            answers = tuple(grader.read(text, thinking=thinking).answer for text in texts)
            correct = tuple(grader.grade(gold, answer).equal for answer in answers)
        doc = row.get("doc")
        found[identity] = trajectory_of(
            where,
            benchmark=benchmark,
            model=model,
            question_id=identity,
            protocol="parallel",
            question=str(doc.get("question", "")) if isinstance(doc, Mapping) else "",
            gold=str(row["target"]),
            answers=answers,
            correct=correct,
            completions=tuple(texts),
        )
    if regraded:
        notes.append(
            f"{regraded} documents have several samples, which were graded again by the scorer "
            f"{grader.name}, as metrics are about documents"
        )
    return list(found.values()), notes


def _metric(where: str, row: Mapping[str, Any], metric: str | None) -> tuple[str, bool]:
    known = row.get("metrics")
    names = [str(name) for name in known if str(name) in row] if isinstance(known, list) else []
    name = metric or (names[0] if names else None)
    if name is None or name not in row:
        raise InputError(f"{where}: metric is {name!r}; the file has {', '.join(names) or 'none'}")
    if row[name] not in (0, 1):
        raise InputError(
            f"{where}: {name} is {row[name]!r}; a label is 0 or 1, name another metric"
        )
    return name, bool(row[name])


def _prompt(row: Mapping[str, Any]) -> str:
    """What the model was given, as it is logged: the first argument of the request."""
    requests = row.get("arguments")
    if isinstance(requests, Mapping):
        requests = list(requests.values())
    first = requests[0] if isinstance(requests, list) and requests else None
    if isinstance(first, Mapping):
        first = list(first.values())
    return str(first[0]) if isinstance(first, list) and first else ""


def _filtered(row: Mapping[str, Any]) -> str | None:
    found = row.get("filtered_resps")
    answer = found[0] if isinstance(found, list) and found else None
    return answer if isinstance(answer, str) and answer != "[invalid]" else None
