"""Pools: preload, readiness, drain, reload, idle."""

import http.client
import json
from itertools import pairwise
from urllib.parse import urlsplit

from pytest_bdd import given, parsers, then, when

from skep.testkit.fleet.ask import ASK_S_MAX
from skep.testkit.steps.assertions import assert_cause, assert_passed_through, assert_status
from skep.testkit.world import World


@given(parsers.parse('pool "{pool_id}" is declared with model "{model}" on devices "{mask}"'))
def pool_is_declared(world: World, pool_id: str, model: str, mask: str) -> None:
    """Declare a pool and do not load it."""
    assert_status(world.declare(pool_id, model, devices=mask), 202)


@given(parsers.parse('pool "{pool_id}" is declared with {replicas:d} replicas of model "{model}"'))
def pool_is_declared_with(world: World, pool_id: str, replicas: int, model: str) -> None:
    """Declare a pool of several replicas and do not load it."""
    assert_status(world.declare(pool_id, model, replicas=replicas), 202)


@when(parsers.re(r'I preload pool "(?P<pool_id>[^"]+)" with model "(?P<model>[^"]+)"'))
def preload_with_model(world: World, pool_id: str, model: str) -> None:
    """Declare a pool and load it."""
    assert_status(world.declare(pool_id, model), 202)
    assert_status(world.act(pool_id, "preload"), 202)


@when(
    parsers.parse(
        'I preload pool "{pool_id}" with model "{model}" that unloads after {seconds:g} idle seconds'
    )
)
def preload_with_ttl(world: World, pool_id: str, model: str, seconds: float) -> None:
    """Declare a pool that scales to zero, and load it."""
    assert_status(world.declare(pool_id, model, ttl_s=seconds), 202)
    assert_status(world.act(pool_id, "preload"), 202)


@when(parsers.re(r'I preload pool "(?P<pool_id>[^"]+)"( again)?'))
def preload(world: World, pool_id: str) -> None:
    """Load a declared pool."""
    world.act(pool_id, "preload")


@when(parsers.parse('a job of {count:d} tokens runs on pool "{pool_id}"'))
def job_runs(world: World, count: int, pool_id: str) -> None:
    """Stream from a worker and read no further than the stream's first bytes: the job goes on."""
    world.until_ready(pool_id)
    handoff = next(each for name, each in world.lab.handoffs().items() if name.startswith(f"{pool_id}-"))
    split = urlsplit(handoff["url"])
    connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=ASK_S_MAX)
    world.lab.connections.append(connection)
    body = {"model": handoff["model"]["name"], "prompt": "Once", "max_tokens": count, "stream": True}
    headers = {"content-type": "application/json", "authorization": f"Bearer {handoff['token']}"}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    reply = connection.getresponse()
    assert reply.status == 200, reply.read(600)
    assert reply.read(1), "the stream ended before it began"
    world.seen["stream"] = reply


@when(parsers.parse('I drain pool "{pool_id}" within {seconds:g} s'))
def drain(world: World, pool_id: str, seconds: float) -> None:
    """Drain: jobs that still run after the deadline are cancelled."""
    assert_status(world.act(pool_id, "drain", {"deadline_ms": int(seconds * 1000)}), 202)


@when(parsers.parse('I reload pool "{pool_id}" with model "{model}"'))
def reload(world: World, pool_id: str, model: str) -> None:
    """Put another model in a pool's place."""
    world.need_backend_of(model)
    assert_status(world.act(pool_id, "reload", {"model": model}), 202)


@when(parsers.parse('I delete pool "{pool_id}"'))
def delete(world: World, pool_id: str) -> None:
    """End and forget a pool."""
    assert_status(world.ask(f"/v2/pools/{pool_id}?deadline_ms=1000", method="DELETE"), 202)


@then(parsers.parse('the pool state should be "{state}"'))
def the_pool_state(world: World, state: str) -> None:
    """Hold the state of the scenario's latest pool: now, or since the latest action."""
    assert_passed_through(world, _latest(world), state)


@then(parsers.parse('the pool state should transition to "{state}"'))
def the_pool_transitions(world: World, state: str) -> None:
    """Wait for a state of the scenario's latest pool."""
    found = world.until_pool(_latest(world), lambda pool: pool["state"] == state, what=f"becomes {state}")
    assert found["state"] == state


@then(parsers.parse('pool "{pool_id}" should become "{state}"'))
def pool_becomes(world: World, pool_id: str, state: str) -> None:
    """Wait for a state of a pool."""
    found = world.until_pool(pool_id, lambda pool: pool["state"] == state, what=f"becomes {state}")
    assert found["state"] == state


@then(parsers.parse('pool "{pool_id}" should have gone through "{states}"'))
def pool_went_through(world: World, pool_id: str, states: str) -> None:
    """Hold the states since the latest action, in this order, others between them or not."""
    wanted = [each.strip() for each in states.split(",")]
    seen = world.states(pool_id)
    rest = iter(seen)
    assert all(state in rest for state in wanted), f"{pool_id} went through {seen}, not through {wanted}"


