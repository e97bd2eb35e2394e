"""Runs from rows, one answer each: CSV, JSON Lines, JSON, Parquet, dictionaries, data frames.

    question or question_id     which question                                       needed
    correct, or answer and gold whether the answer is right, or what it is graded by needed
    round or sample             0, 1, ... ; without one, the order of rows
    tokens, or prompt_tokens, completion_tokens, cached_tokens
    score, verdict, cluster, benchmark, model, finish, completion

Unknown columns are kept as metadata of their question.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msjax.data.messages import FINISHED
from msjax.data.trajectory import Trajectory, trajectory_of
from msjax.data.usage import MOST_TOKENS, Usage
from msjax.errors import InputError
from msjax.tasks.scorers import Scorer, find_scorer
from msjax.tasks.thoughts import opens_thought

__all__ = ["FIELDS", "records_of_rows"]

FIELDS = {
    "question_id": ("question_id", "id", "qid", "doc_id"),
    "question": ("question", "problem"),
    "round": ("round", "turn", "attempt", "step", "iteration"),
    "sample": ("sample", "epoch", "epochs", "samples"),
    "repeat": ("repeat", "trajectory", "trial"),
    "answer": ("answer", "prediction", "extracted", "answers"),
    "completion": ("completion", "response", "output", "completions"),
    "gold": ("gold", "target", "reference", "expected"),
    "correct": ("correct", "is_correct", "right", "label"),
    "tokens": ("tokens", "total_tokens"),
    "prompt_tokens": ("prompt_tokens", "input_tokens"),
    "completion_tokens": ("completion_tokens", "output_tokens"),
    "cached_tokens": ("cached_tokens", "cached"),
    "score": ("score", "confidence", "reward", "scores"),
    "verdict": ("verdict", "accepted", "verdicts"),
    "cluster": ("cluster",),
    "benchmark": ("benchmark", "task", "dataset"),
    "model": ("model",),
    "finish": ("finish", "finish_reason", "stop_reason"),
}
"""What a row may hold, and the names of columns by which each is recognised."""
_Row = tuple[str, dict[str, Any]]
"""Where a row stands, for messages, and its fields; columns that are no field are in "_rest"."""
_COUNTS = {
    f"{name}{end}": f"{name}_tokens"
    for name in ("prompt", "completion", "cached")
    for end in ("", "_tokens")
}
"""Counts of an account that is an object of its own."""
_TRUE = {"1", "true", "c", "correct", "yes", "right", "accept", "accepted"}
_FALSE = {"0", "false", "i", "incorrect", "no", "wrong", "reject", "rejected"}


def records_of_rows(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    columns: Mapping[str, str] | None = None,
    scorer: str | Scorer = "math",
    benchmark: str = "benchmark",
    model: str = "model",
) -> list[Trajectory]:
    """Trajectories from rows of answers, in order of the first row of each question.

    Args:
        rows: places for messages, and rows.
        columns: for a field of `FIELDS` the name of the column that holds it.
        scorer: grades answers, or completions, of rows that have no `correct`.
        benchmark: for rows that do not say.
        model: for rows that do not say.

    Raises:
        InputError: columns that are missing (all are named) or in doubt, a round that is missing or
            occurs twice, and values of the wrong kind, each with its row.
    """
    grouped: dict[tuple[str, str, str, str, str], list[_Row]] = defaultdict(list)
    names: dict[str, str] | None = None
    runs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for where, row in _one_answer_each(rows):
        if names is None:
            names = _names(where, row, columns or {})
            taken, numbered = set(names.values()), bool({"round", "sample"} & set(names))
        known = {one: _value(row.get(column)) for one, column in names.items()}
        known["_rest"] = {x: v for x, v in row.items() if x not in taken}
        identity = known.get("question_id", known.get("question"))
        if identity is None:
            raise InputError(f"{where}: {names.get('question_id', names.get('question'))} is empty")
        group = str(known.get("benchmark") or benchmark), str(known.get("model") or model)
        # Where answers are numbered, a run is not the number of one.
        run = str(row.get("run") or "") if numbered else ""
        runs[group].add(run)
        grouped[(*group, run, str(identity), str(known.get("repeat", "")))].append((where, known))
    if names is None:
        raise InputError("rows: none given; give one row per answer")
    grader = None if "correct" in names else find_scorer(scorer)
    found = []
    repeats: Counter[tuple[str, str, str]] = Counter()
    for (task, who, run, identity, _), answers in grouped.items():
        name = f"{who}, run {run}" if len(runs[task, who]) > 1 else who
        key = task, name, identity
        found.append(_trajectory(key, repeats[key], answers, grader))
        repeats[key] += 1
    return found


def _one_answer_each(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows, those that hold lists of answers as one row for each."""
    for where, row in rows:
        labels = next((row[x] for x in row if str(x).lower() in FIELDS["correct"]), None)
        if not isinstance(labels, list):
            yield where, row
            continue
        other = [k for k, v in row.items() if isinstance(v, list) and len(v) != len(labels)]
        if other:
            raise InputError(
                f"{where}: {other[0]} has {len(row[other[0]])} entries for {len(labels)} labels; "
                "give one for each answer"
            )
        numbered = {str(name).lower() for name in row} & {*FIELDS["round"], *FIELDS["sample"]}
        number = "sample" if row.get("protocol") == "parallel" else "round"
        for k in range(len(labels)):
            one = {name: v[k] if isinstance(v, list) else v for name, v in row.items()}
            yield where, one if numbered else {**one, number: k}


