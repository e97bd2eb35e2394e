"""Replies as servers write them: every kind that was met, and what is right."""

import json
import math

import pytest

from msjax.data.usage import Usage
from msjax.llm.replies import (
    error_status,
    error_words,
    is_too_long,
    read_reply,
    read_usage,
    refused_parameters,
)


def body(message=None, finish="stop", usage=None, **choice) -> str:
    message = {"content": "It is 4."} if message is None else message
    choices = [{"index": 0, "message": message, "finish_reason": finish, **choice}]
    return json.dumps({"choices": choices, "usage": usage})


THOUGHTS = {
    "DeepSeek, vLLM, SGLang": {"content": "4", "reasoning_content": "2 + 2"},
    "OpenRouter, Groq": {"content": "4", "reasoning": "2 + 2"},
    "Ollama": {"content": "4", "thinking": "2 + 2"},
    "OpenRouter, details": {
        "content": "4",
        "reasoning_details": [{"type": "reasoning.text", "text": "2 "}, {"text": "+ 2"}],
    },
    "Mistral": {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]},
            {"type": "text", "text": "4"},
        ]
    },
    "Databricks": {
        "content": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "2 + 2"}]},
            {"type": "text", "text": "4"},
        ]
    },
}


@pytest.mark.parametrize("message", THOUGHTS.values(), ids=THOUGHTS)
def test_thoughts_in_a_field_of_their_own_are_no_answer(message) -> None:
    reply = read_reply(body(message))
    assert (reply.text, reply.reasoning) == ("4", "2 + 2")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("4", "4"),
        ([{"type": "text", "text": "a"}, {"type": "output_text", "text": "b"}, "c"], "abc"),
        ([{"text": {"value": "4"}}, {"type": "image_url", "image_url": "x"}], "4"),
        ({"type": "text", "text": "4"}, "4"),
        ([], ""),
        ("\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
    ],
)
def test_content_comes_in_parts(content, text) -> None:
    assert read_reply(body({"content": content})).text == text


def test_the_first_choice_is_the_one_of_index_0() -> None:
    choices = [{"index": i, "message": {"content": str(i)}} for i in (2, 0, 1)]
    assert read_reply(json.dumps({"choices": choices})).text == "0"
    assert read_reply(json.dumps({"choices": choices[:1]})).text == "2"
    old = {"choices": [{"index": None, "text": "4", "finish_reason": "eos"}]}
    assert read_reply(json.dumps(old)).text == "4"


@pytest.mark.parametrize(
    ("reason", "finished"),
    [
        *((reason, True) for reason in ("stop", "STOP", "eos", "eos_token", "stop_sequence")),
        *((reason, True) for reason in ("end_turn", "COMPLETE")),
        *((reason, False) for reason in ("length", "MAX_TOKENS", "content_filter", "tool_calls")),
        *((reason, False) for reason in ("abort", None, "", 3)),
    ],
)
def test_reasons_to_end_are_kept_as_the_server_says_them(reason, finished) -> None:
    reply = read_reply(body(finish=reason))
    assert reply.finished == finished
    assert reply.finish == (reason if isinstance(reason, str) and reason else None)


@pytest.mark.parametrize(
    ("logprobs", "mean"),
    [
        (None, math.nan),
        ({"content": None}, math.nan),
        ({"content": []}, math.nan),
        ({"content": [{"logprob": -0.5}, {"logprob": -0.1}]}, -0.3),
        ({"content": [{"logprob": -0.5}, {"logprob": None}]}, math.nan),
        ({"content": [{"logprob": -0.5}, {"token": "a"}]}, math.nan),
        ({"content": [{"logprob": 5.0}, {"logprob": -9.0}]}, math.nan),
        ({"content": [{"logprob": "-0.5"}]}, math.nan),
        ({"content": [{"logprob": -math.inf}]}, math.nan),
        ({"content": [{"logprob": math.nan}]}, math.nan),
        ({"content": [{"logprob": 1e-7}]}, 0.0),
        ({"tokens": ["a", "b"], "token_logprobs": [-0.5, -0.1]}, -0.3),
        ([], math.nan),
        ("none", math.nan),
    ],
)
def test_a_mean_of_log_probabilities_needs_them_all(logprobs, mean) -> None:
    found = read_reply(body(logprobs=logprobs)).token_logprob
    assert found == pytest.approx(mean, nan_ok=True)


def account(prompt=None, completion=None, total=None, cached=None, thoughts=None, **other) -> dict:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
        **other,
    }


