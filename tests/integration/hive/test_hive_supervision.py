"""The restart policies wired into a hive, with its numbers shrunk so that hours pass in seconds. In this process."""

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from skep.hive.core import Core
from skep.hive.daemon import running
from skep.hive.pool import Pool
from skep.hive.settings import HiveSettings
from skep.lifecycle.replica import ReplicaState
from skep.policy.backoff import BackoffLimits
from skep.policy.breaker import BreakerLimits, BreakerState
from skep.policy.restart import RestartLimits
from skep.policy.storm import StormLimits
from skep.process import group
from skep.process.socket import bind_listener
from skep.spec.engine import EngineKind, EngineSpec
from skep.spec.pool import PoolSpec

CALM = StormLimits(restarts_max=1000)
QUICK = BackoffLimits(first_s=0.02, delay_s_max=0.1, delay_s_min=0.01, stable_s=1.0)
SERVER = textwrap.dedent(
    """
    import os, sys, threading, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    port, folder = int(sys.argv[1]), sys.argv[2]
    with open(os.path.join(folder, "starts"), "a") as starts:
        starts.write(f"{os.getpid()}\\n")
    if os.path.exists(os.path.join(folder, "broken")):
        sys.exit(3)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_): pass
        def answer(self, data):
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        def do_GET(self):
            self.answer(b"vllm:num_requests_running 0\\n" if self.path == "/metrics" else b"{}")
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.answer(b'{"choices": [{"text": "x"}]}')

    def die():
        path = os.path.join(folder, f"die-{os.getpid()}")
        while not os.path.exists(path):
            time.sleep(0.01)
        print(open(path).read(), flush=True)
        os._exit(4)

    threading.Thread(target=die, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
    """
)


@pytest.fixture
def hive(tmp_path: Path) -> Callable:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "model.bin").write_bytes(b"weights")

    @asynccontextmanager
    async def start(limits: RestartLimits, replicas: int = 1, slots: int = 1) -> AsyncIterator[Pool]:
        argv = (sys.executable, str(tmp_path / "server.py"), "{port}", str(tmp_path))
        settings = HiveSettings(
            node_id="n",
            host="127.0.0.1",
            port=0,
            runtime=tmp_path / "run",
            state=tmp_path / "state",
            engines_root=tmp_path / "engines",
            models_root=tmp_path / "models",
            probe_interval_s=0.3,
            engines=(EngineSpec(id="mine", kind=EngineKind.COMMAND, argv=argv),),
            pools=(
                PoolSpec(
                    id="p",
                    model=str(tmp_path / "model.bin"),
                    engine="mine",
                    devices="cpu",
                    replicas=replicas,
                    slots=slots,
                ),
            ),
            restart=limits,
        )
        with bind_listener("127.0.0.1") as listener:
            async with running(settings, listener) as daemon:
                core: Core = daemon.core
                yield core.pools.get("p")

    return start


