"""Judges in front of a model: who says whether an answer is accepted, and how that is asked.

A judge is called with question and completion and gives a `Verdict`: `ServedJudge` asks a model
behind a server, `own_judge` a function of one's own, `msjax.llm.unit_tests.UnitTests` runs code.
With `Itself` in place of a judge the model that answers is asked, in a conversation of its own
(`msjax.llm.conversation`). What goes wrong with a judge is no verdict (None), and is said at the
end.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from msjax._io import load_named, reading
from msjax.data.messages import Completion, Message
from msjax.errors import InputError, ServerError
from msjax.llm.replies import read_json, read_reply
from msjax.tasks.benchmark import Question

__all__ = [
    "ITSELF",
    "JUDGE",
    "JUDGE_PROMPTS",
    "Itself",
    "Judge",
    "ServedJudge",
    "Verdict",
    "as_verdict",
    "combined",
    "judge_messages",
    "judge_prompt",
    "log_odds_of",
    "own_judge",
    "read_verdict",
    "voting",
]

JUDGE = "Is the answer above right? Reply with one word, yes or no."
"""What a judge is asked, after the question and the answer."""
JUDGE_PROMPTS = {
    "yes_no": JUDGE,
    "json": (
        "Is the answer above right? Say why in one sentence, then end with one line of JSON, "
        '{"accept": true} or {"accept": false}.'
    ),
}
"""What a judge may be asked, by name; a reply to either is read by `read_verdict`."""
_KEYS = ("accept", "accepted", "correct", "right", "verdict", "valid")
_TRUE, _FALSE = (
    {"yes", "true", "1", "accept", "accepted"},
    {"no", "false", "0", "reject", "rejected"},
)
_TRIES = 3
"""Answers on which a function may fail before it has given any verdict."""


class Verdict(NamedTuple):
    """What a judge says of an answer.

    Attributes:
        accepted: whether it accepts; None if it says neither yes nor no, or failed.
        tokens: uncached tokens it read and wrote; None if they are not reported.
        votes: what it said each time, where it was asked several times.
        log_odds: of yes against no (nats), where its server gives log-probabilities; else NaN.
    """

    accepted: bool | None
    tokens: int | None = 0
    votes: tuple[bool | None, ...] = ()
    log_odds: float = math.nan


@dataclass(frozen=True)
class Itself:
    """The model that answers is its own judge.

    Attributes:
        prompt: what it is asked after question and answer.
        votes: how often it is asked of every answer.
        threshold: of which so many must accept.

    Raises:
        InputError: votes < 1, or a threshold beyond 1..votes.
    """

    prompt: str = JUDGE
    votes: int = 1
    threshold: int = 1

    def __post_init__(self) -> None:
        _check_votes(self.votes, self.threshold)


ITSELF: Literal["self"] = "self"
"""`Itself()`, by name."""
Judge = Callable[[Question, Completion], Verdict] | Itself | Literal["self"]


def judge_messages(
    question: Question, completion: Completion, prompt: str = JUDGE
) -> list[Message]:
    """The conversation in which a model is asked for a verdict."""
    return [
        {"role": "user", "content": question.text},
        {"role": "assistant", "content": completion.text},
        {"role": "user", "content": prompt},
    ]


def judge_prompt(name: str) -> str:
    """What a judge is asked, by its name in `JUDGE_PROMPTS` or from a file that holds it.

    Raises:
        InputError: neither, or an empty file.
    """
    if name in JUDGE_PROMPTS:
        return JUDGE_PROMPTS[name]
    if not Path(name).is_file():
        raise InputError(
            f"judge template is {name!r}; give {', '.join(JUDGE_PROMPTS)}, or a text file with "
            "what is asked after question and answer"
        )
    with reading(Path(name), "write it in UTF-8"):
        found = Path(name).read_text(encoding="utf-8").strip()
    if not found:
        raise InputError(f"judge template {name} is empty; write what the judge is asked")
    return found


def read_verdict(text: str) -> bool | None:
    """What a reply says: its last JSON object with a verdict, or its last "yes" or "no".

    None without any, and where the JSON says neither.
    """
    for found in reversed(re.findall(r"\{[^{}]*\}", text)):
        try:
            said = json.loads(found)
        except (ValueError, RecursionError):
            continue
        values = [value for key, value in said.items() if key.strip().lower() in _KEYS]
        if values:
            word = str(values[-1]).strip().lower()
            return True if word in _TRUE else False if word in _FALSE else None
    words = re.findall(r"\b(yes|no)\b", text.lower())
    return words[-1] == "yes" if words else None


def as_verdict(value: Any, whose: str) -> bool | None:
    """A verdict of a function: True, False, 1, 0, or None where it cannot tell.

    Raises:
        InputError: anything else; `whose` names the function.
    """
    if value is None:
        return None
    if isinstance(value, bool | int | np.bool_ | np.integer) and value in (0, 1):
        return bool(value)
    raise InputError(f"{whose} said {value!r}; return True, False or None (cannot tell)")


def combined(verdicts: Sequence[Verdict], threshold: int) -> Verdict:
    """One verdict of several on an answer: accepted where at least `threshold` of them do.

    None where those without a verdict could decide.
    """
    if len(verdicts) == 1:
        return verdicts[0]
    votes = tuple(verdict.accepted for verdict in verdicts)
    yes, unknown = votes.count(True), votes.count(None)
    known = [verdict.tokens for verdict in verdicts if verdict.tokens is not None]
    odds = [verdict.log_odds for verdict in verdicts]
    return Verdict(
        True if yes >= threshold else False if yes + unknown < threshold else None,
        sum(known) if len(known) == len(verdicts) else None,
        votes,
        math.fsum(odds) / len(odds),
    )


class _Voting:
    """A judge asked several times."""

    def __init__(
        self, judge: Callable[[Question, Completion], Verdict], votes: int, threshold: int
    ) -> None:
        self._judge, self._votes, self._threshold = judge, votes, threshold

    @property
    def notes(self) -> list[str]:
        return getattr(self._judge, "notes", [])

    def __call__(self, question: Question, completion: Completion) -> Verdict:
        each = [self._judge(question, completion) for _ in range(self._votes)]
        return combined(each, self._threshold)


def voting(
    judge: Callable[[Question, Completion], Verdict], votes: int, threshold: int
) -> Callable[[Question, Completion], Verdict]:
    """The judge asked `votes` times of every answer, of which `threshold` must accept.

    Raises:
        InputError: votes < 1, or a threshold beyond 1..votes.
    """
    _check_votes(votes, threshold)
    return judge if votes == 1 else _Voting(judge, votes, threshold)


def _check_votes(votes: int, threshold: int) -> None:
    if votes < 1:
        raise InputError(f"votes is {votes}; ask a judge at least once")
    if not 1 <= threshold <= votes:
        raise InputError(
            f"threshold is {threshold}; give how many of {votes} verdicts must accept, from 1 to "
            f"{votes}"
        )


class _Failures:
    """Why there was no verdict, counted, with the words of the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts, self._first = Counter[str](), dict[str, str]()

    def add(self, kind: str, words: str) -> None:
        self._counts[kind] += 1
        self._first.setdefault(kind, words)

    @property
    def total(self) -> int:
        return self._counts.total()

    @property
    def notes(self) -> list[str]:
        return [
            f"{self._name} {kind} {number:,} times, the first: {self._first[kind]}"
            for kind, number in self._counts.items()
        ]