ACCOUNTS = {
    "as it should be": (account(20, 5, 25, 3), (20, 3, 5), ""),
    "thoughts are part": (account(20, 5, 25, 3, 4), (20, 3, 5), ""),
    "no cache reported": (account(20, 5, 25), (20, None, 5), ""),
    "details are null": (account(20, 5, prompt_tokens_details=None), (20, None, 5), ""),
    "xAI": (account(12, 2, 331, thoughts=317), (12, None, 319), ""),
    "Gemini": (account(12, 2, 331), (12, None, 319), ""),
    "thoughts apart, no total": (account(12, 2, thoughts=317), (12, None, 319), ""),
    "a prompt without what was cached": (account(20, 5, 1025, 1000), (1020, 1000, 5), ""),
    "SGLang": (account(126, 5, 131, 128), (126, 126, 5), "cached_tokens 128 of a prompt of 126"),
    "Ollama": (account(0, 5, 5), (None, None, 5), "prompt_tokens"),
    "all zero": (account(0, 0, 0), (None, None, None), "prompt_tokens and completion_tokens"),
    "nothing generated": (account(20, 0, 20), (20, None, None), "completion_tokens"),
    "negative": (account(-1, 5), (None, None, 5), "prompt_tokens"),
    "negative, with a total": (account(20, -1, 25), (20, None, 5), ""),
    "true and texts": (account(True, "5"), (None, None, None), "prompt_tokens"),
    "too many": (account(20, 10**30), (20, None, None), "completion_tokens"),
    "a fraction": (account(20.5, 5.0), (None, None, 5), "prompt_tokens"),
    "a total below the sum": (account(20, 5, 7), (None, None, None), "total_tokens 7"),
    "a total of 0": (account(20, 5, 0), (20, None, 5), ""),
    "absent": (None, (None, None, None), "no usage"),
    "a list": ([], (None, None, None), "no usage"),
    "empty": ({}, (None, None, None), "prompt_tokens and completion_tokens"),
    "other names": ({"input_tokens": 20, "output_tokens": 5}, (20, None, 5), ""),
    "DeepSeek": (account(20, 5, 25, prompt_cache_hit_tokens=16), (20, 16, 5), ""),
    "Moonshot": (account(20, 5, 25, cached_tokens=16), (20, 16, 5), ""),
}


@pytest.mark.parametrize(("usage", "counts", "problem"), ACCOUNTS.values(), ids=ACCOUNTS)
def test_accounts_that_cannot_be_are_corrected_or_not_reported(usage, counts, problem) -> None:
    prompt, cached, completion = counts
    found, said = read_usage(usage, said=True)
    assert found == Usage(prompt=prompt, cached=cached, completion=completion)
    assert said.startswith(problem) and bool(said) == bool(problem)


def test_an_empty_completion_may_have_no_tokens() -> None:
    assert read_usage(account(20, 0, 20), said=False) == (Usage(prompt=20, completion=0), "")


