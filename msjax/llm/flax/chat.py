"""A conversation as the model reads it: chat templates that only append, and the tokens so far."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msjax.data.messages import Message, asked
from msjax.errors import InputError
from msjax.llm.flax.gguf import is_gguf, read_gguf
from msjax.llm.flax.templates import TemplateError, render
from msjax.llm.judge import bare_word
from msjax.tasks.thoughts import is_mark, opens_thought

if TYPE_CHECKING:
    import transformers

__all__ = ["DATE", "Chat", "Transcript", "load_tokenizer"]

DATE = date(2024, 7, 26)
"""The day on which templates render that print one, so that a run says the same every day; that on
which Llama 3's falls back."""


def load_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder or a GGUF file; code that lies there is not run.

    Raises:
        InputError: it has none that can be used.
    """
    if is_gguf(folder):
        return read_gguf(folder).tokenizer()
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        _ = found.all_special_ids  # a special token that is unknown is looked up without end
        return found
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of it
        raise InputError(
            f"{folder} has no usable tokenizer ({_first_line(error)}); fetch the checkpoint again"
        ) from error


@dataclass(frozen=True)
class Transcript:
    """What has been said, and its tokens.

    Attributes:
        messages: the turns.
        rendering: the template's text of the turns before the assistant's latest.
        ids: tokens of all turns; the model's own are those it wrote.
    """

    messages: tuple[Message, ...]
    rendering: str
    ids: tuple[int, ...]


class Chat:
    """Turns conversations into tokens, by the chat template of a tokenizer.

    Args:
        tokenizer: with a chat template.
        name: of the model, for messages.
        end_tokens: ids that end the assistant's turn. The token with which the template ends it is
            one as well.

    Attributes:
        end_tokens: all of them.
        settings: a hash of the template, and the day it prints, if it prints one.
        thinking: whether the template opens the thought with which an answer begins.

    Raises:
        InputError: a tokenizer without chat template, a template that is broken or does not take
            turns of user and assistant, or no token that ends a turn.
    """

    def __init__(
        self,
        tokenizer: transformers.PreTrainedTokenizerBase,
        name: str,
        end_tokens: tuple[int, ...],
    ) -> None:
        if not tokenizer.chat_template:
            raise InputError(f"the tokenizer of {name} has no chat_template; use a chat model")
        self._tokenizer, self._name = tokenizer, name
        special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        added = tokenizer.added_tokens_decoder.items()
        special |= {token: text.content for token, text in added if text.special}
        self._dropped = {token for token, text in special.items() if not is_mark(text)}
        self._probed: dict[tuple[str, ...], str | None] = {}
        opening = asked("1 + 1")
        first = self._render(opening)
        after = self._render([*opening, _says("2"), *opening])
        template = tokenizer.chat_template
        self.settings = {"chat_template": _hash(str(template))}
        self.thinking = opens_thought(first)
        if first != self._render(opening, DATE.replace(year=DATE.year - 1)):
            self.settings["chat_date"] = DATE.isoformat()
        self.end_tokens = tuple(dict.fromkeys([*end_tokens, *self._template_end(first, after)]))
        if not self.end_tokens:
            raise InputError(
                f"{name} names no token that ends a turn, so that every answer would run to the "
                "limit; give eos_token_id in config.json"
            )

    @cached_property
    def yes_no(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tokens that say yes and tokens that say no, whatever their capitals and spaces.

        Raises:
            InputError: one of these words is no token.
        """
        ids: dict[str, list[int]] = {"yes": [], "no": []}
        for token, number in self._tokenizer.get_vocab().items():
            word = re.sub(r"[^a-z]", "", token.lower())
            # As byte-level tokenizers write it, "nÃ£o" (não) has the letters of no as well.
            if word in ids and bare_word(self._tokenizer.decode([number])) == word:
                ids[word].append(number)
        if missing := [word for word in ids if not ids[word]]:
            raise InputError(
                f"{missing[0]!r} is no token of {self._name}, so that it has no log-odds of yes "
                "against no; take another --score"
            )
        return tuple(sorted(ids["yes"])), tuple(sorted(ids["no"]))

    def begin(self, messages: Sequence[Message], *, alone: bool = False) -> Transcript:
        """A conversation of these messages, the user's last.

        Args:
            messages: what is said.
            alone: whether it is over with the answer, so that the template need not go on.

        Raises:
            InputError: the template takes no such messages, or no further ones.
        """
        rendering = self._render(messages)
        if not alone:
            self._require_appending(messages, rendering)
        return Transcript(tuple(messages), rendering, self._encode(rendering))

    def answered(self, transcript: Transcript, tokens: Sequence[int]) -> Transcript:
        """The same with the assistant's turn, of these tokens."""
        written = tokens[:-1] if tokens[-1] in self.end_tokens else tokens
        answer: Message = {"role": "assistant", "content": self.text(written)}
        return replace(
            transcript,
            messages=(*transcript.messages, answer),
            ids=(*transcript.ids, *tokens),
        )

    def go_on(self, transcript: Transcript, messages: Sequence[Message]) -> Transcript:
        """The same with more messages; the model's own tokens stay as they are.

        Raises:
            InputError: the template rewrites earlier turns.
        """
        everything = (*transcript.messages, *messages)
        rendering = self._render(everything)
        added = _added(transcript.rendering, transcript.messages[-1]["content"], rendering)
        if added is None:
            raise InputError(
                f"the chat template of {self._name} rewrites earlier turns, so the tokens so far "
                "no longer fit; use a chat_template that only appends"
            )
        if transcript.ids[-1] in self.end_tokens:
            # the model wrote the end of its turn itself
            added = added.removeprefix(str(self._tokenizer.decode([transcript.ids[-1]])))
        return Transcript(everything, rendering, (*transcript.ids, *self._encode(added)))

    def text(self, tokens: Sequence[int]) -> str:
        """What the model wrote, without special tokens but those that mark thoughts and answers."""
        kept = [token for token in tokens if token not in self._dropped]
        return str(self._tokenizer.decode(kept, clean_up_tokenization_spaces=False))

    def _require_appending(self, messages: Sequence[Message], rendering: str) -> None:
        """Raises InputError, before the model is asked, where later turns would not fit."""
        roles = tuple(message["role"] for message in messages)
        if roles not in self._probed:
            wrong = None
            for answer, what in ((_ANSWER, "rewrites earlier turns"), (_THOUGHT, _STRIPS)):
                after = self._render([*messages, _says(answer), *asked("1 + 1")])
                if _added(rendering, answer, after) is None:
                    wrong = wrong or what
            self._probed[roles] = wrong
        if self._probed[roles] is not None:
            raise InputError(
                f"the chat template of {self._name} {self._probed[roles]}, so that a revision "
                "would not continue the tokens before it; begin each revision anew (a template "
                "with new_conversation = true), draw samples, or use a chat_template that only "
                "appends"
            )

    def _template_end(self, first: str, after: str) -> list[int]:
        """The special token that the template puts behind an answer, if it does."""
        added = _added(first, "2", after)
        ids = self._encode(added) if added else ()
        special = set(self._tokenizer.all_special_ids) | set(self._tokenizer.added_tokens_decoder)
        return [token for token in ids[:1] if token in special]

    def _render(self, messages: Sequence[Message], day: date = DATE) -> str:
        try:
            return render(
                self._tokenizer.get_chat_template(),
                messages,
                self._tokenizer.special_tokens_map,
                day,
            )
        except (TemplateError, ValueError) as error:
            roles = ", ".join(dict.fromkeys(turn["role"] for turn in messages))
            says = error if isinstance(error, TemplateError) else _first_line(error)
            raise InputError(
                f"the chat template of {self._name} fails for turns of {roles} "
                f"({says}); use prompts without the role it refuses, or another chat_template"
            ) from error

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))


_ANSWER = "It is 2."
_THOUGHT = f"<think>\nOne and one.\n</think>\n\n{_ANSWER}"
_STRIPS = "strips thoughts from earlier turns"


def _says(answer: str) -> Message:
    return {"role": "assistant", "content": answer}


def _added(rendering: str, answer: str, after: str) -> str | None:
    """What stands behind an answer once the conversation went on; None if that is rewritten."""
    for written in (answer, answer.strip()):  # some templates trim what they are given
        if after.startswith(rendering + written):
            return after[len(rendering) + len(written) :]
    return None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
