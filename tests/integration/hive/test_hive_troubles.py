"""What befalls a machine: a device that vanishes or grows hot, memory that is not there, a clock that jumps."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from skep.policy.breaker import BreakerLimits
from skep.policy.restart import RestartLimits
from skep.spec.config import FakeDeviceConfig
from skep.spec.pool import PoolSpec

HOUR_S = 3600.0
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
DEVICE = FakeDeviceConfig(index=0, memory_total_bytes=2_000_000_000, temperature_c=50.0)


def pool_of(model: str = "fake:demo", **fields) -> PoolSpec:
    return PoolSpec(id="p", model=model, backend="fake", **{"devices": "0", **fields})


def told(pool, kind: str) -> list[dict]:
    return [one.facts for one in pool.events.since() if one.kind == kind]


async def test_a_device_that_vanishes_takes_its_replicas_out_until_it_is_back(hive_here, comes_true) -> None:
    async with hive_here(fake_devices=(DEVICE,), pools=(pool_of(replicas=2),)) as core:
        pool = core.pools.get("p")
        await comes_true(lambda: len(pool.serving) == 2)
        before = {one.running.process.pid for one in pool.serving}
        source = core.node.inventory._sources[1][0]
        source.devices.clear()
        await comes_true(lambda: pool.state == "unready" and not pool.serving)
        await comes_true(lambda: all(one.running is None for one in pool.replicas.values()))
        assert {"device_id": "FAKE-0", "change": "vanished"} in told(pool, "device")
        assert {one["reason"] for one in told(pool, "verdict")} == {"device_error"}
        assert "FAKE-0 vanished" in pool.last_error["message"]
        await comes_true(
            lambda: any(
                "no longer here" in (one.last_error or {})["message"] for one in pool.replicas.values()
            )
        )
        assert b'device_id="FAKE-0"' not in core.metrics()
        source.devices.append(DEVICE)
        await pool.reset()
        await comes_true(lambda: len(pool.serving) == 2)
        assert before.isdisjoint(one.running.process.pid for one in pool.serving)


async def test_heat_is_told_to_the_pools_on_the_device(hive_here, comes_true) -> None:
    async with hive_here(fake_devices=(DEVICE,), pools=(pool_of(),)) as core:
        pool = core.pools.get("p")
        devices = core.node.inventory._sources[1][0].devices
        for temperature_c, change in ((90.0, "hot"), (96.0, "critical"), (60.0, "cooled")):
            devices[0] = msgspec.structs.replace(DEVICE, temperature_c=temperature_c)
            await comes_true(
                lambda change=change: (
                    told(pool, "device")[-1:] and told(pool, "device")[-1]["change"] == change
                )
            )
            sample = f'skep_device_temperature_celsius{{device_id="FAKE-0",node_id="n"}} {temperature_c}'
            assert sample.encode() in core.metrics()
        await comes_true(lambda: pool.state == "ready")


async def test_what_does_not_fit_is_told_term_by_term_and_nothing_is_spawned(hive_here, comes_true) -> None:
    async with hive_here(
        fake_devices=(DEVICE,), pools=(pool_of("fake:demo?memory_bytes=3000000000"),)
    ) as core:
        pool = core.pools.get("p")
        await comes_true(lambda: pool.state == "unready")
        assert pool.last_error["code"] == "insufficient_memory"
        for term in ("weights 2.8 GiB", "KV cache", "compute", "headroom", "is available"):
            assert term in core.why("p").fit
        told = f"{core.metrics().decode()}\n"
        assert 'skep_preload_total{node_id="n",outcome="does_not_fit",pool_id="p"} 1.0\n' in told
        assert not pool.replicas
        assert not list((core.settings.runtime / "spawns").iterdir())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """Make this process's wall clock jump."""
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])

    def jump(seconds: float) -> None:
        offset[0] += seconds

    return jump


@asynccontextmanager
async def queen_at(port: int) -> AsyncIterator[tuple[str, list[tuple[float, str]]]]:
    """Something that answers as a queen does, and keeps when and what it was asked."""
    asked: list[tuple[float, str]] = []

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        asked.append((time.monotonic(), request.path.rpartition("/")[2]))
        return web.json_response({"next_heartbeat_ms": 200})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}", asked
    await runner.cleanup()


@pytest.fixture
async def queen():
    async with queen_at(0) as found:
        yield found


