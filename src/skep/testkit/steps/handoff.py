"""Handoff files, and what a successor does with them."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from pytest_bdd import given, parsers, then, when

from skep.process.identity import is_running, started_at
from skep.testkit.world import World

FIELDS = {
    "version", "pool_id", "replica_id", "engine", "engine_version", "url", "pid", "pid_started_at", "nonce",
    "device_mask", "slots_total", "model", "written_at",
}  # fmt: skip

HALF_A_FILE = '{"version":1,"pool_id":"pool-8"'


@then("the handoff file should exist")
def handoff_exists(world: World) -> None:
    """Wait for the latest pool's handoff; hold its mode, its fields, and that its process is the one it says."""
    pool_id = list(world.marks)[-1]
    assert_handoff(world, pool_id, "r0")


@then(parsers.parse('pool "{pool_id}" should have {count:d} handoff files'))
def handoff_count(world: World, pool_id: str, count: int) -> None:
    """Wait until there are so many, one for each replica."""
    for index in range(count):
        assert_handoff(world, pool_id, f"r{index}")
    found = [name for name in world.lab.handoffs() if name.startswith(f"{pool_id}-")]
    assert len(found) == count, found


@then("no handoff file should exist")
def no_handoff(world: World) -> None:
    """Wait until the folder has none."""
    world.lab.until(lambda: not world.lab.handoffs(), what="no handoff file is left")
    assert world.lab.handoffs() == {}


@given("a foreign handoff file of a process that is not ours")
def foreign_handoff(world: World, request: pytest.FixtureRequest) -> None:
    """Write a file that names a process of somebody else's, with a wrong start time and nonce."""
    foreigner = subprocess.Popen(["sleep", "600"], start_new_session=True)
    request.addfinalizer(foreigner.wait)
    request.addfinalizer(foreigner.kill)
    world.seen["foreigner"] = {"pid": foreigner.pid, "started_at": started_at(foreigner.pid)}
    folder = world.own().runtime / "engines"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pool-9-r0.json"
    path.write_text(
        '{"version":1,"pool_id":"pool-9","replica_id":"r0","engine":"skep","engine_version":"0","url":"http://127.0.0.1:9",'
        f'"pid":{foreigner.pid},"pid_started_at":1,"nonce":"not-ours","device_mask":["cpu"],"slots_total":1,'
        '"model":{"name":"m","ref":"m","path":"m","sha256":""},"written_at":1,"token":"","node_id":"node-0"}'
    )
    path.chmod(0o600)
    world.handoff_files.append(path)


@given("a malformed handoff file")
def malformed_handoff(world: World) -> None:
    """Write half a file under a handoff's name."""
    folder = world.own().runtime / "engines"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pool-8-r0.json"
    path.write_text(HALF_A_FILE)
    world.handoff_files.append(path)


@when("the hive is killed")
def hive_killed(world: World) -> None:
    """SIGKILL the hive; its workers live on."""
    world.seen["before"] = {
        each["pid"]: each for pool in world.marks for each in world.pool(pool)["replicas"]
    }
    world.running_hive().kill()


@when("a new hive starts in its place")
def hive_again(world: World) -> None:
    """Start a successor with the same folders."""
    world.start_hive()


@when("one of the orphans stops answering")
def orphan_hangs(world: World) -> None:
    """Freeze the first worker that the killed hive left."""
    pid = next(iter(world.seen["before"]))
    os.kill(pid, signal.SIGSTOP)
    world.seen["hung"] = pid


@then(parsers.parse('pool "{pool_id}" should have kept its processes'))
def processes_kept(world: World, pool_id: str) -> None:
    """Hold that the successor adopted every worker: same process, same nonce, none beside them."""
    now = {each["pid"]: each["instance"] for each in world.until_ready(pool_id)["replicas"]}
    before = {pid: each["instance"] for pid, each in world.seen["before"].items()}
    assert now == before
    assert sorted(world.lab.worker_pids()) == sorted(before)


@then("the orphan should be gone")
def orphan_gone(world: World) -> None:
    """Wait until the frozen worker was reaped."""
    pid = world.seen["hung"]
    world.lab.until(lambda: pid not in world.lab.worker_pids(), what=f"the hung worker {pid} is gone")
    assert pid not in world.lab.worker_pids()


@then("the foreign process should live")
def foreign_lives(world: World) -> None:
    """Hold that the process which the foreign file names runs on, unstopped, and that the hive serves."""
    assert world.ask("/health").status == 200
    foreigner = world.seen["foreigner"]
    assert is_running(foreigner["pid"], foreigner["started_at"]), f"it is gone: {foreigner}"
    state = Path(f"/proc/{foreigner['pid']}/stat").read_text().rpartition(")")[2].split()[0]
    assert state in {"S", "R"}, f"it is in state {state}"


@then("the malformed file should be counted and left as it was")
def malformed_counted(world: World) -> None:
    """Hold that the hive's metrics tell of the one malformed file, and that nobody touched it."""
    world.lab.until(
        lambda: world.metric("skep_handoff_total", outcome="malformed") == 1,
        what="the malformed file is counted",
    )
    assert world.metric("skep_handoff_total", outcome="malformed") == 1
    assert (world.lab.runtime / "engines" / "pool-8-r0.json").read_text() == HALF_A_FILE


def assert_handoff(world: World, pool_id: str, replica_id: str) -> None:
    """Hold that a replica's handoff is whole, private and true."""
    name = f"{pool_id}-{replica_id}.json"
    found = world.own().until(lambda: world.lab.handoffs().get(name), what=f"the handoff {name} exists")
    path: Path = world.lab.runtime / "engines" / name
    assert path.stat().st_mode & 0o777 == 0o600, oct(path.stat().st_mode)
    assert found.keys() >= FIELDS, FIELDS - found.keys()
    assert is_running(found["pid"], found["pid_started_at"]), f"no such process: {found}"
    world.handoff_files.append(path)
