"""A hundred pools at once on the fake backend. The figures of `docs/reliability.md` come from the slow one."""

import os
import time

import psutil
import pytest

STEADY_S = 15.0


def load(place, pool_toml, count: int, record=None) -> None:
    """Load, measure when there is somebody to tell, kill some, recover, stop."""
    place.configure(
        "".join(
            pool_toml(f"pool-{number}", f"fake:m{number}?memory_bytes=1000000") for number in range(count)
        ),
        probe_interval_s=5.0,
        discover_interval_s=10.0,
    )
    began = time.monotonic()
    hive = place.start()
    process = psutil.Process(hive.process.pid)

    def ready() -> int:
        return sum(pool["state"] == "ready" for pool in hive.ask("/v2/pools")[1]["pools"])

    place.until(lambda: ready() == count, within_s=600)
    loaded_s = time.monotonic() - began
    if record is not None:
        cpu, at = sum(process.cpu_times()[:2]), time.monotonic()
        place.until(lambda: time.monotonic() - at > STEADY_S, within_s=60)
        steady = (sum(process.cpu_times()[:2]) - cpu) / (time.monotonic() - at)
        record("pools", count)
        record("loaded_s", round(loaded_s, 1))
        record("hive_cpu_s_while_loading", round(cpu, 2))
        record("hive_cores_when_steady", round(steady, 4))
        record("hive_rss_mib", round(process.memory_info().rss / 2**20, 1))
    assert len(place.workers()) == count
    assert len(place.handoffs()) == count
    victims = place.workers()[:: max(count // 5, 1)]
    for pid in victims:
        os.kill(pid, 9)
    place.until(lambda: ready() < count, within_s=30)
    place.until(lambda: ready() == count, within_s=300)
    assert hive.stop(within_s=30) == 0
    assert place.workers() == []


def test_ten_pools_load_recover_and_stop_together(place, pool_toml) -> None:
    load(place, pool_toml, 10)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_pools_load_recover_and_stop_together(place, pool_toml, record_property) -> None:
    def tell(name: str, value: object) -> None:
        record_property(name, value)
        print(name, value)  # noqa: T201 - the figures, with `pytest -s`

    load(place, pool_toml, 100, tell)
