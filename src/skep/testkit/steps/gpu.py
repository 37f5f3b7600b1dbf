"""Devices, masks, splits, memory."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd import given, parsers, then, when

from skep.testkit.fleet.lab import DEVICE_BYTES, Lab
from skep.testkit.world import World

MIB = 1 << 20
REFUSED = 2
"""Verdicts on a replica whose device is gone: when it was lost, and when it could not be started again."""


@given(parsers.parse("GPU {index:d} is available"))
def gpu_available(world: World, index: int) -> None:
    """Hold that the hive knows this accelerator, with memory to spare."""
    found = _device(world, index)
    assert found["memory_free_bytes"] > 0, found


@given(parsers.parse("GPU {index:d} has {mebibytes:d} MiB"))
def gpu_memory(world: World, index: int, mebibytes: int) -> None:
    """Declare a fake accelerator's memory, before the hive starts."""
    world.fake_devices().add_device(index, mebibytes * MIB)


@given(parsers.parse("GPU {index:d} is at {degrees:g} °C"))
def gpu_heat(world: World, index: int, degrees: float) -> None:
    """Declare a fake accelerator's temperature, before the hive starts."""
    world.fake_devices().add_device(index, DEVICE_BYTES, temperature_c=degrees)


@given(parsers.parse("GPU {index:d} can vanish"))
def gpu_can_vanish(world: World, index: int) -> None:
    """Declare a fake accelerator that is there while a file of this scenario is, before the hive starts."""
    lab = world.fake_devices()
    there = _presence(lab, index)
    there.touch()
    lab.add_device(index, DEVICE_BYTES, while_exists=str(there))


@when(parsers.parse("GPU {index:d} vanishes"))
def gpu_vanishes(world: World, index: int) -> None:
    """Take the accelerator away, as a driver does that lost it."""
    for pool_id in world.marks:
        world.mark(pool_id)
    _presence(world.own(), index).unlink()


@when(parsers.parse("GPU {index:d} comes back"))
def gpu_comes_back(world: World, index: int) -> None:
    """Let the accelerator be there again, and wait until the hive has seen it."""
    _presence(world.own(), index).touch()
    world.own().until(
        lambda: any(each["id"] == f"FAKE-{index}" for each in world.ask("/v2/devices").body["devices"]),
        what=f"the hive sees GPU {index} again",
    )


@when("I ask for the devices")
def ask_devices(world: World) -> None:
    """Look at the devices, and remember them."""
    world.seen["devices"] = world.ask("/v2/devices").body["devices"]


@when(
    parsers.re(
        r'I declare pool "(?P<pool_id>[^"]+)" with model "(?P<model>[^"]+)" on devices "(?P<mask>[^"]*)"'
    )
)
def declare_on(world: World, pool_id: str, model: str, mask: str) -> None:
    """Declare a pool on a mask; whether it is accepted is for the next step."""
    world.declare(pool_id, model, devices=mask)


@when(parsers.parse('I declare pool "{pool_id}" with model "{model}" on devices "{mask}" split "{split}"'))
def declare_split(world: World, pool_id: str, model: str, mask: str, split: str) -> None:
    """Declare a pool with explicit shares."""
    world.declare(pool_id, model, devices=mask, split=[float(each) for each in split.split(",")])


@then(parsers.parse('the devices should be "{ids}"'))
def devices_are(world: World, ids: str) -> None:
    """Hold the stable ids, in order."""
    assert ",".join(each["id"] for each in world.seen["devices"]) == ids


@then("each device should tell its memory")
def devices_memory(world: World) -> None:
    """Hold that total is used and free together, of every device."""
    for each in world.seen["devices"]:
        total = each["memory_used_bytes"] + each["memory_free_bytes"]
        assert each["memory_total_bytes"] == total > 0, each


@then(parsers.parse('pool "{pool_id}" should run on "{ids}" only'))
def runs_on(world: World, pool_id: str, ids: str) -> None:
    """Hold the mask in the status, in the handoff, and in what the worker itself says."""
    pool = world.until_ready(pool_id)
    wanted = ids.split(",")
    assert pool["device_mask"] == wanted, pool["device_mask"]
    handoff = world.lab.handoffs()[f"{pool_id}-r0.json"]
    assert handoff["device_mask"] == wanted, handoff
    from skep.testkit.fleet.ask import ask

    health = ask(handoff["url"], "/health").body
    mask = health["device_mask"]
    told = mask if isinstance(mask, list) else str(mask).split(",")
    assert told == wanted, health


@then(parsers.parse("GPU {index:d} should have {more} memory in use"))
def memory_in_use(world: World, index: int, more: str) -> None:
    """Wait until a device holds some memory of ours, or none. `more` is "some" or "no"."""
    found = world.lab.until(
        lambda: (
            each if bool((each := _device(world, index))["memory_used_bytes"]) == (more == "some") else None
        ),
        what=f"GPU {index} has {more} memory in use",
    )
    assert bool(found["memory_used_bytes"]) == (more == "some")


@then(parsers.parse('the fit of pool "{pool_id}" should name "{terms}"'))
def fit_names(world: World, pool_id: str, terms: str) -> None:
    """Wait for the fit's verdict, in the status or in the cause of a refusal; hold that it names each term."""

    def told(pool: dict[str, Any]) -> str:
        return str(pool["fit"] or (pool["last_error"] or {}).get("message", ""))

    found = told(world.until_pool(pool_id, told, what="tells its fit"))
    missing = [each for each in terms.split(", ") if each not in found]
    assert not missing, found


@then(parsers.parse('pool "{pool_id}" should stay out, though it is tried again'))
def stays_out(world: World, pool_id: str) -> None:
    """Wait until its replicas were lost to the device and then could not start again; hold that nothing came up meanwhile."""
    replicas = {each["replica_id"] for each in world.pool(pool_id)["replicas"]}
    assert replicas, f"nobody tries to bring a replica of {pool_id} back"

    def refused() -> bool:
        told = Counter(
            each["facts"]["replica_id"]
            for each in world.events(pool_id, kind="verdict")
            if each["facts"]["reason"] == "device_error"
        )
        return all(told[replica_id] >= REFUSED for replica_id in replicas)

    world.lab.until(refused, what=f"{pool_id} was tried again without its device")
    came_up = [
        each["facts"]
        for each in world.events(pool_id)
        if each["facts"].get("event") in {"spawned", "proved"} or each["facts"].get("state") == "ready"
    ]
    assert not came_up, came_up
    found = world.pool(pool_id)
    assert (found["state"], found["ready"]) == ("unready", False), found["state"]
    assert world.lab.worker_pids() == [], "a process of it runs"


def _device(world: World, index: int) -> dict[str, Any]:
    devices = world.ask("/v2/devices").body["devices"]
    found = [each for each in devices if each["kind"] != "cpu" and each["index"] == index]
    if not found and world.lab.has_real_devices:
        pytest.skip(f"needs accelerator {index}, and this machine has {[each['id'] for each in devices]}")
    assert found, f"no accelerator {index} among {[each['id'] for each in devices]}"
    first: dict[str, Any] = found[0]
    return first


def _presence(lab: Lab, index: int) -> Path:
    return lab.folder / f"gpu-{index}"
