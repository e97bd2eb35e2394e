"""The proxy between the openai client, which knows nothing of it, and a server of scripts."""

import asyncio
import dataclasses
import gzip
import json
import re
import threading
import time
from collections.abc import Callable

import numpy as np
import openai
import pytest
from proxies import ASKED, Running, eventually

import msjax
from msjax.errors import InputError
from msjax.llm.drift import AnswerMonitor
from msjax.llm.live_rule import rule_without_pilot
from msjax.llm.openai_engine import OpenAIEngine
from msjax.llm.reward import RewardModel
from msjax.llm.scores import find_score
from msjax.llm.serve import app as app_module
from msjax.llm.serve import upstream as upstream_module
from msjax.llm.serve.app import JUDGE, Deciding, ServeSettings, make_app
from msjax.llm.serve.effects import Difference, RunningMean
from msjax.rules.registry import rule_names
from msjax.testing import make_run
from msjax.testing.server import DROP, MODEL, Reply, completion
from msjax.verify.evidence import FALSE_ALARM


def deciding(name: str, budget: int, parallel: bool = False, judged: bool = False) -> Deciding:
    kind = "samples" if parallel else "rounds"
    return Deciding(name, rule_without_pilot(name, budget, kind, judged=judged))


def smallest() -> ServeSettings:
    """One answer from a server that is not there."""
    only = deciding("fixed", 1)
    return ServeSettings(("http://127.0.0.1:9/v1",), (only,), only, 1)


@pytest.fixture
def proxy(serve):
    """Starts proxies in front of a server of scripts, which are stopped after the test."""
    running = []

    def start(script=None, *, rule="until_repeated", budget=4, also=(), baseline=None, **settings):
        parallel = settings.get("parallel", False)
        judged = settings.get("judge") is not None
        upstream = serve(script or saying("4", "5", "5", "6"))
        baseline = baseline or ("fixed+majority" if parallel else "fixed")
        found = {
            "upstreams": (upstream.url,),
            "rules": tuple(deciding(name, budget, parallel, judged) for name in (rule, *also)),
            "baseline": deciding(baseline, budget, parallel, judged),
            "budget": budget,
            "seed": 0,
        }
        running.append(Running(ServeSettings(**found | settings)))
        running[-1].upstream = upstream
        return running[-1]

    yield start
    for one in running:
        one.stop()


def saying(*answers: str) -> Callable[[int, dict], Reply]:
    """Says these answers in the rounds of a conversation."""

    def script(number: int, request: dict) -> Reply:
        rounds = sum(message["role"] == "assistant" for message in request["messages"])
        return Reply(completion(f"It is {answers[min(rounds, len(answers) - 1)]}."))

    return script


def test_an_unchanged_client_gets_the_answer_that_the_rule_returns(proxy):
    """By base URL alone; the account is that of all three calls."""
    there = proxy()
    found = there.ask()
    assert found.choices[0].message.content == "It is 5."
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (60, 15)
    ledger = found.msjax
    assert ledger["answers"] == ["4", "5", "5"] and ledger["returned"] == 2
    assert (ledger["rule"], ledger["stop_reason"]) == ("until_repeated", "rule")
    assert ledger["arm"] == "rule"
    assert [len(one["messages"]) for one in there.upstream.asked] == [1, 3, 5]
    assert there.upstream.asked[2]["messages"][:1] == ASKED
    assert there.upstream.keys == {"client-key"}
    assert [one.id for one in there.client.models.list()] == [MODEL]


def test_a_stream_brings_the_chosen_answer_once_it_is_known(proxy):
    there = proxy()
    chunks = list(there.ask(stream=True, stream_options={"include_usage": True}))
    text = "".join(x.choices[0].delta.content or "" for x in chunks if x.choices)
    assert text == "It is 5."
    assert [x.choices[0].finish_reason for x in chunks if x.choices] == [None, "stop"]
    assert chunks[-1].usage.total_tokens == 75 and chunks[1].msjax["returned"] == 2
    assert all(not one.get("stream") for one in there.upstream.asked)


