"""The served engine in front of a scripted server: each fault it can meet, what comes of it."""

import asyncio
import gzip
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import jax
import numpy as np
import pytest
from conversations import talk

from msjax.data.messages import REFUSED, REJECTED, asked
from msjax.data.store import read_runs
from msjax.data.usage import Usage
from msjax.errors import InputError, MissingExtraError, ServerError
from msjax.llm import openai_engine
from msjax.llm import server as server_module
from msjax.llm.engine import Turn, ask
from msjax.llm.openai_engine import OpenAIEngine
from msjax.llm.record import RunPlan, record_run
from msjax.llm.run import run
from msjax.rules.fixed import fixed_rounds
from msjax.tasks import Task, samples, scorers
from msjax.tasks.registry import BENCHMARKS
from msjax.testing.server import DROP, MODEL, USAGE, Reply, ScriptedServer, completion


def engine_at(server: ScriptedServer, **settings) -> OpenAIEngine:
    return OpenAIEngine(server.url, MODEL, **{"patience": 0.0, **settings})


def keys(seed: int, count: int) -> list[jax.Array]:
    return list(jax.random.split(jax.random.key(seed), count))


def one_turn(engine: OpenAIEngine):
    (turn,) = ask(engine, [asked("2 + 2")], keys(0, 1))
    return turn


def prompts(server: ScriptedServer) -> list[str]:
    return [request["messages"][-1]["content"] for request in server.asked]


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def test_every_round_sends_the_whole_conversation_and_the_settings(serve) -> None:
    server = serve(lambda number, _: Reply(completion(f"It is {number}.")))
    engine = engine_at(server, max_new_tokens=9, temperature=0.5, top_p=0.9)
    one, two = keys(0, 2)
    ((_, second),) = talk(engine, [[Turn(asked("2 + 2"), one), Turn(asked("Are you sure?"), two)]])
    assert engine.name == MODEL
    assert second.text == "It is 1."
    assert [message["content"] for message in server.asked[1]["messages"]] == [
        "2 + 2",
        "It is 0.",
        "Are you sure?",
    ]
    for request in server.asked:
        del request["messages"], request["seed"]
        assert request == {
            "model": MODEL,
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "logprobs": True,
        }


def test_seeds_follow_the_keys_alone(serve) -> None:
    server = serve()
    engine = engine_at(server, concurrency=1)
    ask(engine, [asked("a"), asked("b"), asked("c")], keys(3, 3))
    ask(engine, [asked("c"), asked("a")], [keys(3, 3)[i] for i in (2, 0)])
    first, second, third, *again = [request["seed"] for request in server.asked]
    assert again == [third, first]
    assert len({first, second, third}) == 3
    assert all(0 <= seed < 2**31 for seed in (first, second, third))
    assert {request["top_p"] for request in server.asked} == {1.0}


@pytest.mark.parametrize(
    ("details", "cached"),
    [
        ({}, None),
        ({"prompt_tokens_details": None}, None),
        ({"prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0}}, 16),
    ],
)
def test_usage_is_what_the_server_reports(serve, details, cached) -> None:
    turn = one_turn(engine_at(serve(lambda *_: Reply(completion(usage=USAGE | details)))))
    assert turn.usage == Usage(prompt=20, cached=cached, completion=5)


@pytest.mark.parametrize("usage", [None, USAGE | {"prompt_tokens": 0, "total_tokens": 5}])
def test_usage_is_never_invented_and_what_is_missing_is_said_once(serve, usage) -> None:
    engine = engine_at(serve(lambda *_: Reply(completion(usage=usage))))
    for turn in ask(engine, [asked("2 + 2")] * 3, keys(0, 3)):
        assert turn.text == "It is 4."
        assert turn.usage.prompt is None and turn.usage.uncached is None
    (note,) = engine.notes
    assert note.startswith("3 of 3 accounts lack a count or cannot be")


def test_log_probabilities_are_averaged_where_the_server_gives_them(serve) -> None:
    tokens = [{"token": t, "logprob": p, "bytes": None} for t, p in (("4", -0.5), (".", -0.1))]
    given = (None, {"content": []}, {"content": tokens})
    script = [{}, *({"logprobs": logprobs} for logprobs in given)]
    engine = engine_at(serve(lambda number, _: Reply(completion(**script[number]))))
    found = [one_turn(engine).token_logprob for _ in script]
    np.testing.assert_allclose(found, [np.nan, np.nan, np.nan, -0.3])


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("It is 4.", "stop", ("It is 4.", True)),
        ("It is", "length", ("It is", False)),
        ("It", "content_filter", ("It", False)),
        ("It", None, ("It", False)),
        ("", "stop", ("", True)),
        (None, "length", ("", False)),
    ],
)
def test_an_empty_or_unfinished_completion_is_an_outcome(serve, text, finish, expected) -> None:
    turn = one_turn(engine_at(serve(lambda *_: Reply(completion(text, finish)))))
    assert (turn.text, turn.finished) == expected


