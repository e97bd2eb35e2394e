"""Judges in front of a model: itself, a function of one's own, a model behind a server."""

import math
import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from conversations import plan

import msjax
from msjax.cli import main
from msjax.data.messages import Completion
from msjax.data.store import read_runs
from msjax.data.usage import Usage
from msjax.errors import InputError, ServerError
from msjax.llm.conversation import refine
from msjax.llm.judge import JUDGE, Itself, ServedJudge, Verdict, own_judge, read_verdict, voting
from msjax.llm.record import record_run
from msjax.llm.scores import token_logprob
from msjax.rules.fixed import fixed_rounds, until_accepted
from msjax.tasks.registry import BENCHMARKS
from msjax.testing import ScriptedEngine
from msjax.testing.engine import random_digit
from msjax.testing.server import MODEL, Reply, completion

NAME = "arithmetic-easy"
UNTIL = {NAME: until_accepted(3)}


def judged(path, judge, rules=UNTIL, engine=None, score=token_logprob, **changes):
    engine = engine or ScriptedEngine()
    return record_run(path, plan(**changes), rules, lambda: engine, judge=judge, score=score)


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


@pytest.mark.parametrize("votes", [1, 2])
def test_log_odds_of_the_model_itself_are_the_scores_of_its_answers(votes) -> None:
    task = BENCHMARKS[NAME]
    (question,) = task.questions(0, 1)
    found = []
    settings = {"model": "m", "seed": 0, "rounds": 1, "settings": {}, "finish": found.append}
    judge = Itself(votes=votes, threshold=1)
    talk = refine(task, question, fixed_rounds(1), **settings, judge=judge, score=None)

    def reply(text, log_odds=math.nan):
        usage = Usage(prompt=50, cached=0, completion=4)
        said = Completion(text, -0.25, 0.5, True, usage, finish="stop", log_odds=log_odds)
        return replace(said, score=turn.score(said)) if turn.score else said

    turn = next(talk)
    with pytest.raises(StopIteration):
        for odds in (1.5, -2.0):
            turn = talk.send(reply("It is 4."))
            for vote in range(votes):
                turn = talk.send(reply("yes", odds + vote))
    assert found[0].scores == ((1.5, -2.0) if votes == 1 else (2.0, -1.5))
    assert found[0].verdicts == (True, True)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Yes", True),
        ("no.", False),
        ("Is it? No... yes!", True),
        ("Nothing is known of it.", None),
        ("", None),
        ('No sign is wrong.\n{"accept": true}', True),
        ('{"accept": false}\nYes, I am sure.', False),
        ('```json\n{"why": "no", "Verdict": "YES"}\n```', True),
        ('{"accept": null}, no less', None),
        ('{"steps": 2} so yes', True),
        ('{"accept": maybe} no', False),
        ('{"accept": ' + "[" * 100_000 + "} no", False),
    ],
)
def test_a_verdict_is_that_of_the_json_or_the_last_yes_or_no(text, verdict) -> None:
    assert read_verdict(text) is verdict


