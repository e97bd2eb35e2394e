"""Judges in front of a model: itself, a function of one's own, a model behind a server."""

import pytest
from conversations import plan

from msjax.cli import main
from msjax.data.messages import Completion
from msjax.data.usage import Usage
from msjax.errors import InputError, ServerError
from msjax.llm.conversation import refine
from msjax.llm.judge import JUDGE, ServedJudge, own_judge, read_verdict
from msjax.llm.record import record_run
from msjax.rules.fixed import fixed_rounds, until_accepted
from msjax.tasks.registry import BENCHMARKS
from msjax.testing import ScriptedEngine
from msjax.testing.engine import random_digit
from msjax.testing.server import Reply, completion

NAME = "arithmetic-easy"
UNTIL = {NAME: until_accepted(3)}


def judged(path, judge, rules=UNTIL, engine=None, **changes):
    engine = engine or ScriptedEngine()
    return record_run(path, plan(**changes), rules, lambda: engine, judge=judge)


def itself(said, key):
    """Answers a digit, and accepts what ends in one above 6."""
    if said[-1] != JUDGE:
        return random_digit(said, key)
    return "Yes." if said[-2][-2] in "789" else "No, it is not."


def accepts(answer):
    return answer in ("7", "8", "9")


def test_the_model_itself_is_asked_and_its_tokens_are_counted(tmp_path) -> None:
    engine = ScriptedEngine(itself)
    runs = judged(tmp_path / "a.jsonl", "self", engine=engine, count=12)
    plain = judged(tmp_path / "b.jsonl", None, {NAME: fixed_rounds(2)}, count=12)
    assert {len(run.answers) for run in runs} == {1, 2, 3}
    for run, full in zip(runs, plain, strict=True):
        n = len(run.answers)
        assert run.answers == full.answers[:n]  # as if nobody had been asked in between
        assert run.verdicts == tuple(accepts(answer) for answer in run.answers)
        assert not any(run.verdicts[:-1]) and (n == 3 or run.verdicts[-1])
        assert all(usage.verifier > 0 for usage in run.tokens)
        assert full.verdicts == (None,) * 3
    assert engine.asked == 2 * sum(len(run.answers) for run in runs)


def test_a_question_goes_on_with_its_own_conversation_after_the_judge() -> None:
    task = BENCHMARKS[NAME]
    (question,) = task.questions(0, 1)
    found = []
    settings = {"model": "m", "seed": 0, "rounds": 1, "settings": {}, "finish": found.append}
    talk = refine(task, question, fixed_rounds(1), **settings, judge="self")

    def reply(text):
        usage = Usage(prompt=50, cached=0, completion=4)
        return Completion(text, -0.25, 0.5, True, usage, finish="stop")

    first = next(talk)
    asked = talk.send(reply("It is 4."))
    assert asked.new_conversation
    assert [m["content"] for m in asked.messages] == [question.text, "It is 4.", JUDGE]
    second = talk.send(reply("perhaps"))
    said = [*first.messages, {"role": "assistant", "content": "It is 4."}]
    assert second.new_conversation
    assert list(second.messages) == [*said, *task.revision(question, "4")]
    talk.send(reply("It is 5."))
    with pytest.raises(StopIteration):
        talk.send(reply("no"))
    (run,) = found
    assert run.answers == ("4", "5") and run.verdicts == (None, False)
    # What the first turn had computed need not be computed again, whoever was asked since.
    assert [usage.cached for usage in run.tokens] == [0, 50]
    assert [usage.verifier for usage in run.tokens] == [54, 54]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Yes", True),
        ("no.", False),
        ("Is it? No... yes!", True),
        ("Nothing is known of it.", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_last_yes_or_no(text, verdict) -> None:
    assert read_verdict(text) is verdict


def test_a_function_of_ones_own(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_judges.py").write_text(
        "def high(question, text):\n    return text[-2] in '789'\n"
        "def fails(question, text):\n    raise KeyError(question)\n"
        "def counts(question, text):\n    return 2\n"
        "def cannot_tell(question, text):\n    return None\n"
        "nothing = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    runs = judged(tmp_path / "a.jsonl", own_judge("my_judges:high"))
    for run in runs:
        assert run.verdicts == tuple(accepts(answer) for answer in run.answers)
        assert all(usage.verifier == 0 for usage in run.tokens)
    silent = judged(tmp_path / "b.jsonl", own_judge("my_judges:cannot_tell"))
    assert all(run.verdicts == (None,) * 3 for run in silent)
    for name, says in (("fails", "failed on question '00000': KeyError"), ("counts", "said 2 of")):
        with pytest.raises(InputError, match=says):
            judged(tmp_path / f"{name}.jsonl", own_judge(f"my_judges:{name}"))
    with pytest.raises(InputError, match="no function"):
        own_judge("my_judges:nothing")


def test_a_model_behind_a_server(serve, tmp_path) -> None:
    def script(number, request):
        question, answer, last = request["messages"]
        assert last["content"] == JUDGE and request["model"] == "a-judge"
        return Reply(completion("Yes" if answer["content"][-2] in "789" else "no"))

    runs = judged(tmp_path / "a.jsonl", ServedJudge(serve(script).url, "a-judge"))
    for run in runs:
        assert run.verdicts == tuple(accepts(answer) for answer in run.answers)
        assert all(usage.verifier == 25 for usage in run.tokens)
    down = serve(lambda *_: Reply({"error": {"message": "busy"}}, status=500))
    with pytest.raises(ServerError, match="busy"):
        judged(tmp_path / "b.jsonl", ServedJudge(down.url, "a-judge", patience=0.0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--judge", "someone"], "give self, module:function, or the name of a model"),
        (["--judge-server", "http://localhost:1/v1"], "--judge-server needs --judge NAME"),
        (["--judge", "no_such_module:judge"], "there is no module 'no_such_module'"),
        (["--rule", "until_accepted"], "no judge is asked here"),
    ],
)
def test_bad_judges_are_refused_before_anything_is_asked(tmp_path, capsys, options, says) -> None:
    assert main(["run", str(tmp_path / "a.jsonl"), *options]) == 2
    assert says in capsys.readouterr().err