async def test_a_queen_that_is_away_for_half_an_hour_is_asked_ever_more_rarely_and_found_again(
    hive_here, comes_true
) -> None:
    waits: list[float] = []

    async def quickly(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0 if seconds > 0.4 else seconds)  # The backoff; not the look for idle pools.

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    async with hive_here(
        fake_devices=(DEVICE,), pools=(pool_of(),), queen=f"http://127.0.0.1:{port}"
    ) as core:
        pool = core.pools.get("p")
        await comes_true(lambda: pool.state == "ready")
        pid = pool.serving[0].running.process.pid
        core.node.sleep = quickly
        await comes_true(lambda: sum(one for one in waits if one > 0.4) > HOUR_S / 2)
        backoff = [one for one in waits if one > 0.4]
        assert max(backoff) <= 66
        assert all(later >= sooner or later > 50 for sooner, later in pairwise(backoff))
        assert pool.serving[0].running.process.pid == pid
        async with queen_at(port) as (_, asked):
            await comes_true(
                lambda: [what for _, what in asked][:3] == ["register", "heartbeat", "heartbeat"]
            )
            assert core.state().registered


async def test_a_clock_that_jumps_moves_nothing_that_is_decided(hive_here, comes_true, clock, queen) -> None:
    url, asked = queen
    limits = RestartLimits(breaker=BreakerLimits(failures_max=1, open_s=HOUR_S / 2))
    held = msgspec.structs.replace(pool_of("fake:bad?fail_load=gguf_truncated"), id="held")
    async with hive_here(
        fake_devices=(DEVICE,), pools=(pool_of(ttl_s=HOUR_S / 2), held), restart=limits, queen=url
    ) as core:
        pool, broken = core.pools.get("p"), core.pools.get("held")
        await comes_true(lambda: pool.state == "ready" and broken.state == "unready" and broken.replicas)
        replica, bad = pool.serving[0], next(iter(broken.replicas.values()))
        await comes_true(lambda: bad.state == "held")
        pid, tries = replica.running.process.pid, bad.history.restarts
        for seconds in (HOUR_S, -2 * HOUR_S, HOUR_S):
            clock(seconds)
            beats, probes = len(asked), replica.ready_s
            await comes_true(lambda beats=beats: len(asked) >= beats + 3)
            assert replica.ready_s - probes < 60
        assert pool.state == "ready", "neither idle for an hour nor silent for one"
        assert replica.running.process.pid == pid
        assert (bad.state, bad.history.restarts) == ("held", tries), (
            "the breaker stays open its own half hour"
        )
        gaps = [later[0] - sooner[0] for sooner, later in pairwise(asked)]
        assert max(gaps) < 10
        assert [what for _, what in asked].count("register") == 1


async def test_a_clock_that_jumps_during_a_backoff_neither_ends_nor_prolongs_it(
    hive_here, comes_true, clock
) -> None:
    async with hive_here(
        fake_devices=(DEVICE,), pools=(pool_of("fake:bad?fail_load=gguf_truncated"),)
    ) as core:
        pool = core.pools.get("p")
        for seconds in (HOUR_S, -2 * HOUR_S):
            tried = len(told(pool, "verdict"))
            await comes_true(lambda tried=tried: len(told(pool, "verdict")) > tried)
            clock(seconds)
        waited = max(one["delay_s"] for one in told(pool, "verdict") if one["action"] == "restart")
        assert waited < 1, "as without the jump"


@pytest.mark.skipif(FAKETIME is None, reason="needs Debian's libfaketime")
def test_a_clock_that_jumps_beneath_real_processes_restarts_nothing(place, pool_toml) -> None:
    shift = place.folder / "shift"
    shift.write_text("+0")
    place.configure(pool_toml(ttl_s=HOUR_S / 2))
    hive = place.start(
        LD_PRELOAD=str(FAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(shift),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    before = hive.until_ready()["replicas"][0]
    for jump in ("+3600", "-3600"):
        shift.write_text(jump)
        ready_s = hive.pool()["replicas"][0]["ready_s"]
        after = hive.until(
            lambda pool, ready_s=ready_s: pool["replicas"][0]["ready_s"] > ready_s + 0.7 and pool
        )
        assert after["state"] == "ready"
        assert after["replicas"][0]["pid"] == before["pid"]
        assert after["replicas"][0]["ready_s"] < HOUR_S / 4
    shift.write_text("+3600")
    assert hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 0})[0] == 202
    hive.until_state("offline")
    events = hive.ask("/v2/pools/pool-0/events?follow=false")[1]
    last = json.loads([line for line in events.splitlines() if line.startswith("data: ")][-1][6:])
    assert last["at"] - time.time() == pytest.approx(HOUR_S, abs=300), "its clock did jump"
