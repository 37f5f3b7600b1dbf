"""Reading a stream without parsing it: cut anywhere, with any line ends."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.queen.scan import TAIL_BYTES_MAX, StreamScan, Usage, body_usage, parse_usage


def event(text: str, **more) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}], **more}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
STREAM = event("a") + b": ping\n\n" + event('b [DONE] "error"\ndata: [DONE]') + event("c", usage={"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}) + DONE  # fmt: skip


@given(st.lists(st.integers(1, len(STREAM)), max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_however_it_is_cut_the_same_bytes_go_on_in_whole_events(cuts, line_end):
    stream = STREAM.replace(b"\n", line_end)
    scan, sent = StreamScan(), b""
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in itertools.pairwise(edges):
        part = scan.feed(stream[start:end])
        assert part == b"" or part.endswith(line_end * 2)
        sent += part
    assert sent == stream
    assert scan.is_done
    assert not scan.is_failed
    assert scan.has_text
    assert not scan.is_cut


@given(st.lists(st.integers(1, len(STREAM)), max_size=12))
def test_events_and_usage_are_counted_however_it_is_cut(cuts):
    scan = StreamScan()
    edges = sorted({0, len(STREAM), *(cut for cut in cuts if cut < len(STREAM))})
    for start, end in itertools.pairwise(edges):
        scan.feed(STREAM[start:end])
    assert scan.events == 3
    assert scan.usage == Usage(7, 3)


@pytest.mark.parametrize(
    "told",
    [b'data: {"error": {"message": "x"}}\n\n', b'data:{"error":{}}\n\n', b"event: error\ndata: {}\n\n"],
)
def test_an_error_inside_the_stream_is_seen(told):
    scan = StreamScan()
    scan.feed(event("a") + told)
    assert scan.is_failed
    assert not scan.is_done


def test_the_models_text_is_never_taken_for_the_end_or_an_error():
    scan = StreamScan()
    scan.feed(event('[DONE] {"error": 1} "usage":{"prompt_tokens":9}'))
    assert not scan.is_done
    assert not scan.is_failed
    assert scan.usage == Usage()


def test_an_event_without_an_end_is_held_up_to_a_bound():
    scan = StreamScan()
    assert scan.feed(b"data: " + b"x" * (TAIL_BYTES_MAX // 2)) == b""
    assert scan.is_cut
    assert len(scan.feed(b"x" * TAIL_BYTES_MAX)) > TAIL_BYTES_MAX
    assert not scan.is_cut


def test_the_role_that_opens_a_stream_is_no_token():
    scan = StreamScan()
    scan.feed(b'data: {"choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}\n\n')
    assert not scan.has_text
    scan.feed(event("x"))
    assert scan.has_text


def test_usage_of_a_plain_answer():
    assert body_usage(
        b'{"id":1,"usage":{"prompt_tokens":5,"details":{"a":{}},"completion_tokens":6}}'
    ) == Usage(5, 6)
    assert body_usage(b'{"usage":null}') == Usage()
    assert body_usage(b"not json") == Usage()
    assert parse_usage(b"{broken") == Usage()
