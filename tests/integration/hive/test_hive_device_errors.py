"""What a device that fails does to jobs: the pool is out of service at once, and what runs there may end."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp

from skep.hive import watching
from skep.hive.adapter.skep import SkepAdapter
from skep.hive.endpoint import Look
from skep.policy.health import Answer
from skep.spec.config import FakeDeviceConfig
from skep.spec.pool import PoolSpec

DEVICE = FakeDeviceConfig(index=0, memory_total_bytes=2_000_000_000, temperature_c=50.0)
TOKEN_MS = 30
JOBS_MAX = 200


def pool_of(model: str, **fields) -> PoolSpec:
    return PoolSpec(id="p", model=model, backend="fake", devices="0", **fields)


async def streamed(endpoint, model: str, tokens: int) -> AsyncIterator[dict]:
    """Ask a worker for so many tokens, and yield each event of its answer."""
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {endpoint.token}"}) as client,
        client.post(
            f"{endpoint.url}/v1/completions",
            json={"model": model, "prompt": "go", "stream": True, "max_tokens": tokens, "ignore_eos": True},
        ) as answer,
    ):
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            if line.startswith(b"data: {"):
                yield json.loads(line.removeprefix(b"data: "))


async def refused(endpoint, model: str, tokens: int) -> str:
    """Send jobs, one after another, until one is refused; return what it was told."""
    for _ in range(JOBS_MAX):
        try:
            async for _ in streamed(endpoint, model, tokens):
                pass
        except (AssertionError, aiohttp.ClientError) as error:
            return str(error)
        await asyncio.sleep(0.02)
    raise TimeoutError("every job was admitted")


def resets(core) -> float:
    line = next(
        one for one in core.metrics().decode().splitlines() if one.startswith("skep_driver_reset_total{")
    )
    return float(line.split()[-1])


async def vanish_under(core, tokens: int, comes_true) -> tuple[list[dict], int]:
    """Take the device away while a job runs; return the job's events, and the process that ran it."""
    pool = core.pools.get("p")
    await comes_true(lambda: pool.serving)
    running = pool.serving[0].running
    events = streamed(running.endpoint, "demo", tokens)
    seen = [await anext(events)]
    core.node.inventory._sources[1][0].devices.clear()
    await comes_true(lambda: pool.state == "unready")
    assert running.process.exit is None, "out of service, and yet its job runs"
    assert "draining" in await refused(running.endpoint, "demo", 1)
    seen += [each async for each in events]
    await comes_true(lambda: running.process.exit is not None)
    return seen, resets(core)


async def test_a_job_on_a_device_that_vanished_may_end_and_no_other_begins(hive_here, comes_true) -> None:
    model = f"fake:demo?token_delay_ms={TOKEN_MS}"
    async with hive_here(fake_devices=(DEVICE,), pools=(pool_of(model),)) as core:
        seen, faults = await vanish_under(core, 40, comes_true)
        assert seen[-1]["choices"][0]["finish_reason"] == "length", seen[-1]
        assert faults == 1


async def test_a_job_that_outlasts_the_time_of_a_failed_device_is_told_that_it_was_cut(
    hive_here, comes_true, monkeypatch
) -> None:
    monkeypatch.setattr(watching, "DEVICE_DRAIN_S", 0.5)
    model = f"fake:demo?token_delay_ms={TOKEN_MS}"
    async with hive_here(fake_devices=(DEVICE,), pools=(pool_of(model),)) as core:
        seen, _ = await vanish_under(core, 4000, comes_true)
        assert "error" in seen[-1], seen[-1]


async def test_a_worker_that_reports_a_device_error_is_out_at_once_then_drained_then_replaced(
    hive_here, comes_true, monkeypatch
) -> None:
    reporting, asked = set(), []
    look, drain = SkepAdapter.look, SkepAdapter.drain

    async def reports(self, endpoint):
        if endpoint.nonce in reporting:
            return Look(answer=Answer.DEVICE_ERROR, detail="CUDA error: unspecified launch failure")
        return await look(self, endpoint)

    async def watched(self, endpoint, *, deadline_s):
        asked.append((deadline_s, pool.state.value, len(pool.serving)))
        return await drain(self, endpoint, deadline_s=deadline_s)

    monkeypatch.setattr(SkepAdapter, "look", reports)
    monkeypatch.setattr(SkepAdapter, "drain", watched)
    model = f"fake:demo?token_delay_ms={TOKEN_MS}"
    async with hive_here(fake_devices=(DEVICE,), pools=(pool_of(model, replicas=2),)) as core:
        pool = core.pools.get("p")
        await comes_true(lambda: len(pool.serving) == 2)
        before = [one.running for one in pool.serving]
        jobs = [streamed(one.endpoint, "demo", 40) for one in before]
        began = [await anext(one) for one in jobs]
        reporting.add(before[0].endpoint.nonce)
        ends = [[each async for each in one][-1] for one in jobs]
        assert len(began) == 2
        assert [one["choices"][0]["finish_reason"] for one in ends] == ["length"] * 2, "both jobs ended"
        assert asked == [(watching.DEVICE_DRAIN_S, "unready", 0)] * 2, "the reporter and its sibling"
        await comes_true(lambda: all(one.process.exit is not None for one in before))
        assert resets(core) == 1, "one fault, however many it took out"
        counted = 'skep_health_check_total{node_id="n",outcome="device_error",pool_id="p"} 1.0\n'
        assert counted in core.metrics().decode()
        await comes_true(lambda: len(pool.serving) == 2)
        after = {one.running.process.pid for one in pool.serving}
        assert after.isdisjoint(one.process.pid for one in before)
        assert [one.verdict["reason"] for one in pool.judging.verdicts] == ["device_error"] * 2