@pytest.mark.parametrize("body", [b"", b'{"choices": [{"mess', b"<html>busy</html>", b'{"id": 3}'])
def test_a_malformed_answer_is_shown_and_not_tried_again(serve, body) -> None:
    server = serve(lambda *_: Reply(body))
    with pytest.raises(ServerError, match="not OpenAI's protocol") as caught:
        one_turn(engine_at(server, patience=5))
    assert repr(body) in str(caught.value).replace('\\"', '"') or body.decode() in str(caught.value)
    assert prompts(server) == ["2 + 2", "1 + 1"]  # neither this question nor another is answered


def test_an_answer_in_thoughts_alone_is_none(serve) -> None:
    message = {"content": None, "reasoning_content": "so \\boxed{4}"}
    reply = completion(None, "length") | {"model": MODEL}
    reply["choices"][0]["message"] = message
    engine = engine_at(serve(lambda *_: Reply(reply)))
    turn = one_turn(engine)
    assert (turn.text, turn.reasoning) == ("", "so \\boxed{4}")
    assert (turn.finished, turn.finish) == (False, "length")
    assert engine.notes == []


@pytest.mark.parametrize("name", ["other", "small", "small-modelled"])
def test_another_model_that_answers_is_said_and_one_that_replaces_it_ends_the_run(
    serve, name
) -> None:
    replies = [completion() | {"model": model} for model in (name, name, MODEL)]
    engine = engine_at(serve(lambda number, _: Reply(replies[number])))
    assert one_turn(engine).text == one_turn(engine).text == "It is 4."
    assert engine.notes == [f"model {name!r} answers to requests for '{MODEL}'"]
    with pytest.raises(ServerError, match=f"as model '{name}' before and answers as '{MODEL}' now"):
        one_turn(engine)


@pytest.mark.parametrize(
    "name", [MODEL, f"org/{MODEL}", f"{MODEL}-2024-08-06", f"/models/{MODEL}.gguf", "Small-Model"]
)
def test_a_model_by_its_full_name_is_the_same(serve, name) -> None:
    engine = engine_at(serve(lambda *_: Reply(completion() | {"model": name})))
    one_turn(engine)
    assert engine.notes == []


REFUSES = {
    "max_tokens": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
    "logprobs": "You are not allowed to request logprobs from this model",
    "seed": "Unrecognized request argument supplied: seed",
    "top_p": "`top_p` must be > 0.0 and < 1.0",
}


def test_parameters_that_a_server_does_not_take_are_left_out(serve) -> None:
    def script(_, request) -> Reply:
        for name, words in REFUSES.items():
            if name in request:
                status = 403 if name == "logprobs" else 400
                return Reply({"error": {"message": words}}, status)
        return Reply()

    server = serve(script)
    engine = engine_at(server, max_new_tokens=9)
    for _ in range(2):
        assert one_turn(engine).text == "It is 4."
    assert len(server.asked) == 4 + 2
    assert server.asked[-1]["max_completion_tokens"] == 9
    assert not REFUSES.keys() & server.asked[-1].keys()
    assert len(engine.notes) == 4
    with pytest.raises(InputError, match="top_p"):
        one_turn(engine_at(server, top_p=0.9))


def test_a_temperature_is_not_left_out(serve) -> None:
    def script(_, request) -> Reply:
        words = "'temperature' does not support 0.7 with this model"
        said = Reply({"error": {"message": words}}, 400)
        return said if "temperature" in request else Reply()

    server = serve(script)
    with pytest.raises(InputError, match=r"does not support 0\.7"):
        one_turn(engine_at(server, temperature=0.7))
    assert one_turn(engine_at(server, temperature=1.0)).text == "It is 4."


