"""The assertions on event streams: each rule is broken once, and found."""

import pytest

from skep.testkit.harness.events import (
    assert_event_order,
    assert_successful_completion,
    assert_token_count,
    extract_tokens,
    make_request,
    seen_metrics,
)
from skep.wire.events import End, Error, Metrics, Started, Token

S = Started(job_id="j", model="m", seed=1, started_at="2026-01-01T00:00:00Z")
T0, T1, T2 = (Token(text=text, index=index) for index, text in enumerate("abc"))
M = Metrics(tokens_per_s=1.0, vram_bytes=0)
END = End(tokens_out=2, decode_ms=1, stop_reason="max_tokens")
ERR = Error(code="cancelled", message="x", retryable=False)


@pytest.mark.parametrize(
    "events", [[S, T0, M, T1, END], [S, END], [S, T0, ERR], [S, ERR], [ERR], [S, T0, T2, END]]
)
def test_good_orders_pass(events):
    assert_event_order(events)


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ([], "no events"),
        ([T0, END], "not started"),
        ([END], "not started"),
        ([S, T0], "without end or error"),
        ([S, S, END], "second started"),
        ([S, END, END], "1 events follow"),
        ([S, END, T0], "1 events follow"),
        ([S, ERR, END], "1 events follow"),
        ([S, T1, T0, END], "index 0 after 1"),
        ([S, T0, T0, END], "index 0 after 0"),
        ([S, Token(text="", index=0), END], "without text"),
    ],
)
def test_bad_orders_are_found_and_named(events, says):
    with pytest.raises(AssertionError, match=says):
        assert_event_order(events)


def test_completion_and_counts():
    assert assert_successful_completion([S, T0, T1, END]) is END
    assert_token_count([S, T0, T1, END], 2)
    assert_token_count([S, T0, END], 2)
    with pytest.raises(AssertionError, match="ended in an error"):
        assert_successful_completion([S, T0, ERR])
    with pytest.raises(AssertionError, match="counts 2 tokens, not 3"):
        assert_token_count([S, T0, T1, END], 3)
    with pytest.raises(AssertionError, match="3 token events"):
        assert_token_count([S, T0, T1, T2, END], 2)


def test_parts_are_extracted():
    assert extract_tokens([S, T0, M, T1, END]) == ["a", "b"]
    assert seen_metrics([S, T0, M, END]) == [M]


def test_requests_have_ids_of_their_own_and_are_greedy():
    one, other = make_request("x", max_tokens=3), make_request("x")
    assert one.job_id != other.job_id
    assert (one.max_tokens, one.temperature) == (3, 0.0)
