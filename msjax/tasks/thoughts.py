"""What a completion says aloud: thoughts, channels and tags taken away."""

import re
from typing import NamedTuple

__all__ = ["Spoken", "closes_thought", "is_mark", "opens_thought", "spoken"]

_NAMES = r"(?:seed:)?(?:think|thinking|thoughts?|reasoning|scratchpad|analysis)"
_OPEN = re.compile(
    rf"<\s*{_NAMES}(?:\s[^<>\n]{{0,80}})?>|\[THINK\]|◁think▷"
    r"|<\|(?:begin_of_thought|start_thinking|thinking|think)\|>|<start_working_out>",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"<\s*/\s*{_NAMES}\s*>|\[/THINK\]|◁/think▷"
    r"|<\|(?:end_of_thought|end_thinking|/thinking|/think)\|>|<end_working_out>",
    re.IGNORECASE,
)
# What ends a prompt that leaves its thought open, a few words of it included.
_LEFT_OPEN = re.compile(
    rf"(?:{_OPEN.pattern}|<\|channel\|>\s*analysis[^<\n]*<\|message\|>)[^<>]{{0,80}}\Z",
    re.IGNORECASE,
)
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)[^<\n]*(?:<\|constrain\|>[^<\n]*)?<\|message\|>", re.IGNORECASE
)
_CHANNEL_MARK = re.compile(r"<\|(?:channel|constrain|message|start|end)\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>", re.IGNORECASE)
# The same channels after a tokenizer has dropped its special tokens.
_BARE_ANALYSIS = re.compile(r"\s*analysis(?=[A-Z\d\\\"'$(*]|\s*\n)")
_BARE_FINAL = re.compile(r"(?:assistant\s*final|\bassistant\s*\n\s*final)(?![a-z])")
_ANSWER_OPEN = re.compile(
    r"<\s*(?:final_?)?(?:answer|solution)\s*>|<\|begin_of_solution\|>|<\|start_response\|>",
    re.IGNORECASE,
)
_ANSWER_CLOSE = re.compile(
    r"<\s*/\s*(?:final_?)?(?:answer|solution)\s*>|<\|end_of_solution\|>|<\|end_response\|>",
    re.IGNORECASE,
)
_END = re.compile(
    r"<\|(?:im_end|eot_id|endoftext|end_of_text|eom_id|return|end_of_turn|end)\|>|</s>"
    r"|<end_of_turn>|<eos>|<｜end▁of▁sentence｜>"
)


class Spoken(NamedTuple):
    """What a completion says aloud.

    Attributes:
        text: without thoughts and tags.
        tagged: whether it stood in the tag of an answer.
        closed: whether that tag closed, so that it is whole even in a completion that was cut.
    """

    text: str
    tagged: bool = False
    closed: bool = False


def is_mark(text: str) -> bool:
    """Whether a token's text says where thoughts, channels or answers begin and end."""
    marks = (_OPEN, _CLOSE, _CHANNEL_MARK, _ANSWER_OPEN, _ANSWER_CLOSE)
    return any(mark.fullmatch(text) for mark in marks)


def closes_thought(text: str) -> bool:
    """Whether a completion closes a thought that it did not open, so that its prompt did."""
    closed, opened = _CLOSE.search(text), _OPEN.search(text)
    return closed is not None and (opened is None or opened.start() > closed.start())


def opens_thought(prompt: str) -> bool:
    """Whether a prompt, as the model was given it, ends inside a thought that it opened."""
    return _LEFT_OPEN.search(prompt[-200:]) is not None


def spoken(text: str, thinking: bool = False) -> Spoken | None:
    """What a completion says aloud, None if it is a thought that never closed.

    That is what follows the last closing tag of a thought (the opening one may have stood in the
    prompt), or the final channel; and of that the content of the last ``<answer>`` or
    ``<solution>``, if there is one, up to the first end token.

    Args:
        text: the whole completion, cleaned.
        thinking: whether the prompt had opened a thought already.
    """
    channels = list(_CHANNEL.finditer(text))
    final: re.Match[str] | None = None
    if channels:
        last = [found for found in channels if found[1].lower() == "final"]
        if not last:
            return None
        rest = text[last[-1].end() :]
        ended = _CHANNEL_END.search(rest)
        text = rest[: ended.start()] if ended else rest
    elif _BARE_ANALYSIS.match(text):
        *_, final = (None, *_BARE_FINAL.finditer(text))
        if final is None:
            return None
        text = text[final.end() :]
    *_, closed = (None, *_CLOSE.finditer(text))
    rest = text if closed is None else text[closed.end() :]
    within = thinking and closed is None and not channels and final is None
    if within or _OPEN.search(rest):
        return None
    if ended := _END.search(rest):
        rest = rest[: ended.start()]
    *_, opened = (None, *_ANSWER_OPEN.finditer(rest))
    if opened is None:
        return Spoken(rest)
    rest = rest[opened.end() :]
    ended = _ANSWER_CLOSE.search(rest)
    return Spoken(rest[: ended.start()], True, True) if ended else Spoken(rest, True)
