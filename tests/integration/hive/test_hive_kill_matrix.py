"""SIGKILL of the hive at every step that the code names, then a successor: no orphan, no double, nothing foreign touched.

The steps come from `skep.hive.steps`. They are struck in chains: each successor is the next victim, so that what one
kill leaves wrong is found by the next. A short seeded chain runs by default; `make soak` strikes a thousand times.
"""

import json
import os
import random
import subprocess
import sys
from contextlib import suppress
from typing import NamedTuple

import pytest

from skep.hive.steps import KILL_VARIABLE, OPERATIONS, Step

SEED = int(os.environ.get("SKEP_SEED", "20260101"))
RUNS = int(os.environ.get("SKEP_KILL_RUNS", "1000"))
CHAIN = 25
REPLICAS = 2
DEVICE = "[[fake_device]]\nindex = 0\nmemory_total_bytes = 2000000000\n"
SMALL = ("fake:small-a?memory_bytes=400000000", "fake:small-b?memory_bytes=400000000")
LARGE = "fake:large?memory_bytes=700000000"
"""Two replicas of a small model leave room for two of another; two of the large one leave room for none."""


class Cell(NamedTuple):
    """Where to strike: the `count`-th time that the operation passes the step."""

    operation: str
    step: Step
    count: int = 1


MATRIX = [Cell(operation, step) for operation, steps in OPERATIONS.items() for step in steps]


def is_of_a_replica(step: Step) -> bool:
    return step.value.split(".")[0] in ("start", "stop") or step in (Step.DRAIN_ASKED, Step.DRAINED)


def cells(seed: int, count: int) -> list[Cell]:
    """Draw cells: all of the matrix in a shuffled order, again and again, each for the first or the second replica."""
    rng = random.Random(seed)
    order: list[Cell] = []
    while len(order) < count:
        order += rng.sample(MATRIX, len(MATRIX))
    return [
        one._replace(count=rng.choice((1, REPLICAS)) if is_of_a_replica(one.step) else 1)
        for one in order[:count]
    ]


