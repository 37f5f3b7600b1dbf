"""Real worker processes for tests: started clean, driven over HTTP, and gone afterwards whatever happened.

    async with await WorkerHarness.start("fake:demo") as worker:
        events = await collect_sse_events(await worker.execute(make_request("hello", max_tokens=8)))
        assert_event_order(events)
        assert_successful_completion(events)

| file | what it alone knows |
| --- | --- |
| `worker` | one worker process: start, readiness by nonce, end |
| `client` | its verbs over HTTP, every failure typed |
| `launch` | its argv, environment and pipes |
| `sse` | one stream of a worker, event by event |
| `events` | collecting a stream, and what must hold of it |
| `memory` | memory before, peak and after |
| `plugin` | logs and memory in a failing test's report |
"""

from skep.testkit.harness.events import (
    assert_event_order,
    assert_successful_completion,
    assert_token_count,
    collect_sse_events,
    extract_tokens,
    make_request,
)
from skep.testkit.harness.sse import SseStream
from skep.testkit.harness.worker import WorkerHarness

__all__ = [
    "SseStream",
    "WorkerHarness",
    "assert_event_order",
    "assert_successful_completion",
    "assert_token_count",
    "collect_sse_events",
    "extract_tokens",
    "make_request",
]
