"""One worker, alone."""

from typing import Any

import pytest
from pytest_bdd import given, parsers, then, when

from skep.testkit.harness import (
    WorkerHarness,
    assert_event_order,
    assert_successful_completion,
    assert_token_count,
    collect_sse_events,
    make_request,
)
from skep.wire.events import End, Error, InferenceEvent, Token


@given("a worker is running", target_fixture="worker_seen")
def worker_is_running(worker: WorkerHarness) -> dict[str, Any]:  # noqa: ARG001 - the fixture starts it
    """Use the fixture's worker; return what the steps remember."""
    return {}


@when(parsers.parse('I ask the worker to go on from "{prompt}" for {count:d} tokens'))
async def execute(worker: WorkerHarness, worker_seen: dict[str, Any], prompt: str, count: int) -> None:
    """Run a job to its end."""
    stream = await worker.execute(make_request(prompt, max_tokens=count))
    worker_seen["runs"] = [*worker_seen.get("runs", []), await collect_sse_events(stream)]


@when(parsers.parse("I start a job of {count:d} tokens and cancel it after its first token"))
async def start_and_cancel(worker: WorkerHarness, worker_seen: dict[str, Any], count: int) -> None:
    """Begin a long job, read its first token, cancel it by its id, read on to the end."""
    request = make_request("Once", max_tokens=count)
    stream = await worker.execute(request)
    events: list[InferenceEvent] = []
    async with stream:
        async for event in stream.inference_events():
            if isinstance(event, Token) and not any(isinstance(each, Token) for each in events):
                await worker.cancel(request.job_id)
            events.append(event)
    if worker.backend != "fake" and isinstance(events[-1], End):
        pytest.skip(f"{worker.backend} computed {count} tokens before the cancel came to it")
    worker_seen["runs"] = [events]


@when("I send the worker a request with three mistakes")
async def mistakes(worker: WorkerHarness, worker_seen: dict[str, Any]) -> None:
    """Break three fields at once."""
    body = {"job_id": "j", "prompt": "", "max_tokens": 0, "temperature": 9.0}
    response = await worker.client.request("POST", "/execute", json=body)
    async with response:
        worker_seen["status"], worker_seen["text"] = response.status, await response.text()


@when("the worker is drained")
async def drained(worker: WorkerHarness, worker_seen: dict[str, Any]) -> None:
    """Ask it to admit nothing more."""
    worker_seen["drain"] = await worker.drain(deadline_ms=1000)


@then(parsers.parse("the stream should have {count:d} tokens and one end"))
def stream_ends(worker_seen: dict[str, Any], count: int) -> None:
    """Hold the grammar of the stream and its count."""
    assert_token_count(worker_seen["runs"][-1], count)


@then("both streams should be equal")
def streams_equal(worker_seen: dict[str, Any]) -> None:
    """Hold that the same seed gave the same tokens."""
    from skep.testkit.harness import extract_tokens

    first, second = worker_seen["runs"][-2:]
    assert extract_tokens(first) == extract_tokens(second)
    assert_successful_completion(second)


@then(parsers.parse('the stream should end with the error "{code}"'))
def stream_error(worker_seen: dict[str, Any], code: str) -> None:
    """Hold that the terminal event is one error with this code."""
    events = worker_seen["runs"][-1]
    assert_event_order(events)
    last = events[-1]
    assert isinstance(last, Error), last
    assert last.code == code, last


@then("every slot of the worker should be free again")
async def slots_free(worker: WorkerHarness) -> None:
    """Wait until no job holds a slot."""
    health = await worker.until_health(lambda found: found["slots_free"] == found["slots_total"])
    assert health["slots_free"] == health["slots_total"]


@then("the worker should prove itself by its nonce")
async def proves_itself(worker: WorkerHarness) -> None:
    """Hold that health has our nonce and a resident model."""
    health = await worker.health()
    assert health["instance"] == worker.nonce
    assert health["resident"] is True


@then(parsers.parse("the worker should answer {status:d} and name every mistake"))
def names_mistakes(worker_seen: dict[str, Any], status: int) -> None:
    """Hold that each wrong field is told."""
    assert worker_seen["status"] == status, worker_seen
    missing = [field for field in ("prompt", "max_tokens", "temperature") if field not in worker_seen["text"]]
    assert not missing, worker_seen["text"]


@then("the worker should refuse new jobs")
async def refuses_new_jobs(worker: WorkerHarness) -> None:
    """Hold that a job is refused, with a status that tells to try elsewhere."""
    response = await worker.client.request(
        "POST", "/execute", json={"job_id": "late", "prompt": "x", "max_tokens": 1}
    )
    async with response:
        assert response.status in {429, 503}, await response.text()