def test_no_key_and_no_password_is_shown_or_recorded(serve) -> None:
    """Whatever a server repeats of a request: its headers, as they are or in JSON."""
    key, seen = 'sk-"secret', "Bearer {} Basic bWU6cGFzcy13b3Jk pass-word"
    refused = Reply({"error": {"message": seen.format(key)}}, 401)
    replies = [Reply(completion(seen.format(key))), refused, refused]
    server = serve(lambda number, _: replies[number] if number < 3 else DROP)
    url = server.url.replace("://", "://me:pass%2Dword@")
    engine = OpenAIEngine(url, MODEL, api_key=key, patience=0.0)
    shown = [one_turn(engine).text]
    with pytest.raises(InputError, match="refused a request") as caught:
        one_turn(engine)
    with pytest.raises(ServerError, match="no server answers") as gone:
        one_turn(engine)
    shown += [str(caught.value), str(gone.value), *engine.notes]
    assert "Bearer (secret)" in shown[0]
    for secret in ("secret'", 'k-"s', "bWU6", "pass-word", "pass%2D"):
        assert not any(secret in text for text in shown)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_reply_without_end_is_an_outcome_of_its_question(serve, monkeypatch, compressed) -> None:
    monkeypatch.setattr(server_module, "MOST_BYTES", 2**16)

    def answer(_: int, request: dict) -> Reply:
        huge = request["messages"][-1]["content"] == "2 + 2"
        body = json.dumps(completion("word " * 2**16 if huge else "It is 2.")).encode()
        headers = {"Content-Encoding": "gzip"} if compressed else {}
        return Reply(gzip.compress(body) if compressed else body, 200, headers)

    engine = engine_at(serve(answer))
    assert repr(one_turn(engine)) == repr(replace(REFUSED, finish=REJECTED))  # NaN is not NaN
    assert "has more than 65536 bytes" in engine.notes[0]


def test_a_first_reply_without_end_says_what_makes_it_shorter(serve, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "MOST_BYTES", 2**16)
    body = json.dumps(completion("word " * 2**16)).encode()
    engine = engine_at(serve(lambda *_: Reply(body, 200)))
    with pytest.raises(InputError, match=r"has more than 65536 bytes.* or max_new_tokens, or corr"):
        one_turn(engine)


SOON = {"retry-after-ms": "5"}
TRANSIENT = {
    "rate limit in a 200": Reply({"error": {"message": "upstream", "code": 429}}, 200, SOON),
    "error in a choice": Reply({"choices": [{"error": {"code": 502}}]}, 200, SOON),
    "rate limit": Reply({"error": {"message": "slow down"}}, 429, SOON),
    "request timeout": Reply(b"", 408, SOON),
    "conflict": Reply(b"", 409, SOON),
    "overloaded": Reply(b"loading", 503, SOON),
    "crashed worker": Reply({"error": "no worker"}, 500, SOON),
    "dropped connection": DROP,
    "answer cut short": Reply(completion("It is 5."), missing=4),
}


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_transient_fault_costs_a_retry_and_nothing_else(serve, fault) -> None:
    server = serve(lambda number, _: Reply() if number else TRANSIENT[fault])
    engine = engine_at(server, patience=5)
    turn = one_turn(engine)
    assert turn.text == "It is 4."
    assert turn.usage == Usage(prompt=20, completion=5)
    assert len(engine.notes) == 1 and engine.notes[0].startswith("1 further tries of 1 requests")
    assert (engine.requests.sent, engine.requests.retried) == (1, 1)
    assert server.asked[0] == server.asked[1]


def test_the_server_says_when_to_try_again(serve) -> None:
    times = []

    def script(number, _):
        times.append(time.monotonic())
        return Reply() if number else Reply(b"", 429, {"retry-after": "0.9"})

    one_turn(engine_at(serve(script), patience=5))
    assert times[1] - times[0] >= 0.9