def test_a_function_of_ones_own(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_judges.py").write_text(
        "def high(question, text):\n    return text[-2] in '789'\n"
        "def fails(question, text):\n    raise KeyError(question)\n"
        "def counts(question, text):\n    return 2\n"
        "def not_a_number(question, text):\n    return float('nan')\n"
        "async def later(question, text):\n    return True\n"
        "def digit(question, text):\n    import numpy as np\n"
        "    return (np.int64(1), np.True_, 0, None)[int(text[-2]) % 4]\n"
        "def often(question, text):\n    assert text[-2] in '6789', 'low'\n    return True\n"
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
    of_digits = judged(tmp_path / "c.jsonl", own_judge("my_judges:digit"))
    expected = [(True, True, False, None)[int(x) % 4] for run in of_digits for x in run.answers]
    assert [x for run in of_digits for x in run.verdicts] == expected
    with pytest.raises(InputError, match="is async; give a plain function"):
        own_judge("my_judges:later")
    for name, says in (
        ("fails", r"failed on question '\d+': KeyError.*no verdict so far"),
        ("counts", "said 2; return True"),
        ("not_a_number", "said nan; return True"),
    ):
        with pytest.raises(InputError, match=says):
            judged(tmp_path / f"{name}.jsonl", own_judge(f"my_judges:{name}"))
    with pytest.raises(InputError, match="no function"):
        own_judge("my_judges:nothing")


def test_what_a_function_raises_now_and_then_is_no_verdict(tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / "shy_judges.py").write_text(
        "def high(question, text):\n    assert text[-2] in '56789' or exit(3)\n    return True\n"
    )
    monkeypatch.chdir(tmp_path)
    runs = judged(tmp_path / "a.jsonl", own_judge("shy_judges:high"), count=12)
    verdicts = [x for run in runs for x in run.verdicts]
    assert verdicts == [x in "56789" or None for run in runs for x in run.answers]
    assert f"{verdicts.count(None)} of {len(verdicts)} answers have no verdict" in caplog.text
    assert "judge 'shy_judges:high' failed" in caplog.text


def test_several_votes_on_an_answer(tmp_path) -> None:
    def voter(said, key):
        if said[-1] != "Right?":
            return random_digit(said, key)
        return ("yes", "no", "perhaps")[int(jax.random.randint(key, (), 0, 3))]

    engine = ScriptedEngine(voter)
    path = tmp_path / "a.jsonl"
    judge = Itself("Right?", votes=3, threshold=2)
    runs = judged(path, judge, {NAME: fixed_rounds(2)}, engine=engine, count=8)
    for run in runs:
        for verdict, votes in zip(run.verdicts, run.votes, strict=True):
            yes, no = votes.count(True), votes.count(False)
            assert len(votes) == 3 and verdict is (True if yes >= 2 else False if no >= 2 else None)
        assert all(usage.verifier > 0 for usage in run.tokens)
    assert {run.verdicts for run in runs} - {(v,) * 3 for v in (True, False, None)}
    assert read_runs(path) == runs
    read = msjax.read(path)
    assert read.verdicts.tolist() == [[{None: -1}.get(v, v) for v in run.verdicts] for run in runs]
    assert read.records[0].votes == runs[0].votes
    asked = iter([True, False, True] * 99)
    twice = voting(lambda question, completion: Verdict(next(asked), 2), 3, 3)
    (run,) = judged(tmp_path / "b.jsonl", twice, count=1)
    assert set(run.verdicts) == {False} and set(run.votes) == {(True, False, True)}
    assert {usage.verifier for usage in run.tokens} == {6}
    for votes, threshold in ((0, 1), (3, 4), (3, 0)):
        with pytest.raises(InputError, match="ask a judge at least once|of 3 verdicts"):
            Itself(votes=votes, threshold=threshold)


def test_the_log_odds_of_a_served_judge_are_scores(serve, tmp_path) -> None:
    def script(number, request):
        assert request["logprobs"] and request["top_logprobs"] == 20
        tops = {"Yes": -0.3, " yes": -2.0, "No": -1.9, "Maybe": -5.0}
        listed = [{"token": token, "logprob": x} for token, x in tops.items()]
        reply = completion("Yes.")
        reply["choices"][0]["logprobs"] = {
            "content": [
                {"token": "Yes", "logprob": -0.3, "top_logprobs": listed},
                {"token": ".", "logprob": -0.1, "top_logprobs": []},
            ]
        }
        return Reply(reply)

    judge = ServedJudge(serve(script).url, "a-judge", log_odds=True)
    (run,) = judged(tmp_path / "a.jsonl", judge, score=None, count=1)
    expected = np.logaddexp(-0.3, -2.0) + 1.9
    assert run.verdicts == (True,) and run.scores == pytest.approx((expected,))
    silent = serve(lambda *_: Reply(completion("yes") | {"choices": NO_LOGPROBS}))
    with pytest.raises(InputError, match="gives no log-probabilities"):
        judged(tmp_path / "b.jsonl", ServedJudge(silent.url, "j", log_odds=True), score=None)


NO_LOGPROBS = [{"index": 0, "message": {"role": "assistant", "content": "yes"}}]


def test_a_served_judge_that_fails_on_some_answers_gives_no_verdict_on_them(
    serve, tmp_path, caplog
) -> None:
    def script(number, request):
        shown = request["messages"][1]["content"]
        if shown[-2:-1] in "01234" and shown != "2":
            return Reply({"error": {"message": "cannot"}}, status=400)
        return Reply(completion("Hmm." if "9" in shown else "yes"))

    judge = ServedJudge(serve(script).url, "a-judge", patience=0.0)
    runs = judged(tmp_path / "a.jsonl", judge, count=12)
    assert all(
        verdict is (True if answer in "5678" else None)
        for run in runs
        for verdict, answer in zip(run.verdicts, run.answers, strict=True)
    )
    assert "judge 'a-judge' failed" in caplog.text
    assert "said neither yes nor no" in caplog.text


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


@pytest.mark.slow
def test_a_threshold_of_log_odds_is_learnt_from_a_pilot_and_stops_a_run(
    serve, tmp_path, capsys
) -> None:
    """A judge that says yes to all, whose log-odds know: right answers come once, then are lost."""

    def script(number, request):
        said = [one["content"] for one in request["messages"]]
        asked = said[-1] == JUDGE
        a, b = map(int, re.findall(r"(\d) \* (\d)", said[-3] if asked else " ".join(said))[-1])
        if asked:
            no = -4.0 if said[-2] == f"It is {a * b}." else -0.5
            tops = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": no}]
            token = {"token": "Yes", "logprob": -0.1, "top_logprobs": tops}
            return Reply(completion("Yes", logprobs={"content": [token]}))
        revisions = sum(text.startswith("It is") for text in said)
        return Reply(completion(f"It is {a * b + (revisions != (a + b) % 3)}."))

    def run(name, *options):
        common = ["--benchmarks", NAME, "--rounds", "2", "--server", serve(script).url]
        return main(["run", str(tmp_path / name), *common, "--model", MODEL, *options])

    judge = ["--judge", "self", "--score", "judge"]
    assert run("pilot.jsonl", *judge, "--questions", "12") == 0
    rule = ["--rule", "until_score", "--pilot", str(tmp_path / "pilot.jsonl")]
    assert run("live.jsonl", *judge, *rule, "--start", "12", "--questions", "12") == 0
    pilot, live = (read_runs(tmp_path / name) for name in ("pilot.jsonl", "live.jsonl"))
    assert all(run.revisions == 2 and run.verdicts == (True,) * 3 for run in pilot)
    first = [run.correct.index(True) for run in pilot]
    assert set(first) == {0, 1, 2} and not all(run.right for run in pilot)
    for stopped in live:
        assert stopped.right and stopped.correct.index(True) == stopped.revisions
        assert stopped.scores[-1] == pytest.approx(3.9)
    capsys.readouterr()
    for other, says in (
        ([], "with score = judge, but this run has score = token_logprob"),
        (["--judge", "self", "--score", "confidence"], "but this run has score = confidence"),
        ([*judge, "--judge-temperature", "0.5"], "judge_temperature = none, but this run has"),
    ):
        assert run("other.jsonl", *other, *rule, "--questions", "2") == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "other.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--judge", "someone"], "give self, tests, module:function, or the name of a model"),
        (["--judge-server", "http://localhost:1/v1"], "--judge-server needs --judge NAME"),
        (["--judge", "no_such_module:judge"], "there is no module 'no_such_module'"),
        (["--rule", "until_accepted"], "no judge is asked here"),
        (["--judge-votes", "3"], "--judge-votes and --judge-template are of a --judge"),
        (["--judge", "tests", "--judge-votes", "3"], "--judge tests is asked once"),
        (["--judge", "self", "--judge-votes", "3", "--judge-threshold", "4"], "of 3 verdicts must"),
        (["--judge", "self", "--judge-votes", "3", "--temperature", "0"], "all votes equal"),
        (["--judge", "self", "--judge-template", "nowhere.txt"], "judge template is 'nowhere.txt'"),
        (["--judge", "tests", "--score", "judge"], "--score judge needs the log-probabilities"),
    ],
)
def test_bad_judges_are_refused_before_anything_is_asked(tmp_path, capsys, options, says) -> None:
    assert main(["run", str(tmp_path / "a.jsonl"), *options]) == 2
    assert says in capsys.readouterr().err
