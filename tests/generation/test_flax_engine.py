"""Conversations on the tiny checkpoint, checked against full runs of the same tokens."""

import copy
from itertools import chain
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from msjax.errors import InputError
from msjax.generation import flax_engine
from msjax.generation.engine import REFUSED, asked
from msjax.generation.flax_engine import FlaxEngine, FlaxSession
from msjax.models import empty_cache, load

FOLDER = Path(__file__).parents[1] / "data" / "tiny_llama" / "tied"
PROMPTS = ["what is the sum", "check", "is the answer of these numbers the sum? " * 3, "1 + 2"]
FOLLOW_UP = "check your answer"


def engine_with(**settings) -> FlaxEngine:
    return FlaxEngine.load(FOLDER, **{"batch_size": 8, "max_new_tokens": 12, **settings})


@pytest.fixture(scope="module")
def sampler() -> FlaxEngine:
    return engine_with(temperature=1.0)


def keys(seed: int, count: int = len(PROMPTS)) -> list:
    return list(jax.random.split(jax.random.key(seed), count))


def two_rounds(engine: FlaxEngine, prompts=PROMPTS, order=None):
    """Completions of two rounds, keys following the prompts when they are reordered."""
    order = list(order or range(len(prompts)))
    session = engine.start([asked(prompts[i]) for i in order])
    first = session.complete([keys(1, len(prompts))[i] for i in order])
    session.extend([FOLLOW_UP] * len(prompts))
    second = session.complete([keys(2, len(prompts))[i] for i in order])
    place = np.argsort(order)
    return session, [first[i] for i in place], [second[i] for i in place]


@nnx.jit
def log_probabilities(decoder, tokens, lengths):
    """Of every next token (vocab, batch, time), from one run without any reuse."""
    cache = empty_cache(decoder.config, *tokens.shape, decoder.dtype)
    hidden, _ = decoder(tokens, lengths, cache)
    logits = decoder.logits(hidden.reshape(hidden.shape[0], -1))
    return jax.nn.log_softmax(logits, axis=0).reshape(-1, *tokens.shape)


def test_greedy_turns_are_the_argmax_of_a_full_run() -> None:
    session, first, second = two_rounds(engine_with())
    decoder = load(FOLDER)
    ends = decoder.config.eos_token_ids
    everything = [conversation.ids for conversation in session._conversations]
    lengths = np.array([len(ids) for ids in everything], np.int32)
    tokens = np.zeros((len(PROMPTS), lengths.max()), np.int32)
    for row, ids in enumerate(everything):
        tokens[row, : len(ids)] = ids
    full = np.asarray(log_probabilities(decoder, tokens, lengths))
    for row, (ids, *turns) in enumerate(zip(everything, first, second, strict=True)):
        logprobs = full[:, row]
        for turn in turns:
            span = range(turn.usage.prompt, turn.usage.prompt + turn.usage.completion)
            produced = [ids[i] for i in span]
            assert produced == [logprobs[:, i - 1].argmax() for i in span]
            mean = np.mean([logprobs[ids[i], i - 1] for i in span])
            assert turn.token_logprob == pytest.approx(mean, abs=1e-4)
            assert turn.finished == (produced[-1] in ends)
        assert turns[0].usage.cached == 0
        # all but the last token of the first round was in the cache
        assert turns[1].usage.cached == turns[0].usage.prompt + turns[0].usage.completion - 1


def test_a_cached_round_samples_as_a_full_prefill(sampler) -> None:
    session = sampler.start([asked(prompt) for prompt in PROMPTS])
    session.complete(keys(1))
    session.extend([FOLLOW_UP] * len(PROMPTS))
    fresh = copy.deepcopy(session._conversations)
    for conversation in fresh:
        conversation.cached = 0
    ours = session.complete(keys(2))
    theirs = FlaxSession(sampler, fresh).complete(keys(2))
    assert [turn.text for turn in ours] == [turn.text for turn in theirs]
    assert [turn.usage.cached for turn in theirs] == [0] * len(PROMPTS)
    np.testing.assert_allclose(
        [turn.token_logprob for turn in ours], [turn.token_logprob for turn in theirs], atol=1e-4
    )


def test_results_depend_on_the_key_alone(sampler) -> None:
    """Not on the place in the batch, the other rows, or how they were grouped."""
    _, *expected = two_rounds(sampler)
    _, *reordered = two_rounds(sampler, order=[2, 0, 3, 1])
    _, *grouped = two_rounds(engine_with(temperature=1.0, batch_size=3))
    for other in (reordered, grouped):
        for ours, theirs in zip(chain(*expected), chain(*other), strict=True):
            assert ours.text == theirs.text
            assert ours.usage == theirs.usage
    assert len({turn.text for turn in chain(*expected)}) > len(PROMPTS)


