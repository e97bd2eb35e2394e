"""Grading: whole cases with their right values, grades without history, scorers of one's own."""

import json
from pathlib import Path

import pytest

from msjax.cli import main
from msjax.data.messages import Completion
from msjax.data.usage import Usage
from msjax.errors import InputError
from msjax.tasks import Task, grade, samples, scorers
from msjax.tasks.registry import find_task, load_benchmark

CASES = Path(__file__).parents[1] / "fixtures" / "answers.jsonl"
LINES = [json.loads(line) for line in CASES.read_text().splitlines()]


@pytest.mark.parametrize("case", LINES, ids=[case["id"] for case in LINES])
def test_every_case_is_graded_right_by_the_command_and_by_a_run(case, tmp_path) -> None:
    (found,) = grade([case])
    assert (found.id, found.correct) == (case["id"], case["expected_right"])
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"question": "?", "answer": case["gold"]}))
    task = load_benchmark(path)
    (question,) = task.questions(0, 1)
    usage = Usage(prompt=1, cached=0, completion=1)
    completion = Completion(case["completion"], -0.5, 0.7, case["finished"], usage)
    answer = task.read(completion, case["earlier"])
    assert (answer, question.verify(answer)) == (found.answer, found.correct)
    assert found.why.startswith(task.reading(completion, case["earlier"]).how)


def test_grades_do_not_depend_on_history() -> None:
    task = Task(samples([{"question": "?", "answer": "0.5"}]))
    (question,) = task.questions(0, 1)
    earlier: list[str | None] = []
    for text in ("50", "50%", "1/2", "0.500", r"\frac{2}{4}"):
        answer = task.scorer.read(rf"\boxed{{{text}}}", earlier=earlier).answer
        assert question.verify(answer) == (text != "50")
        earlier.append(task.spelled_as(answer, earlier, question))
    assert earlier == ["50", "50%", "0.5", "0.5", "0.5"]
    assert [question.verify(one) for one in earlier] == [False, True, True, True, True]


def test_the_command_writes_what_the_library_finds(tmp_path, capsys) -> None:
    out = tmp_path / "grades.json"
    assert main(["grade", str(CASES), "--json", str(out)]) == 0
    written = json.loads(out.read_text())
    assert written == [vars(one) for one in grade(LINES)]
    assert [one["id"] for one in written] == [case["id"] for case in LINES]
    cut = next(one for one in written if one["id"] == "think_cut")
    assert cut["answer"] is None
    assert cut["why"] == "a thought that never closed has no answer"
    printed = capsys.readouterr().out
    assert f"{sum(one['correct'] for one in written)} of {len(LINES)} right, 1 without" in printed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"gold": "1"}', "line 2: completion is missing"),
        ('{"completion": "1"}', "line 2: gold is missing"),
        ('{"gold": "1", "completion": 1}', "line 2: completion is 1; write it as text"),
        ('{"gold": ["1"], "completion": "1"}', r"line 2: gold: .*\['1'\]"),
        ('{"gold": "$", "completion": "1"}', r"line 2: gold: .*'\$', which is no answer"),
        ('{"gold": "1", "completion": "1", "finished": "no"}', "line 2: finished is 'no'"),
        ('{"gold": "1", "completion": "1", "earlier": "2"}', "line 2: earlier is '2'"),
        ('{"gold": "1", "completion": "1", "id": 1.5}', "line 2: id is 1.5"),
        ('{"gold": "1", "gold": "2", "completion": "1"}', "line 2: field 'gold' occurs twice"),
        ("[1]", "line 2: is"),
        ('{"gold": ', "line 2: torn"),
    ],
)
def test_bad_lines_are_named(tmp_path, capsys, line, message) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"gold": "1", "completion": "1"}\n' + line)
    assert main(["grade", str(path)]) == 2
    pytest.raises(InputError, lambda: grade_of(path)).match(message)
    assert "line 2" in capsys.readouterr().err


def grade_of(path):
    from msjax.tasks import grade_file

    return grade_file(path)


def test_a_line_may_say_that_its_prompt_opened_a_thought() -> None:
    cut = {"gold": "12", "completion": r"Perhaps \boxed{12}? No,", "finished": False}
    opened = {"prompt": "<|im_start|>assistant\n<think>\n"}
    found = grade([cut, cut | opened, cut | {"thinking": True}, cut | opened | {"thinking": False}])
    assert [one.correct for one in found] == [True, False, False, True]
    assert found[1].why == "a thought that never closed has no answer"
    with pytest.raises(InputError, match="line 1: thinking is 1; write true or false"):
        grade([cut | {"thinking": 1}])