async def until(condition: Callable[[], object], *, within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


def starts(tmp_path: Path) -> int:
    path = tmp_path / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


def sample(pool: Pool, name: str, **labels: str) -> float | None:
    """What a scrape would find."""
    return pool.node.metrics.registry.get_sample_value(name, {"node_id": "n", "pool_id": "p", **labels})


def only(pool: Pool):
    return next(iter(pool.replicas.values()), None)


async def test_failures_in_a_row_hold_the_replica_and_reset_frees_it(hive, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    limits = RestartLimits(backoff=QUICK, breaker=BreakerLimits(open_s=600), storm=CALM)
    async with hive(limits) as pool:
        await until(lambda: only(pool) and only(pool).state is ReplicaState.HELD)
        assert starts(tmp_path) == 5
        assert only(pool).history.breaker_state is BreakerState.OPEN
        assert pool.state == "unready"
        assert [one.verdict["action"] for one in pool.judging.verdicts] == ["restart"] * 4 + ["hold"]
        (tmp_path / "broken").unlink()
        assert only(pool).verdict.delay_s == pytest.approx(600)
        assert sample(pool, "skep_breaker_state") == 2
        assert sample(pool, "skep_backoff_seconds") == pytest.approx(600)
        assert sample(pool, "skep_restart_total", reason="exit_code") == 5
        await pool.reset()
        await until(lambda: pool.state == "ready")
        assert starts(tmp_path) == 6


async def test_an_open_breaker_outlives_the_hive_and_reset_ends_it(hive, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    limits = RestartLimits(backoff=QUICK, breaker=BreakerLimits(open_s=600), storm=CALM)
    async with hive(limits) as pool:
        await until(lambda: only(pool) and only(pool).state is ReplicaState.HELD)
        await until(lambda: not pool.judging._is_saving)
    async with hive(limits) as pool:
        await until(lambda: pool.state == "unready")
        assert pool.last_error["code"] == "breaker_open"
        assert pool.retrying.due_at - pool.node.wall() == pytest.approx(600, abs=60)
        assert starts(tmp_path) == 5, "the successor begins where this one ended, not with five more failures"
        (tmp_path / "broken").unlink()
        await pool.reset()
        await until(lambda: pool.state == "ready")
    async with hive(limits) as pool:
        await until(lambda: pool.state == "ready")
        assert only(pool).history.failures == 0


async def test_the_first_start_of_a_successor_is_the_breakers_trial(hive, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    limits = RestartLimits(backoff=QUICK, breaker=BreakerLimits(open_s=3.0), storm=CALM)
    async with hive(limits) as pool:
        await until(lambda: only(pool) and only(pool).state is ReplicaState.HELD)
        await until(lambda: not pool.judging._is_saving)
    async with hive(limits) as pool:
        await until(lambda: starts(tmp_path) == 6)
        await until(lambda: only(pool) and only(pool).state is ReplicaState.HELD)
        assert only(pool).history.breaker.open_s == pytest.approx(6.0), "a failed trial doubles the time"
    (tmp_path / "broken").unlink()
    changed = BreakerLimits(open_s=3.0)
    async with hive(RestartLimits(backoff=QUICK, breaker=changed, storm=CALM), slots=2) as pool:
        await until(lambda: pool.state == "ready")
        assert starts(tmp_path) == 7, "another declaration begins with a clean slate"


async def test_one_held_replica_keeps_no_other_from_serving_after_a_restart(hive, tmp_path: Path) -> None:
    limits = RestartLimits(backoff=QUICK, breaker=BreakerLimits(open_s=600), storm=CALM)
    async with hive(limits, replicas=2) as pool:
        await until(lambda: len(pool.serving) == 2)
        (tmp_path / "broken").touch()
        (tmp_path / f"die-{only(pool).running.process.pid}").touch()
        await until(lambda: any(one.state is ReplicaState.HELD for one in pool.replicas.values()))
        await until(lambda: not pool.judging._is_saving)
        assert pool.state == "ready"
    (tmp_path / "broken").unlink()
    before = starts(tmp_path)
    async with hive(limits, replicas=2) as pool:
        await until(lambda: len(pool.serving) == 1)
        waiting = next(one for one in pool.replicas.values() if not one.is_serving)
        assert (waiting.state, waiting.history.breaker_state) == (ReplicaState.PLANNED, BreakerState.OPEN)
        assert starts(tmp_path) == before + 1
        await pool.reset()
        await until(lambda: len(pool.serving) == 2)


async def test_a_trial_that_holds_closes_the_breaker(hive, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    limits = RestartLimits(backoff=QUICK, breaker=BreakerLimits(open_s=1.0, stable_s=0.5), storm=CALM)
    async with hive(limits) as pool:
        await until(lambda: only(pool) and only(pool).state is ReplicaState.HELD)
        (tmp_path / "broken").unlink()
        await until(lambda: pool.state == "ready")
        assert only(pool).history.breaker_state is BreakerState.HALF_OPEN
        assert pool.trial.locked()
        assert sample(pool, "skep_breaker_state") == 1
        await until(lambda: only(pool).history.breaker_state is BreakerState.CLOSED)
        assert sample(pool, "skep_breaker_state") == 0
        assert not pool.trial.locked()


async def test_one_trial_at_a_time_for_a_whole_pool(hive, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    limits = RestartLimits(
        backoff=QUICK, breaker=BreakerLimits(failures_max=2, open_s=0.5, stable_s=60), storm=CALM
    )
    async with hive(limits, replicas=3) as pool:
        await until(lambda: sum(one.state is ReplicaState.HELD for one in pool.replicas.values()) == 3)
        (tmp_path / "broken").unlink()
        await until(lambda: pool.state == "ready")
        due = max(one.verdict.not_before_s for one in pool.replicas.values())
        await until(lambda: pool.node.clock() > due, within_s=60)
        states = sorted(one.state.value for one in pool.replicas.values())
        assert states == ["held", "held", "ready"], "the others wait until the trial has been stable"


async def test_a_storm_holds_at_once(hive, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    limits = RestartLimits(
        backoff=QUICK, breaker=BreakerLimits(failures_max=1000), storm=StormLimits(restarts_max=6)
    )
    async with hive(limits) as pool:
        await until(lambda: only(pool) and only(pool).state is ReplicaState.HELD)
        assert pool.judging.verdicts[-1].verdict["is_storm"]
        assert starts(tmp_path) == 7
        assert sample(pool, "skep_storm_total") == 1


async def test_a_device_error_takes_the_siblings_out_too(hive, tmp_path: Path) -> None:
    limits = RestartLimits(backoff=QUICK, storm=CALM)
    async with hive(limits, replicas=2) as pool:
        await until(lambda: len(pool.serving) == 2)
        before = {one.running.process.pid for one in pool.replicas.values()}
        victim = only(pool).running.process.pid
        (tmp_path / f"die-{victim}.new").write_text("CUDA error: an illegal memory access was encountered")
        (tmp_path / f"die-{victim}.new").rename(tmp_path / f"die-{victim}")
        await until(lambda: pool.state == "unready")
        await until(lambda: len(pool.serving) == 2)
        assert before.isdisjoint(one.running.process.pid for one in pool.replicas.values())
        reasons = {one.replica_id: one.verdict["reason"] for one in list(pool.judging.verdicts)[:2]}
        assert list(reasons.values()) == ["device_error", "device_error"]
        assert sample(pool, "skep_driver_reset_total") == 1, "one fault, however many it took out"


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("it is too much for me", "exit_code"),
        ("CUDA error: out of memory", "out_of_memory"),
    ],
)
async def test_why_a_worker_ended_is_told_with_what_it_said(
    hive, tmp_path: Path, says: str, reason: str
) -> None:
    async with hive(RestartLimits(backoff=QUICK, storm=CALM)) as pool:
        await until(lambda: pool.state == "ready")
        victim = only(pool).running.process.pid
        (tmp_path / "last-words").write_text(says)
        (tmp_path / "last-words").rename(tmp_path / f"die-{victim}")
        await until(lambda: pool.judging.verdicts)
        told = pool.judging.verdicts[0]
        assert (told.verdict["reason"], told.error["code"]) == (reason, reason)
        assert told.error["message"] == "the worker ended with exit code 4"
        assert says in told.error["log_tail"]
        assert pool.last_error == told.error
        assert sample(pool, "skep_restart_total", reason=reason) == 1


async def test_nothing_is_left_when_the_hive_leaves(hive, tmp_path: Path) -> None:
    async with hive(RestartLimits(backoff=QUICK, storm=CALM), replicas=2) as pool:
        await until(lambda: len(pool.serving) == 2)
        pgids = [one.running.process.pgid for one in pool.replicas.values()]
    assert all(group.members(pgid) == [] for pgid in pgids)
    assert list((tmp_path / "run" / "engines").iterdir()) == []
    assert list((tmp_path / "run" / "spawns").iterdir()) == []
