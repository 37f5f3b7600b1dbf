"""The harness on fake-backed workers: start and stop, isolation, time-outs, typed failures, and nothing left behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from skep.errors.harness import (
    StreamTimedOut,
    WorkerDied,
    WorkerHttpFailed,
    WorkerReadyTimeout,
    WorkerSpawnFailed,
)
from skep.process import group
from skep.testkit.harness import (
    WorkerHarness,
    assert_event_order,
    assert_successful_completion,
    assert_token_count,
    collect_sse_events,
    extract_tokens,
    make_request,
)
from skep.wire.events import Error


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def gone(pgid: int) -> bool:
    return not await group.wait_empty(pgid, within_s=5)


async def test_a_worker_is_started_driven_and_gone():
    async with await WorkerHarness.start("fake:demo") as worker:
        health = await worker.health()
        assert (health["instance"], health["worker_id"], health["status"]) == (
            worker.nonce,
            worker.worker_id,
            "ready",
        )
        events = await collect_sse_events(await worker.execute(make_request("hello", max_tokens=8)))
        assert_event_order(events)
        assert_successful_completion(events)
        assert_token_count(events, 8)
        assert "".join(extract_tokens(events))
        assert worker.base_url == f"http://127.0.0.1:{worker.port}"
        assert '"event":"ready"' in worker.logs
        pid = worker.pid
    assert await gone(pid)


async def test_workers_in_a_row_and_side_by_side_are_strangers():
    seen = set()
    for _ in range(2):
        async with await WorkerHarness.start("fake:a") as one, await WorkerHarness.start("fake:b") as other:
            seen |= {(one.port, one.nonce), (other.port, other.nonce)}
            assert (await other.health())["model"] == "b"
            assert (await one.jobs(), await other.jobs()) == ([], [])
    assert len({nonce for _, nonce in seen}) == 4


async def test_nothing_is_left_open():
    async with await WorkerHarness.start("fake:warm-up"):
        pass
    before = open_descriptors()
    async with await WorkerHarness.start("fake:a") as worker:
        await worker.health()
    await asyncio.sleep(0)
    assert open_descriptors() <= before


async def test_a_worker_is_cleaned_up_when_the_test_fails():
    pids = []

    async def failing_test():
        async with await WorkerHarness.start("fake:a") as worker:
            pids.append(worker.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing_test()
    assert await gone(pids[0])


async def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path):
    with pytest.raises(WorkerSpawnFailed) as caught:
        await WorkerHarness.start("fake:bad?fail_load=gguf_truncated", worker_id="w-bad", log_dir=tmp_path)
    assert caught.value.cause == "gguf_truncated"
    assert any('"event":"failed"' in line for line in caught.value.log_tail)
    assert not group.marked("SKEP_TEST_MARK", "w-bad")


async def test_a_start_that_takes_too_long_is_stopped(tmp_path):
    mark = f"mark-{os.getpid()}"
    with pytest.raises(WorkerReadyTimeout):
        await WorkerHarness.start("fake:slow?load_delay_ms=60000", ready_s=1.0, env={"SKEP_TEST_MARK": mark})
    assert not group.marked("SKEP_TEST_MARK", mark)


async def test_a_start_that_is_cancelled_leaves_nothing():
    mark = f"cancel-{os.getpid()}"
    task = asyncio.create_task(
        WorkerHarness.start("fake:slow?load_delay_ms=60000", env={"SKEP_TEST_MARK": mark})
    )
    async with asyncio.timeout(10):
        while not group.marked("SKEP_TEST_MARK", mark):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not group.marked("SKEP_TEST_MARK", mark)


async def test_an_unknown_flag_is_a_failed_spawn_or_death_with_its_log():
    with pytest.raises((WorkerSpawnFailed, WorkerDied)) as caught:
        await WorkerHarness.start("fake:a", extra=("--no-such-flag",))
    assert any("no-such-flag" in line for line in caught.value.log_tail)


async def test_a_death_during_a_stream_is_told_with_its_signal():
    async with await WorkerHarness.start("fake:a?token_delay_ms=20") as worker:
        stream = await worker.execute(make_request(max_tokens=500))
        await anext(stream)
        worker.signal(signal.SIGKILL)
        with pytest.raises(WorkerDied) as caught:
            await collect_sse_events(stream)
        assert caught.value.signal == signal.SIGKILL
        with pytest.raises(WorkerDied):
            await worker.health()


async def test_a_refusal_carries_status_and_error():
    async with await WorkerHarness.start("fake:a") as worker:
        with pytest.raises(WorkerHttpFailed) as caught:
            await worker.execute({"prompt": ""})
        assert (caught.value.status, caught.value.error.code) == (400, "invalid_request")


async def test_a_stream_that_does_not_end_times_out_with_what_came():
    async with await WorkerHarness.start("fake:a?token_delay_ms=50") as worker:
        request = make_request(max_tokens=1000)
        with pytest.raises(StreamTimedOut) as caught:
            await collect_sse_events(await worker.execute(request), timeout_s=0.5)
        assert len(caught.value.events) > 1
        health = await worker.until_health(lambda found: found["slots_free"] == found["slots_total"])
        assert health["slots_total"] == 4


async def test_a_cancelled_job_ends_in_its_error_event():
    async with await WorkerHarness.start("fake:a?token_delay_ms=20") as worker:
        request = make_request(max_tokens=1000)
        stream = await worker.execute(request)
        await anext(stream)
        await worker.cancel(request.job_id)
        await worker.cancel(request.job_id)
        events = await collect_sse_events(stream)
        assert isinstance(events[-1], Error)
        assert events[-1].code == "cancelled"


async def test_a_token_is_asked_for_and_sent():
    async with await WorkerHarness.start("fake:a", token="s3cret") as worker:
        assert await worker.jobs() == []
        async with worker.client.get("/jobs", headers={"authorization": "Bearer wrong"}) as response:
            assert response.status == 401
        assert "s3cret" not in worker.logs


async def test_memory_is_told_before_peak_and_after():
    async with await WorkerHarness.start("fake:a?memory_bytes=1048576", "0") as worker:
        await worker.health()
    ledger = worker.memory
    assert ledger.before.ram_bytes > 2**20
    assert ledger.peak.ram_bytes >= ledger.before.ram_bytes
    assert 1048576 <= ledger.after.device_bytes <= ledger.peak.device_bytes  # The weights, and some cache.


async def test_gpu_device_is_short_for_a_mask():
    async with await WorkerHarness.start("fake:a", gpu_device=3) as worker:
        assert (await worker.health())["device_mask"] == "3"


async def test_a_worker_that_ignores_sigterm_is_killed():
    async with await WorkerHarness.start("fake:a") as worker:
        worker.signal(signal.SIGSTOP)
        ended = await worker.aclose(grace_s=0.2)
    assert ended is not None
    assert await gone(worker.pid)


RUNNER = """
import asyncio, sys
from skep.testkit import WorkerHarness

async def main():
    worker = await WorkerHarness.start("fake:a", ready_s=60)
    print(worker.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_killed_runner_leaves_no_worker(tmp_path):
    runner = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        RUNNER,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    async with asyncio.timeout(60):
        pid = int(await runner.stdout.readline())
        runner.kill()
        await runner.wait()
    assert await gone(pid)