def _names(where: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    """The column of every field that this file has."""
    unknown = [name for name in columns if name not in FIELDS]
    if unknown:
        raise InputError(f"columns: {unknown[0]!r} is unknown; use {', '.join(FIELDS)}")
    absent = [column for column in columns.values() if column not in row]
    if absent:
        raise InputError(
            f"{where}: has no column {absent[0]!r}; there are {', '.join(map(repr, row))}"
        )
    low = {str(name).strip().lower(): name for name in row}
    found = dict(columns)
    for name, known in FIELDS.items():
        if name not in found:
            column = next((low[x] for x in known if x in low), None)
            if column is not None and column not in found.values():
                found[name] = column
    missing = []
    if not {"question_id", "question"} & set(found):
        missing.append("question_id (or question)")
    if "correct" not in found and not ({"answer", "completion"} & set(found) and "gold" in found):
        missing.append("correct (or answer and gold)")
    if missing:
        raise InputError(
            f"{where}: {' and '.join(missing)} missing; there are {', '.join(map(repr, row))}. "
            "Say which column holds a field with columns={'correct': 'NAME'} or --columns "
            "correct=NAME; docs/data.md lists the fields"
        )
    # Samples that have rounds are runs of their question, and repeats without rounds are samples.
    if {"round", "sample"} <= set(found):
        found["repeat"] = found.pop("sample")
    elif "repeat" in found and "round" not in found and "sample" not in found:
        found["sample"] = found.pop("repeat")
    return found


def _value(value: Any) -> Any:
    """None for what a table leaves empty."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return None if isinstance(value, str) and not value.strip() else value


def _trajectory(
    key: tuple[str, str, str], repeat: int, rows: list[_Row], grader: Scorer | None
) -> Trajectory:
    rows = _ordered(rows)
    first = rows[0][1]
    answers: list[str | None] = []
    correct: list[bool] = []
    for where, row in rows:
        given = row.get("answer")
        answer = None if given is None else str(given)
        if grader is not None:
            answer, right = _graded(where, row, grader)
            correct.append(right)
        else:
            correct.append(_label(where, "correct", row.get("correct")))
        answers.append(answer)
    judged = [_votes(where, row.get("verdict")) for where, row in rows]
    fields: dict[str, Any] = {
        "benchmark": key[0],
        "model": key[1],
        "question_id": key[2],
        "repeat": repeat,
        "protocol": "parallel" if "sample" in first else "sequential",
        "question": str(first.get("question") or ""),
        "gold": str(first.get("gold") or ""),
        "answers": tuple(answers),
        "correct": tuple(correct),
        "scores": tuple(_float(where, "score", row.get("score")) for where, row in rows),
        "verdicts": tuple(_majority(votes) for votes in judged),
        "votes": tuple(votes if len(votes) > 1 else () for votes in judged),
        "tokens": tuple(_usage(where, row) for where, row in rows),
        "completions": tuple(str(row.get("completion") or "") for _, row in rows),
        "finish": tuple(
            None if row.get("finish") is None else str(row["finish"]) for _, row in rows
        ),
        "cluster": None if first.get("cluster") is None else str(first["cluster"]),
        "metadata": _metadata(rows),
    }
    return trajectory_of(rows[0][0], **fields)


def _ordered(rows: list[_Row]) -> list[_Row]:
    """Rows by round or sample, which must be 0, 1, ... (or 1, 2, ...) without gap or repetition."""
    name = next((x for x in ("round", "sample") if x in rows[0][1]), None)
    if name is None:
        return rows
    numbered = []
    for where, row in rows:
        number = _float(where, name, row.get(name))
        if number is None or number != int(number) or number < 0:
            raise InputError(f"{where}: {name} is {row.get(name)!r}; number answers 0, 1, 2, ...")
        numbered.append((int(number), where, row))
    numbered.sort(key=lambda one: one[0])
    start = min(numbered[0][0], 1)
    before = None
    for wanted, (number, where, _) in enumerate(numbered, start):
        # A sample that failed is missing; a round that is missing breaks those after it.
        gap = number != wanted if name == "round" else number == before
        before = number
        if gap:
            what = (
                "occurs twice"
                if number < wanted or name == "sample"
                else f"comes without {name} {wanted}"
            )
            raise InputError(f"{where}: {name} {number} of its question {what}; mend the rows")
    return [(where, row) for _, where, row in numbered]


def _graded(where: str, row: dict[str, Any], grader: Scorer) -> tuple[str | None, bool]:
    grader = grader.of_question(str(row.get("question") or ""), row["_rest"])
    try:
        gold = grader.target(row["gold"])
    except InputError as error:
        raise InputError(f"{where}: gold: {error}") from None
    except KeyError:
        raise InputError(f"{where}: gold is empty; give the right answer") from None
    if row.get("completion") is not None:
        finished = str(row.get("finish") or "stop").lower() in FINISHED
        thinking = opens_thought(str(row["_rest"].get("prompt") or ""))
        answer = grader.read(str(row["completion"]), finished=finished, thinking=thinking).answer
    else:
        given = row.get("answer")
        answer = None if given is None else grader.read(f"Answer: {given}").answer
    return answer, answer is not None and grader.grade(gold, answer).equal


def _label(where: str, name: str, value: Any) -> bool:
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE or word in ("1.0", "0.0"):
        return word in _TRUE or word == "1.0"
    raise InputError(f"{where}: {name} is {value!r}; write 1 or 0, true or false, C or I")


def _votes(where: str, value: Any) -> tuple[bool | None, ...]:
    """What a judge said of an answer each time it was asked."""
    said = value if isinstance(value, list) else [value]
    return tuple(None if one is None else _label(where, "verdict", one) for one in said)


def _majority(votes: tuple[bool | None, ...]) -> bool | None:
    """Whether more than half accept; None where those that are missing could decide."""
    yes, unknown = votes.count(True), votes.count(None)
    if 2 * yes > len(votes):
        return True
    return False if votes and 2 * (yes + unknown) <= len(votes) else None


def _float(where: str, name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise InputError(f"{where}: {name} is {value!r}; write a number")
    return number


def _usage(where: str, row: dict[str, Any]) -> Usage:
    """The account of one answer."""
    if isinstance(row.get("tokens"), Mapping):
        reported = {k: v for k, v in row["tokens"].items() if k in _COUNTS and v is not None}
        row = {**row, "tokens": None, **{_COUNTS[k]: v for k, v in reported.items()}}
    counts = {}
    for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "tokens"):
        number = _float(where, name, row.get(name))
        if number is not None and (number < 0 or number != int(number)):
            raise InputError(f"{where}: {name} is {row[name]!r}; write a whole number >= 0")
        counts[name] = None if number is None else int(number)
    large = {name: count for name, count in counts.items() if (count or 0) > MOST_TOKENS}
    if large:
        name, count = large.popitem()
        raise InputError(f"{where}: {name} is {count}; no answer takes so many tokens")
    if counts["prompt_tokens"] is None and counts["completion_tokens"] is None:
        return Usage(total=counts["tokens"])
    try:
        return Usage(
            prompt=counts["prompt_tokens"],
            cached=counts["cached_tokens"],
            completion=counts["completion_tokens"],
        )
    except ValueError:
        raise InputError(
            f"{where}: cached_tokens is {row['cached_tokens']!r}, above prompt_tokens; the cached "
            "are a part of the prompt"
        ) from None


def _metadata(rows: list[_Row]) -> dict[str, Any]:
    """Unknown columns: one value where all rows agree, else a list."""
    found: dict[str, Any] = {}
    for name in rows[0][1]["_rest"]:
        values = [_plain(row["_rest"].get(name)) for _, row in rows]
        found[str(name)] = values[0] if all(v == values[0] for v in values) else values
    return found


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return (
        value if isinstance(value, (str, int, float, bool, list, dict, type(None))) else str(value)
    )
