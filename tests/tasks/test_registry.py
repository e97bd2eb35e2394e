"""Benchmarks by name: what they ask, how completions are read, and that recordings stay valid."""

from importlib.resources import files

import jax
import jax.numpy as jnp
import pytest

from msjax.data.messages import Completion
from msjax.data.store import read_runs
from msjax.data.trajectory import Trajectory
from msjax.data.usage import Usage
from msjax.errors import InputError
from msjax.llm.conversation import refine
from msjax.llm.engine import next_turn
from msjax.rules.protocol import Decision, StoppingRule
from msjax.tasks.prompts import NO_ANSWER, TEMPLATES
from msjax.tasks.registry import BENCHMARKS, find_task, load_benchmark


def completion(text: str, finished: bool = True) -> Completion:
    return Completion(text, -0.5, 0.7, finished, Usage(prompt=1, cached=0, completion=1))


@pytest.fixture
def algebra(tmp_path):
    path = tmp_path / "algebra.jsonl"
    path.write_text(r'{"problem": "x?", "answer": "\\frac{1}{2}", "id": 3}')
    return load_benchmark(path)


@pytest.mark.parametrize("name", ["pilot.jsonl", "fresh.jsonl", "fresh.fixed-3.jsonl"])
def test_shipped_recordings_are_questions_and_answers_of_today(name) -> None:
    questions = {known: benchmark.questions(0, 80) for known, benchmark in BENCHMARKS.items()}
    for run in read_runs(files("msjax") / "recorded" / name):
        benchmark = BENCHMARKS[run.benchmark]
        question = questions[run.benchmark][int(run.question_id)]
        assert (question.id, question.text, question.gold) == (
            run.question_id,
            run.question,
            run.gold,
        )
        earlier: list[str | None] = []
        for text, usage in zip(run.completions, run.tokens, strict=True):
            finished = usage.completion < run.settings["max_new_tokens"]
            answer = benchmark.read(completion(text, finished), earlier)
            earlier.append(benchmark.spelled_as(answer, earlier, question))
        assert tuple(earlier) == run.answers
        assert tuple(map(question.verify, earlier)) == run.correct


def test_the_arithmetic_prompts_are_those_of_the_recordings() -> None:
    benchmark = BENCHMARKS["arithmetic-medium"]
    (question,) = benchmark.questions(0, 1)
    assert [turn["content"] for turn in benchmark.conversation(question)] == [
        "What is 5 + 3?",
        "5 + 3 = 8",
        "What is 9 - 4?",
        "9 - 4 = 5",
        "What is 6 - 8?",
        "6 - 8 = -2",
        f"What is {question.text}?",
    ]
    (revision,) = benchmark.revision(question, "7")
    assert revision["content"] == f"Are you sure? What is {question.text}?"


def test_a_choice_offers_the_right_option_once() -> None:
    for question in BENCHMARKS["cube-choice"].questions(0, 40):
        options = dict(line.split(") ") for line in question.text.splitlines()[-6:])
        assert list(options) == list("ABCDEF")
        assert len(set(options.values())) == 6
        assert [letter for letter in options if question.verify(letter)] == [question.gold]
        assert not question.verify(options[question.gold])  # the letter was asked for
    benchmark = BENCHMARKS["cube-choice"]
    assert benchmark.read(completion(r"so \boxed{F}")) == "F"


def test_program_output_is_what_the_program_prints(capsys) -> None:
    for question in BENCHMARKS["program-output"].questions(0, 5):
        *_, program = question.text.split("\n")
        cells, at, pointer, printed = [0] * 30, 0, 0, ""
        while at < len(program):
            match program[at]:
                case ">" | "<" as move:
                    pointer += 1 if move == ">" else -1
                case "+" | "-" as change:
                    cells[pointer] = (cells[pointer] + (1 if change == "+" else -1)) % 256
                case ".":
                    printed += chr(cells[pointer])
                case "[" | "]" as bracket if (cells[pointer] == 0) == (bracket == "["):
                    step = 1 if bracket == "[" else -1
                    depth = step
                    while depth:
                        at += step
                        depth += {"[": 1, "]": -1}.get(program[at], 0)
            at += 1
        assert printed == question.gold
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("half of 12 is 6, and", None),
        ("The answer is 12", None),
        ("The answer is 12. Let me check: 3 *", "12"),
        (r"So \boxed{\frac{3}{4}}. Let me check: 3 *", "0.75"),
        (r"So \boxed{12", None),
    ],
)
def test_a_cut_completion_has_no_answer_unless_it_is_explicit(algebra, text, answer) -> None:
    assert algebra.read(completion(text, finished=False)) == answer


