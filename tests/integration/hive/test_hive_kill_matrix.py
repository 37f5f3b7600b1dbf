"""SIGKILL of the hive at every step that the code names, then a successor: no orphan, no double, nothing foreign touched.

The steps come from `skep.hive.steps`. A short seeded sample runs by default; `make soak` runs a thousand.
"""

import json
import os
import random
import subprocess
import sys
from contextlib import suppress

import pytest

from skep.hive.steps import KILL_VARIABLE, Step

SEED = int(os.environ.get("SKEP_SEED", "20260101"))
RUNS = int(os.environ.get("SKEP_KILL_RUNS", "1000"))
ADOPTING = [Step.PROVED, Step.HANDOFF_WRITTEN, Step.SERVING]
VERBS = {
    "adopt": ADOPTING,
    "preload": [step for step in Step if step.value.split(".")[0] in ("declare", "preload", "start")],
    "drain": [step for step in Step if step.value.split(".")[0] in ("drain", "stop")],
    "reload": [
        step
        for step in Step
        if step.value.split(".")[0] in ("reload", "start", "stop") or step in (Step.DRAIN_ASKED, Step.DRAINED)
    ],
}
MATRIX = [(verb, step) for verb, steps in VERBS.items() for step in steps]


@pytest.fixture
def foreign(tmp_path):
    """A process that is not ours, and handoff files that name it, or nothing that can be read."""
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, "SKEP_WORKER_NONCE": "somebody-else"},
        start_new_session=True,
    ) as process:
        yield process
        assert process.poll() is None, "a process that is not ours was touched"
        process.kill()


def leave_foreign_files(place, pid: int) -> dict[str, bytes]:
    folder = place.runtime / "engines"
    folder.mkdir(parents=True, exist_ok=True)
    stranger = {
        "version": 1, "pool_id": "theirs", "replica_id": "r0", "engine": "skep", "engine_version": "", "url": "http://127.0.0.1:1",
        "pid": pid, "pid_started_at": 1, "nonce": "not-theirs", "device_mask": ["cpu"], "slots_total": 1, "node_id": "node-x",
        "model": {"name": "m", "ref": "m", "path": "m"}, "written_at": 0,
    }  # fmt: skip
    files = {
        "theirs-r0.json": json.dumps(stranger).encode(),
        "half.json": b'{"version": 1, "pool_',
        "note.txt": b"keep me",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return files


def ours(place) -> list[str]:
    return sorted(name for name in place.handoffs_of("node-t"))


def run(place, pool_toml, foreign, verb: str, step: Step) -> None:
    """One cell of the matrix."""
    replicas = 2
    place.configure(pool_toml(model="fake:one", replicas=replicas))
    files = leave_foreign_files(place, foreign.pid)
    # A hive that takes over passes these steps once for each replica that it adopts, before it is asked for anything.
    again = replicas + 1 if verb == "reload" and step in ADOPTING else 1
    armed = {KILL_VARIABLE: f"{step.value}:{again}"}
    if verb == "adopt":
        first = place.start()
        first.until_ready()
        first.kill()
    if verb in ("preload", "adopt"):
        victim = place.start(wait=False, **armed)
    else:
        first = place.start()
        first.until_ready()
        first.kill()
        victim = place.start(**armed)
        victim.until_ready()
        body = {"deadline_ms": 500} if verb == "drain" else {"deadline_ms": 500, "model": "fake:two"}
        with suppress(OSError):  # It may die while it answers.
            victim.ask(f"/v2/pools/pool-0/{verb}", body)
    assert victim.process.wait(40) == -9, f"{step} was not reached:\n{victim.log_tail()}"
    successor = place.start()
    wanted_offline = verb == "drain" and successor.pool()["state"] in (
        "declared",
        "offline",
    )
    if wanted_offline:
        place.until(lambda: place.workers() == [])
        assert ours(place) == []
        assert place.spawns() == []
    else:
        pool = successor.until_ready(replicas=replicas)
        serving = sorted(one["pid"] for one in pool["replicas"])
        place.until(lambda: sorted(place.workers()) == serving)
        assert len(ours(place)) == replicas
        assert len(place.spawns()) == replicas
        assert pool["model"] in ("one", "two")
    for name, data in files.items():
        assert (place.runtime / "engines" / name).read_bytes() == data
    successor.stop()
    assert place.workers() == []
    assert place.spawns() == []


def sample(count: int) -> list[tuple[str, Step]]:
    return random.Random(SEED).sample(MATRIX, count)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("verb", "step"), sample(6), ids=str)
def test_a_successor_finds_everything_that_a_killed_hive_left(place, pool_toml, foreign, verb, step) -> None:
    run(place, pool_toml, foreign, verb, step)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", range(RUNS))
def test_the_kill_matrix_a_thousand_times(place, pool_toml, foreign, number: int) -> None:
    verb, step = (MATRIX * (RUNS // len(MATRIX) + 1))[number]
    run(place, pool_toml, foreign, verb, step)


def test_every_step_that_the_code_names_is_in_the_matrix() -> None:
    assert {step for _, step in MATRIX} == set(Step)
