"""The loop, with a scripted engine: what is asked, recorded, resumed, and never asked twice."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conversations import plan

from msjax.cli.tables import comparison_table
from msjax.data.messages import Completion, Score
from msjax.data.store import read_runs
from msjax.data.usage import Usage
from msjax.errors import InputError
from msjax.evaluate.paired import compare
from msjax.evaluate.summary import summarise
from msjax.llm.conversation import question_key
from msjax.llm.record import record_run
from msjax.rules.fixed import fixed_rounds, self_consistency
from msjax.rules.protocol import Decision, StoppingRule
from msjax.tasks.benchmark import Task
from msjax.tasks.registry import BENCHMARKS
from msjax.testing import ScriptedEngine

RULES = dict.fromkeys(("arithmetic-easy", "arithmetic-hard"), fixed_rounds(2))


def record(path, engine, rules=RULES, **changes):
    return record_run(path, plan(**changes), rules, lambda: engine)


def test_every_round_asks_to_revise_and_is_recorded(tmp_path) -> None:
    engine = ScriptedEngine()
    runs = record(tmp_path / "runs.jsonl", engine)
    assert [(r.benchmark, r.question_id) for r in runs] == [
        (name, f"{i:05d}") for name in RULES for i in range(5)
    ]
    assert all(run.revisions == 2 and run.stop_reason == "rule" for run in runs)
    assert engine.asked == 10 * 3
    benchmark = BENCHMARKS["arithmetic-easy"]
    first = engine.conversations[0]
    examples = 2 * len(benchmark.examples)
    question = benchmark.questions(0, 1)[0].text
    assert first[examples] == benchmark.template.first_prompt.format(question=question)
    assert first[examples + 2] == benchmark.template.revise_prompt.format(question=question)
    assert len(first) == examples + 6
    assert runs == read_runs(tmp_path / "runs.jsonl")


def test_what_stays_in_memory_may_be_without_texts(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    whole = record(path, ScriptedEngine())
    engine = ScriptedEngine()
    kept = record_run(path, plan(), RULES, lambda: engine, texts=False)
    assert engine.asked == 0 and read_runs(path) == whole
    assert {text for run in kept for text in run.completions} == {"I"}
    assert [run.answers for run in kept] == [run.answers for run in whole]


def test_grading_is_the_datasets_own(tmp_path) -> None:
    for run in record(tmp_path / "runs.jsonl", ScriptedEngine(), count=20):
        assert run.correct == tuple(answer == run.gold for answer in run.answers)
        assert eval(run.question) == int(run.gold)


def test_neither_batches_nor_company_change_an_answer(tmp_path) -> None:
    alone = record(tmp_path / "a.jsonl", ScriptedEngine(batch_size=1))
    together = record(tmp_path / "b.jsonl", ScriptedEngine(batch_size=64))
    later = record(tmp_path / "c.jsonl", ScriptedEngine(), start=3, count=2)
    assert alone == together
    assert later == [run for run in alone if run.question_id in ("00003", "00004")]


def test_samples_ask_the_same_anew(tmp_path) -> None:
    engine = ScriptedEngine()
    rules = dict.fromkeys(RULES, self_consistency(3))
    runs = record(tmp_path / "samples.jsonl", engine, rules, parallel=True)
    rounds = record(tmp_path / "rounds.jsonl", ScriptedEngine())
    assert engine.asked == len(runs) * 3
    for spoken in engine.conversations:
        turn = len(spoken) // 3  # the prompt, and the answer to it
        assert spoken[: turn - 1] == spoken[turn : 2 * turn - 1] == spoken[2 * turn : -1]
    for run, revised in zip(runs, rounds, strict=True):
        assert run.protocol == "parallel" and run.key == f"{revised.key}/parallel"
        counts = [run.answers.count(answer) for answer in run.answers]
        assert counts[run.returned] == max(counts)
    # They are drawn apart from the rounds, also the first of them.
    assert [run.answers[0] for run in runs] != [run.answers[0] for run in rounds]


def test_keys_differ_between_seeds_questions_and_benchmarks() -> None:
    keys = [
        question_key(seed, f"{name}/{number}{kind}")
        for seed in (0, 1)
        for name in RULES
        for number in ("00000", "00001")
        for kind in ("", "/parallel")
    ]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys)


@pytest.mark.parametrize("break_after", [0, 5, 17, 29])
def test_an_interrupted_run_resumes_to_the_uninterrupted_one(tmp_path, break_after) -> None:
    whole = record(tmp_path / "whole.jsonl", ScriptedEngine())
    path = tmp_path / "broken.jsonl"
    with pytest.raises(KeyboardInterrupt):
        record(path, ScriptedEngine(break_after=break_after))
    kept = path.read_bytes().count(b"\n") if path.exists() else 0
    # Two questions advance side by side, three answers each.
    assert break_after // 6 * 2 <= kept <= break_after / 3
    second = ScriptedEngine()
    assert record(path, second) == whole
    assert second.asked == (10 - kept) * 3


def changed(stream=None, **prompts) -> dict:
    task = BENCHMARKS["arithmetic-easy"]
    other = Task(
        stream or task.stream,
        name=task.name,
        scorer=task.scorer,
        template=replace(task.template, **prompts),
        examples=task.examples,
        example_answer=task.example_answer,
    )
    return {"arithmetic-easy": other}


def stream_of(change):
    """The questions of arithmetic-easy, the second of them changed."""

    def stream():
        for question in BENCHMARKS["arithmetic-easy"].stream():
            yield change(question) if question.id == "00001" else question

    return stream


CHANGES = {
    "question": (changed(stream=stream_of(lambda q: replace(q, text="1 + 1"))), "question of"),
    "gold": (changed(stream=stream_of(lambda q: replace(q, gold="7"))), "gold of"),
    "first prompt": (changed(first_prompt="{question}?"), "recorded with prompts="),
    "revision": (changed(revise_prompt="Again."), "recorded with prompts="),
    "system": (changed(system="Be brief."), "recorded with prompts="),
    "anew": (changed(new_conversation=True), "recorded with prompts="),
}


@pytest.mark.parametrize(("benchmarks", "message"), CHANGES.values(), ids=CHANGES)
def test_a_run_does_not_go_on_with_other_questions_or_prompts(
    tmp_path, benchmarks, message
) -> None:
    path, rules = tmp_path / "runs.jsonl", {"arithmetic-easy": fixed_rounds(2)}
    record(path, ScriptedEngine(), rules)
    content = path.read_bytes()
    engine = ScriptedEngine()
    with pytest.raises(InputError, match=message):
        record_run(path, plan(count=6), rules, lambda: engine, benchmarks=benchmarks)
    assert path.read_bytes() == content and not engine.asked
    assert len(record(path, engine, rules, count=6)) == 6


def test_lines_that_recorded_no_prompts_are_kept(tmp_path) -> None:
    path, rules = tmp_path / "runs.jsonl", {"arithmetic-easy": fixed_rounds(2)}
    for run in record(tmp_path / "new.jsonl", ScriptedEngine(), rules):
        old = {name: value for name, value in run.settings.items() if name != "prompts"}
        with path.open("a") as file:
            file.write(run.model_copy(update={"settings": old}).model_dump_json() + "\n")
    assert len(record(path, ScriptedEngine(), rules, count=6)) == 6


class Talkative(ScriptedEngine):
    """Ends answers for the reasons given, in turn, and has something to say."""

    settings = {"chat_template": "0123"}
    notes = ("the server does not take seed",)

    def __init__(self, *reasons: str | None, usage: Usage | None = None) -> None:
        super().__init__()
        self.reasons, self.usage = itertools.cycle(reasons), usage or Usage()

    def said(self, completion: Completion) -> Completion:
        reason = next(self.reasons)
        text = "" if reason == "length" else completion.text
        return replace(
            completion, text=text, usage=self.usage, finish=reason, finished=reason == "stop"
        )


def test_what_was_odd_is_said_once_and_recorded(tmp_path, caplog) -> None:
    path, rules = tmp_path / "runs.jsonl", {"arithmetic-easy": fixed_rounds(2)}
    runs = record(path, Talkative("stop", "length", "abort", None), rules, count=4)
    reasons = [reason for run in runs for reason in run.finish]
    assert sorted(map(str, reasons)) == sorted(["stop", "length", "abort", "None"] * 3)
    assert {run.settings["chat_template"] for run in runs} == {"0123"}
    for sentence in (
        "the server does not take seed",
        "3 of 9 answers ended with 'abort', which is no reason that msjax knows",
        "3 of 9 answers (33%) were cut at the limit of new tokens, 3 of them before any",
    ):
        assert [sentence in message for message in caplog.messages].count(True) == 1
    (summary,) = summarise(runs)
    assert summary.finish == {"stop": 3, "length": 3, "abort": 3, "": 3}
    assert summary.tokens == Usage()
    other = Talkative("stop")
    other.settings = {"chat_template": "4567"}
    with pytest.raises(InputError, match="chat_template='0123', but this run has"):
        record(path, other, rules, count=5)


def test_a_saving_that_rests_on_a_missing_count_is_not_identified(tmp_path) -> None:
    rules = {"arithmetic-easy": fixed_rounds(2)}
    full = record(tmp_path / "full.jsonl", Talkative("stop", usage=Usage(prompt=9)), rules)
    seen = [run.ended(1, returned=0) for run in full]
    (found,) = compare(seen, full, 2)[-1:]
    assert np.isnan([found.tokens, found.fixed_tokens, found.tokens_saved.estimate]).all()
    assert np.isnan([found.tokens_saved.low, found.tokens_saved.high]).all()
    table = comparison_table([found])
    assert (table.count("not reported"), table.count("not identified")) == (2, 1)
    known = [
        run.model_copy(update={"tokens": (Usage(prompt=9, completion=1),) * 3}) for run in full
    ]
    (found,) = compare(known, known, 2)[-1:]
    assert (found.tokens, found.tokens_saved.estimate) == (30.0, 0.0)


def test_a_finished_run_needs_no_engine(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    whole = record(path, ScriptedEngine())

    def refuse():
        raise AssertionError("the engine was loaded although nothing is left to ask")

    assert record_run(path, plan(), RULES, refuse) == whole
    assert record_run(path, plan(count=2), RULES, refuse) == [
        run for run in whole if run.question_id < "00002"
    ]


def stop_on_even_answers() -> StoppingRule:
    def update(state, seen):
        return state + 1, Decision(seen.answer_id % 2 == 0, seen.answer_id, jnp.float32(jnp.nan))

    return StoppingRule(lambda: jnp.int32(0), update)


def test_stopped_questions_cost_nothing_more(tmp_path) -> None:
    engine = ScriptedEngine()
    rules = dict.fromkeys(RULES, stop_on_even_answers())
    runs = record(tmp_path / "runs.jsonl", engine, rules)
    # The first answer has id 0, which is even: every question stops at once.
    assert {(run.revisions, run.stop_reason) for run in runs} == {(0, "rule")}
    assert engine.asked == len(runs)


def test_the_budget_ends_what_the_rule_would_continue(tmp_path) -> None:
    runs = record(tmp_path / "r.jsonl", ScriptedEngine(), dict.fromkeys(RULES, fixed_rounds(9)))
    assert {(run.revisions, run.stop_reason) for run in runs} == {(2, "budget")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "questions = 0"),
        ({"start": -1}, "start = -1"),
        ({"rounds": -1}, "rounds = -1"),
        ({"count": 100_000}, "arithmetic-easy has 100 different questions"),
        ({"start": 5000}, "arithmetic-easy has 100 different questions, but questions 5000 to"),
    ],
)
def test_bad_plans_are_named(tmp_path, changes, message) -> None:
    with pytest.raises(InputError, match=message):
        record(
            tmp_path / "runs.jsonl",
            ScriptedEngine(),
            {"arithmetic-easy": fixed_rounds(1)},
            **changes,
        )


def test_an_unknown_benchmark_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match="no benchmark was named; known are arithmetic-easy"):
        record(tmp_path / "runs.jsonl", ScriptedEngine(), {})
    with pytest.raises(InputError, match="'soms' is unknown; known are arithmetic-easy"):
        record(tmp_path / "runs.jsonl", ScriptedEngine(), {"soms": fixed_rounds(1)})


def test_a_stream_of_questions_is_fixed_and_has_no_repeats() -> None:
    for benchmark in BENCHMARKS.values():
        questions = benchmark.questions(0, 90)
        assert len({q.text for q in questions}) == 90
        assert [q.id for q in questions] == [f"{i:05d}" for i in range(90)]
        assert [q.text for q in benchmark.questions(60, 30)] == [q.text for q in questions[60:]]
        for question in questions:
            assert question.verify(question.gold)
            assert not question.verify(None)
            assert not question.verify(question.gold + "1")


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), 1e39])
def test_a_score_that_is_no_number_is_none_to_the_rule_and_in_the_record(tmp_path, value) -> None:
    def update(state, observation):
        _, decision = rule.update(state, observation)
        return state, decision._replace(stop=jnp.isnan(observation.score))

    rule = fixed_rounds(1)
    blind = {"arithmetic-easy": StoppingRule(rule.init, update)}
    path = tmp_path / "runs.jsonl"
    scored = {"score": lambda _, __: Score(value)}
    (run,) = record_run(path, plan(count=1, rounds=1), blind, ScriptedEngine, **scored)
    assert run.scores == (None,) and read_runs(path) == [run]


@pytest.mark.parametrize("parallel", [False, True])
def test_recorded_runs_go_on_as_if_there_had_been_no_break(parallel, tmp_path) -> None:
    def reply(said, key) -> str:
        # the scripted engine remembers what was said before, in new conversations too
        return f"It is {0 if parallel else len(said)}{int(jax.random.randint(key, (), 0, 10))}."

    name, more = "arithmetic-easy", {"parallel": parallel}
    rules = {
        n: {name: (self_consistency if parallel else fixed_rounds)(n + parallel)} for n in (1, 3)
    }
    short = record(tmp_path / "short.jsonl", ScriptedEngine(reply), rules[1], rounds=1, **more)
    whole = record(tmp_path / "whole.jsonl", ScriptedEngine(reply), rules[3], rounds=3, **more)
    engine = ScriptedEngine(reply)
    begun = {(run.benchmark, run.question_id): run for run in short}
    settings = plan(rounds=3, **more)
    path = tmp_path / "longer.jsonl"
    longer = record_run(path, settings, rules[3], lambda: engine, begun=begun)
    assert engine.asked == 2 * len(longer)
    for one, other in zip(longer, whole, strict=True):
        assert one.completions == other.completions
        assert one.answers == other.answers and one.correct == other.correct
        assert one.tokens[:2] == other.tokens[:2] and one.scores == other.scores
        if not parallel:
            before, after = one.tokens[1:3]
            assert after.prompt == other.tokens[2].prompt
            assert after.cached == min(before.prompt + before.completion - 1, after.prompt)
            assert one.tokens[3] == other.tokens[3]