@pytest.mark.parametrize("fault", ["rate limit", "overloaded"])
def test_retries_end(serve, fault) -> None:
    server = serve(lambda *_: TRANSIENT[fault])
    with pytest.raises(ServerError, match=rf"failed: {TRANSIENT[fault].status}.*\(now 0.1 seconds"):
        one_turn(engine_at(server, patience=0.1))
    assert len(server.asked) > 3
    begun = time.monotonic()
    late = serve(lambda *_: Reply(b"", 429, {"retry-after": "60"}))
    with pytest.raises(ServerError, match=r"raise patience \(now 5 seconds\)"):
        one_turn(engine_at(late, patience=5))
    assert time.monotonic() - begun < 2  # no use in waiting less than it says


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refused_request_is_not_tried_again(serve, status) -> None:
    server = serve(lambda *_: Reply({"error": {"message": "no such thing"}}, status))
    with pytest.raises(InputError, match="refused .* 'small-model': .*such thing.* OPENAI_API_KEY"):
        one_turn(engine_at(server, patience=5))
    assert prompts(server) == ["2 + 2", "1 + 1"]


def test_a_server_that_hangs_is_given_up(serve) -> None:
    server = serve(lambda *_: None)
    with pytest.raises(ServerError, match=r"not answer in time .*timeout = 0\.2 seconds"):
        one_turn(engine_at(server, timeout=0.2))
    assert eventually(lambda: server.given_up == 2)


def test_a_server_that_drips_is_given_up(serve) -> None:
    """No byte is late, and the answer never whole."""
    server = serve(lambda *_: Reply(drip=0.05))
    begun = time.monotonic()
    with pytest.raises(ServerError, match=r"not answer in time .*timeout = 0\.3 seconds"):
        one_turn(engine_at(server, timeout=0.3))
    assert time.monotonic() - begun < 3


POISON = {
    "refused": Reply({"error": {"message": "content policy"}}, 400),
    "nonsense": Reply(b'{"choices": [{"mess'),
    "crash": Reply({"error": {"message": "worker died"}}, 500),
    "never ends": Reply(drip=0.05),
}


@pytest.mark.parametrize("fault", POISON)
def test_a_question_that_fails_alone_is_an_outcome_and_the_run_goes_on(
    serve, tmp_path, caplog, fault
) -> None:
    poison = BENCHMARKS["arithmetic-easy"].questions(0, 6)[0].text

    def script(_, request) -> Reply:
        bad = any(poison in message["content"] for message in request["messages"])
        return POISON[fault] if bad else answer_by_seed(_, request)

    server, path = serve(script), tmp_path / "runs.jsonl"
    engine = engine_at(server, timeout=0.4, concurrency=1)
    rules = {"arithmetic-easy": fixed_rounds(1)}
    runs = record_run(path, plan(), rules, lambda: engine)
    (bad,) = [run for run in runs if run.answers == (None, None)]
    assert bad.question == poison and bad.correct == (False, False)
    assert set(bad.finish) == {"refused_by_server" if fault == "refused" else "failed_at_server"}
    assert {usage.uncached for usage in bad.tokens} == {0 if fault == "refused" else None}
    assert (engine.requests.failed, sum(poison in text for text in prompts(server))) == (1, 1)
    assert "1 of 11 requests failed although the server answers others" in caplog.text
    asked_before = len(server.asked)
    assert record_run(path, plan(), rules, lambda: engine) == runs  # resumes past it
    assert len(server.asked) == asked_before


def test_half_of_a_surrogate_pair_in_a_prompt_is_an_outcome(serve) -> None:
    engine = engine_at(serve())
    bad, good = ask(engine, [asked("a \ud800?"), asked("2 + 2")], keys(0, 2))
    assert (bad.finish, good.text) == ("refused_by_server", "It is 4.")
    assert "no text in UTF-8" in engine.notes[0]


def test_replies_that_close_thoughts_of_the_template_are_said(serve) -> None:
    replies = [completion("4?</think>It is 4."), completion(r"Perhaps \boxed{5}? No", "length")]
    for thinking in (False, True):
        engine = engine_at(serve(lambda number, _: Reply(replies[number])), thinking=thinking)
        assert [one_turn(engine).thinking, one_turn(engine).thinking] == [thinking, thinking]
        said = [note for note in engine.notes if "--thinking" in note]
        assert len(said) == (not thinking)
    reply = completion("It is 4.")
    reply["choices"][0]["message"]["reasoning_content"] = "4?"
    assert not one_turn(engine_at(serve(lambda *_: Reply(reply)), thinking=True)).thinking


