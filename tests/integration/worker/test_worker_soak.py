"""Minutes of abuse: stalled readers, random cancels, many starts. What was taken is given back."""

import asyncio
import itertools
import json
import os
import random
import shutil
import socket
import statistics
from pathlib import Path

import psutil
import pytest

from skep.errors.harness import WorkerHttpFailed, WorkerSpawnFailed
from skep.runtime.models import TINY
from skep.testkit.harness import (
    WorkerHarness,
    assert_event_order,
    assert_successful_completion,
    collect_sse_events,
    make_request,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(1800)]

MIB = 2**20
MODELS = ["fake", pytest.param("llama", marks=pytest.mark.llama)]


@pytest.fixture
def model_of(tmp_path):
    """Return what to serve: the fake, or a copy of the tiny model that nobody else rewrites meanwhile."""

    def find(name):
        return str(shutil.copy(TINY, tmp_path)) if name == "llama" else "fake:m" if name == "fake" else name

    return find


async def stalled(worker, number):
    """Open a stream and never read it."""
    body = json.dumps({
        "model": "m", "messages": [{"role": "user", "content": f"stall {number}"}], "stream": True, "max_tokens": 30_000,
        "ignore_eos": True, "logprobs": True, "top_logprobs": 20,
    }).encode()  # fmt: skip
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.setblocking(False)
    await asyncio.get_running_loop().sock_connect(link, ("127.0.0.1", worker.port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(link, head.encode() + body)
    return link


async def gaps_s(worker, *, tokens):
    """Stream one answer; return the times between its tokens."""
    async with await worker.execute(make_request("neighbour", max_tokens=tokens)) as stream:
        times = [event.at_s async for event in stream if event.event == "token"]
    return [after - before for before, after in itertools.pairwise(times)]


def p99(values):
    return statistics.quantiles(values, n=100)[98]


@pytest.mark.parametrize("model", MODELS)
async def test_200_stalled_readers_hold_bounded_memory_and_slow_nobody(start_worker, model_of, model):
    """Two workers alike are asked in turn, so that whatever else the machine does falls on both."""
    extra = (
        "--stall-s",
        "900",
        "--served-name",
        "m",
        "--queue-max",
        "10",
        "--timeout-s",
        "900",
        "--threads",
        "1",
    )
    path = model_of(model if model != "fake" else "fake:m?token_delay_ms=4")
    calm, busy = [
        await start_worker(path, slots=210, context=1024, extra=extra, ready_s=120) for _ in range(2)
    ]
    for worker in (calm, busy):
        await gaps_s(worker, tokens=400)
    before = (await busy.health())["ram_used_bytes"]
    links = [await stalled(busy, number) for number in range(200)]
    async with asyncio.timeout(600):
        while sum(job["state"] == "paused" for job in await busy.jobs()) < 200:
            await asyncio.sleep(0.2)
    full = (await busy.health())["ram_used_bytes"]
    undisturbed, disturbed = [], []
    for _ in range(12):
        undisturbed += await gaps_s(calm, tokens=400)
        disturbed += await gaps_s(busy, tokens=400)
    later = (await busy.health())["ram_used_bytes"]
    assert sum(job["state"] == "paused" for job in await busy.jobs()) == 200
    for link in links:
        link.close()
    await busy.until_health(lambda found: found["slots_free"] == 210, within_s=60)
    told = f"p99 {p99(disturbed) * 1e3:.2f} ms among them, {p99(undisturbed) * 1e3:.2f} ms without; {(full - before) / MIB:.0f} MiB"
    print(told)  # noqa: T201 - for docs/reliability.md: pytest -rP
    assert p99(disturbed) <= p99(undisturbed) * 1.5, told
    assert full - before < 200 * MIB
    assert later - full < 16 * MIB


@pytest.mark.parametrize("model", MODELS)
async def test_ten_thousand_random_cancels_leave_slots_and_memory_as_they_were(start_worker, model_of, model):
    worker = await start_worker(
        model_of(model),
        slots=8,
        context=512,
        extra=("--served-name", "m", "--threads", "1", "--queue-max", "100"),
    )
    rng = random.Random(int(os.environ.get("SKEP_TEST_SEED", "7")))
    for _ in range(20):
        await collect_sse_events(await worker.execute(make_request(max_tokens=20)))

    async def one(number):
        request = make_request(f"cancel {number} " * rng.randint(1, 30), max_tokens=rng.randint(1, 200))
        try:
            stream = await worker.execute(request)
        except WorkerHttpFailed as refused:
            return refused.status
        async with stream:
            for _ in range(rng.randint(0, 6)):
                if await anext(stream, None) is None:
                    return 0
            match rng.randrange(3):
                case 0:
                    await worker.cancel(request.job_id)
                    return -1
                case 1:
                    return -2  # Leaving the context closes the connection.
                case _:
                    await worker.cancel(request.job_id)
                    async for _ in stream:
                        pass
                    return -3

    async def batch(count):
        await asyncio.gather(*(one(rng.random()) for _ in range(count)))

    for _ in range(20):
        await batch(50)
    await worker.until_health(
        lambda found: found["slots_free"] == 8 and found["queue_depth"] == 0, within_s=30
    )
    before = (await worker.health())["ram_used_bytes"]
    descriptors = len(list(Path(f"/proc/{worker.pid}/fd").iterdir()))
    for _ in range(180):
        await batch(50)
    health = await worker.until_health(
        lambda found: found["slots_free"] == 8 and found["queue_depth"] == 0, within_s=30
    )
    assert await worker.jobs() == []
    assert health["ram_used_bytes"] - before < 24 * MIB
    assert (
        len(list(Path(f"/proc/{worker.pid}/fd").iterdir())) <= descriptors + 110
    )  # Kept-alive connections of the client.
    events = await collect_sse_events(await worker.execute(make_request("after", max_tokens=8)))
    assert_event_order(events)
    assert_successful_completion(events)


async def test_a_hundred_starts_and_a_hundred_failed_ones_leave_nothing():
    me = psutil.Process()

    def held():
        return me.num_fds(), me.num_threads(), len(me.children(recursive=True))

    async with await WorkerHarness.start("fake:a"):
        pass
    before, rss = held(), me.memory_info().rss
    for _ in range(100):
        async with await WorkerHarness.start("fake:a", ready_s=60) as worker:
            await worker.health()
        with pytest.raises(WorkerSpawnFailed):
            await WorkerHarness.start("fake:a?fail_load=insufficient_memory", ready_s=60)
    assert all(now <= was + 1 for now, was in zip(held(), before, strict=True))
    assert me.memory_info().rss <= rss + 32 * MIB