@pytest.fixture
def foreign(tmp_path):
    """A process that is not ours, and handoff files that name it, or nothing that can be read."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(6000)"],
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


class Chain:
    """One place, one hive after the other; between two kills the pool is ready, as its declaration says."""

    def __init__(self, place, pool_toml, foreign, *, is_configured: bool) -> None:
        self.place = place
        self.arm_file = place.folder / "armed"
        self.is_configured = is_configured
        self.model = SMALL[0]
        spec = {"model": self.model, "devices": "0", "replicas": REPLICAS}
        place.configure(DEVICE + (pool_toml(**spec) if is_configured else ""))
        self.files = leave_foreign_files(place, foreign.pid)
        self.hive = self.start()
        if not is_configured:
            self.declare("pool-0", **spec)
        self.pids = self.whole()

    def start(self, *, wait: bool = True):
        return self.place.start(wait=wait, **{KILL_VARIABLE: f"@{self.arm_file}"})

    def declare(self, pool_id: str, **spec) -> None:
        body = {"pool": {"id": pool_id, "backend": "fake", **spec}, "preload": True}
        with suppress(OSError):  # It may die while it answers.
            status, answer = self.hive.ask("/v2/pools", body)
            assert status == 202, answer

    def ask(self, verb: str, body: object = None) -> None:
        with suppress(OSError):
            status, answer = self.hive.ask(f"/v2/pools/pool-0/{verb}", body, method="POST")
            assert status == 202, answer

    def whole(self) -> list[int]:
        """Wait until the pool serves and nothing else of ours runs or is on file; return its pids."""
        pool = self.hive.until_ready(replicas=REPLICAS)
        assert pool["model_ref"] == self.model
        serving = sorted(one["pid"] for one in pool["replicas"])
        self.place.until(lambda: sorted(self.place.workers()) == serving)
        self.place.until(lambda: len(self.place.handoffs_of("node-t")) == REPLICAS)
        self.place.until(lambda: len(self.place.spawns()) == REPLICAS)
        self.check_foreign()
        return serving

    def nothing(self) -> None:
        """Wait until nothing of ours runs or is on file."""
        self.place.until(lambda: not self.place.workers())
        self.place.until(lambda: not self.place.handoffs_of("node-t"))
        self.place.until(lambda: not self.place.spawns())
        self.check_foreign()

    def check_foreign(self) -> None:
        for name, data in self.files.items():
            assert (self.place.runtime / "engines" / name).read_bytes() == data

    def strike(self, cell: Cell) -> None:
        """Bring the hive to the cell, see it die there, start another, and hold it to what it must find and do."""
        target = self.prepare(cell)
        self.arm_file.write_text(f"{cell.step.value}:{cell.count}", encoding="ascii")
        match cell.operation:
            case "adopt":
                self.hive.kill()
                self.hive = self.start(wait=False)
            case "declare":
                self.declare("pool-1", model="fake:other?memory_bytes=1000000", devices="0")
            case "preload":
                self.ask("preload")
            case "drain":
                self.ask("drain", {"deadline_ms": 500})
            case _:
                self.ask("reload", {"model": target, "deadline_ms": 500})
        assert self.hive.process.wait(90) == -9, f"{cell} was not reached:\n{self.hive.log_tail()}"
        self.arm_file.unlink()
        before, self.hive = self.pids, self.start()
        self.judge(cell, target, before)

    def prepare(self, cell: Cell) -> str:
        """Bring the pool to where the operation begins; return the model that a reload asks for."""
        if cell.operation == "preload":
            self.ask("drain", {"deadline_ms": 0})
            self.hive.until_state("offline")
        if cell.operation == "reload beside" and self.model == LARGE:
            self.ask("reload", {"model": SMALL[0], "deadline_ms": 0})
            self.model = SMALL[0]
            self.hive.until(lambda pool: pool["model_ref"] == self.model)
            self.pids = self.whole()
        if cell.operation == "reload after":
            return SMALL[0] if self.model == LARGE else LARGE
        return SMALL[1] if self.model == SMALL[0] else SMALL[0]

    def judge(self, cell: Cell, target: str, before: list[int]) -> None:
        is_kept = cell.operation in ("adopt", "declare")
        if cell.operation == "drain":
            self.hive.until_state("offline", "declared")
            self.nothing()
            self.ask("preload")
        if cell.operation.startswith("reload"):
            steps = OPERATIONS[cell.operation]
            is_stored = steps.index(cell.step) >= steps.index(Step.RELOAD_STORED)
            is_kept = steps.index(cell.step) < steps.index(
                Step.RELOAD_STORED if cell.operation == "reload beside" else Step.HANDOFF_REMOVED
            )
            if is_stored and not self.is_configured:  # A configured pool follows its file at each start.
                self.model = target
        if cell.operation == "declare":
            self.hive.until_ready(pool_id="pool-1", replicas=1)
            assert self.hive.ask("/v2/pools/pool-1?deadline_ms=0", method="DELETE")[0] == 202
            self.place.until(lambda: self.hive.ask("/v2/pools/pool-1")[0] == 404)
        self.pids = self.whole()
        if is_kept:
            assert self.pids == before, f"{cell}: workers that served were not taken over"

    def end(self) -> None:
        self.hive.stop(within_s=30)
        self.nothing()


def run(place, pool_toml, foreign, struck: list[Cell], *, is_configured: bool) -> None:
    chain = Chain(place, pool_toml, foreign, is_configured=is_configured)
    for number, cell in enumerate(struck):
        print(f"{number}: {cell}")  # noqa: T201 - which kill it was, when one fails
        chain.strike(cell)
    chain.end()


@pytest.mark.timeout(240)
def test_a_successor_finds_everything_that_a_killed_hive_left(place, pool_toml, foreign) -> None:
    run(place, pool_toml, foreign, cells(SEED, 6), is_configured=False)


@pytest.mark.slow
@pytest.mark.timeout(90 * CHAIN)
@pytest.mark.parametrize("number", range(-(-RUNS // CHAIN)))
def test_the_kill_matrix_a_thousand_times(place, pool_toml, foreign, number: int) -> None:
    struck = cells(SEED, RUNS)[number * CHAIN : (number + 1) * CHAIN]
    run(place, pool_toml, foreign, struck, is_configured=number % 4 == 3)


@pytest.mark.parametrize(
    ("operation", "size"), [("reload beside", 400_000_000), ("reload after", 1_200_000_000)]
)
def test_the_code_passes_exactly_the_steps_that_it_names(place, pool_toml, operation: str, size: int) -> None:
    place.configure(DEVICE + pool_toml(model=f"fake:one?memory_bytes={size}", devices="0"))
    hive = place.start()
    hive.until_ready()

    def passed(since: int) -> list[str]:
        lines = (line for line in hive.log.read_text().splitlines()[since:] if '"event":"step"' in line)
        return [json.loads(line)["step"] for line in lines]

    assert passed(0) == [step.value for step in (*OPERATIONS["declare"], *OPERATIONS["preload"])]
    done = len(hive.log.read_text().splitlines())
    hive.ask("/v2/pools/pool-0/reload", {"model": f"fake:two?memory_bytes={size}", "deadline_ms": 0})
    place.until(lambda: Step.RELOAD_DONE.value in passed(done), within_s=40)
    assert passed(done) == [step.value for step in OPERATIONS[operation]]
    done = len(hive.log.read_text().splitlines())
    hive.ask("/v2/pools/pool-0/drain", {"deadline_ms": 0})
    hive.until_state("offline")
    assert passed(done) == [step.value for step in OPERATIONS["drain"]]


def test_every_step_that_the_code_names_is_in_the_matrix() -> None:
    assert {step for _, step, _ in MATRIX} == set(Step)