def test_empty_and_absent_files_are_refused(tmp_path) -> None:
    path = tmp_path / "empty.jsonl"
    with pytest.raises(InputError, match="no such file"):
        grade_of(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="nothing to grade"):
        grade_of(path)


@pytest.mark.parametrize(
    ("scorer", "target", "completion", "correct"),
    [
        ("math", "1/2", r"\boxed{0.5}", True),
        ("number", "1,200", "It costs $1200.00", True),
        ("number", "5", "The answer is 5 km", True),
        ("number", "0.1", "0.2", False),
        ("choice", "(b)", "The answer is B.", True),
        ("choice", "C", "The answer is B.", False),
        ("exact", "Paris", "<think>Lyon</think>Paris", True),
        ("exact", "Paris", "The answer is paris.", False),
        (scorers.exact(ignore_case=True), "Paris", "The answer is paris.", True),
        (lambda answer, target: target in answer, "Paris", "It is Paris", True),
        (scorers.own(lambda a, t: t in a, read="completion"), "2", "1\n2\n3", True),
    ],
)
def test_scorers_by_name_and_of_ones_own(scorer, target, completion, correct) -> None:
    (found,) = grade([{"gold": target, "completion": completion}], scorer=scorer)
    assert found.correct is correct


def test_tasks_and_scorers_are_named_as_module_and_function(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine_of_test.py").write_text(
        "from msjax.tasks import scorers\n"
        "def near(answer, target):\n    return abs(float(answer) - float(target)) < 1\n"
        "def numbers():\n    return scorers.own(near, read='number')\n"
        "def capitals():\n    return [{'question': 'France?', 'answer': 'Paris', 'continent': 1}]\n"
        "seven = 7\n"
    )
    Path("lines.jsonl").write_text('{"gold": 3, "completion": "It is 3.4 or so"}')
    assert main(["grade", "lines.jsonl", "--scorer", "mine_of_test:numbers"]) == 0
    assert "1 of 1 right" in capsys.readouterr().out
    assert grade([{"gold": 3, "completion": "3.4"}], "mine_of_test:near")[0].correct
    task = find_task("mine_of_test:capitals", scorer="exact")
    (question,) = task.questions(0, 1)
    assert (task.name, question.text, question.gold) == ("capitals", "France?", "Paris")
    assert question.metadata == {"continent": 1}
    for name, message in [
        ("mine_of_test:seven", "is a int"),
        ("mine_of_test:none", "has no 'none'"),
        ("no_such_module_here:none", "no module 'no_such_module_here'"),
        ("sums", "unknown; choose from math"),
        ("a b:c", "write module:name"),
    ]:
        with pytest.raises(InputError, match=message):
            scorers.find_scorer(name)


def test_a_task_from_any_file_keeps_other_fields(tmp_path) -> None:
    rows = [{"q": "France?", "a": "Paris", "area": "644"}, {"q": "Peru?", "a": "Lima", "area": "1"}]
    files = {
        "capitals.csv": "q,a,area\nFrance?,Paris,644\nPeru?,Lima,1\n",
        "capitals.json": json.dumps(rows),
        "capitals.jsonl": "\n".join(map(json.dumps, rows)),
    }
    sources = [rows]
    for name, text in files.items():
        sources.append(tmp_path / name)
        (tmp_path / name).write_text(text)
    for source in sources:
        task = Task(
            samples(source, question="q", target="a", name="capitals"), scorer=scorers.exact()
        )
        assert [q.text for q in task.questions(0, 2)] == ["France?", "Peru?"]
        assert [q.gold for q in task.questions(0, 2)] == ["Paris", "Lima"]
        assert task.questions(0, 1)[0].metadata == {"area": "644"}
        assert "France?" in task.conversation(task.questions(0, 1)[0])[-1]["content"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("q,a\nFrance?,Paris,7\n", {}, "line 2: has 3 cells for 2 columns"),
        ("q,q\n1,2\n", {}, "line 1: column 'q' occurs twice"),
        ("q,a\nFrance?,Paris\n", {}, "line 2: has neither question nor problem"),
        ("q,a\nFrance?,Paris\n", {"question": "x"}, "line 2: has no field 'x'.*'q', 'a'"),
        ("q,a\nFrance?,\n", {"question": "q", "target": "a"}, "line 2: answer is missing"),
        ("", {}, "empty"),
    ],
)
def test_bad_tables_are_named(tmp_path, text, options, message) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        samples(path, **options)


def test_a_target_outside_the_options_is_named() -> None:
    with pytest.raises(InputError, match="row 1: answer is 'K', which is no answer"):
        Task(samples([{"question": "?", "answer": "K"}]), scorer="choice")