class _OwnJudge:
    """A function of one's own, whose exceptions are no verdicts."""

    def __init__(self, spec: str, function: Callable[[str, str], Any]) -> None:
        self._spec, self._function = spec, function
        self._failures = _Failures(f"judge {spec!r}")
        self._ever = False

    @property
    def notes(self) -> list[str]:
        return self._failures.notes

    def __call__(self, question: Question, completion: Completion) -> Verdict:
        try:
            said = self._function(question.text, completion.text)
        except (Exception, SystemExit) as error:  # whatever a function of the user raises
            self._failures.add("failed", f"{error!r} on question {question.id!r}")
            if not self._ever and self._failures.total >= _TRIES:
                raise InputError(
                    f"judge {self._spec!r} failed on question {question.id!r}: {error!r}; it has "
                    "given no verdict so far"
                ) from error
            return Verdict(None)
        found = as_verdict(said, f"judge {self._spec!r}, of question {question.id!r},")
        self._ever = True
        return Verdict(found)


def own_judge(spec: str) -> Callable[[Question, Completion], Verdict]:
    """A judge that is a function of one's own.

    What it raises is no verdict, unless it has given none before: then the third time is an error.
    It bounds its own time.

    Args:
        spec: "module:function", of a function of the question's text and that of the completion
            that returns True, False, or None where it cannot tell.

    Raises:
        InputError: nothing of that name, no function, or one that is async; on judging, what is no
            verdict.
    """
    function = load_named(spec, "judge")
    if not callable(function):
        raise InputError(f"judge is {spec!r}, which is no function; give one of question and text")
    if inspect.iscoroutinefunction(function):
        raise InputError(
            f"judge is {spec!r}, which is async; give a plain function, which may call asyncio.run"
        )
    return _OwnJudge(spec, function)


