"""The runner's step, from its joints to its files: without a cluster, in seconds.

`mock_k8s_deps` stands in for everything that talks to a cluster, as the project that the arena comes from did; the
tests of the second half run the real embedded driver.
"""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skep.arena import runner
from skep.arena.actions import BUILT_IN
from skep.arena.driver import StopToken
from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.hooks import Hook
from skep.arena.observation import Observation
from skep.arena.policies.base import Decision, FunctionPolicy, Situation
from skep.arena.records import Records, StepRecord
from skep.arena.rewards import REWARDS
from skep.arena.runner import (
    StepOptions,
    deterministic_id,
    one_step,
    simple_policy,
    update_summary,
    write_step_record,
)
from skep.arena.summary import Summary
from skep.arena.trace.generate import WorkloadPlan, random_events, trace_of
from skep.arena.trace.stream import write_stream
from skep.arena.trace.trace import Trace, read_trace
from skep.arena.workload import Resources, WorkloadRef, find_resources
from skep.errors.arena import (
    DeploymentNotFound,
    DriverUnavailable,
    HookFailed,
    ObservationFailed,
    PolicyFailed,
    RecordsUnwritable,
    SimulationFailed,
    StepCancelled,
    TraceNotFound,
    TraceUnreadable,
    UnknownName,
)

TRACE = Path("demo/trace-test.msgpack")
SIMULATION = "sim-test-12345678"
SEEN = {"ready": 2, "pending": 1, "total": 3}
MIB = 1 << 20


