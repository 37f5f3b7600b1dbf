"""What a pool can be asked: drain, reload, reset, unload, declare, forget. Real workers on the fake backend."""

import json
import threading
import urllib.request

import pytest


def slow_job(handoff: dict, results: list) -> threading.Thread:
    """Start a completion of about ten seconds on a worker, and keep how it ended."""

    def run() -> None:
        body = {"model": handoff["model"]["name"], "prompt": "Hello", "max_tokens": 200, "ignore_eos": True}
        request = urllib.request.Request(
            f"{handoff['url']}/v1/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {handoff['token']}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                results.append(reply.status)
        except OSError as error:
            results.append(getattr(error, "code", type(error).__name__))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_drain_lets_jobs_end_and_then_nothing_is_left(place, pool_toml) -> None:
    place.configure(pool_toml(model="fake:demo?token_delay_ms=10"))
    hive = place.start()
    hive.until_ready()
    results: list = []
    job = slow_job(next(iter(place.handoffs().values())), results)
    hive.until(lambda pool: pool["slots_free"] < pool["slots_total"])
    status, accepted = hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 30_000})
    assert (status, accepted["state"], accepted["watch"]) == (202, "draining", "/v2/pools/pool-0/events")
    assert place.until(lambda: place.handoffs() == {}), "a draining replica is no longer handed off"
    pool = hive.until_state("offline")
    job.join()
    assert results == [200]
    assert pool["last_drain"]["force_stopped"] is False
    assert place.workers() == []
    assert place.spawns() == []


def test_a_drain_deadline_cancels_what_still_runs_and_says_so(place, pool_toml) -> None:
    place.configure(pool_toml(model="fake:demo?token_delay_ms=200"))
    hive = place.start()
    hive.until_ready()
    results: list = []
    job = slow_job(next(iter(place.handoffs().values())), results)
    hive.until(lambda pool: pool["slots_free"] < pool["slots_total"])
    hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 300})
    pool = hive.until_state("offline")
    job.join()
    assert results != [200]
    assert pool["last_drain"]["force_stopped"] is True
    assert pool["last_drain"]["jobs_cancelled"] == 1


@pytest.mark.parametrize("is_done_in_time", [True, False])
def test_a_drain_goes_on_with_its_jobs_when_the_hive_is_killed(
    place, pool_toml, is_done_in_time: bool
) -> None:
    place.configure(pool_toml(model=f"fake:demo?token_delay_ms={20 if is_done_in_time else 200}"))
    hive = place.start()
    hive.until_ready()
    (handoff,) = place.handoffs().values()
    results: list = []
    job = slow_job(handoff, results)
    hive.until(lambda pool: pool["slots_free"] < pool["slots_total"])
    hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 60_000 if is_done_in_time else 2000})
    hive.until_state("draining")
    place.until(lambda: not place.handoffs())
    hive.kill()
    successor = place.start()
    assert successor.pool()["state"] == "draining"
    assert len(place.workers()) == 1, "its jobs keep the time that they were given"
    drained = successor.until_state("offline")["last_drain"]
    job.join(20)
    assert (results == [200]) is is_done_in_time, "the worker itself keeps the deadline, whoever watches it"
    if is_done_in_time:
        assert drained["force_stopped"] is False
    assert place.workers() == []
    assert place.spawns() == []
    successor.ask("/v2/pools/pool-0/preload", method="POST")
    successor.until_ready()


def test_a_drained_pool_stays_offline_over_a_restart_until_it_is_preloaded(place, pool_toml) -> None:
    place.configure(pool_toml())
    hive = place.start()
    hive.until_ready()
    hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 0})
    hive.until_state("offline")
    hive.stop()
    again = place.start()
    assert again.pool()["state"] == "declared"
    assert again.ask("/ready")[1] == {"ready": True, "waiting": {}}
    assert again.ask("/v2/pools/pool-0/preload", method="POST")[0] == 202
    again.until_ready()


