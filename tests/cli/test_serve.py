"""`msjax serve` as it is typed: rules from a pilot, what is refused at the start, how it stops."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files

import openai
import pytest

from msjax.cli import main
from msjax.cli.serve import Serve
from msjax.errors import InputError
from msjax.testing.server import MODEL, Reply, completion

PILOT = files("msjax") / "recorded/pilot.jsonl"
LEARNT = {"pilot": PILOT, "benchmark": "arithmetic-hard"}


def script(number: int, request: dict) -> Reply:
    return Reply(completion("It is 4."))


@pytest.fixture
def serving(serve, interruptible) -> Iterator[tuple[subprocess.Popen, list[str], openai.OpenAI]]:
    """The command in a process of its own, what it said, and a client of it."""
    upstream = serve(script)
    command = [sys.executable, "-m", "msjax", "serve", "--upstream", upstream.url, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("serving"):
            break
    client = openai.OpenAI(base_url=said[-1].split()[1], api_key="k", max_retries=0)
    yield process, said, client
    client.close()
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


@pytest.mark.slow
def test_it_serves_until_it_is_interrupted(serving):
    process, said, client = serving
    assert said[0].startswith("rule until_repeated: until the same answer has come")
    found = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "2 + 2?"}]
    )
    assert found.msjax["answers"] == ["4", "4"]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("rule", ["markovscale", "card", "belief+most_probable"])
def test_rules_learn_from_the_pilot_and_drift_is_watched(rule):
    command = Serve(
        upstream=("http://127.0.0.1:9/v1",), rule=rule, also=("until_repeated",), **LEARNT
    )
    settings = command.settings()
    assert [one.name for one in settings.rules] == [rule, "until_repeated"]
    assert settings.monitor is not None and settings.baseline.name == "fixed"
    assert settings.rules[0].live.says


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rule": "markovscale"}, "'markovscale' learns from labelled runs; give a pilot"),
        ({"rule": "card"}, "'card' needs a pilot"),
        ({"rule": "asc"}, "'asc' is for samples"),
        ({"rule": "nonsense"}, "'nonsense' is unknown; known are fixed"),
        ({"rule": "until_accepted"}, "no judge is asked here"),
        ({"rule": "optscale", "samples": 4}, "looks at scores; say which with --score"),
        (
            {"rule": "optscale", "samples": 4, "score": "token_logprob"},
            r"needs scores in \[0, 1\]; take --score confidence",
        ),
        ({"score": "certainty"}, "servers do not report"),
        ({"score": "reward"}, "needs --reward-server"),
        ({"reward_model": "m"}, "are for --score reward"),
        ({"rounds": -1}, "--rounds is -1"),
        ({"samples": 0}, "--samples is 0"),
        ({"port": 70000}, "--port is 70000"),
        ({"pilot": PILOT}, "choose one with --benchmark"),
        ({**LEARNT, "benchmark": "x"}, "but not x"),
        ({**LEARNT, "samples": 4}, "give a pilot of samples"),
        ({**LEARNT, "rule": "markovscale", "rounds": 9}, "rounds is 9; record a pilot"),
        ({"price": 1e-6}, "--worth is missing"),
        ({"template": "none"}, "template 'none' is unknown"),
        ({"scorer": "none"}, "scorer 'none' is unknown"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_served(options, match):
    with pytest.raises(InputError, match=match):
        Serve(upstream=("http://127.0.0.1:9/v1",), **options).settings()


def test_bad_input_is_one_line_and_status_2(capsys):
    assert main(["serve"]) == 2
    assert "upstream is missing" in capsys.readouterr().err
    assert main(["serve", "--upstream", "localhost:8000"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("msjax: error: upstream is 'localhost:8000'; it must begin with http")
    assert error.count("\n") == 1


def test_a_log_or_port_that_cannot_be_had_is_one_line_and_status_2(tmp_path):
    """In a process of its own, as uvicorn leaves open what it could not bind."""
    log = tmp_path / "runs.jsonl"
    log.write_text('{"a": 1}\n')

    def ended(*options):
        started = "import sys; from msjax.cli import main; sys.exit(main(sys.argv[1:]))"
        return subprocess.run(
            [
                sys.executable,
                "-c",
                started,
                "serve",
                "--upstream",
                "http://127.0.0.1:9/v1",
                *options,
            ],
            capture_output=True,
            text=True,
        )

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for options, says in (
            (["--out", str(log)], "runs.jsonl: is no file of served requests"),
            ([], f"port {port} of 127.0.0.1 cannot be had"),
        ):
            done = ended("--port", port, *options)
            assert done.returncode == 2
            assert says in done.stderr and "Traceback" not in done.stderr
    assert log.read_text() == '{"a": 1}\n'
