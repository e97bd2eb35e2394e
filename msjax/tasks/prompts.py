r"""Prompt templates: three by name, and more from a file.

Templates are filled in by `str.format`: ``{question}`` and ``{answer}`` are replaced, braces
meant literally are doubled, as in ``\boxed{{}}``.
"""

import json
import string
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from msjax.errors import InputError

__all__ = ["NO_ANSWER", "TEMPLATES", "Template", "find_template"]

NO_ANSWER = "(none)"
"""What a revision shows where the previous completion had no answer."""

_PLACEHOLDERS = {
    "first_prompt": ("question",),
    "revise_prompt": ("question", "answer"),
    "system": (),
}


@dataclass(frozen=True)
class Template:
    """What is said to a model.

    Attributes:
        first_prompt: the first user message; has {question}.
        revise_prompt: every later user message; may have {question} and {answer}, the answer
            extracted from the previous completion.
        system: the system message; empty: none is sent.
        new_conversation: whether every revision is a conversation anew rather than one more turn.

    Raises:
        InputError: a placeholder that is unknown or missing, or a single brace.
    """

    first_prompt: str
    revise_prompt: str
    system: str = ""
    new_conversation: bool = False

    def __post_init__(self) -> None:
        for name, known in _PLACEHOLDERS.items():
            _check_placeholders(name, getattr(self, name), known)
        begins = ("first_prompt", "revise_prompt") if self.new_conversation else ("first_prompt",)
        for name in begins:
            prompt = getattr(self, name)
            if "{question}" not in prompt:
                raise InputError(f"{name} is {prompt!r}, which never asks; put {{question}} in it")


def _check_placeholders(name: str, text: str, known: tuple[str, ...]) -> None:
    allowed = " and ".join(f"{{{placeholder}}}" for placeholder in known) or "none"
    remedy = f"{name} may have {allowed}; double braces that are meant literally, {{{{ and }}}}"
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise InputError(f"{name} is {text!r}: {error}; {remedy}") from None
    for _, placeholder, form, conversion in parts:
        if placeholder is not None and (placeholder not in known or form or conversion):
            written = placeholder + (f"!{conversion}" if conversion else "")
            written += f":{form}" if form else ""
            raise InputError(
                f"{name} has the placeholder {{{written}}}, which is unknown; {remedy}"
            )


_BOXED = "write the final answer in \\boxed{{}}."

TEMPLATES = {
    "reconsider": Template(
        first_prompt="{question}\n\nAnswer the question and " + _BOXED,
        revise_prompt=(
            "{question}\n\nYour previous answer was: {answer}\n\nReconsider it. Keep it if it "
            "holds, replace it if it does not, and " + _BOXED
        ),
    ),
    "step-by-step": Template(
        first_prompt="{question}\n\nReason step by step, then " + _BOXED,
        revise_prompt=(
            "{question}\n\nAn earlier attempt arrived at: {answer}\n\nSolve the question anew, "
            "step by step, then " + _BOXED
        ),
        new_conversation=True,
    ),
    "critique": Template(
        first_prompt="{question}\n\nReason step by step, then " + _BOXED,
        revise_prompt=(
            "{question}\n\nYour previous answer was: {answer}\n\nFirst criticise it: say which "
            "step or assumption is most likely to be wrong, and check it. Then answer the question "
            "again and " + _BOXED
        ),
    ),
}
"""Templates by name, in our own words.

reconsider shows the previous answer and asks to think again (MarkovScale); step-by-step asks for
reasoning and a boxed answer, and asks again in a conversation anew that shows only the previous
answer (OptScale's MR-Thinking; its first prompt is also what OptPO samples from); critique asks for
criticism first. All but step-by-step keep the earlier turns.
"""


def find_template(name_or_path: str | Path) -> Template:
    """A template by name, or from a TOML or JSON file.

    A file has the fields first_prompt and revise_prompt, and maybe system, all text, and maybe
    new_conversation, true or false.

    Raises:
        InputError: an unknown name, a file that cannot be read, an unknown or missing field, a
            field of another type, or a bad placeholder.
    """
    path = Path(name_or_path)
    if path.suffix.lower() not in (".toml", ".json"):
        if str(name_or_path) in TEMPLATES:
            return TEMPLATES[str(name_or_path)]
        raise InputError(
            f"template {str(name_or_path)!r} is unknown; known are {', '.join(TEMPLATES)}, or name "
            "a .toml or .json file"
        )
    found = _read_fields(path)
    names = [field.name for field in fields(Template)]
    for name, value in found.items():
        if name == "afresh":
            raise InputError(f"{path}: afresh is called new_conversation now; rename it")
        if name not in names:
            raise InputError(f"{path}: field {name!r} is unknown; known are {', '.join(names)}")
        if name == "new_conversation":
            if not isinstance(value, bool):
                raise InputError(f"{path}: new_conversation is {value!r}; write true or false")
        elif not isinstance(value, str):
            raise InputError(f"{path}: {name} is {value!r}; write it as text, in quotes")
    for name in ("first_prompt", "revise_prompt"):
        if name not in found:
            raise InputError(f"{path}: {name} is missing; add it")
    try:
        return Template(**found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _read_fields(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; name one of {', '.join(TEMPLATES)}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # of UTF-8, TOML and JSON
        raise InputError(f"{path}: not {path.suffix[1:].upper()} in UTF-8 ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: is a {type(found).__name__}; write an object with named fields")
    return found