EVENTS = b"".join(
    b"data: %s\n\n" % json.dumps({"choices": [{"index": 0, "delta": {"content": x}}]}).encode()
    for x in ("It", " is 4.")
)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"n": 2}, "n"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "It"}]}, "no user message last"),
        ({"extra_body": {"msjax": {"rule": "off"}}}, "rule off"),
        ({"modalities": ["text", "audio"]}, "modalities"),
    ],
)
def test_what_cannot_be_revised_is_passed_on_untouched(proxy, more, why):
    there = proxy(saying("4"))
    raw = there.client.chat.completions.with_raw_response.create(
        **{"model": MODEL, "messages": ASKED, **more}
    )
    assert raw.headers["x-msjax"] == f"passed on untouched: {why}"
    assert json.loads(raw.text) == completion("It is 4.")
    (sent,) = there.upstream.asked
    extra = {name: value for name, value in more.items() if name != "extra_body"}
    assert sent == {"model": MODEL, "messages": ASKED} | extra
    assert there.metric(f'msjax_requests_total{{outcome="passed on: {why}"}}') == 1


def test_unknown_fields_and_images_go_upstream_in_every_round(proxy):
    there = proxy()
    parts = [
        {"type": "text", "text": "What is 2 + 3?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    said = [{"role": "user", "content": parts}]
    found = there.ask(said, temperature=0.3, extra_body={"top_k": 7})
    assert found.msjax["answers"] == ["4", "5", "5"]
    for request in there.upstream.asked:
        assert (request["top_k"], request["temperature"]) == (7, 0.3)
        assert request["messages"][0]["content"] == parts


def test_a_stream_that_is_passed_on_comes_as_it_is(proxy):
    reply = Reply(EVENTS + b"data: [DONE]\n\n", headers={"content-type": "text/event-stream"})
    there = proxy(lambda number, request: reply)
    chunks = there.ask(stream=True, extra_body={"msjax": {"rule": "off"}})
    assert [x.choices[0].delta.content for x in chunks] == ["It", " is 4."]
    assert there.upstream.asked[0]["stream"] is True


def test_requests_may_choose_among_the_rules_that_were_named(proxy):
    there = proxy(also=("fixed,rounds=0", "fixed+majority"))
    for options, answers in (
        ({"rule": "fixed,rounds=0"}, ["4"]),
        ({"rule": "fixed+majority"}, ["4", "5", "5", "6"]),
        ({"max_answers": 2}, ["4", "5"]),
    ):
        found = there.ask(extra_body={"msjax": options})
        assert found.msjax["answers"] == answers and found.msjax["arm"] == "override"
    for options, match in (
        ({"rule": "asc"}, "this proxy has until_repeated, fixed,rounds=0"),
        ({"rounds": 3}, "msjax may hold rule, max_answers, gold"),
        ({"max_answers": 0}, "below 1"),
        ({"max_answers": True}, "give int"),
    ):
        with pytest.raises(openai.BadRequestError, match=match):
            there.ask(extra_body={"msjax": options})


ROUNDS = {"fixed", "until_repeated", "until_accepted", "until_score", "markovscale", "belief"}


@pytest.mark.parametrize("name", rule_names())
def test_every_rule_works_or_is_refused_by_name_at_the_start(proxy, name):
    """Those that learn from labels are in tests/cli/test_serve.py, behind a pilot."""
    parallel = name not in ROUNDS
    settings = {"parallel": parallel, "judge": ""}
    if name == "optscale":
        settings |= {"score": find_score("confidence"), "logprobs": True}
    full = f"{name}+majority" if name == "fixed" and parallel else name
    try:
        there = proxy(judged_script, rule=full, **settings)
    except InputError as error:
        assert name in {"markovscale", "belief", "until_score", "optpo", "dsc"}
        assert re.search(f"rule '{name}'.*(give a pilot|can only be replayed)", str(error))
        return
    found = there.ask().msjax
    assert found["rule"] == full and 1 <= len(found["answers"]) <= 4
    assert found["answers"][found["returned"]] == "4"
    if name == "optscale":
        assert all(np.isclose(found["scores"], np.exp(-0.5)))


def judged_script(number: int, request: dict) -> Reply:
    if request["messages"][-1]["content"] == JUDGE:
        return Reply(completion("yes"))
    logprobs = {"content": [{"token": "4", "logprob": -0.5}]}
    return Reply(completion("It is 4.", logprobs=logprobs))


def test_a_judge_of_upstream_is_asked_and_counted(proxy):
    def script(number: int, request: dict) -> Reply:
        *said, last = request["messages"]
        if last["content"] == JUDGE:
            assert request["model"] == "a-judge"
            return Reply(completion("No." if "4" in said[-1]["content"] else "Well, yes"))
        return saying("4", "5")(number, request)

    there = proxy(script, rule="until_accepted", judge="a-judge")
    ledger = there.ask().msjax
    assert ledger["verdicts"] == [False, True] and ledger["answers"] == ["4", "5"]
    assert [one["verifier"] for one in ledger["tokens"]] == [25, 25]


def test_a_judge_that_fails_gives_no_verdict(proxy):
    def script(number: int, request: dict) -> Reply:
        if request["messages"][-1]["content"] == JUDGE:
            return Reply({"error": {"message": "busy"}}, status=500)
        return Reply(completion("It is 4."))

    ledger = proxy(script, rule="until_accepted", budget=2, judge="").ask().msjax
    assert ledger["verdicts"] == [None, None]
    assert [one["verifier"] for one in ledger["tokens"]] == [None, None]


def test_a_reward_model_scores_what_is_served_and_may_fail(proxy, serve):
    def reward(number: int, request: dict) -> Reply:
        if number == 3:
            return Reply(b"", 500)
        value = {"It is 4.": 0.1, "It is 5.": 0.9, "It is 6.": 0.2}[
            request["messages"][-1]["content"]
        ]
        found = [{"index": 0, "object": "pooling", "data": [value]}]
        return Reply({"object": "list", "data": found, "usage": {"prompt_tokens": 30}})

    server = serve(reward)
    there = proxy(
        rule="fixed+best_score",
        score=RewardModel(server.url.removesuffix("/v1"), "rm", patience=0.0),
        score_waits=True,
        budget=3,
    )
    for answers, scores in ((3, [0.1, 0.9, 0.9]), (3, [None, 0.9, 0.9])):
        found = there.ask(extra_body={"msjax": {"max_answers": answers}})
        assert found.msjax["scores"] == scores
        assert found.msjax["answers"] == ["4", "5", "5"]
        assert found.choices[0].message.content == "It is 5."
        reported = [one["verifier"] for one in found.msjax["tokens"]]
        assert reported == [None if score is None else 30 for score in scores]
    assert {request["model"] for request in server.asked} == {"rm"}
    question = server.asked[0]["messages"][0]["content"]
    assert question == ASKED[-1]["content"]
    assert there.metric("msjax_unscored_total") == 1


def test_samples_stop_and_those_under_way_are_given_up(proxy):
    """The third and later requests are held by the server until the proxy closes them."""
    five = threading.Barrier(5)

    def script(number: int, request: dict) -> Reply | None:
        if number < 5:
            five.wait(10)
        return Reply(completion("It is 4.")) if request["seed"] < 9 else None

    there = proxy(script, rule="vote_margin,margin=2", budget=8, parallel=True, ahead=5)
    found = there.ask(seed=7, temperature=1)
    assert found.msjax["answers"] == ["4", "4"]
    assert eventually(lambda: there.upstream.given_up >= 3)
    assert there.upstream.given_up <= found.msjax["cancelled"] <= 6
    assert all(request["messages"] == ASKED for request in there.upstream.asked)
    assert {7, 8} < {request["seed"] for request in there.upstream.asked}


@pytest.mark.parametrize(("thinking", "answers"), [(False, ["7"]), (True, [None])])
def test_a_text_that_begins_inside_a_thought_is_read_after_it(proxy, thinking, answers):
    there = proxy(
        lambda number, request: Reply(completion("First, \\boxed{7} is tempting.")),
        rule="fixed,rounds=0",
        thinking=thinking,
    )
    assert there.ask().msjax["answers"] == answers


def test_samples_at_temperature_zero_are_one(proxy):
    there = proxy(rule="vote_margin", parallel=True)
    raw = there.client.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASKED, temperature=0
    )
    assert raw.headers["x-msjax"].endswith("temperature 0") and len(there.upstream.asked) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_takes_its_upstream_request_along(proxy, stream):
    there = proxy(lambda number, request: None)
    impatient = there.client.with_options(timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        list(impatient.chat.completions.create(model=MODEL, messages=ASKED, stream=stream))
    assert eventually(lambda: there.upstream.given_up == 1)
    assert eventually(lambda: there.metric("msjax_in_flight") == 0)


@pytest.mark.parametrize(
    ("reply", "status", "words"),
    [
        (Reply({"error": {"message": "no such model"}}, 404), 404, "no such model"),
        (Reply({"error": {"message": "slow down"}}, 429, {"retry-after": "3"}), 429, "slow down"),
        (Reply({"error": {"message": "quota", "code": 429}}), 429, "quota"),
        (Reply({"error": {"message": "broken"}}, 500), 500, "broken"),
        (Reply({"hello": 1}), 502, "not OpenAI's protocol"),
        (DROP, 502, "upstream failed"),
        (Reply(drip=0.2), 504, "TimeoutError as it answered"),
    ],
)
def test_an_error_of_the_first_answer_is_the_clients(proxy, reply, status, words):
    there = proxy(lambda number, request: reply, timeout=1.0)
    with pytest.raises(openai.APIStatusError, match=words) as error:
        there.ask()
    assert error.value.status_code == status
    assert error.value.response.headers.get("retry-after") == reply.headers.get("retry-after")
    with pytest.raises(openai.APIError, match=words):
        list(there.ask(stream=True))


def test_what_was_answered_before_upstream_failed_is_returned(proxy):
    """The third answer cannot be had: the rule returns of the first two what it would."""

    def script(number: int, request: dict) -> Reply:
        return saying("4", "5")(number, request) if number < 2 else DROP

    there = proxy(script, rule="until_repeated,times=3")
    ledger = there.ask().msjax
    assert ledger["answers"] == ["4", "5"] and ledger["stop_reason"] == "failed"


def test_of_several_servers_the_one_that_fails_is_left_out_and_named(proxy, serve):
    bad = serve(lambda number, request: Reply({"error": "starting"}, 503))
    good = serve(saying("4", "4"))
    there = proxy(upstreams=(bad.url, good.url))
    for _ in range(3):
        assert there.ask().msjax["answers"] == ["4", "4"]
    assert len(bad.asked) == 1 and len(good.asked) == 6
    health = json.loads(there.get("/healthz"))["upstreams"]
    assert [one["up"] for one in health] == [False, True]
    assert health[0]["reason"] == "status 503" and health[0]["failures"] == 1


def test_load_is_spread_over_servers(proxy, serve):
    there_are = threading.Barrier(2)

    def script(number: int, request: dict) -> Reply:
        there_are.wait(10)  # neither answers before the other was asked
        return Reply(completion("It is 4."))

    one, other = serve(script), serve(script)
    there = proxy(rule="fixed,rounds=0", upstreams=(one.url, other.url))
    threads = [threading.Thread(target=there.ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(one.asked), len(other.asked)) == (1, 1)


def test_a_run_is_spread_over_servers_and_outlives_one_of_them(proxy, serve):
    """What `msjax run --server` asks goes through a proxy without a rule, untouched."""
    good = [serve(), serve()]
    bad = serve(lambda number, request: Reply(status=503) if number else Reply())
    there = proxy(rules=(), upstreams=tuple(one.url for one in (*good, bad)))
    engine = OpenAIEngine(f"{there.url}/v1", MODEL, concurrency=6, patience=0)
    runs = msjax.run(msjax.find_task("arithmetic-easy"), engine, rounds=1, questions=8)
    assert runs.answered and (runs.recorded == 2).all()
    assert len(bad.asked) >= 2 and all(len(one.asked) >= 3 for one in good)
    assert sum(len(one.asked) for one in good) == 16 - 1
    health = {one["url"]: one for one in json.loads(there.get("/healthz"))["upstreams"]}
    assert health[bad.url]["reason"] == "status 503"


def test_no_server_at_all_is_said_with_its_address(proxy):
    there = proxy(upstreams=("http://127.0.0.1:9/v1",))
    with pytest.raises(openai.InternalServerError, match=r"upstream failed: http://127.0.0.1:9/v1"):
        there.ask()
    assert there.send("GET", "/healthz")[0] == 503


def test_what_was_served_becomes_runs_once_there_are_labels(proxy, tmp_path):
    """Labels with the request, later by id, and one that came before a restart of the proxy."""
    log = tmp_path / "served.jsonl"
    there = proxy(log=log)
    first = there.ask(extra_body={"msjax": {"gold": "5"}}).msjax["id"]
    later = [there.ask().msjax["id"] for _ in range(3)]
    wrong = there.send("POST", "/feedback", {"id": later[0], "gold": "6"})
    right = there.send("POST", "/feedback", {"id": later[1], "correct": True})
    assert (wrong, right) == ((200, '{"correct": false}'), (200, '{"correct": true}'))
    for body, status, words in (
        ({"id": later[0], "gold": "5"}, 404, "has a label already"),
        ({"id": first, "gold": "5"}, 404, "has a label already"),
        ({"id": "x", "correct": 1}, 400, "correct is true or false"),
        ({"id": "x"}, 400, "either gold"),
        ({"id": later[2], "gold": ""}, 400, "gold"),
        ([], 400, "no JSON object"),
    ):
        found = there.send("POST", "/feedback", body)
        assert found[0] == status and words in found[1]
    assert there.metric('msjax_labels_total{arm="rule",correct="true"}') == 2
    assert log.stat().st_mode & 0o077 == 0
    runs = msjax.read(log)
    assert runs.questions == 2
    assert runs.right[:, :3].tolist() == [[False, True, True], [False, False, False]]
    assert runs.uncached[:, :3].tolist() == [[25.0] * 3] * 2
    there.stop()
    with log.open("ab") as file:
        file.write(b'{"served":1,"time":17')
    again = proxy(log=log)
    again.ask(extra_body={"msjax": {"gold": "4"}})
    assert msjax.read(log).questions == 3


@pytest.mark.parametrize("content", [make_run([0, 1]).model_dump_json(), '{\n "a": 1\n}', "", "{"])
def test_a_log_of_another_kind_is_left_alone(proxy, tmp_path, content):
    other = tmp_path / "runs.jsonl"
    other.write_text(content + "\n")
    before = other.read_bytes()

    async def start() -> None:
        app = make_app(dataclasses.replace(smallest(), log=other))
        async with app.router.lifespan_context(app):
            pass

    with pytest.raises(InputError, match="no file of served requests"):
        asyncio.run(start())
    assert other.read_bytes() == before


@pytest.mark.slow
def test_a_share_is_held_out_and_the_saving_is_shown(proxy):
    """The rule stops at two answers, the baseline asks for four: 50 tokens are saved."""
    there = proxy(saying("4"), holdout=0.5, concurrency=64)
    arms = []
    for _ in range(140):
        found = there.ask().msjax
        arms.append(found["arm"])
        assert len(found["answers"]) == {"rule": 2, "baseline": 4}[found["arm"]]
        label = {"id": found["id"], "correct": found["arm"] == "rule"}
        assert there.send("POST", "/feedback", label)[0] == 200
    assert 50 <= arms.count("baseline") <= 90
    low, saved, high = (
        there.metric(f'msjax_saving_tokens{{end="{x}"}}') for x in ("low", "estimate", "high")
    )
    assert low < 50 < high and abs(saved - 50) < 10
    assert there.metric('msjax_gain{end="low"}') > 0.5


def test_intervals_of_a_difference_hold_at_all_times():
    """Costs and labels that differ widely, of requests that become harder as time goes on."""
    random = np.random.default_rng(0)
    missed = {"tokens": 0, "labels": 0}
    for _ in range(150):
        kinds = {"tokens": Difference(0.2), "labels": Difference(0.2)}
        ever = dict.fromkeys(missed, False)
        effects = []
        for t in range(800):
            baseline = random.random() < 0.2
            hard = t / 800
            cost = random.exponential(400 if baseline else 300)
            right = random.random() < 0.8 - 0.3 * hard + (0.0 if baseline else 0.1 * hard)
            effects.append(0.1 * hard)
            kinds["tokens"].add(cost, baseline=baseline)
            kinds["labels"].add(float(right), baseline=baseline)
            for name, truth in (("tokens", -100.0), ("labels", sum(effects) / len(effects))):
                interval = kinds[name].interval() if t % 10 == 0 else None
                ever[name] |= interval is not None and not interval.low <= truth <= interval.high
        for name in missed:
            missed[name] += ever[name]
    from scipy.stats import binom

    assert all(binom.sf(count - 1, 150, 0.1) > FALSE_ALARM for count in missed.values()), missed


def test_an_interval_narrows_around_the_mean():
    found = RunningMean()
    for x in np.random.default_rng(1).normal(3, 1, 4000):
        found.add(x)
    interval = found.interval()
    assert interval.low < 3 < interval.high and interval.high - interval.low < 0.16


def test_a_shadow_returns_the_baselines_answer_and_says_what_the_rule_would_have_done(proxy):
    there = proxy(saying("4", "5", "5", "6"), shadow=True)
    found = there.ask()
    assert found.choices[0].message.content == "It is 6." and len(there.upstream.asked) == 4
    would = {"answers": 3, "returned": 2, "same_answer": False, "saved_tokens": 25.0}
    assert found.msjax["shadow"] == would
    there.ask()
    assert there.metric('msjax_shadow_saving_tokens{end="estimate"}') == 25


def test_after_drift_the_baseline_decides(proxy, caplog):
    """The pilot's answers never changed; live ones always do, and a new one is read in each."""
    pilot = [make_run([1, 1, 1, 1], str(i), answers=("2",) * 4) for i in range(60)]
    there = proxy(saying("4", "5", "6", "7"), rule="fixed,rounds=1", monitor=AnswerMonitor(pilot))
    counts = [len(there.ask().msjax["answers"]) for _ in range(20)]
    assert counts[0] == 2 and counts[-1] == 4
    assert there.metric("msjax_fallen_back") == 1
    assert there.metric("msjax_fallbacks_total") == counts.count(4)
    assert "share of changed was 0.00 in the pilot and is 1.00" in caplog.text
    assert json.loads(there.get("/healthz"))["fallen_back"] is True


def test_a_key_of_its_own_is_asked_for_and_never_goes_upstream(proxy):
    there = proxy(key="our key", upstream_key="their-key")
    with pytest.raises(openai.AuthenticationError, match="key of this proxy") as error:
        there.ask()
    assert "our key" not in str(error.value)
    known = there.client.with_options(api_key="our key")
    assert known.chat.completions.create(model=MODEL, messages=ASKED).msjax["returned"] == 2
    assert there.upstream.keys == {"their-key"}
    said = there.get("/metrics") + there.get("/healthz")
    assert "our key" not in said and "their-key" not in said
    assert there.send("POST", "/feedback", {"id": "x", "correct": True})[0] == 401


@pytest.mark.parametrize("more", [{}, {"extra_body": {"msjax": {"rule": "off"}}}])
def test_a_key_that_upstream_repeats_is_not_shown(proxy, more):
    refused = Reply({"error": {"message": "no access with Bearer their-key"}}, 403)
    there = proxy(lambda number, request: refused, key="our key", upstream_key="their-key")
    known = there.client.with_options(api_key="our key")
    with pytest.raises(openai.PermissionDeniedError, match=r"no access with Bearer \(secret\)"):
        known.chat.completions.create(model=MODEL, messages=ASKED, **more)


def test_bodies_and_origins_are_limited(proxy):
    there = proxy(most_bytes=2000)
    chat = "/v1/chat/completions"
    big = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 3000}]}
    for body, headers, status, words in (
        (big, {}, 413, "more than 2,000 bytes"),
        (b"{", {}, 400, "not JSON"),
        (b"[" * 1500, {}, 400, "not JSON"),
        ([], {}, 400, "no JSON object"),
        ({}, {"content-type": "text/plain"}, 415, "send application/json"),
        ({}, {"host": "evil.example"}, 403, "name 127.0.0.1"),
    ):
        found = there.send("POST", chat, body, **headers)
        assert found[0] == status and words in found[1], found
    assert there.upstream.asked == []