@pytest.fixture
def temp_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a demonstration trace, `runs/` and `.tmp/`; the test runs inside it."""
    for folder in ("demo", "runs", ".tmp"):
        (tmp_path / folder).mkdir()
    (tmp_path / TRACE).write_bytes(trace_of([WorkloadPlan(cpu="500m", memory="256Mi")]).to_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Joints:
    """What the step called, in order, and what its joints answer."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.deleted: list[str] = []
        self.observation: Observation | Exception = Observation(**SEEN)
        self.failures: dict[str, BaseException] = {}

    def joint(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            self.calls.append(f"{name}:{given[0]}" if name == "run_hooks" else name)
            if name in self.failures:
                raise self.failures[name]
            return answer(*given, **named)

        return called

    def delete(self, driver: Any, name: str) -> None:
        self.deleted.append(name)


@pytest.fixture
def mock_k8s_deps(monkeypatch: pytest.MonkeyPatch) -> Joints:
    """Replace everything that talks to a cluster: create returns `sim-test-12345678`, observe 2 ready, 1 pending of 3."""
    joints = Joints()
    answers: dict[str, Callable[..., Any]] = {
        "run_hooks": lambda phase, hooks, environment: 0,
        "create_simulation": lambda driver, spec: SIMULATION,
        "wait_fixed": lambda driver, name, duration_s, stop: duration_s,
        "observe": lambda driver, name, workload: joints.observation,
        "delete_simulation": joints.delete,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(runner, name, joints.joint(name, answer))
    return joints


def records_of(workspace: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workspace / "runs/step.jsonl").read_bytes().splitlines()]


def summary_of(workspace: Path) -> dict[str, Any]:
    return json.loads((workspace / "runs/summary.json").read_bytes())


def cpu_of(path: str) -> str:
    manifest = read_trace(Path(path)).event(0)["applied_objs"][0]
    return manifest["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]


def situation(**given: Any) -> Situation:
    seen = Observation(**{**SEEN, **given})
    return Situation(
        observation=seen,
        resources=Resources(cpu_m=500, memory_bytes=256 * MIB, replicas=3),
        target=3,
        state=(0.0,) * 5,
        step=0,
        steps_max=10,
        seed=0,
        actions=BUILT_IN,
        mask=lambda: dict.fromkeys(BUILT_IN, True),
    )


# Helpers.


def test_deterministic_id_is_eight_hex_digits_that_depend_on_every_argument() -> None:
    base = ("a" * 64, "default", "web", 3, 0, 0)
    assert deterministic_id(*base) == deterministic_id(*base)
    assert len(deterministic_id(*base)) == 8
    int(deterministic_id(*base), 16)
    others = [
        ("b" * 64, *base[1:]),
        (base[0], "x", *base[2:]),
        (*base[:2], "y", *base[3:]),
        (*base[:3], 4, 0, 0),
        (*base[:4], 1, 0),
        (*base[:5], 1),
    ]
    assert len({deterministic_id(*one) for one in (base, *others)}) == 7


def test_deterministic_id_keeps_neighbouring_arguments_apart() -> None:
    assert deterministic_id("s", "ab", "c", 1, 0, 0) != deterministic_id("s", "a", "bc", 1, 0, 0)
    assert deterministic_id("s", "a", "c", 1, 11, 0) != deterministic_id("s", "a", "c", 1, 1, 10)


def record(**given: Any) -> StepRecord:
    fields: dict[str, Any] = {
        "run_id": "run-1", "step": 0, "sim_name": SIMULATION, "namespace": "default", "deployment": "web", "target": 3,
        "trace_in": "a", "trace_out": "b", "trace_sha": "c", "seed": 0, "driver": "embedded",
        "observation": Observation(**SEEN), "state": (0.0,), "policy": "simple", "action": "noop", "decision_reason": "",
        "action_info": None, "reward_name": "base", "reward": 0.25, "reward_terms": {}, "duration_s": 60.0,
        "sim_duration_s": 60.0, "status": "ok",
    }  # fmt: skip
    return StepRecord(**{**fields, **given})


def test_write_step_record_appends_whole_lines(tmp_path: Path) -> None:
    for step in range(3):
        write_step_record(tmp_path, record(step=step))
    lines = (tmp_path / "step.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]


def test_half_line_of_a_killed_process_is_set_aside(tmp_path: Path) -> None:
    write_step_record(tmp_path, record())
    with (tmp_path / "step.jsonl").open("ab") as file:
        file.write(b'{"run_id": "torn')
    write_step_record(tmp_path, record(step=1))
    assert [one["step"] for one in map(json.loads, (tmp_path / "step.jsonl").read_bytes().splitlines())] == [
        0,
        1,
    ]
    (aside,) = tmp_path.glob("step.jsonl.torn-*")
    assert aside.read_bytes() == b'{"run_id": "torn'


def test_update_summary_counts_incrementally(tmp_path: Path) -> None:
    write_step_record(tmp_path, record(action="bump_cpu_small"))
    write_step_record(
        tmp_path, record(step=1, reward=1.0, observation=Observation(ready=3, pending=0, total=3))
    )
    write_step_record(tmp_path, record(step=2, status="failed", reward=None, observation=None, action=None))
    found = update_summary(tmp_path)
    assert (found.steps, found.runs, found.goals, found.rewarded_steps) == (3, 1, 1, 2)
    assert found.reward_total == 1.25
    assert found.actions == {"bump_cpu_small": 1, "noop": 1}
    assert found.statuses == {"ok": 2, "failed": 1}
    assert found.covered_bytes == (tmp_path / "step.jsonl").stat().st_size


def test_summary_does_not_grow_with_the_history(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        records.append(record())
        records.sync()
        small = (tmp_path / "summary.json").stat().st_size
        for step in range(1, 500):
            records.append(record(step=step))
    assert (tmp_path / "summary.json").stat().st_size < small + 40


@pytest.mark.parametrize("spoiled", [b"", b"{", b"[1]", b'{"format": 99}', b'{"covered_bytes": 999999999}'])
def test_corrupt_summary_is_set_aside_and_made_anew(tmp_path: Path, spoiled: bytes) -> None:
    for step in range(3):
        write_step_record(tmp_path, record(step=step))
    good = (tmp_path / "summary.json").read_bytes()
    (tmp_path / "summary.json").write_bytes(spoiled)
    update_summary(tmp_path)
    assert (tmp_path / "summary.json").read_bytes() == good
    (aside,) = tmp_path.glob("summary.json.corrupt-*")
    assert aside.read_bytes() == spoiled


def test_record_is_on_disk_a_second_later_without_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    real = os.fsync

    def fsync(file: int) -> None:
        real(file)
        synced.set()

    monkeypatch.setattr("skep.arena.records.os.fsync", fsync)
    with Records(tmp_path, sync_delay_s_max=0.01) as records:
        records.append(record())
        assert synced.wait(5.0)


def test_full_disk_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Records(tmp_path) as records:
        records.append(record())
        before = (tmp_path / "step.jsonl").read_bytes()
        real = os.write
        monkeypatch.setattr("skep.arena.records.os.write", lambda file, data: real(file, data[:10]))
        with pytest.raises(RecordsUnwritable):
            records.append(record(step=1))
        monkeypatch.undo()
        assert (tmp_path / "step.jsonl").read_bytes() == before


@pytest.mark.parametrize(("pending", "action"), [(0, "noop"), (1, "bump_cpu_small"), (9, "bump_cpu_small")])
def test_simple_policy_asks_for_cpu_when_pods_are_pending(pending: int, action: str) -> None:
    assert simple_policy(situation(pending=pending)).action == action


# The step with its joints replaced.


def test_happy_path_with_an_action(temp_workspace: Path, mock_k8s_deps: Joints) -> None:
    result = one_step(TRACE, "default", "web", 3, 60.0)
    assert result.exit_value == 0
    assert mock_k8s_deps.calls == [
        "run_hooks:pre_start", "create_simulation", "run_hooks:post_start", "wait_fixed", "observe",
        "run_hooks:pre_stop", "delete_simulation", "run_hooks:post_stop",
    ]  # fmt: skip
    assert mock_k8s_deps.deleted == [SIMULATION]
    (found,) = records_of(temp_workspace)
    assert found["action"] == "bump_cpu_small"
    assert found["action_info"] == {"changed": True, "blocked": False, "reason": ""}
    assert {key: found["observation"][key] for key in SEEN} == SEEN
    assert (found["sim_name"], found["status"], found["reward"]) == (SIMULATION, "ok", 0.0)
    assert found["trace_in"] == str(TRACE)
    assert cpu_of(found["trace_out"]) == "1"
    assert Path(found["trace_out"]).parent == Path(".tmp")
    assert cpu_of(str(TRACE)) == "500m"
    summary = summary_of(temp_workspace)
    assert (summary["steps"], summary["actions"]) == (1, {"bump_cpu_small": 1})


def test_noop_when_everything_is_ready(temp_workspace: Path, mock_k8s_deps: Joints) -> None:
    mock_k8s_deps.observation = Observation(ready=3, pending=0, total=3)
    result = one_step(TRACE, "default", "web", 3)
    assert result.is_goal
    assert result.decision.action == "noop"
    assert result.reward.value == 1.0
    (found,) = records_of(temp_workspace)
    assert found["action_info"]["changed"] is False
    assert Path(found["trace_out"]).read_bytes() == (temp_workspace / TRACE).read_bytes()


@pytest.mark.parametrize(
    ("joint", "failure"),
    [
        ("run_hooks", HookFailed("no")),
        ("create_simulation", DriverUnavailable("no cluster")),
        ("wait_fixed", SimulationFailed("failed")),
        ("observe", ObservationFailed("unreadable")),
        ("observe", RuntimeError("a mistake of ours")),
        ("observe", KeyboardInterrupt()),
        ("observe", asyncio.CancelledError()),
        ("wait_fixed", StepCancelled("stop")),
    ],
)
def test_simulation_is_deleted_and_the_failure_recorded(
    temp_workspace: Path, mock_k8s_deps: Joints, joint: str, failure: BaseException
) -> None:
    mock_k8s_deps.failures[joint] = failure
    with pytest.raises(type(failure)):
        one_step(TRACE, "default", "web", 3)
    assert mock_k8s_deps.calls.count("delete_simulation") == 1
    assert len(mock_k8s_deps.deleted) == 1
    (found,) = records_of(temp_workspace)
    is_cancelled = isinstance(failure, KeyboardInterrupt | asyncio.CancelledError | StepCancelled)
    assert found["status"] == ("cancelled" if is_cancelled else "failed")
    assert found["error"]["type"] == type(failure).__name__
    assert found["reward"] is None
    assert found["observation"] is None


def test_simulation_is_deleted_where_the_record_cannot_be_written(
    temp_workspace: Path, mock_k8s_deps: Joints
) -> None:
    class Full:
        def append(self, record: StepRecord) -> None:
            raise RecordsUnwritable("disk full")

    with pytest.raises(RecordsUnwritable):
        one_step(TRACE, "default", "web", 3, records=Full())  # type: ignore[arg-type]
    assert mock_k8s_deps.deleted == [SIMULATION]


def test_policy_that_fails_or_invents_an_action_is_recorded(
    temp_workspace: Path, mock_k8s_deps: Joints
) -> None:
    with pytest.raises(PolicyFailed, match="teleport"):
        one_step(
            TRACE, "default", "web", 3, policy=FunctionPolicy("odd", lambda situation: Decision("teleport"))
        )
    (found,) = records_of(temp_workspace)
    assert (found["status"], found["action"]) == ("failed", "teleport")
    assert found["observation"]["ready"] == 2
    assert mock_k8s_deps.deleted == [SIMULATION]


def test_folders_are_made(tmp_path: Path, mock_k8s_deps: Joints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.msgpack").write_bytes(trace_of([WorkloadPlan()]).to_bytes())
    one_step("t.msgpack", "default", "web", 3, options=StepOptions(workspace=tmp_path / "deep/er"))
    assert sorted(one.name for one in (tmp_path / "deep/er").iterdir()) == [".tmp", "runs"]


def test_repeated_runs_append(temp_workspace: Path, mock_k8s_deps: Joints) -> None:
    for seed in range(3):
        one_step(TRACE, "default", "web", 3, seed=seed)
    assert [one["seed"] for one in records_of(temp_workspace)] == [0, 1, 2]
    assert summary_of(temp_workspace)["steps"] == 3


def test_missing_trace_touches_nothing(temp_workspace: Path, mock_k8s_deps: Joints) -> None:
    with pytest.raises(TraceNotFound):
        one_step("demo/none.msgpack", "default", "web", 3)
    assert mock_k8s_deps.calls == []
    assert list((temp_workspace / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"deployment": "nobody"}, DeploymentNotFound),
        ({"namespace": "elsewhere"}, DeploymentNotFound),
        ({"policy": "psychic"}, UnknownName),
        ({"reward": "gold"}, UnknownName),
    ],
)
def test_wrong_subject_touches_nothing(
    temp_workspace: Path, mock_k8s_deps: Joints, arguments: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        one_step(**{"trace": TRACE, "namespace": "default", "deployment": "web", "target": 3, **arguments})  # type: ignore[arg-type]
    assert mock_k8s_deps.calls == []
    assert list((temp_workspace / "runs").iterdir()) == []


# Every observation scenario.


@pytest.mark.parametrize("policy", ["simple", "heuristic", "noop"])
@pytest.mark.parametrize("reward", sorted(REWARDS))
@pytest.mark.parametrize(
    ("ready", "pending", "total"),
    [
        (3, 0, 3),
        (0, 3, 3),
        (2, 1, 3),
        (0, 0, 0),
        (1, 0, 1),
        (5, 0, 5),
        (3, 2, 5),
        (0, 0, 3),
        (100, 0, 100),
        (3, 0, 4),
    ],
)
def test_every_observation_is_decided_rewarded_and_recorded(
    temp_workspace: Path,
    mock_k8s_deps: Joints,
    policy: str,
    reward: str,
    ready: int,
    pending: int,
    total: int,
) -> None:
    mock_k8s_deps.observation = Observation(ready=ready, pending=pending, total=total)
    result = one_step(TRACE, "default", "web", 3, policy=policy, reward=reward)
    is_goal = ready == total == 3 and pending == 0
    assert result.is_goal is is_goal
    assert -1.0 <= result.reward.value <= 1.0
    assert result.reward.value == pytest.approx(max(-1.0, min(1.0, sum(result.reward.terms.values()))))
    assert (result.reward.value == 1.0) is is_goal
    if policy == "simple":
        assert result.decision.action == ("bump_cpu_small" if pending else "noop")
    (found,) = records_of(temp_workspace)
    assert found["reward_terms"] == result.reward.terms
    assert len(found["state"]) == 5


# Every trace modification, on the real embedded driver.


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "ReplicaSet", "Job"])
@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("noop", (1000, 512, 3)),
        ("bump_cpu_small", (1500, 512, 3)),
        ("bump_mem_small", (1000, 768, 3)),
        ("scale_up_replicas", (1000, 512, 4)),
        ("reduce_cpu_small", (500, 512, 3)),
        ("reduce_mem_small", (1000, 256, 3)),
        ("scale_down_replicas", (1000, 512, 2)),
    ],
)
def test_every_action_changes_every_kind(
    temp_workspace: Path, kind: str, action: str, expected: tuple[int, int, int]
) -> None:
    trace = trace_of([WorkloadPlan(kind=kind, cpu="1", memory="512Mi"), WorkloadPlan(name="other")])
    (temp_workspace / TRACE).write_bytes(trace.to_bytes())
    policy = FunctionPolicy("fixed", lambda situation: Decision(action))
    result = one_step(TRACE, "default", "web", 3, policy=policy)
    saved = read_trace(Path(str(result.record.trace_out)))
    found = find_resources(saved, WorkloadRef("default", "web"))
    assert (found.cpu_m, found.memory_bytes // MIB, found.replicas) == expected
    assert saved.events[1] == trace.events[1]
    assert result.action_info.changed is (action != "noop")


def test_next_step_continues_from_the_saved_trace(temp_workspace: Path) -> None:
    first = one_step(
        TRACE, "default", "web", 3, policy="bump_cpu", reward="base", options=StepOptions(actions=BUILT_IN)
    )
    assert first.is_goal
    path: Path | str = TRACE
    for cpu in ("1", "1500m", "2"):
        step = one_step(path, "default", "web", 5, policy="bump_cpu")
        path = str(step.record.trace_out)
        assert cpu_of(path) == cpu


def test_blocked_action_leaves_the_trace_and_says_so(temp_workspace: Path) -> None:
    (temp_workspace / TRACE).write_bytes(trace_of([WorkloadPlan(cpu="15900m")]).to_bytes())
    result = one_step(TRACE, "default", "web", 3, policy="bump_cpu")
    assert result.action_info.blocked
    assert "safeguard" in result.action_info.reason
    assert Path(str(result.record.trace_out)).read_bytes() == (temp_workspace / TRACE).read_bytes()


# Files, hooks, cancelling.


def test_same_seed_same_bytes(temp_workspace: Path) -> None:
    for _ in range(2):
        one_step(TRACE, "default", "web", 5, policy="random", reward="shaped", seed=7)
    first, second = (temp_workspace / "runs/step.jsonl").read_bytes().splitlines()
    assert first == second


@pytest.mark.parametrize("end", [0, 1, 100, -1])
def test_truncated_trace_writes_nothing(temp_workspace: Path, end: int) -> None:
    data = (temp_workspace / TRACE).read_bytes()
    (temp_workspace / TRACE).write_bytes(data[:end])
    with pytest.raises(TraceUnreadable):
        one_step(TRACE, "default", "web", 3)
    assert list((temp_workspace / "runs").iterdir()) == []
    assert list((temp_workspace / ".tmp").iterdir()) == []


def test_hooks_run_in_order_and_know_their_simulation(temp_workspace: Path) -> None:
    phases = ("pre_start", "post_start", "pre_stop", "post_stop")
    script = 'echo "$SKEP_PHASE $SKEP_SIMULATION $SKEP_NAMESPACE $SKEP_DEPLOYMENT" >> hooks.txt'
    hooks = tuple(Hook(phase=phase, argv=("sh", "-c", script)) for phase in phases)
    result = one_step(TRACE, "default", "web", 3, options=StepOptions(hooks=hooks))
    told = [line.split() for line in (temp_workspace / "hooks.txt").read_text().splitlines()]
    assert [one[0] for one in told] == list(phases)
    assert {tuple(one[1:]) for one in told} == {(result.record.sim_name, "default", "web")}


@pytest.mark.parametrize(
    "argv", [("sh", "-c", "echo broken >&2; exit 3"), ("no-such-program",), ("sleep", "30")]
)
def test_hook_that_fails_fails_the_step_unless_it_may(temp_workspace: Path, argv: tuple[str, ...]) -> None:
    hook = Hook(phase="pre_start", argv=argv, timeout_s=0.2)
    with pytest.raises(HookFailed):
        one_step(TRACE, "default", "web", 3, options=StepOptions(hooks=(hook,)))
    assert records_of(temp_workspace)[-1]["status"] == "failed"
    lenient = msgspec.structs.replace(hook, ignore_failure=True)
    assert one_step(TRACE, "default", "web", 3, options=StepOptions(hooks=(lenient,))).exit_value == 0


def test_stop_token_cancels_and_cleans_up(temp_workspace: Path) -> None:
    stop = StopToken()
    stop.stop()
    with EmbeddedDriver() as driver:
        with pytest.raises(StepCancelled):
            one_step(TRACE, "default", "web", 3, driver=driver, stop=stop)
        assert one_step(TRACE, "default", "web", 3, driver=driver).exit_value == 0
    assert [one["status"] for one in records_of(temp_workspace)] == ["cancelled", "ok"]


# Many at once.


STEPS_PROGRAM = """
import sys
from pathlib import Path
from skep.arena.embedded_driver import EmbeddedDriver
from skep.arena.records import Records
from skep.arena.runner import one_step
with Records(Path("runs")) as records, EmbeddedDriver() as driver:
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        one_step("demo/trace-test.msgpack", "default", "web", 3, seed=seed, driver=driver, records=records)
"""


def start_steps(folder: Path, first: int, end: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", STEPS_PROGRAM, str(first), str(end)], cwd=folder)


def test_sixteen_processes_share_a_run_folder_and_every_line_is_whole(temp_workspace: Path) -> None:
    processes = [start_steps(temp_workspace, 10 * n, 10 * n + 10) for n in range(16)]
    assert [process.wait(100) for process in processes] == [0] * 16
    found = records_of(temp_workspace)
    assert sorted(one["seed"] for one in found) == list(range(160))
    summary = summary_of(temp_workspace)
    assert (summary["steps"], summary["unreadable"]) == (160, 0)
    assert summary["covered_bytes"] == (temp_workspace / "runs/step.jsonl").stat().st_size
    assert not list((temp_workspace / ".tmp").glob(".*"))


def test_killed_writer_does_not_stop_the_others(temp_workspace: Path) -> None:
    lines = temp_workspace / "runs/step.jsonl"
    with start_steps(temp_workspace, 0, 1_000_000) as victim:
        while not (lines.exists() and lines.stat().st_size > 4000):
            assert victim.poll() is None
            threading.Event().wait(0.01)
        victim.kill()
    one_step(TRACE, "default", "web", 3, seed=-1)
    found = records_of(temp_workspace)
    assert found[-1]["seed"] == -1
    assert update_summary(temp_workspace / "runs").steps == len(found)


# Large traces.


def test_step_on_a_trace_of_twenty_thousand_events(temp_workspace: Path) -> None:
    write_stream(Path("demo/large.msgpack"), random_events(20_000, seed=1, workloads=500), 20_000)
    result = one_step("demo/large.msgpack", "default", "app-7", 5, duration_s=300.0, policy="heuristic")
    assert result.observation.total >= 0
    before, after = read_trace(Path("demo/large.msgpack")), read_trace(Path(str(result.record.trace_out)))
    untouched = sum(one == other for one, other in zip(before.events, after.events, strict=True))
    assert untouched > 19_900


def test_trace_object_can_be_given_instead_of_a_path(temp_workspace: Path) -> None:
    trace = Trace.parse((temp_workspace / TRACE).read_bytes(), "in memory")
    assert one_step(trace, "default", "web", 3).record.trace_in == "in memory"


def test_summary_type_is_exported_for_readers(temp_workspace: Path) -> None:
    one_step(TRACE, "default", "web", 3)
    found = msgspec.json.decode((temp_workspace / "runs/summary.json").read_bytes(), type=Summary)
    assert found.steps == 1
