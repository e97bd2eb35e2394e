"""The process in which chat templates run, one request per line; see `templates`.

A template is a program that comes with a model. Here it has neither the files nor the memory of the
process that asks, and a bounded time. It is run as a script and imports nothing of this package.
"""

import json
import signal
import sys
from datetime import date
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 2**29  # bytes
MOST_TEXT = 2**25  # characters of a rendering


class _Generation(Extension):
    """Templates may mark what the assistant says; nothing is made of it."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 wants it

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def serve() -> None:
    """Answers {"template", "values", "day", "seconds"} by {"text"} or {"error"}, line by line."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(_reply(line), file=replies, flush=True)
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_PROF, 0.0)


def _reply(line: str) -> str:
    try:
        asked = json.loads(line)
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_PROF, asked["seconds"])
        day = date.fromisoformat(asked["day"])
        text = _compiled(asked["template"]).render(**asked["values"], strftime_now=day.strftime)
        if len(text) > MOST_TEXT:
            raise ValueError(f"it prints more than {MOST_TEXT} characters")
        return json.dumps({"text": text})
    except MemoryError:
        return json.dumps({"error": f"MemoryError: it needs more than {MEMORY >> 20} MB"})
    except Exception as error:
        said = str(error).strip().splitlines() or [""]
        return json.dumps({"error": f"{type(error).__name__}: {said[0][:200]}".rstrip(": ")})


@lru_cache(maxsize=4)
def _compiled(template: str) -> jinja2.Template:
    """A template in the environment that `transformers` gives to them."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _as_json
    environment.globals["raise_exception"] = _fail
    return environment.from_string(template)


def _fail(message: str) -> None:
    raise jinja2.TemplateError(message)


def _as_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


if __name__ == "__main__":
    serve()
