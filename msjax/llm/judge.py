"""Judges in front of a model: who says whether an answer is accepted, and how that is asked.

A judge is called with question and completion and gives a `Verdict`: `ServedJudge` asks a model
behind a server, `own_judge` a function of one's own. With `ITSELF` in place of a judge the model
that answers is asked, in a conversation of its own (`msjax.llm.conversation`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from msjax._io import load_named
from msjax.data.messages import Completion, Message
from msjax.errors import InputError
from msjax.llm.replies import read_reply
from msjax.tasks.benchmark import Question

__all__ = [
    "ITSELF",
    "JUDGE",
    "Judge",
    "ServedJudge",
    "Verdict",
    "judge_messages",
    "own_judge",
    "read_verdict",
]

JUDGE = "Is the answer above right? Reply with one word, yes or no."
"""What a judge is asked, after the question and the answer."""


class Verdict(NamedTuple):
    """What a judge says of an answer.

    Attributes:
        accepted: whether it accepts; None if it says neither yes nor no.
        tokens: uncached tokens it read and wrote; None if they are not reported.
    """

    accepted: bool | None
    tokens: int | None = 0


ITSELF: Literal["self"] = "self"
"""The model that answers is its own judge."""
Judge = Callable[[Question, Completion], Verdict] | Literal["self"]


def judge_messages(question: Question, completion: Completion) -> list[Message]:
    """The conversation in which a model is asked for a verdict."""
    return [
        {"role": "user", "content": question.text},
        {"role": "assistant", "content": completion.text},
        {"role": "user", "content": JUDGE},
    ]


def read_verdict(text: str) -> bool | None:
    """The last "yes" or "no" of a reply; None without either."""
    words = re.findall(r"\b(yes|no)\b", text.lower())
    return words[-1] == "yes" if words else None


def own_judge(spec: str) -> Judge:
    """A judge that is a function of one's own.

    Args:
        spec: "module:function", of a function of the question's text and that of the completion
            that returns True, False, or None where it cannot tell.

    Raises:
        InputError: nothing of that name, or no function; on judging, an exception of the function,
            or what is no verdict.
    """
    function = load_named(spec, "judge")
    if not callable(function):
        raise InputError(f"judge is {spec!r}, which is no function; give one of question and text")

    def judge(question: Question, completion: Completion) -> Verdict:
        try:
            found = function(question.text, completion.text)
        except Exception as error:  # whatever a function of the user raises
            raise InputError(
                f"judge {spec!r} failed on question {question.id!r}: {error!r}"
            ) from error
        if found is not None and not isinstance(found, bool | np.bool_):
            raise InputError(
                f"judge {spec!r} said {found!r} of question {question.id!r}; return True, False or "
                "None (cannot tell)"
            )
        return Verdict(None if found is None else bool(found))

    return judge


class ServedJudge:
    """A model behind a server that speaks OpenAI's chat protocol, asked for yes or no.

    It sees the question, as one user message, and the completion. A reply without yes or no is no
    verdict.

    Args:
        base_url: where `/chat/completions` is.
        model: what the server calls the model.
        api_key: see `msjax.llm.server.Server`.
        timeout: see `msjax.llm.server.Server`.
        patience: see `msjax.llm.server.Server`.

    Raises:
        InputError: a setting outside its range; on judging, a request that the server refuses.
        ServerError: on judging, a request that failed for good, or a reply that is none.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "none",
        timeout: float = 600.0,
        patience: float = 120.0,
    ):
        from msjax.llm.server import Server

        self.model = model
        self._server = Server(base_url, api_key=api_key, timeout=timeout, patience=patience)
        self._client = self._server.waiting_client()

    def __call__(self, question: Question, completion: Completion) -> Verdict:
        """Its verdict, and the tokens it read and wrote."""
        import openai

        messages: Any = judge_messages(question, completion)
        try:
            raw = self._server.tried_in_thread(
                partial(
                    self._client.chat.completions.with_raw_response.create,
                    model=self.model,
                    messages=messages,
                    temperature=0.0,
                )
            )
        except (openai.APIError, TimeoutError) as error:
            relief = "lower concurrency or batch_size"
            raise self._server.failure(error, self.model, relief) from error
        try:
            reply = read_reply(raw.text)
        except ValueError as error:
            raise self._server.nonsense(raw.text, str(error)) from error
        return Verdict(read_verdict(reply.text), reply.usage.uncached)
