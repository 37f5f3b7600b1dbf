"""Where a model lies: the mask, the layers on the device, memory before and after. On the fake, which has a device of any size."""

import pytest

from skep.errors.harness import WorkerSpawnFailed
from skep.testkit.harness import (
    WorkerHarness,
    assert_successful_completion,
    collect_sse_events,
    make_request,
)
from skep.testkit.harness.events import seen_metrics

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEIGHTS = 4_000_000
MODEL = f"fake:m?layers=4&memory_bytes={WEIGHTS}"


@pytest.mark.parametrize(
    ("layers", "weights"), [((), WEIGHTS), (("--gpu-layers", "1"), WEIGHTS // 4), (("--gpu-layers", "0"), 0)]
)
async def test_the_layers_that_were_asked_for_are_on_the_device(start_worker, layers, weights):
    worker = await start_worker(MODEL, gpu_device=0, slots=2, extra=layers)
    before = await worker.health()
    assert before["device_mask"] == "0"
    assert weights <= before["vram_used_bytes"] < weights + 100_000
    events = await collect_sse_events(await worker.execute(make_request(max_tokens=40)))
    assert_successful_completion(events)
    assert all(one.vram_bytes >= weights for one in seen_metrics(events))
    assert worker.memory.after.device_bytes >= weights


async def test_without_a_device_nothing_is_on_one(start_worker):
    health = await (await start_worker(MODEL)).health()
    assert (health["device_mask"], health["vram_used_bytes"]) == ("cpu", 0)


@pytest.mark.parametrize(
    ("free", "cause"), [(WEIGHTS - 1, "insufficient_memory"), (WEIGHTS + 1, "device_out_of_memory")]
)
async def test_what_does_not_fit_on_the_device_fails_the_start_typed(free, cause):
    with pytest.raises(WorkerSpawnFailed) as caught:
        await WorkerHarness.start(f"{MODEL}&device_memory_bytes={free}", gpu_device=0)
    assert caught.value.cause == cause


async def test_a_device_that_the_parent_hides_is_missing():
    with pytest.raises(WorkerSpawnFailed) as caught:
        await WorkerHarness.start(MODEL, gpu_device=1, env={"CUDA_VISIBLE_DEVICES": "0"})
    assert caught.value.cause == "device_missing"
