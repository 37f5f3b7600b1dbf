"""/execute and /cancel on real workers: the grammar of the stream, limits, seeds, and cancelling in every phase."""

import asyncio

import pytest

from skep.errors.harness import WorkerHttpFailed
from skep.testkit.harness import (
    assert_event_order,
    assert_successful_completion,
    assert_token_count,
    collect_sse_events,
    extract_tokens,
    make_request,
)
from skep.testkit.harness.events import seen_metrics
from skep.wire.events import Error, Started

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = "fake:slow?token_delay_ms=30"


async def run(worker, **fields):
    return await collect_sse_events(await worker.execute(make_request(**fields)))


async def test_a_job_streams_its_events_in_order(worker):
    events = await run(worker, prompt="what color is the sky?", max_tokens=40)
    assert_event_order(events)
    end = assert_successful_completion(events)
    assert end.stop_reason in {"max_tokens", "end_of_text"}
    assert_token_count(events, end.tokens_out)
    assert isinstance(events[0], Started)
    assert (events[0].model, events[0].seed) == ("m", 7)
    if end.tokens_out >= 16:
        assert seen_metrics(events)


async def test_eight_jobs_at_once_answer_as_each_alone(steady_worker):
    worker = steady_worker
    prompts = [f"number {n} says" for n in range(8)]
    alone = [extract_tokens(await run(worker, prompt=prompt, max_tokens=12)) for prompt in prompts]
    together = await asyncio.gather(*(run(worker, prompt=prompt, max_tokens=12) for prompt in prompts))
    assert ["".join(extract_tokens(events)) for events in together] == ["".join(one) for one in alone]


async def test_a_seed_repeats_and_a_missing_one_is_told(worker):
    sampled = {"prompt": "once", "temperature": 1.5, "max_tokens": 24}
    first = await run(worker, **sampled, seed=None)
    told = first[0].seed
    again = await run(worker, **sampled, seed=told)
    assert "".join(extract_tokens(again)) == "".join(extract_tokens(first))


async def test_a_stop_string_ends_the_job_and_is_not_shown(start_worker):
    worker = await start_worker("fake:a?text=one+two+three+four")
    events = await run(worker, prompt="one", max_tokens=64, stop=("thr", "zzz"))
    end = assert_successful_completion(events)
    assert (end.stop_reason, end.stop_matched) == ("stop_sequence", "thr")
    assert "".join(extract_tokens(events)) == " two "


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"job_id", "prompt"}),
        ({"job_id": "a", "prompt": "x" * 32_769}, {"prompt"}),
        ({"job_id": "a b", "prompt": "", "max_tokens": 0, "temperature": 3, "top_p": -1, "stop": ["x"] * 5},
         {"job_id", "prompt", "max_tokens", "temperature", "top_p", "stop"}),
        ({"job_id": "a", "prompt": "x", "max_tokens": 2049}, {"max_tokens"}),
    ],
)  # fmt: skip
async def test_every_violation_is_told_and_the_prompt_is_not(start_worker, body, fields):
    worker = await start_worker()
    with pytest.raises(WorkerHttpFailed) as caught:
        await worker.execute(body)
    error = caught.value.error
    assert (caught.value.status, error.code) == (400, "invalid_request")
    assert {one.field for one in error.violations} == fields
    assert "xxxx" not in str(error)


async def test_a_lower_limit_of_tokens_is_kept(start_worker):
    worker = await start_worker(extra=("--max-tokens-out", "10"))
    with pytest.raises(WorkerHttpFailed) as caught:
        await worker.execute(make_request(max_tokens=11))
    assert caught.value.error.violations[0].field == "max_tokens"


async def test_a_prompt_beyond_the_context_is_refused(worker):
    with pytest.raises(WorkerHttpFailed) as caught:
        await worker.execute(make_request("word " * 4000))
    assert (caught.value.status, caught.value.error.code) == (400, "invalid_request")


async def test_two_jobs_with_one_id_are_refused(start_worker):
    worker = await start_worker(SLOW)
    request = make_request(max_tokens=500)
    async with await worker.execute(request) as stream:
        await anext(stream)
        with pytest.raises(WorkerHttpFailed) as caught:
            await worker.execute(request)
        assert caught.value.status == 409


async def test_cancel_ends_a_running_job_and_leaves_its_neighbour_alone(start_worker):
    worker = await start_worker("fake:a?token_delay_ms=5")
    alone = extract_tokens(await run(worker, prompt="stay", max_tokens=60))
    doomed = make_request("go", max_tokens=500)
    stream, neighbour = (
        await worker.execute(doomed),
        await worker.execute(make_request("stay", max_tokens=60)),
    )
    await worker.cancel(doomed.job_id)
    events, others = await asyncio.gather(collect_sse_events(stream), collect_sse_events(neighbour))
    assert_event_order(events)
    assert isinstance(events[-1], Error)
    assert (events[-1].code, events[-1].retryable) == ("cancelled", False)
    assert "".join(extract_tokens(others)) == "".join(alone)


async def test_cancel_is_idempotent_for_any_job(start_worker):
    worker = await start_worker()
    request = make_request()
    await collect_sse_events(await worker.execute(request))
    for job_id in (request.job_id, request.job_id, "never-seen"):
        await worker.cancel(job_id)


async def test_a_queued_job_that_is_cancelled_answers_499(start_worker):
    worker = await start_worker(SLOW, slots=1)
    async with await worker.execute(make_request(max_tokens=500)) as running:
        await anext(running)
        queued = make_request()
        waiting = asyncio.create_task(worker.execute(queued))
        await worker.until_health(lambda found: found["queue_depth"] == 1)
        await worker.cancel(queued.job_id)
        with pytest.raises(WorkerHttpFailed) as caught:
            await waiting
        assert (caught.value.status, caught.value.error.code) == (499, "cancelled")
        await worker.until_health(lambda found: found["queue_depth"] == 0)


async def test_a_fault_in_mid_stream_is_an_error_event_and_the_worker_survives(start_worker):
    worker = await start_worker(
        "fake:a?fail_decode=device_out_of_memory&fail_decode_after=12&fail_decode_times=1"
    )
    events = await run(worker, prompt="x", max_tokens=100)
    assert_event_order(events)
    assert isinstance(events[-1], Error)
    assert events[-1].code == "device_out_of_memory"
    assert_successful_completion(await run(worker, prompt="y", max_tokens=4))
