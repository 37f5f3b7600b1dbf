"""The fleet's worker model is measured on real workers; its error is part of what comes back."""

import math

import pytest

from skep.arena.fleet.calibrate import Target, calibrate
from skep.arena.fleet.compare import compare
from skep.arena.fleet.requests import generated_requests
from skep.arena.fleet.simulate import FleetPlan
from skep.errors.arena import DriverUnavailable
from skep.testkit.harness.worker import WorkerHarness


async def measured(worker: WorkerHarness, context: int, **more):
    async with worker.client.get("/v1/models") as answer:
        served = (await answer.json())["data"][0]["id"]
    target = Target(url=worker.base_url, model=served, token=worker.token, slots=2, context=context)
    return await calibrate(target, **more)


async def test_a_worker_of_known_speed_is_measured_as_that_fast_or_slower() -> None:
    async with await WorkerHarness.start("fake:steady?token_delay_ms=8", slots=2, context=256) as worker:
        found = await measured(worker, 256, requests=10, rounds=2)
    assert found.model.slots == 2
    assert found.model.decode_step_s(1) >= 0.007
    assert math.isfinite(found.speed_spread)
    assert len(found.check.errors) == 6
    for error in found.check.errors.values():
        assert error.least <= error.middle <= error.most
        assert error.real_s > 0
    assert found.check.requests == sum(run.completed for run in found.check.simulated) == 10


@pytest.mark.llama
async def test_a_measured_model_drives_the_fleet() -> None:
    from skep.runtime.models import TINY

    async with await WorkerHarness.start(TINY, slots=2, context=256, extra=("--threads", "1")) as worker:
        found = await measured(worker, 256, requests=10, rounds=2)
    plan = FleetPlan(replicas=2, model=found.model)
    report = compare(lambda: generated_requests(50, 5, 1), plan, trace="generated", arms=("skep",))
    assert report.arms[0].runs[0].completed == 50


async def test_a_worker_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skep.arena.fleet.calibrate.READY_S_MAX", 0.0)
    with pytest.raises(DriverUnavailable):
        await calibrate(Target(url="http://127.0.0.1:9", model="none"))
