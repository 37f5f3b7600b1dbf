"""Metrics, logs, events."""

import json
from collections.abc import Callable
from typing import Any

from pytest_bdd import parsers, then

from skep.testkit.world import World

LOG_FIELDS = {
    "pool_id",
    "engine",
    "engine_version",
    "device_mask",
    "model",
    "node_id",
    "instance",
    "level",
    "at",
}
VERDICT_FIELDS = LOG_FIELDS | {"replica_id", "restart_count", "backoff_s", "last_error"}


@then(
    parsers.re(r'the metric "(?P<name>[^"]+)" of pool "(?P<pool_id>[^"]+)" should become (?P<value>[\d.]+)'),
    converters={"value": float},
)
def metric_of_pool(world: World, name: str, pool_id: str, value: float) -> None:
    """Wait for a value of a pool's series."""
    assert _until_metric(world, name, {"pool_id": pool_id}, lambda found: found == value) == value


@then(parsers.parse('the metric "{name}" of pool "{pool_id}" with {label} "{text}" should become {value:g}'))
def metric_with_label(world: World, name: str, pool_id: str, label: str, text: str, value: float) -> None:
    """Wait for a value of one of a pool's series."""
    labels = {"pool_id": pool_id, label: text}
    assert _until_metric(world, name, labels, lambda found: found == value) == value


@then(parsers.parse('the metric "{name}" should be above {value:g}'))
def metric_above(world: World, name: str, value: float) -> None:
    """Wait until a series' sum is above a value: devices are looked at now and then."""
    assert _until_metric(world, name, {}, lambda found: found > value) > value


@then(parsers.parse('the metric "{name}" of device "{device_id}" should become {value:g}'))
def metric_of_device(world: World, name: str, device_id: str, value: float) -> None:
    """Wait for a value of a device's series."""
    assert _until_metric(world, name, {"device_id": device_id}, lambda found: found == value) == value


@then("every metric of ours should name its node")
def metrics_name_node(world: World) -> None:
    """Hold that each skep series has a node_id."""
    lines = [line for line in world.ask("/metrics").text.splitlines() if line.startswith("skep_")]
    assert lines
    bare = [line for line in lines if 'node_id="' not in line]
    assert not bare, bare[:5]


@then(parsers.parse('the log should have an event of pool "{pool_id}" with every field'))
def log_event(world: World, pool_id: str) -> None:
    """Hold that the hive's log is JSON lines, and that a pool's events carry their fields."""
    found = _logged(world, pool_id)
    assert found, "no event of the pool is in the log"
    assert found[-1].keys() >= LOG_FIELDS, LOG_FIELDS - found[-1].keys()


@then(parsers.parse('the log should tell the verdict on pool "{pool_id}" with every field'))
def log_verdict(world: World, pool_id: str) -> None:
    """Hold that what was decided about a replica that was gone tells whose it was, how often, how long and why."""
    found = [each for each in _logged(world, pool_id) if each["kind"] == "verdict"]
    assert found, "no verdict is in the log"
    for each in found:
        assert each.keys() >= VERDICT_FIELDS, VERDICT_FIELDS - each.keys()
    last = found[-1]
    assert last["restart_count"] == len(found) - 1, last  # How often it had been started again before.
    assert last["backoff_s"] > 0, last
    assert last["last_error"]["code"], last


@then(parsers.parse('the log should tell pool "{pool_id}" as "{state}" at last'))
def log_tells_state(world: World, pool_id: str, state: str) -> None:
    """Wait until the log's last word of a pool is this state: a pool that is forgotten cannot be asked any more."""
    found = world.lab.until(
        lambda: [
            each["state"]
            for each in _logged(world, pool_id)
            if each["kind"] == "pool" and "transition" in each
        ],
        what=f"the log tells a state of {pool_id}",
    )
    assert found[-1] == state, found


@then(parsers.parse('the log should tell the replicas of pool "{pool_id}" as "{states}" at last'))
def log_tells_replicas(world: World, pool_id: str, states: str) -> None:
    """Hold the last states of each replica, with none between them: a replica that is gone cannot be asked any more."""
    wanted = states.split(", ")
    found: dict[str, list[str]] = {}
    for each in _logged(world, pool_id):
        if each["kind"] == "replica" and "transition" in each:
            found.setdefault(each["replica_id"], []).append(each["state"])
    assert found, f"the log tells of no replica of {pool_id}"
    assert all(seen[-len(wanted) :] == wanted for seen in found.values()), found


@then(parsers.parse('the events of pool "{pool_id}" should have ids that grow by one'))
def events_grow(world: World, pool_id: str) -> None:
    """Hold that an event stream can be resumed: no id is missing."""
    world.marks[pool_id] = 0
    ids = [each["id"] for each in world.events(pool_id)]
    assert ids
    assert ids == list(range(ids[0], ids[0] + len(ids))), ids


def _until_metric(world: World, name: str, labels: dict[str, str], holds: Callable[[float], bool]) -> float:
    """Wait for a value of a series and return it as it was seen: some values last for a moment only."""
    seen = [world.metric(name, **labels)]

    def is_there() -> bool:
        seen.append(world.metric(name, **labels))
        return holds(seen[-1])

    world.lab.until(is_there, what=f"{name} {labels} became what it should, from {seen[0]:g}")
    return seen[-1]


def _logged(world: World, pool_id: str) -> list[dict[str, Any]]:
    """A pool's events in the hive's log, in order."""
    lines = world.running_hive().log.read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return [each for each in events if each.get("event") == "pool_event" and each.get("pool_id") == pool_id]
