"""One recorded run: what a question went through, validated when it is read."""

import math
import reprlib
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from msjax.data.json_lines import parse_json
from msjax.data.usage import Usage
from msjax.errors import InputError

__all__ = [
    "MOST_SCORE",
    "ROUNDING",
    "Protocol",
    "StopReason",
    "StoredScore",
    "Trajectory",
    "parse_trajectory",
    "range_of_scores",
    "trajectory_of",
]

MOST_SCORE = 1e38
"""Size up to which scores are kept in single precision."""
Protocol = Literal["sequential", "prefix", "parallel", "longer"]
StopReason = Literal["rule", "budget"]
StoredScore = Annotated[float, Field(ge=-MOST_SCORE, le=MOST_SCORE, allow_inf_nan=False)]

_PER_ANSWER: dict[str, Any] = {
    "answers": None,
    "scores": None,
    "verdicts": None,
    "votes": (),
    "tokens": Usage.model_construct(prompt=None, cached=None, completion=None),
    "completions": "",
    "finish": None,
}
"""Fields with one entry for each answer, and what stands for an entry that was not recorded."""


# What `msjax run` records as the setting "score"; None is the mean log-probability per token.
_RANGES: dict[Any, tuple[float, float]] = {
    None: (-math.inf, 0.0),
    "token_logprob": (-math.inf, 0.0),
    "certainty": (-math.inf, 0.0),
    "confidence": (0.0, 1.0),
}
ROUNDING = 1e-3


class Trajectory(BaseModel):
    """What one question went through: its answers in order, and what each cost.

    Only `question_id` and `correct` are needed. For `protocol="sequential"` entry k of `answers`,
    `correct`, `scores`, `verdicts`, `votes`, `tokens`, `completions` and `finish` belongs to round
    k (round 0 is the first answer); for `"parallel"` to sample k; for `"prefix"` to the k-th prefix
    of one reasoning trace from which an answer was elicited; for `"longer"` to the one answer, with
    a larger limit of tokens than that of the first answers it is compared with.

    Attributes:
        repeat: which run of its question this is, where a question was run several times.
        answers: canonical answers, None for none.
        correct: whether each answer is right.
        scores: verifier or confidence scores, None where not scored.
        verdicts: whether a judge accepted the answer, None where it was not asked.
        votes: what the judge said each time, where it was asked of an answer several times.
        tokens: accounts; their counts are None where not reported.
        finish: why each completion ended, in the server's words; None where not reported.
        stop_reason: whether a stopping rule or the budget of answers ended the run.
        censored: whether the run was ended by looking at the label, where P(C -> I) cannot be
            estimated.
        returned: the entry whose answer was returned, None for the last one.
        cluster: questions of one cluster are not independent; None for a cluster of its own.
        settings: whatever a run must keep constant for its lines to belong together.
        metadata: whatever else is known of the question.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    model: str = "model"
    benchmark: str = "benchmark"
    question_id: str
    repeat: NonNegativeInt = 0
    protocol: Protocol = "sequential"
    question: str = ""
    gold: str = ""
    answers: tuple[str | None, ...] = ()
    correct: tuple[bool, ...]
    scores: tuple[StoredScore | None, ...] = ()
    verdicts: tuple[bool | None, ...] = ()
    votes: tuple[tuple[bool | None, ...], ...] = ()
    tokens: tuple[Usage, ...] = ()
    completions: tuple[str, ...] = ()
    finish: tuple[str | None, ...] = ()
    stop_reason: StopReason = "budget"
    censored: bool = False
    key: str = ""
    settings: dict[str, str | int | float | None] = {}
    returned: NonNegativeInt | None = None
    cluster: str | None = None
    metadata: dict[str, JsonValue] = {}

    @model_validator(mode="after")
    def _one_entry_per_answer(self) -> "Trajectory":
        entries = len(self.correct)
        if not entries:
            raise ValueError("correct is empty; give one label for each answer")
        for name, absent in _PER_ANSWER.items():
            found = len(getattr(self, name))
            if not found:
                # The model is frozen for its users, and not yet handed to them.
                self.__dict__[name] = (absent,) * entries
            elif found != entries:
                raise ValueError(f"{name} has {found} entries but correct has {entries}")
        low, high = range_of_scores(self.settings)
        for number, score in enumerate(self.scores):
            if score is not None and not low <= score <= high + ROUNDING:
                raise ValueError(
                    f"scores.{number} is {score}, but this score lies in [{low:g}, {high:g}]"
                )
        if self.returned is not None and self.returned >= entries:
            raise ValueError(f"returned is {self.returned} but answers has 0 to {entries - 1}")
        return self

    @property
    def identity(self) -> tuple[str, str, str, str, int]:
        """What no two trajectories have in common: benchmark, model, protocol, question, repeat."""
        return self.benchmark, self.model, self.protocol, self.question_id, self.repeat

    @property
    def right(self) -> bool:
        """Whether the answer that was returned is right."""
        return self.correct[-1 if self.returned is None else self.returned]

    @property
    def revisions(self) -> int:
        """Rounds of revision after the first answer."""
        return len(self.correct) - 1

    def ended(self, answers: int, **changes: Any) -> "Trajectory":
        """The run as if it had ended after so many answers, with other changes."""
        each = ("correct", *_PER_ANSWER)
        return self.model_copy(
            update={name: getattr(self, name)[:answers] for name in each} | changes
        )


def range_of_scores(settings: Mapping[str, Any]) -> tuple[float, float]:
    """The least and the greatest score that runs of these settings can have."""
    return _RANGES.get(settings.get("score", ""), (-math.inf, math.inf))


def parse_trajectory(where: str, line: bytes) -> Trajectory:
    """A trajectory from one JSON line; `where` names the line in errors.

    Raises InputError that names all fields that are missing or unknown, else the first bad value.
    """
    line = line.removeprefix(BOM_UTF8)
    try:
        found = Trajectory.model_validate_json(line)
        parse_json(line)  # which says what pydantic passes over
    except ValidationError as error:
        raise InputError(f"{where}: {_problem(error)}; correct or remove the line") from None
    except ValueError as error:
        raise InputError(f"{where}: {error}; correct or remove the line") from None
    return found


def trajectory_of(where: str, **fields: Any) -> Trajectory:
    """A trajectory from the fields of another format; `where` names their place in errors.

    Raises InputError for the first of them that no trajectory can have.
    """
    try:
        return Trajectory(**fields)
    except ValidationError as error:
        raise InputError(f"{where}: {_problem(error)}; correct it") from None


def _problem(error: ValidationError) -> str:
    """What is wrong with a trajectory, in words."""
    found = error.errors()
    missing = [_field(x) for x in found if x["type"] == "missing"]
    if missing:
        named = ", ".join(missing[:3]) + (f", ... ({len(missing)} fields)" * (len(missing) > 3))
        return f"lacks {named}, which docs/data.md describes"
    first = found[0]
    field, value, says = _field(first), reprlib.repr(first["input"]), first["msg"]
    match first["type"]:
        case "extra_forbidden":
            return f"unknown field {field} (found {value})"
        case "value_error":
            return (field and f"{field}: ") + str(first["ctx"]["error"])
        case "json_invalid":
            return says.partition(" at line ")[0]
        case _:
            return f"{field} is {value}; it {says.removeprefix('Input ')}"


def _field(error: Any) -> str:
    return ".".join(map(str, error["loc"]))
