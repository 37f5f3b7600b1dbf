"""Every `Then` about hives, queens and gateways fails in a world where it does not hold, and passes where it does.

A claim is a step's text, what makes it true where the plain scene does not, and the lies that it must not believe. A new
`Then` without a claim fails the last test.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from skep.process.identity import started_at
from skep.testkit.fleet.source import builds_file
from skep.testkit.steps.handoff import HALF_A_FILE

ELSEWHERE = frozenset({"worker", "rollout", "arena"})
Change = Callable[[Any], None]


def pool(**facts: Any) -> Change:
    return lambda scene: scene.pool.update(facts)


def replica(**facts: Any) -> Change:
    return lambda scene: scene.replica.update(facts)


def answer(path: str, status: int, body: Any) -> Change:
    return lambda scene: scene.answers.update({path: (status, body)})


def answered(status: int, body: Any) -> Change:
    return lambda scene: scene.answered(status, body)


def events(*kept: int) -> Change:
    def change(scene: Any) -> None:
        scene.events[:] = [scene.events[index] for index in kept]

    return change


def replica_state(state: str) -> Change:
    """What the first of the replica's events led to."""
    return lambda scene: scene.events[1]["facts"].update(state=state)


def verdicts(**facts: Any) -> Change:
    def change(scene: Any) -> None:
        for each in scene.verdicts:
            each.update(facts)

    return change


def metrics(*lines: str) -> Change:
    return lambda scene: scene.metrics.__setitem__(slice(None), lines)


def processes(*pids: int) -> Change:
    return lambda scene: scene.lab.pids.__setitem__(slice(None), pids)


def half_a_file(text: str) -> Change:
    return lambda scene: (scene.lab.runtime / "engines" / "pool-8-r0.json").write_text(text)


def foreigner(pid: int | None = None, started: int | None = None) -> Change:
    """The process that a foreign handoff names: this one, unless it is told otherwise."""
    own = os.getpid()
    facts = {"pid": pid or own, "started_at": started or started_at(own)}
    return lambda scene: scene.world.seen.update(foreigner=facts)


def tried(*told: str, apart_s: float = 0.5) -> Change:
    """Two replicas, and what befell them, so far apart: "r0 trial", "r0 proved"."""

    def change(scene: Any) -> None:
        second = {**scene.replica, "replica_id": "r1"}
        scene.pool["replicas"] = [scene.replica, second]
        scene.world.engines = {"r0": scene.replica, "r1": second}
        scene.events[:] = [
            {
                "id": number,
                "at": number * apart_s,
                "kind": "replica",
                "facts": {"replica_id": each.split()[0], "event": each.split()[1]},
            }
            for number, each in enumerate(told, 1)
        ]

    return change


def killed(*replica_ids: str) -> Change:
    """Whose workers were killed before."""
    return lambda scene: setattr(scene.world, "engines", dict.fromkeys(replica_ids, scene.replica))


def between_two_lives(scene: Any) -> None:
    """The replica that was killed last is not shown while nothing of it runs."""
    scene.pool["replicas"] = [scene.replica]


def lost_to_the_device(
    times: int,
    *,
    reason: str = "device_error",
    of: str = "r0",
    came_up: str = "restart",
    state: str = "unready",
) -> Change:
    """A replica lost so often, and what befell it and its pool meanwhile."""
    told = [{"kind": "verdict", "facts": {"replica_id": of, "reason": reason}} for _ in range(times)]
    moved = {"kind": "replica", "facts": {"replica_id": of, "event": came_up}}
    became = {"kind": "pool", "facts": {"event": "replicas_lost", "state": state}}
    events = [{"id": number, **each} for number, each in enumerate([*told, moved, became], 1)]
    return lambda scene: scene.events.__setitem__(slice(None), events)


def verdict_logged(*gone: str, **changes: Any) -> Change:
    def change(scene: Any) -> None:
        fields = {**scene.logged, "kind": "verdict", "replica_id": "r0", "restart_count": 0, "backoff_s": 0.5}
        fields |= {"last_error": {"code": "crashed"}, **changes}
        kept = {name: value for name, value in fields.items() if name not in gone}
        scene.world.hive.log.write_text(json.dumps(kept) + "\n")

    return change


def another_process(scene: Any) -> None:
    """The pool is ready as it was, by a worker that was started anew."""
    scene.replica["pid"] += 1
    scene.lab.pids.append(scene.replica["pid"])


def logged(text: str) -> Change:
    return lambda scene: scene.world.hive.log.write_text(text)