ERRORS = {
    "OpenRouter": ({"error": {"message": "rate limited upstream", "code": 429}}, 429),
    "code as text": ({"error": {"message": "busy", "code": "503"}}, 503),
    "beside": ({"error": "no worker", "status": 502}, 502),
    "vLLM": ({"object": "error", "message": "no", "code": 400}, 400),
    "words": ({"error": {"message": "slow down", "type": "rate_limit_error"}}, 429),
    "key": ({"error": {"message": "no", "type": "authentication_error"}}, 401),
    "text": ({"error": "Model is overloaded"}, 503),
    "unknown": ({"error": {"code": 1302, "message": "?"}}, 500),
    "too long": ({"error": "inputs tokens + max_new_tokens must be <= 4096"}, 400),
    "MiniMax": (
        {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
        429,
    ),
    "in the choice": ({"choices": [{"error": {"code": 502, "message": "provider"}}]}, 502),
    "as a reason": ({"choices": [{"message": {"content": "It"}, "finish_reason": "error"}]}, 500),
}


@pytest.mark.parametrize(("reply", "status"), ERRORS.values(), ids=ERRORS)
def test_an_error_in_a_reply_that_says_all_is_well(reply, status) -> None:
    assert error_status(json.dumps(reply)) == status


@pytest.mark.parametrize(
    "text",
    [
        body(),
        '{"error": null, "choices": []}',
        '{"object": "list", "data": []}',
        '{"base_resp": {"status_code": 0}}',
        "<html>",
        "[]",
    ],
)
def test_what_is_no_error(text) -> None:
    assert error_status(text) is None


TOO_LONG = """
This model's maximum context length is 64 tokens. However, you requested 90 tokens.
You passed 90 input tokens and requested 10 output tokens. The model's context length is only 64
The decoder prompt (length 90) is longer than the maximum model length of 64.
max_tokens must be at least 1, got -26.
max_completion_tokens is too large: 60. This model's maximum context length is 64 tokens
The input (90 tokens) is longer than the model's context length (64 tokens).
Requested token count exceeds the model's maximum context length of 64 tokens.
Input length (90 tokens) exceeds the maximum allowed length (64 tokens). Use a shorter input
request (90 tokens) exceeds the available context size (64 tokens), try increasing it
the request exceeds the available context size. try increasing the context size
Requested tokens (600) exceed context window of 512
Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs`
inputs tokens + max_new_tokens must be <= 4096
Input validation error: `inputs` must have less than 1024 tokens. Given: 2000
The following inputs are too long: Input validation error
the prompt is too long; exceeded max context length by 26 tokens
prompt is too long: 208310 tokens > 200000 maximum
input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000
Your input exceeds the context window of this model. Please adjust your input and try again.
context_length_exceeded
Please reduce the length of the messages or completion.
This model's maximum prompt length is 131072 but the request contains 537812 tokens.
The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).
Prompt contains 40000 tokens, too large for model with 32768 maximum context length
The prompt is too long: 40000, model maximum context length: 32767
Input is too long for requested model.
too many tokens: total number of tokens in the prompt cannot exceed 4081
Range of input length should be [1, 30720]
Invalid request: Your request exceeded model token limit: 8192
prompt token count of 130000 exceeds the limit of 128000
Prompt exceeds max length
invalid params, context window exceeds limit
Request body too large for gpt-4o model. Max size: 8000 tokens.
Prompt length (90) exceeds maximum input length (64)
Request prompt has 90 tokens in total, larger than the model input length limit 64.
The prompt (total length 90) is too long to fit into the model (context length 64)
You passed 90 input tokens and requested 10 output tokens. However, the model's context length is 64
request (90 tokens) exceeds the available context size (64 tokens); exceed_context_size_error
Unable to submit request because the input token count is 40000 but model only supports up to 32768
Input length of input_ids is 90, but `max_length` is set to 64
input exceeds context length
context shift is disabled
string_above_max_length
Token limit exceeded
prompt exceeds n_ctx
Trying to keep the first 90 tokens when context the overflows. However, the model is loaded with 64
""".strip().splitlines()


@pytest.mark.parametrize("words", TOO_LONG)
def test_words_for_too_long(words) -> None:
    assert is_too_long(error_words(json.dumps({"error": {"message": words, "code": 400}})))
    assert is_too_long(error_words(json.dumps({"error": words, "error_type": "validation"})))


@pytest.mark.parametrize(
    "words",
    [
        "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 7000",
        "Rate limit reached: too many tokens",
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens",
        "The response was filtered due to the prompt triggering the content management policy",
        "The model `m` does not exist",
        "max_tokens: 64000 > 8192, which is the maximum allowed number of output tokens for m",
        "Model output limit exceeded: daily quota",
        "The image is too large",
        "Invalid value for temperature",
        "temperature must be at most 2",
        "Incorrect API key provided",
        "You exceeded your current quota, please check your plan",
    ],
)
def test_words_for_something_else(words) -> None:
    assert not is_too_long(error_words(json.dumps({"error": {"message": words}})))


SENT = ("model", "messages", "max_tokens", "temperature", "top_p", "seed", "logprobs")
REFUSALS = {
    "Use 'max_completion_tokens' instead of 'max_tokens'": {"max_tokens"},
    "Unrecognized request argument supplied: max_tokens": {"max_tokens"},
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens": set(),
    "You are not allowed to request logprobs from this model": {"logprobs"},
    "Argument not supported on this model: logprobs": {"logprobs"},
    "Log probs are not available": {"logprobs"},
    "logprobs: invalid type: boolean `true`, expected u32": {"logprobs"},
    "`top_p` must be > 0.0 and < 1.0": {"top_p"},
    "Unrecognized request argument supplied: seed": {"seed"},
    "does not support parameters: ['logprobs', 'seed']": {"logprobs", "seed"},
    "random_seed must be set": set(),
    "no such thing": set(),
}


@pytest.mark.parametrize(("words", "names"), REFUSALS.items(), ids=REFUSALS)
def test_parameters_that_an_error_names(words, names) -> None:
    assert refused_parameters(words, SENT) - {"model"} == names


def test_what_an_error_repeats_of_the_request_is_no_word_of_it() -> None:
    detail = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}
    words = error_words(json.dumps({"detail": [detail | {"input": {"logprobs": "logprobs"}}]}))
    assert refused_parameters(words, SENT) == {"seed"}
    assert error_words("<html>busy</html>") == "<html>busy</html>"
    assert len(error_words("[" * 10**5)) <= 4000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "not a JSON object"),
        ("[" * 10**5, "nested too deeply"),
        ('{"id": 3}', "no choices"),
        ('{"choices": []}', "no choices"),
        ('{"choices": [{"index": 0}]}', "no message"),
        (body({"content": 3}), "content is int"),
    ],
)
def test_what_is_no_reply(text, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        read_reply(text)
