"""Collecting the events of a job, and what must hold of them. The assertions raise AssertionError and say where."""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from skep.errors.harness import StreamTimedOut
from skep.testkit.harness.sse import SseStream
from skep.wire.events import (
    End,
    Error,
    ExecuteRequest,
    InferenceEvent,
    Metrics,
    Started,
    Token,
    is_terminal,
)

COLLECT_S = 30.0
AFTER_END_S = 0.5
"""How long to read on after the terminal event: a collector that stops there cannot prove that there was one only."""


def make_request(prompt: str = "hello", **fields: Any) -> ExecuteRequest:
    """Return a request with a job id of its own, greedy and seeded unless `fields` say otherwise."""
    given: dict[str, Any] = {
        "job_id": f"test-{uuid.uuid4().hex[:12]}",
        "prompt": prompt,
        "max_tokens": 16,
        "temperature": 0.0,
        "seed": 7,
        **fields,
    }
    return msgspec.convert(given, ExecuteRequest)


async def collect_sse_events(
    stream: SseStream, *, timeout_s: float = COLLECT_S, after_end_s: float = AFTER_END_S
) -> list[InferenceEvent]:
    """Return every event of a stream, read to its end or `after_end_s` past its terminal event; then close it.

    Raises: StreamTimedOut (with the events so far), MalformedStream, WorkerHttpFailed, WorkerDied.
    """
    found: list[InferenceEvent] = []
    loop = asyncio.get_running_loop()
    try:
        async with aclosing(stream), asyncio.timeout(timeout_s) as limit:
            async for event in stream.inference_events():
                found.append(event)
                if is_terminal(event):
                    limit.reschedule(min(limit.when() or 0.0, loop.time() + after_end_s))
    except TimeoutError:
        if not found or not any(is_terminal(event) for event in found):
            raise StreamTimedOut(
                f"the stream did not end within {timeout_s:g} s; {len(found)} events came, the last {_name(found)}",
                seconds=timeout_s,
                events=tuple(found),
            ) from None
    return found


def assert_event_order(events: Sequence[InferenceEvent]) -> None:
    """Hold the grammar: one `started` first, `token`s with growing indices and `metrics` between, one terminal last."""
    assert events, "the stream had no events"
    only_error = len(events) == 1 and isinstance(events[0], Error)
    if not only_error:
        assert isinstance(events[0], Started), f"the first event is {_kind(events[0])}, not started"
    last_index = -1
    for position, event in enumerate(events):
        assert position == 0 or not isinstance(event, Started), f"event {position} is a second started"
        is_last = position == len(events) - 1
        assert is_terminal(event) == is_last, (
            f"event {position} is {_kind(event)}, and {len(events) - position - 1} events follow it"
            if is_terminal(event)
            else f"the stream ends with {_kind(event)}, without end or error"
        )
        if isinstance(event, Token):
            assert event.index > last_index, f"event {position} has index {event.index} after {last_index}"
            assert event.text, f"event {position} is a token without text"
            last_index = event.index


def extract_tokens(events: Sequence[InferenceEvent]) -> list[str]:
    """Return the texts of the tokens, in order."""
    return [event.text for event in events if isinstance(event, Token)]


def assert_successful_completion(events: Sequence[InferenceEvent]) -> End:
    """Hold that the stream is in order and ended well; return its end."""
    assert_event_order(events)
    last = events[-1]
    assert isinstance(last, End), f"the job ended in an error: {last}"
    return last


def assert_token_count(events: Sequence[InferenceEvent], expected: int) -> None:
    """Hold that `end` counts this many tokens, and that no more came as events.

    Fewer events than tokens are fine: text that may become a stop string, or half a character, is held back.
    """
    end = assert_successful_completion(events)
    seen = len(extract_tokens(events))
    assert end.tokens_out == expected, f"end counts {end.tokens_out} tokens, not {expected}"
    assert seen <= expected, f"{seen} token events came for {expected} tokens"


def seen_metrics(events: Sequence[InferenceEvent]) -> list[Metrics]:
    """Return the metrics events."""
    return [event for event in events if isinstance(event, Metrics)]


def _kind(event: InferenceEvent) -> str:
    return type(event).__name__.lower()


def _name(events: Sequence[InferenceEvent]) -> str:
    return _kind(events[-1]) if events else "none"