STREAM = {"stream": True, "extra_body": {"msjax": {"rule": "off"}}}


@pytest.mark.parametrize("more", [{}, {"extra_body": {"msjax": {"rule": "off"}}}])
def test_a_reply_of_any_length_is_read_up_to_a_bound(proxy, monkeypatch, more):
    monkeypatch.setattr(upstream_module.Upstreams.pieces, "__defaults__", (2**14,))
    there = proxy(lambda number, request: Reply(completion("x" * 2**16)))
    with pytest.raises(openai.InternalServerError, match="more than 16384 bytes"):
        there.ask(**more)
    assert there.get("/healthz")  # and the proxy goes on


def test_the_first_answer_is_returned_where_the_next_is_too_long(proxy, monkeypatch):
    monkeypatch.setattr(upstream_module.Upstreams.pieces, "__defaults__", (2**14,))
    texts = ("It is 4.", "x" * 2**16)
    there = proxy(lambda number, request: Reply(completion(texts[min(number, 1)])))
    found = there.ask()
    assert found.choices[0].message.content == "It is 4." and found.msjax["answers"] == ["4"]


def test_a_stream_that_is_passed_on_ends_at_a_bound_and_says_so(proxy, monkeypatch):
    monkeypatch.setattr(app_module, "MOST_STREAMED", 2**14)
    reply = Reply(EVENTS * 200, headers={"content-type": "text/event-stream"})
    there = proxy(lambda number, request: reply)
    with pytest.raises(openai.APIError, match="more than 16384 bytes"):
        list(there.ask(**STREAM))


