"""Templates: three by name, the user's own from a file, and what is wrong with a bad one."""

import json

import pytest

from msjax.errors import InputError
from msjax.tasks.prompts import TEMPLATES, Template, find_template


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_asks_for_a_box_and_shows_the_previous_answer(name) -> None:
    template = find_template(name)
    first = template.first_prompt.format(question="What is {x}?")
    again = template.revise_prompt.format(question="What is {x}?", answer="41")
    assert "What is {x}?" in first
    assert r"\boxed{}" in first
    assert r"\boxed{}" in again
    assert "41" in again
    assert "41" not in first


def test_templates_are_read_from_toml_and_json(tmp_path) -> None:
    expected = Template("{question} Use \\boxed{{}}.", "Sure about {answer}?", "Be brief.")
    toml = tmp_path / "mine.toml"
    toml.write_text(
        "first_prompt = '{question} Use \\boxed{{}}.'\n"
        "revise_prompt = 'Sure about {answer}?'\nsystem = 'Be brief.'\n"
    )
    as_json = tmp_path / "mine.json"
    as_json.write_text(json.dumps(vars(expected)))
    assert find_template(toml) == find_template(str(as_json)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_prompt": "{problem}"}, r"first_prompt has the placeholder {problem}, .* unknown"),
        ({"first_prompt": "{question} {answer}"}, r".* placeholder {answer}"),
        ({"first_prompt": r"{question} \boxed{}"}, r".* placeholder {}.*double braces"),
        ({"first_prompt": "{question!r}"}, r".* placeholder {question!r}"),
        ({"first_prompt": "{question.upper}"}, r".* placeholder {question.upper}"),
        ({"revise_prompt": "{answer:>9}"}, r".* placeholder {answer:>9}"),
        ({"revise_prompt": "so {"}, r"revise_prompt is 'so {'.*double braces"),
        ({"system": "{question}"}, r"system has the placeholder {question}.* have none"),
        ({"first_prompt": "Well?"}, "first_prompt is 'Well\\?', which never asks"),
        ({"first_prompt": 3}, "first_prompt is 3; write it as text"),
        ({"afresh": True}, "afresh is called new_conversation now; rename it"),
        ({"new_conversation": "yes"}, "new_conversation is 'yes'; write true or false"),
        (
            {"new_conversation": True, "revise_prompt": "{answer}?"},
            "revise_prompt is '{answer}\\?', which never",
        ),
        ({"first": "x"}, "field 'first' is unknown; known are first_prompt"),
    ],
)
def test_bad_fields_are_named(tmp_path, changes, message) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"first_prompt": "{question}", "revise_prompt": "?"} | changes))
    with pytest.raises(InputError, match=f"mine.json: {message}"):
        find_template(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{"first_prompt": "{question}"}', "revise_prompt is missing; add it"),
        ("a.json", b"[]", "is a list; write an object"),
        ("a.json", b"{", "not JSON"),
        ("a.toml", b"first_prompt", "not TOML"),
        ("a.toml", b"\xff", "not TOML in UTF-8"),
        ("a.toml", None, "no such file"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: {message}"):
        find_template(tmp_path / name)


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(InputError, match="template 'soms' is unknown; known are reconsider"):
        find_template("soms")
