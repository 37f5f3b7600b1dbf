"""A hive from its start to its end, with real workers on the fake backend."""

import json
import os
import signal
import time
import urllib.request

import pytest


@pytest.fixture
def hive(place, pool_toml):
    place.configure(pool_toml(replicas=2))
    return place.start()


def complete(replica, model="demo") -> str:
    """Ask a worker directly, as the gateway does: with the token of its handoff file."""
    body = {"model": model, "prompt": "Hello", "max_tokens": 4, "temperature": 0}
    request = urllib.request.Request(
        f"{replica['url']}/v1/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {replica['token']}"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)["choices"][0]["text"]


def test_a_configured_pool_is_loaded_served_and_told(place, hive) -> None:
    pool = hive.until_ready()
    assert pool["ready"]
    assert pool["live"]
    assert pool["slots_total"] == 8
    assert {one["instance"] for one in pool["replicas"]} == {
        one["nonce"] for one in place.handoffs().values()
    }
    for name, handoff in place.handoffs().items():
        path = place.runtime / "engines" / name
        assert path.stat().st_mode & 0o777 == 0o600
        assert handoff["device_mask"] == ["cpu"]
        assert complete(handoff)
    assert hive.ask("/ready") == (200, {"ready": True, "waiting": {}})
    assert hive.ask("/health")[1]["status"] == "ok"


def test_sigterm_ends_everything_within_five_seconds(place, hive) -> None:
    hive.until_ready()
    assert place.workers()
    assert hive.stop(within_s=5) == 0
    assert place.workers() == []
    assert place.handoffs() == {}
    assert place.spawns() == []


def test_sigterm_while_everything_is_still_loading_leaves_nothing(place, pool_toml) -> None:
    place.configure(pool_toml(model="fake:demo?load_delay_ms=60000", replicas=3))
    hive = place.start()
    place.until(lambda: len(place.workers()) == 3)
    assert hive.stop(within_s=5) == 0
    assert place.workers() == []
    assert place.spawns() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_dies_is_replaced_and_the_reason_is_told(place, pool_toml, number: int) -> None:
    place.configure(pool_toml(replicas=2), probe_interval_s=2.0)
    hive = place.start()
    pool = hive.until_ready()
    victim = pool["replicas"][0]
    os.kill(victim["pid"], number)
    again = hive.until(
        lambda now: next(
            (one for one in now["replicas"] if one["restart_count"] == 1 and one["state"] == "ready"), None
        )
    )
    assert again["replica_id"] == victim["replica_id"]
    assert again["pid"] != victim["pid"]
    assert again["instance"] != victim["instance"]
    why = hive.ask("/v2/pools/pool-0/why")[1]
    expected = "normal_exit" if number == signal.SIGTERM else "signal"
    assert why["verdicts"][-1]["verdict"]["reason"] == expected
    assert len(place.workers()) == 2


def test_a_hung_worker_is_found_and_replaced(place, hive) -> None:
    victim = hive.until_ready()["replicas"][0]
    os.kill(victim["pid"], signal.SIGSTOP)
    hive.until(
        lambda pool: any(one["restart_count"] == 1 and one["state"] == "ready" for one in pool["replicas"])
    )
    assert hive.ask("/v2/pools/pool-0/why")[1]["verdicts"][-1]["verdict"]["reason"] == "health"
    assert victim["pid"] not in place.workers()


def test_a_successor_adopts_what_a_killed_hive_left(place, hive) -> None:
    before = hive.until_ready()
    hive.kill()
    assert len(place.workers()) == 2
    after = place.start().until_ready()
    assert {(one["replica_id"], one["pid"], one["instance"]) for one in after["replicas"]} == {
        (one["replica_id"], one["pid"], one["instance"]) for one in before["replicas"]
    }
    assert sorted(place.workers()) == sorted(one["pid"] for one in before["replicas"])


def test_an_adopted_worker_is_watched_and_ended_as_any_other(place, hive) -> None:
    victim = hive.until_ready()["replicas"][0]
    hive.kill()
    second = place.start()
    second.until_ready()
    os.kill(victim["pid"], signal.SIGKILL)
    second.until(
        lambda pool: any(one["restart_count"] == 1 and one["state"] == "ready" for one in pool["replicas"])
    )
    assert second.stop(within_s=5) == 0
    assert place.workers() == []


def test_a_successor_reaps_ours_that_does_not_answer(place, hive) -> None:
    victim = hive.until_ready()["replicas"][0]
    hive.kill()
    os.kill(victim["pid"], signal.SIGSTOP)
    place.start().until_ready()
    assert victim["pid"] not in place.workers()
    assert len(place.workers()) == 2


def test_a_second_hive_on_the_same_folder_is_refused(place, hive) -> None:
    second = place.start(wait=False)
    assert second.process.wait(20) == 1
    assert f"pid {hive.process.pid}" in second.log_tail(1)
    assert hive.until_ready()


def test_a_successor_with_another_configuration_ends_what_was_started_from_the_old_one(
    place, pool_toml
) -> None:
    place.configure(pool_toml(slots=4) + pool_toml("gone"))
    hive = place.start()
    before = hive.until_ready()["replicas"][0]
    hive.until_ready(pool_id="gone")
    hive.kill()
    place.configure(pool_toml(slots=2))
    after = place.start().until_ready()
    assert after["slots_total"] == 2
    assert before["pid"] not in place.workers()
    assert place.workers() == [after["replicas"][0]["pid"]]
    assert list(place.handoffs()) == ["pool-0-" + after["replicas"][0]["replica_id"] + ".json"]


def test_requests_between_two_probes_keep_a_pool_from_being_thought_idle(place, pool_toml) -> None:
    place.configure(pool_toml(ttl_s=2.0), probe_interval_s=0.3)
    hive = place.start()
    hive.until_ready()
    (handoff,) = place.handoffs().values()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert complete(handoff)
        assert hive.pool()["state"] == "ready"
    hive.until_state("idle")
