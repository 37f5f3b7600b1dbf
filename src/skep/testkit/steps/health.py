"""Probes, crashes, restarts, backoff, breaker, storm."""

import os
import signal

from pytest_bdd import parsers, then, when

from skep.testkit.world import World

JOBS_MAX = 8
"""A worker gives up after a few failed decodes in a row."""


@when(parsers.parse('a worker of pool "{pool_id}" is killed'))
def worker_killed(world: World, pool_id: str) -> None:
    """SIGKILL one worker."""
    _signal(world, pool_id, signal.SIGKILL)


@when(parsers.parse('a worker of pool "{pool_id}" hangs'))
def worker_hangs(world: World, pool_id: str) -> None:
    """SIGSTOP one worker: it is there, and does not answer."""
    _signal(world, pool_id, signal.SIGSTOP)


@when(parsers.parse('a worker of pool "{pool_id}" stalls until it is suspected'))
def worker_stalls(world: World, pool_id: str) -> None:
    """SIGSTOP one worker, and SIGCONT it as soon as a probe was missed."""
    _signal(world, pool_id, signal.SIGSTOP)
    _until_suspect(world, pool_id)
    os.kill(world.seen["victim"]["pid"], signal.SIGCONT)


@when(parsers.parse('a worker of pool "{pool_id}" hangs, and dies while it is suspected'))
def worker_hangs_and_dies(world: World, pool_id: str) -> None:
    """SIGSTOP one worker, and SIGKILL it as soon as a probe was missed."""
    _signal(world, pool_id, signal.SIGSTOP)
    _until_suspect(world, pool_id)
    os.kill(world.seen["victim"]["pid"], signal.SIGKILL)


@when(parsers.parse('a worker of pool "{pool_id}" meets a device error'))
def worker_device_error(world: World, pool_id: str) -> None:
    """Send jobs to a model whose script fails on the device, until the worker gives up or is taken out."""
    world.engines = {each["replica_id"]: each for each in world.until_ready(pool_id)["replicas"]}
    handoff = world.lab.handoffs()[f"{pool_id}-r0.json"]
    from skep.testkit.fleet.ask import ask

    world.mark(pool_id)
    body = {"model": handoff["model"]["name"], "prompt": "Hello", "max_tokens": 8}
    for _ in range(JOBS_MAX):
        try:
            world.last_response = ask(handoff["url"], "/v1/completions", body, token=handoff["token"])
        except OSError:
            return  # It is gone already.


@when(parsers.parse('I reset pool "{pool_id}"'))
def reset(world: World, pool_id: str) -> None:
    """Forgive the failures by hand."""
    assert world.act(pool_id, "reset").status == 202


@then(parsers.parse('pool "{pool_id}" should replace the worker, with the reason "{reason}"'))
def worker_replaced(world: World, pool_id: str, reason: str) -> None:
    """Wait for a new process in the lost one's place; hold that the verdict has this reason."""
    lost = world.seen["victim"]
    found = world.until_pool(
        pool_id,
        lambda pool: any(
            each["replica_id"] == lost["replica_id"]
            and each["state"] == "ready"
            and each["pid"] != lost["pid"]
            for each in pool["replicas"]
        ),
        what="has replaced its worker",
    )
    again = next(each for each in found["replicas"] if each["replica_id"] == lost["replica_id"])
    assert again["instance"] != lost["instance"], "the new worker has the old one's nonce"
    assert again["restart_count"] == lost["restart_count"] + 1, again
    reasons = [each["verdict"]["reason"] for each in world.ask(f"/v2/pools/{pool_id}/why").body["verdicts"]]
    assert reasons[-1] == reason, reasons


@then(parsers.parse('the verdicts of pool "{pool_id}" should have the reason "{reason}"'))
def verdict_reason(world: World, pool_id: str, reason: str) -> None:
    """Wait for a verdict with this reason."""
    reasons = world.lab.until(
        lambda: [each for each in _verdicts(world, pool_id) if each["reason"] == reason],
        what=f"{pool_id} has a verdict {reason}",
    )
    assert reasons[0]["because"], "the verdict does not say why"


