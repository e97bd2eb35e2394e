"""Conversations on the tiny checkpoint, checked against full runs of the same tokens."""

from itertools import chain
from pathlib import Path

import jax
import numpy as np
import pytest
from conversations import talk
from flax import nnx

from msjax.data.messages import REFUSED, asked
from msjax.errors import InputError
from msjax.llm.engine import Turn, ask
from msjax.llm.flax import empty_cache, load, scheduler
from msjax.llm.flax.engine import FlaxEngine

FOLDER = Path(__file__).parents[2] / "fixtures" / "tiny_llama" / "tied"
PROMPTS = ["what is the sum", "check", "is the answer of these numbers the sum? " * 3, "1 + 2"]
FOLLOW_UP = "check your answer"
WIDEST = 256  # tokens of a full run


def engine_with(**settings) -> FlaxEngine:
    return FlaxEngine.load(FOLDER, **{"batch_size": 8, "max_new_tokens": 12, **settings})


@pytest.fixture(scope="module")
def sampler() -> FlaxEngine:
    return engine_with(temperature=1.0)


def keys(seed: int, count: int = len(PROMPTS)) -> list:
    return list(jax.random.split(jax.random.key(seed), count))


def two_turns(prompts=PROMPTS, second=FOLLOW_UP) -> list[list[Turn]]:
    """One talk per prompt; a key depends on the place of its prompt."""
    pairs = zip(prompts, keys(1, len(prompts)), keys(2, len(prompts)), strict=True)
    return [[Turn(asked(p), one), Turn(asked(second), two)] for p, one, two in pairs]


def said(turn) -> tuple:
    return turn.text, turn.usage


@nnx.jit
def log_probabilities(decoder, tokens, lengths):
    """Of every next token (vocab, batch, time), from one run without any reuse."""
    cache = empty_cache(decoder.config, *tokens.shape, decoder.dtype)
    hidden, _ = decoder(tokens, lengths, cache)
    logits = decoder.logits(hidden.reshape(hidden.shape[0], -1))
    return jax.nn.log_softmax(logits, axis=0).reshape(-1, *tokens.shape)


@pytest.mark.slow
def test_greedy_turns_are_the_argmax_of_a_full_run() -> None:
    engine = engine_with()
    decoder = load(FOLDER)
    ends = decoder.config.eos_token_ids
    talks = two_turns()
    heard = talk(engine, talks)
    everything = []
    for turns, completions in zip(talks, heard, strict=True):
        transcript = engine.chat.begin(turns[0].messages)
        for turn, completion in zip(turns, completions, strict=True):
            if turn is not turns[0]:
                transcript = engine.chat.go_on(transcript, turn.messages)
            assert len(transcript.ids) == completion.usage.prompt
            tokens = greedy(decoder, transcript.ids, completion.usage.completion)
            transcript = engine.chat.answered(transcript, tokens)
            assert transcript.messages[-1]["content"] == completion.text
            assert completion.finished == (tokens[-1] in ends)
        everything.append(transcript.ids)
        first, second = completions
        assert first.usage.cached == 0
        # all but the last token of the first round was in the cache
        assert second.usage.cached == first.usage.prompt + first.usage.completion - 1
    full = log_probabilities_of(decoder, everything)
    for ids, logprobs, completions in zip(everything, full, heard, strict=True):
        for completion in completions:
            usage = completion.usage
            span = range(usage.prompt, usage.prompt + usage.completion)
            mean = np.mean([logprobs[ids[i], i - 1] for i in span])
            assert completion.token_logprob == pytest.approx(mean, abs=1e-4)
            each = [-(np.exp(p) * p).sum() for p in (logprobs[:, i - 1] for i in span)]
            assert completion.entropy == pytest.approx(np.mean(each), abs=1e-4)


def log_probabilities_of(decoder, everything) -> list[np.ndarray]:
    """(vocab, time) of every conversation."""
    lengths = np.array([len(ids) for ids in everything], np.int32)
    tokens = np.zeros((len(everything), WIDEST), np.int32)
    for row, ids in enumerate(everything):
        tokens[row, : len(ids)] = ids
    full = np.asarray(log_probabilities(decoder, tokens, lengths))
    return [full[:, row] for row in range(len(everything))]


def greedy(decoder, ids, count: int) -> list[int]:
    """So many most probable tokens, each from a full run."""
    found = list(ids)
    for _ in range(count):
        (logprobs,) = log_probabilities_of(decoder, [found])
        found.append(int(logprobs[:, len(found) - 1].argmax()))
    return found[len(ids) :]


