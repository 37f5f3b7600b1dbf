"""The event-stream reader against the standard's rules, however the bytes are cut; and the writer."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.errors.wire import EventTooLarge, MalformedStream, UnsafeField
from skep.wire.sse import SseEvent, SseParser, encode_comment, encode_event, parse_all

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "sse_vectors.json").read_text())
by_name = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])


def stream_of(vector: dict[str, Any]) -> bytes:
    if "stream_hex" in vector:
        return bytes.fromhex(vector["stream_hex"])
    return vector["stream"].encode("utf-8", "surrogatepass")


def triples(events: list[SseEvent]) -> list[list[str]]:
    return [[event.data, event.event, event.id] for event in events]


@by_name
def test_vector_read_whole(vector):
    parser = SseParser()
    assert triples(parser.feed(stream_of(vector))) == vector["events"]
    parser.close()
    assert parser.retry_ms == vector.get("retry_ms")


@by_name
def test_vector_read_byte_by_byte(vector):
    assert triples(parse_all(bytes([byte]) for byte in stream_of(vector))) == vector["events"]


@by_name
def test_vector_cut_anywhere(vector):
    stream = stream_of(vector)
    for cut in range(len(stream) + 1):
        assert triples(parse_all([stream[:cut], stream[cut:]])) == vector["events"], cut


@by_name
def test_strict_fails_exactly_where_the_standard_drops_something(vector):
    if vector.get("strict_fails"):
        with pytest.raises(MalformedStream):
            parse_all([stream_of(vector)], strict=True)
    else:
        assert triples(parse_all([stream_of(vector)], strict=True)) == vector["events"]


pieces = st.sampled_from([
    b"data: ", b"data", b"event: x", b"id: 1", b"id: \0", b"retry: 9", b":c", b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r",
    b"\xef\xbb\xbf", b"\xff", b"\xe2\x82\xac", b"\xe2\x80\xa8", b"a", b" ", b":",
])  # fmt: skip


@given(st.lists(pieces, max_size=40).map(b"".join), st.lists(st.integers(0, 120), max_size=12), st.booleans())
def test_any_slicing_gives_the_same_events(stream, cuts, strict):
    def read(chunks):
        parser, events = SseParser(strict=strict, event_bytes_max=60), []
        try:
            for chunk in chunks:
                events += parser.feed(chunk)
            parser.close()
        except MalformedStream as failure:
            return events, type(failure)
        return events, None

    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    sliced = [stream[start:end] for start, end in itertools.pairwise(borders)]
    assert read(sliced) == read([stream])


def test_a_trailing_cr_dispatches_at_once_and_swallows_one_lf():
    parser = SseParser()
    assert triples(parser.feed(b"data: a\r\r")) == [["a", "message", ""]]
    assert parser.feed(b"\n") == []
    assert triples(parser.feed(b"data: b\n\n")) == [["b", "message", ""]]


def test_an_empty_read_does_not_forget_the_swallowed_lf():
    parser = SseParser()
    parser.feed(b"data: a\r")
    parser.feed(b"")
    assert parser.feed(b"\n") == []
    assert len(parser.feed(b"\n")) == 1


def test_events_carry_the_arrival_time_of_the_read_that_completed_them():
    parser = SseParser()
    parser.feed(b"data: a\n", 1.0)
    assert [event.at_s for event in parser.feed(b"\ndata: b\n\n", 2.5)] == [2.5, 2.5]


def test_too_large_an_event_raises_after_the_good_ones():
    parser = SseParser(event_bytes_max=20)
    assert triples(parser.feed(b"data: ok\n\ndata: " + b"x" * 40)) == [["ok", "message", ""]]
    with pytest.raises(EventTooLarge) as caught:
        parser.feed(b"x")
    assert caught.value.event_bytes_max == 20


def test_too_many_small_lines_count_as_one_event():
    parser = SseParser(event_bytes_max=50)
    with pytest.raises(EventTooLarge):
        parser.feed(b"data: 12345\n" * 10)


def test_close_when_strict_tells_a_cut_stream():
    parser = SseParser(strict=True)
    parser.feed(b"data: a\n")
    assert parser.is_mid_event
    with pytest.raises(MalformedStream):
        parser.close()


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
field = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=12
)


@given(text, st.none() | field, st.none() | field)
def test_what_is_written_is_read_back(data, event, id_):
    [read] = parse_all([encode_event(data, event, id_)], strict=True)
    assert read.data == data.replace("\r\n", "\n").replace("\r", "\n")
    assert (read.event, read.id) == (event or "message", id_ or "")


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b"])
def test_the_writer_refuses_names_that_break_the_framing(bad):
    with pytest.raises(UnsafeField):
        encode_event("x", event=bad)
    with pytest.raises(UnsafeField):
        encode_event("x", id=bad)


def test_comments_are_no_events():
    assert parse_all([encode_comment("keep\nalive"), encode_event("a")], strict=True)[0].data == "a"
