"""The events of /execute, written and read back."""

import pytest

from skep.errors.wire import MalformedStream
from skep.wire import events
from skep.wire.sse import SseEvent, parse_all

ALL = [
    events.Started(job_id="j", model="m", seed=7, started_at="2026-01-01T00:00:00Z"),
    events.Token(text="hé\n", index=0),
    events.Metrics(tokens_per_s=3.5, vram_bytes=0),
    events.End(tokens_out=2, decode_ms=5, stop_reason="stop_sequence", stop_matched="\n\n"),
    events.Error(code="cancelled", message="the job was cancelled", retryable=False),
]


def test_events_are_read_back_as_written():
    stream = b"".join(events.encode(event) for event in ALL)
    assert [events.decode(event) for event in parse_all([stream], strict=True)] == ALL
    assert [events.is_terminal(event) for event in ALL] == [False, False, False, True, True]


@pytest.mark.parametrize("bad", [SseEvent("{}", "token"), SseEvent("{}", "surprise"), SseEvent("[", "end")])
def test_other_events_are_malformed(bad):
    with pytest.raises(MalformedStream):
        events.decode(bad)