def test_no_more_requests_are_in_flight_than_asked_for(serve) -> None:
    three = threading.Barrier(3)

    def script(*_) -> Reply:
        three.wait(10)
        time.sleep(0.05)
        return Reply()

    server = serve(script)
    engine = engine_at(server, concurrency=3)
    ask(engine, [asked(str(i)) for i in range(9)], keys(0, 9))
    assert len(server.asked) == 9
    assert server.most_open == 3


@pytest.mark.parametrize("status", [400, 413, 422, 500, 200])
@pytest.mark.parametrize(
    "words", ["maximum context length is 64 tokens", "inputs tokens + max_new_tokens must be <= 9"]
)
def test_a_conversation_beyond_the_context_ends_alone(serve, words, status) -> None:
    def script(_, request) -> Reply:
        long = len(request["messages"][0]["content"]) > 50
        return Reply({"error": words}, status) if long else Reply()

    server = serve(script)
    engine = engine_at(server)
    one, two = keys(0, 2)
    again = Turn(asked("again"), two)
    short, long = talk(
        engine, [[Turn(asked("short"), one), again], [Turn(asked("long" * 20), one), again]]
    )
    assert all(turn.finished for turn in short)
    assert long == [REFUSED, REFUSED]
    assert len(server.asked) == 3
    assert (engine.requests.sent, engine.requests.refused) == (3, 1)


def test_a_server_that_is_down_is_named_before_anything_is_asked(serve) -> None:
    server = serve()
    server.stop()
    with pytest.raises(ServerError, match=rf"no server answers at {server.url} .*; start it there"):
        engine_at(server, patience=5)


def test_what_is_no_such_server_is_refused_at_the_start(serve, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "FIRST_ANSWER", 0.5)
    monkeypatch.setattr(openai_engine, "FIRST_ANSWER", 0.5)
    server = serve()
    server.models = None
    with pytest.raises(ServerError, match=r"not answer in time \(0\.5 seconds"):
        engine_at(server)
    server.models = Reply(b"not found", 404)
    with pytest.raises(InputError, match="base_url, which as a rule ends in /v1"):
        engine_at(server)
    server.models = Reply(b"<html>hello</html>")
    with pytest.raises(ServerError, match="hello.*not OpenAI's protocol"):
        engine_at(server)
    server.models = Reply(b"loading", 503)
    with pytest.raises(ServerError, match="503.*wait until it is ready"):
        engine_at(server)


def test_a_model_that_is_not_served_is_refused_with_those_that_are(serve) -> None:
    server = serve(served=("large-model", "larger-model"))
    with pytest.raises(InputError, match="'small-model' .*served are large-model, larger-model"):
        engine_at(server)
    engine_at(serve(served=()))  # lists nothing: the requests will show


def test_parallel_samples_are_decided_in_order_and_the_rest_is_cancelled(serve) -> None:
    """The first is the last to arrive; two never do."""
    sampled = keys(5, 5)
    place = {openai_engine.seed_of(key): i for i, key in enumerate(sampled)}
    arrived = threading.Semaphore(0)

    def script(_, request) -> Reply | None:
        sample = place[request["seed"]]
        if sample == 0:
            assert arrived.acquire(timeout=10) and arrived.acquire(timeout=10)
            time.sleep(0.2)
        elif sample > 2:
            return None
        else:
            arrived.release()
        return Reply(completion(f"sample {sample}"))

    server = serve(script)
    engine = engine_at(server, concurrency=5)
    shown = []

    def stop(seen) -> bool:
        shown.append([turn.text for turn in seen])
        return len(seen) == 2

    samples = engine.sample_until(asked("2 + 2"), sampled, stop)
    assert shown == [["sample 0"], ["sample 0", "sample 1"]]
    assert [turn.text for turn in samples.seen] == shown[-1]
    assert [turn.text for turn in samples.surplus] == ["sample 2"]
    assert samples.cancelled == engine.requests.cancelled == 2
    assert engine.requests.sent == len(server.asked) == 5
    assert eventually(lambda: server.given_up == 2)


