"""Scores that take their time, such as a reward model's: asked for together, given up together."""

import asyncio
import threading
import time
from pathlib import Path

import jax
import pytest
from conversations import talk

from msjax.data.messages import Score, asked
from msjax.errors import ServerError
from msjax.llm.concurrency import to_thread
from msjax.llm.engine import Turn
from msjax.llm.flax.engine import FlaxEngine
from msjax.llm.openai_engine import OpenAIEngine
from msjax.testing.server import MODEL

FOLDER = Path(__file__).parents[1] / "fixtures" / "tiny_llama" / "tied"
CONVERSATIONS = 4


@pytest.fixture(params=["local", "served"])
def engine(request, serve):
    if request.param == "served":
        return OpenAIEngine(serve().url, MODEL)
    return local()


def local() -> FlaxEngine:
    return FlaxEngine.load(FOLDER, batch_size=CONVERSATIONS, max_new_tokens=4)


def talks(score) -> list[list[Turn]]:
    """Prompts of one length, so that all are answered at a time."""
    keys = jax.random.split(jax.random.key(0), CONVERSATIONS)
    return [[Turn(asked(f"{i} + {i}"), key, score=score)] for i, key in enumerate(keys)]


def test_answers_are_scored_at_a_time(engine) -> None:
    """Each score waits for all others: asked one after the other, none would ever come."""
    meeting = threading.Barrier(CONVERSATIONS, timeout=60)

    def score(completion) -> Score:
        meeting.wait()
        return Score(float(len(completion.text)), 7)

    for (completion,) in talk(engine, talks(score)):
        assert completion.score == Score(float(len(completion.text)), 7)


def test_a_score_that_fails_ends_the_run_whatever_the_others_wait_for(engine) -> None:
    never, asked_for = threading.Event(), threading.Barrier(CONVERSATIONS, timeout=60)

    def score(completion) -> Score:
        if asked_for.wait() == 0:
            raise ServerError("the reward model is gone")
        never.wait(60)
        return Score(0.0)

    start = time.monotonic()
    with pytest.raises(ServerError, match="gone"):
        talk(engine, talks(score))
    assert time.monotonic() - start < 30
    never.set()


def test_what_others_had_scored_when_one_fails_is_handed_over(engine) -> None:
    together = threading.Barrier(CONVERSATIONS, timeout=60)
    heard = []

    def fails(completion) -> Score:
        together.wait()
        time.sleep(0.3)  # the others return meanwhile
        raise ServerError("the reward model is gone")

    def succeeds(completion) -> Score:
        together.wait()
        return Score(1.0)

    def one(turn):
        heard.append((yield turn))

    (first,), *others = talks(succeeds)
    with pytest.raises(ServerError, match="gone"):
        engine.converse(
            one(turn) for turn in (first._replace(score=fails), *(t for (t,) in others))
        )
    assert [completion.score for completion in heard] == [Score(1.0)] * (CONVERSATIONS - 1)


def test_a_score_that_raises_stop_iteration_ends_the_run(engine) -> None:
    """No coroutine may raise it, so that it would be waited for without end."""

    def score(*_) -> Score:
        return next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(asyncio.wait_for(to_thread(score), 10))
    with pytest.raises(RuntimeError, match="StopIteration"):
        talk(engine, talks(score))


def test_the_local_engine_needs_no_event_loop_and_no_thread_for_one_score() -> None:
    threads = []

    def score(completion) -> Score:
        threads.append(threading.current_thread())
        return Score(0.0)

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        engine = local()
        talk(engine, talks(score))
        assert asyncio.get_event_loop() is loop
        threads.clear()
        talk(engine, talks(score)[:1])
        assert threads == [threading.main_thread()]
    finally:
        asyncio.set_event_loop(None)
        loop.close()
