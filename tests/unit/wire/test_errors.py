"""Error bodies: OpenAI's fields and ours in one object, and nothing secret in it."""

import json

import pytest

from skep.errors import Conflict, NotFound
from skep.errors.runtime import ContextOverflow, QueueFull
from skep.errors.web import MethodNotAllowed, Unauthorized
from skep.errors.wire import InvalidRequest
from skep.wire.errors import decode_error, error_body, error_headers, error_object, error_type


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (403, "authentication_error"),
     (404, "invalid_request_error"), (429, "rate_limit_error"), (500, "server_error"), (503, "server_error")],
)  # fmt: skip
def test_statuses_have_openai_s_types(status, kind):
    assert error_type(status) == kind


def test_a_body_is_read_back():
    found = decode_error(error_body(QueueFull("8 wait", waiting=8)))
    assert (found.code, found.retryable, found.type, found.message) == (
        "queue_full",
        True,
        "rate_limit_error",
        "8 wait",
    )
    assert decode_error(b"<html>") is None
    assert decode_error(b'{"error": 3}') is None


def test_violations_name_the_first_field_as_param():
    body = error_object(InvalidRequest("x", violations=(("n", "is wrong"), ("stop", "too"))))
    assert body["param"] == "n"
    assert body["violations"] == [{"field": "n", "message": "is wrong"}, {"field": "stop", "message": "too"}]


def test_an_undeliberate_error_tells_nothing():
    body = error_body(RuntimeError("secret"))
    assert b"secret" not in body
    assert json.loads(body)["error"]["code"] == "internal"


def test_prompts_tokens_and_objects_stay_out():
    body = error_body(
        Conflict("no", prompt="secret", token="secret", thing=object(), sizes=[1, object()], ok="yes")
    )
    assert b"secret" not in body
    assert json.loads(body)["error"]["ok"] == "yes"
    assert json.loads(body)["error"]["sizes"] == [1]


def test_a_broader_code_keeps_the_cause():
    body = error_object(ContextOverflow("too long"), code="invalid_request")
    assert (body["code"], body["cause"]) == ("invalid_request", "context_length_exceeded")


def test_headers_belong_to_their_status():
    assert error_headers(QueueFull(retry_after_s=0.2)) == [("retry-after", "1")]
    assert error_headers(QueueFull(retry_after_s=12.6)) == [("retry-after", "13")]
    assert error_headers(MethodNotAllowed(allowed=("GET", "POST"))) == [("allow", "GET, POST")]
    assert error_headers(Unauthorized()) == [("www-authenticate", "Bearer")]
    assert error_headers(NotFound()) == []