def hub(*requests: str) -> Change:
    return lambda scene: scene.on_hub(*requests)


def no_cache(scene: Any) -> None:
    scene.on_hub("GET")
    (scene.folder / "cache" / "m.gguf").unlink()


def forged_cache(scene: Any) -> None:
    scene.on_hub("GET")
    (scene.folder / "cache" / "m.gguf").write_bytes(b"sthgiew")


def engines(*names: str, says: str = "built-engine 1.0.0", builds: int = 1) -> Change:
    def change(scene: Any) -> None:
        builds_file(scene.folder / "engine-source").write_text("built\n" * builds)
        shutil.rmtree(scene.folder / "cache", ignore_errors=True)
        for name in names:
            program = scene.folder / "cache" / name / "built-engine"
            program.parent.mkdir(parents=True)
            program.write_text(f"#!/bin/sh\necho {says}\n")
            program.chmod(0o700)

    return change


def handoff(**changes: Any) -> Change:
    return lambda scene: scene.handoff(**changes)


def second_handoff(scene: Any) -> None:
    scene.handoff("r1")


def no_handoff(scene: Any) -> None:
    scene.no_handoff()


def nothing(_: Any) -> None:
    pass


def device(**facts: Any) -> Change:
    return lambda scene: scene.devices[0].update(facts)


def waiting(status: int, text: str) -> Change:
    return answer("/ready", status, {"ready": False, "waiting": {"pool-0": text}})


def stream(*data: str) -> Change:
    return answered(200, "".join(f"data: {each}\n\n" for each in data))


ROLE = '{"choices":[{"delta":{"role":"assistant"}}]}'
TEXT = '{"choices":[{"delta":{"content":"hi"}}]}'
END = '{"choices":[{"delta":{},"finish_reason":"stop"}]}'
ERROR = {"error": {"code": "bad", "message": "no", "retryable": False, "type": "t", "param": None}}
REPLICA = '{"event":"pool_event","pool_id":"pool-0","kind":"replica","transition":"t","replica_id":"r0","state":"STATE"}\n'


@dataclass
class Claim:
    """What a step says. `true` makes it hold; each of `lies` makes it false, `true` having been done."""

    text: str
    lies: tuple[Change, ...]
    true: Change = nothing