def test_a_shared_beginning_is_computed_once_and_changes_nothing(sampler, monkeypatch) -> None:
    prompts = [f"{'these examples come before every question. ' * 2}{i} + {i}" for i in range(4)]
    _, *alone = two_rounds(engine_with(temperature=1.0, batch_size=1), prompts)
    widths = []
    original = flax_engine.prefill

    def recording(graphdef, weights, tokens, fresh, cache):
        widths.append((tokens.shape[0], int(fresh.sum())))
        return original(graphdef, weights, tokens, fresh, cache)

    monkeypatch.setattr(flax_engine, "prefill", recording)
    _, *together = two_rounds(sampler, prompts)
    for ours, theirs in zip(chain(*together), chain(*alone), strict=True):
        assert ours.text == theirs.text
        assert ours.usage == theirs.usage
    once = sum(tokens for rows, tokens in widths if rows == 1)
    each = sum(tokens for rows, tokens in widths if rows > 1)
    first = sum(turn.usage.prompt - 1 for turn in together[0])
    later = sum(turn.usage.prompt - 1 - turn.usage.cached for turn in together[1])
    assert once > 32
    assert each == first - 4 * once + later


def test_finished_conversations_leave_and_the_batch_shrinks(sampler) -> None:
    prompts = [f"{i} + {i}" for i in range(8)]
    _, _, expected = two_rounds(sampler, prompts)
    session = sampler.start([asked(prompt) for prompt in prompts])
    session.complete(keys(1, 8))
    session.extend([FOLLOW_UP if i in (1, 6) else None for i in range(8)])
    results = session.complete([key if i in (1, 6) else None for i, key in enumerate(keys(2, 8))])
    assert [i for i, turn in enumerate(results) if turn is not None] == [1, 6]
    assert [results[i].text for i in (1, 6)] == [expected[i].text for i in (1, 6)]
    assert session._groups[0].cache.rows == 4
    assert session.complete([None] * 8) == [None] * 8
    with pytest.raises(InputError, match="conversation 1 is finished"):
        session.extend([None, FOLLOW_UP, *[None] * 6])


def test_a_second_run_of_equal_buckets_compiles_nothing(sampler) -> None:
    two_rounds(sampler)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        two_rounds(sampler, [f"{prompt}?" for prompt in PROMPTS])
        assert compiled == []
        jax.jit(lambda x: x + 1)(1.0)
        assert compiled != []  # the listener does hear compilations
    finally:
        jax.monitoring.clear_event_listeners()


def test_context_bounds_prompts_and_completions(sampler) -> None:
    long = "1" * 480
    length = sampler.start([asked(long)])._conversations[0].ids
    fits = sampler.start([asked("1" * (480 + 508 - len(length)))])
    (turn,) = fits.complete(keys(0, 1))
    assert turn.usage.prompt == 508
    assert turn.usage.completion <= 4


def test_what_is_longer_than_the_context_is_refused_and_the_others_go_on(sampler) -> None:
    alone = sampler.start([asked("short")])
    (expected,) = alone.complete(keys(0, 1))
    both = sampler.start([asked("1" * 600), asked("short")])
    long, short = both.complete([keys(0, 1)[0], keys(0, 1)[0]])
    assert long is REFUSED and (short.text, short.usage) == (expected.text, expected.usage)
    # One that outgrows the context in a later round is refused from there on.
    both.extend(["more", "1" * 600])
    assert both.complete([None, keys(0, 1)[0]]) == [None, REFUSED]
    both.extend([None, "short"])
    assert both.complete([None, keys(0, 1)[0]]) == [None, REFUSED]


def test_turns_are_kept_in_order(sampler) -> None:
    session = sampler.start([asked("one"), asked("two")])
    with pytest.raises(InputError, match="conversation 0 is waiting for a completion"):
        session.extend([FOLLOW_UP, None])
    with pytest.raises(InputError, match="keys has 1 entries"):
        session.complete(keys(0, 1))
    session.complete(keys(0, 2))
    with pytest.raises(InputError, match="conversation 1 is waiting for a user message"):
        session.complete([None, keys(0, 1)[0]])


def test_a_template_that_rewrites_history_is_refused(sampler) -> None:
    engine = copy.copy(sampler)
    engine.tokenizer = copy.deepcopy(sampler.tokenizer)
    engine.tokenizer.chat_template = (
        "{% for m in messages %}{% if loop.last or m['role'] == 'user' %}"
        "<|im_start|>{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}<|im_start|>"
    )
    session = engine.start([asked("one")])
    session.complete(keys(0, 1))
    with pytest.raises(InputError, match="rewrites earlier turns of conversation 0"):
        session.extend([FOLLOW_UP])


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"max_new_tokens": 0}, {"top_p": 2.0}])
def test_settings_outside_their_range(settings) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        engine_with(**settings)