@pytest.mark.parametrize("more", [{}, STREAM])
def test_a_server_that_drips_is_given_up_as_a_whole(proxy, more):
    kind = "text/event-stream" if more else "application/json"
    body = EVENTS if more else completion("It is 4.")
    drips = Reply(body, headers={"content-type": kind}, drip=0.02)
    there = proxy(lambda number, request: drips, timeout=0.5)
    with pytest.raises(openai.APIError, match="TimeoutError|Connection error"):
        list(there.ask(**more))


def test_a_reply_that_comes_compressed_is_not_taken(proxy):
    bomb = Reply(gzip.compress(bytes(2**20)), headers={"content-encoding": "gzip"})
    for more in ({}, STREAM):
        with pytest.raises(openai.InternalServerError, match="compresses its replies"):
            proxy(lambda number, request: bomb).ask(**more)


@pytest.mark.parametrize(
    "odd",
    [
        {"messages": [{"role": "user", "content": "2 + 3 \ud83d?"}]},
        {"model": "\ud83d"},
        {"model": 5},
        {"msjax": {"gold": "\ud83d"}},
        {"stream": True, "stream_options": 5},
        {"stream": True, "stream_options": "include_usage"},
        {"seed": 10**400},
    ],
)
def test_odd_requests_are_answered_and_written_down(proxy, tmp_path, odd):
    there = proxy(saying("4"), log=tmp_path / "served.jsonl")
    body = json.dumps({"model": MODEL, "messages": ASKED} | odd).encode()
    status, reply = there.send("POST", "/v1/chat/completions", body)
    assert status == 200 and "It is 4." in reply
    (identity,) = set(re.findall(r'"id": "([0-9a-f]{32})"', reply))
    if "msjax" not in odd:
        assert (
            there.send("POST", "/feedback", b'{"id": "%s", "gold": "\\ud83d"}' % identity.encode())[
                0
            ]
            == 200
        )
    assert eventually(lambda: (tmp_path / "served.jsonl").read_bytes().count(b"\n") >= 1)
    assert "log" not in json.loads(there.get("/healthz"))


