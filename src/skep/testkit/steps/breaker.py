"""The circuit breaker of a pool's replicas: opened by failures in a row, tried once, closed by what holds."""

import os
import signal
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from typing import Any

from pytest_bdd import given, parsers, then, when

from skep.testkit.world import World

TRIAL_S = 0.5
NEVER = 1000
"""Failures or restarts: more than any scenario sees."""
AT_S = 0.05
"""How far the times of two events may be off: a worker is told as proved a moment after it is."""


@given(
    parsers.parse(
        "failed workers are tried again after {first_s:g} s, and {failures:d} failures in a row stop them for {open_s:g} s"
    )
)
def quick_limits(world: World, first_s: float, failures: int, open_s: float) -> None:
    """Set the hive's `[restarts]`, so that a test can wait for what takes minutes otherwise. Storms are left out."""
    world.own().restarts = _quick(
        first_s, failures=failures, open_s=open_s, trial_s=TRIAL_S, storm_restarts=NEVER
    )


@given(
    parsers.parse(
        "failed workers are tried again after {first_s:g} s, and more than {restarts:d} restarts within {window_s:g} s are a storm"
    )
)
def quick_storm(world: World, first_s: float, restarts: int, window_s: float) -> None:
    """Set the hive's `[restarts]`, so that a storm comes soon, on a busy machine too. The breaker of one replica is left out."""
    world.own().restarts = _quick(first_s, failures=NEVER, storm_restarts=restarts, storm_s=window_s)


def _quick(first_s: float, **limits: float) -> dict[str, float]:
    """Return a `[restarts]` table whose waits are `first_s` and twice that."""
    return {"first_s": first_s, "longest_s": first_s * 2, **limits}


@when(parsers.parse('each worker of pool "{pool_id}" is killed as often as it comes back, {times:d} times'))
def killed_again_and_again(world: World, pool_id: str, times: int) -> None:
    """SIGKILL every worker whenever it is ready, until each of the pool's replicas has been lost so often."""
    world.engines = {each["replica_id"]: each for each in world.until_ready(pool_id)["replicas"]}
    world.mark(pool_id)
    dead: set[int] = set()
    lost: Counter[str] = Counter()

    def all_were_lost() -> bool:
        for each in world.pool(pool_id)["replicas"]:
            if each["state"] == "ready" and each["pid"] not in dead and lost[each["replica_id"]] < times:
                dead.add(each["pid"])
                lost[each["replica_id"]] += 1
                with suppress(ProcessLookupError):
                    os.kill(each["pid"], signal.SIGKILL)
        return all(lost[replica_id] >= times for replica_id in world.engines)

    world.lab.until(all_were_lost, what=f"each worker of {pool_id} was killed {times} times", within_s=60)


@then(
    parsers.parse(
        'the breaker of pool "{pool_id}" should have opened with failure {number:d} of each replica'
    )
)
def opened_with(world: World, pool_id: str, number: int) -> None:
    """Wait for so many verdicts on each replica; hold that all but the last let it be tried again, and none is a storm."""
    replicas = _killed(world)

    def told() -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {replica_id: [] for replica_id in replicas}
        for each in world.ask(f"/v2/pools/{pool_id}/why").body["verdicts"]:
            found.setdefault(each["replica_id"], []).append(each["verdict"])
        return found if all(len(found[replica_id]) >= number for replica_id in replicas) else {}

    found = world.lab.until(told, what=f"each replica of {pool_id} failed {number} times")
    for replica_id, verdicts in found.items():
        states = [each["breaker"] for each in verdicts[:number]]
        assert states == ["closed"] * (number - 1) + ["open"], f"{replica_id}: {states}"
        assert not any(each["is_storm"] for each in verdicts), f"{replica_id}: {verdicts}"


@then(parsers.parse('the replicas of pool "{pool_id}" should have been tried once each, one at a time'))
def one_trial_at_a_time(world: World, pool_id: str) -> None:
    """Wait until every breaker is closed again; hold that no trial began before the one before it had held for its time."""
    replicas = _killed(world)

    def all_closed(pool: dict[str, Any]) -> bool:
        now = {each["replica_id"]: (each["state"], each["breaker"]) for each in pool["replicas"]}
        return all(now.get(replica_id) == ("ready", "closed") for replica_id in replicas)

    world.until_pool(pool_id, all_closed, what="has closed its breakers")
    events = world.events(pool_id, kind="replica")
    tried = [each for each in events if each["facts"]["event"] == "trial"]
    in_turn = [each["facts"]["replica_id"] for each in tried]
    assert sorted(in_turn) == replicas, in_turn
    for begun, following in pairwise(tried):
        replica_id = begun["facts"]["replica_id"]
        proved = [
            each["at"]
            for each in events
            if begun["id"] < each["id"] < following["id"]
            and (each["facts"]["replica_id"], each["facts"]["event"]) == (replica_id, "proved")
        ]
        assert proved, f"{replica_id} was still on trial"
        held_s = following["at"] - proved[0]
        assert held_s >= TRIAL_S - AT_S, f"{replica_id} had held for {held_s:.2f} s of {TRIAL_S:g}"


def _killed(world: World) -> list[str]:
    """The replicas whose workers were killed: one that is between two lives counts as well."""
    assert world.engines, "no replica was killed before"
    return sorted(world.engines)