def test_samples_beyond_the_concurrency_are_not_sent_once_the_rule_has_stopped(serve) -> None:
    server = serve()
    engine = engine_at(server, concurrency=1)
    samples = engine.sample_until(asked("2 + 2"), keys(0, 6), lambda seen: len(seen) == 2)
    assert len(samples.seen) == 2
    assert len(server.asked) <= engine.requests.sent <= 3
    samples = engine.sample_until(asked("2 + 2"), keys(0, 6), lambda seen: False)
    assert (len(samples.seen), samples.surplus, samples.cancelled) == (6, (), 0)


def test_one_failed_request_cancels_the_others_of_its_round(serve) -> None:
    def script(_, request) -> Reply | None:
        return None if request["messages"][0]["content"] == "good" else Reply(b"", 500)

    server = serve(script)
    engine = engine_at(server)
    with pytest.raises(ServerError, match="500"):
        ask(engine, [asked("bad"), asked("good")], keys(0, 2))
    assert eventually(lambda: server.given_up == prompts(server).count("good"))


@pytest.mark.parametrize("notebook", [False, True], ids=["command", "notebook"])
def test_an_interruption_cancels_what_is_in_flight(serve, notebook) -> None:
    def script(number, _) -> None:
        if number == 2:
            # As Ctrl-C does, it has to wake the thread that waits.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    server = serve(script)
    engine = engine_at(server)

    def asks() -> None:
        with pytest.raises(KeyboardInterrupt):
            ask(engine, [asked(str(i)) for i in range(3)], keys(0, 3))

    async def cell() -> None:
        asks()

    # Ignored where the tests themselves run in the background of a shell.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if notebook:  # asyncio.run would hear the interruption instead
            with closing(asyncio.new_event_loop()) as loop:
                loop.run_until_complete(cell())
        else:
            asks()
    finally:
        signal.signal(signal.SIGINT, heard)
    assert engine.requests.cancelled == 3
    assert eventually(lambda: server.given_up == len(server.asked))


def plan() -> RunPlan:
    return RunPlan(model=MODEL, start=0, count=6, rounds=1, seed=1, settings={"rule": "fixed: 1"})


def record(path, server):
    rules = {"arithmetic-easy": fixed_rounds(1)}
    return record_run(path, plan(), rules, lambda: engine_at(server, patience=0.5, concurrency=2))


def answer_by_seed(_, request) -> Reply:
    return Reply(completion(f"It is {request['seed'] % 10}."))


def test_a_run_goes_on_after_the_server_has_died(serve, tmp_path) -> None:
    """Nothing that was recorded is lost or asked again, nothing is counted twice."""
    whole = record(tmp_path / "whole.jsonl", serve(answer_by_seed))
    path = tmp_path / "runs.jsonl"

    def dies_at_the_seventh_request(number, request) -> Reply:
        if number == 6:
            dying.stop()
            return DROP
        return answer_by_seed(number, request)

    dying = serve(dies_at_the_seventh_request)
    with pytest.raises(ServerError, match=f"no server answers at {dying.url}"):
        record(path, dying)
    kept = read_runs(path)
    assert 2 <= len(kept) <= 3 and all(run in whole for run in kept)
    restarted = serve(answer_by_seed)
    assert record(path, restarted) == whole
    assert sorted(read_runs(path), key=whole.index) == whole
    assert len(restarted.asked) == (6 - len(kept)) * 2


def test_a_notebook_with_its_own_event_loop_can_ask(serve) -> None:
    server = serve()

    async def cell():
        return one_turn(engine_at(server))

    assert asyncio.run(cell()).text == "It is 4."


def test_a_conversation_may_begin_anew(serve) -> None:
    server = serve()
    one, two, three = (Turn(asked(f"say {i}"), key) for i, key in enumerate(keys(0, 3)))
    talk(engine_at(server), [[one, two._replace(new_conversation=True), three]])
    sent = [[m["content"] for m in request["messages"]] for request in server.asked]
    assert sent == [["say 0"], ["say 1"], ["say 1", "It is 4.", "say 2"]]


def test_conversations_do_not_wait_for_each_other(serve) -> None:
    """A short one takes its turns, and a third takes its place, while a long one is answered."""
    others = threading.Semaphore(0)

    def script(_, request) -> Reply:
        if request["messages"][0]["content"] == "slow":
            assert all(others.acquire(timeout=10) for _ in range(4))
        else:
            others.release()
        return Reply()

    server = serve(script)
    first, second = keys(0, 2)
    slow, *quick = (
        [Turn(asked(t), first), Turn(asked("more"), second)] for t in ("slow", "a", "b")
    )
    heard = talk(engine_at(server, concurrency=2), [slow[:1], *quick])
    assert [len(turns) for turns in heard] == [1, 2, 2]