def test_nothing_is_sent_where_upstream_points_to(proxy, serve):
    elsewhere = serve()
    moved = Reply(b"", 307, {"location": f"{elsewhere.url}/chat/completions"})
    with pytest.raises(openai.InternalServerError, match="redirects elsewhere"):
        proxy(lambda number, request: moved).ask()
    assert elsewhere.asked == []


def test_what_is_under_way_is_finished_when_it_stops(proxy, tmp_path):
    asked = threading.Event()

    def slow(number: int, request: dict) -> Reply:
        asked.set()
        time.sleep(0.3)
        return Reply(completion("It is 4."))

    there = proxy(slow, log=tmp_path / "served.jsonl")
    found = []
    asking = threading.Thread(target=lambda: found.append(there.ask()))
    asking.start()
    assert asked.wait(10)
    there.stop()
    asking.join(20)
    assert found[0].msjax["answers"] == ["4", "4"]
    assert len((tmp_path / "served.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"upstreams": ()}, "upstream is missing"),
        ({"upstreams": ("localhost:8000",)}, "must begin with http"),
        ({"upstreams": ("http://me:secret@host/v1",)}, "holds a password"),
        ({"holdout": 1.0}, r"give a share in \[0, 1\)"),
        ({"holdout": 0.1, "shadow": True}, "drop one"),
        ({"ahead": 0}, "ahead is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"key": "schlüssel"}, "not printable ASCII"),
    ],
)
def test_settings_out_of_range_are_refused(change, match):
    with pytest.raises(InputError, match=match) as error:
        make_app(dataclasses.replace(smallest(), **change))
    assert "secret" not in str(error.value)
