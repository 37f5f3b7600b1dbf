"""Every violation is told at once, by field, and nothing that was sent is repeated."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.errors import SkepError
from skep.errors.wire import InvalidRequest, MalformedJson
from skep.wire.events import ExecuteRequest
from skep.wire.openai import ChatRequest, CompletionRequest, EmbeddingRequest, TokenizeRequest
from skep.wire.validate import parse

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def violations(kind, body):
    with pytest.raises(InvalidRequest) as caught:
        parse(json.dumps(body).encode(), kind)
    return dict(caught.value.violations)


def test_every_violation_is_told():
    found = violations(
        ExecuteRequest,
        {"prompt": "", "max_tokens": 5000, "temperature": "hot", "top_p": 2, "top_k": -1, "stop": ["a"] * 5, "seed": 1.5},
    )  # fmt: skip
    assert found == {
        "job_id": "is required",
        "prompt": "expected str of length >= 1",
        "max_tokens": "expected int <= 2048",
        "temperature": "expected float, got str",
        "top_p": "expected float <= 1.0",
        "top_k": "expected int >= 0",
        "stop": "expected array of length <= 4",
        "seed": "expected int, got float",
    }


def test_a_violation_deep_inside_has_its_path():
    found = violations(
        ChatRequest,
        {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "text": "a"}]}, 3, {"role": "boss"}]},
    )  # fmt: skip
    assert found == {
        "messages[0].content[0].type": "must be one of text",
        "messages[1]": "expected object, got int",
        "messages[2].role": "must be one of system, developer, user, assistant, tool, function",
    }


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.*"),
        ({"temperature": 2.1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"grammar": "root", "response_format": {"type": "json_object"}}, "grammar"),
    ],
)
def test_chat_rules(extra, field):
    assert field in violations(ChatRequest, CHAT | extra)


def test_types_and_rules_are_told_together():
    assert set(violations(ChatRequest, CHAT | {"temperature": "x", "top_logprobs": 3})) == {
        "temperature",
        "top_logprobs",
    }


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a"] * 64, "n": 2}, "n"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({}, "prompt"),
    ],
)
def test_completion_rules(body, field):
    assert field in violations(CompletionRequest, {"model": "m"} | body)


def test_prompts_come_in_four_forms():
    def prompts(prompt):
        return parse(json.dumps({"model": "m", "prompt": prompt}).encode(), CompletionRequest).request.prompts

    assert prompts("a") == ["a"]
    assert prompts(["a", "b"]) == ["a", "b"]
    assert prompts([1, 2]) == [[1, 2]]
    assert prompts([[1], [2]]) == [[1], [2]]


def test_embedding_and_tokenize_rules():
    assert "input" in violations(EmbeddingRequest, {"model": "m", "input": [""]})
    assert "prompt" in violations(TokenizeRequest, {})
    assert "prompt" in violations(TokenizeRequest, {"prompt": "a", "messages": CHAT["messages"]})


def test_unknown_fields_are_counted_at_any_depth_and_ignored():
    body = CHAT | {"new": {"a": 1}, "messages": [{"role": "user", "content": "hi", "mood": 1}]}
    parsed = parse(json.dumps(body).encode(), ChatRequest)
    assert parsed.unknown_fields == 2
    assert parsed.request.messages[0].text == "hi"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"3", b"\xff", b'"\\ud800"', b"[" * 100_000, b'{"a":1e999}', b"{}x"]
)
def test_what_is_not_a_json_object_is_told_as_such(body):
    with pytest.raises((MalformedJson, InvalidRequest)):
        parse(body, ChatRequest)


SECRET = "wh4t-the-client-wrote"


@pytest.mark.parametrize(
    "body",
    [
        CHAT | {"tool_choice": SECRET},
        {"model": "m", "messages": [{"role": SECRET, "content": SECRET}]},
        CHAT | {"temperature": SECRET, SECRET: 1},
        CHAT | {"logit_bias": {SECRET: 1}},
        {"model": "m", "messages": SECRET},
    ],
)
def test_what_was_sent_is_not_repeated(body):
    with pytest.raises(InvalidRequest) as caught:
        parse(json.dumps(body).encode(), ChatRequest)
    assert SECRET not in str(caught.value) + repr(caught.value.facts)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
fields = st.sampled_from(
    [f for kind in (ChatRequest, CompletionRequest, ExecuteRequest) for f in kind.__struct_fields__]
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(fields | st.text(max_size=5), inner, max_size=5)
    ),
)


@given(
    st.sampled_from([ChatRequest, CompletionRequest, ExecuteRequest, EmbeddingRequest]),
    st.dictionaries(fields, trees, max_size=8),
)
def test_any_json_is_a_request_or_a_typed_error(kind, body):
    failure = None
    try:
        parse(json.dumps(body).encode(), kind)
    except SkepError as error:
        failure = error
    assert failure is None or (failure.http_status == 400 and str(failure))


@given(st.sampled_from([ChatRequest, ExecuteRequest]), st.binary(max_size=60))
def test_any_bytes_are_a_typed_error(kind, body):
    with pytest.raises(SkepError):
        parse(body, kind)
