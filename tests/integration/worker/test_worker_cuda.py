"""The gate on a real GPU: HTTP → FFI → CUDA → FFI → HTTP. Skipped, with the reason, where there is none."""

import pynvml
import pytest

from skep.errors.harness import WorkerSpawnFailed
from skep.runtime.models import TINY
from skep.testkit.harness import (
    WorkerHarness,
    assert_successful_completion,
    collect_sse_events,
    extract_tokens,
    make_request,
)
from skep.testkit.harness.events import seen_metrics


def devices():
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return 0, str(error)
    return pynvml.nvmlDeviceGetCount(), "NVML finds no device"


COUNT, WHY = devices()
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.cuda,
    pytest.mark.skipif(COUNT == 0, reason=f"no NVIDIA device here: {WHY}"),
]


async def start_on_gpu(**options):
    try:
        return await WorkerHarness.start(TINY, gpu_device=0, **options)
    except WorkerSpawnFailed as error:
        if error.cause in {"device_missing", "library_unavailable"}:
            pytest.skip(f"this llama.cpp library cannot use the GPU: {error}")
        raise


def used_bytes():
    return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used


async def test_a_job_runs_on_the_device_and_says_the_same_as_the_cpu():
    async with await start_on_gpu() as worker, await WorkerHarness.start(TINY) as reference:
        health = await worker.health()
        assert health["device_mask"] == "0"
        assert health["vram_used_bytes"] > 0
        request = make_request("the sky is", max_tokens=20)
        events = await collect_sse_events(await worker.execute(request))
        assert_successful_completion(events)
        assert all(one.vram_bytes > 0 for one in seen_metrics(events))
        expected = await collect_sse_events(await reference.execute(request))
        assert "".join(extract_tokens(events)) == "".join(extract_tokens(expected))


async def test_a_worker_is_on_the_devices_of_its_mask_and_on_no_other():
    async with await start_on_gpu() as worker:
        await collect_sse_events(await worker.execute(make_request(max_tokens=4)))
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(COUNT)]
        users = [{one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses(each)} for each in handles]
        assert worker.pid in users[0]
        assert [index for index, pids in enumerate(users) if worker.pid in pids] == [0]


async def test_some_layers_on_the_device_take_less_of_it_and_say_the_same():
    request = make_request("the sky is", max_tokens=12)
    async with await start_on_gpu() as whole, await start_on_gpu(extra=("--gpu-layers", "2")) as part:
        used = [(await one.health())["vram_used_bytes"] for one in (whole, part)]
        assert used[0] > used[1] > 0
        texts = [
            "".join(extract_tokens(await collect_sse_events(await one.execute(request))))
            for one in (whole, part)
        ]
        assert texts[0] == texts[1]


async def test_the_device_s_memory_is_given_back():
    async with await start_on_gpu():
        pass
    before = used_bytes()
    for _ in range(5):
        async with await start_on_gpu() as worker:
            await collect_sse_events(await worker.execute(make_request(max_tokens=4)))
    assert used_bytes() - before < 64 * 2**20


async def test_a_context_that_does_not_fit_is_a_typed_failure_of_the_start():
    async with await start_on_gpu():
        pass
    with pytest.raises(WorkerSpawnFailed) as caught:
        await WorkerHarness.start(TINY, gpu_device=0, slots=256, context=4 * 1024 * 1024)
    assert caught.value.cause in {"insufficient_memory", "device_out_of_memory", "invalid_request"}


async def test_a_device_outside_the_machine_is_missing_and_nothing_falls_back_to_the_cpu():
    with pytest.raises(WorkerSpawnFailed) as caught:
        await WorkerHarness.start(TINY, gpu_device=97)
    assert caught.value.cause in {"device_missing", "library_unavailable"}
