"""One question through a function of the user's own: the same rules, and what came of it."""

import asyncio
import dataclasses

import pytest

import msjax
from msjax.data.messages import Completion, Message
from msjax.data.usage import Usage
from msjax.errors import InputError
from msjax.llm.revise import REVISE
from msjax.rules.fixed import fixed_rounds, until_accepted, until_repeated
from msjax.tasks.prompts import TEMPLATES
from msjax.testing import ScriptedEngine


def saying(*texts: str, usage=None):
    """An `ask` that says these texts one after the other, and all that it was asked."""
    asked: list[list[Message]] = []

    async def ask(messages):
        asked.append([dict(message) for message in messages])
        text = texts[len(asked) - 1]
        return text if usage is None else (text, usage)

    return ask, asked


def revised(*args, **settings):
    return asyncio.run(msjax.revise(*args, **settings))


def test_it_revises_until_the_rule_stops_and_says_what_it_cost():
    ask, asked = saying(
        "It is 4.", "It is 5.", "It is 5.", usage={"prompt_tokens": 20, "completion_tokens": 5}
    )
    found = revised(ask, "2 + 3?", "until_repeated", rounds=5)
    assert (found.text, found.answer, found.stop_reason) == ("It is 5.", "5", "rule")
    assert found.answers == ("4", "5", "5") and found.returned == 2
    assert found.usage.uncached == 75
    assert [m["role"] for m in asked[2]] == ["user", "assistant", "user", "assistant", "user"]
    assert asked[2][0]["content"] == "2 + 3?" and asked[2][3]["content"] == "It is 5."
    assert asked[1][2]["content"] == REVISE.revise_prompt


@pytest.mark.parametrize("parallel", [False, True])
def test_it_decides_as_a_recorded_run_does(parallel):
    """The same texts from an engine, under the same rule: the same answers are asked for."""
    texts = ["4", "5", "nothing", "5", "5", "5", "6"]
    rule = until_repeated(7, 3)
    task = msjax.Task(msjax.samples([{"question": "2 + 3", "answer": "5"}]), template="reconsider")
    kind = {"samples": 7} if parallel else {"rounds": 6}
    words = iter(texts)
    runs = msjax.run(
        task, ScriptedEngine(lambda said, key: f"It is {next(words)}."), rule=rule, **kind
    )
    ask, asked = saying(*(f"It is {text}." for text in texts))
    found = revised(ask, "2 + 3", rule, template=TEMPLATES["reconsider"], **kind)
    assert len(found.answers) == runs.recorded[0] == 6
    assert [x == "5" for x in found.answers] == runs.right[0, :6].tolist()
    assert found.answers == ("4", "5", None, "5", "5", "5")
    whole = [len(messages) for messages in asked]
    assert whole == ([1] * 6 if parallel else [1, 3, 5, 7, 9, 11])


def test_a_template_that_begins_anew_shows_the_question_and_the_answer_alone():
    ask, asked = saying("It is 4.", "no idea", "It is 4.")
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    template = TEMPLATES["step-by-step"]
    revised(ask, said, fixed_rounds(2), rounds=2, template=template)
    assert asked[0] == said
    assert asked[1][0] == said[0] and len(asked[1]) == 2
    for messages, answer in ((asked[1], "4"), (asked[2], "(none)")):
        assert messages[1]["content"] == template.revise_prompt.format(
            question="2 + 2?", answer=answer
        )


def test_a_judge_is_asked_and_counted():
    ask, _ = saying("It is 4.", "It is 5.", usage=Usage(prompt=20, cached=0, completion=5))

    async def judge(messages, text):
        assert messages[-1]["content"] == "2 + 3?"
        return "5" in text, {"prompt_tokens": 30, "completion_tokens": 1}

    found = revised(ask, "2 + 3?", "until_accepted", judge=judge)
    assert found.verdicts == (False, True) and found.stop_reason == "rule"
    assert found.usage.verifier == 62 and found.usage.uncached == 112


def test_samples_that_are_late_are_given_up_and_what_arrived_is_counted():
    begun, ended = [], []

    async def ask(messages):
        number = len(begun)
        begun.append(number)
        try:
            await asyncio.sleep(0.02 if number < 4 else 60)
        except asyncio.CancelledError:
            ended.append(number)
            raise
        return "It is 4.", Usage(prompt=10, cached=0, completion=2)

    rule = until_repeated(8, 2)
    found = revised(ask, "2 + 2?", rule, samples=8, ahead=6)
    assert found.answers == ("4", "4") and found.stop_reason == "rule"
    assert len(found.surplus) + found.cancelled == len(begun) - 2
    assert found.cancelled == len(ended) >= 2
    assert found.usage.completion == 2 * (2 + len(found.surplus))


def test_whoever_cancels_it_cancels_the_call():
    cancelled = []

    async def ask(messages):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def give_up():
        await asyncio.wait_for(msjax.revise(ask, "2 + 2?"), 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert cancelled == [True]


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 20, "output_tokens": 5, "input_token_details": {"cache_read": 8}},
        {
            "prompt_tokens": 20,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 8},
        },
        dataclasses.make_dataclass("Used", ["input_tokens", "output_tokens", "cache_read_tokens"])(
            20, 5, 8
        ),
    ],
)
def test_accounts_are_taken_as_libraries_write_them(usage):
    ask, _ = saying("It is 4.", usage=usage)
    found = revised(ask, "2 + 2?", "fixed", rounds=0)
    assert found.usage == Usage(prompt=20, cached=8, completion=5)
    ask, _ = saying("It is 4.")
    assert revised(ask, "2 + 2?", "fixed", rounds=0).usage.uncached is None


def test_completions_may_be_given_whole():
    async def ask(messages):
        return Completion("so it is \\boxed{7", -0.5, 0.1, False, Usage(), finish="length")

    found = revised(ask, "2 + 5?", "fixed", rounds=1)
    assert found.answers == (None, None) and found.answer is None and found.stop_reason == "rule"


def test_bad_input():
    ask, asked = saying("It is 4.")

    def refuses(match, *args, **settings):
        with pytest.raises(InputError, match=match):
            revised(ask, *args, **settings)

    refuses("rounds is -1; ask for at least one", "q", rounds=-1)
    refuses("samples is 0; ask for at least one", "q", samples=0)
    refuses("ahead is 0", "q", samples=2, ahead=0)
    refuses("must end with a user message", [])
    refuses("'markovscale' learns from labelled runs; give a pilot", "q", "markovscale")
    refuses("'card' needs a pilot", "q", "card")
    refuses("no judge is asked here", "q", "until_accepted")
    refuses("'asc' is for samples", "q", "asc")
    refuses("can only be replayed", "q", "dsc", samples=3)
    assert asked == []

    async def number(messages):
        return 4

    with pytest.raises(InputError, match="ask returned int; return a text"):
        revised(number, "q")

    async def unsure(messages, text):
        return "maybe"

    with pytest.raises(InputError, match="judge said 'maybe'"):
        revised(ask, "q", until_accepted(2), judge=unsure)
