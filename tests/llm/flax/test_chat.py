"""Chat templates of others: what goes wrong is named before a model is asked."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from msjax.data.messages import asked
from msjax.errors import InputError
from msjax.llm.flax import templates
from msjax.llm.flax.chat import DATE, Chat, load_tokenizer

FOLDER = Path(__file__).parents[2] / "fixtures" / "tiny_llama" / "tied"
TURN = "<|im_start|>{{ m['role'] }}\n{{ %s }}<|im_end|>\n"
PLAIN = (
    "{% for m in messages %}"
    + TURN % "m['content']"
    + "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = [{"role": "system", "content": "be brief"}, *asked("1 + 1")]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(FOLDER)


def chat_with(tokenizer, template, end_tokens=()) -> Chat:
    tokenizer.chat_template = template
    return Chat(tokenizer, "tiny", end_tokens)


BROKEN = {
    "none": (None, "has no chat_template"),
    "syntax": ("{% for m in messages %}", "fails for turns of user"),
    "a mistake": ("{{ messages[0].content.nothing() }}", "fails for turns of user"),
    "names without a default": ({"tool_use": PLAIN}, "fails for turns of user"),
    "a division": ("{{ 1 / 0 }}", "ZeroDivisionError"),
    "no assistant": (
        PLAIN.replace("}<|im_start|>", "}{% if m['role'] == 'assistant' %}"
                      "{{ raise_exception('users only') }}{% endif %}<|im_start|>", 1),
        "turns of user, assistant .*users only",
    ),
}  # fmt: skip


HOSTILE = {
    "loops": ("{% for i in range(9999) %}" * 4 + "{% endfor %}" * 4, "seconds of processor time"),
    "a long text": ("{{ 'a' * 2000000000 }}", "MemoryError"),
    "doubling": (
        "{% set n = namespace(t='a' * 9999) %}{% for i in range(40) %}{% set n.t = n.t ~ n.t %}"
        "{% endfor %}{{ n.t }}",
        "MemoryError|seconds",  # whichever comes first
    ),
    "no end of text": ("{{ 'a' * 34000000 }}", "prints more than"),
    "a way out": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
    "files": ("{% include '/etc/passwd' %}", "no loader"),
}


@pytest.mark.parametrize(("template", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_bounded_in_time_and_memory(
    tokenizer, monkeypatch, template, message
) -> None:
    monkeypatch.setattr(templates, "SECONDS", 0.3 if "range(9999)" in template else 5.0)
    with pytest.raises(InputError, match=message):
        chat_with(tokenizer, template)
    monkeypatch.undo()
    assert chat_with(tokenizer, PLAIN).begin(asked("1 + 1")).ids


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no timer of processor time")
def test_a_template_does_not_outlive_the_process_that_asked(tmp_path) -> None:
    loops = HOSTILE["loops"][0]
    asked_ = {"template": loops, "values": {}, "day": "2024-07-26", "seconds": 0.3}
    script = Path(templates.__file__).with_name("template_process.py")
    orphan = subprocess.Popen(
        [sys.executable, "-P", script], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    orphan.stdin.write(json.dumps(asked_) + "\n")
    orphan.stdin.close()  # as the system does when the other end dies
    assert orphan.wait(60) == -signal.SIGPROF


@pytest.mark.parametrize("name", ["tiny_llama/tied", "tiny_qwen3/untied"])
def test_templates_render_as_transformers_renders_them(name) -> None:
    tokenizer = load_tokenizer(FOLDER.parents[1] / name)
    tokenizer.chat_template = (
        "{{ bos_token }}{% generation %}{{ messages | tojson(indent=1) }}{% endgeneration %}\n"
        "  {% for m in messages %}\n{% if loop.index > 2 %}{% break %}{% endif %}"
        "{{ m.content | trim }}{% endfor %}{{ eos_token }}{{ tools is none }}"
        "{% if add_generation_prompt %}é{% endif %}"
    )
    turns = [*SYSTEM, {"role": "assistant", "content": " <2> "}]
    wanted = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer.special_tokens_map
    assert templates.render(tokenizer.chat_template, turns, tokens, DATE) == wanted


@pytest.mark.parametrize(("template", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_template_is_named_in_one_line(tokenizer, template, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        chat_with(tokenizer, template)
    assert "\n" not in str(caught.value)


def test_a_role_that_a_template_refuses_is_named(tokenizer) -> None:
    refusing = (
        "{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN
    )
    chat = chat_with(tokenizer, refusing)
    assert chat.begin(asked("1 + 1")).ids
    with pytest.raises(InputError, match=r"turns of system, user .*System role not supported"):
        chat.begin(SYSTEM)


STRIPS = PLAIN.replace("m['content']", "m['content'].split('</think>')[-1].lstrip()")
OPENS = PLAIN.replace("assistant\n{%", "assistant\n<think>\n{%")
REWRITES = PLAIN.replace("messages %}", "messages %}{% if loop.last or m['role'] == 'user' %}")
REWRITES = REWRITES.replace("{% endfor", "{% endif %}{% endfor")
LATER = {
    "strips thoughts": (STRIPS, "strips thoughts from earlier turns"),
    "opens a thought": (OPENS, "rewrites earlier turns"),
    "leaves turns out": (REWRITES, "rewrites earlier turns"),
}


@pytest.mark.parametrize(("template", "message"), LATER.values(), ids=LATER)
def test_a_template_that_does_not_append_is_refused_before_the_first_turn(
    tokenizer, template, message
) -> None:
    chat = chat_with(tokenizer, template, (2,))
    for opening in (asked("1 + 1"), SYSTEM):
        with pytest.raises(InputError, match=message):
            chat.begin(opening)
        assert chat.begin(opening, alone=True).ids


def test_a_template_may_open_the_thought_with_which_an_answer_begins(tokenizer) -> None:
    assert chat_with(tokenizer, OPENS, (2,)).thinking
    assert not chat_with(tokenizer, PLAIN, (2,)).thinking
    closed = OPENS.replace("<think>\n", "<think>\n\n</think>\n")
    assert not chat_with(tokenizer, closed, (2,)).thinking


def test_marks_of_thoughts_are_kept_where_they_are_special_tokens() -> None:
    tokenizer = load_tokenizer(FOLDER)
    special = {"additional_special_tokens": ["[THINK]", "[/THINK]", "<|other|>"]}
    tokenizer.add_special_tokens(special)
    written = tokenizer.encode("[THINK]3[/THINK]4<|other|>", add_special_tokens=False)
    assert chat_with(tokenizer, PLAIN).text(written).replace(" ", "") == "[THINK]3[/THINK]4"


def test_templates_print_the_same_day_every_day(tokenizer) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}" + PLAIN
    chat = chat_with(tokenizer, dated)
    first = chat.begin(asked("1 + 1"))
    assert first.rendering.startswith("26 Jul 2024")
    assert chat.settings["chat_date"] == "2024-07-26"
    assert "chat_date" not in chat_with(tokenizer, PLAIN).settings
    assert chat.settings != chat_with(tokenizer, PLAIN + "{# other #}").settings


def test_an_answer_ends_with_what_the_template_puts_behind_it(tokenizer) -> None:
    (end,) = tokenizer.encode("<|im_end|>", add_special_tokens=False)
    assert chat_with(tokenizer, PLAIN).end_tokens == (end,)
    assert chat_with(tokenizer, PLAIN, (end, 1)).end_tokens == (end, 1)
    spoken = PLAIN.replace("<|im_end|>\n", "\n")
    assert chat_with(tokenizer, spoken, (1,)).end_tokens == (1,)
    with pytest.raises(InputError, match="names no token that ends a turn"):
        chat_with(tokenizer, spoken)


def test_a_tokenizer_that_is_none_is_named(tmp_path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(InputError, match="no usable tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_token_that_is_looked_up_without_end_is_refused(tmp_path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "model")
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"<|endoftext|>"', '""'))
    with pytest.raises(InputError, match="no usable tokenizer .RecursionError"):
        load_tokenizer(folder)
