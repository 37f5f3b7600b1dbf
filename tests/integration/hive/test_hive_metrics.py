"""Every series that a hive promises moves when its machine does."""

import os
import signal

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from skep.policy.backoff import BackoffLimits
from skep.policy.breaker import BreakerLimits
from skep.policy.restart import RestartLimits
from skep.policy.storm import StormLimits
from skep.spec.config import FakeDeviceConfig
from skep.spec.pool import PoolSpec

pytestmark = pytest.mark.timeout(200)

DEVICE = FakeDeviceConfig(index=0, memory_total_bytes=2_000_000_000, temperature_c=50.0)
MODEL = "fake:demo?token_delay_ms=30&memory_bytes=100000000"
QUICK = RestartLimits(
    backoff=BackoffLimits(first_s=0.05, delay_s_max=0.2, delay_s_min=0.01),
    breaker=BreakerLimits(failures_max=2, open_s=0.2, stable_s=0.2),
    storm=StormLimits(restarts_max=1),
)
SERIES = {
    "skep_pool_ready", "skep_pool_state", "skep_pool_slots_total", "skep_pool_slots_free",
    "skep_device_memory_used_bytes", "skep_device_memory_free_bytes",
    "skep_host_memory_available_bytes", "skep_preload_total", "skep_preload_seconds_count",
    "skep_restart_total", "skep_driver_reset_total", "skep_backoff_seconds", "skep_breaker_state",
    "skep_storm_total", "skep_handoff_total", "skep_health_check_total", "skep_drain_seconds_count",
    "skep_reload_total",
}  # fmt: skip
"""All that is promised, but the memory that the machine and its device have in all: the one stays, the other goes with it."""


class Scrapes:
    """What a hive told, one scrape after another."""

    def __init__(self, core) -> None:
        self.core = core
        self.seen: list[dict[tuple[str, frozenset[tuple[str, str]]], float]] = []

    def __call__(self, series: str, **labels: str) -> float | None:
        """Scrape, and return one sample; None when it is not there."""
        families = text_string_to_metric_families(self.core.metrics().decode())
        found = {
            (one.name, frozenset(one.labels.items())): one.value for each in families for one in each.samples
        }
        if found != (self.seen or [None])[-1]:
            self.seen.append(found)
        return found.get((series, frozenset({"node_id": "n", **labels}.items())))

    def moved(self) -> set[str]:
        """The series of which a sample changed its value."""
        keys = {key for each in self.seen for key in each}
        return {key[0] for key in keys if len({each[key] for each in self.seen if key in each}) > 1}


async def test_every_series_moves_when_it_should(hive_here, comes_true) -> None:
    pool_spec = PoolSpec(id="p", model=MODEL, backend="fake", devices="0", slots=2)
    async with hive_here(fake_devices=(DEVICE,), pools=(pool_spec,), restart=QUICK) as core:
        pool, sample = core.pools.get("p"), Scrapes(core)
        free = sample("skep_device_memory_free_bytes", device_id="FAKE-0")
        assert sample("skep_pool_ready", pool_id="p") == 0
        await comes_true(lambda: sample("skep_pool_ready", pool_id="p") == 1)
        assert sample("skep_preload_total", pool_id="p", outcome="ready") == 1
        assert sample("skep_preload_seconds_count", pool_id="p") == 1
        assert sample("skep_pool_state", pool_id="p", state="ready") == 1
        await comes_true(lambda: sample("skep_device_memory_free_bytes", device_id="FAKE-0") < free)
        await a_job_takes_a_slot(pool, sample, comes_true)
        await a_worker_falls_silent(pool, sample, comes_true)
        await pool.reload(MODEL, 5.0)
        await comes_true(lambda: sample("skep_reload_total", pool_id="p", outcome="reloaded") == 1)
        core.node.inventory._sources[1][0].devices.clear()
        await comes_true(lambda: sample("skep_device_memory_total_bytes", device_id="FAKE-0") is None)
        await comes_true(lambda: sample("skep_driver_reset_total", pool_id="p") == 1)
        core.node.inventory._sources[1][0].devices.append(DEVICE)
        await comes_true(lambda: sample("skep_pool_ready", pool_id="p") == 1)
        await pool.drain(5.0)
        await comes_true(lambda: sample("skep_drain_seconds_count", pool_id="p") == 1)
        available = sample("skep_host_memory_available_bytes")
        assert 0 < available < sample("skep_host_memory_total_bytes")
        assert sample.moved() >= SERIES, SERIES - sample.moved()


async def a_job_takes_a_slot(pool, sample, comes_true) -> None:
    """A probe sees one slot less while a job runs, and the slot again when its client has left."""
    await comes_true(lambda: sample("skep_pool_slots_free", pool_id="p") == 2)
    assert sample("skep_pool_slots_total", pool_id="p") == 2
    endpoint = pool.serving[0].endpoint
    body = {"model": "demo", "prompt": "go", "stream": True, "max_tokens": 4000, "ignore_eos": True}
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {endpoint.token}"}) as client,
        client.post(f"{endpoint.url}/v1/completions", json=body),
    ):
        await comes_true(lambda: sample("skep_pool_slots_free", pool_id="p") == 1)
    await comes_true(lambda: sample("skep_pool_slots_free", pool_id="p") == 2)
    assert sample("skep_health_check_total", pool_id="p", outcome="well") >= 2


async def a_worker_falls_silent(pool, sample, comes_true) -> None:
    """A stopped worker misses probes, is replaced after a wait, and twice is a storm that opens the breaker."""
    for restarts in (1, 2):
        os.kill(pool.serving[0].running.process.pid, signal.SIGSTOP)
        await comes_true(
            lambda told=restarts: sample("skep_restart_total", pool_id="p", reason="health") == told
        )
        await comes_true(lambda: sample("skep_pool_ready", pool_id="p") == 1)
    assert sample("skep_health_check_total", pool_id="p", outcome="silent") >= 6
    assert sample("skep_backoff_seconds", pool_id="p") > 0
    assert sample("skep_storm_total", pool_id="p") == 1
