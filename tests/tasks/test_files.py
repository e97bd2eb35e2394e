"""Benchmarks from files: the published fields are understood, bad input is named."""

import json

import pytest

from msjax.errors import InputError
from msjax.tasks.registry import load_benchmark
from msjax.tasks.samples import samples

PUBLISHED = {
    "gsm8k": (
        {"question": "How many?", "answer": "6 * 7 = <<6*7=42>>42\n#### 1,042"},
        ("00000", "How many?", "1042"),
    ),
    "math500": (
        {
            "problem": "Half?",
            "solution": r"It is $\boxed{\frac12}$.",
            "answer": r"\frac{1}{2}",
            "subject": "Algebra",
            "level": 2,
            "unique_id": "test/algebra/1.json",
        },
        ("test/algebra/1.json", "Half?", "0.5"),
    ),
    "math": (
        {"problem": "p", "solution": r"$\boxed{\frac12}$", "level": "Level 2", "type": "Algebra"},
        ("00000", "p", "0.5"),
    ),
    "aime24": (
        {"id": 60, "problem": "p", "solution": "s", "answer": "204", "url": "u", "year": "2024"},
        ("60", "p", "204"),
    ),
    "aime_cased": (
        {"ID": "2024-I-1", "Problem": "p", "Solution": "s", "Answer": 33},
        ("2024-I-1", "p", "33"),
    ),
    "amc23": ({"id": 0, "question": "p", "answer": 27.0, "url": "u"}, ("0", "p", "27")),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_published_fields_are_understood(tmp_path, name, suffix) -> None:
    row, expected = PUBLISHED[name]
    path = tmp_path / f"{name}{suffix}"
    if suffix == ".jsonl":
        path.write_text(json.dumps(row))  # published files may lack the last line end
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([row]), path)
    benchmark = load_benchmark(path)
    (question,) = benchmark.questions(0, 1)
    assert benchmark.name == question.benchmark == name
    assert (question.id, question.text, question.gold) == expected
    assert question.verify(question.gold)
    assert not question.verify(None)
    assert not question.verify("43")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ('{"question": "a", "answer": "1"}\n{"question": "b", "ans', "line 2: torn"),
        ('{"question"\n{"question": "a", "answer": "1"}\n', "line 1: not JSON"),
        ("[1]", "line 1: is b'\\[1\\]'; write one object"),
        ('{"question": "a", "answer": "1", "gold": "1"}', "line 1: has answer and gold; give"),
        (r'{"question": "a", "answer": "\\frac{1"}', "line 1: answer is .*can ever match"),
        ('{"question": "a", "answer": "$"}', "line 1: answer is .*no answer that the scorer math"),
        ('{"question": "a", "answer": "..."}', "line 1: answer is .*can ever match"),
        ('{"answer": "1"}', "line 1: has neither question nor problem; give exactly"),
        ('{"question": "a", "problem": "a", "answer": "1"}', "has question and problem; give"),
        ('{"question": " ", "answer": "1"}', "question is ' '; write the question"),
        ('{"question": 1, "answer": "1"}', "question is 1; write the question"),
        ('{"question": "a"}', "line 1: answer is missing"),
        ('{"question": "a", "answer": null}', "line 1: answer is missing"),
        ('{"question": "a", "answer": "so ####"}', "line 1: answer is missing"),
        ('{"question": "a", "answer": NaN}', "answer is nan; write it as text"),
        ('{"question": "a", "answer": ["1"]}', r"answer is \['1'\]; write it as text"),
        ('{"question": "a", "answer": "1", "id": 1.5}', "id is 1.5; write text or an integer"),
        ('{"question": "a", "answer": "1", "ID": 1, "id": 1}', "field 'id' occurs twice"),
        (
            '{"question": "a", "answer": 1, "id": 1}\n{"question": "b", "answer": 2, "id": "1"}',
            "line 2: id '1' occurs a second time",
        ),
    ],
)
def test_bad_files_are_named(tmp_path, content, message) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=f"bad.jsonl(:|,) {message}|bad.jsonl, .*{message}"):
        load_benchmark(path)


def test_other_files_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="x.txt: is no .jsonl, .parquet, .csv or .json file"):
        load_benchmark(tmp_path / "x.txt")
    with pytest.raises(InputError, match="x.jsonl: no such file"):
        load_benchmark(tmp_path / "x.jsonl")
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="x.parquet: cannot be read, is damaged"):
        load_benchmark(path)


def test_a_parquet_file_has_no_column_twice_and_names_that_are_texts(tmp_path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "twice.parquet"
    columns = [pa.array(["1 + 1?"]), pa.array(["2"]), pa.array(["3"])]
    pq.write_table(pa.table(columns, names=["question", "answer", "answer"]), path)
    with pytest.raises(InputError, match="twice.parquet: .*answer"):
        load_benchmark(path)
    pq.write_table(pa.table(columns[:2], names=["question", "answer"]), path)
    path.write_bytes(path.read_bytes().replace(b"question", b"quest\x81on"))
    with pytest.raises(InputError, match="twice.parquet: .*can't decode byte 0x81"):
        load_benchmark(path)


def test_a_file_has_so_many_questions(tmp_path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"question": "a", "answer": "1"}\n')
    with pytest.raises(InputError, match="one has 1 different questions"):
        load_benchmark(path).questions(0, 2)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "count"),
    [("aime24", 30), ("aime25", 30), ("amc23", 40), ("gsm8k", 1319), ("math500", 500)],
)
def test_published_benchmarks_load(real_data, name, count) -> None:
    benchmark = load_benchmark(real_data / "optscale" / "prompts" / f"{name}.jsonl")
    questions = benchmark.questions(0, count)
    assert all(question.verify(question.gold) for question in questions)
    boxed = [benchmark.scorer.read(rf"\boxed{{{q.gold}}}").answer for q in questions]
    assert boxed == [question.gold for question in questions]


def test_half_of_a_surrogate_pair_becomes_a_character_that_can_be_written(tmp_path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"question": "a \\ud800?", "answer": "1\\udc00", "id": "\\ud800"}')
    (sample,) = samples(path)
    assert (sample.id, sample.question, sample.target) == ("\ufffd", "a \ufffd?", "1\ufffd")