class ServedJudge:
    """A model behind a server that speaks OpenAI's chat protocol, asked for a verdict.

    It sees the question, as one user message, and the completion. A reply without a verdict is
    none, and so is a request that fails or takes too long while the server answers another.

    Args:
        base_url: where `/chat/completions` is.
        model: what the server calls the model.
        prompt: what it is asked.
        temperature: of its replies; above 0 for several votes, which would else all be the same.
        log_odds: whether to ask for log-probabilities and read the log-odds of yes against no.
        api_key: see `msjax.llm.server.Server`.
        timeout: see `msjax.llm.server.Server`.
        patience: see `msjax.llm.server.Server`.

    Raises:
        InputError: a setting outside its range; on judging, a request that the server refuses, or
            log-probabilities that it does not give.
        ServerError: on judging, a request that failed for good where others fail as well.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        prompt: str = JUDGE,
        temperature: float = 0.0,
        log_odds: bool = False,
        api_key: str = "none",
        timeout: float = 600.0,
        patience: float = 120.0,
    ):
        from msjax.llm.engine import Sampling
        from msjax.llm.server import Server

        Sampling(temperature)
        self.model = model
        self._settings: dict[str, Any] = {"model": model, "temperature": temperature}
        if log_odds:
            self._settings |= {"logprobs": True, "top_logprobs": _MOST_LOGPROBS}
        self._prompt, self._log_odds = prompt, log_odds
        self._failures = _Failures(f"judge {model!r}")
        self._server = Server(base_url, api_key=api_key, timeout=timeout, patience=patience)
        self._client = self._server.waiting_client()

    @property
    def notes(self) -> list[str]:
        """Why there was no verdict on some answers."""
        return self._failures.notes

    def __call__(self, question: Question, completion: Completion) -> Verdict:
        """Its verdict, and the tokens it read and wrote."""
        try:
            body = self._asked(judge_messages(question, completion, self._prompt))
        except (InputError, ServerError) as error:
            if not self._answers_others():
                raise
            self._failures.add("failed", str(error))
            return Verdict(None, None)
        reply = read_reply(body)
        verdict = read_verdict(reply.text)
        if verdict is None:
            self._failures.add("said neither yes nor no", repr(reply.text[-80:]))
        odds = log_odds_of(body) if self._log_odds else math.nan
        if self._log_odds and math.isnan(reply.token_logprob):
            raise InputError(
                f"{self._server.base_url} gives no log-probabilities, which the log-odds of a "
                "verdict need; have it give them, or take another --score"
            )
        return Verdict(verdict, reply.usage.uncached, log_odds=odds)

    def _asked(self, messages: list[Message]) -> str:
        """The body of a reply."""
        import openai

        said: Any = messages
        try:
            raw = self._server.tried_in_thread(
                partial(
                    self._client.chat.completions.with_raw_response.create,
                    messages=said,
                    **self._settings,
                )
            )
        except (openai.APIError, TimeoutError) as error:
            relief = "lower concurrency or batch_size"
            raise self._server.failure(error, self.model, relief) from error
        try:
            read_reply(raw.text)
        except ValueError as error:
            raise self._server.nonsense(raw.text, str(error)) from error
        return str(raw.text)

    def _answers_others(self) -> bool:
        """Whether the server answers what no judge can fail on."""
        easy: list[Message] = [
            {"role": "user", "content": "What is 1 + 1?"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": JUDGE},
        ]
        try:
            self._asked(easy)
        except (InputError, ServerError):
            return False
        return True


_MOST_LOGPROBS = 20


def log_odds_of(body: str) -> float:
    """Log-odds of yes against no (nats) where a reply says its last yes or no.

    ln P(yes) - ln P(no) over the most probable tokens of that position, whatever their capitals
    and spaces; of a word that is not among them the least of their probabilities stands for it, so
    that the log-odds are nearer to 0 than they are. NaN without log-probabilities, or where neither
    word is said.

    Args:
        body: of a chat completion.
    """
    choice = (read_json(body).get("choices") or [{}])[0]
    tokens = (choice.get("logprobs") or {}).get("content") or []
    for token in reversed(tokens):
        if bare_word(token.get("token")) not in ("yes", "no"):
            continue
        top = [one for one in (token.get("top_logprobs") or [token]) if _finite(one)]
        if not top:
            return math.nan
        least = min(one["logprob"] for one in top)
        yes, no = (
            [one["logprob"] for one in top if bare_word(one.get("token")) == word] or [least]
            for word in ("yes", "no")
        )
        return float(np.logaddexp.reduce(yes) - np.logaddexp.reduce(no))
    return math.nan


def bare_word(token: Any) -> str:
    """A token in small letters, without what stands before and after them."""
    return re.sub(r"^[\W_]+|[\W_]+$", "", str(token).lower())


def _finite(token: Any) -> bool:
    value = token.get("logprob")
    return isinstance(value, int | float) and math.isfinite(value)
