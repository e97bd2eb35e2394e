"""Scores by a reward model, as vLLM's documentation has its pooling interface answer."""

import pytest
from conversations import plan

from msjax.cli import main
from msjax.cli.tables import summary_table
from msjax.errors import InputError, ServerError
from msjax.evaluate.summary import summarise
from msjax.llm.record import record_run
from msjax.llm.reward import RewardModel
from msjax.rules.fixed import fixed_rounds
from msjax.testing import ScriptedEngine
from msjax.testing.server import MODEL, Reply

NAME = "arithmetic-easy"


def pooled(data, tokens=30) -> Reply:
    body = {"object": "list", "data": [{"index": 0, "object": "pooling", "data": data}]}
    return Reply(body | {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}})


def reward_at(server, **settings) -> RewardModel:
    base = server.url.removesuffix("/v1")
    return RewardModel(base, "rm", **{"patience": 0.0, **settings})


def scored(tmp_path, reward):
    rules = {NAME: fixed_rounds(1)}
    return record_run(
        tmp_path / "runs.jsonl", plan(count=3, rounds=1), rules, ScriptedEngine, score=reward
    )


@pytest.mark.parametrize(
    ("data", "value"),
    [([1.75], 1.75), ([[0.2, 0.8]], 0.8), ([[0.2, 0.8], [0.9, 0.1], [0.0, 1.0]], 1.9 / 3)],
)
def test_one_reward_or_the_mean_over_steps(serve, tmp_path, data, value) -> None:
    server = serve(lambda *_: pooled(data))
    runs = scored(tmp_path, reward_at(server))
    assert all(run.scores == (pytest.approx(value),) * 2 for run in runs)


def test_what_is_scored_is_question_and_completion_and_it_is_paid_for(serve, tmp_path) -> None:
    server = serve(lambda number, _: pooled([0.5], tokens=100 + number))
    runs = scored(tmp_path, reward_at(server))
    pairs = {(run.question, text) for run in runs for text in run.completions}
    assert {request["model"] for request in server.asked} == {"rm"}
    assert {tuple(m["content"] for m in request["messages"]) for request in server.asked} == pairs
    usages = [usage for run in runs for usage in run.tokens]
    assert sorted(usage.verifier for usage in usages) == [100 + i for i in range(6)]
    assert all(u.uncached == u.prompt - u.cached + u.completion + u.verifier for u in usages)
    header, line = summary_table(summarise(runs)).splitlines()[:2]
    assert header.split()[-1] == "verifier" and line.split()[-1] == "615"


@pytest.mark.parametrize(
    "data",
    [[0.1, 0.2, 0.3], [[0.1, 0.2, 0.7]], [], "AAAA", [float("inf")], [[0.1, float("-inf")]]],
)
def test_what_is_no_score_is_refused(serve, tmp_path, data) -> None:
    with pytest.raises(ServerError, match="neither one reward|not OpenAI's protocol"):
        scored(tmp_path, reward_at(serve(lambda *_: pooled(data))))


def test_a_transient_fault_is_tried_again_and_others_are_named(serve, tmp_path) -> None:
    server = serve(lambda number, _: pooled([0.5]) if number else Reply(b"", 503))
    assert len(scored(tmp_path, reward_at(server, patience=5))) == 3
    refused = serve(lambda *_: Reply({"error": {"message": "no pooling"}}, 400))
    with pytest.raises(InputError, match="refused a request for model 'rm'.*no pooling"):
        scored(tmp_path / "again", reward_at(refused))
    server.stop()
    with pytest.raises(ServerError, match="no server answers"):
        scored(tmp_path / "down", reward_at(server))


def test_a_command_asks_two_servers_each_with_its_own_key(serve, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "for the model")
    monkeypatch.setenv("REWARD_API_KEY", "for the reward")
    chat, reward = serve(), serve(lambda *_: pooled([0.5]))
    out = str(tmp_path / "runs.jsonl")
    options = ["--benchmarks", NAME, "--questions", "2", "--rounds", "1", "--top-p", "0.9"]
    served = ["--server", chat.url, "--model", MODEL, "--score", "reward", "--reward-model", "rm"]
    reward_at_ = ["--reward-server", reward.url.removesuffix("/v1")]
    assert main(["run", out, *options, *served, *reward_at_]) == 0
    assert (chat.keys, reward.keys) == ({"for the model"}, {"for the reward"})
    assert {request["top_p"] for request in chat.asked} == {0.9}
    assert main(["run", out, *options[:-1], "0.8", *served, *reward_at_]) == 2
    monkeypatch.setenv("OPENAI_API_KEY", "")  # as good as none
    assert main(["run", out + "y", *options, *served, *reward_at_]) == 0
    assert chat.keys == {"for the model", "none"}
    assert main(["run", out + "x", *options, *served, *reward_at_, "--timeout", "0"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--score", "reward"], "needs --reward-server URL and --reward-model NAME"),
        (["--reward-model", "rm"], "are for --score reward"),
        (["--score", "soms"], "score is 'soms'"),
    ],
)
def test_bad_options_are_named(tmp_path, capsys, options, message) -> None:
    assert main(["run", str(tmp_path / "x.jsonl"), *options]) == 2
    assert message in capsys.readouterr().err