def test_log_odds_are_those_where_the_last_of_the_words_was_drawn() -> None:
    engine, decoder = engine_with(), load(FOLDER)
    prompts = [engine.chat.begin(asked(prompt)).ids for prompt in PROMPTS]
    heard = ask(engine, [asked(prompt) for prompt in PROMPTS], keys(3))
    assert all(np.isnan(completion.log_odds) for completion in heard)
    drawn = [
        greedy(decoder, ids, said.usage.completion)
        for ids, said in zip(prompts, heard, strict=True)
    ]
    # Words that the model says: the first token of one answer, and one in the midst of another.
    yes, no = [drawn[0][0], 5, 6, 7], [drawn[1][len(drawn[1]) // 2], 8, 9]
    engine.yes_no = tuple(yes), tuple(no)
    again = ask(engine, [asked(prompt) for prompt in PROMPTS], keys(3))
    for ids, tokens, completion in zip(prompts, drawn, again, strict=True):
        at = [i for i, token in enumerate(tokens) if token in yes + no]
        if not at:
            assert np.isnan(completion.log_odds)
            continue
        (logprobs,) = log_probabilities_of(decoder, [[*ids, *tokens]])
        there = logprobs[:, len(ids) + at[-1] - 1]
        odds = np.logaddexp.reduce(there[yes]) - np.logaddexp.reduce(there[no])
        assert completion.log_odds == pytest.approx(odds, abs=1e-4)
    assert sum(np.isfinite(completion.log_odds) for completion in again) >= 2
    with pytest.raises(InputError, match="'yes' is no token of tied"):
        engine_with(log_odds=True)


def computed_tokens(monkeypatch, engine, talks) -> tuple[int, list]:
    """Prompt tokens that went through the decoder, and the completions."""
    counted = []

    def counting(original):
        def run(graphdef, weights, tokens, fresh, *rest):
            counted.append(int(fresh.sum()))
            return original(graphdef, weights, tokens, fresh, *rest)

        return run

    with monkeypatch.context() as patched:
        for name in ("prefill", "prefill_rows"):
            patched.setattr(scheduler, name, counting(getattr(scheduler, name)))
        heard = talk(engine, talks)
    return sum(counted), heard


def test_a_cached_turn_samples_as_a_full_prefill(sampler, monkeypatch) -> None:
    reused, heard = computed_tokens(monkeypatch, sampler, two_turns())
    monkeypatch.setattr(scheduler.Batch, "reusable", lambda self, row, ids: (row, 0))
    everything, whole = computed_tokens(monkeypatch, sampler, two_turns())
    usages = [turn.usage for turns in heard for turn in turns]
    assert everything == sum(usage.prompt - 1 for usage in usages)
    assert reused <= everything - sum(usage.cached for usage in usages)
    for ours, theirs in zip(chain(*heard), chain(*whole), strict=True):
        assert said(ours) == said(theirs)
        assert ours.token_logprob == pytest.approx(theirs.token_logprob, abs=1e-4)


@pytest.mark.slow
def test_results_depend_on_the_key_alone(sampler) -> None:
    """Not on the place in the batch, the other rows, or who waited for whom."""
    talks = two_turns()
    expected = talk(sampler, talks)
    order = [2, 0, 3, 1]
    reordered = talk(sampler, [talks[i] for i in order])
    few_rows = talk(engine_with(temperature=1.0, batch_size=3), talks)
    for found in ([reordered[order.index(i)] for i in range(4)], few_rows):
        for ours, theirs in zip(chain(*expected), chain(*found), strict=True):
            assert said(ours) == said(theirs)
    assert len({turn.text for turn in chain(*expected)}) > len(PROMPTS)


def test_conversations_of_any_length_take_the_rows_that_become_free(sampler, monkeypatch) -> None:
    """One to four turns each, fourteen of them on eight rows: as if each had been alone."""
    prompts = [f"{i} + {i}" for i in range(14)]
    talks = [
        [
            Turn(asked(prompt if k == 0 else FOLLOW_UP), key)
            for k, key in enumerate(keys(i, 1 + i % 4))
        ]
        for i, prompt in enumerate(prompts)
    ]
    alone = [talk(sampler, [turns])[0] for turns in talks]
    alive = []
    original = scheduler.decode

    def watching(*arguments, **settings):
        alive.append((int((arguments[3] > 0).sum()), len(arguments[3])))
        return original(*arguments, **settings)

    monkeypatch.setattr(scheduler, "decode", watching)
    together = talk(sampler, talks)
    assert [list(map(said, turns)) for turns in together] == [list(map(said, t)) for t in alone]
    # While somebody waits all rows are taken; the last ones go on in a batch of half the size.
    assert alive[0] == (8, 8) and alive[-1][1] == 4
    first_free = next(i for i, (live, rows) in enumerate(alive) if live < rows)
    assert all(live == rows for live, rows in alive[:first_free]) and first_free > 2


def test_what_talks_have_in_common_is_computed_once(sampler, monkeypatch) -> None:
    beginning = "these examples come before every question. " * 2
    talks = two_turns([f"{beginning}{i} + {i}" for i in range(4)])
    alone = [talk(sampler, [turns])[0] for turns in talks]
    tokens, together = computed_tokens(monkeypatch, sampler, talks)
    for ours, theirs in zip(chain(*together), chain(*alone), strict=True):
        assert said(ours) == said(theirs)
    shared = len(sampler.tokenizer.encode(beginning))
    everything = sum(
        turn.usage.prompt - 1 - turn.usage.cached for turns in together for turn in turns
    )
    assert everything - 3 * (shared + 8) <= tokens <= everything - 3 * (shared - 4)
    # Samples of one question have all of it in common.
    same = [[Turn(asked(beginning), key)] for key in keys(5)]
    tokens, samples = computed_tokens(monkeypatch, sampler, same)
    assert tokens == samples[0][0].usage.prompt - 1


def test_a_conversation_may_begin_anew(sampler, monkeypatch) -> None:
    beginning = "these examples come before every question. " * 2
    first, second = (asked(f"{beginning}{i} + {i}") for i in (1, 2))
    one, two = keys(1, 2)
    (expected,) = talk(sampler, [[Turn(second, two)]])
    tokens, (heard,) = computed_tokens(
        monkeypatch, sampler, [[Turn(first, one), Turn(second, two, new_conversation=True)]]
    )
    assert heard[1].text == expected[0].text
    assert heard[1].usage.prompt == expected[0].usage.prompt
    # What it has in common with its own past is in the cache, and only that is reported.
    assert 32 < heard[1].usage.cached < heard[0].usage.prompt
    assert tokens == heard[0].usage.prompt - 1 + heard[1].usage.prompt - 1 - heard[1].usage.cached


def test_samples_of_one_conversation_compute_its_prompt_once(sampler, monkeypatch) -> None:
    prompt, drawn = asked("2 + 2"), keys(3, 4)
    alone = [talk(sampler, [[Turn(prompt, key)]])[0][0] for key in drawn]
    turns = [Turn(prompt, key, new_conversation=True) for key in drawn]
    tokens, (samples,) = computed_tokens(monkeypatch, sampler, [turns])
    assert [sample.text for sample in samples] == [one.text for one in alone]
    known = samples[0].usage.prompt - 1
    assert tokens == known
    assert [sample.usage.cached for sample in samples] == [0, known, known, known]


def test_a_second_run_of_equal_buckets_compiles_nothing(sampler, compiling_nothing) -> None:
    talk(sampler, two_turns())
    with compiling_nothing():
        talk(sampler, two_turns([f"{prompt}?" for prompt in PROMPTS]))
    with pytest.raises(AssertionError), compiling_nothing():
        jax.jit(lambda x: x + 1)(1.0)  # what compiles is heard


@pytest.mark.slow
def test_context_bounds_prompts_and_completions(sampler) -> None:
    length = len(sampler.chat.begin(asked("1" * 480)).ids)
    ((turn,),) = talk(sampler, [[Turn(asked("1" * (480 + 508 - length)), keys(0)[0])]])
    assert turn.usage.prompt == 508
    assert turn.usage.completion <= 4


def test_what_is_longer_than_the_context_is_refused_and_the_others_go_on(sampler) -> None:
    one, two, three = keys(0, 3)
    short, long = asked("short"), asked("1" * 600)
    ((expected,),) = talk(sampler, [[Turn(short, one)]])
    refused, outgrown = talk(
        sampler,
        [
            [Turn(long, one), Turn(short, one), Turn(short, one, new_conversation=True)],
            [Turn(short, one), Turn(long, two), Turn(short, three)],
        ],
    )
    assert refused[:2] == [REFUSED, REFUSED] and said(refused[2]) == said(expected)
    # One that outgrows the context in a later round is refused from there on.
    assert said(outgrown[0]) == said(expected) and outgrown[1:] == [REFUSED, REFUSED]


def test_an_interruption_closes_what_is_under_way(sampler) -> None:
    closed = []

    def endless(name):
        try:
            while True:
                yield Turn(asked(name), keys(0)[0])
        finally:
            closed.append(name)

    def breaks():
        yield Turn(asked("three"), keys(0)[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler.converse([endless("one"), breaks(), endless("two")])
    assert sorted(closed) == ["one", "two"]


def test_a_newcomer_that_fails_closes_those_begun_before_it(sampler) -> None:
    closed = []

    def begins(name, messages):
        try:
            yield Turn(messages, keys(0)[0])
        finally:
            closed.append(name)

    conversations = [begins("one", asked("one")), begins("two", asked("two")), begins("bad", [])]
    with pytest.raises(InputError):
        sampler.converse(conversations)
    assert sorted(closed) == ["bad", "one", "two"]


@pytest.mark.parametrize("messages", [[], [{"role": "assistant", "content": "two"}]])
def test_turns_end_with_a_user_message(sampler, messages) -> None:
    with pytest.raises(InputError, match="a turn must end with a user message"):
        talk(sampler, [[Turn(messages, keys(0)[0])]])


def test_one_question_each_is_asked_simply(sampler) -> None:
    found = ask(sampler, [asked(prompt) for prompt in PROMPTS], keys(1))
    assert list(map(said, found)) == [said(first) for first, _ in talk(sampler, two_turns())]


def test_a_template_that_rewrites_history_is_refused() -> None:
    engine = engine_with()
    engine.tokenizer.chat_template = (
        "{% for m in messages %}{% if loop.last or m['role'] == 'user' %}"
        "<|im_start|>{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}<|im_start|>"
    )
    with pytest.raises(InputError, match="rewrites earlier turns"):
        talk(engine, two_turns()[:1])


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"max_new_tokens": 0}, {"top_p": 2.0}])
def test_settings_outside_their_range(settings) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        engine_with(**settings)