def test_a_drain_during_a_preload_ends_it(place, pool_toml) -> None:
    place.configure(pool_toml(model="fake:demo?load_delay_ms=60000"))
    hive = place.start()
    hive.until(lambda pool: pool["replicas"] and pool["replicas"][0]["state"] == "starting")
    hive.ask("/v2/pools/pool-0/drain", {})
    hive.until_state("offline")
    assert place.workers() == []


def test_a_reload_beside_the_old_one_leaves_no_gap(place, pool_toml) -> None:
    place.configure(pool_toml(model="fake:one"))
    hive = place.start()
    before = hive.until_ready()
    status, _ = hive.ask("/v2/pools/pool-0/reload", {"model": "fake:two?load_delay_ms=300"})
    assert status == 202
    seen = []

    def reloaded(pool):
        seen.append(pool["ready"])
        return (
            pool
            if (pool["last_reload"] or {}).get("outcome") == "reloaded" and pool["state"] == "ready"
            else None
        )

    after = hive.until(reloaded)
    assert all(seen), "it always served"
    assert after["model"] == "two"
    assert {one["pid"] for one in after["replicas"]}.isdisjoint(one["pid"] for one in before["replicas"])
    assert [one["model"]["name"] for one in place.handoffs().values()] == ["two"]
    assert len(place.workers()) == 1


def test_a_reload_that_fails_leaves_the_old_one_running_and_says_why(place, pool_toml) -> None:
    place.configure(pool_toml(model="fake:one"))
    hive = place.start()
    before = hive.until_ready()
    hive.ask("/v2/pools/pool-0/reload", {"model": "fake:two?fail_load=gguf_truncated"})
    after = hive.until(lambda pool: pool if pool["last_reload"] and pool["state"] == "ready" else None)
    assert after["last_reload"]["outcome"] == "rolled_back"
    assert after["last_reload"]["error"]["code"] == "gguf_truncated"
    assert [one["pid"] for one in after["replicas"]] == [one["pid"] for one in before["replicas"]]
    assert len(place.workers()) == 1


FAKE_DEVICE = """
[[fake_device]]
index = 0
memory_total_bytes = 2000000000
"""


def fake_of(size_bytes: int, name: str = "demo", **script) -> str:
    more = "".join(f"&{key}={value}" for key, value in script.items())
    return f"fake:{name}?memory_bytes={size_bytes}{more}"


def test_without_room_for_both_the_old_one_stops_first_and_comes_back_on_failure(place, pool_toml) -> None:
    place.configure(FAKE_DEVICE + pool_toml(model=fake_of(1_200_000_000, "one"), devices="0"))
    hive = place.start()
    before = hive.until_ready()
    hive.ask("/v2/pools/pool-0/reload", {"model": fake_of(1_300_000_000, "two")})
    after = hive.until(lambda pool: pool if pool["last_reload"] and pool["state"] == "ready" else None)
    assert (after["last_reload"]["outcome"], after["model"]) == ("reloaded", "two")
    assert before["replicas"][0]["pid"] not in place.workers()
    hive.ask(
        "/v2/pools/pool-0/reload", {"model": fake_of(1_200_000_000, "three", fail_load="gguf_malformed")}
    )
    back = hive.until(
        lambda pool: (
            pool if pool["last_reload"]["outcome"] == "rolled_back" and pool["state"] == "ready" else None
        )
    )
    assert back["model"] == "two"
    assert back["replicas"][0]["pid"] != after["replicas"][0]["pid"], (
        "it had been stopped, and was started again"
    )
    assert len(place.workers()) == 1


def test_two_pools_share_a_device_only_within_its_memory(place, pool_toml) -> None:
    one = pool_toml("one", fake_of(800_000_000, "one"), devices="0")
    two = pool_toml("two", fake_of(800_000_000, "two"), devices="0")
    three = pool_toml("three", fake_of(800_000_000, "three"), devices="0")
    place.configure(FAKE_DEVICE + one + two + three)
    hive = place.start()

    def states() -> list[str]:
        return sorted(pool["state"] for pool in hive.ask("/v2/pools")[1]["pools"])

    place.until(lambda: states() == ["ready", "ready", "unready"], within_s=40)
    refused = next(pool for pool in hive.ask("/v2/pools")[1]["pools"] if pool["state"] == "unready")
    assert refused["last_error"]["code"] == "insufficient_memory"
    assert "weights 762.9 MiB" in refused["last_error"]["message"]
    assert len(place.workers()) == 2, "nothing was spawned for it"
    served = next(pool for pool in hive.ask("/v2/pools")[1]["pools"] if pool["state"] == "ready")
    hive.ask(f"/v2/pools/{served['pool_id']}/drain", {"deadline_ms": 0})
    hive.until_state("ready", pool_id=refused["pool_id"])