@then(parsers.parse('pool "{pool_id}" should have gone straight from "{before}" to "{after}"'))
def pool_went_straight(world: World, pool_id: str, before: str, after: str) -> None:
    """Hold that the latest action led from one state to the other, with none between them."""
    seen = world.states(pool_id)
    assert (before, after) in pairwise(seen), f"{pool_id} went through {seen}"


@then(parsers.parse('pool "{pool_id}" should not be ready before its model was loaded'))
def not_ready_early(world: World, pool_id: str) -> None:
    """Hold the order of events: a replica proved itself, and only then was the pool ready."""
    events = world.events(pool_id)
    proved = [
        each["id"] for each in events if each["kind"] == "replica" and each["facts"].get("event") == "proved"
    ]
    ready = [each["id"] for each in events if each["kind"] == "pool" and each["facts"]["state"] == "ready"]
    assert proved, f"no replica of {pool_id} has proved itself"
    assert ready, f"{pool_id} was never ready"
    assert proved[0] < ready[0], f"ready at event {ready[0]}, proved only at {proved[0]}"


@then(parsers.parse('pool "{pool_id}" should tell the cause "{code}"'))
def pool_tells_cause(world: World, pool_id: str, code: str) -> None:
    """Wait until the status tells why the pool does not serve."""
    found = world.until_pool(
        pool_id, lambda pool: (pool["last_error"] or {}).get("code") == code, what=f"tells the cause {code}"
    )
    assert_cause(found["last_error"], code)
    assert not found["ready"]


@then(parsers.parse('the readiness of the hive should name pool "{pool_id}" and "{text}"'))
def readiness_names(world: World, pool_id: str, text: str) -> None:
    """Hold that GET /ready is 503 and says why."""
    answer = assert_status(world.ask("/ready"), 503)
    assert text in answer.body["waiting"].get(pool_id, ""), answer.text


@then("the hive should be ready")
def hive_is_ready(world: World) -> None:
    """Hold that GET /ready is 200."""
    assert assert_status(world.ask("/ready"), 200).body == {"ready": True, "waiting": {}}


@then(parsers.parse('pool "{pool_id}" should never have started a process'))
def never_spawned(world: World, pool_id: str) -> None:
    """Hold that nothing was spawned: a refusal came before."""
    spawned = [
        each for each in world.events(pool_id, kind="replica") if each["facts"].get("event") == "spawned"
    ]
    assert not spawned, spawned
    assert world.lab.worker_pids() == []


@then(parsers.parse('pool "{pool_id}" should have a retry planned'))
def retry_planned(world: World, pool_id: str) -> None:
    """Wait until the pool says when it tries again, or has tried again."""
    found = world.until_pool(
        pool_id,
        lambda pool: pool["retry_at_s"] is not None or "provisioning" in world.states(pool_id)[1:],
        what="has a retry planned",
    )
    assert found["state"] in {"unready", "provisioning"}, found["state"]


@then(parsers.parse('the last drain of pool "{pool_id}" should have cancelled {jobs:d} jobs'))
def drain_cancelled(world: World, pool_id: str, jobs: int) -> None:
    """Hold the outcome of the drain."""
    outcome = world.pool(pool_id)["last_drain"]
    assert outcome, "no drain is told"
    assert outcome["jobs_cancelled"] == jobs, outcome
    assert {"force_stopped", "duration_ms"} <= outcome.keys(), outcome


@then(parsers.parse('the last reload of pool "{pool_id}" should be "{outcome}"'))
def reload_outcome(world: World, pool_id: str, outcome: str) -> None:
    """Wait for the outcome of the reload."""
    found = world.until_pool(
        pool_id,
        lambda pool: (pool["last_reload"] or {}).get("outcome") == outcome,
        what=f"tells a reload {outcome}",
    )
    assert found["last_reload"]["outcome"] == outcome


@then(parsers.parse('pool "{pool_id}" should serve model "{model}"'))
def pool_serves(world: World, pool_id: str, model: str) -> None:
    """Wait until every replica of a ready pool serves this model."""
    found = world.until_ready(pool_id)
    assert {each["model"] for each in found["replicas"]} == {model}, found["replicas"]


@then(parsers.parse('no process of pool "{pool_id}" should be left'))
def no_process_left(world: World, pool_id: str) -> None:
    """Wait until every worker is gone."""
    world.lab.until(lambda: not world.lab.worker_pids(), what=f"no process of {pool_id} is left")
    assert world.lab.worker_pids() == []


@then(parsers.parse('pool "{pool_id}" should be unknown'))
def pool_unknown(world: World, pool_id: str) -> None:
    """Wait until the hive has forgotten a pool."""
    world.lab.until(lambda: world.ask(f"/v2/pools/{pool_id}").status == 404, what=f"{pool_id} is forgotten")
    assert world.ask(f"/v2/pools/{pool_id}").status == 404


def _latest(world: World) -> str:
    assert world.marks, "no pool was declared"
    return list(world.marks)[-1]