def test_equal_answers_are_one_answer_and_graded_alike(algebra) -> None:
    (question,) = algebra.questions(0, 1)
    answers: list[str | None] = []
    for text in (
        "none",
        r"\boxed{\sqrt{2}}",
        "1/2",
        "0.5",
        r"\boxed{\frac{2}{\sqrt{2}}}",
        "0.50001",
    ):
        answer = algebra.read(completion(text), answers)
        answers.append(algebra.spelled_as(answer, answers, question))
    assert answers == [None, r"\sqrt{2}", "0.5", "0.5", r"\sqrt{2}", "0.50001"]
    assert [question.verify(a) for a in answers] == [False, False, True, True, False, False]


def test_a_revision_shows_the_previous_answer_or_that_there_was_none(algebra) -> None:
    (question,) = algebra.questions(0, 1)
    for answer, shown in (("41", "41"), (None, NO_ANSWER)):
        (message,) = algebra.revision(question, answer)
        assert f"arrived at: {shown}\n" in message["content"]


def test_the_loop_carries_grades_and_observes_one_and_the_same_answer(algebra) -> None:
    texts = [r"\boxed{\sqrt{2}}", r"So \boxed{\frac{2}{\sqrt{2}}}", "no idea", "It is 1/2."]
    seen: list[int] = []

    def update(state, observation):
        jax.debug.callback(lambda answer: seen.append(int(answer)), observation.answer_id)
        return state, Decision(jnp.bool_(False), observation.answer_id, jnp.float32(jnp.nan))

    runs: list[Trajectory] = []
    (question,) = algebra.questions(0, 1)
    conversation = refine(
        algebra,
        question,
        StoppingRule(lambda: jnp.int32(0), update),
        model="recital",
        seed=0,
        rounds=3,
        settings={},
        finish=runs.append,
    )
    asked = [next_turn(conversation)]
    asked += [next_turn(conversation, completion(text)) for text in texts]
    jax.effects_barrier()
    assert asked.pop() is None
    (run,) = runs
    assert run.answers == (r"\sqrt{2}", r"\sqrt{2}", None, "0.5")
    assert run.correct == (False, False, False, True)
    assert seen == [0, 0, -1, 1]
    assert [turn.messages for turn in asked[1:]] == [
        algebra.revision(question, answer) for answer in run.answers[:-1]
    ]
    assert all(turn.new_conversation for turn in asked)  # as OptScale's template has it


def test_any_benchmark_takes_any_template(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("first_prompt='{question}!'\nrevise_prompt='{answer}?'\nsystem='Be {{}}.'\n")
    benchmark = find_task("arithmetic-easy", template=path)
    (question,) = benchmark.questions(0, 1)
    assert benchmark.conversation(question) == [
        {"role": "system", "content": "Be {}."},
        {"role": "user", "content": f"{question.text}!"},
    ]
    assert benchmark.revision(question, "9") == [{"role": "user", "content": "9?"}]
    path.write_text(
        "first_prompt='{question}!'\nrevise_prompt='{question}?'\nnew_conversation=true\nsystem='A'"
    )
    benchmark = find_task("arithmetic-easy", template=path)
    assert benchmark.revision(question, "9") == [
        {"role": "system", "content": "A"},
        {"role": "user", "content": f"{question.text}?"},
    ]
    assert find_task("arithmetic-easy") is BENCHMARKS["arithmetic-easy"]


def test_files_and_names_are_found(algebra, tmp_path) -> None:
    found = find_task(tmp_path / "algebra.jsonl", template="critique")
    assert found.name == "algebra"
    assert found.template == TEMPLATES["critique"]
    with pytest.raises(InputError, match="'soms' is unknown; known are arithmetic-easy"):
        find_task("soms")