def test_an_idle_pool_is_unloaded_and_loads_again_on_demand(place, pool_toml) -> None:
    place.configure(pool_toml(ttl_s=0.5))
    hive = place.start()
    hive.until_ready()
    hive.until_state("idle")
    assert place.workers() == []
    assert hive.ask("/ready")[0] == 200
    hive.ask("/v2/pools/pool-0/preload", method="POST")
    hive.until_state("ready")


def test_pools_are_declared_changed_and_forgotten_through_the_api(place) -> None:
    place.configure()
    hive = place.start()
    spec = {"id": "late", "model": "fake:late", "backend": "fake", "devices": "cpu"}
    assert hive.ask("/v2/pools", {"pool": spec, "generation": 3})[0] == 202
    first = hive.until_ready(pool_id="late")
    assert hive.ask("/v2/pools", {"pool": spec, "generation": 3})[0] == 202
    assert hive.pool("late")["replicas"][0]["pid"] == first["replicas"][0]["pid"], (
        "the same again changes nothing"
    )
    status, error = hive.ask("/v2/pools", {"pool": spec, "generation": 2})
    assert (status, error["error"]["code"]) == (409, "stale_generation")
    hive.kill()
    again = place.start()
    assert again.until_ready(pool_id="late")["generation"] == 3
    assert again.ask("/v2/pools/late?deadline_ms=0", method="DELETE")[0] == 202
    place.until(lambda: again.ask("/v2/pools/late")[0] == 404)
    assert place.workers() == []
    again.stop()
    assert place.start().ask("/v2/pools")[1] == {"pools": []}


@pytest.mark.parametrize(
    ("fields", "status", "code", "says"),
    [
        ({"devices": "0"}, 400, "invalid_device_mask", "cpu alone"),
        ({"devices": "cpu,cpu"}, 400, "invalid_device_mask", "twice"),
        ({"devices": " "}, 400, "invalid_device_mask", "empty"),
        ({"split": [0.5, 0.5]}, 400, "invalid_request", "2 shares"),
        ({"engine": "none"}, 400, "unknown_engine", "there is skep"),
        ({"model": "/etc/passwd"}, 403, "forbidden_reference", "model_folders"),
        ({"model": "https://x.test/y"}, 400, "invalid_request", "sha256"),
        ({"slots": 0}, 400, "invalid_request", "slots"),
        ({"colour": 1}, 400, "invalid_request", "colour"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_at_once(place, fields, status, code, says) -> None:
    place.configure()
    hive = place.start()
    spec = {"id": "p", "model": "fake:x", "backend": "fake", "devices": "cpu"} | fields
    answered, body = hive.ask("/v2/pools", {"pool": spec})
    assert (answered, body["error"]["code"]) == (status, code)
    assert says in body["error"]["message"]
    assert hive.ask("/v2/pools")[1] == {"pools": []}


def test_a_model_that_cannot_load_leaves_the_pool_unready_with_its_cause(place, pool_toml) -> None:
    place.configure(pool_toml(model="fake:x?fail_load=tensor_missing"))
    hive = place.start()
    pool = hive.until_state("unready")
    assert pool["last_error"]["code"] == "tensor_missing"
    status, ready = hive.ask("/ready")
    assert status == 503
    assert ready["waiting"]["pool-0"].startswith("unready: ")
    assert hive.until(lambda pool: pool["replicas"] and pool["replicas"][0]["restart_count"] >= 1)
    hive.ask("/v2/pools/pool-0/reset", method="POST")
    hive.ask("/v2/pools/pool-0/drain", {})
    hive.until_state("offline")