@then(parsers.parse('pool "{pool_id}" should wait longer after each failure'))
def backoff_grows(world: World, pool_id: str) -> None:
    """Wait for three verdicts; hold that each delay is about double the one before, from about 1 s, ±10 %."""
    verdicts = world.lab.until(
        lambda: found if len(found := _verdicts(world, pool_id)) >= 3 else None,
        what=f"{pool_id} failed three times",
    )
    delays = [each["delay_s"] for each in verdicts[:3]]
    expected = [1.0, 2.0, 4.0]
    assert all(0.9 * want <= got <= 1.1 * want for got, want in zip(delays, expected, strict=True)), delays


@then(parsers.parse('pool "{pool_id}" should wait twice as long after a device error'))
def device_backoff(world: World, pool_id: str) -> None:
    """Hold the delay of the first verdict after a device error: 2 s ±10 %."""
    verdict = world.lab.until(
        lambda: next((each for each in _verdicts(world, pool_id) if each["reason"] == "device_error"), None),
        what=f"{pool_id} has a verdict device_error",
    )
    assert 1.8 <= verdict["delay_s"] <= 2.2, verdict


@then(parsers.parse('a storm should open the breaker of pool "{pool_id}"'))
def storm_opens(world: World, pool_id: str) -> None:
    """Wait for the storm's verdict; hold that it counts and that a replica is held."""
    found = world.until_pool(
        pool_id,
        lambda pool: any(each["state"] == "held" for each in pool["replicas"]),
        what="holds a replica",
        within_s=90,
    )
    storms = [each for each in _verdicts(world, pool_id) if each["is_storm"]]
    assert storms, _verdicts(world, pool_id)
    assert storms[0]["breaker"] == "open", storms[0]
    assert any(each["breaker"] == "open" for each in found["replicas"])
    assert world.metric("skep_storm_total", pool_id=pool_id) >= 1


@then(parsers.parse('pool "{pool_id}" should try again at once'))
def tries_again(world: World, pool_id: str) -> None:
    """Hold that a reset starts a replica without waiting for the breaker."""
    started = world.lab.until(
        lambda: [
            each
            for each in world.events(pool_id, kind="replica")
            if each["facts"].get("event") in {"reset", "spawned"}
        ],
        what=f"{pool_id} tries again",
        within_s=10,
    )
    wrong = [each["facts"] for each in started if each["facts"].get("state") != "starting"]
    assert not wrong, wrong


@then(parsers.parse('the worker of pool "{pool_id}" should be forgiven'))
def worker_forgiven(world: World, pool_id: str) -> None:
    """Wait until the same process is ready again; hold that nothing was restarted."""
    lost = world.seen["victim"]
    found = world.until_pool(
        pool_id,
        lambda pool: any(
            each["state"] == "ready" and each["pid"] == lost["pid"] for each in pool["replicas"]
        ),
        what="has forgiven its worker",
    )
    again = next(each for each in found["replicas"] if each["pid"] == lost["pid"])
    assert again["restart_count"] == lost["restart_count"], again
    told = [each["facts"].get("event") for each in world.events(pool_id, kind="replica")]
    assert "probe_answered" in told, told


@then("the neighbours should not have been touched")
def neighbours_kept(world: World) -> None:
    """Hold that the other workers are the same processes."""
    lost = world.seen["victim"]["pid"]
    others = {each["pid"] for each in world.engines.values()} - {lost}
    assert others, "there was no neighbour"
    assert others <= set(world.lab.worker_pids())


def _signal(world: World, pool_id: str, number: signal.Signals) -> None:
    replicas = world.until_ready(pool_id)["replicas"]
    world.engines = {each["replica_id"]: each for each in replicas}
    world.seen["victim"] = replicas[0]
    world.mark(pool_id)
    os.kill(replicas[0]["pid"], number)


def _until_suspect(world: World, pool_id: str) -> None:
    world.lab.until(
        lambda: any(
            each["facts"].get("event") == "probe_missed" for each in world.events(pool_id, kind="replica")
        ),
        what=f"a worker of {pool_id} is suspected",
    )


def _verdicts(world: World, pool_id: str) -> list[dict[str, object]]:
    return [each["verdict"] for each in world.ask(f"/v2/pools/{pool_id}/why").body["verdicts"]]
