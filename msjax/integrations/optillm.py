"""optillm: a plugin that revises or samples until a rule stops.

A file ``optillm/plugins/msjax.py`` in the folder where optillm is started needs one line,

    from msjax.integrations.optillm import SLUG, run

and a client asks for the model "msjax-NAME". Options come with the request, as
`extra_body={"msjax": {"rule": "vote_margin", "samples": 8}}`; they are those of `msjax.revise`.
"""

from __future__ import annotations

from typing import Any

from msjax.data.messages import Completion, Message, asked
from msjax.errors import InputError
from msjax.llm.concurrency import to_thread
from msjax.llm.replies import read_reply
from msjax.llm.revise import revise

__all__ = ["SLUG", "run"]

SLUG = "msjax"
_OPTIONS = {"rule": str, "rounds": int, "samples": int, "scorer": str}
_NOT_SENT = {"msjax", "stream", "n", "messages", "model", "optillm_approach"}


async def run(
    system_prompt: str,
    initial_query: str,
    client: Any,
    model: str,
    request_config: dict[str, Any] | None = None,
) -> tuple[str, int]:
    """The text that the rule returns, and the completion tokens of all calls (0: not reported).

    Args:
        system_prompt: of the conversation, "" for none.
        initial_query: what is asked.
        client: an OpenAI client, or what optillm has in its place.
        model: asked.
        request_config: parameters of the request; all but ours go into every call.

    Raises:
        InputError: options that are unknown, or a rule that needs labelled runs.
    """
    request = dict(request_config or {})
    extra = request.get("extra_body") or {}
    options = request.get("msjax") or extra.get("msjax") or {}
    for name, value in options.items():
        if name not in _OPTIONS or not isinstance(value, _OPTIONS[name]):
            raise InputError(f"msjax.{name} is {value!r}; options are {', '.join(_OPTIONS)}")
    sent = {name: value for name, value in request.items() if name not in _NOT_SENT}
    if extra:
        sent["extra_body"] = {name: value for name, value in extra.items() if name != "msjax"}

    async def ask(messages: list[Message]) -> Completion:
        reply = await to_thread(
            lambda: client.chat.completions.create(model=model, messages=messages, **sent)
        )
        body = reply if isinstance(reply, str) else reply.model_dump_json()
        read = read_reply(body)
        return Completion(
            read.text,
            read.token_logprob,
            float("nan"),
            read.finished,
            read.usage,
            finish=read.finish,
            reasoning=read.reasoning,
        )

    system: list[Message] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    found = await revise(ask, [*system, *asked(initial_query)], **options)
    return found.text, found.usage.completion or 0