CLAIMS = [
    # background
    Claim("the answer should be 202", (answered(200, {}),), answered(202, {})),
    Claim('the answer should be an error "bad" with status 400', (answered(500, ERROR), answered(400, {}),
          answered(400, {"error": {"code": "bad", "message": "", "retryable": False}}),
          answered(400, {"error": {"code": "bad", "message": "no"}})), answered(400, ERROR)),
    Claim('the answer should name "FAKE-0"', (answered(400, "FAKE-1"),), answered(400, "only FAKE-0")),
    Claim('"state" of the answer should be "ready"', (answered(200, {"state": "idle"}),), answered(200, {"state": "ready"})),
    # preload
    Claim('the pool state should be "provisioning"', (events(1, 3, 4),)),
    Claim('the pool state should transition to "ready"', (pool(state="unready"),)),
    Claim('pool "pool-0" should become "ready"', (pool(state="unready"),)),
    Claim('pool "pool-0" should have gone through "provisioning, ready"', (events(4, 0), events(4))),
    Claim('pool "pool-0" should have gone straight from "provisioning" to "ready"',
          (events(0), events(4, 0), lambda scene: scene.events[2].update(kind="pool", facts={"state": "unready"}))),
    Claim('pool "pool-0" should not be ready before its model was loaded',
          (lambda scene: scene.events[3].update(id=9), events(0, 1, 2, 4), events(0, 1, 2, 3))),
    Claim('pool "pool-0" should tell the cause "oops"', (pool(last_error=None), pool(last_error={"code": "other"}), pool(ready=True)),
          pool(last_error={"code": "oops"}, ready=False)),
    Claim('the readiness of the hive should name pool "pool-0" and "starting"',
          (waiting(200, "starting"), waiting(503, "unready"), answer("/ready", 503, {"ready": False, "waiting": {}})),
          waiting(503, "starting")),
    Claim("the hive should be ready", (waiting(503, "starting"), waiting(200, "starting"))),
    Claim('pool "pool-0" should never have started a process', (lambda scene: scene.events[0].update(kind="replica", facts={"event": "spawned"}), processes(7)),
          lambda scene: (events(0)(scene), processes()(scene))),
    Claim('pool "pool-0" should have a retry planned', (pool(retry_at_s=None), pool(state="ready")),
          pool(retry_at_s=5.0, state="unready")),
    Claim('the last drain of pool "pool-0" should have cancelled 0 jobs',
          (pool(last_drain=None), pool(last_drain={"jobs_cancelled": 2, "force_stopped": False, "duration_ms": 1}),
           pool(last_drain={"jobs_cancelled": 0}))),
    Claim('the last reload of pool "pool-0" should be "reloaded"', (pool(last_reload=None), pool(last_reload={"outcome": "rolled_back"}))),
    Claim('pool "pool-0" should serve model "m"', (replica(model="other"), replica(state="starting"))),
    Claim('no process of pool "pool-0" should be left', (processes(7),), processes()),
    Claim('pool "pool-0" should be unknown', (answer("/v2/pools/pool-0", 200, {}),), answer("/v2/pools/pool-0", 404, {})),
    Claim('the breaker of pool "pool-0" should have opened with failure 3 of each replica',
          (verdicts(breaker="closed"), verdicts(breaker="open"), lambda scene: scene.verdicts[1].update(is_storm=True),
           lambda scene: scene.verdicts.pop(), killed("r0", "r1"), killed()),
          lambda scene: (killed("r0")(scene), scene.verdicts[2].update(breaker="open"))),
    Claim('the replicas of pool "pool-0" should have been tried once each, one at a time',
          (tried("r1 trial", "r0 trial"), tried("r0 trial", "r1 trial", "r0 proved", "r1 proved"), tried("r0 trial", "r0 proved"),
           tried("r0 trial", "r0 proved", "r1 trial", "r1 proved", "r1 trial"),
           tried("r0 trial", "r0 proved", "r1 trial", "r1 proved", apart_s=0.1), replica(breaker="half_open"), replica(state="held"),
           between_two_lives, killed("r0", "r1", "r2"), killed()),
          tried("r0 trial", "r0 proved", "r1 trial", "r1 proved")),
    # provisioning
    Claim('pool "pool-0" should tell "apt-get install cmake"', (pool(last_error=None), pool(last_error={"message": "no cmake"})),
          pool(last_error={"message": "run: apt-get install cmake"})),
    Claim("the engine should download the model", (no_cache, forged_cache, hub("HEAD")), hub("GET")),
    Claim('the model "m" should be downloaded 1 times', (hub("GET", "GET"), hub("GET bytes=3-"), forged_cache), hub("GET bytes=0-")),
    Claim('the download of model "m" should have been resumed', (hub("GET", "GET"), hub("GET bytes=0-")), hub("GET", "GET bytes=3-")),
    Claim('no file of model "m" should be in the cache', (hub("GET"),), no_cache),
    Claim('the engine "e" should have been compiled 1 times', (engines(), engines("a", "b"), engines("a", says="other 2"), engines("a", builds=2), engines("a", builds=0)), engines("a")),
    Claim('the model "m" should not have been asked for', (hub("GET"), hub("HEAD")), hub()),
    Claim('pool "pool-0" should show progress between 0 and 1',
          (pool(progress=1.5), lambda scene: scene.events[2]["facts"].update(progress=-0.1),
           lambda scene: (pool(progress=None)(scene), events(0)(scene)))),
    # handoff
    Claim("the handoff file should exist",
          (no_handoff, handoff(mode=0o644), handoff(nonce=...), handoff(pid_started_at=1), handoff(pid=1 << 30))),
    Claim('pool "pool-0" should have 1 handoff files', (second_handoff, no_handoff)),
    Claim("no handoff file should exist", (handoff(),), no_handoff),
    Claim('pool "pool-0" should have kept its processes',
          (processes(1, 2), replica(instance="other"), lambda scene: replica(pid=scene.me + 1)(scene))),
    Claim("the orphan should be gone", (lambda scene: processes(scene.me)(scene),),
          lambda scene: (scene.world.seen.update(hung=scene.me), processes()(scene))),
    Claim("the foreign process should live", (answer("/health", 503, {}), foreigner(started=1), foreigner(pid=1 << 30)), foreigner()),
    Claim("the malformed file should be counted and left as it was",
          (metrics('skep_handoff_total{outcome="malformed"} 0'), metrics(), half_a_file("{}")),
          lambda scene: (metrics('skep_handoff_total{outcome="malformed"} 1')(scene), half_a_file(HALF_A_FILE)(scene))),
    # health
    Claim('pool "pool-0" should replace the worker, with the reason "exit_code"',
          (verdicts(reason="signal"), replica(pid=1), replica(state="starting"), replica(instance="n-0"), replica(restart_count=0))),
    Claim('the verdicts of pool "pool-0" should have the reason "exit_code"', (verdicts(reason="signal"), verdicts(because=""))),
    Claim('pool "pool-0" should wait longer after each failure',
          (verdicts(delay_s=1.0), lambda scene: scene.verdicts.pop(), lambda scene: scene.verdicts[1].update(delay_s=2.3))),
    Claim('pool "pool-0" should wait twice as long after a device error', (verdicts(delay_s=1.0), verdicts(reason="signal")),
          verdicts(reason="device_error", delay_s=2.0)),
    Claim('a storm should open the breaker of pool "pool-0"',
          (verdicts(is_storm=False), verdicts(breaker="closed"), replica(state="crashed"), replica(breaker="closed"),
           metrics('skep_storm_total{pool_id="pool-0"} 0'), metrics()),
          lambda scene: (verdicts(is_storm=True, breaker="open")(scene), replica(state="held", breaker="open")(scene),
                         metrics('skep_storm_total{pool_id="pool-0"} 1')(scene))),
    Claim('pool "pool-0" should try again at once', (events(0, 4), replica_state("held")), replica_state("starting")),
    Claim('the worker of pool "pool-0" should be forgiven',
          (replica(restart_count=2), replica(pid=1), replica(state="suspect"), events(0, 4)),
          lambda scene: (scene.world.seen["victim"].update(pid=scene.me, restart_count=1), scene.events[1]["facts"].update(event="probe_answered"))),
    Claim("the neighbours should not have been touched", (processes(1), lambda scene: scene.world.engines.clear()),
          lambda scene: scene.world.engines.update(r1=scene.replica)),
    # gpu
    Claim('the devices should be "FAKE-0,FAKE-1"', (device(id="FAKE-9"), lambda scene: scene.devices.pop(),
          lambda scene: scene.devices.reverse())),
    Claim("each device should tell its memory", (device(memory_free_bytes=5), device(memory_total_bytes=0, memory_used_bytes=0, memory_free_bytes=0))),
    Claim('pool "pool-0" should run on "FAKE-0" only',
          (pool(device_mask=["cpu"]), handoff(device_mask=["cpu"]), answer("/health", 200, {"device_mask": "FAKE-0,FAKE-1"}))),
    Claim("GPU 0 should have some memory in use", (device(memory_used_bytes=0),)),
    Claim("GPU 0 should have no memory in use", (device(memory_used_bytes=2),), device(memory_used_bytes=0)),
    Claim('pool "pool-0" should stay out, though it is tried again',
          (lost_to_the_device(1), lost_to_the_device(2, reason="health"), lost_to_the_device(2, came_up="proved"), lost_to_the_device(2, came_up="spawned"),
           lost_to_the_device(2, state="ready"), lost_to_the_device(2, of="r1"), pool(state="ready"), pool(ready=True), pool(replicas=[]), processes(7)),
          lambda scene: (pool(state="unready", ready=False)(scene), processes()(scene), lost_to_the_device(2)(scene))),
    Claim('the fit of pool "pool-0" should name "weights, headroom"', (pool(fit="weights"), pool(fit=None))),
    # registration
    Claim('the queen should list node "gpu-1" as "alive"', (answer("/v2/nodes", 200, {"nodes": []}),
          answer("/v2/nodes", 200, {"nodes": [{"node_id": "gpu-1", "state": "lost"}]}))),
    Claim('the queen should not list node "gpu-2"', (answer("/v2/nodes", 200, {"nodes": [{"node_id": "gpu-2", "state": "left"}]}),)),
    Claim('the queen should know pool "pool-0" of node "gpu-1" as "ready"',
          (answer("/v2/pools", 200, []), answer("/v2/pools", 200, [{"pool_id": "pool-0", "node_id": "gpu-1", "state": "idle"}]))),
    Claim("the queen should not show a worker's token",
          (logged("tok-en"), answer("/v2/nodes", 200, {"nodes": ["tok-en"]}), no_handoff)),
    Claim('pool "pool-0" should still be ready',
          (processes(1), pool(state="unready"), replica(state="crashed"), another_process, lambda scene: scene.world.engines.clear()),
          lambda scene: scene.world.engines.update(r0=dict(scene.replica))),
    Claim("the hive should be registered with the queen", (answer("/v2/state", 200, {"registered": False}),)),
    # observability
    Claim('the metric "skep_x" of pool "pool-0" should become 1', (metrics('skep_x{pool_id="pool-0"} 2'), metrics('skep_x{pool_id="p"} 1'))),
    Claim('the metric "skep_x" of pool "pool-0" with outcome "ready" should become 1',
          (metrics('skep_x{pool_id="pool-0",outcome="ready"} 0'), metrics('skep_x{pool_id="pool-0",outcome="no"} 1'))),
    Claim('the metric "skep_x" should be above 0', (metrics("skep_x 0"), metrics("skep_y 1"))),
    Claim('the metric "skep_x" of device "FAKE-0" should become 1', (metrics('skep_x{device_id="FAKE-0"} 2'), metrics('skep_x{device_id="F"} 1'))),
    Claim("every metric of ours should name its node", (metrics("skep_x 1"), metrics("other 1"))),
    Claim('the log should have an event of pool "pool-0" with every field',
          (logged(""), logged('{"event":"pool_event","pool_id":"pool-0"}\n'), logged('{"event":"other","pool_id":"pool-0"}\n'))),
    Claim('the log should tell the verdict on pool "pool-0" with every field',
          (logged(""), *(verdict_logged(name) for name in ("replica_id", "restart_count", "backoff_s", "last_error", "device_mask")),
           verdict_logged(restart_count=3), verdict_logged(backoff_s=0), verdict_logged(last_error={"code": ""})), verdict_logged()),
    Claim('the log should tell pool "pool-0" as "ready" at last',
          (logged(""), logged('{"event":"pool_event","pool_id":"pool-0","kind":"pool","transition":"drain","state":"offline"}\n'))),
    Claim('the log should tell the replicas of pool "pool-0" as "stopped" at last',
          (logged(""), logged(REPLICA.replace("STATE", "failed")), logged(REPLICA.replace("STATE", "stopped") + REPLICA.replace("STATE", "failed"))),
          logged(REPLICA.replace("STATE", "stopped"))),
    Claim('the events of pool "pool-0" should have ids that grow by one', (events(), events(0, 2))),
    # gateway
    Claim('the gateway should list the model "m"', (answer("/v1/models", 200, {"data": []}), answer("/v1/models", 503, {"data": []}))),
    Claim("the completion should have text and usage",
          (answered(500, {}), answered(200, {"choices": [{"text": ""}], "usage": {"completion_tokens": 1}}),
           answered(200, {"choices": [{"text": "x"}], "usage": {"completion_tokens": 0}})),
          answered(200, {"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}})),
    Claim("the stream should have one role, text, one finish and one end mark",
          (stream(ROLE, TEXT, END), stream(ROLE, TEXT, END, "[DONE]", "[DONE]"), stream(TEXT, END, "[DONE]"),
           stream(ROLE, END, "[DONE]"), stream(ROLE, TEXT, "[DONE]"), stream(ROLE, TEXT, END, END, "[DONE]")),
          stream(ROLE, TEXT, END, "[DONE]")),
    Claim('the gateway should refuse with status 400 and code "bad"',
          (answered(404, ERROR), answered(400, {"error": {**ERROR["error"], "code": "other"}}),
           answered(400, {"error": {"code": "bad", "message": "no"}})), answered(400, ERROR)),
]  # fmt: skip


def told(scene: Any, *changes: Change) -> None:
    """Make the changes and publish them; what a change has put straight into an answer or the log stays."""
    for change in changes:
        before, log = dict(scene.answers), scene.world.hive.log.read_text()
        change(scene)
        direct = {path: found for path, found in scene.answers.items() if before.get(path) is not found}
        written = scene.world.hive.log.read_text()
        scene.tell()
        scene.answers.update(direct)
        if written != log:
            scene.world.hive.log.write_text(written)


@pytest.mark.parametrize("each", CLAIMS, ids=lambda each: each.text)
def test_a_claim_passes_where_it_holds(scene, claim, each: Claim) -> None:
    told(scene, each.true)
    claim(each.text, world=scene.world)


@pytest.mark.parametrize(
    ("each", "lie"),
    [
        pytest.param(each, lie, id=f"{each.text}-{index}")
        for each in CLAIMS
        for index, lie in enumerate(each.lies)
    ],
)
def test_a_claim_fails_where_it_does_not_hold(scene, claim, each: Claim, lie: Change) -> None:
    told(scene, each.true)
    told(scene, lie)
    with pytest.raises(AssertionError):
        claim(each.text, world=scene.world)


def test_every_then_of_the_library_has_a_claim(unclaimed) -> None:
    assert unclaimed([each.text for each in CLAIMS], except_of=ELSEWHERE) == []
