"""What `msjax serve --out` wrote: requests and their labels, as runs."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from msjax.data.served import Label, Served
from msjax.data.trajectory import Trajectory, trajectory_of
from msjax.errors import InputError
from msjax.tasks.scorers import Scorer, find_scorer

__all__ = ["is_served", "records_of_served"]


def is_served(row: Mapping[str, Any]) -> bool:
    """Whether a row is a line of such a file."""
    return "served" in row


def records_of_served(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    benchmark: str,
    scorer: str | Scorer | None = None,
) -> tuple[list[Trajectory], list[str]]:
    """Trajectories of the requests whose right answer was said, and what was left out, in words.

    Every answer of a request is graded by the right one. Where it was said only whether the answer
    returned is right, the others have no label, and to keep those where that says enough would
    favour the right ones; so all of them are left out, and count in the proxy's metrics alone.

    Args:
        rows: places for messages, and rows.
        benchmark: what they are called.
        scorer: grades answers; None for the one that read them.

    Raises:
        InputError: a line of another kind, or a right answer that no answer can match.
    """
    requests: dict[str, tuple[str, Served]] = {}
    golds: dict[str, str] = {}
    judged: set[str] = set()
    for where, row in rows:
        try:
            if "feedback" in row:
                label = Label.model_validate(row)
                judged.add(label.feedback)
                if label.gold is not None:
                    golds[label.feedback] = label.gold
            else:
                served = Served.model_validate(_tuples(row))
                requests[served.id] = where, served
                if served.gold is not None:
                    golds[served.id] = served.gold
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise InputError(f"{where}: {field}: {first['msg']}; correct or remove it") from None
    graders: dict[str, Scorer] = {}
    found = []
    for identity, (where, one) in requests.items():
        if identity not in golds:
            continue
        name = one.scorer if scorer is None else str(scorer)
        if name not in graders:
            graders[name] = find_scorer(one.scorer if scorer is None else scorer)
        found.append(_trajectory(where, one, golds[identity], graders[name], benchmark))
    notes = []
    partly = len(judged & requests.keys() - golds.keys())
    without = len(requests) - len(found) - partly
    if without:
        notes.append(f"{without} of {len(requests)} requests have no label and are left out")
    if partly:
        notes.append(
            f"of {partly} requests only the answer that was returned has a label; they are left "
            "out, since what the others were is not known"
        )
    if not found:
        raise InputError(
            f"none of {len(requests)} requests has a right answer; send it with the request, as "
            '{"msjax": {"gold": "42"}}, or later to /feedback'
        )
    return found, notes


def _trajectory(where: str, one: Served, gold: str, grader: Scorer, benchmark: str) -> Trajectory:
    try:
        target = grader.target(gold)
    except InputError as error:
        raise InputError(f"{where}: gold: {error}") from None
    return trajectory_of(
        where,
        model=one.model,
        benchmark=benchmark,
        question_id=one.id,
        protocol=one.protocol,
        question=one.question,
        gold=target,
        answers=one.answers,
        correct=tuple(grader.grade(target, answer).equal for answer in one.answers),
        scores=one.scores,
        verdicts=one.verdicts,
        tokens=one.tokens,
        completions=one.completions,
        finish=one.finish,
        stop_reason="rule" if one.stop_reason == "rule" else "budget",
        returned=one.returned,
        # A question that is asked twice is not two questions.
        cluster=sha256(one.question.encode()).hexdigest()[:16],
        settings={"rule": one.rule},
        metadata={"arm": one.arm, "time": one.time},
    )


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples they were."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
