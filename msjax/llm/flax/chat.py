"""A conversation as the model reads it: chat templates that only append, and the tokens so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from msjax.data.messages import Message
from msjax.errors import InputError

__all__ = ["Chat", "Transcript", "load_tokenizer"]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder.

    Raises:
        InputError: it has none that can be used.
    """
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} has no usable tokenizer ({error}); fetch the checkpoint again"
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
        end_tokens: ids that end the assistant's turn.

    Raises:
        InputError: a tokenizer without chat template.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, name: str, end_tokens: tuple[int, ...]
    ) -> None:
        if not tokenizer.chat_template:
            raise InputError(f"the tokenizer of {name} has no chat_template; use a chat model")
        self._tokenizer, self._name, self._end_tokens = tokenizer, name, end_tokens

    def begin(self, messages: Sequence[Message]) -> Transcript:
        """A conversation of these messages, the user's last."""
        rendering = self._render(messages)
        return Transcript(tuple(messages), rendering, self._encode(rendering))

    def answered(self, transcript: Transcript, tokens: Sequence[int]) -> Transcript:
        """The same with the assistant's turn, of these tokens."""
        written = tokens[:-1] if tokens[-1] in self._end_tokens else tokens
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
        answer = transcript.messages[-1]["content"]
        for written in (answer, answer.strip()):  # some templates trim what they are given
            prefix = transcript.rendering + written
            if rendering.startswith(prefix):
                break
        else:
            raise InputError(
                f"the chat template of {self._name} rewrites earlier turns, so the tokens so far "
                "no longer fit; use a chat_template that only appends"
            )
        added = rendering[len(prefix) :]
        if transcript.ids[-1] in self._end_tokens:
            # the model wrote the end of its turn itself
            added = added.removeprefix(str(self._tokenizer.decode([transcript.ids[-1]])))
        return Transcript(everything, rendering, (*transcript.ids, *self._encode(added)))

    def text(self, tokens: Sequence[int]) -> str:
        """What the model wrote, without special tokens."""
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _render(self, messages: Sequence[Message]) -> str:
        turns = [dict[str, str](role=turn["role"], content=turn["content"]) for turn in messages]
        return str(
            self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        )

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))