def test_turns_end_with_a_user_message(serve) -> None:
    engine = engine_at(serve())
    spoken = [*asked("one"), {"role": "assistant", "content": "two"}]
    with pytest.raises(InputError, match="a turn must end with a user message"):
        ask(engine, [asked("one"), spoken], keys(0, 2))
    with pytest.raises(InputError, match="conversation must end with a user message"):
        engine.sample_until(spoken, keys(0, 1), lambda seen: True)


def test_a_key_is_stripped_and_never_shown(serve) -> None:
    server = serve()
    one_turn(engine_at(server, api_key=" sk-secret\n"))
    one_turn(engine_at(server, api_key="\n"))
    assert server.keys == {"sk-secret", "none"}
    for key in ("s\u00e9cret", "sk\nsecret"):
        with pytest.raises(InputError, match="OPENAI_API_KEY.*printable ASCII") as caught:
            engine_at(server, api_key=key)
        assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "localhost:8000/v1"},
        {"concurrency": 0},
        {"max_new_tokens": 0},
        {"patience": -1.0},
        {"temperature": -0.1},
        {"timeout": 0.0},
        {"top_p": 0.0},
    ],
)
def test_settings_outside_their_range(settings) -> None:
    with pytest.raises(InputError, match=f"{next(iter(settings))} is "):
        OpenAIEngine(**{"base_url": "http://127.0.0.1:1/v1", "model": MODEL, **settings})


def test_a_missing_client_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'msjax\[serve\]'"):
        OpenAIEngine("http://127.0.0.1:1/v1", MODEL)


def test_answers_are_graded_beside_each_other_and_beside_the_requests(serve) -> None:
    """A comparison may take seconds: here each waits until the other has begun."""
    two = threading.Barrier(2)
    scorer = scorers.own(lambda answer, target: two.wait(10) >= 0, read="number")
    questions = [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(2)]
    task = Task(samples(questions), scorer=scorer)
    runs = run(task, engine_at(serve(), concurrency=2), rounds=0)
    assert runs.correct.all()


def test_several_servers_share_a_run_and_a_conversation_stays_with_its_own(serve, tmp_path) -> None:
    servers = [serve(answer_by_seed) for _ in range(3)]
    alone = record(tmp_path / "alone.jsonl", serve(answer_by_seed))
    engine = OpenAIEngine([one.url for one in servers], MODEL, concurrency=6, patience=0.0)
    rules = {"arithmetic-easy": fixed_rounds(1)}
    runs = record_run(tmp_path / "runs.jsonl", plan(), rules, lambda: engine)
    assert runs == alone
    asked = [[len(request["messages"]) for request in one.asked] for one in servers]
    assert all(asked) and sum(map(len, asked)) == 2 * len(runs)
    for lengths in asked:  # as many second turns as first ones
        assert 2 * lengths.count(min(lengths)) == len(lengths)
    assert engine.notes == []


def test_a_server_that_dies_or_never_was_there_is_left_out_and_named(serve, tmp_path) -> None:
    def dies_at_its_second_request(number, request) -> Reply:
        if number == 1:
            dying.stop()
            return DROP
        return answer_by_seed(number, request)

    absent, dying, there = serve(), serve(dies_at_its_second_request), serve(answer_by_seed)
    absent.stop()
    urls = [one.url for one in (absent, dying, there)]
    engine = OpenAIEngine(urls, MODEL, concurrency=4, patience=0.0)
    rules = {"arithmetic-easy": fixed_rounds(1)}
    runs = record_run(tmp_path / "runs.jsonl", plan(), rules, lambda: engine)
    assert runs == record(tmp_path / "alone.jsonl", serve(answer_by_seed))
    assert engine.requests.failed == 0 and engine.requests.retried >= 1
    named = [note for note in engine.notes if "left out" in note]
    assert [note.split()[0] for note in named] == urls[:2]
    there.stop()
    with pytest.raises(ServerError, match="no server answers at"):
        OpenAIEngine(urls, MODEL)
    with pytest.raises(InputError, match="base_url is missing"):
        OpenAIEngine([], MODEL)
